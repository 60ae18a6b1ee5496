"""The profile file: the cost of one micro-batch in each layer, and the speed of the link."""

from typing import Annotated, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hpc_lpm.files import VersionedFile
from hpc_lpm.options import MemoryFormat

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ProfiledEnd(BaseModel):
    """A module of the model's source that ends with a layer: its path and its class's name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    type: str


class LayerProfile(BaseModel):
    """The cost of one layer for one micro-batch.

    `output_bytes` cross the boundary if the network is cut after this layer; `activation_bytes` are
    kept by the layer for its backward pass. `fingerprint` tells the layer from others by its name
    and its parameters and buffers; None in imported profiles and those of earlier releases.
    `matrix_parameter_bytes` are those of the parameters that optimizer `muon` takes as matrices,
    likewise. `weight_gradient_seconds` are those of `backward_seconds` that can be spent after the
    gradients of the layer's inputs are known: all of them in the first layer, whose inputs need
    none. `split_backward_seconds` are what the two halves take together if they run apart, which
    costs something: never less than `backward_seconds`. Both are None where they were not measured,
    as in imported profiles and those of earlier releases. `ends` are the modules that end with the
    layer, and no stage may end with it if `cut_after` is False.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    forward_seconds: Seconds
    backward_seconds: Seconds
    output_bytes: int = Field(ge=0)
    parameter_bytes: int = Field(ge=0)
    activation_bytes: int = Field(ge=0)
    matrix_parameter_bytes: int | None = Field(default=None, ge=0)
    weight_gradient_seconds: Seconds | None = None
    split_backward_seconds: Seconds | None = None
    fingerprint: str | None = None
    ends: tuple[ProfiledEnd, ...] = ()
    cut_after: bool = True

    @model_validator(mode="after")
    def _halves_fit_the_whole(self) -> Self:
        if (self.weight_gradient_seconds or 0.0) > self.backward_seconds:
            raise ValueError(
                f"weight_gradient_seconds is {self.weight_gradient_seconds:g}, accepted is a part "
                f"of backward_seconds, {self.backward_seconds:g}"
            )
        split = self.split_backward_seconds
        if split is not None and split < self.backward_seconds:
            raise ValueError(
                f"split_backward_seconds is {split:g}, accepted is at least backward_seconds, "
                f"{self.backward_seconds:g}"
            )
        return self

    def halves_seconds(self, *, first_stage: bool) -> tuple[float, float]:
        """Return what the halves of a backward pass take where they run apart, the weights' last.

        The first stage has no gradient of its input to compute, so that all of it can wait. Where
        the part that can wait is not known, nothing waits.
        """
        whole, waiting = self.backward_seconds, self.weight_gradient_seconds or 0.0
        if first_stage:
            return 0.0, whole
        both = self.split_backward_seconds
        if both is not None and whole:
            waiting *= both / whole
            return both - waiting, waiting
        return whole - waiting, waiting


class Link(BaseModel):
    """The link between two ranks: a message takes latency plus bytes divided by bandwidth."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    latency_seconds: Seconds
    bandwidth_bytes_per_second: float = Field(gt=0, allow_inf_nan=False)


class LinkProfile(Link):
    """The link between neighbouring ranks; `overlap` tells if transfers hide behind compute."""

    overlap: bool = True


class Profile(VersionedFile):
    """A model profiled layer by layer on one device.

    Attributes:
        model: The model's name.
        micro_batch: Samples of the micro-batch that was measured.
        device: What it was measured on, `cpu` or `cuda`.
        dtype: The type that matrix products and convolutions compute in.
        layers: Every layer in order, with its `name`, `forward_seconds`, `backward_seconds`,
            `output_bytes`, `parameter_bytes` and `activation_bytes`.
        link: The median over the pairs of neighbouring ranks that were measured.
        links: All pairs in order of ranks.
        environment: The machine and the software that the times depend on.
        memory_format: The order of images in memory.
        train_samples: Training samples of the whole data set; None in profiles that were imported
            or made in a script.
        test_samples: Test samples, likewise.
        inputs: What the model's inputs look like; None in imported profiles.
    """

    kind: ClassVar[str] = "profile"

    model: str
    micro_batch: int = Field(gt=0)
    device: str
    dtype: str
    layers: tuple[LayerProfile, ...] = Field(min_length=1)
    link: LinkProfile
    links: tuple[Link, ...] = ()
    environment: dict[str, object] = Field(default_factory=dict)
    memory_format: MemoryFormat = "contiguous"
    train_samples: int | None = Field(default=None, gt=0)
    test_samples: int | None = Field(default=None, ge=0)
    inputs: dict[str, object] | None = None
