"""Parts of a run's length: what is accepted, how they are written, and how many steps they have."""

import json
from pathlib import Path

import pytest

from hpc_lpm.campaign.config import campaign_from_document
from hpc_lpm.campaign.contestants import contestant_settings, contestants_of
from hpc_lpm.cli.option_values import document_of
from hpc_lpm.durations import Duration
from hpc_lpm.engine.pipeline.options import LaggingOptions
from hpc_lpm.engine.settings import TrainSettings, checked_settings, settings_fields
from hpc_lpm.engine.strategies.base import PlannedRun
from hpc_lpm.engine.strategies.registry import strategy_named
from hpc_lpm.errors import InputError

RUN = {"model": "mlp", "dataset": "digits", "strategy": "fbp", "steps": 20}


def own(settings: TrainSettings) -> LaggingOptions:
    assert isinstance(settings.own, LaggingOptions)
    return settings.own


@pytest.mark.parametrize(
    ("typed", "written"),
    [
        *((2, 2), ("2", 2), ("2epochs", 2), ("1 epoch", 1), (" 3 epochs ", 3)),
        *(("200steps", "200steps"), ("1 step", "1steps"), ("0steps", 0)),
        *(("10%", "10%"), ("2.50 %", "2.5%"), ("100%", "100%"), ("0%", 0)),
    ],
)
def test_what_is_typed_has_one_form_in_settings_and_survives_a_file(
    typed: object, written: object
) -> None:
    settings = checked_settings(**RUN, synchronous_head=typed)
    assert own(settings).synchronous_head == written
    document = json.loads(settings.model_dump_json())
    assert document["synchronous_head"] == written
    assert checked_settings(**document) == settings


@pytest.mark.parametrize(
    "wrong",
    ["-1", -1, 1.5, True, None, "", "steps", "5 weeks", "1.5steps", "0.5", "101%", "1e3steps", "²"],
)
def test_what_is_no_part_of_a_run_is_refused_with_what_is(wrong: object) -> None:
    with pytest.raises(InputError) as refused:
        checked_settings(**RUN, synchronous_tail=wrong)
    assert "synchronous_tail: " in str(refused.value)
    assert "accepted is" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_command_line_and_campaigns_take_the_same_forms() -> None:
    given = {"synchronous_head": "10%", "synchronous_tail": "2"}
    assert document_of(settings_fields("fbp"), given) == given
    document = {
        **{"name": "parts", "models": ["mlp"], "datasets": ["digits"], "strategies": ["fbp"]},
        **{"steps": 20, "synchronous_head": "5 steps", "synchronous_tail": 1},
    }
    campaign = campaign_from_document(document, str(Path("here.yaml")))
    chosen = own(contestant_settings(campaign, contestants_of(["fbp"])[0]))
    assert (chosen.synchronous_head, chosen.synchronous_tail) == ("5steps", 1)


def test_a_first_and_a_last_part_have_so_many_steps() -> None:
    steps, steps_an_epoch = 23, 5
    for typed, first, last in [
        *((0, 0, 0), (1, 5, 3), (2, 10, 8)),
        *(("4steps", 4, 4), ("10%", 3, 3), ("100%", 23, 23)),
    ]:
        duration = Duration.parse(typed)
        assert duration.first_steps(steps, steps_an_epoch) == first
        assert duration.last_steps(steps, steps_an_epoch) == last


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"synchronous_tail": "21steps"}, ["--synchronous-tail 21steps", "20 steps", "20steps"]),
        ({"synchronous_head": 5}, ["--synchronous-head 5", "4 epochs", "at most 4"]),
        ({"synchronous_head": "60%", "synchronous_tail": "41%"}, ["together"]),
        ({"synchronous_head": "16steps", "synchronous_tail": 1}, ["together"]),
        ({"synchronous_head": 2, "synchronous_tail": 3}, ["together"]),
    ],
)
@pytest.mark.parametrize("loaded", [True, False])
def test_parts_that_are_longer_than_the_run_are_refused(
    parts: dict[str, object], words: list[str], loaded: bool
) -> None:
    settings = checked_settings(**RUN, **parts)
    run = PlannedRun(settings, None, 2, 2, None, 20, 4, 5 if loaded else None)
    if not loaded and len(parts) == 2 and "16steps" in parts.values():
        strategy_named("fbp").check(run)  # nobody knows yet how long an epoch is
        return
    with pytest.raises(InputError) as refused:
        strategy_named("fbp").check(run)
    for word in words:
        assert word in str(refused.value)


def test_parts_that_fill_the_run_are_accepted() -> None:
    for head, tail in [("15steps", 1), ("50%", "50%"), (2, 2)]:
        settings = checked_settings(**RUN, synchronous_head=head, synchronous_tail=tail)
        strategy_named("fbp").check(PlannedRun(settings, None, 2, 2, None, 20, 4, 5))
        assert all(step in own(settings).flushed_steps(20, 5) for step in range(20))
