"""Leaves out the cuts over which more crosses than the one tensor that an engine can train with.

What crosses is found as the rehearsal before a training finds it, a layer at a time.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from hpc_lpm.activation import Activation, copied, leaves_like, tensors_of
from hpc_lpm.engine.pipeline.boundary import BoundarySpec, TensorSpec
from hpc_lpm.engine.rehearsal import rehearse_backward
from hpc_lpm.engine.runners.crossing import is_history_seen
from hpc_lpm.engine.strategies.base import Strategy
from hpc_lpm.errors import InputError
from hpc_lpm.models.examination import failing_layer
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.profile_file import Profile
from hpc_lpm.random_streams import generators_kept, set_generators

_SEED = 0
_HOST = torch.device("cpu")


def with_lone_crossings(
    profiles: Sequence[Profile], model: LayeredModel, inputs: Activation
) -> tuple[Profile, ...]:
    """Return the profiles with cuts only where exactly one tensor that learns crosses.

    Args:
        profiles: of the model's layers.
        model: whose layers are run, forward and backward.
        inputs: what its first layer takes.

    Raises:
        InputError: naming the first layer that fails on what it is given.
    """
    alone = [*(is_history_seen(spec, _HOST) for spec in crossings(model, inputs)), True]
    return tuple(
        profile.model_copy(
            update={
                "layers": tuple(
                    layer.model_copy(update={"cut_after": layer.cut_after and seen})
                    for layer, seen in zip(profile.layers, alone, strict=True)
                )
            }
        )
        for profile in profiles
    )


@contextmanager
def lone_crossings_named(strategy: Strategy) -> Iterator[None]:
    """Say of what is refused inside that only such cuts are left, where the strategy needs them.

    Raises:
        InputError: instead of the one that is raised inside.
    """
    try:
        yield
    except InputError as error:
        if not strategy.lone_crossing:
            raise
        raise InputError(
            f"{str(error).rstrip('.')}, where it is only cut behind layers that hand on exactly "
            "one floating-point tensor with a gradient"
        ) from None


def crossings(model: LayeredModel, inputs: Activation) -> list[BoundarySpec]:
    """Return what crosses in training behind each layer but the last, the layouts of gradients too.

    Only one layer is held at a time, so that each runs once more for its backward pass. The loss is
    left out, since its targets are not known here.

    Raises:
        InputError: naming the first layer that fails on what it is given.
    """
    given: list[Activation] = [inputs]
    with generators_kept(), torch.enable_grad():
        for index in range(len(model.layers)):
            _, outputs, _ = _run(model, index, given[-1])
            given.append(leaves_like(outputs))
        specs = [BoundarySpec.of(outputs) for outputs in given[1:]]
        for index in reversed(range(1, len(model.layers))):
            layer, outputs, leaves = _run(model, index, given[index])
            leaving = zip(specs[index].tensors, tensors_of(outputs), strict=True)
            roots = [(tensor, spec.of_gradient().ones(_HOST)) for spec, tensor in leaving]
            try:
                gradients = rehearse_backward({index: layer}, roots, leaves)
            except Exception as error:
                raise failing_layer(model, index, leaves, error) from error
            found = [None if each is None else TensorSpec.of(each) for each in gradients]
            specs[index - 1] = specs[index - 1].with_gradients(found)
    return specs[:-1]


def _run(
    model: LayeredModel, index: int, given: Activation
) -> tuple[torch.nn.Module, Activation, Activation]:
    """Return a layer in training mode, what it returns, and the leaves that it was given."""
    layer = model.build_layer(index, _SEED).train()
    set_generators((_SEED, index))
    leaves = leaves_like(given)
    try:
        # Copied, since a layer may change its input in place.
        return layer, layer(copied(leaves, keep_history=True)), leaves
    except Exception as error:
        raise failing_layer(model, index, given, error) from error
