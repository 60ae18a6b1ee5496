"""A module's chain of layers, made from what torch.export records of it in both modes."""

import keyword
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

from torch import Tensor, nn
from torch.fx import GraphModule, Node

from hpc_lpm.models.capture.alignment import matching_cuts, names_used, without_divided_state
from hpc_lpm.models.capture.call import Call
from hpc_lpm.models.capture.code import Code, Part, bodies_used, compiled, write_code
from hpc_lpm.models.capture.crossing import crossing_of, crossing_values
from hpc_lpm.models.capture.cut import find_cuts
from hpc_lpm.models.capture.export import record
from hpc_lpm.models.capture.flow import Flow, flow_of
from hpc_lpm.models.capture.layers import LayerBuilder, Programme, Weight, same_layout
from hpc_lpm.models.capture.names import layer_paths, module_ends
from hpc_lpm.models.capture.pieces import Piece
from hpc_lpm.models.capture.refusal import RefusedError
from hpc_lpm.models.capture.state import first_names, named_state
from hpc_lpm.models.capture.tables import LayerTables, Tables


@dataclass(frozen=True)
class _Mode:
    """A flow with its parts, one for each layer, and the tables that the layers share."""

    flow: Flow
    parts: list[Part]
    tables: Tables


def captured_pieces(
    module: nn.Module, call: Call, select: Callable[[Any], Any], first: bool
) -> list[Piece]:
    """Return the layers of a module, recorded in both modes and cut at the same places.

    Args:
        module: the module.
        call: an example of its input.
        select: what the last layer returns of the module's output.
        first: tell that the chain begins with this module, so that its input has no gradient.

    Raises:
        RefusedError: if torch.export refuses the module.
    """
    trained = frozenset(
        name for name, parameter in module.named_parameters() if parameter.requires_grad
    )

    def recorded(training: bool) -> Flow:
        recording = record(module, call, training)
        return flow_of(recording, select(recording.output), trained, fixed=first)

    flows = recorded(True), recorded(False)
    if not flows[0].steps:
        raise RefusedError("computes nothing", "leave it out")
    crossings = [crossing_of(flow) for flow in flows]
    found = matching_cuts(*flows, crossings[1], find_cuts(flows[0], crossings[0]))
    cuts = without_divided_state(*flows, found)
    modes = []
    for mode, (flow, crossing) in enumerate(zip(flows, crossings, strict=True)):
        places = [cut[mode] for cut in cuts]
        values = crossing_values(flow, crossing, places)
        modes.append(_Mode(flow, _parts(flow, places, values), _tables(flow, module)))
    places = [cut[0] for cut in cuts]
    paths, ends = layer_paths(flows[0], places), module_ends(flows[0], places)
    weights = {
        name: Weight(tensor, persistent=name not in flows[0].recording.transient)
        for name, tensor in named_state(module)
    }
    return [
        replace(
            _piece(number, modes, paths[number], {name: weights[name] for name in names}),
            ends=ends[number],
        )
        for number, names in enumerate(_held(module, flows, cuts))
    ]


def _parts(flow: Flow, places: list[int], values: list[list[Node]]) -> list[Part]:
    starts, stops = [0, *places], [*places, len(flow.steps)]
    incoming, outgoing = [None, *values], [*values, None]
    return [Part(flow, *given) for given in zip(starts, stops, incoming, outgoing, strict=True)]


def _tables(flow: Flow, module: nn.Module) -> Tables:
    recording = flow.recording
    buffers = dict(module.named_buffers(remove_duplicate=False))
    given = {
        node: recording.constants[node]
        if node in recording.constants
        else buffers[recording.state[node]]
        for node in flow.given
    }
    copies = {node: tensor.detach().clone() for node, tensor in given.items()}
    return Tables(flow.tabled, copies, flow.table_writers)


def _held(
    module: nn.Module, flows: tuple[Flow, Flow], pairs: list[tuple[int, int]]
) -> list[list[str]]:
    """Return for each layer the names of parameters and buffers that it holds.

    What no step uses is held where its neighbours in the module are, so that nothing is lost.
    """
    held: list[dict[str, None]] = [{} for _ in range(len(pairs) + 1)]
    for mode, flow in enumerate(flows):
        bounds = [0, *(pair[mode] for pair in pairs), len(flow.steps)]
        for number, names in enumerate(held):
            used = names_used(flow, bounds[number], bounds[number + 1])
            names.update(dict.fromkeys(used))
    transient = flows[0].recording.transient
    known = {name: number for number, names in reversed(list(enumerate(held))) for name in names}
    homes: dict[str, int] = {}
    for name, number in known.items():
        parent = name
        while parent:
            parent = parent.rpartition(".")[0]
            homes[parent] = min(number, homes.get(parent, number))
    for name in dict.fromkeys(first_names(module).values()):
        if name in known or name in transient:
            continue
        parent = name
        while parent and parent not in homes:
            parent = parent.rpartition(".")[0]
        held[homes[parent] if parent else -1][name] = None
    return [list(names) for names in held]


def _piece(number: int, modes: list[_Mode], path: str, weights: dict[str, Weight]) -> Piece:
    names = _local_names(list(weights))
    bodies: dict[str, nn.Module] = {}
    programmes, described = [], []
    for mode in modes:
        part = mode.parts[number]
        inside: dict[str, str] = {}
        for body in bodies_used(part):
            inside[f"{body}()"] = f"body{len(bodies)}"
            bodies[f"body{len(bodies)}"] = mode.flow.recording.submodules[body]
        code = write_code(part, {**names, **inside})
        tables = LayerTables(mode.tables, tuple(code.tabled)) if code.tabled else None
        programmes.append(Programme(compiled(code), tables))
        described.append(_described(code, part, mode.tables))
    local = {names[name]: weight for name, weight in weights.items()}
    layouts = [(name, same_layout(weight.tensor)) for name, weight in local.items()]
    inner = [body.code for body in bodies.values() if isinstance(body, GraphModule)]
    key = blake2b(repr((described, layouts, inner)).encode(), digest_size=8).hexdigest()
    builder = LayerBuilder(local, bodies, *programmes)
    return Piece(
        path=path,
        builder=builder,
        tensors=builder.tensors(),
        original={own: name for name, own in names.items()},
        same_as=key,
    )


def _described(code: Code, part: Part, tables: Tables) -> tuple[object, ...]:
    """Return what tells layers with the same code apart: shapes of inputs, and tables."""
    crossing = part.incoming if part.incoming is not None else list(part.flow.recording.inputs)
    shapes = [
        (str(value.dtype), str(tuple(value.shape)))
        for value in (node.meta.get("val") for node in crossing)
        if isinstance(value, Tensor)
    ]
    return (code.source, shapes, [tables.digest(node) for node in code.tabled])


def _local_names(names: list[str]) -> dict[str, str]:
    """Return names for a layer's own use: without the path that all share, and without dots."""
    parents = [name.split(".")[:-1] for name in names]
    shared = 0
    while parents and all(
        len(parent) > shared and parent[shared] == parents[0][shared] for parent in parents
    ):
        shared += 1
    local: dict[str, str] = {}
    for name in names:
        short = "_".join(name.split(".")[shared:])
        if not short.isidentifier() or keyword.iskeyword(short) or hasattr(nn.Module, short):
            short = f"part_{short}"
        while short in local.values():
            short += "_"
        local[name] = short
    return local
