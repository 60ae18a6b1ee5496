"""What the layers keep in memory between their forward and their backward pass, measured."""

import torch
from torch import Tensor

from hpc_lpm.profiling.chain import DetachedChain


def measure_activation_bytes(chain: DetachedChain) -> list[int]:
    """Run one forward pass of the chain and return the bytes that each layer keeps for backward.

    Counted are the distinct storages that autograd saves, each in full and once, in the layer that
    saves it first; parameters and buffers are not counted, but the casts of
    parameters that mixed precision keeps a micro-batch are. An output that the next layer saves
    although its producer does not (the input of a normalisation) is therefore counted in
    the next layer, and the sum over the chain is what one micro-batch in flight occupies. Memory
    that a kernel needs while it runs is not in it.
    """
    # Held until the end, so that no address is freed and used again by another storage.
    kept: dict[int, torch.UntypedStorage] = {}
    layer_bytes = []
    for index in range(len(chain)):
        own = chain.own_storages(index)
        new_bytes = 0

        def keep(tensor: Tensor, own: set[int] = own) -> Tensor:
            nonlocal new_bytes
            storage = tensor.untyped_storage()
            address = storage.data_ptr()
            if address not in kept and address not in own:
                kept[address] = storage
                new_bytes += storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            chain.forward(index)
        layer_bytes.append(new_bytes)
    return layer_bytes
