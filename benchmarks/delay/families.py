"""The trainings that the delay benchmark compares: model, data, optimizer and tuned rates."""

import sysconfig
from dataclasses import dataclass
from typing import Any

_TEXT = f"text:{sysconfig.get_path('stdlib')}/asyncio,sequence=32"


@dataclass(frozen=True)
class Family:
    """Trainings that differ in stages, micro-batches, corrections and seed alone.

    Attributes:
        name: in tables.
        model: as `hpc-lpm train` takes it.
        dataset: likewise.
        batch_size: samples an optimizer step.
        steps: optimizer steps of one device's training, whose outcome is the target.
        optimizer: settings, but for the rate.
        rates: what a rate is tuned among, at one seed (the part `rates`).
        rate: the one that is best on one device.
        lagging_rate: the one that is best on many stages.
        metric: `loss`, or `accuracy` in percentage points, on the test part at the end.
        margin: by how much an outcome may miss one device's and still counts as reaching it: where
            accuracies end is mostly noise.
        warmup_steps: steps of linear warm-up before the cosine.
    """

    name: str
    model: str
    dataset: str
    batch_size: int
    steps: int
    optimizer: dict[str, Any]
    rates: tuple[float, ...]
    rate: float
    lagging_rate: float
    metric: str = "loss"
    margin: float = 0.0
    warmup_steps: int = 0

    @property
    def lower_is_better(self) -> bool:
        """Whether a lower outcome is the better one."""
        return self.metric == "loss"


ADAMW = {"name": "adamw", "options": {"betas": [0.9, 0.99]}}
MUON = {"name": "muon", "options": {"betas": [0.9, 0.99]}}
SGD = {"name": "momentum", "momentum": 0.9, "weight_decay": 5e-4}

_GPT = "gpt,layers=6,width=48,heads=2"
_DIGITS, _CLOTHES = "mnist5k", "fashion-mnist"
_ACCURACY: dict[str, Any] = {"metric": "accuracy", "margin": 0.5, "warmup_steps": 60}
_DEEPER_GPT = "gpt,layers=8,width=48,heads=2"

FAMILIES = {
    family.name: family
    for family in (
        Family("gpt-adamw", _GPT, _TEXT, 16, 500, ADAMW, (2e-3, 4e-3, 8e-3), 8e-3, 4e-3),
        Family("gpt-muon", _GPT, _TEXT, 16, 500, MUON, (8e-3, 1.6e-2, 2.4e-2), 1.6e-2, 1.6e-2),
        Family("gpt8-adamw", _DEEPER_GPT, _TEXT, 16, 500, ADAMW, (2e-3, 4e-3, 8e-3), 8e-3, 3e-3),
        Family("gpt8-muon", _DEEPER_GPT, _TEXT, 16, 500, MUON, (8e-3, 1.6e-2), 1.6e-2, 8e-3),
        Family("resnet20", "resnet20", _DIGITS, 64, 500, SGD, (0.05, 0.1), 0.1, 0.1, **_ACCURACY),
        Family("vgg11", "vgg11", _DIGITS, 64, 250, SGD, (0.02, 0.05), 0.05, 0.05, **_ACCURACY),
        Family(
            "resnet20-fashion", "resnet20", _CLOTHES, 64, 900, SGD, (0.05, 0.1), 0.1, 0.1,
            **_ACCURACY,
        ),
    )
}  # fmt: skip
