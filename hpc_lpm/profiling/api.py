"""`hpc_lpm.profile`: measure a module of one's own from a script."""

from typing import Any, Literal

import torch
from torch import nn

from hpc_lpm.activation import copied
from hpc_lpm.errors import InputError
from hpc_lpm.keyword_errors import options_as_keywords
from hpc_lpm.models.compute_format import compute_format_named
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.models.losses import Loss
from hpc_lpm.models.own_module import as_arguments, count_samples, model_of, undisturbed
from hpc_lpm.options import MemoryFormat, Precision
from hpc_lpm.profile_file import Profile
from hpc_lpm.profiling.job import profile_micro_batch


def profile(
    model: nn.Module | LayeredModel,
    micro_batch: tuple[Any, Any],
    *,
    loss: Loss,
    name: str | None = None,
    repeats: int = 10,
    threads: int | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    precision: Precision = "fp32",
    memory_format: MemoryFormat = "contiguous",
) -> Profile:
    """Measure what each layer of a module costs for one micro-batch, forward and backward.

    The layers of an `nn.Sequential` are its children; any other module is captured with
    `torch.export` and divided. Copies of the layers are measured: the module, the inputs, all
    random generators and the modes of autograd stay as they are.

    One process is enough, in which the link between ranks is assumed. Under mpirun or srun every
    rank must call this: all of them measure at the same time, as they train at the same time, the
    link between them is measured too, and all return the same profile.

    Args:
        model: The module, on the host.
        micro_batch: `(inputs, targets)` of one micro-batch, the samples first. Inputs are a tensor,
            a tuple of positional arguments or a dictionary of keyword arguments; those of an
            `nn.Sequential` are its one argument.
        loss: Called as `loss(outputs, targets)` with what the module returns, or with its `logits`
            if it has any; returns the mean over the micro-batch as a tensor of one number. A module
            such as `nn.CrossEntropyLoss()` is one.
        name: What the profile calls the model; by default the name of the module's class.
        repeats: Timed passes over all layers, of which medians are taken.
        threads: Threads that torch computes with meanwhile; by default as many as it computes with
            now, so call `torch.set_num_threads` before, or give what each rank is to have.
        device: `"cpu"`, or `"cuda"` to measure on a GPU.
        precision: `"fp32"`, or `"bf16"` for layers and loss under torch's autocast.
        memory_format: `"contiguous"` or `"channels_last"`, the order of images in memory.

    Returns:
        The profile, whose `micro_batch` is the number of samples.

    Raises:
        InputError: If the module, the loss, the inputs or an option is not accepted; the sentence
            says what is.
    """
    if not isinstance(micro_batch, tuple | list) or len(micro_batch) != 2:
        raise InputError(
            f"the micro-batch is {_described(micro_batch)}, accepted are its inputs and its "
            "targets: write profile(model, (inputs, targets), loss=loss)."
        )
    inputs, targets = micro_batch
    inputs = as_arguments(inputs)
    samples = count_samples(inputs, targets)
    with options_as_keywords(), undisturbed(_gpu(device)):
        return profile_micro_batch(
            model_of(model, inputs, loss=loss, name=name),
            copied(inputs),
            copied(targets),
            samples,
            repeats=repeats,
            threads=torch.get_num_threads() if threads is None else threads,
            device=device,
            compute_format=compute_format_named(precision, memory_format),
        )


def _gpu(device: str) -> torch.device | None:
    return torch.device("cuda") if device == "cuda" and torch.cuda.is_available() else None


def _described(value: object) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"of type {type(value).__name__}"
