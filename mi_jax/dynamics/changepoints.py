"""Change points of a curve on a log-step axis, and the stretches between them that are transitions.

A curve is interpolated on an even grid of x = log(step + 1). Its increments are standardised, and
their mean is split at change points (ruptures, exact, jump 1, least squares). The penalty per
change point is set by simulation: random walks, seen at the steps at which the curve is finite and
put on the same grid, have any change point at all in a nominal share of draws.

A *transition* is a stretch between two change points that

- is at least ``STEEPER`` times as steep as the stretches before and after it,
- is over within a factor ``LONGEST`` in steps, and
- moves at least ``BEYOND`` times as far as the noise of those two stretches would carry it.

A curve that only bends, as a power law does, has change points but no transition. The same holds
for a random walk with equal moves at every training step, whose noise grows with it.
"""

from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import ruptures
from jaxtyping import Float, Int

STEEPER = 2.0
"""How many times steeper than both its neighbours a transition must be."""

LONGEST = 4.0
"""Largest ratio (end + 1) / (begin + 1) of a transition's steps."""

BEYOND = 8.0
"""How far a transition must move, in standard deviations of a walk with its neighbours' noise."""

_SHORTEST = 3
"""Fewest increments in a stretch."""
_FEWEST = 8
"""Fewest finite values of a curve that can be split."""
_MOST = 4
"""Most change points that the null simulation looks for."""


class ChangePoint(NamedTuple):
    """A transition: a stretch in which a curve moves much faster than before and after.

    Attributes:
        begin: step at which the stretch begins.
        end: step at which it ends.
        change: value at the end minus value at the beginning, in the unit of the curve.
    """

    begin: float
    end: float
    change: float


class Segmentation(NamedTuple):
    """The change points and transitions of one curve.

    Attributes:
        change_points: steps at which the slope changes.
        transitions: the stretches between change points that are transitions.
        penalty: cost of one change point, in units of the increments' variance; NaN for a curve
            with fewer than 8 finite values.
    """

    change_points: tuple[float, ...]
    transitions: tuple[ChangePoint, ...]
    penalty: float


def log_grid(
    steps: Int[np.ndarray, " step"], values: Float[np.ndarray, " step"], points: int
) -> tuple[Float[np.ndarray, " point"], Float[np.ndarray, " point"]]:
    """A curve interpolated linearly on an even grid of x = log(step + 1).

    Args:
        steps: in rising order.
        values: the curve; values that are not finite are left out.
        points: number of grid points, the first and the last finite step among them.

    Returns:
        The grid x, and the curve on it.
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
    """Finds the change points and the transitions of one curve: see the top of this module.

    Pass losses as their logarithms, and accuracies as they are.

    Args:
        steps: in rising order; may be unevenly spaced.
        values: the curve; values that are not finite are left out.
        alpha: nominal share of random walks in which any change point is found.
        points: number of points of the grid.

    Returns:
        A ``Segmentation``. It is empty for a curve that is constant, is a line in log(step + 1),
        or has fewer than 8 finite values.

    Example:
        >>> steps = np.unique(np.geomspace(1, 10_000, 60).astype(int))
        >>> curve = np.interp(np.log1p(steps), np.log1p([300, 600]), [0.0, 1.0])
        >>> (rise,) = segment(steps, curve).transitions
        >>> 250 < rise.begin < 350 and 550 < rise.end < 650, round(rise.change, 1)
        (True, 0.9)
    """
    finite = np.isfinite(values)
    if finite.sum() < _FEWEST:
        return Segmentation((), (), np.nan)
    # Walks are seen at the steps at which the curve is finite: a curve with gaps is interpolated
    # over them, and walks without the same gaps would give it a penalty that is too small.
    penalty = null_penalty(tuple(int(step) for step in steps[finite]), points, alpha)
    grid, curve = log_grid(steps, values, points)
    increments = np.diff(curve)
    # Increments that differ by rounding alone have no variance to be standardised by.
    if np.ptp(increments) <= 1e-12 * max(np.abs(curve).max(), 1e-300):
        return Segmentation((), (), penalty)
    cuts = [0, *_fitted(_standard(increments)).predict(pen=penalty)]
    cut_steps = [float(np.expm1(grid[cut])) for cut in cuts]
    stretches = [increments[a:b] for a, b in pairwise(cuts)]
    transitions = tuple(
        ChangePoint(cut_steps[i], cut_steps[i + 1], float(curve[cuts[i + 1]] - curve[cuts[i]]))
        for i in range(1, len(stretches) - 1)
        if _stands_out(*stretches[i - 1 : i + 2])
        and grid[cuts[i + 1]] - grid[cuts[i]] <= np.log(LONGEST)
    )
    return Segmentation(tuple(cut_steps[1:-1]), transitions, penalty)


def _stands_out(
    before: Float[np.ndarray, " l"], here: Float[np.ndarray, " m"], after: Float[np.ndarray, " n"]
) -> bool:
    """Whether a stretch is steeper than its neighbours and moves further than their noise would.

    Args:
        before: increments of the stretch before.
        here: increments of the stretch itself.
        after: increments of the stretch after.
    """
    steep = abs(here.mean()) >= STEEPER * max(abs(before.mean()), abs(after.mean()))
    return bool(
        steep and abs(here.sum()) >= BEYOND * max(before.std(), after.std()) * np.sqrt(len(here))
    )


@lru_cache(maxsize=64)
def null_penalty(
    steps: tuple[int, ...], points: int, alpha: float, draws: int = 1000, seed: int = 0
) -> float:
    """The penalty at which a share ``alpha`` of random walks still has a change point.

    The walks are seen at the given steps. A draw's critical penalty is its largest gain per change
    point, max over K of (RSS_0 - RSS_K) / K, where RSS_K is the residual sum of squares with K
    change points. The penalty is the quantile 1 - alpha of the critical penalties, the larger one
    of two kinds of walk: one whose variance grows with log(step + 1), and one with equal moves
    from snapshot to snapshot.

    Args:
        steps: of the snapshots, in rising order; a tuple, since results are cached.
        points: number of points of the grid.
        alpha: nominal share of walks with any change point, between 0 and 1.
        draws: number of walks of each kind.
        seed: of the generator that draws the walks.

    Returns:
        The penalty in units of the increments' variance.

    Example:
        >>> steps = tuple(range(0, 400, 20))
        >>> null_penalty(steps, 40, 0.01, draws=50) > null_penalty(steps, 40, 0.5, draws=50)
        True
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
    """The penalty below which these increments have a change point."""
    standard = _standard(increments)
    fitted = _fitted(standard)
    return max(
        (len(standard) - _rss(standard, fitted.predict(n_bkps=k))) / k for k in range(1, _MOST + 1)
    )


def _standard(increments: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n 1"]:
    """Increments with mean 0 and variance 1, as the column that ruptures takes."""
    return ((increments - increments.mean()) / increments.std())[:, None]


def _fitted(standard: Float[np.ndarray, "n 1"]) -> Any:
    """The exact least-squares splitter (linear kernel), fitted to one series."""
    return ruptures.KernelCPD(kernel="linear", min_size=_SHORTEST, jump=1).fit(standard)


def _rss(series: Float[np.ndarray, "n 1"], ends: list[int]) -> float:
    """Residual sum of squares around the mean of each stretch.

    Args:
        series: standardised increments.
        ends: of the stretches.
    """
    return sum(
        float(((series[a:b] - series[a:b].mean()) ** 2).sum())
        for a, b in zip([0, *ends[:-1]], ends, strict=True)
    )
