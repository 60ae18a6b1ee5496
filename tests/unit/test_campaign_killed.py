"""A run that somebody kills ends with an explanation, unless we killed it ourselves."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from hpc_lpm.campaign.supervisor import Launch, supervise


def run(code: str, log: Path, said: list[str], **options: object) -> Launch:
    return supervise(
        [sys.executable, "-c", code],
        os.environ,
        1,
        log,
        say=said.append,
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    "code",
    ["import os; os.kill(os.getpid(), 9)", "raise SystemExit(137)  # as mpirun tells of a rank"],
)
def test_signal_9_is_explained_in_one_sentence(code: str, tmp_path: Path) -> None:
    said: list[str] = []
    assert run(code, tmp_path / "log", said).exit_code == 137
    (sentence,) = said
    assert "signal 9" in sentence and "memory" in sentence and sentence.endswith(".")


def test_other_exit_codes_are_not(tmp_path: Path) -> None:
    said: list[str] = []
    run("raise SystemExit(1)", tmp_path / "log", said)
    assert said == []


def test_a_command_that_we_killed_ourselves_is_not(tmp_path: Path) -> None:
    said: list[str] = []
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print('ready', flush=True); time.sleep(60)"
    )

    def end() -> None:
        while not said:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end, daemon=True).start()
    assert run(stubborn, tmp_path / "log", said, grace_seconds=0.3).exit_code == 137
    assert said == ["ready"]
