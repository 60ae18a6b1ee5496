"""What a run that one process plays alone is refused, each by one sentence."""

from pathlib import Path

import pytest
import torch
from torch import nn

import hpc_lpm
from hpc_lpm.data.dataset import DataShape
from hpc_lpm.engine.checks import check_run
from hpc_lpm.engine.first_plan import plan_of_rank_0
from hpc_lpm.engine.one_process.job import PlayedJob
from hpc_lpm.engine.one_process.play import play_ranks, ranks_to_play
from hpc_lpm.engine.settings import checked_settings
from hpc_lpm.engine.strategies.base import PlannedRun
from hpc_lpm.engine.training import Training
from hpc_lpm.errors import InputError
from hpc_lpm.models.registry import create_model
from tests.mpi.plans import write_plan

GOOD = {"model": "mlp,layers=4", "dataset": "digits", "strategy": "fbp", "steps": 2}
PLAYED = {**GOOD, "in_one_process": True}


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    write_plan([0, 2, 4], "mlp,layers=4", tmp_path / "plan.json")
    return tmp_path / "plan.json"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({**GOOD, "ranks": 2}, "ranks is 2 without in one process: mpirun -n 2"),
        ({**PLAYED, "ranks": 0}, "ranks"),
        ({**PLAYED, "transport": "torch"}, "in one process there are no messages"),
        ({**PLAYED, "progress_thread": True}, "in one process there are no messages"),
        ({**PLAYED, "strategy": "sequential"}, "in.one.process.*sequential"),
    ],
)
def test_settings_that_do_not_fit_one_process_are_refused(
    wrong: dict[str, object], named: str
) -> None:
    with pytest.raises(InputError, match=named) as caught:
        checked_settings(**wrong)
    assert "\n" not in str(caught.value)


def test_the_number_of_ranks_is_that_of_the_plan_or_what_was_asked_for(plan: Path) -> None:
    assert ranks_to_play(checked_settings(**GOOD)) == 0
    assert ranks_to_play(checked_settings(**PLAYED, plan=plan)) == 2
    assert ranks_to_play(checked_settings(**PLAYED, plan=plan, ranks=4)) == 4
    with pytest.raises(InputError, match=r"without --plan.*--ranks N"):
        ranks_to_play(checked_settings(**PLAYED))


def test_several_processes_are_refused(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = checked_settings(**PLAYED, plan=plan)
    for size, name in (("2", "OMPI_COMM_WORLD_SIZE"), ("0", "OMPI_COMM_WORLD_RANK")):
        monkeypatch.setenv(name, size)
    with pytest.raises(InputError, match="2 processes were started: start one, without mpirun"):
        ranks_to_play(settings)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "1")
    assert ranks_to_play(settings) == 2


def test_ranks_that_the_plan_has_no_stages_for_are_refused(plan: Path) -> None:
    settings = checked_settings(**PLAYED, plan=plan, ranks=3)
    with pytest.raises(InputError, match=r"2 stages.*3") as caught:
        play_ranks(3, 10.0, lambda job: Training(settings, job))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("chosen", "named"),
    [
        (
            {"strategy": "interleaved-1f1b", "chunks": 2, "ranks": 3},
            "3 ranks without --plan, with 2 stages on each, but model mlp,layers=4 has 4 layers: "
            "start at most 2 ranks, or give fewer --chunks, or give a plan",
        ),
        (
            {"strategy": "interleaved-1f1b", "chunks": 3, "ranks": 2},
            "with 3 stages on each, but .* has 4 layers: give fewer --chunks, or give a plan",
        ),
        (
            {"strategy": "zb-v", "ranks": 3},
            "with 2 stages on each, but .* has 4 layers: start at most 2 ranks, or give a plan",
        ),
        (
            {"strategy": "1f1b", "ranks": 5},
            "without --plan, but .*: start at most 4 ranks, or give",
        ),
        (
            {"strategy": "pipedream-2bw", "ranks": 3, "micro_batches": 2},
            "--micro-batches is 2 with --strategy pipedream-2bw on 3 stages",
        ),
    ],
)
def test_ranks_that_cannot_cut_the_model_are_refused_before_it_is_profiled(
    chosen: dict[str, object], named: str, tmp_path: Path
) -> None:
    settings = checked_settings(**PLAYED | chosen)
    ranks = ranks_to_play(settings)
    with pytest.raises(InputError, match=named):
        play_ranks(ranks, 10.0, lambda job: Training(settings, job, plan_into=tmp_path))
    assert not list(tmp_path.iterdir())


