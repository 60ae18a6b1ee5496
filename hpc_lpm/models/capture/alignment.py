"""The same cuts in two recordings of one module: in training and in evaluation mode."""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict

from torch.fx import Node

from hpc_lpm.models.capture.calls import calls_of
from hpc_lpm.models.capture.crossing import Crossing
from hpc_lpm.models.capture.flow import Flow

_MOST_USERS = 32
"""How many layers may use one parameter, each of which holds a copy that is kept equal."""


def matching_cuts(
    training: Flow, evaluation: Flow, crossing: Crossing, cuts: list[int]
) -> list[tuple[int, int]]:
    """Return for each cut of the first flow the place in the second, where there is one.

    Operations are the same if they are the n-th of their kind within the same module call; a cut
    of the second flow lies between the partners of the operations before and after.
    """
    pairs = _matched(training, evaluation)
    left = [first for first, _ in pairs]
    found: list[tuple[int, int]] = []
    least = 1
    for cut in cuts:
        number = bisect_left(left, cut)
        lowest = pairs[number - 1][1] + 1 if number else 0
        highest = pairs[number][1] if number < len(pairs) else len(evaluation.steps)
        allowed = [
            place
            for place in range(max(lowest, least), min(highest, len(evaluation.steps)) + 1)
            if crossing.allowed[place]
        ]
        if allowed:
            least = min(allowed, key=crossing.weight)
            found.append((cut, least))
    return found


def without_divided_state(
    training: Flow, evaluation: Flow, cuts: list[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Return the cuts that leave each buffer that changes, with all its users, in one layer.

    A parameter may be used by some layers, but by the same in both modes. One with many users is
    that of a loop over time, which stays whole.
    """
    changed = training.changed | evaluation.changed
    while True:
        users = [
            _layers_by_state(flow, [cut[mode] for cut in cuts])
            for mode, flow in enumerate((training, evaluation))
        ]
        divided: set[int] = set()
        for name in users[0].keys() | users[1].keys():
            first, second = users[0].get(name, set()), users[1].get(name, set())
            both = first | second
            other = bool(first and second) and first != second
            if len(both) > 1 and (name in changed or other or len(both) > _MOST_USERS):
                divided.update(range(min(both), max(both)))
        if not divided:
            return cuts
        cuts = [cut for number, cut in enumerate(cuts) if number not in divided]


def _layers_by_state(flow: Flow, cuts: list[int]) -> dict[str, set[int]]:
    layers: dict[str, set[int]] = defaultdict(set)
    for number, step in enumerate(flow.steps):
        for value in flow.sources(step):
            if value in flow.recording.state:
                layers[flow.recording.state[value]].add(bisect_right(cuts, number))
    return layers


def _matched(first: Flow, second: Flow) -> list[tuple[int, int]]:
    """Return ascending pairs of steps that are the same operation."""
    places = {key: number for number, key in enumerate(_keys(second.steps))}
    pairs = [
        (number, places[key]) for number, key in enumerate(_keys(first.steps)) if key in places
    ]
    return _longest_ascending(pairs)


def _keys(steps: list[Node]) -> list[tuple[str, str, int]]:
    seen: Counter[tuple[str, str]] = Counter()
    keys = []
    for step in steps:
        calls = calls_of(step)
        what = (calls[-1].key if calls else "", str(step.target))
        keys.append((*what, seen[what]))
        seen[what] += 1
    return keys


def _longest_ascending(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return a longest selection of pairs whose second numbers ascend as the first ones do."""
    ends: list[int] = []
    chosen: list[int] = []
    previous: list[int] = []
    for number, (_, value) in enumerate(pairs):
        position = bisect_left(ends, value)
        previous.append(chosen[position - 1] if position else -1)
        if position == len(ends):
            ends.append(value)
            chosen.append(number)
        else:
            ends[position] = value
            chosen[position] = number
    selection = []
    number = chosen[-1] if chosen else -1
    while number >= 0:
        selection.append(pairs[number])
        number = previous[number]
    return selection[::-1]


def names_used(flow: Flow, start: int, stop: int) -> list[str]:
    """Return the names of parameters and buffers that steps `start` to `stop` - 1 use, in order."""
    found: dict[str, None] = {}
    for step in flow.steps[start:stop]:
        for value in flow.sources(step):
            if value in flow.recording.state and value not in flow.given:
                found[flow.recording.state[value]] = None
    return list(found)
