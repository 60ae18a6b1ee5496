"""How sharp a direction the delayed recursion can bear, and how much noise a prediction adds.

On a loss h w^2 / 2, averaged momentum m = beta m + (1 - beta) g, w = w - lr m is run with gradients
taken at w - c1 u - c2 (u - u_before), s updates before they are used; u is the last update. With
q = 1/z its characteristic equation is

    (1 - beta q)(1 - q) + (1 - beta) lr h q^(s + 1) [1 + c1 (1 - q) + c2 (1 - q)^2] = 0.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_ANGLES = np.linspace(1e-4, np.pi, 20_001)


@dataclass(frozen=True)
class Point:
    """Where a lagged forward is taken: the weights - c1 u - c2 (u - u_before)."""

    c1: float = 0.0
    c2: float = 0.0


def of_order(order: int, lag: int) -> Point:
    """Return the textbook prediction of an order, 0 to 2, for a lag in updates."""
    return Point(lag if order > 0 else 0.0, lag * (lag + 1) / 2 if order > 1 else 0.0)


def largest_stable_rate(beta: float, lag: int, point: Point) -> float:
    """Return the least lr x h at which the recursion is no longer stable.

    A root reaches the unit circle where the equation, solved for lr x h, is real and positive.
    """
    values = _rate_on_circle(beta, lag, point, _ANGLES)
    signs = np.signbit(values.imag)
    crossings = [
        _real_between(beta, lag, point, _ANGLES[i], _ANGLES[i + 1])
        for i in np.flatnonzero(signs[1:] != signs[:-1])
    ]
    # At an angle of pi every term is real.
    crossings.append(float(_rate_on_circle(beta, lag, point, np.array([np.pi]))[0].real))
    return min(value for value in crossings if value > 0)


def prediction_noise(beta: float, lag: int, point: Point) -> float:
    """Return how far a forward is from the weights of its update when gradients are pure noise.

    It is the root mean square of the difference, in units of the one without prediction.
    """
    update = beta ** np.arange(400)
    missed = np.convolve(update, [1.0] * lag + [0.0, 0.0])
    predicted = np.convolve(update, [0.0] * lag + [point.c1 + point.c2, -point.c2])
    return float(np.sqrt(np.sum((missed - predicted) ** 2) / np.sum(missed**2)))


def best_point(beta: float, lag: int, noise_limit: float, step: float = 0.05) -> Point:
    """Return the prediction that bears the sharpest direction within a limit of noise."""
    best, most = Point(), 0.0
    for c1 in np.arange(0, lag + step, step):
        for c2 in np.arange(0, lag * (lag + 1) / 2 + 2, step):
            point = Point(float(c1), float(c2))
            if prediction_noise(beta, lag, point) > noise_limit:
                continue
            rate = largest_stable_rate(beta, lag, point)
            if rate > most:
                best, most = point, rate
    return best


def _rate_on_circle(
    beta: float, lag: int, point: Point, angles: NDArray[np.float64]
) -> NDArray[np.complex128]:
    """Return lr x h at which exp(i angle) solves the equation."""
    q = np.exp(1j * angles)
    back = 1 - q
    gain = (1 - beta) * q ** (lag + 1) * (1 + point.c1 * back + point.c2 * back**2)
    return np.asarray(-(1 - beta * q) * back / gain)


def _real_between(beta: float, lag: int, point: Point, low: float, high: float) -> float:
    """Return the value where its imaginary part changes its sign between two angles."""
    below, above = _rate_on_circle(beta, lag, point, np.array([low, high]))
    share = below.imag / (below.imag - above.imag)
    return float(below.real + share * (above.real - below.real))
