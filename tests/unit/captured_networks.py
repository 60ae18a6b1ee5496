"""Networks of many kinds, as users write them, and what a chain of layers makes of them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint


class ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, inputs: Tensor) -> Tensor:
        found = self.relu(self.norm1(self.conv1(inputs)))
        found = self.norm2(self.conv2(found))
        found += inputs
        return self.relu(found)


class ResidualNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.blocks = nn.ModuleList([ResidualBlock(4) for _ in range(3)])
        self.head = nn.Linear(4, 10)

    def forward(self, images: Tensor) -> Tensor:
        found = functional.relu(self.stem(images), inplace=True)
        for block in self.blocks:
            found = block(found)
        return self.head(found.mean((2, 3)))


class DenseNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(4 + 3 * number) for number in range(4)])
        self.convs = nn.ModuleList([nn.Conv2d(4 + 3 * n, 3, 3, padding=1) for n in range(4)])
        self.head = nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = [self.stem(images)]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            features.append(conv(functional.relu(norm(torch.cat(features, 1)))))
        pooled = functional.adaptive_avg_pool2d(torch.cat(features, 1), 1)
        return self.head(torch.flatten(pooled, 1))


class UNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([nn.Conv2d(c, d, 3, padding=1) for c, d in ((1, 4), (4, 6))])
        self.bottom = nn.Conv2d(6, 8, 3, padding=1)
        self.raise_ = nn.ModuleList([nn.ConvTranspose2d(c, d, 2, 2) for c, d in ((8, 6), (6, 4))])
        self.up = nn.ModuleList([nn.Conv2d(c, d, 3, padding=1) for c, d in ((12, 6), (8, 4))])
        self.head = nn.Conv2d(4, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        skips = []
        found = images
        for conv in self.down:
            found = functional.gelu(conv(found))
            skips.append(found)
            found = functional.max_pool2d(found, 2)
        found = torch.tanh(self.bottom(found))
        for lift, conv in zip(self.raise_, self.up, strict=True):
            found = torch.relu(conv(torch.cat([lift(found), skips.pop()], 1)))
        return self.head(found).permute(0, 2, 3, 1)


class EncoderDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.transformer = nn.Transformer(
            8, 2, 2, 2, dim_feedforward=16, dropout=0.1, batch_first=True
        )
        self.head = nn.Linear(8, 20)
        self.head.weight = self.embed.weight

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        found = self.transformer(self.embed(source), self.embed(target), tgt_mask=mask)
        return self.head(found)


class Experts(nn.Module):
    """A mixture: each token goes to the two best of four experts, with static shapes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, 4)
        self.experts = nn.ModuleList(
            [nn.Sequential(nn.Linear(width, 12), nn.SiLU(), nn.Linear(12, width)) for _ in range(4)]
        )

    def forward(self, hidden: Tensor) -> Tensor:
        flat = hidden.reshape(-1, hidden.shape[-1])
        weights, chosen = self.router(flat).softmax(-1).topk(2, -1)
        mixed = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            share = (weights * (chosen == number)).sum(-1, keepdim=True)
            mixed = mixed + share * expert(flat)
        return mixed.view_as(hidden)


class MixtureNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.norms = nn.ModuleList([nn.LayerNorm(8) for _ in range(2)])
        self.mixtures = nn.ModuleList([Experts(8) for _ in range(2)])
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(8, 20)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.embed(tokens)
        for norm, mixture in zip(self.norms, self.mixtures, strict=True):
            hidden = hidden + self.drop(mixture(norm(hidden)))
        return self.head(hidden)


