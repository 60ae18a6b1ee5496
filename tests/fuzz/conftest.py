"""Valid files to spoil, and the numbers of inputs that were tried, which pytest's summary shows."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

COUNTED = "spoilt inputs"


@pytest.fixture(scope="session")
def written_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a valid file of each kind."""
    from tests.fuzz.cases import write_files

    folder = tmp_path_factory.mktemp("files")
    with contextlib.chdir(folder):
        write_files(folder)
    return folder


@pytest.fixture
def files(written_files: Path) -> Iterator[Path]:
    """The same, as the current folder of a test alone."""
    with contextlib.chdir(written_files):
        yield written_files


@pytest.hookimpl
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many inputs were tried, whether or not output is captured."""
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, told in report.user_properties:
            if name == COUNTED and report.when == "call":
                terminalreporter.write_line(f"{report.location[2]}: {told}")
