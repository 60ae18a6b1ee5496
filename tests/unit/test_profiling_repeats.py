"""Blocks that repeat are timed a few times only, and nothing else in the profile changes."""

from functools import partial
from typing import ClassVar

import pytest
import torch
from set_clock import OF_READINGS, SetClock
from torch import nn

from hpc_lpm.models.layered import Layer, LayeredModel, ModuleEnd, count_correct, cross_entropy
from hpc_lpm.profile_file import LayerProfile
from hpc_lpm.profiling import repeats
from hpc_lpm.profiling.layers import profile_model
from hpc_lpm.profiling.repeats import Run, find_runs, shorten

INPUTS = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(4)
BLOCKS = 12
CLOCK = SetClock()


@pytest.fixture(autouse=True)
def few_kept(monkeypatch):
    monkeypatch.setattr(repeats, "COLD_BYTES", 1)


@pytest.fixture(autouse=True)
def set_clock(monkeypatch):
    monkeypatch.setattr("hpc_lpm.profiling.timer.time", CLOCK)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["", *"abababab", ""], [Run(1, 2, 4)]),
        # A run may begin anywhere in a block, and what is left of the last block is not in it.
        (["", *"babababab", ""], [Run(1, 2, 4)]),
        (["", *"aaaa", *"bcbcbcbcbc", ""], [Run(1, 1, 4), Run(5, 2, 5)]),
        # The first and the last layer differ from the rest, whatever they are called.
        (list("aaaaaa"), [Run(1, 1, 4)]),
        (list("aaaaa"), []),
        (["", *"ababab", ""], []),
        ([""] * 20, []),
        (["", "a", "", "a", "", "a", "", "a", "", "a", ""], []),
        (list("abcdefghij"), []),
    ],
)
def test_runs_of_blocks_are_found(keys, expected):
    assert find_runs(keys) == expected


def test_the_first_and_last_repetitions_of_each_block_are_kept():
    keys = ["", *"ab" * 6, ""]
    short = shorten(keys, lambda index: 1)
    assert short.kept == (0, 1, 2, 3, 4, 11, 12, 13)
    assert short.timed_by[5] == short.timed_by[1] == (1, 3, 11)
    assert (short.sized_by[5], short.sized_by[6], short.sized_by[12]) == (3, 4, 12)


def test_so_many_repetitions_are_kept_that_caches_stay_cold(monkeypatch):
    monkeypatch.setattr(repeats, "COLD_BYTES", 100)
    keys = ["", *"a" * 20, ""]
    assert len(shorten(keys, lambda index: 10).kept) == 12
    assert len(shorten(keys, lambda index: 1000).kept) == 2 + repeats.FEWEST_KEPT
    # Blocks that hold little are all timed, each by itself.
    assert shorten(keys, lambda index: 1).timed_by[7] == (7,)
    assert len(shorten(keys, lambda index: 0).kept) == 22


class Wait(nn.Module):
    """Takes a known time in each pass; counts how many of its kind were ever called."""

    called: ClassVar[set[int]] = set()

    def __init__(self, number, seconds):
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.register_buffer(f"of{number}", torch.zeros(2))
        self.number, self.seconds = number, seconds

    def forward(self, inputs):
        Wait.called.add(self.number)
        CLOCK.sleep(self.seconds)
        return self.linear(inputs)


def blocks(keyed, activations=nn.ReLU):
    layers = [Layer("first", partial(nn.Linear, 6, 6))]
    for number in range(BLOCKS):
        end = ModuleEnd(f"block.{number}", "Block")
        wait = partial(Wait, number, 0.002)
        layers.append(Layer(f"block.{number}.wait", wait, same_as="wait" * keyed))
        layers.append(Layer(f"block.{number}.act", activations, (end,), same_as="act" * keyed))
    layers.append(Layer("last", partial(nn.Linear, 6, 6)))
    return LayeredModel("blocks", tuple(layers), cross_entropy, count_correct)


def facts(profile):
    """Everything about layers but their times."""
    times = {name for name in LayerProfile.model_fields if name.endswith("_seconds")}
    return [layer.model_dump(exclude=times) for layer in profile]


def test_a_profile_of_equal_blocks_is_that_of_all_layers_from_a_few_of_them():
    Wait.called.clear()
    every = profile_model(blocks(keyed=False), INPUTS, TARGETS, repeats=3)
    assert len(Wait.called) == BLOCKS
    Wait.called.clear()
    few = profile_model(blocks(keyed=True), INPUTS, TARGETS, repeats=3)
    assert Wait.called == {0, 1, BLOCKS - 1}
    assert facts(few) == facts(every)
    waits = [layer for layer in few if layer.name.endswith("wait")]
    assert len({layer.forward_seconds for layer in waits}) == 1
    assert waits[0].forward_seconds == pytest.approx(0.002, abs=OF_READINGS)
    # Each block has buffers of its own name, and is known by them.
    assert len({layer.fingerprint for layer in waits}) == BLOCKS


def test_layers_that_are_called_equal_but_are_not_are_all_timed():
    class Widening(nn.Linear):
        """Accepts nothing but what the one before it returns."""

    layers = [Layer("first", partial(nn.Linear, 6, 5))]
    layers += [
        Layer(f"wider{width}", partial(Widening, width, width + 1), same_as="wider")
        for width in range(5, 13)
    ]
    layers.append(Layer("last", partial(nn.Linear, 13, 6)))
    model = LayeredModel("wider", tuple(layers), cross_entropy, count_correct)
    found = profile_model(model, INPUTS, TARGETS, repeats=1)
    assert [layer.output_bytes for layer in found] == [
        4 * 4 * width for width in (*range(5, 14), 6)
    ]


def test_what_a_layer_says_of_its_cuts_is_in_the_profile():
    layers = [
        Layer("a", partial(nn.Linear, 6, 6), cut_after=False),
        Layer("b", nn.ReLU, (ModuleEnd("net.b", "Act"), ModuleEnd("net", "Net"))),
        Layer("c", partial(nn.Linear, 6, 6)),
    ]
    model = LayeredModel("said", tuple(layers), cross_entropy, count_correct)
    found = profile_model(model, INPUTS, TARGETS, repeats=1)
    assert [layer.cut_after for layer in found] == [False, True, True]
    assert [[(end.path, end.type) for end in layer.ends] for layer in found] == [
        [("a", "Linear")],
        [("net.b", "Act"), ("net", "Net")],
        [("c", "Linear")],
    ]
