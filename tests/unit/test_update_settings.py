"""Optimizers, learning rates, clipping and discount that cannot work are refused in a sentence."""

import inspect
from pathlib import Path

import pytest
import torch
from campaign_folders import campaign
from torch import nn

from hpc_lpm.campaign.config import campaign_from_document
from hpc_lpm.campaign.described_settings import describe_updates
from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.steps import Steps
from hpc_lpm.campaign.validation import check_names
from hpc_lpm.cli.option_values import argument_values, optimizer_steps
from hpc_lpm.engine.checks import check_run
from hpc_lpm.engine.gradient_rules import GradientRules
from hpc_lpm.engine.job import SingleProcess
from hpc_lpm.engine.learning_rate import build_scheduler
from hpc_lpm.engine.optimizer import build_optimizer
from hpc_lpm.engine.pipeline.rate_discount import rate_divisor
from hpc_lpm.engine.recorder import Recorder
from hpc_lpm.engine.settings import TrainSettings, checked_settings
from hpc_lpm.engine.strategies.base import PlannedRun
from hpc_lpm.engine.strategies.registry import strategy_named
from hpc_lpm.engine.topology import PipelineTopology
from hpc_lpm.engine.training import Training
from hpc_lpm.engine.update_checks import check_optimizer
from hpc_lpm.errors import InputError
from hpc_lpm.options import LearningRateSettings, OptimizerSettings
from hpc_lpm.schedules.placement import Placement

OF_TORCH = [
    name
    for name, value in vars(torch.optim).items()
    if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer) and name != "Optimizer"
]
IMPOSSIBLE = ["LBFGS", "SparseAdam"]


def settings(**values: object) -> OptimizerSettings:
    return OptimizerSettings.model_validate(values)


def refusal(**values: object) -> str:
    with pytest.raises(InputError) as refused:
        check_optimizer(settings(**values))
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("name", [name for name in OF_TORCH if name not in IMPOSSIBLE])
def test_every_other_optimizer_of_torch_works_also_where_there_are_no_parameters(
    name: str,
) -> None:
    for spelling in (name, name.lower(), name.upper()):
        check_optimizer(settings(name=spelling))
    optimizer = build_optimizer([], settings(name=name))
    scheduler = build_scheduler(optimizer, LearningRateSettings(warmup_steps=2), 4)
    clipping = GradientRules([], checked_settings(**RUN, clip_norm=0.1), Recorder(0, print))
    for _ in range(4):
        clipping.apply()
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_an_optimizer_that_cannot_train_here_is_refused_with_the_reason(name: str) -> None:
    reasons = {"LBFGS": "within an update", "SparseAdam": "sparse"}
    assert reasons[name] in refusal(name=name)
    assert name in refusal(name=name)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": "sgdd"}, ["'sgdd'", "did you mean 'sgd'", "RMSprop", "momentum"]),
        ({"name": "RMSProb"}, ["did you mean 'RMSprop'"]),
        ({"name": "RMSprop", "options": {"alhpa": 0.9}}, ["'alhpa'", "'alpha'", "centered"]),
        ({"name": "adam", "options": {"lr": 0.9}}, ["'lr'", "setting of its own"]),
        ({"name": "sgd", "options": {"momentum": 0.9}}, ["'momentum'", "setting of its own"]),
        ({"name": "sgd", "options": {"nesterov": True}}, ["nesterov=True", "momentum"]),
        ({"name": "RMSprop", "options": {"alpha": -1}}, ["alpha=-1", "Invalid alpha"]),
        ({"name": "adam", "options": {"betas": (0.9,)}}, ["betas"]),
        ({"name": "adam", "options": {"eps": "much"}}, ["'eps' of optimizer 'adam' is 'much'"]),
        ({"name": "muon", "options": {"ns_step": 3}}, ["'ns_step'", "did you mean 'ns_steps'"]),
        ({"name": "muon", "options": {"betas": 0.9}}, ["'betas'", "several numbers"]),
        ({"name": "muon", "options": {"adjust_lr_fn": "none"}}, ["adjust_lr_fn=none"]),
        ({"name": "Muon", "options": {"eps": -1.0}}, ["eps=-1.0", "epsilon"]),
        ({"name": "Rprop", "weight_decay": 0.1}, ["'Rprop'", "0.1", "no weight decay"]),
    ],
)
def test_a_wrong_name_or_option_is_refused_and_the_accepted_ones_are_named(
    values: dict[str, object], words: list[str]
) -> None:
    for word in words:
        assert word in refusal(**values)


def test_short_names_are_the_optimizers_that_they_always_were() -> None:
    weight = [nn.Parameter(torch.ones(3))]
    made = {
        name: build_optimizer(weight, settings(name=name, lr=0.2, weight_decay=0.1))
        for name in ("sgd", "momentum", "adam", "adamw")
    }
    same = {
        "sgd": torch.optim.SGD(weight, lr=0.2, weight_decay=0.1),
        "momentum": torch.optim.SGD(weight, lr=0.2, momentum=0.9, weight_decay=0.1),
        "adam": torch.optim.Adam(weight, lr=0.2, weight_decay=0.1),
        "adamw": torch.optim.AdamW(weight, lr=0.2, weight_decay=0.1),
    }
    for name, optimizer in made.items():
        assert type(optimizer) is type(same[name])
        assert optimizer.defaults == same[name].defaults


