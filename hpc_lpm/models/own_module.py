"""A module of the user's own script, with its loss, as a chain of layers."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from hpc_lpm.activation import Activation, mapped, tensors_of
from hpc_lpm.errors import InputError
from hpc_lpm.models.evaluation_metrics import EvaluationMetric
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.models.losses import Loss
from hpc_lpm.models.module_state import ModuleState
from hpc_lpm.models.own_loss import own_loss
from hpc_lpm.models.sharing import with_shared_parts_known
from hpc_lpm.random_streams import generators_kept

_WRAPPERS = {
    *("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel"),
    *("DeepSpeedEngine", "PipelineEngine"),
}
"""Classes that train a module in their own way, and hold it as their attribute `module`."""


def model_of(
    module: nn.Module | LayeredModel,
    inputs: Activation = None,
    *,
    loss: Loss,
    name: str | None = None,
    metrics: Sequence[EvaluationMetric] = (),
) -> LayeredModel:
    """Return a module as a chain of layers, and leave the module as it is.

    The layers of an nn.Sequential are its children; any other module is captured. Layers that are
    built of the chain begin with copies of the weights that the module has at that time, whatever
    the seed, and their tensors have the names of the module's state_dict outside. To release the
    chain's weights frees none of the module's.

    Args:
        module: the module, on the host; a chain of layers is returned with the loss replaced.
        inputs: those of one micro-batch, samples first: a tensor, a tuple of positional or a
            dictionary of keyword arguments. An nn.Sequential takes them as its one argument, and
            does without.
        loss: called with what the module returns, or with its `logits` if it has any, and with the
            targets; it returns the mean over the micro-batch as a tensor of one number.
        name: the model's name, by default that of the module's class.
        metrics: what is computed of an evaluation beside the loss.

    Raises:
        InputError: if the module, the loss or the inputs are none that can be trained in stages;
            the sentence says what to write instead.
    """
    checked = own_loss(loss)
    if isinstance(module, LayeredModel):
        made = with_shared_parts_known(module)
        return replace(
            made,
            name=name or made.name,
            loss=checked,
            metrics=(*made.metrics, *metrics),
        )
    check_module(module)
    name = name or type(module).__name__
    state = ModuleState(module)
    try:
        with undisturbed():
            made = _divided(module, inputs, name)
    finally:
        state.restore()
    return replace(made, loss=checked, correct=None, metrics=tuple(metrics))


def needs_inputs(module: nn.Module | LayeredModel) -> bool:
    """Tell if `model_of` needs inputs to divide a module into layers."""
    from hpc_lpm.models.capture import is_sequence

    return not isinstance(module, LayeredModel) and not is_sequence(module)


def as_arguments(inputs: Activation) -> Activation:
    """Return inputs as a module takes them: a list, as loaders collate several, is a tuple."""
    return tuple(inputs) if type(inputs) is list else inputs


def count_samples(inputs: Activation, targets: Activation) -> int:
    """Return how many samples inputs and targets hold, which their first dimensions tell.

    Raises:
        InputError: if either has no such dimension, or they differ.
    """
    count, others = _samples("inputs", inputs), _samples("targets", targets)
    if count != others:
        raise InputError(
            f"there are inputs of {count} samples and targets of {others}, accepted is one target "
            "for each input: let both have the samples as their first dimension."
        )
    return count


def _samples(what: str, activation: Activation) -> int:
    tensors = tensors_of(activation)
    if not tensors:
        raise InputError(
            f"the {what} are {type(activation).__name__} without a tensor, accepted are tensors "
            "whose first dimension is that of the samples: convert them."
        )
    if tensors[0].dim() == 0:
        raise InputError(
            f"the {what} are a single number, accepted are tensors whose first dimension is that "
            "of the samples: add it, with unsqueeze(0) for one sample."
        )
    if not len(tensors[0]):
        raise InputError(f"the {what} hold no sample, accepted is at least one: leave them out.")
    return len(tensors[0])


def check_module(module: object) -> None:
    """Check that a module can be divided into layers, as far as that can be told at a glance.

    Raises:
        InputError: if it is no module, or one that another tool has wrapped, compiled or moved to a
            GPU, or if it has no parameters, or none yet.
    """
    if not isinstance(module, nn.Module):
        called = f"write {module.__name__}()" if isinstance(module, type) else "give the module"
        found = f"the class {module.__name__}" if isinstance(module, type) else ""
        raise InputError(
            f"the model is {found or 'of type ' + type(module).__name__}, accepted is a "
            f"torch.nn.Module: {called}, or the layers as nn.Sequential(...)."
        )
    kind = type(module).__name__
    if any(base.__name__ in _WRAPPERS for base in type(module).__mro__):
        raise InputError(
            f"the model is wrapped in {kind}, accepted is the module itself, which stages and "
            "replicas share: give model.module."
        )
    for part in module.modules():
        scripted = isinstance(part, torch.jit.ScriptModule)
        if scripted or hasattr(part, "_orig_mod") or part._compiled_call_impl is not None:
            by = "torch.jit" if scripted else "torch.compile"
            raise InputError(
                f"the model {kind} is compiled by {by}, accepted is a module as it was written: "
                "give it before it is compiled."
            )
    tensors = [*module.named_parameters(), *module.named_buffers()]
    for name, tensor in tensors:
        _check_tensor(kind, name, tensor)
    if not any(True for _ in module.parameters()):
        raise InputError(
            f"the model {kind} has no parameters, so there is nothing to train: register its "
            "layers as attributes, or in an nn.ModuleList."
        )


def _check_tensor(kind: str, name: str, tensor: Tensor) -> None:
    if is_lazy(tensor):
        raise InputError(
            f"the model {kind} is lazy: {name} has no shape before the first batch; run one batch "
            "through it first, model(inputs)."
        )
    if tensor.device.type != "cpu":
        raise InputError(
            f"the model {kind} has {name} on {tensor.device}, accepted is a module on the host, "
            "from which each rank takes its layers: call model.cpu(), and give device='cuda' to "
            "compute on GPUs."
        )


def _divided(module: nn.Module, inputs: Activation, name: str) -> LayeredModel:
    # Imported here, because torch.export takes a while to import.
    from hpc_lpm.models.capture import capture_model, is_sequence, layers_of

    if is_sequence(module):
        return layers_of(module, name)
    _samples("inputs", inputs)
    example = mapped(inputs, lambda tensor: tensor.detach().cpu().clone())
    return capture_model(module, example, name=name, if_it_fails="the inputs")


@contextmanager
def undisturbed(device: torch.device | None = None) -> Iterator[None]:
    """Keep all generators, and compute as usual whatever modes of autograd the caller has set."""
    kinds = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    with ExitStack() as settings:
        settings.enter_context(generators_kept(device))
        settings.enter_context(torch.inference_mode(False))
        settings.enter_context(torch.enable_grad())
        for kind in kinds:
            settings.enter_context(torch.autocast(kind, enabled=False))
        yield
