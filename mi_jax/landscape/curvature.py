"""Curvature of a loss: top Hessian eigenvalues and spectral density by Lanczos, trace by
Hutchinson's estimator.

The Hessian is never built, only multiplied by vectors; one product costs about two gradients.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from mi_jax.basics.dims import Params, PRNGKey, Scalar
from mi_jax.basics.errors import require

Loss = Callable[[Params], Scalar]
Product = Callable[[Float[Array, " parameter"]], Float[Array, " parameter"]]


class Lanczos(NamedTuple):
    """Ritz values of a symmetric matrix H, from one start vector.

    Attributes:
        values: Ritz values, descending. The outermost converge first to eigenvalues of H.
        weights: squared component of the normalised start vector along each Ritz vector; they sum
            to 1.
        residuals: |H y - value y| for each Ritz vector y: an eigenvalue of H lies within this
            distance of the value. 0 if the Krylov space is exhausted.
    """

    values: Float[Array, " order"]
    weights: Float[Array, " order"]
    residuals: Float[Array, " order"]


def hessian_product(loss: Loss, params: Params) -> tuple[Product, Float[Array, " parameter"]]:
    """Hessian-vector product of a loss, and the flat parameters it is taken at.

    Args:
        loss: ``params -> one number``.
        params: pytree of floating point arrays.

    Returns:
        The function v -> H v on flat vectors of the parameters' dtype, and the flat parameters.

    Raises:
        ConfigError: if the loss is not one number.
    """
    value = jax.eval_shape(loss, params)
    require(
        isinstance(value, jax.ShapeDtypeStruct) and value.shape == (),
        f"The loss must return one number; it returns {value}. Return the mean over examples.",
    )
    flat, unravel = ravel_pytree(params)
    gradient = jax.grad(lambda w: loss(unravel(w)))
    return lambda v: jax.jvp(gradient, (flat,), (v,))[1], flat


def lanczos(product: Product, start: Float[Array, " parameter"], order: int) -> Lanczos:
    """Lanczos iteration with full reorthogonalisation: each new vector is made orthogonal to all
    earlier ones, twice.

    Without reorthogonalisation, rounding brings eigenvalues back that were already there
    ("ghosts"). If the Krylov space is exhausted before the order is reached, the iteration
    continues in a random direction outside the space, of weight 0. With order = the number of
    parameters the result is therefore all eigenvalues, with multiplicity.

    Args:
        product: function v -> H v, with H symmetric.
        start: start vector, not 0.
        order: number of products, 1 to the number of parameters.

    Returns:
        Ritz values, weights and residuals.

    Raises:
        ConfigError: if the order is outside its range.

    Example:
        >>> h = jnp.array([1.0, 2.0, 4.0])
        >>> lanczos(lambda v: h * v, jnp.ones(3), 3).values.round(3).tolist()
        [4.0, 2.0, 1.0]
    """
    require(
        1 <= order <= start.size,
        f"order={order} must lie between 1 and {start.size}, the number of parameters.",
    )
    basis = (
        jnp.zeros((order + 1, start.size), start.dtype).at[0].set(start / jnp.linalg.norm(start))
    )
    tiny, key = jnp.finfo(start.dtype).eps, jax.random.key(0)

    def orthogonal(v: Any, basis: Any) -> Any:
        # Twice: one pass leaves components of the order of the rounding of a large v.
        for _ in range(2):
            v = v - basis.T @ (basis @ v)
        return v

    def outside(basis: Any, i: Any) -> Any:
        v = jax.random.normal(jax.random.fold_in(key, i), start.shape, start.dtype)
        v = orthogonal(v, basis)
        size = jnp.linalg.norm(v)
        # A complete basis leaves only rounding outside; this can happen only at the last step.
        return jnp.where(size > tiny * start.size, v / size, 0)

    def _step(carry: tuple[Any, Any], i: Any) -> tuple[Any, Any]:
        basis, scale = carry
        v = basis[i]
        Hv = product(v)
        alpha, scale = v @ Hv, jnp.maximum(scale, jnp.linalg.norm(Hv))
        rest = orthogonal(Hv, basis)
        beta = jnp.linalg.norm(rest)
        # Relative to the largest product so far: a smaller rest is rounding.
        alive = beta > 10 * tiny * scale
        new = jax.lax.cond(alive, lambda: rest / beta, lambda: outside(basis, i))
        return (basis.at[i + 1].set(new), scale), (alpha, jnp.where(alive, beta, 0))

    _, (alphas, betas) = jax.lax.scan(_step, (basis, jnp.zeros((), start.dtype)), jnp.arange(order))
    T = jnp.diag(alphas) + jnp.diag(betas[:-1], 1) + jnp.diag(betas[:-1], -1)
    values, vectors = jnp.linalg.eigh(T)
    return Lanczos(values[::-1], vectors[0, ::-1] ** 2, jnp.abs(betas[-1] * vectors[-1, ::-1]))


def top_eigenvalues(
    loss: Loss, params: Params, *, most: int = 1, order: int = 30, key: PRNGKey
) -> Float[Array, " mode"]:
    """The ``most`` largest (most positive) Hessian eigenvalues, descending; the first is the
    sharpness.

    Args:
        loss: ``params -> one number``, in nats.
        params: pytree of floating point arrays.
        most: number of eigenvalues.
        order: number of Hessian products, at least ``most``; at most the number of parameters are
            used. The values approach the eigenvalues from below as the order grows.
        key: random key of the start vector.

    Returns:
        Eigenvalues [mode], in nats per squared unit of the parameters.

    Raises:
        ConfigError: if ``most`` is above the order or the number of parameters, or the loss is not
            one number.

    Example:
        >>> bowl = lambda w: 0.5 * (jnp.array([1.0, 3.0]) * w**2).sum()
        >>> top = top_eigenvalues(bowl, jnp.zeros(2), key=jax.random.key(0))
        >>> round(float(top[0]), 3)
        3.0
    """
    require(1 <= most <= order, f"most={most} must lie between 1 and order={order}.")
    product, flat = hessian_product(loss, params)
    require(
        most <= flat.size, f"most={most} must be at most {flat.size}, the number of parameters."
    )
    return lanczos(
        product, jax.random.normal(key, flat.shape, flat.dtype), min(order, flat.size)
    ).values[:most]


class Density(NamedTuple):
    """Smoothed spectral density of a Hessian.

    Attributes:
        at: eigenvalues of the grid, ascending.
        density: density at each; it integrates to 1.
    """

    at: Float[Array, " grid"]
    density: Float[Array, " grid"]


def spectral_density(
    loss: Loss,
    params: Params,
    *,
    probes: int = 4,
    order: int = 60,
    points: int = 400,
    width: float = 0.01,
    key: PRNGKey,
) -> Density:
    """Spectral density of the Hessian by stochastic Lanczos quadrature: the mean over random start
    vectors of sum_i weight_i N(value_i, sigma^2) (arXiv 1901.10159).

    Args:
        loss: ``params -> one number``, in nats.
        params: pytree of floating point arrays.
        probes: number of random start vectors.
        order: Hessian products per start vector; at most the number of parameters are used.
        points: number of points of the grid, at least 2.
        width: sigma as a share of the range of the Ritz values. If they (nearly) agree, the
            range is replaced by a tenth of their size, or by 1 if all are 0, because narrower
            bells could not be distinguished from rounding.
        key: random key of the start vectors.

    Returns:
        The grid and the density on it.

    Raises:
        ConfigError: if probes, points or width is outside its range, or the loss is not one
            number.
    """
    require(
        probes >= 1 and points >= 2,
        f"probes={probes}, points={points}: must be at least 1 and 2.",
    )
    require(width > 0, f"width={width}: must be a positive share of the range.")
    product, flat = hessian_product(loss, params)
    starts = jax.random.normal(key, (probes, flat.size), flat.dtype)
    ritz = jax.lax.map(lambda start: lanczos(product, start, min(order, flat.size)), starts)
    low, high = ritz.values.min(), ritz.values.max()
    spread = jnp.maximum(high - low, jnp.maximum(jnp.abs(high), jnp.abs(low)) / 10)
    sigma = width * jnp.where(spread > 0, spread, 1)
    at = jnp.linspace(low - 4 * sigma, high + 4 * sigma, points)
    bells = jnp.exp(-(((at[:, None, None] - ritz.values[None]) / sigma) ** 2) / 2) / (
        sigma * jnp.sqrt(2 * jnp.pi)
    )
    return Density(at, (bells * ritz.weights[None]).sum(axis=2).mean(axis=1))


class Trace(NamedTuple):
    """Trace of a Hessian.

    Attributes:
        trace: mean over probes.
        standard_error: standard error of that mean.
    """

    trace: Scalar
    standard_error: Scalar


def hessian_trace(loss: Loss, params: Params, *, probes: int = 32, key: PRNGKey) -> Trace:
    """Trace of the Hessian by Hutchinson's estimator: the mean of v . H v over random sign vectors
    v. It is exact for a diagonal Hessian.

    Args:
        loss: ``params -> one number``, in nats.
        params: pytree of floating point arrays.
        probes: number of sign vectors, at least 2.
        key: random key of the sign vectors.

    Returns:
        The trace and its standard error.

    Raises:
        ConfigError: if there are fewer than 2 probes, or the loss is not one number.
    """
    require(probes >= 2, f"probes={probes}: must be at least 2, for a standard error.")
    product, flat = hessian_product(loss, params)
    signs = jax.random.rademacher(key, (probes, flat.size), flat.dtype)
    values = jax.lax.map(lambda v: v @ product(v), signs)
    return Trace(values.mean(), values.std(ddof=1) / jnp.sqrt(probes))


def diverges_above(sharpness: float, *, momentum: float = 0.0) -> float:
    """Learning rate above which gradient descent diverges on a quadratic: 2 (1 + momentum) /
    sharpness.

    Args:
        sharpness: largest eigenvalue of the Hessian, positive.
        momentum: heavy-ball momentum, 0 <= momentum < 1.

    Raises:
        ConfigError: if an argument is outside its range.

    Example:
        >>> diverges_above(4.0)
        0.5
    """
    require(0 <= momentum < 1, f"momentum={momentum}: must be at least 0 and below 1.")
    require(sharpness > 0, f"sharpness={sharpness}: must be positive.")
    return 2 * (1 + momentum) / sharpness
