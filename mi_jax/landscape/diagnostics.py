"""Whether chains agree, and how many independent draws they are worth: split R-hat and effective
sample size.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mi_jax.basics.dims import Scalar

FEWEST = 8
"""Draws a chain from which its halves have an autocorrelation."""


class Diagnostics(NamedTuple):
    """How far a mean over chains can be trusted."""

    r_hat: Scalar
    """sqrt(var_plus / W): 1 where half chains agree, or nothing varies; above 1.1 they don't agree.
    """
    effective_draws: Scalar
    """chains draws / tau, with tau the integrated autocorrelation time."""
    standard_error: Scalar
    """sqrt(var_plus / effective_draws): of the mean over all draws."""


def diagnose(draws: Float[Array, "chain draw"]) -> Diagnostics:
    """Split R-hat, effective sample size and Monte Carlo standard error of the mean (Vehtari et
    al., arXiv 1903.08008, sec. 3).

    Every chain is cut in two, so that a drift counts as disagreement. var_plus = (T - 1)/T W + B/T,
    with W the mean variance within a half of T draws and B/T the variance of their means; the
    autocorrelation rho_t = 1 - (W - mean acov_t) / var_plus is summed over Geyer's initial monotone
    sequence. Draws that never vary are worth one. Of fewer than 8 draws a chain R-hat is NaN, a
    chain counts as one draw, and the error is that of the chains' means (NaN for one chain).
    """
    if draws.shape[1] < FEWEST:
        means, nan = draws.mean(axis=1), jnp.full((), jnp.nan, draws.dtype)
        error = means.std(ddof=1) / jnp.sqrt(len(means)) if len(means) > 1 else nan
        return Diagnostics(nan, jnp.full((), len(means), draws.dtype), error)
    half = draws.shape[1] // 2
    halves = jnp.concatenate([draws[:, :half], draws[:, -half:]])
    centred = halves - halves.mean(axis=1, keepdims=True)
    covariances = _autocovariance(centred).mean(axis=0)
    within = covariances[0] * half / (half - 1)
    var_plus = covariances[0] + halves.mean(axis=1).var(ddof=1)
    rho = (1 - (within - covariances) / var_plus).at[0].set(1.0)
    size = halves.size
    tau = jnp.maximum(_geyer(rho), 1 / jnp.log10(size))
    effective = jnp.where(var_plus > 0, size / tau, 1.0)
    r_hat = jnp.where(var_plus > 0, jnp.sqrt(var_plus / within), 1.0)
    return Diagnostics(r_hat, effective, jnp.sqrt(var_plus / effective))


def _autocovariance(centred: Float[Array, "half draw"]) -> Float[Array, "half draw"]:
    """sum_i x_i x_{i+t} / T by lag t, one after the other, without XLA's FFT (see ``lapack``)."""
    length = centred.shape[1]
    padded = jnp.pad(centred, ((0, 0), (0, length)))

    def products(lag: Int[Array, ""]) -> Float[Array, " half"]:
        return (centred * jax.lax.dynamic_slice_in_dim(padded, lag, length, axis=1)).sum(axis=1)

    return jax.lax.map(products, jnp.arange(length)).T / length


def _geyer(rho: Float[Array, " draw"]) -> Scalar:
    """The autocorrelation time -1 + 2 sum rho over pairs (2k, 2k + 1) while they are positive, made
    falling.
    """
    pairs = rho[: rho.shape[0] // 2 * 2].reshape(-1, 2)
    sums = pairs.sum(axis=1)
    kept = jnp.cumprod(sums > 0).astype(bool)
    falling = jax.lax.cummin(jnp.where(kept, sums, jnp.inf))
    # The even one of the first pair that isn't kept still counts once, where it is positive.
    last = jnp.where(kept.all(), 0.0, jnp.maximum(pairs[jnp.argmin(kept), 0], 0.0))
    return -1 + 2 * jnp.where(kept, falling, 0).sum() + last
