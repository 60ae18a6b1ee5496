"""Errors of a training, described in one sentence that names stage, micro-batch and layer."""

from dataclasses import dataclass

from torch import nn

from hpc_lpm.activation import Activation, device_of
from hpc_lpm.engine.fault_search import (
    first_non_finite,
    layer_changing_input,
    layer_failing_backward,
    layer_in_traceback,
)
from hpc_lpm.errors import InputError, TrainingError
from hpc_lpm.models.compute_format import PLAIN, ComputeFormat
from hpc_lpm.models.layered import LayeredModel

_LONGEST_QUOTE = 300
_OUT_OF_PLACE = "a layer must not change its input or what autograd has kept: make it out of place"


class NonFiniteLossError(TrainingError):
    """The loss of a micro-batch is infinite or not a number; `step` counts from 0."""

    def __init__(self, step: int, value: float) -> None:
        super().__init__(
            f"step {step}: the loss is {value}: lower --lr or look for such values in the data."
        )
        self.step = step
        self.value = value


class ChangedInputError(Exception):
    """A stage has changed its own input in place."""


class BoundaryError(Exception):
    """What crosses a boundary between stages is not what was agreed, or does not come in time.

    `layer` is the index of the layer that is to blame, None if it is not known.
    """

    def __init__(self, problem: str, layer: int | None = None) -> None:
        super().__init__(problem)
        self.layer = layer

    @classmethod
    def silence(cls, rank: int, seconds: float) -> "BoundaryError":
        """Return the error for a rank that has neither sent nor taken anything within the limit."""
        return cls(
            f"no word from rank {rank} for {seconds:g} s: it, or a stage behind it, hangs or is "
            "gone; raise --receive-timeout if it is only slow"
        )


@dataclass(frozen=True)
class Faults:
    """Describes the errors of one rank; `stage` is None if the model is not partitioned."""

    model: LayeredModel
    layers: dict[int, nn.Module]
    rank: int
    stage: int | None = None
    compute_format: ComputeFormat = PLAIN

    def describe(
        self, error: Exception, micro_batch: str, inputs: Activation | None = None
    ) -> TrainingError:
        """Return the exception to raise in place of `error`.

        Args:
            error: the exception that was raised.
            micro_batch: what to call the micro-batch, such as `micro-batch 37`.
            inputs: the inputs of the first layer, if the layers may be run again to find the one
                that is to blame.
        """
        # The search runs layers again, which must see what they saw.
        with self.compute_format.autocast(device_of(inputs)):
            layer, problem = self._layer_and_problem(error, inputs)
        where = [f"rank {self.rank}", micro_batch]
        if self.stage is not None:
            where[0] = f"stage {self.stage} (rank {self.rank})"
        if isinstance(error, NonFiniteLossError):
            where.insert(1, f"step {error.step}")
        if layer is not None:
            where.append(f"layer {layer} {self.model.layers[layer].name}")
        return TrainingError(f"{', '.join(where)}: {problem}.")

    def _layer_and_problem(
        self, error: Exception, inputs: Activation | None
    ) -> tuple[int | None, str]:
        match error:
            case NonFiniteLossError():
                found = None if inputs is None else first_non_finite(self.layers, inputs)
                layer, because = (found[0], f" and {found[1]}") if found else (None, "")
                advice = "lower --lr or look for such values in the data"
                return layer, f"the loss is {error.value}{because}: {advice}"
            case ChangedInputError():
                layer = None if inputs is None else layer_changing_input(self.layers, inputs)
                return layer, f"it changes its input in place: {_OUT_OF_PLACE}"
            case BoundaryError():
                return error.layer, str(error)
            # Of a sample, a loss, a metric or a log: it says by itself what to do.
            case InputError() | TrainingError():
                return None, str(error).rstrip(".")
        layer = layer_in_traceback(self.layers, error.__traceback__)
        if layer is None and inputs is not None:
            layer = layer_failing_backward(self.layers, inputs)
        quote = " ".join(str(error).split())[:_LONGEST_QUOTE].rstrip(".")
        in_place = "in-place operation" in quote or "inplace operation" in quote
        advice = _OUT_OF_PLACE if in_place else "--debug shows the traceback"
        return layer, f"{type(error).__name__}: {quote}: {advice}"
