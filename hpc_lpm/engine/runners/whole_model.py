"""The uncut model on one device, which sequential training and data-parallel replicas use."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from hpc_lpm.activation import Activation, moved
from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.evaluation import MicroBatchScores, score
from hpc_lpm.engine.faults import Faults, NonFiniteLossError
from hpc_lpm.engine.rehearsal import RehearsedPass, rehearse_backward, rehearsing
from hpc_lpm.engine.runners.runner import RunContext
from hpc_lpm.engine.ties import TiedParameters
from hpc_lpm.models.evaluation_metrics import EvaluationMetric
from hpc_lpm.models.layer_calls import LayerCalls


class WholeModel:
    """All layers on this rank's device, run forward and backward one micro-batch at a time.

    Args:
        context: the context of the run.
    """

    def __init__(self, context: RunContext) -> None:
        self._context = context
        model = context.model
        self._format = context.compute_format
        self.layers = context.build_layers()
        self._calls = LayerCalls(self.layers, context.settings.seed, context.device)
        self.module = nn.Sequential(*self.layers.values())
        self.tied = TiedParameters(model.ties, self.layers, device_of=lambda layer: 0)
        self._format.arrange(self.module)
        self._faults = Faults(model, self.layers, context.job.rank, compute_format=self._format)
        self.run_layers: Callable[[Activation], Activation] = self._calls.run
        """Runs all layers; an engine may put a module of its own around `as_module`."""
        self.unused: set[nn.Parameter] = set()
        """The parameters that had no gradient in a rehearsed pass."""
        self.sparse: set[nn.Parameter] = set()
        """The parameters that had a sparse gradient in one."""
        self.searchable = True
        """Whether layers can be run again to find the one to blame, which needs all weights."""

    def as_module(self, around: Mapping[int, nn.Module] | None = None) -> nn.Module:
        """Return all layers as one module, which draws the random numbers of a micro-batch.

        Args:
            around: modules that are called in place of layers, by the index of the layer.
        """
        if around is None:
            return _RunLayers(self.module, self._calls)
        called = {index: around.get(index, layer) for index, layer in self.layers.items()}
        return _RunLayersWithin(called, self._calls)

    def rehearse(
        self, passes: Iterable[RehearsedPass], metrics: Sequence[EvaluationMetric]
    ) -> None:
        """Run passes that leave no trace, to find mistakes of the model before it trains.

        Raises:
            TrainingError: if a layer, the loss or a metric fails.
        """
        for rehearsed in passes:
            try:
                layers = self.layers.values()
                with rehearsing(self.module, layers, training=rehearsed.training):
                    inputs = self._format.arranged(moved(rehearsed.inputs(), self._context.device))
                    targets = moved(rehearsed.targets(), self._context.device)
                    outputs = self._run(inputs, rehearsed.number)
                    if rehearsed.training:
                        loss = self._loss(outputs, targets)
                        roots = [(loss, torch.ones_like(loss))]
                        rehearse_backward(self.layers, roots, inputs, self.unused, self.sparse)
                    else:
                        self._score(outputs, targets, rehearsed.samples, metrics)
            except Exception as error:
                raise self._faults.describe(error, rehearsed.name) from error

    def _run(self, inputs: Activation, number: int) -> Activation:
        self._calls.number, self._calls.training = number, self.module.training
        with self._format.autocast(self._context.device):
            return self.run_layers(inputs)

    def _loss(self, outputs: Activation, targets: Activation) -> Tensor:
        return self._calls.loss(self._format.loss(self._context.model.loss), outputs, targets)

    def forward_backward(self, batches: MicroBatches, n: int, replicas: int = 1) -> None:
        """Run micro-batch `n` forward and backward, and accumulate its gradients.

        They are scaled for an average over the `replicas` afterwards.

        Raises:
            TrainingError: if a layer fails or the loss is not finite.
        """
        number = batches.first_index + n
        named = f"micro-batch {number}"
        recorder = self._context.recorder
        start = recorder.start()
        try:
            inputs, targets = self._inputs(batches, n), self._targets(batches, n)
        except Exception as error:
            raise self._faults.describe(error, named, None) from error
        recorder.add("load", number, start)
        try:
            self._forward_backward(batches, n, replicas, inputs, targets)
        except Exception as error:
            # A replica's weights have hooks that another backward pass would trigger.
            alone = self._context.job.size == 1 or isinstance(error, NonFiniteLossError)
            searchable = self.searchable and alone
            # Loaded again, since layers may have changed them in place.
            searched = self._arranged(batches.inputs(n)) if searchable else None
            raise self._faults.describe(error, named, searched) from error

    def _forward_backward(
        self,
        batches: MicroBatches,
        n: int,
        replicas: int,
        inputs: Activation,
        targets: Activation,
    ) -> None:
        recorder = self._context.recorder
        start = recorder.start()
        loss = self._loss(self._run(inputs, batches.number(n)), targets)
        recorder.add("forward", batches.first_index + n, start)
        recorder.add_loss(loss, batches.size(n))
        start = recorder.start()
        if loss.requires_grad:
            torch.autograd.backward(loss / (batches.loss_divisor(n) / replicas))
        recorder.add("backward", batches.first_index + n, start)

    def _inputs(self, batches: MicroBatches, n: int) -> Activation:
        return self._arranged(self._context.loading.inputs(batches, n))

    def _targets(self, batches: MicroBatches, n: int) -> Activation:
        return moved(self._context.loading.targets(batches, n), self._context.device)

    def _arranged(self, loaded: Activation) -> Activation:
        return self._format.arranged(moved(loaded, self._context.device))

    @torch.no_grad()
    def evaluate(
        self,
        batches: MicroBatches,
        numbers: Iterable[int],
        metrics: Sequence[EvaluationMetric],
    ) -> list[MicroBatchScores]:
        """Return the scores of these micro-batches.

        Raises:
            TrainingError: if a layer, the loss or a metric fails.
        """
        self.module.eval()
        scores = []
        for n in numbers:
            inputs = None
            try:
                inputs = self._inputs(batches, n)
                outputs = self._run(inputs, batches.number(n))
                targets = self._targets(batches, n)
                scores.append(self._score(outputs, targets, batches.size(n), metrics))
            except Exception as error:
                named = f"evaluation micro-batch {batches.number(n)}"
                searched = inputs if self.searchable else None
                raise self._faults.describe(error, named, searched) from error
        return scores

    def _score(
        self,
        outputs: Activation,
        targets: Activation,
        samples: int,
        metrics: Sequence[EvaluationMetric],
    ) -> MicroBatchScores:
        model = self._context.model
        return score(model, self._calls, self._format, outputs, targets, samples, metrics)


class _RunLayers(nn.Module):
    def __init__(self, layers: nn.Module, calls: LayerCalls) -> None:
        super().__init__()
        self.layers = layers
        self._calls = calls

    def forward(self, inputs: Activation) -> Activation:
        return self._calls.run(inputs)


class _RunLayersWithin(nn.Module):
    def __init__(self, called: Mapping[int, nn.Module], calls: LayerCalls) -> None:
        super().__init__()
        self.called = nn.ModuleList(called.values())
        self._called = dict(called)
        self._calls = calls

    def forward(self, inputs: Activation) -> Activation:
        return self._calls.run(inputs, self._call)

    def _call(self, index: int, layer: nn.Module, activation: Activation) -> Activation:
        found: Activation = self._called[index](activation)
        return found
