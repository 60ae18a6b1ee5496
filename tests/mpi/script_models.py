"""A module, data and a plain torch loop of a script, which know nothing of `hpc_lpm`."""

import copy
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

SAMPLES, TESTED, LENGTH, TOKENS, WIDTH = 42, 15, 5, 7, 8

Inputs = dict[str, Tensor]


class Net(nn.Module):
    """Takes a dictionary; has buffers, and if asked a module used twice and a tied embedding."""

    def __init__(self, *, tied: bool, batch_norm: bool, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, WIDTH)
        self.scale = nn.Linear(3, WIDTH)
        self.norm = nn.BatchNorm1d(WIDTH) if batch_norm else nn.LayerNorm(WIDTH)
        self.first = nn.Linear(WIDTH, WIDTH)
        self.drop = nn.Dropout(dropout)
        self.middle = nn.Linear(WIDTH, WIDTH)
        self.again = self.middle if tied else nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, TOKENS, bias=False)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor, more: Tensor) -> Tensor:
        hidden = self.norm(self.embedding(tokens).mean(1) + self.scale(more))
        hidden = torch.relu(self.middle(torch.relu(self.first(hidden))))
        return self.head(torch.tanh(self.again(self.drop(hidden))))


def net(_: object, tied: bool = False, batch_norm: bool = True, dropout: float = 0.0) -> object:
    """Return the module and example inputs; the weights are always the same ones."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        made = Net(tied=tied, batch_norm=batch_norm, dropout=dropout)
    return made, batch(range(4))[0]


class Samples(Dataset):
    def __init__(self, first: int, count: int) -> None:
        self.first, self.count = first, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Inputs, int]:
        generator = torch.Generator().manual_seed(self.first + index)
        tokens = torch.randint(TOKENS, (LENGTH,), generator=generator)
        more = torch.randn(3, generator=generator)
        return {"tokens": tokens, "more": more}, int(tokens[0] + tokens[1]) % TOKENS


def data(_: object) -> tuple[Dataset, Dataset]:
    return Samples(0, SAMPLES), Samples(1000, TESTED)


def batch(numbers: Iterable[int], first: int = 0) -> tuple[Inputs, Tensor]:
    drawn = [Samples(first, 0)[number] for number in numbers]
    inputs = {name: torch.stack([of[name] for of, _ in drawn]) for name in drawn[0][0]}
    return inputs, torch.tensor([target for _, target in drawn])


def train_plainly(
    module: nn.Module,
    batches: Iterable[tuple[Inputs, Tensor]],
    micro_batch_size: int,
    make_optimizer: Callable[..., torch.optim.Optimizer],
    make_scheduler: Callable[..., torch.optim.lr_scheduler.LRScheduler],
) -> dict[str, Tensor]:
    """Train in a loop with accumulation as people write it; return the weights.

    Of two uses of the same weights each has gradients of its own, which are added before an update:
    in which order sums are taken is up to who accumulates, and these are the ones of two stages.
    """
    module = copy.deepcopy(module)
    tied = module.again is module.middle
    if tied:
        module.again = copy.deepcopy(module.middle)
        module.head.weight = nn.Parameter(module.embedding.weight.detach().clone())
    copies = [
        (module.middle.weight, module.again.weight),
        (module.middle.bias, module.again.bias),
        (module.embedding.weight, module.head.weight),
    ]
    owned = list(dict.fromkeys(module.parameters()))
    if tied:
        owned = [each for each in owned if all(each is not second for _, second in copies)]
    optimizer = make_optimizer(owned)
    scheduler = make_scheduler(optimizer)
    for inputs, targets in batches:
        parts = -(-len(targets) // micro_batch_size)
        of_inputs = {name: tensor.tensor_split(parts) for name, tensor in inputs.items()}
        for part, wanted in enumerate(targets.tensor_split(parts)):
            outputs = module(**{name: tensors[part] for name, tensors in of_inputs.items()})
            loss = functional.cross_entropy(outputs, wanted)
            (loss / (len(targets) / len(wanted))).backward()
        if tied:
            for first, second in copies:
                first.grad += second.grad
        optimizer.step()
        scheduler.step()
        module.zero_grad()
        if tied:
            with torch.no_grad():
                for first, second in copies:
                    second.copy_(first)
    return module.state_dict()
