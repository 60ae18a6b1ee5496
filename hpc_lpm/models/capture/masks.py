"""What libraries find out of masks by looking at their values, which torch.export is told.

Torch's transformer layers look whether a mask is causal, and transformers looks whether positions
ascend by one, so that a quicker kernel can do without a mask. Both choose otherwise while they are
captured, or cannot be captured; so the module runs once for their findings. A mask or positions
that are part of the input may be others the next time, and are not relied upon.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import transformer

from hpc_lpm.activation import tensors_of
from hpc_lpm.models.capture.call import Call
from hpc_lpm.models.capture.state import state_kept
from hpc_lpm.random_streams import generators_kept

_CAUSAL = "_detect_is_causal_mask"
_PACKED = "find_packed_sequence_indices"
_EXPORTING = "is_torchdynamo_exporting"


@dataclass(frozen=True)
class Findings:
    """What the functions of libraries found, in the order of their calls.

    `causal` are torch's answers, `packed` tells for each of transformers' if it was None; those
    are None if the library is not used or has no such function.
    """

    causal: list[bool] | None
    packed: list[bool] | None


def findings(module: nn.Module, call: Call, training: bool) -> Findings:
    """Run a module and return what libraries find of the masks that it makes."""
    torchs = hasattr(transformer, _CAUSAL) and any(
        isinstance(part, nn.TransformerEncoder | nn.TransformerDecoder) for part in module.modules()
    )
    masking = _masking()
    found = Findings([] if torchs else None, None if masking is None else [])
    if found == Findings(None, None):
        return found
    given = {tensor.untyped_storage().data_ptr() for tensor in tensors_of(call.activation)}
    with ExitStack() as stack:
        for context in (state_kept(module), generators_kept(), torch.no_grad()):
            stack.enter_context(context)
        if found.causal is not None:
            look, causal = getattr(transformer, _CAUSAL), found.causal
            stack.enter_context(_replaced(transformer, _CAUSAL, _noting(look, given, causal)))
        if found.packed is not None and masking is not None:
            look, packed = getattr(masking, _PACKED), found.packed
            stack.enter_context(_replaced(masking, _PACKED, _noting_none(look, given, packed)))
        module.train(training)
        call.run(module, call.activation)
    return found


@contextmanager
def told(found: Findings) -> Iterator[None]:
    """Let the libraries find the same again, in the same order, whatever they look at."""
    masking = _masking()
    with ExitStack() as stack:
        if found.causal is not None:
            causal = iter(found.causal)
            stack.enter_context(
                _replaced(transformer, _CAUSAL, lambda *_given, **_options: next(causal))
            )
        if found.packed is not None and masking is not None:
            packed = iter(found.packed)
            look = getattr(masking, _PACKED)
            stack.enter_context(
                _replaced(masking, _PACKED, lambda given: None if next(packed) else look(given))
            )
            stack.enter_context(_replaced(masking, _EXPORTING, lambda: False))
        yield


def _masking() -> ModuleType | None:
    masking = sys.modules.get("transformers.masking_utils")
    known = hasattr(masking, _PACKED) and hasattr(masking, _EXPORTING)
    return masking if known else None


def _noting(look: Callable[..., bool], given: set[int], found: list[bool]) -> Callable[..., bool]:
    def noted(mask: Tensor | None, *rest: Any, **options: Any) -> bool:
        # Any mask may be taken for one that is not causal.
        of_input = mask is not None and mask.untyped_storage().data_ptr() in given
        found.append(not of_input and look(mask, *rest, **options))
        return found[-1]

    return noted


def _noting_none(
    look: Callable[[Tensor], Tensor | None], given: set[int], found: list[bool]
) -> Callable[[Tensor], Tensor | None]:
    def noted(positions: Tensor) -> Tensor | None:
        indices = look(positions)
        of_input = positions.untyped_storage().data_ptr() in given
        found.append(indices is None and not of_input)
        return indices

    return noted


@contextmanager
def _replaced(owner: ModuleType, name: str, function: Callable[..., Any]) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, function)
    try:
        yield
    finally:
        setattr(owner, name, original)