def test_what_a_strategy_refuses_comes_before_what_its_plan_would_hold(tmp_path: Path) -> None:
    """Under this plan more versions of the weights than two would be in use."""
    write_plan([0, 1, 2, 4], "mlp,layers=4", tmp_path / "plan.json")
    settings = checked_settings(
        **PLAYED | {"strategy": "pipedream-2bw", "micro_batches": 1}, plan=tmp_path / "plan.json"
    )
    with pytest.raises(InputError, match=r"--micro-batches is 1 .*: use 3 or more") as caught:
        play_ranks(3, 10.0, lambda job: Training(settings, job))
    assert "--weights" not in str(caught.value)


def test_ranks_that_resume_without_a_plan_use_the_one_that_rank_0_finds(
    plan: Path, tmp_path: Path
) -> None:
    """Other nodes may not see for a while what was written, as over NFS."""
    settings = checked_settings(**PLAYED, ranks=2)

    def part(job: PlayedJob) -> Training:
        folder = plan.parent if job.rank == 0 else tmp_path / "not seen yet"
        return Training(settings, job, resume_from=folder, plan_into=folder)

    for training in play_ranks(2, 10.0, part):
        assert training.plan is not None
        assert training.plan.cuts == (0, 2, 4)


def test_a_damaged_plan_that_rank_0_alone_sees_is_refused_on_all_ranks(
    plan: Path, tmp_path: Path
) -> None:
    plan.write_text("{")

    def part(job: PlayedJob) -> str:
        with pytest.raises(InputError, match=r"plan\.json is not JSON") as caught:
            plan_of_rank_0(job, plan.parent if job.rank == 0 else tmp_path / "not seen yet")
        return str(caught.value)

    assert len(set(play_ranks(2, 10.0, part))) == 1


def test_a_run_has_ended_for_all_ranks_if_rank_0_finds_its_result(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = checked_settings(**PLAYED, plan=plan)
    (tmp_path / "seen").mkdir()
    (tmp_path / "seen" / "result.json").write_text("{}")
    monkeypatch.setattr(
        "hpc_lpm.engine.training.finished_result",
        lambda path, *_: path.name if path.exists() else None,
    )

    def part(job: PlayedJob) -> object:
        folder = tmp_path / ("not seen yet" if job.rank else "seen")
        return Training(settings, job, resume_from=folder).finished

    assert play_ranks(2, 10.0, part) == ["result.json", "result.json"]


def test_more_than_two_replicas_are_refused() -> None:
    settings = checked_settings(**PLAYED, batch_size=96, ranks=6)
    model = create_model("mlp,layers=4", DataShape("image", (1, 8, 8), 10))
    with pytest.raises(InputError, match="3 replicas of every stage, of which it plays at most 2"):
        check_run(PlannedRun(settings, model, 6, 2, steps=2, epochs=1))
    check_run(PlannedRun(settings, model, 4, 2, steps=2, epochs=1))


@pytest.mark.parametrize("option", ["in_one_process", "ranks", "synchronous_head"])
def test_a_script_is_one_rank(option: str) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    with pytest.raises(InputError, match=f"option '{option}', which it does not take"):
        hpc_lpm.initialize(
            model,
            loss=nn.functional.cross_entropy,
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
            strategy="fbp",
            **{option: 1},
        )
