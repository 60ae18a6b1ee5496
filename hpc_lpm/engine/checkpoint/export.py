"""The weights of a trained run under the names of the user's own module."""

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from hpc_lpm.data.registry import dataset_shape
from hpc_lpm.engine.checkpoint.store import Checkpoint
from hpc_lpm.errors import InputError
from hpc_lpm.files import written_aside
from hpc_lpm.models.registry import create_model
from hpc_lpm.models.state_names import under_outside_names


@dataclass(frozen=True)
class ExportedWeights:
    """The weights of a run by name, with the model and the optimizer step that they belong to."""

    model: str
    step: int
    tensors: dict[str, Tensor]


def export_weights(
    run: Path, data_dir: Path | None = None, *, best: bool = False
) -> ExportedWeights:
    """Read a checkpoint in a run's folder and name its weights as the user does.

    Of several replicas, buffers are those of the first.

    Args:
        run: the folder of a run.
        data_dir: the folder in which the run's data set is looked for, if its shape cannot be told
            otherwise; by default that of the run.
        best: whether to take the checkpoint of the best evaluation instead of the newest one.

    Raises:
        InputError: if the run has no such checkpoint, a file is damaged, or its model cannot be
            made.
    """
    checkpoint = Checkpoint.of_run(run, best=best)
    settings = checkpoint.manifest.remaking
    shape = dataset_shape(settings.dataset, data_dir or settings.data_dir)
    model = create_model(settings.model, shape, settings.seed, loss=settings.loss)
    saved = checkpoint.manifest.cuts[-1]
    if saved != len(model.layers):
        raise InputError(
            f"checkpoint {checkpoint.path} has {saved} layers, model {model.name} has "
            f"{len(model.layers)}: bring the model back to what was trained."
        )
    held = checkpoint.layer_tensors()
    if strange := [index for index, _ in held if index >= saved]:
        raise checkpoint.damaged(f"its tensors, which are of layer {strange[0]} of {saved} too")
    tensors = under_outside_names(model, held)
    return ExportedWeights(model.name, checkpoint.manifest.history.step, tensors)


def write_weights(exported: ExportedWeights, path: Path) -> int:
    """Write weights to a safetensors file, whole or not at all, and return their bytes.

    Raises:
        InputError: if the file cannot be written, or `path` is no regular file.
    """
    # A file cannot hold one tensor under two names.
    tensors = {name: tensor.clone() for name, tensor in exported.tensors.items()}
    try:
        with written_aside(path) as aside:
            save_file(tensors, aside, metadata={"format": "pt"})
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path} cannot be written ({getattr(error, 'strerror', None) or error}): name a file "
            "in a folder that you can write to."
        ) from None
    return sum(tensor.nbytes for tensor in tensors.values())
