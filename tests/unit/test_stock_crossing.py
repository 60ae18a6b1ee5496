"""What is handed to stock DeepSpeed is contiguous and comes out as it went in."""

from types import SimpleNamespace

import pytest
import torch

from hpc_lpm.engine.pipeline.boundary import BoundarySpec
from hpc_lpm.engine.runners.deepspeed_crossing import adapt_crossing
from hpc_lpm.models.activation import Activation
from hpc_lpm.models.layered import as_tuple

IMAGES = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
CASES: dict[str, Activation] = {
    "channels last": IMAGES,
    "one pixel": torch.randn(2, 3, 1, 1).to(memory_format=torch.channels_last),
    "pair": (IMAGES, torch.randn(2, 6, 2, 2)),
    "pair of two types": (IMAGES.bfloat16(), torch.randn(2, 7)),
    "with gaps": torch.randn(4, 6)[:, ::2],
    "transposed samples": torch.randn(4, 2).t(),
}


@pytest.mark.parametrize("activation", CASES.values(), ids=CASES.keys())
def test_an_activation_crosses_as_one_contiguous_tensor_and_its_gradient_back(
    activation: Activation,
) -> None:
    spec = BoundarySpec.of(activation)
    sender, receiver = SimpleNamespace(forward_funcs=[]), SimpleNamespace(forward_funcs=[])
    adapt_crossing(sender, None, spec)  # type: ignore[arg-type]
    adapt_crossing(receiver, spec, None)  # type: ignore[arg-type]
    crossing: Activation = activation
    for function in sender.forward_funcs:
        crossing = function(crossing)
    assert isinstance(crossing, torch.Tensor)
    assert crossing.is_contiguous()
    leaf = crossing.detach().requires_grad_()
    arrived: Activation = leaf
    for function in receiver.forward_funcs:
        arrived = function(arrived)
    for got, given in zip(as_tuple(arrived), as_tuple(activation), strict=True):
        assert torch.equal(got, given)
        assert got.dtype == given.dtype
    if isinstance(activation, torch.Tensor) and activation.dim() == 4:
        assert crossing.data_ptr() == activation.data_ptr()
        assert isinstance(arrived, torch.Tensor)
        assert arrived.stride() == activation.stride()
        assert arrived.data_ptr() == leaf.data_ptr()
    torch.autograd.backward([t.sum() for t in as_tuple(arrived)])
    assert leaf.grad is not None
    assert torch.equal(leaf.grad, torch.ones_like(leaf))


def test_a_lone_contiguous_tensor_needs_nothing() -> None:
    module = SimpleNamespace(forward_funcs=[])
    spec = BoundarySpec.of(torch.randn(2, 3, 4, 5))
    adapt_crossing(module, spec, spec)  # type: ignore[arg-type]
    assert module.forward_funcs == []
