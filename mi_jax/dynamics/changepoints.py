"""Where a curve changes its slope on a log-step axis, and which of its stretches are transitions.

A curve is put on an even grid of x = log(step + 1); its increments are standardised, and their mean
is split at change points (ruptures, exact, jump 1, least squares). The penalty is set by
simulation: random walks, seen at the curve's own steps and put on the same grid, have any change
point at all in a nominal share of draws. A *transition* is a stretch between two change points that
is at least ``STEEPER`` times as steep as the stretches before and after, is over within a factor
``LONGEST`` in steps, and moves at least ``BEYOND`` times as far as the noise of those stretches
would carry it: a curve that only bends, as a power law does, has change points but no transition,
and so has a walk that moves alike at every training step, whose noise grows with it.
"""

from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import ruptures
from jaxtyping import Float, Int

STEEPER = 2.0
"""How many times steeper than both its neighbours a stretch must be to count as a transition."""

LONGEST = 4.0
"""The factor in steps within which a transition is over."""

BEYOND = 8.0
"""How many standard deviations of a walk with its neighbours' increments a transition must move."""

_SHORTEST = 3
"""Fewest increments of a stretch."""
_FEWEST = 8
"""Fewest finite values of a curve that can be cut."""
_MOST = 4
"""Most change points that the null simulation looks for."""


class ChangePoint(NamedTuple):
    """A stretch in which a curve moves much faster than before and after."""

    begin: float
    """Step at which it begins."""
    end: float
    change: float
    """Value at its end minus value at its beginning."""


class Segmentation(NamedTuple):
    """What was found in a curve."""

    change_points: tuple[float, ...]
    """Steps at which the slope changes."""
    transitions: tuple[ChangePoint, ...]
    penalty: float
    """Cost of a change point, in units of the increments' variance."""


def log_grid(
    steps: Int[np.ndarray, " step"], values: Float[np.ndarray, " step"], points: int
) -> tuple[Float[np.ndarray, " point"], Float[np.ndarray, " point"]]:
    """A curve at ``points`` places even in x = log(step + 1), interpolated linearly; non-finite
    values are left out.
    """
    finite = np.isfinite(values)
    x = np.log1p(steps[finite].astype(np.float64))
    grid = np.linspace(x[0], x[-1], points)
    return grid, np.interp(grid, x, values[finite].astype(np.float64))


def segment(
    steps: Int[np.ndarray, " step"],
    values: Float[np.ndarray, " step"],
    *,
    alpha: float = 0.01,
    points: int = 128,
) -> Segmentation:
    """Change points and transitions of one curve.

    Losses should be given as their logarithms, accuracies as they are.

    Args:
        steps: sorted; may be unevenly spaced. values: the curve; non-finite ones are left out.
        alpha: nominal share of random walks in which any change point is found.
        points: size of the grid.

    Returns:
        A Segmentation; empty for a curve that is constant or has fewer than 8 finite values
        (penalty NaN).
    """
    if np.isfinite(values).sum() < _FEWEST:
        return Segmentation((), (), np.nan)
    penalty = null_penalty(tuple(int(step) for step in steps), points, alpha)
    grid, curve = log_grid(steps, values, points)
    increments = np.diff(curve)
    if np.ptp(increments) <= 1e-12 * max(np.abs(curve).max(), 1e-300):
        return Segmentation((), (), penalty)
    found = _fitted(_standard(increments)).predict(pen=penalty)
    cuts = [0, *found]
    places = [float(np.expm1(grid[cut])) for cut in cuts]
    stretches = [increments[a:b] for a, b in pairwise(cuts)]
    transitions = tuple(
        ChangePoint(places[i], places[i + 1], float(curve[cuts[i + 1]] - curve[cuts[i]]))
        for i in range(1, len(stretches) - 1)
        if _stands_out(*stretches[i - 1 : i + 2])
        and grid[cuts[i + 1]] - grid[cuts[i]] <= np.log(LONGEST)
    )
    return Segmentation(tuple(places[1:-1]), transitions, penalty)


def _stands_out(
    before: Float[np.ndarray, " l"], here: Float[np.ndarray, " m"], after: Float[np.ndarray, " n"]
) -> bool:
    """Whether a stretch's increments are steeper than its neighbours', and move further than their
    noise would.
    """
    steep = abs(here.mean()) >= STEEPER * max(abs(before.mean()), abs(after.mean()))
    return bool(
        steep and abs(here.sum()) >= BEYOND * max(before.std(), after.std()) * np.sqrt(len(here))
    )


@lru_cache(maxsize=64)
def null_penalty(
    steps: tuple[int, ...], points: int, alpha: float, draws: int = 1000, seed: int = 0
) -> float:
    """The penalty at which a share ``alpha`` of random walks, seen at these steps, still has a
    change point.

    The larger of the penalties for two walks: one whose variance grows with log(step + 1), and one
        that moves alike from
    snapshot to snapshot. Each draw's critical penalty is the largest gain per change point, max_K
    (RSS_0 - RSS_K) / K.
    """
    rng, x = np.random.default_rng(seed), np.log1p(np.array(steps, np.float64))
    penalties: list[float] = []
    for scale in (np.sqrt(np.diff(x)), np.ones(len(x) - 1)):
        critical = np.empty(draws)
        for draw in range(draws):
            walk = np.concatenate([[0.0], np.cumsum(scale * rng.standard_normal(len(scale)))])
            critical[draw] = _critical(np.diff(log_grid(np.array(steps), walk, points)[1]))
        penalties.append(float(np.quantile(critical, 1 - alpha)))
    return max(penalties)


def _critical(increments: Float[np.ndarray, " n"]) -> float:
    standard = _standard(increments)
    fitted = _fitted(standard)
    return max(
        (len(standard) - _rss(standard, fitted.predict(n_bkps=k))) / k for k in range(1, _MOST + 1)
    )


def _standard(increments: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n 1"]:
    return ((increments - increments.mean()) / increments.std())[:, None]


def _fitted(standard: Float[np.ndarray, "n 1"]) -> Any:
    return ruptures.KernelCPD(kernel="linear", min_size=_SHORTEST, jump=1).fit(standard)


def _rss(series: Float[np.ndarray, "n 1"], ends: list[int]) -> float:
    return sum(
        float(((series[a:b] - series[a:b].mean()) ** 2).sum())
        for a, b in zip([0, *ends[:-1]], ends, strict=True)
    )
