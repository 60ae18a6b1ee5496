"""Where a chain of layers may be cut, and what is refused beyond that."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from hpc_lpm.errors import InputError
from hpc_lpm.planning.cut_names import (
    CUT_ONLY_AT,
    CUTS,
    NamedLayer,
    cut_positions,
    positions_matching,
)


@dataclass(frozen=True)
class AllowedCuts:
    """The positions at which stages of a model may begin or end, 0 and L included, ascending.

    Without `patterns` these are all positions, except behind layers that belong together with the
    next one.
    """

    model: str
    layers: Sequence[NamedLayer]
    patterns: tuple[str, ...]
    positions: tuple[int, ...]

    @classmethod
    def of(cls, model: str, layers: Sequence[NamedLayer], patterns: Sequence[str] = ()) -> Self:
        """Return the cuts that the layers and the patterns of a user allow.

        Raises:
            InputError: if a pattern matches nothing.
        """
        allowed = set(range(1, len(layers)))
        if patterns:
            allowed &= {
                position
                for pattern in patterns
                for position in positions_matching(layers, pattern, model)
            }
        inner = sorted(position for position in allowed if layers[position - 1].cut_after)
        return cls(model, layers, tuple(patterns), (0, *inner, len(layers)))

    def check_stages(self, stages: int) -> None:
        """Refuse more stages than the allowed cuts make possible, where not all are allowed.

        Raises:
            InputError: saying how many stages are possible.
        """
        possible = len(self.positions) - 1
        if possible >= min(stages, len(self.layers)):
            return
        restriction = "layers that belong together leave"
        if self.patterns:
            restriction = f"{self._given} allows"
        raise InputError(
            f"{stages} stages were asked for, but {restriction} {_counted(possible - 1, 'cut')} of "
            f"{self.model}, enough for {_counted(possible, 'stage')}: ask for at most "
            f"{_counted(possible, 'stage')}{', or allow more cuts' if self.patterns else ''}."
        )

    def own(self, cuts: Sequence[int | str]) -> tuple[int, ...]:
        """Return the K+1 cut positions of a split of the user's own.

        Args:
            cuts: positions, or names of layers and modules to cut behind.

        Raises:
            InputError: if a cut is not accepted, or is not among those that are allowed.
        """
        found = cut_positions(self.layers, cuts, self.model)
        for cut in found:
            if cut not in self.positions:
                behind = f"behind layer {self.layers[cut - 1].name} (position {cut})"
                why = f"{self._given} does not allow: cut elsewhere, or allow it"
                if not self.layers[cut - 1].cut_after:
                    why = f"belongs together with {self.layers[cut].name}: cut elsewhere"
                raise InputError(f"{CUTS} would cut {self.model} {behind}, which {why}.")
        return found

    @property
    def _given(self) -> str:
        return f"{CUT_ONLY_AT} {','.join(self.patterns)}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
