"""Names of captured layers, from the user's module paths, and which modules end where."""

from collections import Counter

from torch.fx import Node

from hpc_lpm.models.capture.calls import ModuleCall, calls_of
from hpc_lpm.models.capture.cut import heavy_steps
from hpc_lpm.models.capture.flow import Flow
from hpc_lpm.models.layered import ModuleEnd


def layer_paths(flow: Flow, cuts: list[int]) -> list[str]:
    """Return for each layer the path of the innermost module that its costly steps are in.

    If they are in several, the first and the last are named. Steps outside any module of the user's
    are named by their operation.
    """
    heavy = heavy_steps(flow)
    paths = []
    for start, stop in zip([0, *cuts], [*cuts, len(flow.steps)], strict=True):
        chosen = [number for number in heavy if start <= number < stop] or list(range(start, stop))
        calls = [calls_of(flow.steps[number]) for number in chosen]
        shared = _shared(calls)
        if shared:
            paths.append(shared[-1].path)
        else:
            ends = dict.fromkeys(_name(flow.steps[number]) for number in chosen[:1] + chosen[-1:])
            paths.append("..".join(ends))
    return paths


def unique(paths: list[str]) -> list[str]:
    """Return the paths with `#2`, `#3` ... behind those that come again."""
    seen: Counter[str] = Counter()
    names = []
    for path in paths:
        seen[path] += 1
        names.append(path if seen[path] == 1 else f"{path}#{seen[path]}")
    return names


def module_ends(flow: Flow, cuts: list[int]) -> list[tuple[ModuleEnd, ...]]:
    """Return for each layer the user's modules that end with it, the innermost first.

    A module ends with a layer if its last step is there, and no costly step comes behind it.
    """
    last: dict[ModuleCall, int] = {}
    for number, step in enumerate(flow.steps):
        last.update(dict.fromkeys(calls_of(step), number))
    heavy = heavy_steps(flow)
    bounds = list(zip([0, *cuts], [*cuts, len(flow.steps)], strict=True))
    ends: list[list[tuple[int, ModuleEnd]]] = [[] for _ in bounds]
    layer_of = [layer for layer, (start, stop) in enumerate(bounds) for _ in range(start, stop)]
    final = [
        max((number for number in heavy if start <= number < stop), default=start)
        for start, stop in bounds
    ]
    for call, number in last.items():
        layer = layer_of[number]
        if number >= final[layer]:
            depth = call.path.count(".")
            ends[layer].append((-depth, ModuleEnd(call.path, call.type.rpartition(".")[2])))
    return [tuple(end for _, end in sorted(several, key=lambda pair: pair[0])) for several in ends]


def _name(step: Node) -> str:
    calls = calls_of(step)
    if calls:
        return calls[-1].path
    return getattr(step.target, "__name__", str(step.target)).partition(".")[0]


def _shared(calls: list[list[ModuleCall]]) -> list[ModuleCall]:
    shared = calls[0] if calls else []
    for several in calls[1:]:
        length = 0
        while (
            length < min(len(shared), len(several)) and shared[length].path == several[length].path
        ):
            length += 1
        shared = shared[:length]
    return shared
