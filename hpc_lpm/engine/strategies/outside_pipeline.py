"""What strategies that run a plan's stages on another project's pipeline engine have in common."""

from hpc_lpm.engine.strategies.base import PlannedRun, Strategy
from hpc_lpm.errors import InputError


class OutsidePipeline(Strategy):
    """Stages of a plan on an engine that takes whole batches and knows nothing of tied weights.

    Attributes:
        engine: what the engine is called in messages.
    """

    needs_plan = True
    pipelined = True
    engine: str

    def check(self, run: PlannedRun) -> None:
        """Refuse incomplete last batches, and tied weights."""
        super().check(run)
        settings = run.settings
        left = (run.samples or 0) % settings.batch_size
        if settings.last_batch == "keep" and left:
            raise InputError(
                f"--last-batch keep was given, but the last batch of an epoch has {left} of "
                f"{settings.batch_size} samples, and {self.name} only takes whole batches: "
                "use --last-batch drop or another strategy."
            )
        if run.model and run.model.ties:
            tie = run.model.ties[0]
            owner, copy = (
                f"{index} {run.model.layers[index].name}"
                for index in (tie.owner_layer, tie.copy_layer)
            )
            raise InputError(
                f"--strategy {self.name} was given with model {run.model.name}, which ties weights "
                f"of layers {owner} and {copy} ({tie.owner_parameter}: tied, or one module used "
                f"twice), but {self.engine} would train the two apart: give each layer weights of "
                "its own or use another strategy."
            )
