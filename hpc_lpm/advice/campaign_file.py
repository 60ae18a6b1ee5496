"""The campaign that races the first strategies of a ranking against each other."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import yaml

from hpc_lpm.advice.ranking import Ranked, Ranking
from hpc_lpm.advice.subject import Subject, own_options
from hpc_lpm.campaign.config import campaign_from_document
from hpc_lpm.campaign.validation import check_names
from hpc_lpm.engine.strategies.registry import DEFAULT_STRATEGY
from hpc_lpm.files import write_text_atomically

RACED = 3
"""How many strategies are raced."""

STEPS, REPEATS = 40, 3
"""The optimizer steps of a run, and how often each is run."""

_COMMENT_COLUMNS = 98
_SHARED = ("data_dir", "loss", "precision", "memory_format", "optimizer")


def campaign_document(name: str, ranking: Ranking, subject: Subject) -> dict[str, Any]:
    """Return the keys of a campaign that races the first strategies, each in its best way."""
    case, raced = ranking.case, ranking.ranked[:RACED]
    document: dict[str, Any] = {
        "name": name,
        "models": [subject.shared["model"]],
        "datasets": [subject.shared["dataset"]],
        "strategies": [_contestant(each, case.memory_limit) for each in raced],
        "stages": case.devices,
        "batch_size": case.batch_size,
        "micro_batches": raced[0].forecast.micro_batches,
        **{key: subject.shared[key] for key in _SHARED if subject.shared.get(key) is not None},
        "steps": STEPS,
        "repeats": REPEATS,
        "seeds": [0],
    }
    if case.nodes is not None:
        document["resources"] = {"nodes": -(-case.devices // case.nodes.devices)}
    return document


def check_campaign_file(path: Path, model: str, dataset: str) -> None:
    """Check, before anything is measured, that a campaign may be called as its file is.

    Raises:
        InputError: if not.
    """
    raced = {"models": [model], "datasets": [dataset], "strategies": [DEFAULT_STRATEGY]}
    campaign_from_document({"name": path.stem, **raced, "steps": STEPS}, str(path))


def write_campaign(path: Path, ranking: Ranking, subject: Subject, reasons: Sequence[str]) -> None:
    """Write the campaign, checked, with the reasons for the order as comments.

    Raises:
        InputError: if the file's name is no name of a campaign, or the campaign is not accepted.
        OSError: if the file cannot be written.
    """
    document = campaign_document(path.stem, ranking, subject)
    check_names(campaign_from_document(document, str(path)), str(path))
    said = [
        f"The first {len(document['strategies'])} strategies that `hpc-lpm advise` names for "
        f"{subject.model.name} on {ranking.case.devices} devices.",
        *reasons,
    ]
    comments = "".join(
        f"# {line}\n" for sentence in said for line in wrap(sentence, _COMMENT_COLUMNS)
    )
    keys = yaml.safe_dump(document, sort_keys=False, default_flow_style=None, allow_unicode=True)
    write_text_atomically(path, comments + keys)


def _contestant(each: Ranked, memory_limit: int | None) -> dict[str, dict[str, Any]]:
    forecast = each.forecast
    settings: dict[str, Any] = {
        "micro_batches": forecast.micro_batches,
        **own_options(each.strategy, forecast),
    }
    if forecast.cuts and forecast.replicas > 1:
        settings["replicas"] = forecast.replicas
    if forecast.cuts and (memory_limit is not None or each.strategy.lone_crossing):
        # Plans of a campaign know no limit, and not what crosses.
        settings["cuts"] = list(forecast.cuts[1:-1])
    return {each.name: settings}
