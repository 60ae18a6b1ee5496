"""How the tests run beside each other, and what who adds one must know.

`make test` runs pytest in three processes on two cores (`-n 3 --dist loadgroup`): one has the tests
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
  What is meant to fail, to be stopped by a signal, or to run as a command is started by `mpirun`
  (tests/mpi/ranks.py).
* Tests of Slurm share one cluster by the fixture `shell`; what they change of it they mend. Their
  drivers of Snakemake look after jobs every second (tests/slurm/eager_snakemake.py).
"""

import gc
from pathlib import Path

import pytest

_TESTS = Path(__file__).parent
_OF_SHARED_RANKS = {"run_in_ranks", "train_cases", "run_cases"}
"""Functions that a module has if its tests use ranks which stay up."""
_ORDER = ("slurm", "ranks", "mpi", "workflow")
"""What takes longest begins first, so that no process is left alone at the end."""


def _group(item: pytest.Item) -> str:
    """Return what one process has to run together with a test."""
    path = item.path.relative_to(_TESTS)
    if path.parts[0] == "slurm":
        return "slurm"
    if path.parts[0] == "mpi" and _OF_SHARED_RANKS & vars(item.module).keys():
        return "ranks"
    return str(path.with_suffix(""))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Group the tests for processes side by side; without those, leave them in their order."""
    if not hasattr(config, "workerinput"):
        return
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    places = {name: place for place, name in enumerate(_ORDER)}
    items.sort(key=lambda item: places.get(_group(item).split("/")[0], len(places)))


def pytest_collection_finish() -> None:
    """Keep what has been imported out of every later search for garbage: a fifth of the time."""
    gc.collect()
    gc.freeze()
