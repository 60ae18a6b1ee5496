"""How comparable two campaigns are: what differs in settings, source, machine and software."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hpc_lpm.campaign.config import Campaign
from hpc_lpm.campaign.environment import read_environment
from hpc_lpm.campaign.results import CampaignResults
from hpc_lpm.options import flatten_settings

_NOT_IN_A_RUN = {"name", "expect", "resources"}
"""Keys of a campaign that do not reach its runs."""

_UNTOLD = "not known"


@dataclass(frozen=True)
class Difference:
    """Something that differs, with its value in A and in B."""

    what: str
    a: str
    b: str

    def text(self) -> str:
        """Return e.g. `cores: 2 in A, 4 in B`."""
        return f"{self.what}: {self.a} in A, {self.b} in B"


@dataclass(frozen=True)
class Comparability:
    """What differs between two campaigns in the settings of runs, source, machine and software.

    An empty list means that nothing differs, None that a campaign has no record of it.
    """

    configuration: list[Difference]
    source: list[Difference] | None
    machine: list[Difference] | None
    software: list[Difference] | None

    def parts(self) -> dict[str, list[Difference] | None]:
        """Return each of the four under its name in sentences."""
        return {
            "configuration": self.configuration,
            "source revision": self.source,
            "machine": self.machine,
            "software": self.software,
        }

    @property
    def complete(self) -> bool:
        """Whether everything is recorded and nothing differs."""
        return all(part == [] for part in self.parts().values())


def comparability_of(first: CampaignResults, second: CampaignResults) -> Comparability:
    """Compare the records of two campaigns."""
    configuration = _differences(_settings(first.campaign), _settings(second.campaign))
    a, b = (read_environment(results.folder.environment) for results in (first, second))
    if a is None or b is None:
        return Comparability(configuration, None, None, None)
    return Comparability(
        configuration=configuration,
        source=_source(a, b),
        machine=_differences(_machine(a), _machine(b)),
        software=_differences(_software(a), _software(b)),
    )


def _settings(campaign: Campaign) -> dict[str, object]:
    return flatten_settings(campaign.model_dump(mode="json", exclude=_NOT_IN_A_RUN))


def _source(a: dict[str, Any], b: dict[str, Any]) -> list[Difference] | None:
    """Compare the revisions of the toolkit, and those of the folders that the campaigns ran in."""
    found: list[Difference] | None = None
    keys = {"revision": "revision", "diff_sha256": "uncommitted changes"}
    for part, suffix in (("git", ""), ("study", " of the study")):
        sources = [_with_untold_changes(environment.get(part) or {}) for environment in (a, b)]
        if all(source.get("revision") for source in sources):
            shown = (
                {f"{name}{suffix}": git.get(key) for key, name in keys.items()} for git in sources
            )
            differences = _differences(*shown)
            # Of two whose changes git did not tell, nobody knows that they are the same.
            if differences or all(source.get("diff_sha256") != _UNTOLD for source in sources):
                found = (found or []) + differences
    return found


def _with_untold_changes(source: dict[str, Any]) -> dict[str, Any]:
    """Return the record of a source, with a word for changes that git did not tell of."""
    untold = source.get("revision") and source.get("dirty", False) is None
    return {**source, "diff_sha256": _UNTOLD} if untold else source


def _machine(environment: dict[str, Any]) -> dict[str, object]:
    processor = environment.get("processor", {})
    flags = {f"processor flag {flag}": "yes" for flag in processor.get("Flags", "").split()}
    return {
        "processor": processor.get("Model name"),
        "cores": environment.get("cores"),
        "host": environment.get("host"),
        **flags,
    }


def _software(environment: dict[str, Any]) -> dict[str, object]:
    return {
        "Python": environment.get("python"),
        "MPI": environment.get("mpi", {}).get("version"),
        "kernel": environment.get("kernel"),
        **environment.get("packages", {}),
    }


def _differences(a: Mapping[str, object], b: Mapping[str, object]) -> list[Difference]:
    return [
        Difference(key, _text(a.get(key)), _text(b.get(key)))
        for key in dict.fromkeys([*a, *b])
        if a.get(key) != b.get(key)
    ]


def _text(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        return ", ".join(_text(part) for part in value) or "none"
    return str(value)
