"""Trackers get what the log gets, and a bad one harms nobody."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from hpc_lpm.engine import trackers
from hpc_lpm.engine.run_reporter import MetricsLog
from hpc_lpm.engine.trackers import Tracking, check_trackers
from hpc_lpm.errors import InputError

CONFIGURATION = {"optimizer.lr": 0.1, "first_step": 0}
MODULE = "trackers_of_a_test"


class Kept:
    """Keeps all that it is told."""

    made: ClassVar[list[object]] = []

    def __init__(self, configuration: dict[str, Any], folder: Path) -> None:
        self.told: list[Any] = [configuration, folder]
        Kept.made.append(self)

    def log(self, values: dict[str, float], step: int) -> None:
        self.told.append((step, values))

    def close(self, status: str) -> None:
        self.told.append(status)


class Raising(Kept):
    def log(self, values: dict[str, float], step: int) -> None:
        raise ConnectionError("no line")


class Hanging(Kept):
    """Hangs until the test has ended."""

    released: ClassVar[threading.Event] = threading.Event()

    def log(self, values: dict[str, float], step: int) -> None:
        Hanging.released.wait()


class Silent:
    """Has nothing to close."""

    def __init__(self, configuration: dict[str, Any], folder: Path) -> None:
        pass

    def log(self, values: dict[str, float], step: int) -> None:
        pass


def leaves(configuration: dict[str, Any], folder: Path) -> Kept:
    raise SystemExit(3)


def returns_nothing(configuration: dict[str, Any], folder: Path) -> None:
    """Return nothing."""


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module = ModuleType(MODULE)
    for each in (Kept, Raising, Hanging, Silent, leaves, returns_nothing):
        setattr(module, each.__name__, each)
    monkeypatch.setitem(sys.modules, MODULE, module)
    Kept.made.clear()
    Hanging.released.clear()
    yield
    Hanging.released.set()


def tracking(folder: Path, warnings: list[str], *names: str) -> Tracking:
    return Tracking([f"{MODULE}:{name}" for name in names], CONFIGURATION, folder, warnings.append)


def test_a_tracker_gets_the_configuration_and_the_numbers_of_the_log(tmp_path: Path) -> None:
    warnings: list[str] = []
    followed = tracking(tmp_path, warnings, "Kept", "Silent")
    log = MetricsLog(tmp_path / "metrics.jsonl", tracking=followed)
    log.write(step=0, epoch=0, loss=2.0, skipped=None, rates=[0.1])
    log.write(step=1, epoch=0, loss=None)
    log.write(epoch=0, test_loss=1.5)
    log.close()
    followed.close("interrupted")
    (kept,) = Kept.made
    assert isinstance(kept, Kept)
    assert kept.told == [
        CONFIGURATION,
        tmp_path,
        (0, {"epoch": 0.0, "loss": 2.0, "rates.0": 0.1}),
        (1, {"epoch": 0.0}),
        (1, {"epoch": 0.0, "test_loss": 1.5}),
        "interrupted",
    ]
    assert warnings == []


def test_a_tracker_that_raises_is_left_out_with_one_warning(tmp_path: Path) -> None:
    warnings: list[str] = []
    followed = tracking(tmp_path, warnings, "Raising", "Kept")
    for step in range(50):
        followed.log({"loss": 1.0}, step)
    followed.close("finished")
    (warning,) = warnings
    assert warning.startswith(f"tracker '{MODULE}:Raising' raises ConnectionError: no line")
    second = Kept.made[1]
    assert isinstance(second, Kept)
    assert len(second.told) == 2 + 50 + 1


def test_a_tracker_that_hangs_makes_nobody_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "_CLOSING_SECONDS", 0.2)
    monkeypatch.setattr(trackers, "_WAITING_AT_MOST", 5)
    warnings: list[str] = []
    followed = tracking(tmp_path, warnings, "Hanging")
    for step in range(1000):
        followed.log({"loss": 1.0}, step)
    followed.close("finished")  # returns, while the tracker still hangs
    (warning,) = warnings
    assert "has not ended within 0.2 s" in warning


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("leaves", "raises SystemExit: 3"),
        ("returns_nothing", "returned NoneType, accepted is an object with log"),
    ],
)
def test_a_tracker_that_cannot_be_opened_is_refused(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        tracking(tmp_path, [], name)


def test_a_tracker_that_is_not_there_or_is_named_twice_is_refused() -> None:
    with pytest.raises(InputError, match="accepted are tensorboard, and module:name"):
        check_trackers(["tensorbord"])
    with pytest.raises(InputError, match="given twice"):
        check_trackers(["tensorboard", "tensorboard"])


def test_event_files_of_a_resumed_run_go_on_at_its_step(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for first, last in ((0, 6), (4, 8)):  # what came after step 4 is trained again
        configuration = {**CONFIGURATION, "first_step": first}
        followed = Tracking(["tensorboard"], configuration, tmp_path, pytest.fail)
        for step in range(first, last):
            followed.log({"loss": float(last)}, step)
        followed.close("finished")
    found = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [(each.step, each.value) for each in found.Scalars("loss")] == [
        *((step, 6.0) for step in range(4)),
        *((step, 8.0) for step in range(4, 8)),
    ]
    text = found.Tensors("configuration/text_summary")[0].tensor_proto.string_val[0]
    assert b'"optimizer.lr": 0.1' in text
