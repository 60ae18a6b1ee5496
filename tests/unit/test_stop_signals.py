"""Signals are noted, the first counts, a second SIGINT gets through; a thread hears them early."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from hpc_lpm.stop_signals import STOPPING, StopSignals


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in STOPPING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    signal.set_wakeup_fd(-1)  # one of these tests sets it, and its pipe stays


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR2", "SIGINT", "SIGHUP"])
def test_a_signal_is_noted_by_its_name(name: str) -> None:
    signals = StopSignals()
    signals.install()
    assert signals.received is None
    os.kill(os.getpid(), getattr(signal, name))
    assert signals.received == name


def test_the_first_signal_is_the_one_that_is_told() -> None:
    signals = StopSignals()
    signals.install()
    for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGTERM):
        os.kill(os.getpid(), number)
    assert signals.received == "SIGUSR2"


@pytest.mark.parametrize("times", [1, 2])
def test_a_second_interrupt_interrupts_at_once(times: int) -> None:
    signals = StopSignals()
    signals.install()
    os.kill(os.getpid(), signal.SIGINT)
    if times == 2:
        signals.install()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT"])
def test_a_signal_that_was_inherited_as_ignored_stays_so(name: str) -> None:
    number = getattr(signal, name)
    signal.signal(number, signal.SIG_IGN)
    signals = StopSignals()
    signals.install()
    signal.signal(number, signal.SIG_DFL)  # as UCX may do
    signals.install()
    os.kill(os.getpid(), number)
    assert signals.received is None
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.received == "SIGTERM"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR2"])
def test_signals_that_job_scripts_pass_on_are_taken_over_though_ignored(name: str) -> None:
    number = getattr(signal, name)
    signal.signal(number, signal.SIG_IGN)
    signals = StopSignals()
    signals.install()
    os.kill(os.getpid(), number)
    assert signals.received == name


def test_until_training_begins_a_thread_hears_of_signals() -> None:
    heard: list[str] = []
    signals = StopSignals()
    signals.end_process_by(heard.append)
    signals.install()
    assert not signals.training
    os.kill(os.getpid(), signal.SIGUSR2)
    deadline = time.monotonic() + 30
    while not heard and time.monotonic() < deadline:
        time.sleep(0.001)
    assert heard == ["SIGUSR2"]
    signals.begin_training()
    assert signals.training
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.05)
    assert heard == ["SIGUSR2"]
    assert signals.received == "SIGUSR2"
