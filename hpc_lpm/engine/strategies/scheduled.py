"""The strategies that run a schedule on our engine, of which every schedule is one."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hpc_lpm.engine.pipeline.options import (
    ChunkedOptions,
    LaggingOptions,
    PassRules,
    ScheduledOptions,
)
from hpc_lpm.engine.strategies.base import PlannedRun, Strategy
from hpc_lpm.engine.strategies.flushed_parts import check_flushed_parts
from hpc_lpm.engine.strategies.recipe_choice import with_recipe
from hpc_lpm.errors import InputError
from hpc_lpm.options import OptimizerSettings
from hpc_lpm.planning.options import TRIED_CHUNKS, PlanOptions, planned_optimizer
from hpc_lpm.planning.worth.expected import expected_steps
from hpc_lpm.planning.worth.lag import Lag
from hpc_lpm.planning.worth.measured import packaged_measurements
from hpc_lpm.prediction_rules import (
    OF_SGD,
    SPECTRAIN,
    PredictionRule,
    is_of_sgd,
    rule_of,
)
from hpc_lpm.recipes import AUTO, NO_RECIPE, RECIPES
from hpc_lpm.schedules.base import CHUNKS, LEAD, WEIGHTS, Schedule
from hpc_lpm.schedules.placement import Placement

if TYPE_CHECKING:
    import torch

    from hpc_lpm.engine.job import Job
    from hpc_lpm.engine.runners.runner import RunContext, Runner
    from hpc_lpm.engine.settings import TrainSettings

_PLAYED_REPLICAS = 2

_TRIED: dict[str, tuple[Any, ...]] = {
    LEAD: (1, 2, 3),
    WEIGHTS: ("live", "replay", "stash"),
    CHUNKS: TRIED_CHUNKS,
}
"""The values of options of its own that a search for the best ones tries, where it takes them."""


class Scheduled(Strategy):
    """Runs one schedule on merged stages, under the schedule's name."""

    needs_plan = True
    pipelined = True

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.name = schedule.name
        self.description = f"{schedule.description}, on our engine"
        self.lags = not schedule.flushes
        self.options = LaggingOptions if self.lags else ScheduledOptions
        if schedule.takes_chunks:
            self.options = ChunkedOptions
        self.clip_scopes = ("stage",) if self.lags else ("global", "stage")

    def takes(self, option: str) -> bool:
        """Tell if an option means something: `lead` and `weights` under some schedules alone."""
        of_schedules = option in {LEAD, WEIGHTS}
        return super().takes(option) and not (
            of_schedules and option not in self.schedule.own_options
        )

    def schedule_of(self, settings: "TrainSettings") -> Schedule:
        """Return the schedule with the chunks that a run is to have on each device."""
        own = settings.own
        return self.schedule.with_chunks(own.chunks if isinstance(own, ChunkedOptions) else None)

    def pass_rules(self, settings: "TrainSettings") -> PassRules:
        """Return the lead and what is done about weights and gradients that come late."""
        own = LaggingOptions.of(settings.own)
        return PassRules(own.lead, own.weights)

    def placement(self, settings: "TrainSettings", stages: int) -> Placement:
        """Return which device holds which stages under the schedule."""
        return self.schedule_of(settings).placement(stages)

    def stages_on(self, settings: "TrainSettings", devices: int) -> int:
        """Return how many stages a plan has: each device holds as many as the schedule places."""
        return devices * self.schedule_of(settings).chunks

    def settled(
        self, settings: "TrainSettings", job: "Job", device: "torch.device"
    ) -> "TrainSettings":
        """Return the settings with the transport that suits where the ranks run (collective)."""
        if LaggingOptions.of(settings.own).in_one_process:
            return settings
        from hpc_lpm.engine.pipeline.transport.registry import with_transport
        from hpc_lpm.engine.topology import find_rank_locations

        mpi, threads_may_call_mpi = job.communicator is not None, False
        if mpi:
            from hpc_lpm.engine.pipeline.transport import mpi_library  # importing it starts MPI

            threads_may_call_mpi = mpi_library.threads_may_call_mpi()
        return with_transport(
            settings,
            find_rank_locations(job, device),
            mpi=mpi,
            threads_may_call_mpi=threads_may_call_mpi,
        )

    def processes(self, settings: "TrainSettings", stages: int) -> int:
        """Return one process for each stage, or the one that plays all of them."""
        return 1 if LaggingOptions.of(settings.own).in_one_process else self.ranks(stages)

    def plan_options(self, settings: "TrainSettings") -> dict[str, Any]:
        """Return the options of a plan for this schedule."""
        own, rules = LaggingOptions.of(settings.own), self.pass_rules(settings)
        taken = {name: getattr(rules, name) for name in self.schedule.own_options}
        if self.schedule.takes_chunks:
            taken[CHUNKS] = self.schedule_of(settings).chunks
        if own.prediction:
            taken["prediction_rule"] = rule_of(own.prediction_rule, settings.optimizer)
        return {**super().plan_options(settings), "schedule": self.schedule.name, **taken}

    def tunable(self, settings: "TrainSettings") -> dict[str, tuple[Any, ...]]:
        """Return what may be tried: also leads, weight policies and chunks, where it takes them."""
        taken = {name: values for name, values in _TRIED.items() if self.takes(name)}
        return {**super().tunable(settings), **taken}

    def expected_steps_ratio(
        self, settings: "TrainSettings", devices: int, model: str, *, replicas: int = 1
    ) -> float | None:
        """Return what the lag of these settings costs in steps, as far as it was measured."""
        if not self.lags:
            return 1.0
        rules, own = self.pass_rules(settings), LaggingOptions.of(settings.own)
        options = PlanOptions(
            schedule=self.schedule.name,
            lead=rules.lead,
            micro_batches=settings.micro_batches,
            weights=rules.weights,
            optimizer=planned_optimizer(settings.optimizer),
            recipe=own.recipe,
            replicas=replicas,
        )
        lag = Lag.of(self.schedule, devices // replicas, options)
        measured = replace(packaged_measurements(), gradient_shrink=rules.gradient_shrink)
        found = [
            expected_steps(measured, lag, options.model_copy(update={"recipe": recipe}), model)
            for recipe in _recipes_alike(own, settings.optimizer, lag, options)
        ]
        known = [each.ratio for each in found if each.worth.value is not None]
        return None if not known or known[0] is None else float(known[0])

    def with_recipe(self, run: PlannedRun) -> tuple["TrainSettings", str | None]:
        """Return the settings with the options of the recipe, and what was chosen and why."""
        return with_recipe(run, self.schedule, self.check)

    def check(self, run: PlannedRun) -> None:
        """Refuse sizes without a schedule, clipping over stages that never meet, and the like."""
        super().check(run)
        settings, own = run.settings, LaggingOptions.of(run.settings.own)
        self.schedule_of(settings).check_fits(run.stages, settings.micro_batches)
        if settings.clip_scope not in (None, *self.clip_scopes):
            raise InputError(
                f"--clip-scope global was given with --strategy {self.name}, but a norm over all "
                "stages would make every stage wait for all others before each update: use "
                "--clip-scope stage, which clips each stage by its own norm."
            )
        if own.in_one_process and run.replicas > _PLAYED_REPLICAS:
            raise InputError(
                f"--in-one-process was given for {run.replicas} replicas of every stage, of which "
                f"it plays at most {_PLAYED_REPLICAS}: with more, the library that sums gradients "
                "over ranks decides in which order, and so the bits; use fewer, or mpirun."
            )
        if own.prediction:
            _check_prediction(run, own.prediction_rule)
        check_flushed_parts(run, own)

    def start(self, context: "RunContext") -> "Runner":
        """Return the runner of this rank's stage."""
        from hpc_lpm.engine.runners.scheduled import PipelineRunner

        settings = context.settings
        return PipelineRunner(context, self.schedule_of(settings), self.pass_rules(settings))


class ForwardBackwardParallel(Scheduled):
    """Forward-backward parallel: the schedule that this project proposes."""

    proposed = True
    colour = "#0b5fa5"

    def __init__(self, schedule: Schedule) -> None:
        super().__init__(schedule)
        self.description = "merged stages, forward and backward passes in parallel, no flush (ours)"


def _recipes_alike(
    own: LaggingOptions, optimizer: OptimizerSettings, lag: Lag, options: PlanOptions
) -> list[str]:
    """Return the recipes that correct a lag as a run does, the one that it names first."""
    chosen = lag.rule_of_recipe(options)
    by_recipe = chosen is not None and "prediction" not in own.model_fields_set
    if not (own.prediction or by_recipe):
        return [NO_RECIPE]
    rule = own.prediction_rule or chosen or rule_of(None, optimizer)
    named = [own.recipe] if rule == chosen else []
    if lag.rule_of_recipe(options.model_copy(update={"recipe": AUTO})) == rule:
        named.append(AUTO)
    alike = [name for name, each in RECIPES.items() if each.options["prediction_rule"] == rule]
    return list(dict.fromkeys([*named, *alike]))


def _check_prediction(run: PlannedRun, asked: PredictionRule | None) -> None:
    """Refuse the rule for SGD's own step where it does not know the next one."""
    optimizer = run.settings.optimizer
    if rule_of(asked, optimizer) != SPECTRAIN:
        return
    remedy = "choose another rule, such as second-order"
    if not is_of_sgd(optimizer):
        raise InputError(
            f"--prediction-rule {SPECTRAIN} was given with --optimizer {optimizer.name}, but it "
            f"knows the next step of {' and '.join(OF_SGD)} alone: {remedy}."
        )
    if optimizer.options:
        raise InputError(
            f"--prediction by the rule {SPECTRAIN} was asked for with options of --optimizer "
            f"({', '.join(optimizer.options)}), but it knows the plain step of SGD with momentum "
            f"alone: {remedy}."
        )
    if run.model and run.model.ties:
        raise InputError(
            f"--prediction by the rule {SPECTRAIN} was asked for with model {run.settings.model}, "
            f"which ties weights of two layers, and no stage alone knows their next step: {remedy}."
        )
    if run.replicas > 1:
        raise InputError(
            f"--prediction by the rule {SPECTRAIN} was asked for with {run.replicas} replicas of "
            "every stage, whose gradients are being averaged while the next forward runs: "
            f"{remedy}."
        )
