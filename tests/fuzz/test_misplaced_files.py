"""What is no file of the kind that is asked for is refused at once."""

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz.cases import cases
from tests.fuzz.judging import bounded_memory, complaint, run_reader

_HUGE_BYTES = 2**36


def _folder(path: Path) -> None:
    path.mkdir()


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        before = Path.cwd()
        os.chdir(path.parent)  # names of sockets are short
        made.bind(path.name)
        os.chdir(before)


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _circle(path: Path) -> None:
    path.symlink_to(path.name)


def _nowhere(path: Path) -> None:
    path.symlink_to("nowhere")


def _huge(path: Path) -> None:
    """A file of holes, larger than the memory of most machines."""
    with path.open("wb") as stream:
        stream.truncate(_HUGE_BYTES)


def _empty(path: Path) -> None:
    path.touch()


def _binary(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 16)


def _other_encoding(path: Path) -> None:
    path.write_bytes("\ufeff{}".encode("utf-16"))


PLACED: tuple[Callable[[Path], None], ...] = (
    *(_folder, _pipe, _socket, _endless, _circle, _nowhere, _huge, _empty, _binary),
    _other_encoding,
)


@pytest.mark.parametrize("place", PLACED, ids=lambda place: place.__name__.strip("_"))
def test_what_is_no_such_file_is_refused_or_left_out(
    files: Path, place: Callable[[Path], None]
) -> None:
    problems = []
    for case in cases():
        path, aside = Path(case.file), Path("aside")
        path.rename(aside)
        try:
            place(path)
            with bounded_memory():
                outcome = run_reader(case.read)
        finally:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            aside.rename(path)
        if problem := complaint(outcome, case.codes):
            problems.append(f"{case.name}: {problem}")
    assert not problems, "\n".join(problems)
