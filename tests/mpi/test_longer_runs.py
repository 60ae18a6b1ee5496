"""Evaluations inside epochs, early stops, and runs that go on to another length."""

from pathlib import Path

import pytest

from tests.mpi.test_resume import GPT, MLP, RESNET, run_cases, settings

pytestmark = pytest.mark.mpi

COMPUTED = ("weights_sha256", "train_loss", "test_accuracy", "drains", "lag_counts")


def epochs(model: str, strategy: str, stages: int, **more: object) -> dict:
    """A run whose epochs have 6 steps, or 2 of the texts, the last of which is smaller."""
    whole = {"batch_size": 256, "micro_batches": 4, "steps": None, "epochs": 6}
    return settings(model, strategy, stages, 4, **{**whole, "last_batch": "keep", **more})


def check_alike(found: dict, expected: dict, case: object) -> None:
    for name in COMPUTED:
        assert found[name] == expected[name], (name, case)


def goes_on(run: dict, folder: Path, shorter: dict, **reference: object) -> list[dict]:
    """The shorter run, the same resumed to the whole length, and the whole at once."""
    return [
        {**run, **shorter, "folder": str(folder)},
        {**run, "folder": str(folder), "resume": True},
        {**run, **reference, "folder": f"{folder}-whole"},
    ]


def outcomes_of(ranks: int, groups: list[list[dict]], folder: Path) -> list[list[dict]]:
    found = iter(run_cases(ranks, [case for group in groups for case in group], folder))
    return [[next(found) for _ in group] for group in groups]


STEP = {"schedule": "step", "milestones": [9], "factor": 0.5, "warmup_steps": 2}


