"""Valid files to spoil, and the numbers of inputs that were tried, which pytest's summary shows."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

COUNTED = "spoilt inputs"


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a valid file of each kind, which is the current one."""
    from tests.fuzz.cases import write_files

    folder, before = tmp_path_factory.mktemp("files"), Path.cwd()
    os.chdir(folder)
    try:
        write_files(folder)
        yield folder
    finally:
        os.chdir(before)


@pytest.hookimpl
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many inputs were tried, whether or not output is captured."""
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, told in report.user_properties:
            if name == COUNTED and report.when == "call":
                terminalreporter.write_line(f"{report.location[2]}: {told}")
