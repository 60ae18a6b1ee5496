"""Who runs in a race: what is compared with what on one model and one data set."""

from dataclasses import dataclass
from typing import Self

from hpc_lpm.campaign.trials import Trial


@dataclass(frozen=True)
class Entrant:
    """A contestant of a campaign in one race, under one planner if it needs any.

    The runs of an entrant differ in seed and repeat alone. `label` is unique within a race: the
    label of the contestant, and the planner where the campaign races several.
    """

    model: str
    dataset: str
    strategy: str
    label: str
    planner: str | None

    @classmethod
    def of(cls, trial: Trial) -> Self:
        """Return the entrant that a trial is one run of."""
        return cls(trial.model, trial.dataset, trial.strategy, trial.label, trial.planner)

    @property
    def race(self) -> tuple[str, str]:
        """Model and data set: entrants of the same race are compared with each other."""
        return (self.model, self.dataset)

    @property
    def name(self) -> str:
        """Label of the contestant, by which expectations call it, whatever the planner."""
        return self.label.removesuffix(f" ({self.planner})")

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What stays the same from one campaign to another, however many planners each races."""
        return (self.model, self.dataset, self.name, self.planner or "")

    def meets(self, other: "Entrant") -> bool:
        """Tell if the two are compared: same race, another name, and the same planner if any."""
        return (
            self.race == other.race
            and self.name != other.name
            and (not self.planner or not other.planner or self.planner == other.planner)
        )
