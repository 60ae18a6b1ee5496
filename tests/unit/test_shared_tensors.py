"""A tensor that an activation has in several places is one tensor there, and stays one."""

import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from hpc_lpm.activation import Structure, copied, taken_apart, tensors_of


def test_a_tensor_in_several_places_is_taken_out_once_and_put_back_everywhere() -> None:
    once, other = torch.zeros(2), torch.zeros(2)
    activation = {"a": once, "b": [other, 3, once], "c": None}
    tensors, structure = taken_apart(activation)
    assert [id(tensor) for tensor in tensors] == [id(once), id(other)]
    assert [id(tensor) for tensor in tensors_of(activation)] == [id(once), id(other)]
    filled = structure.fill(tensors)
    assert filled["a"] is filled["b"][2] is once
    assert filled["b"][0] is other
    twin = copied(activation)
    assert twin["a"] is twin["b"][2]
    assert twin["a"] is not once


def test_another_process_gets_a_structure_that_shares_as_this_one_does() -> None:
    tensor = torch.zeros(2)
    shared = taken_apart((tensor, 1.5, tensor))[1]
    apart = taken_apart((tensor, 1.5, tensor.clone()))[1]
    assert shared != apart
    for structure in (shared, apart):
        received = pickle.loads(pickle.dumps(structure))
        assert isinstance(received, Structure)
        assert received == structure
        assert str(received) == "(tensor, 1.5, tensor)"


@pytest.mark.parametrize(
    ("leaf", "changed"),
    [
        (math.nan, 0.5),
        (np.array([1.0, math.nan]), np.array([2.0, math.nan])),
        (np.array([1, 2]), np.array([[1, 2]])),
        (np.array([1, 2]), 1),
        ("text", None),
    ],
    ids=["not a number", "array", "shape", "array and number", "text"],
)
def test_structures_are_equal_if_what_they_hold_beside_tensors_is(leaf: Any, changed: Any) -> None:
    structure = taken_apart((torch.zeros(2), leaf))[1]
    received = pickle.loads(pickle.dumps(structure))
    assert received == structure
    assert hash(received) == hash(structure)
    assert structure != taken_apart((torch.zeros(2), changed))[1]
