"""Teaches a small network to read digits."""

import hpc_lpm
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy, relu
from torch.optim import AdamW
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, channels, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(4))
        self.last = nn.Linear(channels * 8 * 8, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found = relu(self.first(images))
        for block in self.blocks:
            found = found + relu(block(found))
        return self.last(found.flatten(1))


def accuracy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (outputs.argmax(dim=1) == targets).float().mean()


torch.manual_seed(0)
digits = load_digits()
images, labels = torch.tensor(digits.images).float()[:, None] / 16, torch.tensor(digits.target)
training, test = TensorDataset(images[:1500], labels[:1500]), (images[1500:], labels[1500:])
loader = DataLoader(training, batch_size=64, shuffle=True)
model = Net()
plan = hpc_lpm.plan(hpc_lpm.profile(model, training[:16], loss=cross_entropy), stages=2)
engine = hpc_lpm.initialize(model, plan, loss=cross_entropy, optimizer=lambda p: AdamW(p, lr=3e-3))
rates = torch.optim.lr_scheduler.OneCycleLR(engine.optimizer, 3e-3, total_steps=5 * len(loader))

for epoch in range(5):
    for inputs, targets in loader:
        engine.train_batch(inputs, targets)
        rates.step()
    print(f"epoch {epoch + 1}: accuracy {engine.evaluate([test], metric=accuracy):.3f}")
if weights := engine.state_dict():
    torch.save(weights, "digits.pt")
