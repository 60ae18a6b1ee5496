"""Layers that the convolutional networks share."""

from torch import Tensor, nn


def convolution(
    in_channels: int, out_channels: int, stride: int = 1, kernel_size: int = 3
) -> nn.Conv2d:
    """Build a convolution without bias that keeps the image size at stride 1.

    Weights are drawn from He et al.'s normal distribution (fan out, rectifier gain).
    """
    layer = nn.Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        bias=False,
    )
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


class NormReLU(nn.Module):
    """Batch normalisation followed by the rectifier, [n, channels, height, width] in and out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalise and rectify."""
        # In place: batch normalisation keeps its input for the backward pass, not its output.
        return self.norm(inputs).relu_()  # type: ignore[no-any-return]


class PooledClassifier(nn.Module):
    """Mean over the image, then a linear layer: [n, channels, height, width] to [n, classes]."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Pool and classify."""
        return self.linear(inputs.mean(dim=(2, 3)))  # type: ignore[no-any-return]
