"""DeepSpeed's own 1F1B pipeline, as it comes, with a plan's cuts."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.faults import Faults, NonFiniteLossError
from hpc_lpm.engine.job import MpiJob
from hpc_lpm.engine.optimizer import build_optimizer
from hpc_lpm.engine.pipeline.boundary import BoundarySpec, probe_boundaries
from hpc_lpm.engine.pipeline.engine import deepspeed_config
from hpc_lpm.engine.pipeline.module import PlannedModule
from hpc_lpm.engine.pipeline.process_group import join_process_group
from hpc_lpm.engine.runner import RunContext
from hpc_lpm.models.layered import as_tuple

_KINDS = {
    "LoadMicroBatch": "load",
    "ForwardPass": "forward",
    "BackwardPass": "backward",
    "OptimizerStep": "update",
    "SendActivation": "send",
    "SendGrad": "send",
    "RecvActivation": "receive",
    "RecvGrad": "receive",
}
_NO_CLASS = -1


class StockPipelineRunner:
    """One stage of DeepSpeed's PipelineEngine; only clocks are put around its instructions.

    A tuple that crosses a boundary is packed into one tensor: DeepSpeed runs backward once for
    each tensor of a tuple, which would cost it almost twice the time.
    """

    def __init__(self, context: RunContext) -> None:
        settings, job = context.settings, context.job
        assert isinstance(job, MpiJob)
        join_process_group(job, context.device)
        import deepspeed

        cuts = context.required_plan().cuts
        self._context = context
        self._module = PlannedModule(context.model, cuts, settings.seed)
        self._module.loss_fn = self._loss_or_correct
        self._faults = Faults(context.model, self.layers(), job.rank, stage=job.rank)
        self._first_index = 0
        boundaries = probe_boundaries(
            self._module,
            context.model,
            [settings.micro_batch_size],
            context.dataset.shape,
            job,
            job.rank,
            len(cuts) - 1,
            context.device,
        )
        _pack_tuples(
            self._module,
            boundaries.incoming.get(settings.micro_batch_size),
            boundaries.outgoing.get(settings.micro_batch_size),
        )
        self._engine, *_ = deepspeed.initialize(
            model=self._module,
            optimizer=build_optimizer(self._module.parameters(), settings.optimizer),
            config=deepspeed_config(context),
        )
        self._bytes_sent = 0
        self._done: Counter[Callable[..., None]] = Counter()
        self._clock_instructions()

    def train(self, batches: MicroBatches) -> None:
        """Train batch after batch; DeepSpeed drains after each."""
        stream = self._stream(batches)
        self._done.clear()
        micro_batches = self._context.settings.micro_batches
        self._first_index = batches.first_index
        for step in range(len(batches) // micro_batches):
            loss = self._engine.train_batch(data_iter=stream)
            if self._engine.is_last_stage():
                self._add_loss(loss, batches.first_index + step * micro_batches)
            self._context.recorder.end_step()

    def evaluate(self, batches: MicroBatches) -> int:
        """Return the right predictions on the last stage, 0 elsewhere."""
        counts = self._engine.eval_batch(
            data_iter=self._stream(batches),
            reduce_output=None,
            bcast_loss=False,
            num_micro_batches=len(batches),
        )
        return int(sum(counts)) if self._engine.is_last_stage() else 0

    def layers(self) -> dict[int, nn.Module]:
        """Return this stage's layers."""
        return self._module.local_layers()

    def bytes_sent(self) -> int:
        """Return the bytes of activations and gradients sent while training."""
        return self._bytes_sent

    def _add_loss(self, loss: Tensor, first: int) -> None:
        try:
            self._context.recorder.add_loss(loss)
        except NonFiniteLossError as error:
            last = first + self._context.settings.micro_batches - 1
            raise self._faults.describe(error, f"micro-batches {first} to {last}") from error

    def _loss_or_correct(self, outputs: Tensor, targets: Tensor) -> Tensor:
        # DeepSpeed's evaluation hands on what the loss function returns, so it counts there.
        model = self._context.model
        if self._module.training:
            return model.loss(outputs, targets)
        return model.correct(outputs, targets).float()

    def _stream(self, batches: MicroBatches) -> Iterator[tuple[Tensor, Tensor]]:
        size = self._context.settings.micro_batch_size
        for n in range(len(batches)):
            yield (
                _padded(batches.inputs(n), size, 0),
                _padded(batches.targets(n), size, _NO_CLASS),
            )

    def _clock_instructions(self) -> None:
        clocked = {}
        for instruction, execute in self._engine._INSTRUCTION_MAP.items():
            kind = _KINDS.get(instruction.__name__)
            clocked[instruction] = self._clocked(execute, kind) if kind else execute
        self._engine._INSTRUCTION_MAP = clocked

    def _clocked(self, execute: Callable[..., None], kind: str) -> Callable[..., None]:
        def run(engine: Any, **arguments: int) -> None:
            if not engine.module.training:
                execute(engine, **arguments)
                return
            if kind == "send":
                self._bytes_sent += _bytes_to_send(engine, execute.__name__, **arguments)
            start = self._context.recorder.start()
            try:
                execute(engine, **arguments)
            except Exception as error:
                named = f"micro-batch {self._first_index + self._done[execute]}"
                raise self._faults.describe(error, named) from error
            # Micro-batches pass in order, so the count of an instruction is its micro-batch.
            self._context.recorder.add(kind, self._done[execute], start)
            self._done[execute] += 1

        return run


def _bytes_to_send(engine: Any, method: str, buffer_id: int) -> int:
    if method == "_exec_send_activations":
        crossing = as_tuple(engine.pipe_buffers["outputs"][buffer_id])
    else:
        crossing = as_tuple(engine.pipe_buffers["inputs"][buffer_id])  # gradients are as large
    return sum(tensor.numel() * tensor.element_size() for tensor in crossing)


def _padded(tensor: Tensor, size: int, value: int) -> Tensor:
    """Return the tensor with at least `size` rows: stock DeepSpeed fixes the shapes it sends."""
    missing = size - len(tensor)
    if missing == 0:
        return tensor
    return torch.cat([tensor, tensor.new_full((missing, *tensor.shape[1:]), value)])


def _pack_tuples(
    module: PlannedModule, incoming: BoundarySpec | None, outgoing: BoundarySpec | None
) -> None:
    if outgoing is not None and outgoing.packed:
        module.forward_funcs.append(_pack)
    if incoming is not None and incoming.packed:
        module.forward_funcs.insert(0, _Unpack(incoming))


def _pack(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([tensor.flatten(1) for tensor in tensors], dim=1)


class _Unpack:
    def __init__(self, spec: BoundarySpec) -> None:
        self._shapes = [tensor.shape[1:] for tensor in spec.tensors]
        self._widths = [int(torch.Size(shape).numel()) for shape in self._shapes]

    def __call__(self, packed: Tensor) -> tuple[Tensor, ...]:
        parts = torch.split(packed, self._widths, dim=1)
        return tuple(
            part.reshape(len(packed), *shape).contiguous()
            for part, shape in zip(parts, self._shapes, strict=True)
        )