def test_options_keep_their_type_from_the_command_line_to_the_result() -> None:
    given = ["nesterov=true", "alpha=0.9", "d=1", "betas=0.9,0.95", "mode=max", "of=a,b"]
    expected = {"nesterov": True, "alpha": 0.9, "d": 1, "betas": (0.9, 0.95)}
    expected |= {"mode": "max", "of": "a,b"}
    kept = settings(options=argument_values("--optimizer-option", given)).options
    assert {name: (type(v), v) for name, v in kept.items()} == {
        name: (type(v), v) for name, v in expected.items()
    }


@pytest.mark.parametrize("text", ["nesterov", "=1", "alpha="])
def test_an_option_that_is_no_name_and_value_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="NAME=VALUE"):
        argument_values("--optimizer-option", [text])
    with pytest.raises(InputError, match="twice"):
        argument_values("--lr-schedule-option", ["a=1", "a=2"])


def test_milestones_are_whole_numbers() -> None:
    assert optimizer_steps("--lr-milestones", None) == []
    assert optimizer_steps("--lr-milestones", "100,200") == [100, 200]
    with pytest.raises(InputError, match=r"--lr-milestones is '1\.5'"):
        optimizer_steps("--lr-milestones", "1.5")


RUN = {"model": "mlp", "dataset": "digits,size=8", "strategy": "sequential", "steps": 4}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"learning_rate": {"schedule": "cosin"}}, "schedule 'cosin' is unknown.*cosine"),
        ({"learning_rate": {"schedule": "step"}}, "step needs milestones"),
        ({"learning_rate": {"milestones": [3]}}, "belong to .* step, found constant"),
        ({"learning_rate": {"schedule": "step", "milestones": [3, 3]}}, "ascend"),
        (
            {"learning_rate": {"schedule": "step", "milestones": [2], "warmup_steps": 3}},
            "milestone 2 lies within the 3",
        ),
        ({"learning_rate": {"warmup_steps": 4}}, "--warmup-steps 4 .* the 4 optimizer steps"),
        ({"clip_norm": 0}, "clip_norm"),
        ({"trace_from": 4}, "--trace-from is step 4.* steps 0 to 3"),
        ({"non_finite": "ignore"}, "non_finite.*skip"),
        ({"clip_norm": 1, "clip_scope": "local"}, "clip_scope.*global"),
        ({"clip_scope": "global"}, "--clip-norm"),
        ({"lr_discount": True}, "--lr-discount .* sequential.* use --strategy fbp"),
        ({"optimizer": {"name": "sgdd"}}, "did you mean 'sgd'"),
    ],
)
def test_a_run_with_a_wrong_setting_does_not_start(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named) as refused:
        Training(checked_settings(**RUN, **wrong), SingleProcess())
    assert "\n" not in str(refused.value)


def check(strategy: str, **changes: object) -> None:
    settings = checked_settings(**{**RUN, "strategy": strategy, **changes})
    check_run(PlannedRun(settings, None, 2 if strategy != "sequential" else 1, 1, steps=4))


def test_clipping_over_all_stages_is_refused_where_they_never_meet() -> None:
    with pytest.raises(InputError, match=r"fbp.*wait for all others.*--clip-scope stage"):
        check("fbp", clip_norm=1.0, clip_scope="global")
    for scope in (None, "stage"):
        check("fbp", clip_norm=1.0, clip_scope=scope)


@pytest.mark.parametrize("strategy", ["1f1b", "gpipe", "naive", "sequential", "horovod"])
def test_all_strategies_that_drain_clip_by_one_rule_unless_asked_otherwise(strategy: str) -> None:
    run = checked_settings(**{**RUN, "strategy": strategy}, clip_norm=1.0)
    assert strategy_named(strategy).with_clip_scope(run).clip_scope == "global"
    for scope in ("stage", "global"):
        check(strategy, clip_norm=1.0, clip_scope=scope)
        asked = run.model_copy(update={"clip_scope": scope})
        assert strategy_named(strategy).with_clip_scope(asked).clip_scope == scope
    unclipped = checked_settings(**{**RUN, "strategy": strategy})
    assert strategy_named(strategy).with_clip_scope(unclipped).clip_scope is None


def test_clipping_by_stage_is_refused_where_deepspeed_clips() -> None:
    with pytest.raises(InputError, match=r"deepspeed-1f1b.*--clip-scope global"):
        check("deepspeed-1f1b", clip_norm=1.0, clip_scope="stage")
    check("deepspeed-1f1b", clip_norm=None, clip_scope="stage")


@pytest.mark.parametrize("strategy", ["sequential", "limit", "horovod", "deepspeed-1f1b"])
def test_whole_models_may_be_clipped_globally_but_not_discounted(strategy: str) -> None:
    check(strategy, clip_norm=1.0, clip_scope="global")
    with pytest.raises(InputError, match=f"--lr-discount was given with --strategy {strategy}"):
        check(strategy, lr_discount=True)


