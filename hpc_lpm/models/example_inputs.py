"""What the inputs of a model look like, in a form that a file can hold, and inputs made up from it.

A module that is no chain of layers can only be divided along a pass of some inputs. Those that were
profiled are described in profile and plan, so that whoever has the plan needs no others.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hpc_lpm.activation import Activation

_SAMPLES = 3
_PLAIN = (bool, int, float, str, type(None))


def describe_inputs(inputs: Activation, samples: int) -> dict[str, Any] | None:
    """Describe inputs as a JSON document; None if they hold anything that it has no word for.

    Args:
        inputs: tensors, in tuples, lists and dictionaries, beside numbers, text and None.
        samples: the number of samples, which is the first dimension of the tensors that have them.
    """
    match inputs:
        case Tensor():
            of_samples = inputs.dim() > 0 and len(inputs) == samples
            described = {
                "shape": list(inputs.shape[1:] if of_samples else inputs.shape),
                "of_samples": of_samples,
                "dtype": str(inputs.dtype).removeprefix("torch."),
            }
            if not inputs.is_floating_point() and not inputs.is_complex():
                values = inputs if inputs.numel() else torch.zeros(1)
                described |= {"least": int(values.min()), "largest": int(values.max())}
            return {"tensor": described}
        case tuple() | list() if type(inputs) in (tuple, list):
            parts = [describe_inputs(part, samples) for part in inputs]
            return None if None in parts else {type(inputs).__name__: parts}
        case dict() if all(isinstance(name, str) for name in inputs):
            named = {name: describe_inputs(part, samples) for name, part in inputs.items()}
            return None if None in named.values() else {"dict": named}
        case _ if isinstance(inputs, _PLAIN):
            return {"value": inputs}
    return None


def made_up_inputs(described: Mapping[str, Any]) -> Activation:
    """Return inputs of a few samples as `describe_inputs` has described them.

    Numbers are random, whole ones within the range of those that were described; the generators are
    those of the caller.
    """
    ((kind, content),) = described.items()
    match kind:
        case "tensor":
            return _made_up(content)
        case "tuple":
            return tuple(made_up_inputs(part) for part in content)
        case "list":
            return [made_up_inputs(part) for part in content]
        case "dict":
            return {name: made_up_inputs(part) for name, part in content.items()}
    return content


def _made_up(described: Mapping[str, Any]) -> Tensor:
    dtype = getattr(torch, described["dtype"])
    shape = described["shape"]
    if described["of_samples"]:
        shape = [_SAMPLES, *shape]
    if "least" not in described:
        return torch.randn(shape, dtype=dtype)
    return torch.randint(described["least"], described["largest"] + 1, shape).to(dtype)
