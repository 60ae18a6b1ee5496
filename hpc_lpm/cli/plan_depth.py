"""What depth costs the candidates of `hpc-lpm plan --devices`: their lags and the steps' worth."""

from collections.abc import Sequence

from rich import box
from rich.table import Table

from hpc_lpm.planning.devices.candidates import Candidate
from hpc_lpm.schedules.base import WEIGHTS

_COLUMNS = (
    "schedule",
    "weights",
    "stages",
    "micro-\nbatches",
    "lag\nmean",
    "lag\nmost",
    "step\nworth",
    "\nlow",
    "\nhigh",
    "samples/s\nx worth",
)
_LEFT = {"schedule", "weights"}


def depth_table(candidates: Sequence[Candidate]) -> Table:
    """Return the table of what depth costs, one row for each candidate."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name in _LEFT else "right")
    for candidate in candidates:
        lags = WEIGHTS in candidate.model.schedule.own_options
        rate, worth = effective_rate(candidate), candidate.expected.worth
        table.add_row(
            candidate.model.schedule.name,
            candidate.model.options.weights if lags else "-",
            str(candidate.stages),
            str(candidate.micro_batches),
            f"{float(candidate.lag.mean):.2f}",
            str(candidate.lag.largest),
            "unknown" if worth.value is None else f"{worth.value:.2f}",
            *("-" if end is None else f"{end:.2f}" for end in (worth.low, worth.high)),
            "unknown" if rate is None else f"{rate:.1f}",
        )
    return table


def effective_rate(candidate: Candidate) -> float | None:
    """Return the samples per second that synchronous training would need to come as far.

    None where what a step is worth is unknown.
    """
    worth = candidate.expected.worth.value
    return None if worth is None else candidate.samples_per_second * worth


def depth_document(candidate: Candidate) -> dict[str, object]:
    """Return the same of one candidate for `--json`."""
    return {
        "schedule": candidate.model.options.schedule,
        "weights": candidate.model.options.weights,
        "lag_mean": float(candidate.lag.mean),
        "lag_largest": candidate.lag.largest,
        "step_worth": candidate.expected.worth.model_dump(mode="json"),
        "effective_samples_per_second": effective_rate(candidate),
    }
