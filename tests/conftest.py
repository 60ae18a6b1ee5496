"""How the tests run beside each other, and what who adds one must know.

`make test` runs pytest in three processes on two cores (`-n 3 --dist loadscope`): one has the tests
of Slurm, which wait most of their time, one those that share ranks, the third all others, file by
file. `python -m pytest` without `-n` runs all of them one after the other, and any one by itself.

* Other tests run at the same time, and two runs of all tests may share the machine. Nothing has a
  fixed port, name of a cluster or folder: use `tmp_path`, ports that the system chooses and
  `tests.slurm.testbed.unused_name`. Nothing may be written to the checkout.
* Processes are found by something of their own among their arguments, such as `tmp_path`, and ended
  by their number. Whoever starts some ends them, also when the test fails.
* Cores are shared with other tests. Wait for what happens with a deadline of a minute or two, not
  for a second; compare times by the shortest of many or by processor time; never expect a speed.
  A limit of time is there to tell a hang, which lasts minutes.
* Parameters have the same names in every process: no sets, process numbers or dates among them.
* Starting ranks takes seconds of every core, a tiny training tenths of one. Give several cases to
  one call of `train_cases` (tests/mpi/test_exactness.py), whose ranks stay up and serve all tests.
  They are evaluated on a few samples of the test part unless a case asks to `evaluate_all`.
  What is meant to fail, to be stopped by a signal, or to run as a command is started by `mpirun`
  (tests/mpi/ranks.py).
* Tests of Slurm share one cluster by the fixture `shell`; what they change of it they mend. Their
  drivers of Snakemake look after jobs every second (tests/slurm/eager_snakemake.py).
"""

import gc
import signal
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).parents[1]
_OF_SHARED_RANKS = ("run_in_ranks", "train_cases", "run_cases")
"""Functions that a file names if its tests use ranks which stay up."""
_ORDER = (
    *("slurm", "ranks", "mpi", "workflow"),
    *("unit/test_code_style.py", "unit/test_documents_examples.py", "unit/test_plan_optimal.py"),
    *("unit/test_campaign_edits.py", "unit/test_setup.py", "unit/test_benchmark_delay.py"),
)
"""Folders, groups and files that take longest, which begin first.

No process is then left alone with a long one at the end.
"""
_LAST_OF_ITS_GROUP = "tests/mpi/test_emulated_devices.py"
"""Uses more ranks than may wait beside those of other tests, which would have to start again."""


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Of a script that starts pytest behind it: what tests start would ignore the interrupts, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@cache
def _group(file: str) -> str:
    """Return what one process has to run together with the tests of a file of tests/."""
    folder = file.split("/")[1]
    if folder == "slurm":
        return "slurm"
    if folder == "mpi" and any(name in (_ROOT / file).read_text() for name in _OF_SHARED_RANKS):
        return "ranks"
    return file.removeprefix("tests/")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand the tests out by groups."""
    from xdist.scheduler import LoadScopeScheduling

    class GroupScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid.split("::", maxsplit=1)[0])

    return GroupScheduling(config, log) if config.getoption("dist") == "loadscope" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the longest groups first where tests run side by side."""
    if hasattr(config, "workerinput"):
        places = {name: place for place, name in enumerate(_ORDER)}

        def place(item: pytest.Item) -> tuple[int, bool]:
            file = item.nodeid.split("::")[0]
            group = _group(file)
            of_group = places.get(group, places.get(group.split("/")[0], len(places)))
            return of_group, file == _LAST_OF_ITS_GROUP

        items.sort(key=place)


def pytest_collection_finish() -> None:
    """Keep what has been imported out of every later search for garbage: a fifth of the time."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Compute on one thread: in the order of what is compared, and without waiting for others."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
