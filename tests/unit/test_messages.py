"""Messages between ranks arrive as they were sent, and run nothing, whoever has written them."""

import collections
import datetime
import functools
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from hpc_lpm.activation import taken_apart
from hpc_lpm.engine.history import History
from hpc_lpm.engine.messages import RefusedMessageError, packed, unpacked
from hpc_lpm.errors import InputError
from hpc_lpm.planning.plan import Plan, StagePlan


@dataclass(frozen=True)
class Own:
    """A class of data of the user's own."""

    number: int
    inner: dict[str, Any] = field(default_factory=dict)


class Pair(NamedTuple):
    """A named tuple of the user's own."""

    left: object
    right: object


class Plain:
    """A class of the user's own that says nothing about itself, and counts its calls."""

    calls = 0

    def __init__(self, value: Any) -> None:
        Plain.calls += 1
        self.value = value


PLAN = Plan(
    planner="lpm",
    model="mlp",
    stages=(StagePlan(start=0, stop=1, compute_seconds=1, send_bytes=2, memory_bytes=3),),
    period_seconds=1,
    boundary_bytes=2,
    profile_sha256="0" * 64,
)
VALUES: list[Any] = [
    *(None, True, 3, -2.5, 1j, "text é", b"bytes", float("inf"), 2**80),
    [1, (2, {"a": {3}, 4: frozenset({5})})],
    {"types": [int, dict, torch.float32], "range": range(3), "slice": slice(1, 2)},
    collections.OrderedDict(a=1),
    collections.defaultdict(list, a=[1]),
    datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
    datetime.timedelta(seconds=3),
    Path("a/b"),
    (torch.Size([2, 3]), torch.device("cpu"), torch.bfloat16, torch.contiguous_format),
    (np.float32(1.5), np.int64(2), np.dtype("f4")),
    Own(1, {"pair": Pair(2, Own(3))}),
    PLAN,
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_data_arrive_as_they_were_sent(value: object) -> None:
    found = unpacked(packed(value))
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6.0).reshape(2, 3),
        torch.arange(6).reshape(2, 3).t(),
        torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.ones(3, dtype=torch.bfloat16)[::2],
        torch.tensor(1.5),
        torch.empty(0, 4),
        torch.tensor([True, False]),
        torch.ones(2, 1).expand(2, 5),
        torch.tensor([1 + 2j]).conj(),
        nn.Parameter(torch.ones(2)),
    ],
    ids=[
        "plain",
        "turned",
        "channels",
        "half",
        "number",
        "none",
        "truth",
        "wide",
        "conj",
        "weight",
    ],
)
def test_tensors_arrive_with_their_bits_and_their_order_in_memory(tensor: torch.Tensor) -> None:
    (found,) = unpacked(packed({"tensor": tensor})).values()
    assert type(found) is torch.Tensor
    assert not found.requires_grad
    assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
    assert torch.equal(found, tensor.detach())
    for form in (torch.contiguous_format, torch.channels_last):
        if tensor.dim() == 4:
            assert found.is_contiguous(memory_format=form) == tensor.is_contiguous(
                memory_format=form
            )
    if 0 not in tensor.stride() and tensor.dtype != torch.bfloat16 and tensor.numel():
        assert found.stride() == tensor.stride()


def test_arrays_and_what_layers_hand_on_arrive_as_they_were_sent() -> None:
    array = np.arange(6.0).reshape(2, 3).T
    assert np.array_equal(unpacked(packed(array)), array)
    _, structure = taken_apart({"a": [torch.ones(2), 3], "b": Pair(torch.zeros(1), None)})
    assert unpacked(packed(structure)) == structure
    error = unpacked(packed(InputError("it is wrong.")))
    assert (type(error), str(error)) == (InputError, "it is wrong.")
    assert unpacked(packed(History())) == History()


def test_an_object_of_the_users_own_class_is_restored_without_a_call() -> None:
    sent = Plain([torch.ones(2), Plain(1)])
    calls = Plain.calls
    found = unpacked(packed(sent))
    assert type(found) is Plain
    assert found.value[1].value == 1
    assert Plain.calls == calls


class Calling:
    """Pickled as a call of a function."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize(
    "value",
    [
        Calling(os.system, "touch executed"),
        Calling(subprocess.run, ["touch", "executed"]),
        Calling(subprocess.Popen, ["touch", "executed"]),
        Calling(eval, "open('executed', 'w')"),
        Calling(exec, "open('executed', 'w')"),
        Calling(getattr, "text", "upper"),
        Calling(functools.partial, os.system, "touch executed"),
        Calling(open, "executed", "w"),
        Calling(type, "X", (), {}),
        Calling(torch.load, "executed"),
        Calling(nn.Linear, 1, 1),
        Calling(Plain, 1),
        Calling(sys.exit, 0),
        os.system,
    ],
    ids=lambda value: getattr(value, "call", [value])[0].__name__,
)
def test_what_acts_is_refused(
    value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    calls = Plain.calls
    for content in (pickle.dumps(value), packed([Own(1), value])):
        with pytest.raises(RefusedMessageError, match=r"which is no(t here| data)"):
            unpacked(content)
    assert Plain.calls == calls
    assert not list(tmp_path.iterdir())


def test_an_object_of_an_installed_class_is_not_restored() -> None:
    with pytest.raises(RefusedMessageError, match=r"refers to subprocess\.Popen, which is no data"):
        unpacked(b"\x80\x04\x8c\x0asubprocess\x8c\x05Popen\x93)\x81}b.")


@pytest.mark.parametrize("content", [b"", b"\x80\x05", b"garbage", os.urandom(300), b"\x80\x05]."])
def test_what_is_no_message_is_refused_or_is_data(content: bytes) -> None:
    try:
        assert unpacked(content) == []
    except RefusedMessageError as error:
        assert "it cannot be read" in str(error) or "it refers to" in str(error)


def test_a_module_that_is_not_here_is_not_imported() -> None:
    assert "antigravity" not in sys.modules
    with pytest.raises(RefusedMessageError, match=r"refers to antigravity\.geohash, which is not"):
        unpacked(b"\x80\x04\x8c\x0bantigravity\x8c\x07geohash\x93.")
    assert "antigravity" not in sys.modules
