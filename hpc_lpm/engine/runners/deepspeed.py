"""Runs DeepSpeed's own 1F1B pipeline, unmodified, with a plan's cuts."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.collectives import making_process_groups
from hpc_lpm.engine.faults import BoundaryError, Faults, NonFiniteLossError
from hpc_lpm.engine.job import MpiJob
from hpc_lpm.engine.optimizer import build_optimizer, build_scheduler
from hpc_lpm.engine.pipeline.boundary import probe_boundaries
from hpc_lpm.engine.pipeline.engine import deepspeed_config
from hpc_lpm.engine.pipeline.gradient_average import average_buffers
from hpc_lpm.engine.pipeline.module import PlannedModule
from hpc_lpm.engine.pipeline.process_group import join_process_group
from hpc_lpm.engine.runners.deepspeed_crossing import adapt_crossing
from hpc_lpm.engine.runners.runner import RunContext, TrainedState
from hpc_lpm.engine.topology import find_rank_locations
from hpc_lpm.errors import InputError
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
    """One stage of DeepSpeed's PipelineEngine, whose instructions are timed but not changed.

    A tuple that crosses a boundary is packed into one tensor, because DeepSpeed runs backward once
    for each tensor of a tuple, which would take it almost twice the time.
    """

    def __init__(self, context: RunContext) -> None:
        settings, job = context.settings, context.job
        assert isinstance(job, MpiJob)
        join_process_group(job, context.device)
        import deepspeed

        if context.device.type == "cuda" and not find_rank_locations(job, context.device).own_gpus:
            raise InputError(
                "--strategy deepspeed-1f1b needs a GPU for every rank, since NCCL refuses ranks "
                "that share one: start as many ranks on a node as it has GPUs, or hide the GPUs "
                "with CUDA_VISIBLE_DEVICES= to train on CPUs."
            )
        cuts = context.required_plan().cuts
        self._context = context
        with making_process_groups(job):
            self._module = PlannedModule(
                context.build_layers(), cuts, context.model.loss, context.compute_format
            )
        self._module.loss_fn = self._loss_or_correct
        self._loss = context.compute_format.loss(context.model.loss)
        self._faults = Faults(
            context.model,
            self._module.local_layers(),
            job.rank,
            stage=context.topology.stage,
            compute_format=context.compute_format,
        )
        if settings.clip_norm is not None:
            _count_in_global_norm(self._module)
        self._optimizer = build_optimizer(self._module.parameters(), settings.optimizer)
        self._scheduler = build_scheduler(self._optimizer, settings.learning_rate, context.updates)
        with making_process_groups(job):
            self._engine, *_ = deepspeed.initialize(
                model=self._module,
                optimizer=self._optimizer,
                lr_scheduler=self._scheduler,
                config=deepspeed_config(context, settings.clip_norm or 0.0),
            )
        self._module.arrange()
        boundaries = probe_boundaries(
            self._module,
            context.model,
            [context.micro_batch_size],
            context.dataset.shape,
            job,
            context.topology,
            context.device,
        )
        adapt_crossing(
            self._module,
            boundaries.incoming.get(context.micro_batch_size),
            boundaries.outgoing.get(context.micro_batch_size),
        )
        self._gradient_bytes = sum(p.numel() * p.element_size() for p in self._module.parameters())
        self._bytes_sent = 0
        self._done: Counter[Callable[..., None]] = Counter()
        self._clock_instructions()

    def train(self, batches: MicroBatches) -> None:
        """Train on this replica's share step by step; DeepSpeed drains after every step."""
        replicas = self._context.replicas
        self._share = batches.share(self._context.topology.replica, replicas)
        stream = self._stream(self._share)
        self._done.clear()
        step_micro_batches = self._context.settings.micro_batches * replicas
        for step, first in enumerate(range(0, len(batches), step_micro_batches)):
            self._begin_step(step)
            if step == self._context.agreement.end:
                break
            loss = self._engine.train_batch(data_iter=stream)
            if self._engine.is_last_stage():
                self._add_loss(loss, batches.first_index + first, step_micro_batches)
            # The bytes that a ring all-reduce of the gradients sends.
            self._bytes_sent += self._gradient_bytes * 2 * (replicas - 1) // replicas
            self._context.recorder.end_step()

    def evaluate(self, batches: MicroBatches) -> int:
        """Return the correct predictions in this replica's share on the last stage, 0 on others."""
        topology = self._context.topology
        share = batches.share(topology.replica, topology.replicas)
        if topology.replicas > 1:
            group = self._module.mpu().get_data_parallel_group()
            average_buffers(self._module, group, topology.replicas)
        counts = self._engine.eval_batch(
            data_iter=self._stream(share),
            reduce_output=None,
            bcast_loss=False,
            num_micro_batches=len(share),
        )
        return int(sum(counts)) if self._engine.is_last_stage() else 0

    def state(self) -> TrainedState:
        """Return the layers, optimizer and scheduler of this stage."""
        return TrainedState(
            self._module.local_layers(),
            self._optimizer,
            self._scheduler,
            self._context.topology.replica,
        )

    def bytes_sent(self) -> int:
        """Return the bytes sent to neighbouring stages and replicas while training."""
        return self._bytes_sent

    def _begin_step(self, step: int) -> None:
        try:
            self._context.agreement.begin_step(step)
        except BoundaryError as error:
            raise self._faults.describe(error, f"step {step} of the segment") from error

    def _add_loss(self, loss: Tensor, first: int, count: int) -> None:
        try:
            self._context.recorder.add_loss(loss, self._context.settings.batch_size)
        except NonFiniteLossError as error:
            last = first + count - 1
            raise self._faults.describe(error, f"micro-batches {first} to {last}") from error

    def _loss_or_correct(self, outputs: Tensor, targets: Tensor) -> Tensor:
        # DeepSpeed's evaluation returns the values of the loss function, so predictions are counted
        # here.
        if self._module.training:
            return self._loss(outputs, targets)
        return self._context.model.correct(outputs, targets).float()

    def _stream(self, batches: MicroBatches) -> Iterator[tuple[Tensor, Tensor]]:
        size = self._context.micro_batch_size
        for n in range(len(batches)):
            yield (
                self._context.compute_format.arranged(_padded(batches.inputs(n), size, 0)),
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
                named = f"micro-batch {self._share.number(self._done[execute])}"
                raise self._faults.describe(error, named) from error
            # Micro-batches pass in order, so an instruction's count is its micro-batch's number.
            self._context.recorder.add(kind, self._done[execute], start)
            self._done[execute] += 1

        return run


def _count_in_global_norm(module: nn.Module) -> None:
    """Make DeepSpeed count these parameters' gradients in the norm that it clips by.

    Of the parameters without this mark it counts only those of the first stage
    (`deepspeed.runtime.utils.clip_grad_norm_`), as if all stages held copies of the same ones.
    """
    for parameter in module.parameters():
        parameter.model_parallel = True  # type: ignore[attr-defined]


def _bytes_to_send(engine: Any, method: str, buffer_id: int) -> int:
    if method == "_exec_send_activations":
        crossing = as_tuple(engine.pipe_buffers["outputs"][buffer_id])
    else:
        # A gradient is as large as the input that it belongs to.
        crossing = as_tuple(engine.pipe_buffers["inputs"][buffer_id])
    return sum(tensor.numel() * tensor.element_size() for tensor in crossing)


def _padded(tensor: Tensor, size: int, value: int) -> Tensor:
    """Pad the tensor to at least `size` rows, because DeepSpeed sends tensors of a fixed shape."""
    missing = size - len(tensor)
    if missing == 0:
        return tensor
    return torch.cat([tensor, tensor.new_full((missing, *tensor.shape[1:]), value)])
