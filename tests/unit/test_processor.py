"""The name of the processor is the kernel's, or the architecture where the kernel tells none."""

import platform
from pathlib import Path

import pytest

from hpc_lpm.processor import processor_name


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("processor\t: 0\nmodel name\t: A CPU: 9 GHz \nmodel name\t: Another\n", "A CPU: 9 GHz"),
        ("processor\t: 0\n", platform.machine()),
    ],
)
def test_name_comes_from_the_first_core_or_else_is_the_architecture(
    content: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda path, encoding: content)
    assert processor_name() == name


def test_a_kernel_without_that_file_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: Path, encoding: str) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", missing)
    assert processor_name() == platform.machine()
