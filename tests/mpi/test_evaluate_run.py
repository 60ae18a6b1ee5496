"""`hpc-lpm evaluate` finds the bits of a run's own evaluation; what it exports loads strictly."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hpc_lpm.cli import evaluate, export  # noqa: F401  register the commands
from hpc_lpm.cli.app import app
from hpc_lpm.cli.errors import EXIT_BAD_INPUT, EXIT_DONE, run_guarded
from hpc_lpm.data.registry import load_dataset
from hpc_lpm.engine.checkpoint.export import export_weights
from hpc_lpm.engine.run_evaluation import Part, evaluate_run
from hpc_lpm.models.registry import create_model
from hpc_lpm.models.transformers_model import build_module
from tests.mpi.test_longer_runs import epochs
from tests.mpi.test_resume import DATASETS, GPT, MLP, RESNET, TIED, run_cases

pytestmark = pytest.mark.mpi

WHOLE = {"evaluate_all": True}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def check_evaluated(folder: Path, outcome: dict, parts: tuple[Part, ...]) -> None:
    last = {each["part"]: each for each in outcome["evaluations"]}
    for part in parts:
        found = evaluate_run(folder, part=part).found
        assert found.step == last[part]["step"]
        assert (found.loss, found.metrics) == (last[part]["loss"], last[part]["metrics"]), folder


def test_runs_of_two_ranks_are_evaluated_again_to_the_bit(tmp_path: Path) -> None:
    runs = [
        epochs(TIED, "fbp", 2, epochs=1, lead=2),
        epochs(RESNET, "fbp", 2, epochs=1, validation=0.1, precision="bf16", clip_norm=1.0),
        # Two replicas of one stage, whose buffers and micro-batches are shared.
        epochs(RESNET, "1f1b", 1, epochs=1, normalize="channels", validation=0.1),
        {
            **epochs(MLP, "deepspeed-1f1b", 2, epochs=2, last_batch="drop"),
            **{"patience": 1, "patience_mode": "max", "keep_best": True},
        },
    ]
    cases = [{**run, **WHOLE, "folder": str(tmp_path / str(n))} for n, run in enumerate(runs)]
    outcomes = run_cases(2, cases, tmp_path)
    for number, (run, outcome) in enumerate(zip(runs, outcomes, strict=True)):
        parts: tuple[Part, ...] = ("test", "validation") if run.get("validation") else ("test",)
        check_evaluated(tmp_path / str(number), outcome, parts)
    best = evaluate_run(tmp_path / "3", best=True)
    assert best.found.loss == outcomes[3]["best_evaluation"]["loss"]


def test_a_model_of_transformers_goes_back_into_its_own_class(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    config = {
        **{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 16, "n_layer": 2},
        **{"n_head": 2, "n_positions": 16, "vocab_size": load_dataset(DATASETS[GPT]).shape.classes},
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    model = f"hf:{path}"
    layers = len(create_model(model, load_dataset(DATASETS[GPT]).shape).layers)
    run = {**epochs(GPT, "fbp", 2, epochs=1), "model": model, "cuts": [0, layers // 2, layers]}
    (outcome,) = run_cases(2, [{**run, **WHOLE, "folder": str(tmp_path / "run")}], tmp_path)
    check_evaluated(tmp_path / "run", outcome, ("test",))
    module = build_module(load_dataset(DATASETS[GPT]).shape, path)
    exported = export_weights(tmp_path / "run").tensors
    module.load_state_dict(exported, strict=True)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, exported[name]), name


def test_what_cannot_be_evaluated_is_said_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    (outcome,) = run_cases(
        1, [{**epochs(RESNET, "sequential", 1, epochs=1), **WHOLE, "folder": str(run)}], tmp_path
    )

    def said(*arguments: str) -> str:
        code = run_guarded(app, ["evaluate", *arguments])
        printed = capsys.readouterr()
        assert code == (EXIT_BAD_INPUT if printed.err else EXIT_DONE)
        return printed.err or printed.out

    own = json.loads(said(str(run), "--json", "--metric", "top5_accuracy"))
    assert own["metrics"]["accuracy"] == outcome["test_accuracy"][-1]
    assert own["loss"] == outcome["evaluations"][-1]["loss"]
    assert own["metrics"]["top5_accuracy"] > own["metrics"]["accuracy"]
    # Images of another size, which the model takes; normalised as those of the run.
    larger = said(str(run), "--dataset", "digits,size=20", "--part", "training")
    assert "on digits,size=20, 1437 samples: training accuracy" in larger
    assert "no such part, accepted are training, test" in said(str(run), "--part", "validation")
    assert "trained on inputs of kind image of 1 channels" in said(
        str(run), "--dataset", DATASETS[GPT]
    )
    assert "'tset', accepted are test, validation, training" in said(str(run), "--part", "tset")
    assert "is no folder" in said(str(tmp_path / "none"))
    assert "not trained with --checkpoint-epochs 0" in said(str(tmp_path))
    assert "trained with --keep-best" in said(str(run), "--best")
    (tensors,) = run.glob("checkpoint/step-*/rank-0.safetensors")
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(content)
    assert "is damaged at rank-0.safetensors" in said(str(run))
    tensors.unlink()
    assert "no such file" in said(str(run))
