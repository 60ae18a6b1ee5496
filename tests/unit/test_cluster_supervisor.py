import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from hpc_lpm.cluster import supervisor
from hpc_lpm.cluster.supervisor import CommandOutcome, Forwarding, supervise

OBEDIENT = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
print("ready", flush=True)
time.sleep(60)
"""
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""
UNTIL = """
import pathlib, time
while not pathlib.Path("{path}").exists():
    time.sleep(0.01)
"""


def run(code: str, log: Path, said: list[str], **options: object) -> CommandOutcome:
    return supervise(
        [sys.executable, "-c", code],
        os.environ,
        1,
        log,
        say=said.append,
        **options,  # type: ignore[arg-type]
    )


def signal_me_when_said(
    said: list[str], number: int, then: Callable[[], object] = lambda: None
) -> None:
    def wait_and_kill() -> None:
        while not said:
            time.sleep(0.01)
        os.kill(os.getpid(), number)
        then()

    threading.Thread(target=wait_and_kill, daemon=True).start()


def assert_ended(pid: int) -> None:
    """Wait until a process has ended, whether or not anybody has taken note of that."""
    deadline = time.monotonic() + 60
    with suppress(psutil.NoSuchProcess):
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, f"process {pid} lives on"
            time.sleep(0.05)


@pytest.mark.parametrize("code", [0, 1, 2, 75])
def test_the_exit_code_is_passed_on(tmp_path: Path, code: int) -> None:
    launch = run(f"import sys; sys.exit({code})", tmp_path / "log", [])
    assert launch.exit_code == code


def test_a_death_by_signal_becomes_the_code_that_shells_use(tmp_path: Path) -> None:
    launch = run("import os; os.kill(os.getpid(), 9)", tmp_path / "log", [])
    assert launch.exit_code == 128 + signal.SIGKILL


def test_output_reaches_the_log_and_the_terminal(tmp_path: Path) -> None:
    said: list[str] = []
    code = "import sys; print('out', flush=True); print('error', file=sys.stderr)"
    run(code, tmp_path / "new folder" / "log", said)
    assert said == ["out", "error"]
    assert (tmp_path / "new folder" / "log").read_text() == "out\nerror\n"


def test_with_progress_the_output_stays_in_the_log(tmp_path: Path) -> None:
    said: list[str] = []
    asked = tmp_path / "asked"

    def progress() -> str:
        asked.touch()
        return "half done"

    code = f"print('noise', flush=True)\n{UNTIL.format(path=asked)}"
    run(code, tmp_path / "log", said, progress=progress, interval_seconds=0.2)
    assert set(said) == {"half done"}
    assert (tmp_path / "log").read_text() == "noise\n"


def test_a_failure_shows_the_end_of_the_output(tmp_path: Path) -> None:
    said: list[str] = []
    code = "import sys; [print(n) for n in range(100)]; sys.exit('broken')"
    run(code, tmp_path / "log", said, progress=lambda: None)
    assert str(tmp_path / "log") in said[0]
    assert said[-1].strip() == "broken"
    assert len(said) < 20


def test_a_signal_is_passed_on_and_the_command_may_end_in_its_own_way(tmp_path: Path) -> None:
    said: list[str] = []
    before = signal.getsignal(signal.SIGTERM)
    signal_me_when_said(said, signal.SIGTERM)
    launch = run(OBEDIENT, tmp_path / "log", said)
    assert launch.exit_code == 75
    assert launch.seconds < 30
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT"])
def test_a_signal_that_was_inherited_as_ignored_stops_nothing(name: str, tmp_path: Path) -> None:
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_IGN)
    said: list[str] = []
    sent = tmp_path / "sent"
    signal_me_when_said(said, number, sent.touch)
    try:
        # It goes on until the signal was sent, which would end whoever does not ignore it.
        code = f"print('ready', flush=True)\n{UNTIL.format(path=sent)}"
        launch = run(code, tmp_path / "log", said)
    finally:
        signal.signal(number, before)
    assert (launch.exit_code, launch.stopped_by) == (0, None)


def test_a_command_that_ignores_the_end_is_killed_with_its_children(tmp_path: Path) -> None:
    said: list[str] = []
    signal_me_when_said(said, signal.SIGTERM)
    launch = run(STUBBORN, tmp_path / "log", said, grace_seconds=0.3)
    assert launch.exit_code == 128 + signal.SIGKILL
    assert_ended(int(said[0]))


def test_standard_input_is_not_the_terminals(tmp_path: Path) -> None:
    said: list[str] = []
    run("import sys; print(repr(sys.stdin.read()))", tmp_path / "log", said)
    assert said == ["''"]


@pytest.mark.parametrize(
    "code",
    ["import os; os.kill(os.getpid(), 9)", "raise SystemExit(137)  # as mpirun tells of a rank"],
)
def test_signal_9_is_explained_in_one_sentence(code: str, tmp_path: Path) -> None:
    said: list[str] = []
    assert run(code, tmp_path / "log", said).exit_code == 137
    (sentence,) = said
    assert "signal 9" in sentence and "memory" in sentence and sentence.endswith(".")


def test_other_exit_codes_are_not_explained(tmp_path: Path) -> None:
    said: list[str] = []
    run("raise SystemExit(1)", tmp_path / "log", said)
    assert said == []


def test_the_death_of_a_command_that_we_killed_ourselves_is_not_explained(tmp_path: Path) -> None:
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


NEVER_STARTED = """
import os, subprocess, sys, time
from pathlib import Path
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
for rank in sys.argv[1:]:
    Path(os.environ["HPC_LPM_ROLL_CALL"], rank).touch()
