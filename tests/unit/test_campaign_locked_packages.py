import hashlib
from pathlib import Path

from hpc_lpm.campaign.locked_packages import compare_with_lock


def test_packages_that_differ_from_the_lock_are_named(tmp_path: Path) -> None:
    path = tmp_path / "constraints.txt"
    path.write_text("torch==2.13.0\nPyYAML==6.0.3\ntyping_extensions==4.16.0\nnot-here==1\n")
    installed = {
        "torch": "2.13.0+cpu",
        "PyYAML": "6.0.2",
        "typing-extensions": "4.16.0",
        "pip": "26.0",
    }
    assert compare_with_lock(path, installed) == {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "differing": {"PyYAML": {"locked": "==6.0.3", "installed": "6.0.2"}},
        "not_locked": ["pip"],
    }


def test_without_a_lock_nothing_is_said(tmp_path: Path) -> None:
    assert compare_with_lock(tmp_path / "constraints.txt", {}) is None
