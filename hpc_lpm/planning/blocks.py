"""A profile in which layers that may not be cut apart are one layer, exactly.

Planners search the merged profile, and so need not know that cuts are restricted. Its sums are
those of the layers without rounding, so a plan costs the same on both profiles.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any, Self

from hpc_lpm.planning.allowed_cuts import AllowedCuts
from hpc_lpm.planning.memory import matrix_bytes
from hpc_lpm.profile_file import LayerProfile, Profile


@dataclass(frozen=True)
class Blocks:
    """A profile, where it may be cut, and it with the layers between two such cuts merged."""

    profile: Profile
    allowed: AllowedCuts
    merged: Profile

    @classmethod
    def of(cls, profile: Profile, cut_only_at: Sequence[str] = ()) -> Self:
        """Merge the layers between the cuts that the profile and the patterns allow.

        Raises:
            InputError: if a pattern matches nothing.
        """
        allowed = AllowedCuts.of(profile.model, profile.layers, cut_only_at)
        if len(allowed.positions) == len(profile.layers) + 1:
            return cls(profile, allowed, profile)
        merged = tuple(_merged(profile.layers[a:b]) for a, b in pairwise(allowed.positions))
        return cls(profile, allowed, profile.model_copy(update={"layers": merged}))

    def in_layers(self, cuts: Sequence[int]) -> tuple[int, ...]:
        """Return the cut positions of the merged profile as those of the profile."""
        return tuple(self.allowed.positions[cut] for cut in cuts)

    def in_blocks(self, cuts: Sequence[int]) -> tuple[int, ...]:
        """Return cut positions of the profile, all of them allowed, as those of the merged one."""
        return tuple(self.allowed.positions.index(cut) for cut in cuts)


def _merged(layers: Sequence[LayerProfile]) -> LayerProfile:
    if len(layers) == 1:
        return layers[0]
    # Not validated, because times are to stay exact sums: a float would round them, and could make
    # another plan the best.
    sums: dict[str, Any] = {
        name: sum((Fraction(getattr(layer, name)) for layer in layers), Fraction(0))
        for name in ("forward_seconds", "backward_seconds")
    }
    for name in ("weight_gradient_seconds", "split_backward_seconds"):
        times = [getattr(layer, name) for layer in layers]
        if None not in times:
            sums[name] = sum(map(Fraction, times), Fraction(0))
    return LayerProfile.model_construct(
        **sums,
        name=f"{layers[0].name}..{layers[-1].name}",
        output_bytes=layers[-1].output_bytes,
        parameter_bytes=sum(layer.parameter_bytes for layer in layers),
        activation_bytes=sum(layer.activation_bytes for layer in layers),
        matrix_parameter_bytes=matrix_bytes(layers),
    )
