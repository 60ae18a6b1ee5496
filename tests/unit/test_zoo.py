"""Architectures of the zoo, captured and cut into stages, compute what the uncut original does.

`make zoo` examines all of them; these are the kinds that differ most.
"""

import copy
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from hpc_lpm.models.capture import capture_model
from tests.models.zoo import SPECIMENS
from tests.models.zoo.__main__ import PAGE, page
from tests.models.zoo.compare import (
    EQUAL,
    STAGES,
    Chain,
    balanced_cuts,
    examine,
    first_difference,
)
from tests.models.zoo.specimen import of_images

CHOSEN = (
    "residual",
    "densely connected",
    "U-Net",
    "mixture of experts",
    "transformers GPT2",
    "transformers Albert",
    "transformers T5",
    "stochastic depth transformer",
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", CHOSEN)
def test_stages_equal_the_uncut_original_to_the_last_bit(name: str) -> None:
    (specimen,) = (each for each in SPECIMENS if each.name == name)
    outcome = examine(specimen)
    assert outcome.result == EQUAL
    assert outcome.layers >= 2 * STAGES
    assert outcome.crossing >= 1


class Remembering(nn.Module):
    """Adds how often it was called, which no buffer holds."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.layers = nn.Sequential(*(nn.Linear(8, 8) for _ in range(6)))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.layers(x[:, 0, 0, :8]) + self.calls


def test_a_module_that_cannot_be_captured_is_refused_and_not_equal() -> None:
    outcome = examine(of_images("remembering", Remembering))
    assert outcome.refused
    assert not outcome.equal
    assert "Remembering cannot be captured, since it" in outcome.result


@pytest.mark.parametrize(
    ("spoil", "difference"),
    [
        (lambda chain: chain.layers[5].register_forward_hook(_nudge), "outputs in training"),
        (lambda chain: _first_weight(chain).register_hook(_nudged), "gradient of "),
        (lambda chain: _first_buffer(chain).add_(1e-6), "state_dict: "),
    ],
)
def test_a_difference_in_the_last_bits_is_found(
    spoil: Callable[[Chain], object], difference: str
) -> None:
    specimen = SPECIMENS[0]
    original = specimen.build()
    chain = Chain(capture_model(copy.deepcopy(original), specimen.inputs(2), loss=specimen.loss))
    assert first_difference(chain, original, specimen) is None
    spoil(chain)
    assert difference in (first_difference(chain, original, specimen) or "")


def _nudged(tensor: Tensor) -> Tensor:
    return tensor * (1 + 2e-7)


def _nudge(_: nn.Module, __: object, output: Any) -> Any:
    return pytree.tree_map_only(Tensor, _nudged, output)


def _first_weight(chain: Chain) -> Tensor:
    return next(weight for layer in chain.layers.values() for weight in layer.parameters())


def _first_buffer(chain: Chain) -> Tensor:
    buffers = (buffer for layer in chain.layers.values() for buffer in layer.buffers())
    return next(buffer for buffer in buffers if buffer.is_floating_point())


def test_the_page_lists_every_architecture_as_equal_or_refused() -> None:
    rows = re.findall(r"^\| (.+?) \| .* \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.M)
    results = dict(rows[1:])
    assert list(results) == [specimen.name for specimen in SPECIMENS]
    assert len(results) >= 60
    assert all(result == EQUAL or result.startswith("refused: ") for result in results.values())
    assert sum(result == EQUAL for result in results.values()) >= 55
    assert "bit: 0 are; refused before anything is trained: 0." in page([])


def test_cuts_divide_layers_evenly_and_leave_no_stage_empty() -> None:
    equal = [nn.Linear(4, 4) for _ in range(8)]
    assert balanced_cuts(equal, 4) == [0, 2, 4, 6, 8]
    heavy_first = [nn.Linear(400, 400), *(nn.ReLU() for _ in range(3))]
    assert balanced_cuts(heavy_first, 4) == [0, 1, 2, 3, 4]
