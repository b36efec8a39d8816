"""Localised stochastic gradient Langevin dynamics (SGLD), plain or with RMSProp, as an Estimator.

A chain samples exp(-n_beta L(w) - gamma/2 |w - w*|^2) around its start w* (Lau et al., arXiv
2308.12108):

    w <- w - epsilon/2 G (n_beta grad L_batch(w) + gamma (w - w*)) + sqrt(epsilon G) xi

with xi ~ N(0, 1), and G = 1 for plain dynamics. There is no Metropolis step and epsilon never
decays, so that the mean over a chain has a bias that grows with epsilon; ``discretisation_bias``
estimates it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree

from mi_jax.basics.dims import Number, Params, PRNGKey, Scalar
from mi_jax.basics.errors import ConfigError
from mi_jax.contracts import Estimator
from mi_jax.landscape.settings import RMSProp, SGLDSettings, settings_of_call

BatchLoss = Callable[[Params, PyTree], Scalar]
"""Function (params, batch) -> mean loss per example."""


class _Move(NamedTuple):
    """The step that led to the present position, kept for the acceptance of a Metropolis step.

    Attributes:
        noise: the noise that was added, sqrt(epsilon G) xi.
        force: gradient of the sampled energy before the step.
        energy: sampled energy before the step; NaN at the start.
    """

    noise: Float[Array, " parameter"]
    force: Float[Array, " parameter"]
    energy: Scalar


class SamplerState(NamedTuple):
    """State of one chain.

    Attributes:
        start: flat parameters w* at which the chain started.
        position: flat parameters now.
        done: steps taken.
        second_moment: V of the preconditioner, per parameter; zeros without one.
        move: the step that led to ``position``.
        means: running means over the draws, the steps from ``burn_in`` on.
    """

    start: Float[Array, " parameter"]
    position: Float[Array, " parameter"]
    done: Int[Array, ""]
    second_moment: Float[Array, " parameter"]
    move: _Move
    means: "Info"


class Info(NamedTuple):
    """Values at a position, computed before the chain moves on.

    Attributes:
        loss: L at the position, on the batch of the step, in nats.
        distance: |w - w*|.
        acceptance: probability that a Metropolis step (MALA) would have accepted the move to the
            position; NaN at the start and with RMSProp.
        discretisation_bias: epsilon/8 n_beta (G grad L) . grad U, with grad U = n_beta grad L +
            gamma (w - w*): the part of n_beta L that is due to finite steps. Its mean is exact on
            a quadratic.
    """

    loss: Scalar
    distance: Scalar
    acceptance: Scalar
    discretisation_bias: Scalar


class ChainMeans(NamedTuple):
    """Means of ``Info`` over the draws of a chain.

    Attributes:
        loss: mean loss, in nats.
        distance: mean distance to the start.
        acceptance: mean acceptance of a Metropolis step.
        discretisation_bias: mean part of n_beta L that is due to finite steps.
        draws: number of draws; the means are NaN if it is 0.
    """

    loss: Scalar
    distance: Scalar
    acceptance: Scalar
    discretisation_bias: Scalar
    draws: Int[Array, ""]


def sgld(
    loss: BatchLoss,
    template: Params,
    settings: SGLDSettings | None = None,
    *,
    mask: Bool[Array | np.ndarray, " parameter"] | None = None,
    **options: Any,
) -> Estimator:
    """Localised SGLD as an Estimator: ``init(key, start)``, ``step(key, state, batch)``,
    ``result(state)``.

    Args:
        loss: ``(params, batch) -> mean loss per example``, in nats.
        template: parameters, or their shapes, of the structure that is sampled.
        settings: n_beta (which must be set), gamma, epsilon, burn_in and preconditioner of the
            chain; the other fields are not used. Draw t of ``result`` is what step
            burn_in + t + 1 sees before it moves.
        mask: which entries of the flat parameters are sampled; the others keep their bits. None
            samples all.
        options: deprecated: fields of ``SGLDSettings`` one by one, with burn_in=0 by default.

    Returns:
        The Estimator; ``step`` returns the new ``SamplerState`` and ``Info``, ``result`` returns
        ``ChainMeans``.

    Raises:
        ConfigError: if settings are missing, or n_beta is None.

    Reference:
        arXiv 2308.12108
    """
    settings = settings_of_call(
        "sgld", settings, options, required=("n_beta", "gamma", "epsilon"), burn_in=0
    )
    if settings.n_beta is None:
        raise ConfigError(
            "sgld needs n_beta. The settings leave it at None, and a sampler does not know the"
            " number of examples. Pass SGLDSettings(n_beta=...)."
        )
    n_beta, gamma, epsilon = settings.n_beta, settings.gamma, settings.epsilon
    burn_in, preconditioner = settings.burn_in, settings.preconditioner
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), template)
    unravel = ravel_pytree(zeros)[1]
    gradient = jax.value_and_grad(lambda w, batch: loss(unravel(w), batch))

    def init(key: PRNGKey, start: Params) -> SamplerState:
        w, nan = ravel_pytree(start)[0], jnp.float32(jnp.nan)
        nothing = jnp.zeros_like(w)
        zero = jnp.zeros((), w.dtype)
        means = Info(zero, zero, zero, zero)
        move = _Move(nothing, nothing, nan.astype(w.dtype))
        return SamplerState(w, w, jnp.int32(0), nothing, move, means)

    def step(key: PRNGKey, state: SamplerState, batch: PyTree) -> tuple[SamplerState, Info]:
        w, away = state.position, state.position - state.start
        value, slope = gradient(w, batch)
        slope = slope if mask is None else jnp.where(mask, slope, 0)
        V, G = _preconditioned(preconditioner, state.second_moment, slope)
        force = n_beta * slope + gamma * away
        energy = n_beta * value + gamma / 2 * away @ away
        noise = jnp.sqrt(epsilon * G) * jax.random.normal(key, w.shape, w.dtype)
        noise = noise if mask is None else jnp.where(mask, noise, 0)
        new = w - epsilon / 2 * G * force + noise
        if preconditioner:
            acceptance = jnp.float32(jnp.nan).astype(w.dtype)
        else:
            acceptance = _acceptance(state.move, force, energy, epsilon)
        info = Info(
            value,
            jnp.sqrt(away @ away),
            acceptance,
            epsilon / 8 * n_beta * (G * slope) @ force,
        )
        moved = state._replace(
            # A masked entry keeps its bits: w - 0 + 0 would lose -0.0, and an infinite w gives NaN.
            position=new if mask is None else jnp.where(mask, new, w),
            done=state.done + 1,
            second_moment=V,
            move=_Move(noise, force, energy),
            means=_averaged(state, info, burn_in),
        )
        return moved, info

    def result(state: SamplerState) -> ChainMeans:
        draws = jnp.maximum(state.done - burn_in, 0)
        loss, distance, accepted, bias = (
            jnp.where(draws > 0, mean, jnp.nan) for mean in state.means
        )
        return ChainMeans(loss, distance, accepted, bias, draws)

    return Estimator(init, step, result)


def _preconditioned(preconditioner: RMSProp | None, V: Any, slope: Any) -> tuple[Any, Any]:
    """RMSProp's preconditioner of this step.

    Returns:
        V, the second moment with this gradient included, and the factor G = 1 / (sqrt(V) + eps) on
        the step; without a preconditioner V as it was, and 1.
    """
    if preconditioner is None:
        return V, jnp.ones((), slope.dtype)
    V = preconditioner.alpha * V + (1 - preconditioner.alpha) * slope**2
    return V, 1 / (jnp.sqrt(V) + preconditioner.eps)


def _acceptance(
    move: _Move, force: Float[Array, " parameter"], energy: Scalar, epsilon: Number | int
) -> Scalar:
    """Acceptance probability min(1, q(b -> a) p(b) / (q(a -> b) p(a))) of the move a -> b in MALA.

    With s the sum of the forces at a and b,

        log q(b -> a) - log q(a -> b) = noise . s / 2 - epsilon |s|^2 / 8

    The right-hand side needs no difference of two large squared norms, which would cancel in
    float32.
    """
    s = move.force + force
    return jnp.exp(
        jnp.minimum(0.0, move.noise @ s / 2 - epsilon / 8 * s @ s + move.energy - energy)
    )


def _averaged(state: SamplerState, info: Info, burn_in: int) -> Info:
    """Running means over the draws, with this step included if it is a draw.

    The NaN acceptance of the start does not count.

    Returns:
        The mean loss, distance, acceptance and discretisation bias.
    """
    rank = state.done - burn_in

    def mean(old: Scalar, new: Scalar, first: int = 0) -> Scalar:
        return jnp.where(rank < first, old, old + (new - old) / jnp.maximum(rank + 1 - first, 1))

    old = state.means
    return Info(
        mean(old.loss, info.loss),
        mean(old.distance, info.distance),
        # Without burn-in the first draw is the start itself, which no move led to.
        mean(old.acceptance, info.acceptance, first=int(burn_in == 0)),
        mean(old.discretisation_bias, info.discretisation_bias),
    )
