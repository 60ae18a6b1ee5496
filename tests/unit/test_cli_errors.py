"""How a fault is told, whatever Python's own buffering is set to."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import typer

from hpc_lpm.cli import plan  # noqa: F401  registers it
from hpc_lpm.cli.app import app
from hpc_lpm.cli.commands import register
from hpc_lpm.cli.errors import EXIT_BAD_INPUT, run_guarded
from hpc_lpm.cli.unexpected import EXIT_UNEXPECTED
from hpc_lpm.errors import InputError


class CountingStream(io.StringIO):
    """Keeps every write by itself, as an unbuffered stderr hands it on."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return super().write(text)


def test_a_sentence_and_the_end_of_its_line_are_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = CountingStream()
    monkeypatch.setattr("sys.stderr", stream)
    assert run_guarded(app, ["plan", "no-such-file.json", "--stages", "2"]) == EXIT_BAD_INPUT
    (sentence,) = stream.writes
    assert sentence.startswith("hpc-lpm: ")
    assert sentence.endswith(".\n")


def test_a_fault_in_what_options_are_made_from_is_a_sentence_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["train", "--strategy", "no_such_module_of_a_test:Thing", "--out", "nowhere"]
    assert run_guarded(app, arguments, register) == 2
    said = capsys.readouterr().err
    assert "module 'no_such_module_of_a_test' of strategy" in said
    assert "Traceback" not in said


def test_a_fault_that_nothing_expects_is_a_sentence_that_names_a_file_with_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = typer.Typer()
    own.callback()(lambda: None)

    @own.command()
    def fail() -> None:
        raise ZeroDivisionError("a fault\nof a test")

    monkeypatch.chdir(tmp_path)
    assert run_guarded(own, ["fail"]) == EXIT_UNEXPECTED
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "a fault that was not expected, ZeroDivisionError: a fault of a test: " in said
    (file,) = tmp_path.iterdir()
    assert f"{file} says where" in said
    text = file.read_text()
    assert "command: hpc-lpm fail\n" in text
    assert 'raise ZeroDivisionError("a fault' in text
    with pytest.raises(ZeroDivisionError):
        run_guarded(own, ["fail", "--debug"])
    assert list(tmp_path.iterdir()) == [file]


def own_command(error: Exception) -> typer.Typer:
    own = typer.Typer()
    own.callback()(lambda: None)

    @own.command()
    def fail() -> None:
        raise error

    return own


def test_names_that_a_sentence_quotes_end_no_line_and_change_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    quoting = InputError(
        "layer a\nb\x1b[2J\ud800 is unknown: " + "x" * 10**6 + ".", "stage 0  F0\n"
    )
    assert run_guarded(own_command(quoting), ["fail"]) == EXIT_BAD_INPUT
    sentence, *picture = capsys.readouterr().err.splitlines()
    assert sentence.startswith("hpc-lpm: layer a b\\x1b[2J\\ud800 is unknown: xxx")
    assert sentence.endswith("xxx.")
    assert " ... " in sentence
    assert len(sentence) < 5000
    assert picture == ["stage 0  F0"]


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: torch.empty(2**50), "tried to allocate 4503599627370496 bytes"),
        (lambda: np.ones(2**50), "Unable to allocate"),
        (lambda: bytearray(2**60), "not enough memory for what was asked for: name smaller"),
    ],
    ids=["torch", "numpy", "Python"],
)
def test_memory_that_runs_out_is_a_sentence(
    make: Callable[[], object],
    named: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises((MemoryError, RuntimeError)) as raised:
        make()
    own = own_command(raised.value)
    assert run_guarded(own, ["fail"]) == EXIT_BAD_INPUT
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert named in said
