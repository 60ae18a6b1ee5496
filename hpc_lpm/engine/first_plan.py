"""The plan of a run that was given none: its own ranks profile the model and cut it."""

import hashlib
from pathlib import Path

import torch

from hpc_lpm.data.dataset import Dataset
from hpc_lpm.engine.job import Job
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.engine.strategies.base import Strategy
from hpc_lpm.errors import InputError
from hpc_lpm.models.compute_format import ComputeFormat
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.planning.blocks import Blocks
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.options import PlanOptions, planned_optimizer
from hpc_lpm.planning.planners.registry import DEFAULT_PLANNER
from hpc_lpm.planning.pricing import price_plan, searched_cuts
from hpc_lpm.profiling.job import profile_in_job

PROFILE, PLAN = "profile.json", "plan.json"


def make_plan(
    settings: TrainSettings,
    strategy: Strategy,
    job: Job,
    dataset: Dataset,
    model: LayeredModel,
    folder: Path,
) -> Path:
    """Profile the model on all ranks, cut it into one stage a rank and return the plan's file.

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
    )
    options = PlanOptions.checked(
        micro_batches=settings.micro_batches,
        optimizer=planned_optimizer(settings.optimizer),
        **strategy.plan_options(settings),
    )
    blocks = Blocks.of(profile, options.cut_only_at)
    blocks.allowed.check_stages(job.size)
    if job.rank == 0:
        profile.write(folder / PROFILE)
        costs = CostModel(blocks.profile, job.size, options)
        sha256 = hashlib.sha256((folder / PROFILE).read_bytes()).hexdigest()
        cuts = searched_cuts(blocks, job.size, options, DEFAULT_PLANNER)
        price_plan(costs, cuts, DEFAULT_PLANNER, sha256).write(folder / PLAN)
    job.barrier()
    return folder / PLAN


def require_ranks(settings: TrainSettings, job: Job, model: LayeredModel) -> None:
    """Refuse to make a plan for more ranks than there are layers, or for one rank.

    One rank is more likely to be a forgotten mpirun.

    Raises:
        InputError: saying what to type.
    """
    layers = len(model.layers)
    if job.size > layers:
        raise InputError(
            f"--strategy {settings.strategy} was started on {job.size} ranks without --plan, but "
            f"model {model.name} has {layers} layers: start at most {layers} ranks, or give a plan "
            "whose stages have replicas."
        )
    if job.size == 1:
        raise InputError(
            f"--strategy {settings.strategy} was started on one rank without --plan: start one "
            "rank per stage, with mpirun -n K, and the ranks make the plan, or give one."
        )
