"""Teaches a small network to read digits."""

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
optimizer = AdamW(model.parameters(), lr=3e-3)
rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=5 * len(loader))

for epoch in range(5):
    for inputs, targets in loader:
        optimizer.zero_grad()
        cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        rates.step()
    with torch.no_grad():
        print(f"epoch {epoch + 1}: accuracy {accuracy(model(test[0]), test[1]):.3f}")
torch.save(model.state_dict(), "digits.pt")
