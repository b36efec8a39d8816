"""Convergence diagnostics of Markov chains: split R-hat, effective sample size, standard error."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mi_jax.basics.dims import Scalar

FEWEST = 8
"""Draws per chain below which its halves are too short for an autocorrelation."""


class Diagnostics(NamedTuple):
    """Convergence diagnostics of the mean over chains.

    Attributes:
        r_hat: sqrt(var_plus / W): 1 if the half chains agree or nothing varies; above 1.1 they
            disagree.
        effective_draws: chains * draws / tau, with tau the integrated autocorrelation time.
        standard_error: sqrt(var_plus / effective_draws), of the mean over all draws.
    """

    r_hat: Scalar
    effective_draws: Scalar
    standard_error: Scalar


def diagnose(draws: Float[Array, "chain draw"]) -> Diagnostics:
    """Split R-hat, effective sample size and Monte Carlo standard error of the mean (Vehtari et
    al., arXiv 1903.08008, sec. 3).

    Each chain is cut in two, so that a drift counts as disagreement. With W the mean variance
    within a half of T draws, and B/T the variance of the means of the halves,

        var_plus = (T - 1)/T W + B/T
        rho_t = 1 - (W - mean acov_t) / var_plus

    The autocorrelation rho_t is summed over Geyer's initial monotone sequence. Draws that never
    vary count as one effective draw. With fewer than 8 draws per chain R-hat is NaN, each chain
    counts as one draw, and the standard error is that of the means of the chains (NaN for one
    chain).

    Args:
        draws: values of the quantity, one row per chain.

    Returns:
        R-hat, effective draws and standard error.

    Example:
        >>> diagnose(jnp.ones((3, 20))).effective_draws.item()
        1.0
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
    """Autocovariance sum_i x_i x_{i+t} / T by lag t.

    Lags are computed one after another, without XLA's FFT, which may deadlock (see
    ``basics.lapack``).
    """
    length = centred.shape[1]
    padded = jnp.pad(centred, ((0, 0), (0, length)))

    def products(lag: Int[Array, ""]) -> Float[Array, " half"]:
        return (centred * jax.lax.dynamic_slice_in_dim(padded, lag, length, axis=1)).sum(axis=1)

    return jax.lax.map(products, jnp.arange(length)).T / length


def _geyer(rho: Float[Array, " draw"]) -> Scalar:
    """Integrated autocorrelation time by Geyer's initial monotone sequence.

    It is -1 + 2 sum of the pairs rho_2k + rho_2k+1 up to the first pair that is not positive,
    each replaced by the running minimum.
    """
    pairs = rho[: rho.shape[0] // 2 * 2].reshape(-1, 2)
    sums = pairs.sum(axis=1)
    used = jnp.cumprod(sums > 0).astype(bool)
    falling = jax.lax.cummin(jnp.where(used, sums, jnp.inf))
    # The even entry of the first unused pair still counts once if it is positive.
    last = jnp.where(used.all(), 0.0, jnp.maximum(pairs[jnp.argmin(used), 0], 0.0))
    return -1 + 2 * jnp.where(used, falling, 0).sum() + last
