"""Sigmoid fits in log(step + 1): where a curve is half-way, and how sharply it gets there."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import least_squares


class Sigmoid(NamedTuple):
    """y = low + (high - low) / (1 + exp(-(x - log(midpoint + 1)) / width)), x = log(step + 1).

    Attributes:
        midpoint: step at which the curve is half-way.
        width: in units of x; the curve goes from 12 % to 88 % of its way within 4 widths.
        low: value that the curve comes from, in the unit of the values.
        high: value that the curve goes to; below ``low`` for a falling curve.
        explained: share of the variance explained, 1 - residual variance / variance.
    """

    midpoint: float
    width: float
    low: float
    high: float
    explained: float


def fit_sigmoid(steps: Int[np.ndarray, " step"], values: Float[np.ndarray, " step"]) -> Sigmoid:
    """Fits a sigmoid in log(step + 1) to a curve by least squares.

    Args:
        steps: in rising order; may be unevenly spaced.
        values: the curve, rising or falling; values that are not finite are left out.

    Returns:
        The fitted ``Sigmoid``. All its fields are NaN if fewer than 5 values are finite, or
        if all finite values are equal.

    Example:
        >>> steps = np.arange(0, 2000, 20)
        >>> x = np.log1p(steps)
        >>> curve = 1 / (1 + np.exp(-(x - np.log1p(400)) / 0.2))
        >>> round(fit_sigmoid(steps, curve).midpoint)
        400
    """
    finite = np.isfinite(values)
    x, y = np.log1p(steps[finite].astype(np.float64)), values[finite].astype(np.float64)
    if len(y) < 5 or np.ptp(y) == 0:
        return Sigmoid(*[float("nan")] * 5)
    half = (y[0] + y[-1]) / 2
    crossed = np.flatnonzero(np.diff(np.sign(y - half)))
    start = np.array(
        [x[crossed[0]] if len(crossed) else x.mean(), np.log(np.ptp(x) / 20), y[0], y[-1]]
    )

    def residuals(theta: Float[np.ndarray, " 4"]) -> Float[np.ndarray, " step"]:
        middle, log_width, first, last = theta
        # Clipped, so that no exponential overflows far from the midpoint.
        rise = 1 / (1 + np.exp(np.clip(-(x - middle) / np.exp(log_width), -60, 60)))
        return first + (last - first) * rise - y

    reach = np.ptp(y) / 2
    lowest = [x[0], np.log(np.ptp(x) / 1000), y.min() - reach, y.min() - reach]
    highest = [x[-1], np.log(np.ptp(x)), y.max() + reach, y.max() + reach]
    # A wide start and a narrow start get stuck in different local minima: take the better fit.
    starts = (start, np.array([start[0], start[1] - 2, *start[2:]]))
    theta = min(
        (least_squares(residuals, guess, bounds=(lowest, highest)) for guess in starts),
        key=lambda fit: fit.cost,
    ).x
    explained = 1 - float((residuals(theta) ** 2).sum() / ((y - y.mean()) ** 2).sum())
    return Sigmoid(
        float(np.expm1(theta[0])),
        float(np.exp(theta[1])),
        float(theta[2]),
        float(theta[3]),
        explained,
    )
