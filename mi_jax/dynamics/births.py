"""Births: the step from which each winner of a competition stays ahead for good."""

import numpy as np
import xarray as xr

from mi_jax.dynamics.levels import BOUNDS

AHEAD = 2.0
"""Multiple of an even share that a winner among three or more competitors has to exceed."""


def births(shares: xr.DataArray, winners: xr.DataArray) -> xr.DataArray:
    """Dates from which a winner holds more than twice an even share until the end.

    An even share among n competitors is 1 / n. A winner that exceeds 2 / n and later falls back
    is born at its last rise; a winner that ends at or below 2 / n, or at NaN, is never born. Where
    more than half of the competitors win, they cannot all exceed 2 / n. Of two competitors, neither
    can hold twice an even share; a winner is born there when it holds more than 3 / 4, half-way
    from an even share to all.

    Args:
        shares: dims (seed, step, X), where X is the competitors' dim, for example the frequencies.
            The shares sum to 1 over X.
        winners: whether each competitor wins: booleans, dims (seed, X).

    Returns:
        Birth in steps, dims (seed, X, bound): "lower" is the last snapshot at which the winner was
        not ahead, "upper" the first from which it always was. The lower bound is -inf for a winner
        that was ahead from the first snapshot, the upper bound inf for a winner that is not born
        by the last one. Both are NaN for competitors that do not win.

    Raises:
        ValueError: if ``shares`` does not have exactly one dim beside seed and step.

    Example:
        >>> shares = xr.DataArray(
        ...     [[[0.1, 0.3, 0.3, 0.3], [0.6, 0.2, 0.1, 0.1], [0.9, 0.1, 0.0, 0.0]]],
        ...     {"seed": [0], "step": [0, 10, 100], "frequency": [1, 2, 3, 4]},
        ...     ("seed", "step", "frequency"),
        ... )
        >>> births(shares, (shares.isel(step=-1) > 0.5).drop_vars("step")).values
        array([[[ 0., 10.],
                [nan, nan],
                [nan, nan],
                [nan, nan]]])
    """
    (dim,) = [str(d) for d in shares.dims if d not in ("seed", "step")]
    ordered = shares.transpose("seed", "step", dim)
    ahead = ordered.values > ahead_of(shares.sizes[dim])
    # The number of snapshots until the last at which each is not ahead.
    behind = np.where(ahead, 0, np.arange(1, ahead.shape[1] + 1)[:, None]).max(axis=1)
    # One more in front and behind: the bounds on either side of snapshot 0 and of the last one.
    steps = np.concatenate([[-np.inf], shares["step"].values.astype(np.float64), [np.inf]])
    born = np.stack([steps[behind], steps[behind + 1]], axis=-1)
    wins = winners.transpose("seed", dim).values.astype(bool)
    return xr.DataArray(
        np.where(wins[..., None], born, np.nan),
        {"seed": shares["seed"].values, dim: shares[dim].values, "bound": list(BOUNDS)},
        ("seed", dim, "bound"),
        attrs={"units": "steps"},
    )


def ahead_of(competitors: int) -> float:
    """The share that a winner has to exceed: min(2 / n, (1 + 1 / n) / 2).

    The second, half-way from an even share to all, is the smaller one for two competitors alone.

    Args:
        competitors: their number n.

    Example:
        >>> ahead_of(2), ahead_of(8)
        (0.75, 0.25)
    """
    return min(AHEAD / competitors, (1 + 1 / competitors) / 2)
