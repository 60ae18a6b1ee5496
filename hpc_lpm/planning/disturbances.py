"""What may go wrong in a simulated pipeline: times that vary, slow stages and slow links."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from hpc_lpm.documents import plain_number
from hpc_lpm.errors import InputError
from hpc_lpm.schedules.clock import Jitter, PipelineClock


@dataclass(frozen=True)
class Disturbances:
    """What makes a pipeline slower than its profile.

    Attributes:
        jitter: how the times of passes vary, None if they do not.
        slow_stages: how many times as long the passes of stages take, by stage.
        slow_links: how many times as long messages take behind stages, by stage.
    """

    jitter: Jitter | None = None
    slow_stages: Mapping[float, float] = field(default_factory=dict)
    slow_links: Mapping[float, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        stages: int,
        *,
        jitter: float = 0.0,
        stalls: str | None = None,
        slow_stage: str | None = None,
        slow_link: str | None = None,
        seed: int = 0,
    ) -> Self:
        """Check what is asked for, as the command line spells it.

        Args:
            stages: of the pipeline.
            jitter: the standard deviation of the logarithm of a pass's time.
            stalls: `SHARE:FACTOR`, the share of passes that take so many times as long.
            slow_stage: `STAGE:FACTOR`, several separated by commas.
            slow_link: `BOUNDARY:FACTOR`, likewise; boundary k is the one behind stage k.
            seed: decides which passes take how long.

        Raises:
            InputError: if a value is not accepted.
        """
        if not 0 <= jitter <= _LARGEST_JITTER:
            raise InputError(
                f"--jitter is {jitter}, accepted is 0 to {_LARGEST_JITTER}, the standard deviation "
                "of the logarithm of a pass's time: 0.1 makes it vary by about a tenth."
            )
        if seed < 0:
            raise InputError(f"--seed is {seed}, at least 0 is accepted.")
        stalled = _factors(
            "--stalls",
            stalls,
            "SHARE:FACTOR with a share of the passes above 0 and up to 1, and a factor above 0 and "
            f"up to {_LARGEST_FACTOR:g}, as 0.01:10",
            lambda share: 0 < share <= 1,
        )
        if len(stalled) > 1:
            raise InputError(f"--stalls is {stalls!r}, accepted is one SHARE:FACTOR, as 0.01:10.")
        share, factor = next(iter(stalled.items()), (0.0, 1.0))
        varies = Jitter(jitter, share, factor, seed) if jitter or share else None
        return cls(
            varies,
            _factors("--slow-stage", slow_stage, _at("STAGE"), range(stages).__contains__),
            _factors("--slow-link", slow_link, _at("BOUNDARY"), range(stages - 1).__contains__),
        )

    def slowed(self, clock: PipelineClock) -> PipelineClock:
        """Return the clock with the slow stages and links."""
        stages = [self.slow_stages.get(stage, 1.0) for stage in range(len(clock.forward_seconds))]
        return replace(
            clock,
            forward_seconds=[a * b for a, b in zip(clock.forward_seconds, stages, strict=True)],
            backward_seconds=[a * b for a, b in zip(clock.backward_seconds, stages, strict=True)],
            halves_seconds=[
                (first * factor, second * factor)
                for (first, second), factor in zip(clock.halves_seconds, stages, strict=False)
            ],
            boundary_seconds=[
                seconds * self.slow_links.get(boundary, 1.0)
                for boundary, seconds in enumerate(clock.boundary_seconds)
            ],
        )


_LARGEST_JITTER = 2.0
_LARGEST_FACTOR = 1e9
"""Nothing real is that much slower, and what is simulated stays a number."""


def _at(place: str) -> str:
    return (
        f"{place}:FACTOR with a {place} that this pipeline has, once each, and a factor above 0 "
        f"and up to {_LARGEST_FACTOR:g}, several separated by commas"
    )


def _factors(
    option: str, given: str | None, accepted: str, accepts: Callable[[float], bool]
) -> dict[float, float]:
    """Return the factors of an option by the numbers that stand before their colons."""
    found: dict[float, float] = {}
    for part in given.split(",") if given else ():
        before, _, behind = part.partition(":")
        try:
            at, factor = plain_number(before), plain_number(behind)
        except ValueError:
            at = factor = 0.0
        if not (accepts(at) and 0 < factor <= _LARGEST_FACTOR) or at in found:
            raise InputError(f"{option} has {part!r}, accepted is {accepted}: correct it.")
        found[at] = factor
    return found