def test_the_discount_divides_by_the_mean_lag_above_one() -> None:
    run = {**RUN, "strategy": "fbp", "micro_batches": 2, "lead": 2}
    discounted = checked_settings(**run, lr_discount=True)
    # d = 6, 4, 2, 0 micro-batches are 3, 2, 1, 0 updates of 2.
    divisors = [
        rate_divisor(discounted, PipelineTopology(stage, Placement.in_a_loop(4), 1))
        for stage in range(4)
    ]
    assert divisors == [3, 2, 1, 1]
    assert (
        rate_divisor(checked_settings(**run), PipelineTopology(0, Placement.in_a_loop(4), 1)) == 1
    )


MIXED = {
    "strategies": ["sequential", "deepspeed-1f1b", "fbp", "horovod"],
    "optimizer": {"name": "RMSprop", "lr": 0.01, "options": {"alpha": 0.9, "centered": True}},
    "learning_rate": {"schedule": "step", "milestones": [10, 20], "warmup_steps": 5},
    "clip_norm": 1.0,
    "lr_discount": True,
    "weights": "stash",
}


def made(**changes: object) -> Steps:
    return Steps(campaign(**changes, repeats=1), CampaignFolder(Path("results/x")))


def settings_by_strategy(**changes: object) -> dict[str, TrainSettings]:
    steps = made(**changes)
    return {steps.trials[name].strategy: steps.settings(name) for name in steps.runs}


def test_a_campaign_gives_each_strategy_what_it_can_do() -> None:
    for strategy, given in settings_by_strategy(**MIXED).items():
        assert given.optimizer.options == {"alpha": 0.9, "centered": True}
        assert given.learning_rate == LearningRateSettings(
            schedule="step", warmup_steps=5, milestones=(10, 20), factor=0.1
        )
        document = given.model_dump()
        assert document.get("lr_discount", False) == (strategy == "fbp")
        assert document.get("weights") == ("stash" if strategy == "fbp" else None)
        assert given.clip_norm == 1.0
        assert given.clip_scope == ("stage" if strategy == "fbp" else "global")
        by_stage = settings_by_strategy(**MIXED, clip_scope="stage")[strategy].clip_scope
        assert by_stage == ("global" if strategy == "deepspeed-1f1b" else "stage")
    check_names(campaign(**MIXED), "mixed.yaml")
    described = describe_updates(campaign(**MIXED))
    assert "alpha 0.9, centered true" in described["optimizer"]
    assert "deepspeed-1f1b global to norm 1, fbp stage to norm 1" in described["clipping"]
    assert described["lr discount"] == "true (fbp)"
    assert described["weights"] == "stash (fbp)"


def test_a_campaign_without_new_settings_has_the_defaults_of_train() -> None:
    for strategy, given in settings_by_strategy().items():
        plain = checked_settings(
            model="resnet20", dataset="digits", strategy=strategy, epochs=3, plan=given.plan
        )
        assert given == plain
    assert set(describe_updates(campaign())) == {"optimizer"}


def test_plans_know_the_state_of_other_optimizers_as_other() -> None:
    plans = made(**MIXED).plans
    for step in plans.values():
        assert step.arguments[step.arguments.index("--optimizer") + 1] == "other"
    (of_fbp,) = (step for name, step in plans.items() if name.endswith("fbp"))
    assert of_fbp.arguments[of_fbp.arguments.index("--weights") + 1] == "stash"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"optimizer": {"name": "RMSprob"}}, "did you mean 'RMSprop'"),
        ({"optimizer": {"name": "adam", "options": {"beta": 1}}}, "'beta'"),
        ({"clip_norm": 1.0, "clip_scope": "global"}, "--strategy fbp"),
        ({"lr_discount": True, "strategies": ["sequential"]}, "race fbp"),
        ({"optimizer": {"lr_scale": ["heads.*=2"]}}, r"optimizer.lr_scale 'heads.\*=2' matches no"),
        ({"learning_rate": {"schedule": "math:cosine"}}, "no name 'cosine'"),
        ({"optimizer": {"name": "math:pi"}}, "'math:pi' is not callable"),
        ({"epochs": None, "steps": 5, "learning_rate": {"warmup_steps": 9}}, "the 5 optimizer"),
    ],
)
def test_a_campaign_that_cannot_update_as_asked_is_refused(
    changes: dict[str, object], word: str
) -> None:
    with pytest.raises(InputError, match=word) as refused:
        check_names(campaign(**changes), "some.yaml")
    assert str(refused.value).startswith("campaign file some.yaml")


def test_an_unknown_key_of_the_learning_rate_names_the_accepted_ones() -> None:
    with pytest.raises(InputError, match=r"'warmup' in learning_rate.*'warmup_steps'"):
        campaign(learning_rate={"warmup": 3})


def test_a_campaign_with_all_settings_reads_back_as_itself() -> None:
    original = campaign(**MIXED)
    assert campaign_from_document(original.model_dump(mode="json"), "here") == original
