"""How the tests run beside each other, and what who adds one must know.

`make test` runs pytest in three processes on two cores (`-n 3 --dist loadgroup`): one has the tests
that start ranks, one those that wait for Slurm most of their time, the third all others, file by
file. `python -m pytest` without `-n` runs all of them one after the other, and any one by itself.

* Other tests run at the same time, and two runs of all tests may share the machine. Nothing has a
  fixed port, name of a cluster or folder: use `tmp_path`, ports that the system chooses and
  `tests.slurm.testbed.unused_name`. Nothing may be written to the checkout.
* Processes are found by something of their own among their arguments, such as `tmp_path`, and ended
  by their number. Whoever starts some ends them, also when the test fails.
* Cores are shared with other tests. Wait for what happens with a deadline of a minute or two, not
  for a second; compare times by their shortest or by processor time; never expect a speed.
* Parameters have the same names in every process: no sets, process numbers or dates among them.
* Starting ranks takes seconds on each, a tiny training tenths of one. Give several cases to one
  call of `train_cases` (tests/mpi/test_exactness.py), whose ranks serve all tests. What is meant
  to fail, to be stopped by a signal, or to run as a command is started by `mpirun`
  (tests/mpi/ranks.py).
* Tests of Slurm share one cluster by the fixture `shell`; what they change of it they mend. Their
  drivers of Snakemake look after jobs every second (tests/slurm/eager_snakemake.py).
* Limits of time that a test imposes are on a busy machine: a hang lasts minutes.
"""

from pathlib import Path

import pytest

_TESTS = Path(__file__).parent
_TOGETHER = ("mpi", "slurm")
"""Folders whose tests share something that runs, and therefore a process."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which tests one process has to run: all of some folders, or those of a file."""
    for item in items:
        path = item.path.relative_to(_TESTS)
        group = path.parts[0] if path.parts[0] in _TOGETHER else str(path.with_suffix(""))
        item.add_marker(pytest.mark.xdist_group(group))
