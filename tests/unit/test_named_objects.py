"""Whatever `module:name` refers to and cannot be used is refused in a sentence with code 2."""

import json
import time
from pathlib import Path

import pytest

from hpc_lpm.cli.app import app
from hpc_lpm.cli.commands import register
from hpc_lpm.cli.errors import run_guarded

register([])

MODULE = """
import sys

from hpc_lpm.engine.strategies.base import Strategy
from hpc_lpm.engine.strategies.sequential import Sequential
from hpc_lpm.planning.planners.registry import Planner
from hpc_lpm.schedules.base import Schedule
from hpc_lpm.schedules.gpipe import GPipe

NUMBER = 3
NO_FUNCTION = Planner("mine", "described", 3)


def takes_nothing():
    return [0, 2, 3]


def takes_more(first, second):
    return [0, 2, 3]


def fails(*arguments, **options):
    raise ValueError("out of order")


def ends(*arguments, **options):
    sys.exit(3)


def is_interrupted(*arguments, **options):
    raise KeyboardInterrupt


def returns_none(*arguments, **options):
    return None


def returns_text(*arguments, **options):
    return "cuts"


def returns_numbers(*arguments, **options):
    return [0.0, float("nan"), 3.0]


def begins_well(*arguments, **options):
    yield 0
    raise ValueError("in the middle")


class Empty:
    pass


class UnfinishedStrategy(Strategy):
    pass


class StrategyWithArguments(Sequential):
    def __init__(self, argument):
        pass


class StrategyWithOtherOptions(Sequential):
    options = 3


class StrategyWithFixedName(Sequential):
    @property
    def name(self):
        return "fixed"


class StrategyThatFails(Sequential):
    def start(self, context):
        raise ValueError("does not start")


class StrategyWithoutRunner(Sequential):
    def start(self, context):
        return None


class ScheduleWithArguments(GPipe):
    def __init__(self, argument):
        pass


class PlannerWithArguments(Planner):
    def __init__(self, argument):
        pass


def __getattr__(name):
    raise RuntimeError(f"{name} is not there")
"""

FUNCTIONS = ["fails", "ends", "returns_none", "returns_text", "returns_numbers", "begins_well"]
NO_FUNCTIONS = ["NUMBER", "Empty", "missing", "takes_nothing"]
CASES = {
    "planner": [*FUNCTIONS, *NO_FUNCTIONS, "takes_more", "NO_FUNCTION", "PlannerWithArguments"],
    "schedule": [*FUNCTIONS, *NO_FUNCTIONS, "ScheduleWithArguments"],
    "strategy": [
        *(*NO_FUNCTIONS, "fails", "UnfinishedStrategy", "StrategyWithArguments"),
        *("StrategyWithOtherOptions", "StrategyWithFixedName", "StrategyThatFails"),
        "StrategyWithoutRunner",
    ],
    "model": [*FUNCTIONS, *NO_FUNCTIONS, "takes_more"],
    "dataset": [*FUNCTIONS, *NO_FUNCTIONS, "takes_more"],
    "tracker": [*FUNCTIONS, *NO_FUNCTIONS, "is_interrupted"],
    "optimizer": [*FUNCTIONS, *NO_FUNCTIONS, "takes_more"],
    "lr-schedule": [*FUNCTIONS, *NO_FUNCTIONS],
    "loss": NO_FUNCTIONS,
    "metric": NO_FUNCTIONS,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("named")
    (made / "wrong_objects.py").write_text(MODULE)
    profile = ["profile", "mlp,layers=3,width=8", "--dataset", "digits,size=8", "--repeats", "1"]
    assert run_guarded(app, [*profile, "--micro-batch", "4", "--out", str(made / "p.json")]) == 0
    return made


def command(kind: str, name: str, out: Path) -> list[str]:
    if kind in {"planner", "schedule"}:
        return ["plan", "p.json", "--stages", "2", f"--{kind}", name]
    options = {"model": "mlp,layers=3,width=8", "dataset": "digits,size=8", kind: name}
    given = [text for option, value in options.items() for text in (f"--{option}", value)]
    return ["train", *given, "--steps", "1", "--batch-size", "4", "--out", str(out)]


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, f"wrong_objects:{name}") for kind, names in CASES.items() for name in names]
    + [(kind, name) for kind in CASES for name in ("os:getcwd", "os:environ", "math:pi")],
)
def test_an_object_that_cannot_be_used_is_named_in_a_sentence(
    kind: str,
    name: str,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    # What would be waited for is waited for longer than a slow machine needs.
    monkeypatch.setattr("hpc_lpm.engine.trackers._OPENING_SECONDS", 600.0)
    capsys.readouterr()
    began = time.monotonic()
    assert run_guarded(app, command(kind, name, tmp_path / "run")) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert name.partition(":")[2] in said
    assert time.monotonic() - began < 120
    assert not list(folder.glob("hpc-lpm-fault-*"))


def test_a_planner_may_yield_its_cuts(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "yielding.py").write_text("def cuts(model):\n    yield from (0, 1, model.layers)\n")
    monkeypatch.chdir(folder)
    capsys.readouterr()
    command = ["plan", "p.json", "--stages", "2", "--planner", "yielding:cuts", "--json"]
    assert run_guarded(app, command) == 0
    assert json.loads(capsys.readouterr().out)["planner"] == "yielding:cuts"
