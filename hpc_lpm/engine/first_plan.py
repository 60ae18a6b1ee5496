"""The plan of a run that was given none: its own ranks profile the model and cut it."""

from pathlib import Path

import torch

from hpc_lpm.data.dataset import Dataset
from hpc_lpm.engine.job import Job
from hpc_lpm.engine.lone_crossings import lone_crossings_named, with_lone_crossings
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.engine.strategies.base import PlannedRun, Strategy
from hpc_lpm.errors import InputError
from hpc_lpm.models.compute_format import ComputeFormat
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.planning.blocks import Blocks
from hpc_lpm.planning.options import PlanOptions, planned_optimizer
from hpc_lpm.planning.plan import Plan
from hpc_lpm.planning.pricing import make_plan as plan_stages
from hpc_lpm.planning.request import ProfileAndHash
from hpc_lpm.profiling.job import profile_in_job

PROFILE, PLAN = "profile.json", "plan.json"


def make_plan(
    settings: TrainSettings,
    strategy: Strategy,
    job: Job,
    dataset: Dataset,
    model: LayeredModel,
    folder: Path,
) -> None:
    """Profile the model on all ranks and cut it into one stage a rank.

    Profile and plan are kept in the run's folder. Every rank must call this.

    Raises:
        InputError: if the model has fewer layers than there are ranks, or cannot be profiled.
    """
    profile = profile_in_job(
        model,
        dataset,
        settings.micro_batch_size,
        threads=settings.threads,
        device="cuda" if torch.cuda.is_available() else "cpu",
        compute_format=ComputeFormat(settings.precision, settings.memory_format),
        limit_seconds=job.limit_seconds,
    )
    options = PlanOptions.checked(
        micro_batches=settings.micro_batches,
        optimizer=planned_optimizer(settings.optimizer),
        **strategy.plan_options(settings),
    )
    stages = options.stages_on(job.size)
    if strategy.lone_crossing:
        inputs = dataset.train.inputs(torch.arange(settings.micro_batch_size))
        (profile,) = with_lone_crossings([profile], model, inputs)
    with lone_crossings_named(strategy):
        Blocks.of(profile, options.cut_only_at).allowed.check_stages(stages)
    if job.rank == 0:
        profile.write(folder / PROFILE)
        sha256 = ProfileAndHash.of(profile).sha256
        plan_stages(profile, sha256, job.size, options=options).write(folder / PLAN)
    job.barrier()


def has_plan(job: Job, folder: Path) -> bool:
    """Tell if there is a plan in the run's folder, as rank 0 sees it (collective)."""
    found: bool = job.broadcast((folder / PLAN).exists() if job.rank == 0 else None)
    return found


def plan_of_rank_0(job: Job, folder: Path) -> Plan:
    """Return the plan in the run's folder, which rank 0 reads for all (collective).

    Other nodes may not see for a while what it has just written, as over NFS.

    Raises:
        InputError: on every rank, if it is missing or not what was written.
    """
    plan, problem = None, None
    if job.rank == 0:
        try:
            plan = Plan.read(folder / PLAN)
        except InputError as error:
            problem = str(error)
    found: tuple[Plan | None, str | None] = job.broadcast((plan, problem))
    plan, problem = found
    if problem is not None:
        raise InputError(problem)
    assert plan is not None
    return plan


def require_ranks(
    settings: TrainSettings, strategy: Strategy, job: Job, model: LayeredModel
) -> None:
    """Refuse to make a plan for more stages than there are layers, or for one rank.

    One rank is more likely to be a forgotten mpirun. Also refused is what the strategy does not
    train on so many ranks, before they profile the model for it.

    Raises:
        InputError: saying what to type.
    """
    layers, held = len(model.layers), strategy.stages_on(settings, 1)
    if strategy.stages_on(settings, job.size) > layers:
        raise InputError(
            f"--strategy {settings.strategy} was started on {job.size} ranks without --plan"
            f"{f', with {held} stages on each' if held > 1 else ''}, but model {model.name} has "
            f"{layers} layers: {_ways_to_fewer(strategy, layers, held)}."
        )
    if job.size == 1:
        raise InputError(
            f"--strategy {settings.strategy} was started on one rank without --plan: start one "
            "rank per stage, with mpirun -n K, and the ranks make the plan, or give one."
        )
    strategy.check(PlannedRun(settings, model, job.size, job.size))


def _ways_to_fewer(strategy: Strategy, layers: int, held: int) -> str:
    """Return what may be done where ranks that hold so many stages each need too many layers."""
    ways = []
    if (most := layers // held) > 1:
        ways.append(f"start at most {most} ranks")
    if strategy.takes("chunks"):
        ways.append("give fewer --chunks")
    ways.append("give a plan whose stages have replicas")
    return ", or ".join(ways)
