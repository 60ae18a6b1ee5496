"""A fingerprint of the trained weights that does not depend on the partition."""

import hashlib

import torch
from torch import nn

from hpc_lpm.engine.job import Job


def layer_sha256(layer: nn.Module) -> str:
    """Return the hash of a layer's parameters and buffers: names, types, shapes and bits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(layer.state_dict().items()):
        held = tensor.detach().cpu().contiguous()
        digest.update(f"{name}:{held.dtype}:{tuple(held.shape)};".encode())
        digest.update(held.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def weights_sha256(layers: dict[int, nn.Module], job: Job) -> str:
    """Return the hash over all layers of all ranks, in layer order (collective)."""
    hashes: dict[int, str] = {}
    for held in job.all_gather({index: layer_sha256(layer) for index, layer in layers.items()}):
        hashes.update(held)
    return hashlib.sha256("".join(hashes[index] for index in sorted(hashes)).encode()).hexdigest()
