"""Run under mpirun -n 2: rank 0 stays away from each wait; rank 1 writes what it is told.

    limits_program.py WAIT ...

of barrier, gathering, broadcast, rehearsal, group, "new group", connection and agreement. "group"
comes first, if at all; after a "connection" or a "new group" the ranks are out of step, so it comes
last.
"""

import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta

import torch
import torch.distributed

from hpc_lpm.data.registry import load_dataset
from hpc_lpm.engine.collectives import making_process_groups
from hpc_lpm.engine.faults import BoundaryError
from hpc_lpm.engine.job import MpiJob
from hpc_lpm.engine.pipeline.held_stage import held_stages
from hpc_lpm.engine.pipeline.module import PlannedModule
from hpc_lpm.engine.pipeline.process_group import join_process_group, start_deepspeed
from hpc_lpm.engine.pipeline.rehearsal import PipelineRehearsal
from hpc_lpm.engine.pipeline.transport.channel import Circumstances
from hpc_lpm.engine.pipeline.transport.registry import open_channels
from hpc_lpm.engine.recorder import Recorder
from hpc_lpm.engine.rehearsal import passes_over
from hpc_lpm.engine.runners.runner import RunContext
from hpc_lpm.engine.settings import checked_settings
from hpc_lpm.engine.stop_agreement import StopAgreement
from hpc_lpm.engine.topology import PipelineTopology
from hpc_lpm.engine.updating import UpdatingBySettings
from hpc_lpm.errors import TrainingError
from hpc_lpm.models.compute_format import ComputeFormat
from hpc_lpm.models.layer_calls import LayerCalls
from hpc_lpm.models.registry import create_model
from hpc_lpm.planning.plan import Plan, StagePlan
from hpc_lpm.profiling.timer import ClockTimer
from hpc_lpm.schedules.placement import Placement
from hpc_lpm.stop_signals import StopSignals

LIMIT_SECONDS = 1.0


CPU = torch.device("cpu")
DATASET = load_dataset("digits,size=8")
CUTS = [0, 2, 4]


def begin_three_steps(agreement: StopAgreement) -> None:
    agreement.begin_segment(5)
    agreement.begin_step(0)  # of the first two steps all are sure
    try:
        agreement.begin_step(1)
    except BoundaryError as error:
        raise TrainingError(f"{error}.") from error


def wait_in_vain(job: MpiJob, where: str, other: Callable[[], object]) -> None:
    if where == "barrier":
        job.barrier()
    elif where == "gathering":
        job.all_gather(None)
    elif where == "broadcast":
        job.broadcast(None)
    elif where == "group":
        join_process_group(job, CPU)
    elif where == "connection":
        with ExitStack() as resources:
            circumstances = Circumstances(
                job,
                PipelineTopology(job.rank, Placement.in_a_loop(job.size), 1),
                (),
                CPU,
                False,
                job.limit_seconds,
                False,
                resources,
            )
            open_channels("torch", circumstances)
    elif where == "new group":
        with making_process_groups(job):
            torch.distributed.new_group([0, 1], timeout=timedelta(seconds=job.limit_seconds))
    else:
        other()


def wait(world: MpiJob, where: str) -> None:
    """Have rank 1 wait and say how that ended; rank 0 comes back once it has."""
    job = MpiJob(60)
    # What is left of a wait must not reach the next one.
    job.communicator = world.communicator.Dup()
    model = create_model("mlp,width=8", DATASET.shape)
    if where != "group":
        start_deepspeed(job, CPU)
        first = 2 * job.rank
        layers = {index: model.build_layer(index, 0) for index in range(first, first + 2)}
        calls = LayerCalls(layers, 0, CPU)
        module = PlannedModule(layers, CUTS, model.loss, ComputeFormat(), calls)
    agreement = StopAgreement(job, StopSignals())

    def rehearse() -> None:
        settings = checked_settings(
            model="mlp,width=8", dataset="digits,size=8", strategy="gpipe", batch_size=8, steps=1
        )
        recorder = Recorder(0, lambda *reported: None, ClockTimer())
        stages = [(0, 2), (2, 4)]
        plan = Plan(
            planner="by hand",
            model="mlp",
            stages=tuple(
                StagePlan(start=a, stop=b, compute_seconds=0, send_bytes=0, memory_bytes=0)
                for a, b in stages
            ),
            period_seconds=0,
            boundary_bytes=0,
            profile_sha256="",
        )
        updating = UpdatingBySettings(model, settings.optimizer, settings.learning_rate, 1, job)
        context = RunContext(
            settings,
            job,
            CPU,
            model,
            plan,
            recorder,
            updating,
            1,
            1,
            placement=Placement.in_a_loop(len(stages)),
        )
        passes = list(passes_over(DATASET.train, [2], training=True))
        PipelineRehearsal(module, held_stages(context, module), context).rehearse(passes, [])

    job.barrier()
    if job.rank == 1:
        job.limit_seconds = LIMIT_SECONDS
        start = time.monotonic()
        try:
            wait_in_vain(
                job,
                where,
                (lambda: begin_three_steps(agreement)) if where == "agreement" else rehearse,
            )
        except TrainingError as error:
            sys.stdout.write(f"{where}: {time.monotonic() - start:.1f} s: {error}\n")
            sys.stdout.flush()
    world.barrier()


def main() -> None:
    world = MpiJob(60)
    for where in sys.argv[1:]:
        wait(world, where)
    world.communicator.Abort(5)
    os._exit(5)


main()
