"""The base class of strategies: a way to train, and all that the toolkit must know about it.

To add one, subclass `Strategy` in a file of your own and name it `module:Class`, or declare it as
an entry point of the group `hpc_lpm.strategies`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from hpc_lpm.errors import InputError
from hpc_lpm.options import ClipScope, StrategyOptions
from hpc_lpm.planning.plan import Plan
from hpc_lpm.schedules.placement import Placement

if TYPE_CHECKING:
    import torch

    from hpc_lpm.engine.job import Job
    from hpc_lpm.engine.runners.runner import RunContext, Runner
    from hpc_lpm.engine.settings import TrainSettings
    from hpc_lpm.models.layered import LayeredModel
    from hpc_lpm.planning.forecast.case import Case
    from hpc_lpm.planning.forecast.forecast import Forecast


@dataclass(frozen=True)
class PlannedRun:
    """The facts about a run that are known before it starts, for a strategy to accept or refuse.

    Args:
        settings: the settings of the run.
        model: the model to train, None while it has not been built.
        ranks: the number of ranks that train it.
        stages: the number of devices of its plan, each of which holds one stage or, where the
            schedule has chunks, several; 1 without a plan.
        samples: the number of training samples, None while the data have not been loaded.
        steps: the optimizer steps of the whole run, None if they depend on unknown samples.
        epochs: the epochs of the run, including a last one that is cut short; None if unknown.
        steps_an_epoch: the optimizer steps of a whole epoch, None if unknown.
    """

    settings: "TrainSettings"
    model: "LayeredModel | None"
    ranks: int
    stages: int = 1
    samples: int | None = None
    steps: int | None = None
    epochs: int | None = None
    steps_an_epoch: int | None = None

    @property
    def replicas(self) -> int:
        """The number of replicas of every stage."""
        return self.ranks // self.stages


class Strategy(ABC):
    """A way to train; the toolkit asks its class attributes wherever strategies differ."""

    name: str = ""
    """The name that users give; a strategy of theirs is called `module:Class` instead."""
    description: str = ""
    """What `hpc-lpm strategies` and reports say about it, in one phrase."""
    options: type[StrategyOptions] = StrategyOptions
    """The class of the options that it declares for itself."""

    needs_plan: bool = False
    """Whether it trains the stages of a plan, with one rank (or R replicas) per stage."""
    pipelined: bool = False
    """Whether its last stage is the first to see a loss."""
    parallel: bool = True
    """Whether it runs on several ranks."""
    data_parallel: bool = False
    """Whether every rank holds the whole model, and rank r of R trains the n with n mod R = r."""
    independent: bool = False
    """Whether each rank trains batches of its own and waits for no other; their speeds add up."""
    lags: bool = False
    """Whether weights may be updated between the forward and the backward of a micro-batch."""
    overlaps: bool = True
    """Whether it computes during its transfers, as far as the link allows."""
    lone_crossing: bool = False
    """Whether it is exactly one floating-point tensor with a gradient that crosses between stages.

    Plans that are made for it cut behind no other layers."""
    baseline: bool = False
    """Whether speedups may be given relative to it."""
    rival: bool = False
    """Whether it is the established engine that a report compares every contestant with."""
    proposed: bool = False
    """Whether it is the method that this project proposes, which a report leads with."""
    colour: str | None = None
    """Its colour in figures, such as "#0b5fa5"; without one it gets the palette's next colour."""
    clip_scopes: tuple[ClipScope, ...] = ("global", "stage")
    """The scopes by which it can clip gradients, the default one first."""
    package: str | None = None
    """The package that must be installed for it, if the toolkit does not depend on it anyway."""
    set_once: frozenset[str] = frozenset()
    """Options that count once in a process: runs that differ in them cannot share their ranks."""

    @abstractmethod
    def start(self, context: "RunContext") -> "Runner":
        """Return the runner of this rank; heavy imports belong into this method."""

    def takes(self, option: str) -> bool:
        """Tell if an option, by its name in settings, means something under this strategy.

        One that it declares may still mean nothing: a class of options can serve several strategies
        of which only some follow all of them. Such an option is accepted at its default alone.
        """
        return option in self.options.model_fields

    def ranks(self, stages: int) -> int:
        """Return the number of ranks that a comparison on `stages` devices starts."""
        return stages if self.parallel else 1

    def processes(self, settings: "TrainSettings", stages: int) -> int:
        """Return the number of processes that a run at these settings on `stages` devices starts.

        It is one for each device, unless one process plays several.
        """
        return self.ranks(stages)

    def placement(self, settings: "TrainSettings", stages: int) -> Placement:
        """Return which device holds which of the stages of a plan.

        Raises:
            InputError: if so many stages cannot be placed.
        """
        return Placement.in_a_loop(stages)

    def stages_on(self, settings: "TrainSettings", devices: int) -> int:
        """Return how many stages a plan for so many devices has."""
        return devices

    def on_devices(self, settings: "TrainSettings", devices: int) -> "TrainSettings":
        """Return the settings of a contestant that is compared on so many devices.

        It is not asked where the contestant sets its threads itself.
        """
        return settings

    def available(self) -> bool:
        """Tell if the package behind an optional strategy is installed."""
        return self.package is None or find_spec(self.package) is not None

    def require_installed(self) -> None:
        """Refuse to train where the package behind the strategy is missing.

        Raises:
            InputError: saying how to get it.
        """
        if not self.available():
            raise InputError(
                f"--strategy {self.name} needs the package {self.package}, which is not installed: "
                "install it, or choose another strategy."
            )

    def settled(
        self, settings: "TrainSettings", job: "Job", device: "torch.device"
    ) -> "TrainSettings":
        """Return the settings with choices that depend on where the ranks run (collective).

        Options that it changes are declared with `settled`.
        """
        return settings

    def with_clip_scope(self, settings: "TrainSettings") -> "TrainSettings":
        """Return the settings with the scope of clipping, this strategy's usual one if none is set.

        Without clipping there is none.
        """
        if settings.clip_norm is None or settings.clip_scope is not None:
            return settings
        return settings.model_copy(update={"clip_scope": self.clip_scopes[0]})

    def with_recipe(self, run: PlannedRun) -> tuple["TrainSettings", str | None]:
        """Return a run's settings with the options of its recipe, and what was chosen and why.

        The sentence is None without a recipe.
        """
        return run.settings, None

    def tunable(self, settings: "TrainSettings") -> dict[str, tuple[Any, ...]]:
        """Return, by the names of settings, the values that a search for the best ones may try.

        They are in order of promise, after the value in `settings`, which is tried first whether or
        not it is among them. A subclass adds options of its own.
        """
        return {"micro_batches": near_micro_batches(settings.batch_size, settings.micro_batches)}

    def expected_steps_ratio(
        self, settings: "TrainSettings", devices: int, model: str, *, replicas: int = 1
    ) -> float | None:
        """Return the steps to a target over those of synchronous training, None if unknown.

        A search for the best settings weighs the seconds of a step with it.

        Args:
            settings: the settings of a run.
            devices: the number of devices that train it.
            model: the name of its model.
            replicas: the number of copies of every stage that these devices hold.
        """
        return 1.0

    def environment(self, settings: "TrainSettings") -> Mapping[str, str]:
        """Return the environment variables with which the ranks of this strategy run best.

        A variable that is set already keeps its value.
        """
        return {}

    def plan_options(self, settings: "TrainSettings") -> dict[str, Any]:
        """Return the options of `hpc-lpm plan`, by name, that suit this strategy best."""
        blocking = {} if self.overlaps else {"overlap": False}
        return {"weights": "live", **blocking}

    def forecasts(self, settings: "TrainSettings", case: "Case") -> "Sequence[Forecast]":
        """Return what this strategy is predicted to do with a case, in all its ways, best first.

        What runs the stages of a plan is predicted by the schedule that `plan_options` names, what
        runs on one rank by the threads that `on_devices` gives it. Where that does not tell what a
        step takes, a strategy overrides this method; `hpc_lpm.planning.forecast` helps. Ways that
        `check` refuses are left out by the caller.

        Raises:
            InputError: if it cannot train the case, or nothing tells what it would do; the phrase
                says why, and follows the strategy's name.
        """
        from hpc_lpm.planning.forecast.one_process import forecast_one_process
        from hpc_lpm.planning.forecast.pipelines import forecast_pipeline

        if self.independent:
            raise InputError("each rank trains a model of its own, so that none of them sees all")
        if self.needs_plan:
            asked = self.plan_options(settings)
            if "schedule" not in asked:
                raise InputError(
                    "not predicted: its `plan_options` name no schedule, and it defines no "
                    "`forecasts`"
                )
            return forecast_pipeline(case, asked, frozenset(self.options.model_fields))
        if not self.parallel:
            threads = self.on_devices(settings, case.devices).threads // settings.threads
            return forecast_one_process(case, threads)
        raise InputError("not predicted: it defines no `forecasts`")

    def check(self, run: PlannedRun) -> None:
        """Refuse what this strategy cannot train; a subclass calls `super().check(run)` first.

        Facts that are None are not known yet: the check is made again once they are.

        Raises:
            InputError: naming the option, what was found and what is accepted.
        """
        settings = run.settings
        if not self.parallel and run.ranks != 1:
            raise InputError(
                f"--strategy {self.name} was started on {run.ranks} ranks, but runs on one: "
                "start it without mpirun."
            )
        if settings.clip_scope == "global" and settings.clip_norm is None:
            raise InputError(
                "--clip-scope global clips nothing without --clip-norm: give the norm."
            )
        saving = {
            "--checkpoint-steps": settings.checkpoint_steps,
            "--keep-best": settings.keep_best,
            "--non-finite rewind": settings.non_finite == "rewind",
        }
        for option in [name for name, value in saving.items() if value and self.independent]:
            raise InputError(
                f"{option} was given with --strategy {self.name}, which saves no "
                "checkpoints: leave it out or use another strategy."
            )


def placement_of(strategy: Strategy, settings: "TrainSettings", plan: Plan | None) -> Placement:
    """Return which device holds which stages in a run, the whole model without a plan.

    Raises:
        InputError: if the plan was made for devices that hold more or fewer stages.
    """
    if plan is None:
        return Placement.in_a_loop(1)
    placement = strategy.placement(settings, len(plan.stages))
    if placement.chunks != plan.chunks:
        raise InputError(
            f"the plan has {len(plan.stages)} stages for {plan.devices} devices, {plan.chunks} on "
            f"each, but --strategy {strategy.name} places {placement.chunks} on each: make the "
            "plan for this strategy's schedule."
        )
    return placement


def near_micro_batches(batch_size: int, micro_batches: int) -> tuple[int, ...]:
    """Return the numbers of micro-batches that divide a batch, from half to four times as many.

    More come first: they fill a pipeline better.
    """
    near = (2 * micro_batches, micro_batches // 2, 4 * micro_batches)
    return tuple(count for count in dict.fromkeys(near) if count >= 1 and batch_size % count == 0)
