"""The rehearsal of a pipeline, which finds out what crosses the boundaries of its stages."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hpc_lpm.activation import Activation, copied, moved, tensors_of, versions_of
from hpc_lpm.engine.evaluation import score
from hpc_lpm.engine.faults import BoundaryError, Faults
from hpc_lpm.engine.pipeline.boundary import Boundary, BoundarySpec, StageBoundaries, TensorSpec
from hpc_lpm.engine.pipeline.derived_weights import keeps_derived_weights
from hpc_lpm.engine.pipeline.stage_module import StageModule
from hpc_lpm.engine.pipeline.weight_policy import unchanged
from hpc_lpm.engine.rehearsal import RehearsedPass, rehearse_backward, rehearsing
from hpc_lpm.engine.runners.runner import RunContext
from hpc_lpm.models.evaluation_metrics import EvaluationMetric


class PipelineRehearsal:
    """Passes real samples through the pipeline, stage by stage, before it trains on their number.

    `boundaries` is what crosses, `deriving` are the stage's layers whose graph keeps something that
    was computed from their weights, and `changes_inputs` tells if a layer changes what the stage is
    given in place. What a graph keeps of buffers that passes change is told to the module's calls.

    Args:
        module: the stage.
        context: of the run.
        reads_anew: tells of a tensor that a graph keeps if the weight policy computes it anew in
            the backward pass; None if nothing derived from weights is to be found.
        varies: True if boundaries are to be taken as varying, whatever the rehearsal finds.
    """

    def __init__(
        self,
        module: StageModule,
        context: RunContext,
        reads_anew: Callable[[Tensor], bool] | None = None,
        *,
        varies: bool = False,
    ) -> None:
        job = context.job
        self._job, self._tag = job, job.own_tag()
        self._module = module
        self._context = context
        self._topology = context.topology
        self._layers = module.local_layers()
        self._reads_anew = reads_anew
        self._faults = Faults(
            context.model,
            self._layers,
            job.rank,
            stage=self._topology.stage,
            compute_format=context.compute_format,
        )
        self.deriving: set[int] = set()
        self.changes_inputs = False
        self._kept: set[int] = set()
        self._incoming, self._outgoing = Boundary(varies=varies), Boundary(varies=varies)
        self.boundaries = StageBoundaries(self._incoming, self._outgoing)

    def rehearse(
        self, passes: Iterable[RehearsedPass], metrics: Sequence[EvaluationMetric]
    ) -> None:
        """Run some passes; every stage must call this with the same ones (collective).

        Raises:
            TrainingError: if a layer raises anything, or the stage before sends nothing in time.
        """
        for rehearsed in passes:
            try:
                self._rehearse(rehearsed, metrics)
            except Exception as error:
                raise self._faults.describe(error, rehearsed.name) from error

    def _rehearse(self, rehearsed: RehearsedPass, metrics: Sequence[EvaluationMetric]) -> None:
        topology = self._topology
        is_first, is_last = topology.stage == 0, topology.stage == topology.stages - 1
        layers = self._layers.values()
        with rehearsing(self._module, layers, training=rehearsed.training):
            entering = leaving = None
            if is_first:
                inputs = self._context.compute_format.arranged(
                    moved(rehearsed.inputs(), self._context.device)
                )
            else:
                entering, tensors = self._receive(topology.previous_rank)
                on_device = [tensor.to(self._context.device) for tensor in tensors]
                inputs = entering.activation(on_device, training=rehearsed.training)
            copies = copied(inputs, keep_history=True)
            versions = versions_of(copies)
            outputs = self._outputs(rehearsed, copies)
            self.changes_inputs |= versions_of(copies) != versions
            if not is_last:
                leaving = BoundarySpec.of(outputs)
                tensors = [tensor.detach().cpu() for tensor in tensors_of(outputs)]
                self._send((leaving, tensors), topology.next_rank)
            elif not rehearsed.training:
                score(
                    self._context.model,
                    self._module.calls,
                    self._context.compute_format,
                    outputs,
                    moved(rehearsed.targets(), self._context.device),
                    rehearsed.samples,
                    metrics,
                )
            if rehearsed.training:
                entering, leaving = self._backward(rehearsed, inputs, entering, outputs, leaving)
            self._incoming.add(entering, training=rehearsed.training, samples=rehearsed.samples)
            self._outgoing.add(leaving, training=rehearsed.training, samples=rehearsed.samples)

    def _backward(
        self,
        rehearsed: RehearsedPass,
        inputs: Activation,
        entering: BoundarySpec | None,
        outputs: Activation,
        leaving: BoundarySpec | None,
    ) -> tuple[BoundarySpec | None, BoundarySpec | None]:
        """Run backward, and return both specs with the layouts that gradients turn out to have."""
        if leaving is None:
            targets = moved(rehearsed.targets(), self._context.device)
            compute_loss = self._context.compute_format.loss(self._context.model.loss)
            loss = self._module.calls.loss(compute_loss, outputs, targets)
            roots = [(loss, torch.ones_like(loss))]
        else:
            leaving = leaving.with_gradients(self._receive(self._topology.next_rank))
            roots = [
                (tensor, _ones(spec.of_gradient(), self._context.device))
                for spec, tensor in zip(leaving.tensors, tensors_of(outputs), strict=True)
                if spec.requires_gradient
            ]
        gradients = rehearse_backward(self._layers, roots, inputs)
        if entering is None:
            return entering, leaving
        specs = [None if gradient is None else TensorSpec.of(gradient) for gradient in gradients]
        self._send(specs, self._topology.previous_rank)
        return entering.with_gradients(specs), leaving

    def _outputs(self, rehearsed: RehearsedPass, inputs: Activation) -> Activation:
        calls = self._module.calls
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

    def _send(self, what: object, rank: int) -> None:
        self._job.send(what, rank, self._tag)

    def _receive(self, rank: int) -> Any:
        try:
            return self._job.receive(rank, self._tag)
        except TimeoutError:
            raise BoundaryError.silence(rank, self._job.limit_seconds) from None


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _ones(spec: TensorSpec, device: torch.device) -> Tensor:
    return spec.arrived(spec.crossing().empty(device).fill_(1))
