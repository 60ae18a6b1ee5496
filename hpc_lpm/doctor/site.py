"""Checks that the cluster accepts what slurm/site.yaml asks of it, before any job is sent."""

from collections.abc import Mapping, Sequence

from hpc_lpm.cluster.site import FILE, Site
from hpc_lpm.doctor.container import try_container
from hpc_lpm.doctor.situation import Finding, Situation
from hpc_lpm.errors import InputError
from hpc_lpm.programs import Answer, ask, installed

_NAME = "site"


def check_site(situation: Situation) -> Finding:
    """Have Slurm say whether it would take a job with everything that the file asks for.

    Where the file names a container, two ranks are started in it besides.
    """
    try:
        site = Site.read(situation.folder)
    except InputError as error:
        return Finding(_NAME, "failed", str(error).rstrip("."), f"correct {FILE}")
    finding = _ask_slurm(site.as_command())
    if site.container is None or finding.verdict != "ok":
        return finding
    if wrong := try_container(site.container, site, situation):
        return Finding(_NAME, *wrong)
    also = f"; ranks start in the container {site.container.image} (tried)"
    return Finding(_NAME, "ok", finding.found + also)


def _ask_slurm(asked: Mapping[str, Sequence[str]]) -> Finding:
    if not installed("sbatch"):
        return Finding(_NAME, "ok", f"not tried: there is no Slurm here that {FILE} is for")
    together = _try([word for words in asked.values() for word in words])
    named = ", ".join(asked) or "nothing"
    if together.done:
        return Finding(_NAME, "ok", f"Slurm takes a job with what {FILE} says ({named})")
    if not _try([]).done:
        return Finding(
            _NAME,
            "warning",
            f"not tried: Slurm takes no job at all ({together.complaint()})",
            "mend what the check `slurm` reports",
        )
    alone = {key: _try(words) for key, words in asked.items()}
    refused = [f"{key} ({answer.complaint()})" for key, answer in alone.items() if not answer.done]
    what = ", ".join(refused) or f"{named} together ({together.complaint()})"
    return Finding(
        _NAME,
        "failed",
        f"Slurm refuses {what}",
        f"correct {FILE}; `memory: false` stands for jobs that must not say how much they need",
    )


def _try(words: Sequence[str]) -> Answer:
    return ask(["sbatch", "--test-only", "--ntasks=1", "--time=1", *words, "--wrap=true"])
