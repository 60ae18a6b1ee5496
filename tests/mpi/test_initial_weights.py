"""Every rank starts its own layers from one file of weights, whatever the cut."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hpc_lpm.data.registry import load_dataset
from hpc_lpm.models.registry import create_model
from hpc_lpm.models.state_names import original_state
from tests.mpi.test_exactness import train_cases

pytestmark = pytest.mark.mpi

MODEL = "gpt,layers=2,width=16,heads=2,tied=true"
DATASET = f"text:{Path(torch.__file__).parent / 'functional.py'},sequence=16"


def case(strategy: str, **more: object) -> dict:
    return {
        "model": MODEL,
        "dataset": DATASET,
        "strategy": strategy,
        "batch_size": 8,
        "micro_batches": 2,
        "steps": 3,
        "seed": 3,
        **({"cuts": [0, 3, 7]} if strategy == "gpipe" else {}),
        **more,
    }


def test_stages_start_from_a_file_as_one_device_does(tmp_path: Path) -> None:
    model = create_model(MODEL, load_dataset(DATASET).shape)
    layers = {index: model.build_layer(index, 77) for index in range(len(model.layers))}
    path = tmp_path / "weights.safetensors"
    save_file({name: t.clone() for name, t in original_state(model, layers).items()}, path)
    one = [case("sequential"), case("sequential", init_from=str(path))]
    plain, started = train_cases(1, one, tmp_path)
    (stages,) = train_cases(2, [case("gpipe", init_from=str(path))], tmp_path)
    assert started["weights_sha256"] != plain["weights_sha256"]
    assert stages["weights_sha256"] == started["weights_sha256"]