class Rounded(torch.autograd.Function):
    """Rounds to a step, and hands the gradient through as if it had not."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, step: float) -> Tensor:
        ctx.step = step
        return (inputs / step).round() * step

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * (1 + ctx.step), None


class Swapped(torch.autograd.Function):
    """Takes and returns two tensors, one of them as it is."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(first)
        return second * 2, first.view_as(first)

    @staticmethod
    def backward(ctx: Any, second: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        (saved,) = ctx.saved_tensors
        return first * saved, -second


class OwnGradients(nn.Module):
    """Has functions with gradients of their own, checkpoints, and any number of arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([nn.Linear(8, 8) for _ in range(4)])
        self.drop = nn.Dropout(0.3)

    def waves(self, found: Tensor) -> Tensor:
        return self.drop(torch.sin(found))

    def forward(self, *several: Tensor) -> Tensor:
        first, second = several
        for part in self.parts:
            first = Rounded.apply(part(first), 0.25)
            first, second = Swapped.apply(first, second)
            second = checkpoint(self.waves, second, use_reentrant=False)
        return first + second


def two_vectors(samples: int) -> tuple[Tensor, Tensor]:
    first, second = torch.randn(2, samples, 8, generator=torch.Generator().manual_seed(samples))
    return first, second


def images(samples: int) -> Tensor:
    return torch.randn(samples, 1, 8, 8, generator=torch.Generator().manual_seed(samples))


def tokens(samples: int, length: int = 8, vocabulary: int = 20) -> Tensor:
    generator = torch.Generator().manual_seed(samples + length)
    return torch.randint(0, vocabulary, (samples, length), generator=generator)


def results_of_module(
    module: nn.Module, inputs: Any, pick: Callable[[Any], Tensor] = lambda output: output
) -> tuple[Tensor, Tensor]:
    """Return output and loss of a module, after a backward pass."""
    torch.manual_seed(3)
    if isinstance(inputs, dict):
        output = pick(module(**inputs))
    else:
        output = pick(module(*inputs) if isinstance(inputs, tuple) else module(inputs))
    loss = loss_of(output)
    loss.backward()
    return output.detach(), loss.detach()


def results_of_chain(layers: list[nn.Module], inputs: Any, apart: bool) -> tuple[Tensor, Tensor]:
    """Return output and loss of a chain after a backward pass.

    With `apart` every layer has a graph of its own, as if each were on a rank of its own: its
    input is detached, and its backward pass starts from the gradients of the next layer's input,
    which cross in the layout that they have unless they repeat their numbers.
    """
    torch.manual_seed(3)
    sent: list[Any] = []
    gradients: list[dict[int, Tensor]] = []
    activation = inputs
    for layer in layers:
        if apart:
            gradients.append({})
            activation = _entered(activation, gradients[-1])
        activation = layer(activation)
        sent.append(activation)
    loss = loss_of(activation)
    loss.backward()
    if apart:
        for output, found in reversed(list(zip(sent[:-1], gradients[1:], strict=True))):
            tensors = pytree.tree_leaves(output)
            roots = [tensors[place] for place in found]
            torch.autograd.backward(
                roots, [_crossed(*pair) for pair in zip(found.values(), roots, strict=True)]
            )
    return activation.detach(), loss.detach()


def _entered(activation: Any, gradients: dict[int, Tensor]) -> Any:
    tensors, spec = pytree.tree_flatten(activation)
    for place, tensor in enumerate(tensors):
        if tensor.requires_grad:
            tensors[place] = tensor.detach().clone().requires_grad_().view_as(tensor)
            tensors[place].register_hook(
                lambda gradient, place=place: gradients.update({place: gradient})
            )
        else:
            tensors[place] = tensor.clone()
    return pytree.tree_unflatten(tensors, spec)


def _crossed(gradient: Tensor, tensor: Tensor) -> Tensor:
    order = sorted(range(gradient.dim()), key=gradient.stride)
    dense = gradient.permute(order[::-1]).is_contiguous()
    return gradient.clone() if dense else torch.empty_like(tensor).copy_(gradient)


def loss_of(output: Tensor) -> Tensor:
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape)
    return (output * weights).sum() + output.square().mean()
