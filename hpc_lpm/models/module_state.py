"""What a layer remembers beside its parameters, so that a pass can be undone."""

import copy
from collections import deque
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hpc_lpm.activation import repeated_dimensions

_UNCHANGING = frozenset({type(None), bool, int, float, complex, str, bytes, torch.Size, type})
_WITHOUT_STATE = (type, FunctionType, BuiltinFunctionType, MethodType, ModuleType)
_OF_TORCH = frozenset(vars(nn.Module()))


class ModuleState:
    """The buffers and the attributes of modules and of their parts, as they are now.

    Parameters are not part of it. Attributes are followed through containers, and through the
    attributes of objects, to tensors and arrays; what has neither, such as an iterator, is kept as
    it is.
    """

    def __init__(self, *modules: nn.Module) -> None:
        self._attributes = [
            (vars(part), dict(vars(part))) for module in modules for part in module.modules()
        ]
        self._buffers: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._tensors: dict[int, tuple[Tensor, Tensor]] = {}
        self._containers: dict[int, tuple[Any, Any]] = {}
        for attributes, values in self._attributes:
            buffers = attributes["_buffers"]
            self._buffers.append((buffers, dict(buffers)))
            for buffer in buffers.values():
                self._remember(buffer)
            if len(values) > len(_OF_TORCH):
                for name, value in values.items():
                    if name not in _OF_TORCH:
                        self._remember(value)

    def restore(self) -> None:
        """Set buffers and attributes back, whether they were assigned anew or changed in place."""
        for attributes, values in (*self._attributes, *self._buffers):
            attributes.update(values)
            if len(attributes) != len(values):
                for name in attributes.keys() - values.keys():
                    del attributes[name]
        for container, elements in self._containers.values():
            _refill(container, elements)
        for tensor, before in self._tensors.values():
            # Through `.data`: graphs in flight hold running statistics, on which no gradient
            # depends, and autograd would refuse a change that it counts.
            tensor.data.copy_(before)

    def _remember(self, value: object) -> None:
        if type(value) in _UNCHANGING or isinstance(value, nn.Parameter | nn.Module):
            return
        if isinstance(value, Tensor):
            # Nothing can change a tensor whose elements share memory, as those of an expanded one.
            changeable = value.is_contiguous() or not repeated_dimensions(value)
            if changeable and id(value) not in self._tensors:
                self._tensors[id(value)] = (value, value.detach().clone())
        elif isinstance(value, list | dict | set | deque | np.ndarray):
            if id(value) not in self._containers:
                self._containers[id(value)] = (value, copy.copy(value))
                if not isinstance(value, np.ndarray):
                    for element in value.values() if isinstance(value, dict) else value:
                        self._remember(element)
        elif isinstance(value, tuple):
            for element in value:
                self._remember(element)
        elif hasattr(value, "__dict__") and not isinstance(value, _WITHOUT_STATE):
            attributes = vars(value)
            if id(attributes) not in self._containers:
                self._containers[id(attributes)] = attributes, dict(attributes)
                for element in attributes.values():
                    self._remember(element)


def _refill(container: Any, elements: Any) -> None:
    match container:
        case list():
            container[:] = elements
        case deque():
            container.clear()
            container.extend(elements)
        case np.ndarray():
            container[...] = elements
        case _:
            container.clear()
            container.update(elements)
