"""Optimizers and rate schedules of the user's own train as in plain torch, or are refused."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import lr_scheduler

from hpc_lpm.cli.train import _print_result
from hpc_lpm.data.registry import load_dataset
from hpc_lpm.engine.checks import check_run
from hpc_lpm.engine.job import SingleProcess
from hpc_lpm.engine.result import RunResult
from hpc_lpm.engine.run_reporter import MetricsLog, PlainLines, RunReporter
from hpc_lpm.engine.settings import checked_settings
from hpc_lpm.engine.strategies.base import PlannedRun
from hpc_lpm.engine.training import Training
from hpc_lpm.errors import InputError, InterruptedTrainingError, TrainingError
from hpc_lpm.models.registry import create_model
from hpc_lpm.planning.options import OTHER_OPTIMIZER, planned_optimizer
from hpc_lpm.stop_signals import StopSignals
from tests.mpi import own_updates
from tests.unit.documents import ROOT, code_blocks

pytestmark = pytest.mark.usefixtures("one_thread")

MLP, DATA, SIZE, STEPS = "mlp,width=12,layers=3", "digits,size=8", 16, 6
OWN = "tests.mpi.own_updates"
OF_TORCH = "torch.optim.lr_scheduler"

Schedule = Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]


def plain_training(optimizer: Callable, schedule: Schedule) -> tuple[list[Tensor], list[float]]:
    """Train as any user of torch writes it; return the weights and the rate of every step."""
    data = load_dataset(DATA)
    chain = create_model(MLP, data.shape)
    model = nn.Sequential(*(chain.build_layer(i, 0) for i in range(3)))
    made = optimizer(model.parameters())
    scheduler, rates = schedule(made), []
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))
    for step in range(STEPS):
        chunk = order[step * SIZE : (step + 1) * SIZE]
        made.zero_grad()
        chain.loss(model(data.train.inputs(chunk)), data.train.targets(chunk)).backward()
        rates.append(made.param_groups[0]["lr"])
        made.step()
        scheduler.step()
    return [parameter.detach() for parameter in model.parameters()], rates


def constant(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    return lr_scheduler.LambdaLR(optimizer, lambda update: 1.0)


def times_triangle(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    return lr_scheduler.LambdaLR(optimizer, lambda u: own_updates.triangle(u, STEPS, 0.25))


def sgd(parameters: object) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)  # type: ignore[arg-type]


SGD = {"name": "momentum", "lr": 0.1}
WORKING: list[tuple[dict, dict, Callable, Schedule]] = [
    (
        {"name": f"{OWN}:Lion", "lr": 0.01, "weight_decay": 0.1, "options": {"betas": [0.5, 0.9]}},
        {},
        lambda p: own_updates.Lion(p, 0.01, (0.5, 0.9), 0.1),
        constant,
    ),
    (
        {"name": f"{OWN}:heavy_ball", "lr": 0.1, "options": {"momentum": 0.9}},
        {"schedule": f"{OWN}:triangle", "options": {"peak": 0.25}},
        sgd,
        times_triangle,
    ),
    (
        SGD,
        {"schedule": f"{OWN}:Slower", "options": {"by": 0.3}},
        sgd,
        lambda o: own_updates.Slower(o, 0.3),
    ),
    (
        SGD,
        {"schedule": f"{OWN}:with_warmup", "options": {"warmup": 3}},
        sgd,
        lambda o: own_updates.with_warmup(o, 3, STEPS),
    ),
    (
        SGD,
        {
            "schedule": f"{OF_TORCH}:OneCycleLR",
            "options": {"max_lr": 0.3, "total_steps": STEPS, "anneal_strategy": "linear"},
        },
        sgd,
        lambda o: lr_scheduler.OneCycleLR(o, 0.3, total_steps=STEPS, anneal_strategy="linear"),
    ),
]  # fmt: skip


def settings(**more: object) -> dict:
    return {
        "model": MLP,
        "dataset": DATA,
        "steps": STEPS,
        "batch_size": SIZE,
        "micro_batches": 1,
    } | more


class Stopping(RunReporter):
    """Stops the run at its second step, as a signal would."""

    def __init__(self, folder: Path, training: Training) -> None:
        super().__init__(
            PlainLines("run", STEPS, io.StringIO()),
            MetricsLog(folder / "metrics.jsonl"),
            batch_size=SIZE,
            steps_an_epoch=training.steps_an_epoch,
            learning_rate=training.learning_rate,
            group_rates=training.group_rates,
        )
        self.signals = StopSignals()

    def step(self, step: int, loss: float | None, seconds: float, skipped: bool) -> None:
        super().step(step, loss, seconds, skipped)
        self.signals.received = "SIGTERM"


@pytest.mark.parametrize(("optimizer", "rate", "made", "schedule"), WORKING)
@pytest.mark.filterwarnings("ignore:Detected call of")
def test_training_that_stops_and_goes_on_is_that_of_plain_torch(
    optimizer: dict, rate: dict, made: Callable, schedule: Schedule, tmp_path: Path
) -> None:
    chosen = checked_settings(**settings(optimizer=optimizer, learning_rate=rate))
    stopped = Training(chosen, SingleProcess())
    reporter = Stopping(tmp_path, stopped)
    with pytest.raises(InterruptedTrainingError):
        stopped.run(tmp_path, reporter, reporter.signals)
    resumed = Training(chosen, SingleProcess(), resume_from=tmp_path)
    assert 0 < resumed.history.step < STEPS
    assert resumed.run(tmp_path, None) is not None
    expected, rates = plain_training(made, schedule)
    saved = load_file(next(tmp_path.glob(f"checkpoint/step-{STEPS}/rank-0.safetensors")))
    names = [f"layer.{i}.{n}" for i in (0, 1) for n in ("linear.weight", "linear.bias")]
    for name, parameter in zip([*names, "layer.2.weight", "layer.2.bias"], expected, strict=True):
        assert torch.equal(saved[name], parameter), name
    told = [
        json.loads(line)["lr"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
    ]
    assert told == rates[: len(told)]
    assert [resumed.learning_rate(step) for step in (*range(STEPS), 1)] == [*rates, rates[1]]


def test_skipped_updates_are_counted_also_before_a_resumption(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batches = {"batch_size": 12, "micro_batches": 3, "seed": 3}
    run = settings(model=f"{OWN}:spoiled,where=loss", **batches)
    with pytest.raises(TrainingError, match=r"step 1.*the loss is"):
        Training(checked_settings(**run), SingleProcess()).run(tmp_path / "stops", None)
    chosen = checked_settings(**run, non_finite="skip")
    stopped = Training(chosen, SingleProcess())
    reporter = Stopping(tmp_path, stopped)
    with pytest.raises(InterruptedTrainingError):
        stopped.run(tmp_path, reporter, reporter.signals)
    Training(chosen, SingleProcess(), resume_from=tmp_path).run(tmp_path, None)
    result = RunResult.read(tmp_path / "result.json")
    assert result.skipped_updates == [2]
    assert [step for step, loss in enumerate(result.train_loss) if loss is None] == [1, 2]
    lines = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    told = [(line["step"], line["loss"] is None, line.get("skipped", False)) for line in lines]
    assert told[:3] == [(0, False, False), (1, True, True), (2, True, True)]
    _print_result(result, tmp_path)
    assert "skipped by rank, since gradients were not finite: 2\n" in capsys.readouterr().out


def test_norms_are_logged_as_plain_torch_finds_them_before_clipping(tmp_path: Path) -> None:
    run = checked_settings(**settings(optimizer=SGD, steps=5, log_norms=2, clip_norm=0.1))
    training = Training(run, SingleProcess())
    training.run(tmp_path, Stopping(tmp_path, training))
    lines = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    logged = [line for line in lines if "gradient_norm" in line]
    found: list[dict] = []

    class Clipping(torch.optim.SGD):
        def step(self, closure: object = None) -> None:  # type: ignore[override]
            parameters = self.param_groups[0]["params"]
            weights = torch.nn.utils.get_total_norm([p.detach() for p in parameters])
            gradients = torch.nn.utils.clip_grad_norm_(parameters, 0.1)
            found.append({"gradient_norm": float(gradients), "weight_norm": float(weights)})
            super().step()

    plain_training(lambda p: Clipping(p, lr=0.1, momentum=0.9), constant)
    assert logged == [{"step": step, **found[step]} for step in (0, 2, 4)]


def refusal(strategy: str = "sequential", **more: object) -> str:
    chosen = checked_settings(**settings(strategy=strategy, **more))
    ranks = 1 if strategy == "sequential" else 2
    stages = ranks if strategy in ("fbp", "1f1b", "deepspeed-1f1b") else 1
    with pytest.raises(InputError) as refused:
        check_run(PlannedRun(chosen, None, ranks, stages, steps=STEPS))
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (f"{OWN}:Lino", ["no name 'Lino'", "did you mean 'Lion'"]),
        ("no_such_module:Lion", ["cannot be imported"]),
        (f"{OWN}:A_NUMBER", ["not callable", "int"]),
        (f"{OWN}:Slower", ["class of another kind", "torch.optim.Optimizer"]),
        (f"{OWN}:not_an_optimizer", ["returned Tensor"]),
        (f"{OWN}:NoRate", ["takes no lr"]),
        (f"{OWN}:NeedsClosure", ["TypeError", "without a closure"]),
        (f"{OWN}:NeedsGradients", ["without a gradient"]),
        (f"{OWN}:Switching", ["method eval"]),
        (f"{OWN}:Forgetful", ["cannot be resumed", "self.state"]),
        (f"{OWN}:Remembering", ["cannot be resumed", "numbers alone"]),
        ("torch.optim:LBFGS", ["'torch.optim:LBFGS'"]),
        ("torch.optim:Muon", ["'torch.optim:Muon'"]),
    ],
)
def test_an_optimizer_that_cannot_train_here_is_refused_with_the_reason(
    name: str, words: list[str]
) -> None:
    said = refusal(optimizer={"name": name})
    for word in words:
        assert word in said


def test_options_of_ones_own_optimizer_are_checked_where_it_names_them() -> None:
    wrong = {"name": f"{OWN}:Lion", "options": {"beta": 0.9}}
    assert "did you mean 'betas'" in refusal(optimizer=wrong)
    assert "nesterof" in refusal(
        optimizer={"name": f"{OWN}:heavy_ball", "options": {"nesterof": True}}
    )
    decaying = {"name": f"{OWN}:OwnAttribute", "weight_decay": 0.1}
    assert "no weight decay" in refusal(optimizer=decaying)


@pytest.mark.parametrize("name", ["OneNorm", "Noisy"])
def test_an_optimizer_that_mixes_parameters_trains_where_none_are_apart(name: str) -> None:
    chosen = {"name": f"{OWN}:{name}"}
    for strategy in ("fbp", "1f1b", "deepspeed-1f1b"):
        assert "each stage has an optimizer of its own" in refusal(strategy, optimizer=chosen)
    run = checked_settings(**settings(optimizer=chosen))
    check_run(PlannedRun(run, None, 1))


def test_horovod_refuses_an_optimizer_that_its_groups_do_not_make_anew() -> None:
    own = {"name": f"{OWN}:OwnAttribute", "options": {"factor": 0.1}}
    four = {"micro_batches": 4, "optimizer": own}
    assert "makes it anew from its param_groups" in refusal("horovod", **four)
    fine = settings(**four | {"optimizer": {"name": f"{OWN}:Lion"}}, strategy="horovod")
    check_run(PlannedRun(checked_settings(**fine), None, 2))


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        ({"schedule": f"{OF_TORCH}:ReduceLROnPlateau"}, ["takes a metric"]),
        ({"schedule": f"{OF_TORCH}:OneCycleLR"}, ["raises TypeError", "--lr-schedule-option"]),
        (
            {
                "schedule": f"{OF_TORCH}:OneCycleLR",
                "options": {"max_lr": 1.0, "total_steps": STEPS - 2},
            },
            ["raises ValueError", f"the {STEPS} updates"],
        ),
        ({"schedule": f"{OWN}:Lion"}, ["class of another kind", "LRScheduler"]),
        ({"schedule": f"{OWN}:counting"}, ["other rates when it is asked again"]),
        ({"schedule": f"{OWN}:drawn"}, ["other rates when it is asked again"]),
        ({"schedule": f"{OWN}:negative"}, ["for update 2", "from 0"]),
        ({"schedule": f"{OWN}:text"}, ["returned str for update 0"]),
        ({"schedule": f"{OWN}:failing"}, ["IndexError", "own_updates.py, line"]),
        ({"schedule": f"{OWN}:nothing"}, ["returned NoneType"]),
        ({"schedule": f"{OWN}:triangle", "options": {"top": 1}}, ["unexpected keyword", "'top'"]),
        ({"schedule": "math:no_such"}, ["no name 'no_such'"]),
    ],
)
def test_a_schedule_that_is_no_function_of_the_update_is_refused(
    rate: dict, words: list[str]
) -> None:
    said = refusal(learning_rate=rate)
    for word in words:
        assert word in said


def test_a_schedule_that_sets_one_rate_for_all_is_refused_where_rates_differ() -> None:
    cycle = {"schedule": f"{OF_TORCH}:OneCycleLR", "options": {"max_lr": 1.0, "total_steps": STEPS}}
    scaled = {"optimizer": {"lr_scale": ["output.*=2"]}, "learning_rate": cycle}
    assert "--lr-scale" in refusal(**scaled)
    assert "--lr-discount" in refusal("fbp", learning_rate=cycle, lr_discount=True)


@pytest.mark.parametrize(
    ("rate", "named"),
    [
        ({"schedule": f"{OWN}:triangle", "warmup_steps": 2}, "let it warm up itself"),
        ({"schedule": "linear", "options": {"peak": 1}}, "takes no options, found peak"),
    ],
)
def test_settings_of_a_schedule_that_do_not_go_together_are_refused(rate: dict, named: str) -> None:
    with pytest.raises(InputError, match=named):
        checked_settings(**settings(learning_rate=rate))


def test_plans_count_two_copies_for_ones_own_optimizer() -> None:
    own = checked_settings(**settings(optimizer={"name": f"{OWN}:Lion"})).optimizer
    assert planned_optimizer(own) == OTHER_OPTIMIZER


def test_what_the_guide_shows_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = ROOT / "docs" / "how-to" / "optimizers.md"
    (shown,) = (block.text for block in code_blocks(guide) if block.language == "python")
    (tmp_path / "my_updates.py").write_text(shown)
    monkeypatch.chdir(tmp_path)
    for name in ("Lion", "heavy_ball"):
        chosen = settings(
            strategy="fbp",
            optimizer={"name": f"my_updates:{name}", "lr": 0.1, "weight_decay": 0.1},
            learning_rate={"schedule": "my_updates:triangle", "options": {"peak": 0.5}},
        )
        check_run(PlannedRun(checked_settings(**chosen), None, 2, 2, steps=STEPS))
