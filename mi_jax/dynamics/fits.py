"""Sigmoid fits in log(step + 1): where a curve is half-way, and how sharply it gets there."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import least_squares

SEEN = 0.95
"""Share of its whole way that a curve must have made, for its plateaus to count as seen.

At the first step at most 1 - SEEN of the way is made, at the last step at least SEEN.
"""


class Sigmoid(NamedTuple):
    """A sigmoid y = low + (high - low) / (1 + exp(-z)), z = (x - log(midpoint + 1)) / width.

    Here x = log(step + 1). A falling curve has +z in place of -z.

    Attributes:
        midpoint: step at which the curve is half-way.
        width: in units of x; the curve goes from 12 % to 88 % of its way within 4 widths.
        low: the lower plateau, in the unit of the values.
        high: the upper plateau, in the unit of the values.
        explained: share of the variance explained, 1 - residual variance / variance.
        rising: whether the curve goes from ``low`` to ``high``; False for a falling curve.
        plateaus_seen: whether the fitted curve has made at most 5 % of its way at the first step
            and at least 95 % at the last. Where it has not, the data hold no plateau on one side:
            ``midpoint``, ``width`` and that plateau are extrapolated, however much is explained.
    """

    midpoint: float
    width: float
    low: float
    high: float
    explained: float
    rising: bool
    plateaus_seen: bool


def fit_sigmoid(steps: Int[np.ndarray, " step"], values: Float[np.ndarray, " step"]) -> Sigmoid:
    """Fits a sigmoid in log(step + 1) to a curve by least squares.

    Args:
        steps: in rising order; may be unevenly spaced.
        values: the curve, rising or falling; values that are not finite are left out.

    Returns:
        The fitted ``Sigmoid``. Its numbers are NaN and its flags False where fewer than 5 values
        are finite, or where all finite values are equal.

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
        return Sigmoid(*[float("nan")] * 5, rising=False, plateaus_seen=False)
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
    middle, width, first, last = float(theta[0]), float(np.exp(theta[1])), theta[2], theta[3]
    # The share of the way at a step is 1 / (1 + exp(-z)), which exceeds SEEN where z does this.
    far = np.log(SEEN / (1 - SEEN))
    seen = (middle - x[0]) / width >= far and (x[-1] - middle) / width >= far
    return Sigmoid(
        midpoint=float(np.expm1(middle)),
        width=width,
        low=float(min(first, last)),
        high=float(max(first, last)),
        explained=explained,
        rising=bool(last > first),
        plateaus_seen=bool(seen),
    )
