"""Which evaluation is the best one, and when a run stops because none has been better for long.

Every rank has the same evaluations, so that all ranks decide alike without exchanging a message.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpc_lpm.engine.evaluation import TEST, VALIDATION, Evaluation
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.errors import InputError, closest

if TYPE_CHECKING:  # results are read without torch
    from hpc_lpm.data.dataset import Dataset
    from hpc_lpm.models.layered import LayeredModel

_LOSS = "loss"


@dataclass(frozen=True)
class EarlyStop:
    """Where and why a run stopped before its planned end.

    `metric` is what did not improve, such as `validation_loss`, in `evaluations` evaluations since
    its `best` value after step `best_step`; both are None if no evaluation had a finite value.
    """

    step: int
    epoch: int
    metric: str
    evaluations: int
    best: float | None
    best_step: int | None

    def sentence(self) -> str:
        """Return where the run stopped and why."""
        since = (
            "has had no finite value"
            if self.best is None
            else f"has not improved since step {self.best_step}, where it was {self.best:.6g},"
        )
        plural = "s" if self.evaluations > 1 else ""
        return (
            f"stopped early after step {self.step} (epoch {self.epoch}): {self.metric} {since} in "
            f"{self.evaluations} evaluation{plural}"
        )


@dataclass(frozen=True)
class WatchedMetric:
    """The number by which evaluations are compared.

    Args:
        part: the part of the data whose evaluations count.
        name: "loss", or the name of a metric.
        higher_is_better: whether a higher or a lower value is the better one.
        patience: the evaluations without improvement after which a run stops; 0 if it never does.
    """

    part: str
    name: str
    higher_is_better: bool
    patience: int = 0

    def best(self, evaluations: Sequence[Evaluation]) -> Evaluation | None:
        """Return the first evaluation with the best value; None if none has a finite one."""
        best: Evaluation | None = None
        for each in self._of_part(evaluations):
            value = self._value(each)
            if value is not None and (best is None or value > (self._value(best) or 0.0)):
                best = each
        return best

    def stop(self, evaluations: Sequence[Evaluation], step: int) -> EarlyStop | None:
        """Return why a run stops after this step; None if it goes on."""
        of_part = self._of_part(evaluations)
        if not self.patience or not of_part or of_part[-1].step != step:
            return None
        best = self.best(of_part)
        waited = len(of_part) if best is None else len(of_part) - 1 - of_part.index(best)
        if waited < self.patience:
            return None
        metric = f"{self.part}_{self.name}"
        return EarlyStop(
            step,
            of_part[-1].epoch,
            metric,
            waited,
            best.values[metric] if best else None,
            best.step if best else None,
        )

    def _of_part(self, evaluations: Sequence[Evaluation]) -> list[Evaluation]:
        return [each for each in evaluations if each.part == self.part]

    def _value(self, evaluation: Evaluation) -> float | None:
        """Return the value with the sign by which higher is better."""
        value = evaluation.values[f"{self.part}_{self.name}"]
        return value if value is None or self.higher_is_better else -value


def watched_metric(
    settings: TrainSettings, dataset: "Dataset", model: "LayeredModel"
) -> WatchedMetric:
    """Return what the evaluations of a run are compared by: of the validation part, if it has one.

    Raises:
        InputError: if there is no metric of the name that the user asks for.
    """
    part = TEST if dataset.validation is None else VALIDATION
    name, higher = _asked_for(settings, model, [part])
    mode = settings.patience_mode
    return WatchedMetric(part, name, higher if mode is None else mode == "max", settings.patience)


def check_patience_metric(settings: TrainSettings, model: "LayeredModel") -> None:
    """Check the metric that the user asks for, while the data are not known.

    Raises:
        InputError: if there is none of that name.
    """
    _asked_for(settings, model, [VALIDATION, TEST])


def _asked_for(
    settings: TrainSettings, model: "LayeredModel", parts: Sequence[str]
) -> tuple[str, bool]:
    """Return the name of the asked metric, and whether a higher value is the better one.

    Raises:
        InputError: if there is none of that name.
    """
    higher = {_LOSS: False}
    higher |= {each.name: each.higher_is_better for each in model.evaluation_metrics}
    asked = settings.patience_metric or _LOSS
    names = {f"{part}_{name}": name for part in parts for name in higher}
    names |= {name: name for name in higher}
    if asked not in names:
        of_part = f", of the {parts[0]} part" if len(parts) == 1 else ""
        raise InputError(
            f"--patience-metric {asked!r} is no metric of this run{closest(asked, list(higher))}: "
            f"accepted are {', '.join(higher)}{of_part}."
        )
    return names[asked], higher[names[asked]]
