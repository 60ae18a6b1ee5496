"""What a strategy is: a way to train, and everything that the toolkit must know of it.

To add one, subclass `Strategy` in a file of your own and name it `module:Class`, or declare it as
an entry point of the group `hpc_lpm.strategies`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from hpc_lpm.errors import InputError
from hpc_lpm.options import ClipScope, StrategyOptions

if TYPE_CHECKING:
    import torch

    from hpc_lpm.engine.job import Job
    from hpc_lpm.engine.runners.runner import RunContext, Runner
    from hpc_lpm.engine.settings import TrainSettings
    from hpc_lpm.models.layered import LayeredModel


@dataclass(frozen=True)
class PlannedRun:
    """What is known of a run before it starts, by which a strategy accepts or refuses it.

    Args:
        settings: of the run.
        model: what it trains, None while it has not been made.
        ranks: that train it.
        stages: of its plan, 1 without one.
        samples: of the training part, None while the data have not been loaded.
        steps: optimizer steps of the whole run, None where they follow from unknown samples.
        epochs: of the run, a last one that is cut short included, None where not known.
    """

    settings: "TrainSettings"
    model: "LayeredModel | None"
    ranks: int
    stages: int = 1
    samples: int | None = None
    steps: int | None = None
    epochs: int | None = None

    @property
    def replicas(self) -> int:
        """Copies of every stage."""
        return self.ranks // self.stages


class Strategy(ABC):
    """A way to train; what its class states is asked for wherever strategies differ."""

    name: str = ""
    """What users call it; one that is found by `module:Class` is called that."""
    description: str = ""
    options: type[StrategyOptions] = StrategyOptions
    """The options of its own."""

    needs_plan: bool = False
    """It trains a plan's stages, one rank (or R replicas) a stage."""
    pipelined: bool = False
    """Its last stage is the first to see a loss."""
    parallel: bool = True
    """It runs on several ranks."""
    independent: bool = False
    """Each rank trains batches of its own and waits for none; their speeds add up."""
    lags: bool = False
    """Weights may be updated between the forward and the backward of a micro-batch."""
    overlaps: bool = True
    """It computes during its transfers, so far as the link allows that."""
    baseline: bool = False
    """Speedups may be given relative to it."""
    proposed: bool = False
    """It is the method that this project proposes, which a report leads with."""
    colour: str | None = None
    """Its colour in figures, such as "#0b5fa5"; without one it gets the next of a palette."""
    clip_scopes: tuple[ClipScope, ...] = ("stage", "global")
    """The scopes by which it can clip gradients, the usual one first."""
    package: str | None = None
    """The package that must be installed for it, if it is not one of the toolkit's own."""

    @abstractmethod
    def start(self, context: "RunContext") -> "Runner":
        """Return this rank's part of the training; heavy imports belong here."""

    def ranks(self, stages: int) -> int:
        """Return the number of ranks that a comparison on `stages` devices starts."""
        return stages if self.parallel else 1

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
        """Return the settings with what is decided only where the ranks are (collective)."""
        return settings

    def environment(self, settings: "TrainSettings") -> Mapping[str, str]:
        """Return the environment variables with which its ranks run best.

        A variable that is set already keeps its value.
        """
        return {}

    def plan_options(self, settings: "TrainSettings") -> dict[str, Any]:
        """Return the options of `hpc-lpm plan` by which its plan is the best one for it."""
        blocking = {} if self.overlaps else {"overlap": False}
        return {"weights": "live", **blocking}

    def check(self, run: PlannedRun) -> None:
        """Refuse what this strategy cannot do; `super().check(run)` comes first in a subclass.

        Facts that are None are not known yet; what depends on them is checked later again.

        Raises:
            InputError: naming the option, what was found and what is accepted.
        """
        settings = run.settings
        if not self.parallel and run.ranks != 1:
            raise InputError(
                f"--strategy {self.name} was started on {run.ranks} ranks, it runs on 1: "
                "start it without mpirun."
            )
        if settings.clip_scope == "global" and settings.clip_norm is None:
            raise InputError(
                "--clip-scope global clips nothing without --clip-norm: give the norm."
            )
        if self.independent and settings.checkpoint_steps:
            raise InputError(
                f"--checkpoint-steps: --strategy {self.name} saves no checkpoint, its ranks "
                "wait for nobody: leave it out or use another strategy."
            )
