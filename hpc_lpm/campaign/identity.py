"""What a trial is computed from: the record by which campaigns tell their runs apart."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

from hpc_lpm.campaign.fingerprints import Fingerprints
from hpc_lpm.campaign.folder import Hashes
from hpc_lpm.engine.settings import TrainSettings, settings_fields
from hpc_lpm.files import VersionedFile
from hpc_lpm.options import flatten_settings

IDENTITY = "identity.json"
"""The file in the folder of a run that tells what it is computed from."""

DIGITS = 10
"""Hexadecimal digits of the hash in a name: enough for the trials that one campaign ever has."""


class Identity(VersionedFile):
    """`identity.json`: everything that a trial, a plan or a profile is computed from.

    `settings` are those of the run under dotted names, `plan` is how its plan is asked for,
    `placement` how and where its ranks are started, and `files` has the hash of each file, folder,
    data set and module of the user's own. `tuning` is how its settings are searched for: names of
    folders have the hash of that and of the settings before, and the record in the folder of a run
    the settings that were chosen. `digest` is the hash of all of it, save for options that
    are off: an option of a later release that is off by default changes nothing.
    """

    kind: ClassVar[str] = "record of what a run is computed from"

    settings: dict[str, Any]
    plan: dict[str, Any]
    placement: dict[str, Any]
    files: dict[str, str]
    tuning: dict[str, Any] = Field(default_factory=dict)
    digest: str

    @classmethod
    def of(
        cls,
        settings: Mapping[str, Any],
        *,
        plan: Mapping[str, Any] | None = None,
        placement: Mapping[str, Any] | None = None,
        files: Mapping[str, str] | None = None,
        tuning: Mapping[str, Any] | None = None,
        off: Mapping[str, Any] | None = None,
    ) -> Self:
        """Return the identity of what is computed from all this.

        `off` holds the values that leave a setting out of the hash.
        """
        parts: list[dict[str, Any]] = [
            dict(each or {}) for each in (settings, plan, placement, files)
        ]
        off = off or {}
        on = {k: v for k, v in parts[0].items() if k not in off or off[k] != v}
        searched = dict(tuning or {})
        hashed = [on, *parts[1:], *([searched] if searched else [])]
        digest = hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()[:DIGITS]
        return cls(
            settings=parts[0],
            plan=parts[1],
            placement=parts[2],
            files=parts[3],
            tuning=searched,
            digest=digest,
        )

    def chosen(self, settings: Mapping[str, Any], style: str | None) -> Self:
        """Return the identity of a run whose tuning has chosen these settings and launch style."""
        placement = {**self.placement, **({"style": style} if style else {})}
        return type(self).of(
            settings, plan=self.plan, placement=placement, files=self.files, tuning=self.tuning
        )

    def changes_to(self, now: "Identity") -> list[str]:
        """Return in words what differs, such as `optimizer.lr changed from 0.1 to 0.01`."""
        found: list[str] = []
        for what, before, after in (
            ("", self.settings, now.settings),
            ("of its plan ", self.plan, now.plan),
            ("of its ranks ", self.placement, now.placement),
            ("of its tuning ", self.tuning, now.tuning),
        ):
            for key in dict.fromkeys([*after, *before]):
                if before.get(key) != after.get(key):
                    values = f"from {_text(before.get(key))} to {_text(after.get(key))}"
                    found.append(f"{key} {what}changed {values}")
        for label in dict.fromkeys([*now.files, *self.files]):
            if label not in self.files:
                found.append(f"{label} is used now")
            elif label not in now.files:
                found.append(f"{label} is used no longer")
            elif self.files[label] != now.files[label]:
                found.append(f"{label} changed")
        return found


class NamedFiles(BaseModel):
    """Files that something is computed from, and the hash of what they hold.

    Where `listed`, the hash is that of their names, sizes and times alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    paths: tuple[Path, ...]
    listed: bool
    sha256: str

    @classmethod
    def hashed(cls, paths: Iterable[Path], fingerprints: Fingerprints, *, listed: bool) -> Self:
        """Hash files as they are now."""
        absolute = tuple(path.absolute() for path in paths)
        found = fingerprints.of_listing(absolute) if listed else fingerprints.of(absolute)
        return cls(paths=absolute, listed=listed, sha256=found)

    def changed(self, fingerprints: Fingerprints) -> bool:
        """Tell if they are no longer what they were."""
        return self != self.hashed(self.paths, fingerprints, listed=self.listed)


class Identities(BaseModel):
    """What every trial, plan, profile and tuning of a campaign is computed from, by name.

    `files` has the files behind each label of `Identity.files`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    runs: dict[str, Identity]
    plans: dict[str, Identity]
    profiles: dict[str, Identity]
    tuned: dict[str, Identity] = Field(default_factory=dict)
    files: dict[str, NamedFiles]

    def hashes(self) -> Hashes:
        """Return the hashes alone."""
        return Hashes(
            **{
                kind: {name: each.digest for name, each in getattr(self, kind).items()}
                for kind in ("runs", "plans", "profiles", "tuned")
            }
        )


def result_settings(settings: TrainSettings) -> dict[str, Any]:
    """Return the settings that the results of a run depend on, under dotted names."""
    fields = settings_fields(settings.strategy)
    free = {".".join(field.path) for field in fields if not field.option.in_results}
    document = flatten_settings(settings.model_dump(mode="json"))
    return {name: value for name, value in document.items() if name not in free}


def settings_off(strategy: str) -> dict[str, Any]:
    """Return the settings that are off by default, with the value that means so."""
    defaults = {
        ".".join(field.path): field.info.get_default(call_default_factory=True)
        for field in settings_fields(strategy)
        if not field.info.is_required()
    }
    plain = json.loads(json.dumps(defaults, default=str))
    return {name: value for name, value in plain.items() if not value}


def _text(value: object) -> str:
    if value is None or value in ([], {}):
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
