"""Curvature of a loss: top Hessian eigenvalues and spectral density by Lanczos, trace by
Hutchinson's estimator.

The Hessian is only ever multiplied by vectors: one product costs about two gradients.
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
    """The Hessian as seen from one start vector: eigenvalues of the tridiagonal matrix, and where
    they sit.
    """

    values: Float[Array, " order"]
    """Ritz values, falling. The outermost near the Hessian's own first."""
    weights: Float[Array, " order"]
    """The squared share of the start vector along each: they sum to 1."""
    residuals: Float[Array, " order"]
    """|H y - value y| of the Ritz vector y: an eigenvalue lies within it. 0 where the space is
    exhausted.
    """


def hessian_product(loss: Loss, params: Params) -> tuple[Product, Float[Array, " parameter"]]:
    """v -> H v on flat vectors of the parameters' dtype, and the parameters as one of them."""
    found = jax.eval_shape(loss, params)
    require(
        isinstance(found, jax.ShapeDtypeStruct) and found.shape == (),
        f"the loss gives {found} in place of one number",
    )
    flat, unravel = ravel_pytree(params)
    gradient = jax.grad(lambda w: loss(unravel(w)))
    return lambda v: jax.jvp(gradient, (flat,), (v,))[1], flat


def lanczos(product: Product, start: Float[Array, " parameter"], order: int) -> Lanczos:
    """Lanczos with full reorthogonalisation: every new vector is cleared of all before it, twice.

    Without it, rounding brings back eigenvalues that were found before ("ghosts"). A space that is
    exhausted before the order is reached is left for a direction outside it, of weight 0: so order
    = the number of parameters gives all eigenvalues, equal ones as often as they are there.

    Args:
        product: v -> H v, H symmetric. start: any vector but 0. order: at most the number of
            parameters.
    """
    require(
        1 <= order <= start.size,
        f"order={order}; 1 to the number of parameters ({start.size}) is allowed",
    )
    basis = (
        jnp.zeros((order + 1, start.size), start.dtype).at[0].set(start / jnp.linalg.norm(start))
    )
    tiny, key = jnp.finfo(start.dtype).eps, jax.random.key(0)

    def cleared(v: Any, basis: Any) -> Any:
        for _ in range(2):
            v = v - basis.T @ (basis @ v)
        return v

    def elsewhere(basis: Any, i: Any) -> Any:
        v = cleared(jax.random.normal(jax.random.fold_in(key, i), start.shape, start.dtype), basis)
        size = jnp.linalg.norm(v)
        # Nothing is outside once the basis is complete, which only the last step finds.
        return jnp.where(size > tiny * start.size, v / size, 0)

    def _step(carry: tuple[Any, Any], i: Any) -> tuple[Any, Any]:
        basis, scale = carry
        v = basis[i]
        Hv = product(v)
        alpha, scale = v @ Hv, jnp.maximum(scale, jnp.linalg.norm(Hv))
        rest = cleared(Hv, basis)
        beta = jnp.linalg.norm(rest)
        alive = beta > 10 * tiny * scale
        new = jax.lax.cond(alive, lambda: rest / beta, lambda: elsewhere(basis, i))
        return (basis.at[i + 1].set(new), scale), (alpha, jnp.where(alive, beta, 0))

    _, (alphas, betas) = jax.lax.scan(_step, (basis, jnp.zeros((), start.dtype)), jnp.arange(order))
    T = jnp.diag(alphas) + jnp.diag(betas[:-1], 1) + jnp.diag(betas[:-1], -1)
    values, vectors = jnp.linalg.eigh(T)
    return Lanczos(values[::-1], vectors[0, ::-1] ** 2, jnp.abs(betas[-1] * vectors[-1, ::-1]))


def top_eigenvalues(
    loss: Loss, params: Params, *, most: int = 1, order: int = 30, key: PRNGKey
) -> Float[Array, " mode"]:
    """The ``most`` largest (most positive) Hessian eigenvalues, falling; the first is the
    sharpness.

    Args:
        order: Hessian products; more bring the values nearer, from below. Cut at the number of
            parameters.
    """
    require(1 <= most <= order, f"most={most}, order={order}; 1 <= most <= order is needed")
    product, flat = hessian_product(loss, params)
    require(most <= flat.size, f"most={most}; there are only {flat.size} parameters")
    return lanczos(
        product, jax.random.normal(key, flat.shape, flat.dtype), min(order, flat.size)
    ).values[:most]


class Density(NamedTuple):
    """The spectral density of a Hessian on a grid, smoothed."""

    at: Float[Array, " grid"]
    density: Float[Array, " grid"]
    """Integrates to 1 over eigenvalues."""


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
    """Stochastic Lanczos quadrature: sum_i weight_i N(value_i, sigma^2), averaged over probes
    (arXiv 1901.10159).

    Args:
        width: sigma, as a share of the range of the values found, or, where they (nearly) agree, of
            a tenth of their size (of 1 where all are 0): narrower bells couldn't be told from
            rounding.
    """
    require(
        probes >= 1 and points >= 2,
        f"probes={probes}, points={points}; at least 1 and 2 are needed",
    )
    require(width > 0, f"width={width}; a positive share of the range is needed")
    product, flat = hessian_product(loss, params)
    starts = jax.random.normal(key, (probes, flat.size), flat.dtype)
    found = jax.lax.map(lambda start: lanczos(product, start, min(order, flat.size)), starts)
    low, high = found.values.min(), found.values.max()
    spread = jnp.maximum(high - low, jnp.maximum(jnp.abs(high), jnp.abs(low)) / 10)
    sigma = width * jnp.where(spread > 0, spread, 1)
    at = jnp.linspace(low - 4 * sigma, high + 4 * sigma, points)
    bells = jnp.exp(-(((at[:, None, None] - found.values[None]) / sigma) ** 2) / 2) / (
        sigma * jnp.sqrt(2 * jnp.pi)
    )
    return Density(at, (bells * found.weights[None]).sum(axis=2).mean(axis=1))


class Trace(NamedTuple):
    """A Hessian's trace, and the standard error over probes."""

    trace: Scalar
    standard_error: Scalar


def hessian_trace(loss: Loss, params: Params, *, probes: int = 32, key: PRNGKey) -> Trace:
    """Hutchinson's estimator: the mean of v . H v over random signs v; exact for a diagonal
    Hessian.
    """
    require(probes >= 2, f"probes={probes}; at least 2 are needed for an error")
    product, flat = hessian_product(loss, params)
    signs = jax.random.rademacher(key, (probes, flat.size), flat.dtype)
    values = jax.lax.map(lambda v: v @ product(v), signs)
    return Trace(values.mean(), values.std(ddof=1) / jnp.sqrt(probes))


def diverges_above(sharpness: float, *, momentum: float = 0.0) -> float:
    """The learning rate past which gradient descent diverges on a quadratic: 2 (1 + momentum) /
    sharpness.
    """
    require(0 <= momentum < 1, f"momentum={momentum}; 0 <= momentum < 1 is needed")
    require(sharpness > 0, f"sharpness={sharpness}; a positive curvature is needed")
    return 2 * (1 + momentum) / sharpness
