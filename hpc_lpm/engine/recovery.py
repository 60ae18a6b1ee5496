"""Options against what lagged weights cost in accuracy: which runs can have them."""

from hpc_lpm.errors import InputError
from hpc_lpm.options import TrainSettings

PREDICTED_OPTIMIZERS = ("sgd", "momentum")
"""Optimizers whose next step is predicted; the formula is that of SGD with momentum."""


def check_recovery(settings: TrainSettings, epochs: int, *, tied: bool, replicas: int) -> None:
    """Check the options on lagged weights against the strategy and the length of the run.

    Args:
        settings: of the run.
        epochs: of the run, a last one that is cut short included.
        tied: True if layers of the model share weights, whose next step no stage knows alone.
        replicas: of every stage, whose gradients are being averaged during lagged forwards.

    Raises:
        InputError: if an option does not apply.
    """
    if settings.strategy != "fbp":
        option = "--prediction" if settings.prediction else "--synchronous-tail"
        if settings.prediction or settings.synchronous_tail:
            raise InputError(
                f"{option} was given with --strategy {settings.strategy}, whose weights never lag: "
                "leave it out or use --strategy fbp."
            )
    if settings.prediction and settings.optimizer.name not in PREDICTED_OPTIMIZERS:
        raise InputError(
            f"--prediction was given with --optimizer {settings.optimizer.name}, but only the next "
            f"step of {' and '.join(PREDICTED_OPTIMIZERS)} is predicted: leave it out or use one "
            "of these."
        )
    given = settings.optimizer.options
    if settings.prediction and given:
        raise InputError(
            f"--prediction was given with options of --optimizer ({', '.join(given)}), but the "
            "plain step of SGD with momentum is predicted: leave one of the two out."
        )
    if settings.prediction and tied:
        raise InputError(
            f"--prediction was given with model {settings.model}, which ties weights of two "
            "layers, whose next step no stage knows alone: leave it out or use an untied model."
        )
    if settings.prediction and replicas > 1:
        raise InputError(
            f"--prediction was given with {replicas} replicas of every stage, whose gradients are "
            "being averaged while the next forward runs: leave it out or start one rank a stage."
        )
    if settings.synchronous_tail > epochs:
        raise InputError(
            f"--synchronous-tail {settings.synchronous_tail} is longer than the run, which has "
            f"{epochs} epoch{'s' if epochs > 1 else ''}: use at most {epochs}."
        )
