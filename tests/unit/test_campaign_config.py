from pathlib import Path
from typing import Any

import pytest
from campaign_folders import campaign

from hpc_lpm.campaign.config import campaign_from_document, campaign_schema, read_campaign
from hpc_lpm.campaign.validation import check_names
from hpc_lpm.errors import InputError

QUICK = Path(__file__).parents[2] / "config" / "quick.yaml"


def refusal(**changes: Any) -> str:
    with pytest.raises(InputError) as refused:
        campaign(**changes)
    return str(refused.value)


def test_an_unknown_key_is_refused_with_the_nearest_accepted_one() -> None:
    message = refusal(bacth_size=64)
    assert "unknown key 'bacth_size', did you mean 'batch_size'?" in message
    assert "micro_batches" in message
    assert "unknown key 'lr', did you mean optimizer: {lr: ...}?" in refusal(lr=0.1)


def test_an_unknown_key_of_a_section_names_the_section_and_its_own_keys() -> None:
    message = refusal(optimizer={"name": "momentum", "learning_rate": 0.1})
    assert "unknown key 'learning_rate' in optimizer" in message
    assert "weight_decay" in message
    assert "micro_batches" not in message


def test_a_batch_that_micro_batches_do_not_divide_is_refused() -> None:
    message = refusal(batch_size=62, micro_batches=4)
    assert "batch_size 62 is not divisible by micro_batches 4" in message


@pytest.mark.parametrize(
    ("changes", "found"),
    [({"epochs": None}, "neither is"), ({"steps": 5}, "both are")],
)
def test_exactly_one_of_epochs_and_steps_is_accepted(changes: dict[str, Any], found: str) -> None:
    assert found in refusal(**changes)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"precision": "fp16"}, "fp32"),
        ({"memory_format": "nhwc"}, "channels_last"),
        ({"stages": 1}, "stages"),
        ({"models": []}, "models"),
        ({"seeds": [0, 0]}, "seeds"),
        ({"seeds": [2**63]}, "seeds"),
        ({"name": "a/b"}, "name"),
        ({"launcher": {"mpi": "aprun"}}, "mpirun"),
        ({"repeats": "many"}, "'many'"),
    ],
)
def test_a_value_that_is_not_accepted_is_named(changes: dict[str, Any], word: str) -> None:
    assert word in refusal(**changes)


def test_an_expectation_may_only_speak_of_strategies_that_run() -> None:
    expectation = {
        "metric": "samples_per_second",
        "strategy": "gpipe",
        "relative_to": "fbp",
        "at_least": 1,
    }
    assert "'gpipe'" in refusal(expect=[expectation])


@pytest.mark.parametrize(
    ("text", "word"),
    [("a: [", "is not YAML"), ("- a\n", "holds no keys"), ("", "holds no keys")],
)
def test_a_file_that_is_no_campaign_is_refused(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=word) as refused:
        read_campaign(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_campaign(Path("nowhere.yaml"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strategies": ["fpb"]}, ["'fpb'", "did you mean 'fbp'"]),
        ({"models": ["resnet200"]}, ["'resnet200'", "did you mean 'resnet20'"]),
        ({"datasets": ["digit"]}, ["'digit'", "did you mean 'digits'"]),
        ({"planners": ["unifrom"]}, ["'unifrom'", "did you mean 'uniform'"]),
        ({"models": ["gpt"]}, ["gpt"]),
        (
            {
                **{"prediction": True, "prediction_rule": "spectrain"},
                "optimizer": {"name": "adamw"},
            },
            ["prediction_rule spectrain", "sgd and momentum"],
        ),
        ({"epochs": 2, "synchronous_tail": 3}, ["synchronous_tail 3"]),
        ({"stages": 3}, ["micro_batches 4 is not divisible by the 3 ranks of horovod"]),
        (
            {"models": ["gpt,tied=true"], "datasets": ["text:Makefile"]},
            ["deepspeed-1f1b", "ties weights of layers 0 embedding and 10 head"],
        ),
        ({"models": ["mlp"], "stages": 9, "micro_batches": 9, "batch_size": 99}, ["9 stages"]),
    ],
)
def test_names_that_do_not_exist_or_do_not_fit_are_refused(
    changes: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(InputError) as refused:
        check_names(campaign(**changes), "some.yaml")
    for word in ["campaign file some.yaml", *words]:
        assert word in str(refused.value)


def test_the_schema_has_every_key_of_a_campaign() -> None:
    properties = campaign_schema()["properties"]
    own = {"lead", "weights", "prediction", "lr_discount", "transport"}
    own |= {"synchronous_head", "synchronous_tail", "prediction_rule", "recipe"}
    own |= {"in_one_process", "ranks", "gradient_shrink", "chunks", "fusion_megabytes"}
    own |= {"progress_thread", "cycle_time_milliseconds", "bucket_megabytes", "boundary_shapes"}
    assert set(properties) == set(type(campaign()).model_fields) - {"own"} | own
    assert campaign_schema()["additionalProperties"] is False


def test_the_default_campaign_is_valid() -> None:
    check_names(read_campaign(QUICK), str(QUICK))


def test_a_resolved_campaign_reads_back_as_itself() -> None:
    original = campaign(steps=7, epochs=None)
    assert campaign_from_document(original.model_dump(mode="json"), "here") == original