@pytest.mark.parametrize("ranks", [1, 2])
def test_three_epochs_and_three_more_are_six_bit_for_bit(ranks: int, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("in at the beginning, out at the end; " * 300)
    text = {"dataset": f"text:{tmp_path / 'text.txt'},sequence=16"}
    if ranks == 1:
        runs = [
            epochs(GPT, "sequential", 1, **text),
            epochs(MLP, "sequential", 1, validation=0.1),
        ]
    else:
        runs = [
            epochs(MLP, "fbp", 2, learning_rate=STEP, lead=2),
            epochs(GPT, "fbp", 2, evaluate_every=2, optimizer={"name": "adamw"}, **text),
            epochs(RESNET, "1f1b", 2, last_batch="drop"),
        ]
    groups = [goes_on(run, tmp_path / str(n), {"epochs": 3}) for n, run in enumerate(runs)]
    for run, found in zip(runs, outcomes_of(ranks, groups, tmp_path), strict=True):
        _, longer, whole = found
        check_alike(longer, whole, run)
        assert longer["resume_changes"] == []
        assert len(longer["train_loss"]) == 2 * len(found[0]["train_loss"])


def test_what_a_longer_run_would_have_computed_otherwise_is_said(tmp_path: Path) -> None:
    """Six steps an epoch; each shorter run ends inside one, or where the rate follows its end."""
    run = epochs(MLP, "fbp", 2, epochs=None, steps=16)
    eight = {"steps": 8}
    groups = [
        goes_on(run, tmp_path / "drains", eight, drain_at=[8]),
        goes_on({**run, "drain_at": [8]}, tmp_path / "asked", {**eight, "drain_at": []}),
        goes_on({**run, "strategy": "1f1b"}, tmp_path / "flushes", eight),
        goes_on({**run, "learning_rate": {"schedule": "cosine"}}, tmp_path / "rate", {"steps": 6}),
        goes_on({**run, "synchronous_tail": 1}, tmp_path / "tail", {"steps": 6}),
        goes_on({**run, "synchronous_head": "25%"}, tmp_path / "head", {"steps": 6}),
        goes_on({**run, "synchronous_head": "2steps"}, tmp_path / "early", {"steps": 6}),
        [{**run, "folder": str(tmp_path / "drains"), "steps": 12, "resume": True}],
    ]
    drains, asked, flushes, rate, tail, head, early, [shorter] = outcomes_of(2, groups, tmp_path)
    assert drains[1]["resume_changes"] == ["it would not have drained after step 8"]
    assert asked[1]["resume_changes"] == flushes[1]["resume_changes"] == []
    for group in (drains, asked):
        check_alike(group[1], group[2], group)
    assert flushes[1]["weights_sha256"] == flushes[2]["weights_sha256"]
    assert flushes[1]["test_accuracy"] == flushes[2]["test_accuracy"]
    assert "learning rate would have been another from step 2 on" in rate[1]["resume_changes"][0]
    assert "synchronous tail would have begun" in tail[1]["resume_changes"][0]
    assert "synchronous head would have ended" in head[1]["resume_changes"][0]
    assert early[1]["resume_changes"] == []
    check_alike(early[1], early[2], early)
    for group in (rate, tail, head):
        assert group[1]["weights_sha256"] != group[2]["weights_sha256"]
    assert "is after step 16, this run has 12: ask for at least as many" in shorter["refused"]


def test_an_evaluation_inside_an_epoch_changes_nothing_but_the_drain(tmp_path: Path) -> None:
    runs = [
        (epochs(MLP, "fbp", 2, epochs=2, validation=0.1), {"drain_at": [4, 8]}),
        # Two replicas of one stage, whose buffers are averaged wherever they are evaluated.
        (epochs(RESNET, "1f1b", 1, epochs=1), {}),
        (epochs(MLP, "deepspeed-1f1b", 2, epochs=2, last_batch="drop"), {}),
    ]
    cases = []
    for number, (run, instead) in enumerate(runs):
        cases += [
            {**run, "evaluate_every": 4, "folder": str(tmp_path / f"{number}")},
            {**run, **instead, "folder": str(tmp_path / f"{number}-instead")},
        ]
    lagging, drained, *others = run_cases(2, cases, tmp_path)
    check_alike(lagging, drained, runs[0])
    assert lagging["drains"] == [4, 8]
    for flushing, alone in (others[:2], others[2:]):
        for name in ("weights_sha256", "train_loss", "test_accuracy"):
            assert flushing[name] == alone[name], flushing["strategy"]
        assert len(flushing["evaluations"]) > len(alone["evaluations"])
    where = [(each["step"], each["part"], each["after_epoch"]) for each in lagging["evaluations"]]
    assert where == [
        (4, "validation", False),
        *((6, part, True) for part in ("validation", "test")),
        (8, "validation", False),
        *((12, part, True) for part in ("validation", "test")),
    ]
    seconds = sum(each["seconds"] for each in lagging["evaluations"])
    assert lagging["evaluation_seconds"] == pytest.approx(seconds)
    assert lagging["drain_seconds"] > 0


def test_all_ranks_stop_where_patience_ends_and_more_patience_goes_on(tmp_path: Path) -> None:
    """The mode is turned round, so that the first evaluation stays the best."""
    run = epochs(MLP, "fbp", 2, validation=0.1, evaluate_every=4, epochs=3, patience_mode="max")
    patient = {**run, "patience": 2, "keep_best": True}
    folder = str(tmp_path / "run")
    cases = [
        {**patient, "folder": folder},
        {**patient, "folder": folder, "resume": True},
        {**run, "folder": folder, "resume": True},
        {**run, "folder": str(tmp_path / "whole")},
    ]
    stopped, again, longer, whole = run_cases(2, cases, tmp_path)
    assert stopped["stopped_early"]["step"] == 8
    assert stopped["stopped_early"]["best_step"] == 4
    assert stopped["best_evaluation"]["step"] == 4
    assert len(stopped["train_loss"]) == len(stopped["step_seconds"]) == 8
    # What was not evaluated at that step by then.
    last = [(each["part"], each["after_epoch"]) for each in stopped["evaluations"]][-2:]
    assert last == [("validation", True), ("test", True)]
    assert [path.name for path in (tmp_path / "run" / "best").iterdir()] == ["step-4"]
    for name in ("weights_sha256", "train_loss", "evaluations", "stopped_early", "drains"):
        assert again[name] == stopped[name], name
    check_alike(longer, whole, run)
    assert longer["resume_changes"] == []
    assert longer["stopped_early"] is None
