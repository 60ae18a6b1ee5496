"""The operations of a module's forward, as torch.export sees them in one mode."""

import inspect
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node
from torch.utils import _pytree as pytree

from hpc_lpm.models.capture.call import Call
from hpc_lpm.models.capture.lengths import symbolic_lengths
from hpc_lpm.models.capture.masks import findings, told
from hpc_lpm.models.capture.own_gradients import functions_recorded
from hpc_lpm.models.capture.refusal import RefusedError, place_of
from hpc_lpm.models.capture.state import first_names, modes_of, set_modes

_EVERYTHING = 2**63 - 1


@dataclass(frozen=True)
class Recording:
    """The operations of one mode.

    `state` are the inputs of the graph that are parameters or buffers, by their names in the module
    (`transient` are those of buffers that its state_dict leaves out); `constants` are other tensors
    that the module holds or that its forward makes from Python's numbers; `inputs` are the leaves
    of the activation. `output` is what the module returns, with nodes in place of tensors.
    `submodules` are bodies of operations that contain others, by name.
    """

    graph: Graph
    state: dict[Node, str]
    transient: frozenset[str]
    constants: dict[Node, Tensor]
    inputs: dict[Node, tuple[Any, ...]]
    output: Any
    submodules: dict[str, nn.Module]


def record(module: nn.Module, call: Call, training: bool) -> Recording:
    """Record the module's operations in training or in evaluation mode, for any batch size.

    Raises:
        RefusedError: if torch.export refuses the module.
    """
    positional, keywords = call.arguments(call.activation)
    batch = torch.export.Dim("batch")

    def sizes(leaf: object) -> object:
        return {0: batch} if call.batched(leaf) else None

    modes = modes_of(module)
    try:
        found = findings(module, call, training)
        module.train(training)
        with _silence(), told(found), symbolic_lengths(module), functions_recorded():
            program = torch.export.export(
                module,
                positional,
                keywords,
                dynamic_shapes=pytree.tree_map(sizes, _by_name(module, positional, keywords)),
                strict=False,
            )
    except Exception as error:
        raise _refused(error) from error
    finally:
        set_modes(modes)
    return _recording(program, call, first_names(module))


def _by_name(
    module: nn.Module, positional: tuple[Any, ...], keywords: dict[str, Any]
) -> dict[str, Any]:
    """Return arguments by the names of forward's parameters, as torch.export names them."""
    signature = inspect.signature(module.forward)
    named = dict(signature.bind(*positional, **keywords).arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            named.update(named.pop(name, {}))
    return named


def _recording(
    program: torch.export.ExportedProgram, call: Call, first_names: dict[str, str]
) -> Recording:
    _simplify(program.graph)
    signature = program.graph_signature
    named = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    state = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    constants = dict(signature.inputs_to_lifted_tensor_constants)
    users = [node for name, node in named.items() if name not in {*state, *constants}]
    outputs = next(node for node in reversed(program.graph.nodes) if node.op == "output").args[0]
    out_spec = program.call_spec.out_spec
    if out_spec is None:
        raise RefusedError("returns nothing", "return the outputs from forward")
    return Recording(
        graph=program.graph,
        state={named[name]: first_names[target] for name, target in state.items()},
        transient=frozenset(first_names[name] for name in signature.non_persistent_buffers),
        constants={named[name]: program.constants[target] for name, target in constants.items()},
        inputs=dict(zip(users, call.paths(), strict=True)),
        output=pytree.tree_unflatten(list(outputs), out_spec),
        submodules={
            name: part for name, part in program.graph_module.named_children() if name != ""
        },
    )


def _simplify(graph: Graph) -> None:
    """Remove operations that return their input: dropout in evaluation, slices of everything."""
    aten = torch.ops.aten
    masks = (aten.dropout.default, aten.feature_dropout.default, aten.alpha_dropout.default)
    for node in graph.nodes:
        nothing = node.target in masks and (node.args[2] is False or node.args[1] == 0.0)
        if node.target is aten.slice.Tensor:
            given: list[Any] = [*node.args, *(None, 0, None, None, 1)[len(node.args) :]]
            nothing = given[2] in (0, None) and given[3] in (None, _EVERYTHING) and given[4] == 1
        if nothing:
            node.replace_all_uses_with(node.args[0])


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the explanations that torch prints of a refusal away: it is told in one sentence."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _refused(error: Exception) -> RefusedError:
    text = " ".join(str(error).split())
    place = place_of(error)
    if "specialized it to be a constant" in text or "Constraints violated" in text:
        return RefusedError(
            "works for the example's number of samples alone",
            "take the number of samples from the input, as x.shape[0] or in x.flatten(1)",
            place,
            of_export=True,
        )
    if "data-dependent" in text or "DataDependent" in type(error).__name__:
        return RefusedError(
            "decides by the values of a tensor which operations follow",
            "use operations on whole tensors, such as torch.where",
            place,
            of_export=True,
        )
    return RefusedError(
        f"torch.export stops with {type(error).__name__}: {text[:200].rstrip('. ')}",
        "return a list of layers, or a module whose children are called one after the other",
        place,
        of_export=True,
    )
