"""What ranks tell of themselves is compared, and the first difference is one sentence."""

import shutil
from pathlib import Path

import pytest

import hpc_lpm
from hpc_lpm.errors import InputError
from hpc_lpm.same_program import check_same, describe_program, source_sha256

PACKAGE = Path(hpc_lpm.__file__).parent


def told(host: str, **changes: str) -> dict[str, str]:
    return {**describe_program(), "host": host, **changes}


def test_the_same_program_on_other_nodes_is_accepted() -> None:
    check_same([told("n1"), told("n2"), told("n3")])


def test_the_ranks_that_differ_are_named_with_their_nodes_and_what_they_have() -> None:
    ranks = [told("n1"), told("n1"), *(told(f"n{node}", torch="2.0") for node in (2, 2, 3, 4, 5))]
    with pytest.raises(InputError) as found:
        check_same(ranks)
    assert str(found.value) == (
        "torch is not the same on all ranks: ranks 2, 3, 4, 5 and 1 more on n2, n3, n4 have 2.0, "
        f"rank 0 on n1 has {describe_program()['torch']}: install the same on all nodes."
    )


def test_a_rank_that_tells_something_else_runs_another_release() -> None:
    for other in (None, (None, None), {"torch": "2.0"}):
        with pytest.raises(InputError, match=r"^rank 1 runs a release of hpc-lpm that does not"):
            check_same([told("n1"), other])


def test_one_changed_line_of_the_code_is_another_program(tmp_path: Path) -> None:
    copy = tmp_path / "hpc_lpm"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    assert source_sha256(copy) == source_sha256(PACKAGE)
    changed = copy / "engine" / "updating.py"
    changed.write_text(changed.read_text() + "# another\n")
    assert source_sha256(copy) != source_sha256(PACKAGE)
