"""Whether a run that is to be gone on with has been finished already."""

from pathlib import Path

from hpc_lpm.engine.result import RunResult
from hpc_lpm.engine.settings import computing_settings, first_difference
from hpc_lpm.errors import InputError


def finished_result(
    path: Path, settings: dict[str, object], cuts: list[int], ranks: int
) -> RunResult | None:
    """Return the result at `path` if it is that of these settings on this partition, else None.

    Args:
        path: of `result.json`, which need not be there.
        settings: as of `computing_settings`.
        cuts: of the plan.
        ranks: that were started.
    """
    if not path.exists():
        return None
    try:
        result = RunResult.read(path)
    except InputError:
        return None
    if (result.cuts, result.ranks) != (cuts, ranks):
        return None
    return None if first_difference(computing_settings(result.settings), settings) else result