print(child.pid, flush=True)
time.sleep(600)
"""


def time_is_up_once(
    said: list[str], monkeypatch: pytest.MonkeyPatch, then: Callable[[], object] = lambda: None
) -> None:
    """Let an hour pass for the supervisor once something was said; call `then` a while later."""
    readings = 0

    def monotonic() -> float:
        nonlocal readings
        readings += bool(said)
        if readings == 5:
            then()
        # Another one at the second reading: the first may be that of the beginning.
        return time.monotonic() + 3600 * min(readings, 2)

    clock = SimpleNamespace(monotonic=monotonic, sleep=time.sleep)
    monkeypatch.setattr(supervisor, "time", clock)


def test_a_launcher_whose_ranks_do_not_come_to_life_is_ended_by_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    time_is_up_once(said, monkeypatch)
    began = time.monotonic()
    outcome = supervise(
        [sys.executable, "-c", NEVER_STARTED, "0", "2"],
        os.environ,
        4,
        tmp_path / "log",
        say=said.append,
        ranks_within_seconds=300.0,
    )
    assert time.monotonic() - began < 300
    assert outcome.exit_code == 128 + signal.SIGKILL
    assert_ended(int(said[0]))
    assert (
        f"{tmp_path / 'log'}: of 4 ranks these have not come to life within 300 s: 1, 3; "
        in said[-1]
    )
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


ANSWERED = """
import os, sys, time
from pathlib import Path
for rank in sys.argv[1:]:
    Path(os.environ["HPC_LPM_ROLL_CALL"], rank).touch()
print("ready", flush=True)
"""


def test_ranks_that_have_come_to_life_may_take_their_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    go_on = tmp_path / "go on"
    time_is_up_once(said, monkeypatch, go_on.touch)
    outcome = supervise(
        [sys.executable, "-c", ANSWERED + UNTIL.format(path=go_on), "0", "1"],
        os.environ,
        2,
        tmp_path / "log",
        say=said.append,
        ranks_within_seconds=300.0,
    )
    assert outcome.exit_code == 0
    assert said == ["ready"]


LEAVES_A_PROCESS = """
import os, subprocess, sys
child = subprocess.Popen(
    [sys.executable, "-c", "import time; time.sleep(60)"],
    start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
)
print(child.pid, flush=True)
os.kill(os.getpid(), 9)
"""


def test_what_a_killed_launcher_leaves_ends_with_it(tmp_path: Path) -> None:
    said: list[str] = []
    outcome = run(LEAVES_A_PROCESS, tmp_path / "log", said)
    assert outcome.exit_code == 128 + signal.SIGKILL
    assert outcome.left == ()
    assert_ended(int(said[0]))


def test_a_signal_between_two_commands_reaches_the_second(tmp_path: Path) -> None:
    said: list[str] = []
    with Forwarding() as forwarding:
        first = run("print('first')", tmp_path / "log", said, forwarding=forwarding)
        os.kill(os.getpid(), signal.SIGTERM)
        began = time.monotonic()
        second = run(
            "import time; time.sleep(60)",
            tmp_path / "log",
            said,
            forwarding=forwarding,
            heading="second",
        )
    assert (first.exit_code, first.stopped_by) == (0, None)
    assert (second.exit_code, second.stopped_by) == (128 + signal.SIGTERM, "SIGTERM")
    assert time.monotonic() - began < 30
    assert (tmp_path / "log").read_text() == "first\nsecond\n"


@pytest.mark.parametrize("jump_seconds", [-3600, 3600])
def test_a_clock_that_is_set_changes_no_duration(
    jump_seconds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(datetime):
        readings = 0

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Clock":
            cls.readings += 1
            jump = timedelta(seconds=jump_seconds * (cls.readings > 1))
            return cls.fromtimestamp((datetime.now(tz) + jump).timestamp(), tz)

    monkeypatch.setattr(supervisor, "datetime", Clock)
    wall = time.time
    monkeypatch.setattr(time, "time", lambda: wall() + jump_seconds)
    outcome = run("import time; time.sleep(0.3)", tmp_path / "log", [])
    assert 0.3 <= outcome.seconds < 30
