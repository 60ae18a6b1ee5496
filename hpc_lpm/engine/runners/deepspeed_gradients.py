"""Makes DeepSpeed's engine average gradients as torch does on one device."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from hpc_lpm.engine.pipeline.deepspeed_parts import get_accelerator


def mend_gradients(engine: Any, module: Any, replicas: int) -> None:
    """Make an engine train parameters of any type and shape, with or without a gradient.

    By itself it gives zeros to parameters without a gradient, which weight decay and momentum then
    move, and it fails at gradients of types that it does not average.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    group = module.mpu().get_data_parallel_group()
    average_of_engine = engine.buffered_allreduce_fallback

    def average(grads: None, elements_per_buffer: int) -> None:
        if replicas > 1 and parameters:
            _agree_on_presence(parameters, group)
        present = [parameter for parameter in parameters if parameter.grad is not None]
        averaged, others = _divided_by_type(present)
        average_of_engine(grads=averaged, elements_per_buffer=elements_per_buffer)
        if replicas > 1:
            for gradient in others:
                _average(gradient, group, replicas)

    engine.buffered_allreduce_fallback = average


def _agree_on_presence(parameters: Sequence[nn.Parameter], group: Any) -> None:
    """Give zeros to parameters that have a gradient on other replicas alone (collective)."""
    flags = [float(parameter.grad is not None) for parameter in parameters]
    present = torch.tensor(flags, device=parameters[0].device)
    torch.distributed.all_reduce(present, torch.distributed.ReduceOp.MAX, group)
    for parameter, anywhere in zip(parameters, present.tolist(), strict=True):
        if anywhere and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)


def _divided_by_type(parameters: Sequence[nn.Parameter]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the gradients that DeepSpeed can average, and the others."""
    accepted = get_accelerator().supported_dtypes()
    averaged, others = [], []
    for parameter in parameters:
        assert parameter.grad is not None
        if parameter.dtype not in accepted:
            others.append(_real(parameter))
        elif parameter.numel():
            averaged.append(parameter.grad.detach())
    return averaged, others


def _average(gradient: Tensor, group: Any, replicas: int) -> None:
    summed = gradient.contiguous()
    torch.distributed.all_reduce(summed, group=group)
    gradient.copy_(summed.div_(replicas))


def _real(parameter: nn.Parameter) -> Tensor:
    """Return the memory of a gradient as real numbers with at least one dimension."""
    assert parameter.grad is not None
    if not parameter.is_complex():
        return parameter.grad.view(1) if parameter.dim() == 0 else parameter.grad
    parameter.grad = parameter.grad.resolve_conj()
    return torch.view_as_real(parameter.grad)
