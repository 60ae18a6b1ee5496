"""The weights of a trained run under the names of the user's own module."""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hpc_lpm.data.registry import dataset_shape
from hpc_lpm.engine.checkpoint.save import sha256_of
from hpc_lpm.engine.checkpoint.store import FOLDER, Checkpoint
from hpc_lpm.engine.result import RESULT, RunResult
from hpc_lpm.errors import InputError
from hpc_lpm.models.registry import create_model
from hpc_lpm.models.state_names import under_outside_names

_OF_LAYER = re.compile(r"layer\.(\d+)\.(.+)")


@dataclass(frozen=True)
class ExportedWeights:
    """The weights of a run by name, with the model and the optimizer step that they belong to."""

    model: str
    step: int
    tensors: dict[str, Tensor]


def export_weights(run: Path, data_dir: Path | None = None) -> ExportedWeights:
    """Read the newest checkpoint in a run's folder and name its weights as the user does.

    Of several replicas, buffers are those of the first.

    Args:
        run: the folder of a run.
        data_dir: the folder in which the run's data set is looked for, if its shape cannot be told
            otherwise; by default that of the run.

    Raises:
        InputError: if the run has no checkpoint, a file is damaged, or its model cannot be made.
    """
    checkpoint = Checkpoint.newest(run / FOLDER)
    if checkpoint is None:
        raise InputError(
            f"run {run} has no checkpoint in {run / FOLDER}: name the --out folder of a run that "
            "was not trained with --checkpoint-epochs 0, or train it again."
        )
    settings: dict[str, Any] = checkpoint.manifest.settings
    shape = dataset_shape(settings["dataset"], data_dir or _data_dir(run))
    model = create_model(settings["model"], shape, settings["seed"])
    saved = checkpoint.manifest.cuts[-1]
    if saved != len(model.layers):
        raise InputError(
            f"checkpoint {checkpoint.path} has {saved} layers, model {model.name} has "
            f"{len(model.layers)}: bring the model back to what was trained."
        )
    tensors = under_outside_names(model, _layer_tensors(checkpoint))
    return ExportedWeights(model.name, checkpoint.manifest.history.step, tensors)


def write_weights(exported: ExportedWeights, path: Path) -> int:
    """Write weights to a safetensors file, whole or not at all, and return their bytes.

    Raises:
        InputError: if the file cannot be written.
    """
    # A file cannot hold one tensor under two names.
    tensors = {name: tensor.clone() for name, tensor in exported.tensors.items()}
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, aside, metadata={"format": "pt"})
        aside.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            aside.unlink()
        raise InputError(
            f"{path} cannot be written ({getattr(error, 'strerror', None) or error}): name a file "
            "in a folder that you can write to."
        ) from None
    return sum(tensor.nbytes for tensor in tensors.values())


def _layer_tensors(checkpoint: Checkpoint) -> dict[tuple[int, str], Tensor]:
    """Return the tensors of all layers by the layer's index and their name there."""
    tensors = {}
    for file in checkpoint.manifest.files:
        if file.replica != 0 or not file.name.endswith(".safetensors"):
            continue
        path = checkpoint.path / file.name
        if sha256_of(path) != file.sha256:
            raise checkpoint.damaged(f"{file.name}: its bytes are not those that were saved")
        with safe_open(path, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                if found := _OF_LAYER.fullmatch(name):
                    tensors[int(found[1]), found[2]] = opened.get_tensor(name)
    return tensors


def _data_dir(run: Path) -> Path | None:
    """Return the folder of data that a finished run was given."""
    if not (run / RESULT).exists():
        return None
    given = RunResult.read(run / RESULT).settings.get("data_dir")
    return Path(str(given)) if given else None
