"""What may be done about the lag of a stage, as one set of settings."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Correction:
    """Corrections, all of them off by default.

    Args:
        c1, c2: a forward with a lag of s updates is taken at the stage's weights
            - r (c1 u + c2 (u - u_before)) with the coefficients at place s - 1 (of the last place
            where the lag is larger); u is the last update, r the next rate over the last one.
        fed_back: times d_k / M (u - r u_before) is subtracted once more after an update.
        discount_steps: the rate starts at 1 / max(1, d_k / M) of the full one and reaches it after
            so many updates; infinity keeps it there (PipeMare, T1).
        shrink: factor on the gradient at each boundary (FDG).
        compensation: lambda of DC-ASGD: gradient + lambda gradient^2 (weights now - weights of the
            forward), with `stash` alone.
        stash: whether a backward reads the weights of its forward instead of the current ones.
        head, tail: share of the updates at the beginning and at the end before which stages wait.
    """

    c1: tuple[float, ...] = ()
    c2: tuple[float, ...] = ()
    fed_back: float = 0.0
    discount_steps: float = 0.0
    shrink: float = 1.0
    compensation: float = 0.0
    stash: bool = False
    head: float = 0.0
    tail: float = 0.0

    def coefficients(self, lag: int) -> tuple[float, float]:
        """Return c1 and c2 for a lag of updates."""
        return _at(self.c1, lag), _at(self.c2, lag)

    def rate_factor(self, mean_lag: float, update: int) -> float:
        """Return the factor on a stage's learning rate at an update."""
        if not self.discount_steps:
            return 1.0
        exponent = 1 - min(update / self.discount_steps, 1.0)
        return float(max(1.0, mean_lag) ** -exponent)


def _at(row: tuple[float, ...], lag: int) -> float:
    return row[min(lag, len(row)) - 1] if row and lag else 0.0


NONE = Correction()


def of_order(order: int, a: float = 1.0, b: float = 1.0, lags: int = 8) -> Correction:
    """Return the prediction of the first or second order: c1 = a s, c2 = b s (s + 1) / 2."""
    places = range(1, lags + 1)
    second = tuple(b * s * (s + 1) / 2 for s in places) if order == 2 else ()
    return Correction(c1=tuple(a * s for s in places), c2=second)
