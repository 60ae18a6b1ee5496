"""The cases on which advice is checked: models, devices, links and memory limits.

Devices are emulated (`replay:PROFILE`): layers sleep for their times and send messages of their
sizes through this machine's memory, so that K ranks run on two cores. A slow link is emulated by
messages of so many bytes that this machine takes as long for them. Emulated layers have one weight
each, and averages of their gradients cost next to nothing; where a case says so they have more
(`benchmarks.advice_models`). Two cases train real layers on two real cores.
"""

from dataclasses import dataclass
from pathlib import Path

from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile

SYNTHETIC = "synthetic,samples=4096"


@dataclass(frozen=True)
class AdviceCase:
    """One question: a model, its devices and a step; the sizes are of micro-batches in samples.

    Attributes:
        name: for tables and files.
        devices: K.
        batch_size: samples of a step.
        sizes: of the micro-batches that are profiled.
        model: a real one, None for emulated devices.
        dataset: the data of a real one.
        layers: forward seconds of a sample in each emulated layer; backward takes twice as long.
        message_bytes: of a sample behind each emulated layer.
        activation_bytes: of a sample in each emulated layer.
        weight_bytes: of each emulated layer.
        memory_limit: bytes of a device, None for no limit.
    """

    name: str
    devices: int
    batch_size: int
    sizes: tuple[int, ...]
    model: str | None = None
    dataset: str = SYNTHETIC
    layers: tuple[float, ...] = ()
    message_bytes: int = 4_000
    activation_bytes: int = 0
    weight_bytes: int = 4
    memory_limit: int | None = None

    def emulated_profile(self, size: int, link: LinkProfile) -> Profile:
        """Return the profile of the emulated layers at one size of micro-batch."""
        layers = tuple(
            LayerProfile(
                name=f"layer{number}",
                forward_seconds=seconds * size,
                backward_seconds=2 * seconds * size,
                output_bytes=self.message_bytes * size,
                parameter_bytes=self.weight_bytes,
                activation_bytes=self.activation_bytes * size,
            )
            for number, seconds in enumerate(self.layers)
        )
        return Profile(
            model="emulated",
            micro_batch=size,
            device="cpu",
            dtype="float32",
            layers=layers,
            link=link,
            environment={"link": "measured"},
        )

    def model_of(self, profile: Path) -> str:
        """Return the name of the model, whose emulated layers are those of a profile."""
        if self.model is not None:
            return self.model
        if self.weight_bytes > 4:
            return f"benchmarks.advice_models:weighty,profile={profile}"
        return f"replay:{profile}"

    def write_profiles(self, folder: Path, link: LinkProfile) -> list[Path]:
        """Write the profiles of an emulated case and return their paths, one for each size."""
        paths = [folder / f"profile-{self.name}-{size}.json" for size in self.sizes]
        for path, size in zip(paths, self.sizes, strict=True):
            self.emulated_profile(size, link).write(path)
        return paths


def _even(layers: int, seconds: float) -> tuple[float, ...]:
    return (seconds,) * layers


CASES = (
    AdviceCase("even-8", 8, 32, (4, 2, 1), layers=_even(8, 5e-3), weight_bytes=2_000_000),
    AdviceCase("even-8-few", 8, 16, (4, 2), layers=_even(8, 5e-3)),
    AdviceCase("deep-8", 8, 32, (4, 2), layers=_even(32, 1.25e-3)),
    AdviceCase("uneven-8", 8, 32, (4, 2), layers=(2e-2, 1e-2, *_even(14, 2e-3))),
    AdviceCase("coarse-8", 8, 32, (4, 2), layers=(2e-2, 2e-2), weight_bytes=8_000_000),
    AdviceCase("large-messages-8", 8, 32, (4, 2), layers=_even(8, 5e-3), message_bytes=1_000_000),
    AdviceCase(
        *("limit-8", 8, 32, (4, 2)),
        layers=_even(8, 5e-3),
        activation_bytes=1_000_000,
        memory_limit=16_000_000,
    ),
    AdviceCase(
        *("tight-limit-8", 8, 32, (4, 2)),
        layers=_even(16, 2.5e-3),
        activation_bytes=1_000_000,
        memory_limit=8_000_000,
    ),
    AdviceCase("even-16", 16, 32, (2, 1), layers=_even(16, 2e-2), weight_bytes=400_000),
    AdviceCase(
        *("limit-16", 16, 64, (4, 2)),
        layers=_even(16, 1e-2),
        activation_bytes=1_000_000,
        memory_limit=24_000_000,
    ),
    AdviceCase("resnet56-2", 2, 64, (32, 16, 8), "resnet56", "digits,size=32"),
    AdviceCase("vgg11-2", 2, 64, (32, 16, 8), "vgg11", "digits,size=32"),
)
