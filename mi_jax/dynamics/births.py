"""When the winners of a competition pull ahead for good."""

import numpy as np
import xarray as xr

AHEAD = 2.0
"""How many times an even share a winner must hold."""


def births(shares: xr.DataArray, winners: xr.DataArray) -> xr.DataArray:
    """The first step from which on a winner always holds more than twice an even share; NaN for the
    others, or for never.

    Args:
        shares: dims (seed, step, X), summing to 1 over X. winners: bool, dims (seed, X).

    Returns:
        Steps, dims (seed, X).
    """
    (dim,) = [str(d) for d in shares.dims if d not in ("seed", "step")]
    ordered = shares.transpose("seed", "step", dim)
    ahead = ordered.values > AHEAD / shares.sizes[dim]
    # Ahead from here to the end: a running "and" from the back.
    lasting = np.flip(np.minimum.accumulate(np.flip(ahead, axis=1), axis=1), axis=1)
    first = lasting.argmax(axis=1)
    born = np.where(
        lasting.any(axis=1) & winners.transpose("seed", dim).values,
        shares["step"].values[first],
        np.nan,
    )
    return xr.DataArray(
        born, {"seed": shares["seed"], dim: shares[dim]}, ("seed", dim), attrs={"units": "steps"}
    )
