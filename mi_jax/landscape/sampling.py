"""Localised stochastic gradient Langevin dynamics, plain or RMSProp-preconditioned, as an
Estimator.

A chain samples exp(-n_beta L(w) - gamma/2 |w - w*|^2) around its start w* (Lau et al., arXiv
2308.12108):

    w <- w - epsilon/2 G (n_beta grad L_batch(w) + gamma (w - w*)) + sqrt(epsilon G) xi,   xi ~ N(0,
    1)

with G = 1 for plain dynamics. There is no Metropolis step and epsilon never decays, so that a chain
is off by an amount that grows with epsilon; ``discretisation_bias`` says by how much.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree

from mi_jax.basics.dims import Number, Params, PRNGKey, Scalar
from mi_jax.basics.errors import require
from mi_jax.contracts import Estimator

BatchLoss = Callable[[Params, PyTree], Scalar]
"""(params, batch) -> the mean loss per example."""


@dataclass(frozen=True)
class RMSProp:
    """G = 1 / (sqrt(V) + eps), V <- alpha V + (1 - alpha) (grad L)^2 from V = 0 (arXiv 2507.21449,
    as in devinterp 1.3.2).

    The localisation is not in V, and the drift that the change of G would need for an exact
    posterior is left out, as published.
    """

    alpha: float = 0.99
    eps: float = 0.1

    def __post_init__(self) -> None:
        require(0 <= self.alpha < 1, f"RMSProp: alpha={self.alpha}; 0 <= alpha < 1 is needed")
        require(self.eps > 0, f"RMSProp: eps={self.eps}; a positive number is needed")


class _Move(NamedTuple):
    """The step that led here, which the acceptance of a Metropolis step would judge; energy is NaN
    at the start.
    """

    noise: Float[Array, " parameter"]
    force: Float[Array, " parameter"]
    energy: Scalar


class SamplerState(NamedTuple):
    """A chain: where it started, where it is, and running means over its draws (the steps from
    ``burn_in`` on).
    """

    start: Float[Array, " parameter"]
    position: Float[Array, " parameter"]
    done: Int[Array, ""]
    """Steps taken."""
    second_moment: Float[Array, " parameter"]
    move: _Move
    means: "Info"


class Info(NamedTuple):
    """What a step saw before it moved."""

    loss: Scalar
    """L at the position, on the step's batch."""
    distance: Scalar
    """|w - w*|."""
    acceptance: Scalar
    """The chance that a Metropolis step would have accepted the move that led here; NaN at the
    start and with RMSProp.
    """
    discretisation_bias: Scalar
    """epsilon/8 G n_beta grad L . grad U: how much of n_beta L is due to finite steps; exact in the
    mean on a quadratic.
    """


class ChainMeans(NamedTuple):
    """The means of Info over a chain's draws."""

    loss: Scalar
    distance: Scalar
    acceptance: Scalar
    discretisation_bias: Scalar
    draws: Int[Array, ""]


def sgld(
    loss: BatchLoss,
    template: Params,
    *,
    n_beta: Number | int,
    gamma: Number | int,
    epsilon: Number | int,
    burn_in: int = 0,
    mask: Bool[Array | np.ndarray, " parameter"] | None = None,
    preconditioner: RMSProp | None = None,
) -> Estimator:
    """Localised SGLD of ``loss(params, batch)`` as ``init(key, start)``, ``step(key, state,
    batch)``, ``result(state)``.

    Args:
        template: parameters (or their shapes) of the structure that is sampled.
        n_beta: the number of examples times the inverse temperature. gamma: the pull back to the
            start. epsilon: the step size.
        burn_in: the first steps, which ``result`` doesn't count: draw t is what step burn_in + t +
            1 sees before it moves.
        mask: by flat parameter, whether it is sampled; the others keep their bits.
    """
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), template)
    unravel = ravel_pytree(zeros)[1]
    gradient = jax.value_and_grad(lambda w, batch: loss(unravel(w), batch))

    def init(key: PRNGKey, start: Params) -> SamplerState:
        w, nan = ravel_pytree(start)[0], jnp.float32(jnp.nan)
        nothing = jnp.zeros_like(w)
        zero = jnp.zeros((), w.dtype)
        means = Info(zero, zero, zero, zero)
        return SamplerState(
            w, w, jnp.int32(0), nothing, _Move(nothing, nothing, nan.astype(w.dtype)), means
        )

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
        info = Info(
            value,
            jnp.sqrt(away @ away),
            (
                jnp.float32(jnp.nan).astype(w.dtype)
                if preconditioner
                else _acceptance(state.move, force, energy, epsilon)
            ),
            epsilon / 8 * n_beta * (G * slope) @ force,
        )
        moved = state._replace(
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
    """The second moment after this gradient, and G."""
    if preconditioner is None:
        return V, jnp.ones((), slope.dtype)
    V = preconditioner.alpha * V + (1 - preconditioner.alpha) * slope**2
    return V, 1 / (jnp.sqrt(V) + preconditioner.eps)


def _acceptance(
    move: _Move, force: Float[Array, " parameter"], energy: Scalar, epsilon: Number | int
) -> Scalar:
    """min(1, q(here -> before) p(here) / q(before -> here) p(before)), the chance to be accepted by
    MALA.

    log q(b -> a) - log q(a -> b) = noise . s / 2 - epsilon |s|^2 / 8 with s the sum of both forces:
    no difference of large norms.
    """
    s = move.force + force
    return jnp.exp(
        jnp.minimum(0.0, move.noise @ s / 2 - epsilon / 8 * s @ s + move.energy - energy)
    )


def _averaged(state: SamplerState, info: Info, burn_in: int) -> Info:
    """The running means with this step's values, from step ``burn_in`` on; a NaN acceptance of the
    start is left out.
    """
    rank = state.done - burn_in

    def mean(old: Scalar, new: Scalar, first: int = 0) -> Scalar:
        return jnp.where(rank < first, old, old + (new - old) / jnp.maximum(rank + 1 - first, 1))

    old = state.means
    return Info(
        mean(old.loss, info.loss),
        mean(old.distance, info.distance),
        # The first step of all has no move behind it.
        mean(old.acceptance, info.acceptance, first=int(burn_in == 0)),
        mean(old.discretisation_bias, info.discretisation_bias),
    )
