"""The single-process study of delay: its trainings, their file of results, and its tables."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.delay_study import __main__ as command
from benchmarks.delay_study import trials
from benchmarks.delay_study.correction import Correction, of_order
from benchmarks.delay_study.parts import PARTS
from benchmarks.delay_study.stages import cuts_of
from benchmarks.delay_study.table import losses, ratios, updates_to
from benchmarks.delay_study.trials import Results, Trial, run

SMALL = Trial("none", updates=3, blocks=1, width=8, heads=1)


@pytest.mark.parametrize(
    "optimizer", ["adamw", "muon", "muon-plain", "rotated", "nadam", "momentum"]
)
def test_a_training_is_repeated_bit_for_bit(optimizer: str) -> None:
    trial = replace(SMALL, optimizer=optimizer, stages=3, correction=of_order(2))
    first, second = run(trial), run(trial)
    assert math.isfinite(first["loss"])
    assert first["loss"] == second["loss"]
    assert first["curve"] == second["curve"]


def test_corrections_change_a_training_and_seeds_do_too() -> None:
    # Not AdamW, which does not see a factor on the gradients of a whole stage.
    deep = replace(SMALL, optimizer="momentum", stages=4, micro_batches=1, updates=6, rate=0.1)
    stash = Correction(stash=True)
    others = [
        deep,
        replace(deep, seed=1),
        replace(deep, warm_up=2),
        *(
            replace(deep, correction=correction)
            for correction in (
                Correction(fed_back=1.0),
                Correction(discount_steps=4.0),
                Correction(shrink=0.5),
                Correction(head=0.5),
                Correction(tail=0.5),
                stash,
                replace(stash, compensation=1.0),
            )
        ),
    ]
    assert len({run(trial)["loss"] for trial in others}) == len(others)


def test_stages_are_as_even_as_can_be() -> None:
    assert cuts_of(15, 8) == [0, 2, 4, 6, 8, 9, 11, 13, 15]
    assert cuts_of(4, 4) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("reached", "expected"),
    [([2.1, 2.0, 1.8], 550.0), ([1.9, 1.8, 1.7], 400.0), ([2.3, 2.2, 2.1], None)],
)
def test_updates_to_a_loss_are_interpolated(reached: list[float], expected: float | None) -> None:
    assert updates_to(1.9, [400, 500, 600], reached) == expected


def test_a_known_result_is_not_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[Trial] = []

    def counted(trial: Trial) -> dict[str, float]:
        ran.append(trial)
        return {"loss": 2.0 + trial.stages / 10 - trial.updates / 100}

    monkeypatch.setattr(trials, "run", counted)
    arguments = ["study", "--out", str(tmp_path), "--part", "lengths", "--updates", "10"]
    monkeypatch.setattr("sys.argv", arguments)
    command.main()
    wanted = {trial.key() for trial in PARTS["lengths"](10)}
    assert {trial.key() for trial in ran} == wanted
    assert len(ran) == len(wanted)
    text = (tmp_path / "lengths.md").read_text()
    assert "| gpt | adamw | 8 | 4 | none | 0.004 | over 1.80 |" in text
    command.main()
    assert len(ran) == len(wanted)
    lines = (tmp_path / "runs.jsonl").read_text().splitlines()
    assert {json.loads(line)["key"] for line in lines} == wanted
    assert text in capsys.readouterr().out


def test_tables_gather_seeds(tmp_path: Path) -> None:
    one = Trial("none", updates=10)
    deep = replace(one, label="first", stages=8, correction=of_order(1))
    entered = []
    file = tmp_path / "runs.jsonl"
    with file.open("w") as written:
        for seed in (0, 1):
            for trial, loss in ((one, 1.5), (deep, 1.7), (replace(deep, updates=12), 1.3)):
                entered.append(replace(trial, seed=seed))
                result = {"key": entered[-1].key(), "result": {"loss": loss + seed / 10}}
                written.write(json.dumps(result) + "\n")
    results = Results(file)
    assert "| gpt | adamw | 8 | 4 | first | 0.003 | 10 | 1.750 ± 0.071 | 2 |" in losses(
        entered, results
    )
    assert "| gpt | adamw | 8 | 4 | first | 0.003 | 1.10, 1.10 |" in ratios(entered, results)
