"""Whether a run may write into a folder: what it would replace or remove there must be a run's."""

from collections.abc import Iterator
from pathlib import Path

from hpc_lpm.documents import DocumentError, parse_json
from hpc_lpm.engine.checkpoint.own_files import foreign_entries, is_removed
from hpc_lpm.engine.checkpoint.store import BEST, FOLDER
from hpc_lpm.engine.first_plan import PLAN, PROFILE
from hpc_lpm.engine.result import RESULT
from hpc_lpm.engine.run_reporter import METRICS
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.engine.strategies.registry import strategy_named
from hpc_lpm.engine.times import TRACE
from hpc_lpm.engine.watchdog import FOLDER as HANG
from hpc_lpm.engine.watchdog import is_own_report
from hpc_lpm.errors import InputError
from hpc_lpm.file_kinds import is_log, kind_of
from hpc_lpm.files import read_text

_LONGEST_LINE = 2**20
_BEGUN_TRACE, _BEGUN_FILE = '{"traceEvents": [', '{\n  "schema_version": '
"""What files of ours begin with, of which the rest may be lost."""


def check_run_folder(out: Path, settings: TrainSettings) -> None:
    """Check that a run removes and replaces nothing in its folder but what a run has written.

    Args:
        out: the folder, which need not exist.
        settings: of the run.

    Raises:
        InputError: naming the first file that is not a run's, or one that the run itself reads.
    """
    for path in _foreign(out, makes_plan=_makes_plan(settings)):
        raise InputError(
            f"--out {out} holds {path.relative_to(out)}, which no run of `hpc-lpm train` has "
            "written, where this run would write or remove files: name another folder, or move "
            "it away."
        )
    weights = settings.init_from
    if weights is not None and any(_lies_in(weights, out / name) for name in (FOLDER, BEST)):
        raise InputError(
            f"--init-from {weights} is a checkpoint in --out {out}, which this run would remove: "
            "name another --out, or copy the file to another place."
        )


def _foreign(out: Path, *, makes_plan: bool) -> Iterator[Path]:
    for name in (FOLDER, BEST):
        yield from foreign_entries(out / name)
    yield from _foreign_reports(out / HANG)
    is_own = {RESULT: _is_result, METRICS: _is_log, TRACE: _is_trace}
    if makes_plan:
        is_own |= {PROFILE: _is_profile, PLAN: _is_plan}
    for name, check in is_own.items():
        path = out / name
        if path.is_dir() or (path.exists() and not check(path)):
            yield path


def _makes_plan(settings: TrainSettings) -> bool:
    return settings.plan is None and strategy_named(settings.strategy).needs_plan


def _lies_in(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _foreign_reports(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return [folder] if folder.exists() else []
    entries = sorted(folder.iterdir())
    return [path for path in entries if not is_own_report(path) and not is_removed(path)]


def _is_result(path: Path) -> bool:
    return _is_of_kind(path, "result")


def _is_profile(path: Path) -> bool:
    return _is_of_kind(path, "profile")


def _is_plan(path: Path) -> bool:
    return _is_of_kind(path, "plan")


def _is_of_kind(path: Path, kind: str) -> bool:
    """Tell if a file is of a kind of ours, cut off or empty, as a full disk may leave it."""
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError):
        return False
    try:
        return not text or kind_of(parse_json(text)) == kind
    except DocumentError:
        return text.startswith(_BEGUN_FILE)


def _is_trace(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            return stream.read(len(_BEGUN_TRACE)) in {"", _BEGUN_TRACE}
    except OSError:
        return False


def _is_log(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            return is_log(iter(lambda: stream.readline(_LONGEST_LINE), ""))
    except OSError:
        return False
