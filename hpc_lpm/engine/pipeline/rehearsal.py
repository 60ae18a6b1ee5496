"""The rehearsal of a pipeline, which finds out what crosses the boundaries of its stages."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hpc_lpm.activation import Activation, copied, moved, tensors_of, versions_of
from hpc_lpm.engine.evaluation import score
from hpc_lpm.engine.faults import BoundaryError, Faults
from hpc_lpm.engine.job import Job
from hpc_lpm.engine.pipeline.boundary import Boundary, BoundarySpec, StageBoundaries, TensorSpec
from hpc_lpm.engine.pipeline.derived_weights import keeps_derived_weights
from hpc_lpm.engine.pipeline.held_stage import HeldStage
from hpc_lpm.engine.pipeline.weight_policy import unchanged
from hpc_lpm.engine.rehearsal import RehearsedPass, rehearse_backward, rehearsing
from hpc_lpm.engine.runners.runner import RunContext
from hpc_lpm.models.evaluation_metrics import EvaluationMetric


class PipelineRehearsal:
    """Passes real samples through the pipeline, stage by stage, before it trains on their number.

    Args:
        module: has the layers of all stages that this rank holds.
        stages: these, in order.
        context: of the run.
        reads_anew: tells of a tensor that a graph keeps if the weight policy computes it anew in
            the backward pass; None if nothing derived from weights is to be found.
        varies: True if boundaries are to be taken as varying, whatever the rehearsal finds.

    Attributes:
        stages: what was found out about each stage that this rank holds, in order.
    """

    def __init__(
        self,
        module: nn.Module,
        stages: Sequence[HeldStage],
        context: RunContext,
        reads_anew: Callable[[Tensor], bool] | None = None,
        *,
        varies: bool = False,
    ) -> None:
        self._module = module
        messages = _Messages(context.job)
        self.stages = [
            StageRehearsal(stage, context, messages, reads_anew, varies=varies) for stage in stages
        ]

    def rehearse(
        self, passes: Iterable[RehearsedPass], metrics: Sequence[EvaluationMetric]
    ) -> None:
        """Run some passes; every rank must call this with the same ones (collective).

        Raises:
            TrainingError: if a layer raises anything, or the stage before sends nothing in time.
        """
        layers = [layer for each in self.stages for layer in each.stage.layers.values()]
        for rehearsed in passes:
            with rehearsing(self._module, layers, training=rehearsed.training):
                for stage in self.stages:
                    stage.forward(rehearsed, metrics)
                for stage in reversed(self.stages):
                    stage.backward()


@dataclass(frozen=True)
class _Passing:
    """A rehearsed pass on its way through one stage."""

    rehearsed: RehearsedPass
    inputs: Activation
    outputs: Activation
    entering: BoundarySpec | None
    leaving: BoundarySpec | None


class StageRehearsal:
    """Rehearses one stage.

    `boundaries` is what crosses, `deriving` are the stage's layers whose graph keeps something that
    was computed from their weights, and `changes_inputs` tells if a layer changes what the stage is
    given in place. What a graph keeps of buffers that passes change is told to the stage's calls.
    """

    def __init__(
        self,
        stage: HeldStage,
        context: RunContext,
        messages: "_Messages",
        reads_anew: Callable[[Tensor], bool] | None,
        *,
        varies: bool,
    ) -> None:
        self.stage = stage
        self._place, self._layers, self._calls = stage.place, dict(stage.layers), stage.calls
        self._messages = messages
        self._context = context
        self._reads_anew = reads_anew
        self._faults = Faults(
            context.model,
            self._layers,
            context.job.rank,
            stage=self._place.stage,
            compute_format=context.compute_format,
        )
        self.deriving: set[int] = set()
        self.changes_inputs = False
        self._kept: set[int] = set()
        self._incoming, self._outgoing = Boundary(varies=varies), Boundary(varies=varies)
        self.boundaries = StageBoundaries(self._incoming, self._outgoing)
        self._passing: _Passing | None = None

    def forward(self, rehearsed: RehearsedPass, metrics: Sequence[EvaluationMetric]) -> None:
        """Run the stage forward and hand on what it returns.

        Raises:
            TrainingError: if a layer raises anything, or the stage before sends nothing in time.
        """
        try:
            self._passing = self._forward(rehearsed, metrics)
        except Exception as error:
            raise self._faults.describe(error, rehearsed.name) from error

    def backward(self) -> None:
        """Run the stage backward where it trains, and take note of what has crossed.

        Raises:
            TrainingError: if a layer raises anything, or the stage after sends nothing in time.
        """
        assert self._passing is not None
        passing, self._passing = self._passing, None
        rehearsed, entering, leaving = passing.rehearsed, passing.entering, passing.leaving
        try:
            if rehearsed.training:
                entering, leaving = self._backward(passing)
        except Exception as error:
            raise self._faults.describe(error, rehearsed.name) from error
        self._incoming.add(entering, training=rehearsed.training, samples=rehearsed.samples)
        self._outgoing.add(leaving, training=rehearsed.training, samples=rehearsed.samples)

    def _forward(self, rehearsed: RehearsedPass, metrics: Sequence[EvaluationMetric]) -> _Passing:
        entering = leaving = None
        if self._place.previous_rank is None:
            inputs = self._context.compute_format.arranged(
                moved(rehearsed.inputs(), self._context.device)
            )
        else:
            entering, tensors = self._messages.receive(self._place.previous_rank)
            on_device = [tensor.to(self._context.device) for tensor in tensors]
            inputs = entering.activation(on_device, training=rehearsed.training)
        copies = copied(inputs, keep_history=True)
        versions = versions_of(copies)
        outputs = self._outputs(rehearsed, copies)
        self.changes_inputs |= versions_of(copies) != versions
        if self._place.next_rank is not None:
            leaving = BoundarySpec.of(outputs)
            tensors = [tensor.detach().cpu() for tensor in tensors_of(outputs)]
            self._messages.send((leaving, tensors), self._place.next_rank)
        elif not rehearsed.training:
            score(
                self._context.model,
                self._calls,
                self._context.compute_format,
                outputs,
                moved(rehearsed.targets(), self._context.device),
                rehearsed.samples,
                metrics,
            )
        return _Passing(rehearsed, inputs, outputs, entering, leaving)

    def _backward(self, passing: _Passing) -> tuple[BoundarySpec | None, BoundarySpec | None]:
        """Run backward, and return both specs with the layouts that gradients turn out to have."""
        entering, leaving, outputs = passing.entering, passing.leaving, passing.outputs
        if leaving is None:
            targets = moved(passing.rehearsed.targets(), self._context.device)
            compute_loss = self._context.compute_format.loss(self._context.model.loss)
            loss = self._calls.loss(compute_loss, outputs, targets)
            roots = [(loss, torch.ones_like(loss))]
        else:
            assert self._place.next_rank is not None
            found = self._messages.receive(self._place.next_rank)
            leaving = leaving.with_gradients(found)
            roots = [
                (tensor, spec.of_gradient().ones(self._context.device))
                for spec, tensor in zip(leaving.tensors, tensors_of(outputs), strict=True)
                if spec.requires_gradient
            ]
        gradients = rehearse_backward(self._layers, roots, passing.inputs)
        if entering is None:
            return entering, leaving
        specs = [None if gradient is None else TensorSpec.of(gradient) for gradient in gradients]
        assert self._place.previous_rank is not None
        self._messages.send(specs, self._place.previous_rank)
        return entering.with_gradients(specs), leaving

    def _outputs(self, rehearsed: RehearsedPass, inputs: Activation) -> Activation:
        calls = self._calls
        calls.number, calls.training = rehearsed.number, rehearsed.training
        with self._context.compute_format.autocast(self._context.device):
            if not rehearsed.training:
                return calls.run(inputs)
            buffers = {
                (index, path, name): buffer
                for index, layer in self._layers.items()
                for path, part in layer.named_modules()
                for name, buffer in part.named_buffers(recurse=False)
            }
            versions = {place: buffer._version for place, buffer in buffers.items()}
            with torch.autograd.graph.saved_tensors_hooks(self._note_kept, unchanged):
                outputs = calls.run(inputs, self._call_and_search if self._reads_anew else None)
            calls.replaced_buffers |= {
                place
                for place, buffer in buffers.items()
                if buffer._version != versions[place] and _address(buffer) in self._kept
            }
            return outputs

    def _note_kept(self, tensor: Tensor) -> Tensor:
        self._kept.add(_address(tensor))
        return tensor

    def _call_and_search(self, index: int, layer: nn.Module, inputs: Activation) -> Activation:
        assert self._reads_anew is not None
        outputs, found = keeps_derived_weights(layer, inputs, self._reads_anew, self._note_kept)
        if found:
            self.deriving.add(index)
        return outputs


class _Messages:
    """The messages of the rehearsals of one rank's stages, in the order of sending."""

    def __init__(self, job: Job) -> None:
        self._job, self._tag = job, job.own_tag()
        self._kept_here: deque[Any] = deque()

    def send(self, what: object, rank: int) -> None:
        """Send something to a rank, which may be this one."""
        if rank == self._job.rank:
            self._kept_here.append(what)
        else:
            self._job.send(what, rank, self._tag)

    def receive(self, rank: int) -> Any:
        """Return the next thing that a rank sends.

        Raises:
            BoundaryError: if it does not come in time.
        """
        if rank == self._job.rank:
            return self._kept_here.popleft()
        try:
            return self._job.receive(rank, self._tag)
        except TimeoutError:
            raise BoundaryError.silence(rank, self._job.limit_seconds) from None


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
