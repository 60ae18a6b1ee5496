"""A rank's state as tensors that are named by layer, and so do not depend on the partition."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from hpc_lpm.engine.job import Job
from hpc_lpm.engine.learning_rate import advance
from hpc_lpm.engine.records import GroupValue, StateValue
from hpc_lpm.engine.runners.runner import TrainedState


def layer_tensors(state: TrainedState) -> dict[str, Tensor]:
    """Return parameters and buffers; of several replicas only the first returns parameters.

    They are those that are trained, not copies, as are the tensors of the functions below.
    """
    tensors: dict[str, Tensor] = {}
    for index, layer in state.layers.items():
        if state.replica == 0:
            for name, parameter in layer.named_parameters():
                tensors[f"layer.{index}.{name}"] = parameter.detach()
        for name, buffer in layer.named_buffers():
            tensors[f"layer.{index}.{name}"] = buffer.detach()
    return tensors


def optimizer_state(
    state: TrainedState,
) -> tuple[dict[str, Tensor], dict[str, dict[str, StateValue]]]:
    """Return the optimizer's state by parameter: its tensors, and its other values."""
    tensors: dict[str, Tensor] = {}
    values: dict[str, dict[str, StateValue]] = {}
    if state.replica != 0:
        return tensors, values
    for index, name, parameter in _parameters(state):
        for key, value in state.optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}/{key}"] = value.detach()
            else:
                values.setdefault(f"{index}.{name}", {})[key] = value
    return tensors, values


def kept_tensors(state: TrainedState) -> dict[str, Tensor]:
    """Return what the rank keeps of its parameters beside the optimizer's state."""
    if state.replica != 0 or state.kept is None:
        return {}
    saved = state.kept.saved()
    return {
        f"kept.{index}.{name}/{key}": tensor.detach()
        for index, name, parameter in _parameters(state)
        for key, tensor in saved.get(parameter, {}).items()
    }


def optimizer_groups(state: TrainedState) -> list[dict[str, GroupValue]]:
    """Return the settings of the optimizer's groups, but for those that JSON cannot hold."""
    return [
        {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in group.items()
            if isinstance(value, bool | int | float | str | None | tuple)
        }
        for group in state.optimizer.param_groups
    ]


def restore_groups(state: TrainedState, saved: list[dict[str, GroupValue]]) -> None:
    """Set the optimizer's groups as `optimizer_groups` has found them, if there are as many."""
    groups = state.optimizer.param_groups
    if len(groups) != len(saved):
        return
    for group, values in zip(groups, saved, strict=True):
        for name, value in values.items():
            group[name] = tuple(value) if isinstance(value, list) else value


def restore_layers(
    state: TrainedState, tensor: Callable[[int, str, int, torch.Size], Tensor]
) -> None:
    """Restore parameters and buffers.

    Args:
        state: the state of a rank that has not trained yet.
        tensor: returns a saved tensor, given the index of its layer, its name, the replica that
            saved it and the shape that it must have.
    """
    with torch.no_grad():
        for index, layer in state.layers.items():
            for name, parameter in layer.named_parameters():
                parameter.copy_(tensor(index, f"layer.{index}.{name}", 0, parameter.shape))
            for name, buffer in layer.named_buffers():
                full_name = f"layer.{index}.{name}"
                buffer.copy_(tensor(index, full_name, state.replica, buffer.shape))


def restore_optimizer(
    state: TrainedState,
    of_layer: Callable[[int], tuple[dict[str, Tensor], dict[str, dict[str, StateValue]]]],
    step: int,
) -> None:
    """Restore the optimizer and the learning rate to what they were after `step` updates.

    Args:
        state: the state of a rank that has not trained yet.
        of_layer: returns the part of what `optimizer_state` returned that belongs to a layer.
        step: the number of updates.
    """
    optimizer, scheduler = state.optimizer, state.scheduler
    packed = optimizer.state_dict()
    owned = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    places = {parameter: place for place, parameter in enumerate(owned)}
    packed["state"] = {
        places[parameter]: _state_of(parameter, f"{index}.{name}", *of_layer(index))
        for index, name, parameter in _parameters(state)
        if parameter in places
    }
    packed["state"] = {place: found for place, found in packed["state"].items() if found}
    # The optimizer itself decides which tensors belong on the parameter's device.
    optimizer.load_state_dict(packed)
    advance(scheduler, step)


def restore_kept(state: TrainedState, of_layer: Callable[[int], dict[str, Tensor]]) -> None:
    """Restore what `kept_tensors` returned.

    Args:
        state: the state of a rank that has not trained yet.
        of_layer: returns the part that belongs to a layer.
    """
    if state.kept is None:
        return
    restored: dict[nn.Parameter, dict[str, Tensor]] = {}
    for index, name, parameter in _parameters(state):
        own = f"kept.{index}.{name}/"
        restored[parameter] = {
            full_name.removeprefix(own): _laid_out_like(parameter, tensor).to(parameter.device)
            for full_name, tensor in of_layer(index).items()
            if full_name.startswith(own)
        }
    state.kept.restore(restored)


def layer_sha256(layer: nn.Module) -> str:
    """Return the SHA-256 of a layer's parameters and buffers: names, types, shapes and bits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(layer.state_dict().items()):
        held = tensor.detach().cpu().contiguous()
        digest.update(f"{name}:{held.dtype}:{tuple(held.shape)};".encode())
        digest.update(held.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def weights_sha256(layers: dict[int, nn.Module], job: Job) -> str:
    """Return the SHA-256 over the layers of all ranks, in layer order (collective)."""
    hashes: dict[int, str] = {}
    for held in job.all_gather({index: layer_sha256(layer) for index, layer in layers.items()}):
        hashes.update(held)
    return hashlib.sha256("".join(hashes[index] for index in sorted(hashes)).encode()).hexdigest()


def _state_of(
    parameter: nn.Parameter,
    name: str,
    tensors: dict[str, Tensor],
    values: dict[str, dict[str, StateValue]],
) -> dict[str, Any]:
    own = f"optimizer.{name}/"
    state: dict[str, Any] = dict(values.get(name, {}))
    for full_name, tensor in tensors.items():
        if full_name.startswith(own):
            state[full_name.removeprefix(own)] = _laid_out_like(parameter, tensor)
    return state


def _laid_out_like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """Return the tensor in the parameter's memory layout if the shapes are equal."""
    if tensor.shape != parameter.shape:
        return tensor
    return torch.empty_like(parameter, dtype=tensor.dtype, requires_grad=False).copy_(tensor)


def _parameters(state: TrainedState) -> Iterator[tuple[int, str, nn.Parameter]]:
    for index, layer in state.layers.items():
        for name, parameter in layer.named_parameters():
            yield index, name, parameter


def on_host(tensor: Tensor) -> Tensor:
    """Return a tensor as a file takes it: in host memory, in the usual layout."""
    # safetensors accepts neither views of a larger memory nor other layouts, hence the copies.
    held = tensor.detach().cpu().contiguous()
    return held.clone() if held.untyped_storage().nbytes() != held.nbytes else held
