"""Any module with an example input as a `LayeredModel`."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from hpc_lpm.errors import InputError
from hpc_lpm.models.capture.caches import caches_left_out
from hpc_lpm.models.capture.call import Call
from hpc_lpm.models.capture.captured import captured_pieces
from hpc_lpm.models.capture.children import chained_children
from hpc_lpm.models.capture.equality import check_equal
from hpc_lpm.models.capture.frozen_draws import check_draws
from hpc_lpm.models.capture.location import forward_place, innermost_refused
from hpc_lpm.models.capture.outputs import plain_selection
from hpc_lpm.models.capture.own_gradients import explained
from hpc_lpm.models.capture.pieces import Piece, as_model
from hpc_lpm.models.capture.plain import Child, children_of, plain_pieces
from hpc_lpm.models.capture.refusal import RefusedError
from hpc_lpm.models.capture.state import state_kept
from hpc_lpm.models.capture.unused import with_unused_state
from hpc_lpm.models.evaluation_metrics import count_correct
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.models.losses import Loss, cross_entropy
from hpc_lpm.random_streams import generators_kept
from hpc_lpm.user_functions import describe_raised


def capture_model(
    module: nn.Module,
    example: object,
    *,
    name: str = "model",
    loss: Loss = cross_entropy,
    correct: Loss = count_correct,
    select: Callable[[Any], Any] | None = None,
    if_it_fails: str = "return (module, example_input)",
) -> LayeredModel:
    """Return a chain of layers that computes what a module computes, with its weights.

    The module's operations are recorded in training and in evaluation mode, and cut where few
    tensors cross; parameters that several layers use are tied. Outputs, gradients and buffers are
    compared with the module's, bit for bit, for several batch sizes. If torch.export refuses the
    module, its children are taken instead, if they are called one after the other.

    Args:
        module: the module, on the host.
        example: its input, a few samples, batch first: a tensor, a tuple of positional arguments or
            a dictionary of keyword arguments. The first layer takes the same.
        name: the model's name.
        loss: the loss of what the chain returns, see `LayeredModel`.
        correct: counts the right predictions, see `LayeredModel`.
        select: picks what the chain returns from the module's output; by default its `logits`, if
            it has any, else all of it.

    Raises:
        InputError: if the module fails on the example, or can neither be captured nor divided into
            its children.
    """
    if isinstance(module, torch.jit.ScriptModule):
        raise InputError(
            f"model {name!r} is compiled by torch.jit, accepted is the module itself: return it "
            "before it is compiled."
        )
    # What torch.compile returns holds the module as it was written.
    module = getattr(module, "_orig_mod", module)
    call = Call.of_example(example, module)
    selected = plain_selection(select)
    with caches_left_out(module), state_kept(module):
        _check_runs(module, call, name, if_it_fails)
        try:
            pieces = _pieces(module, call, selected, first=True)
        except RefusedError as refusal:
            raise _sentence(name, module, call, refusal) from refusal
    return as_model(name, module, pieces, loss, correct)


def layers_of(module: nn.Sequential, name: str) -> LayeredModel:
    """Return an nn.Sequential as a model: its children are the layers, named by their paths."""
    return as_model(name, module, plain_pieces(children_of(module)), cross_entropy, count_correct)


def _pieces(
    module: nn.Module, call: Call, select: Callable[[Any], Any], first: bool
) -> list[Piece]:
    """Return the layers of a module, or of its children if it is refused.

    Raises:
        RefusedError: if its children are not a chain either.
    """
    try:
        check_draws(module, call)
        pieces = _captured(module, call, select, first)
        try:
            check_equal(module, pieces, call, select)
        except RefusedError as difference:
            raise explained(difference, module, call) from difference
        return pieces
    except RefusedError as refusal:
        children = chained_children(module, call, select)
        if children is None:
            raise
        pieces = []
        for child in children:
            pieces += _of_child(child.name, child.child, child.argument, first and not pieces)
        pieces = with_unused_state(module, pieces)
        check_equal(module, pieces, call, select)
        if len(pieces) < 2:
            raise refusal
        return pieces


def _captured(
    module: nn.Module, call: Call, select: Callable[[Any], Any], first: bool
) -> list[Piece]:
    try:
        return captured_pieces(module, call, select, first)
    except RefusedError:
        raise
    except Exception as error:
        raise RefusedError(
            f"does something that cannot be divided into layers ({type(error).__name__}: {error})",
            "return a list of layers, or a module whose children are called one after the other",
        ) from error


def _of_child(name: str, child: nn.Module, argument: Any, first: bool) -> list[Piece]:
    try:
        inner = _pieces(child, Call(argument, alone=True), lambda output: output, first)
    except RefusedError:
        inner = plain_pieces([Child("", child, ())])
    kind = type(child).__name__
    return [piece.below(name, kind, number == len(inner) - 1) for number, piece in enumerate(inner)]


def _check_runs(module: nn.Module, call: Call, name: str, if_it_fails: str) -> None:
    try:
        with state_kept(module), generators_kept(), torch.no_grad():
            for training in (False, True):
                module.train(training)
                call.run(module, call.activation)
    except Exception as error:
        raise InputError(
            f"model {name!r}: {type(module).__name__} raises {describe_raised(error)} on its "
            f"example input: correct the module, or {if_it_fails}."
        ) from error


def _sentence(name: str, module: nn.Module, call: Call, refusal: RefusedError) -> InputError:
    who, place = "it", refusal.place
    if not place and refusal.of_export:
        path, part = innermost_refused(module, call)
        place = forward_place(part)
        if path:
            who = f"its part {path} ({type(part).__name__})"
    where = f" ({place})" if place else ""
    return InputError(
        f"model {name!r}: {type(module).__name__} cannot be captured, since {who} "
        f"{refusal.reason}{where}: {refusal.instead}."
    )
