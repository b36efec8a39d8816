"""Which frequency each neuron has, and how much of it (arXiv 2301.05217, section 4.2)."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mi_jax.arrays import Params
from mi_jax.contracts import Context, Measure
from mi_jax.measures.evaluation import table_neurons
from mi_jax.measures.fourier import SOURCE, fourier_basis, frequencies

_NEEDS = {"roles": ("neurons",), "concepts": ("table", "cyclic_answer"), "source": SOURCE}


def neuron_shares(activations: Float[Array, "token token_other neuron"]) -> Float[Array, "neuron frequency"]:
    """The share of each neuron's variance over the pairs that functions of one frequency explain.

    With T the 2-D Fourier transform F A F^T of the centred activations A of a neuron: the sum of T_ij^2 over the indices {0, cos
    k, sin k}^2, over that of all T_ij^2. A neuron that never varies has NaN.
    """
    p, F = activations.shape[0], fourier_basis(activations.shape[0])
    centred = activations - activations.mean(axis=(0, 1), keepdims=True)
    power = jnp.square(jnp.einsum("ia,jb,abn->ijn", F, F, centred))
    count = frequencies(p)
    padded = jnp.pad(power, ((0, 2 * count + 1 - p),) * 2 + ((0, 0),))
    blocks = padded[1:, 1:].reshape(count, 2, count, 2, -1)
    own = jnp.einsum("kikjn->kn", blocks)
    own += padded[0, 1:].reshape(count, 2, -1).sum(axis=1) + padded[1:, 0].reshape(count, 2, -1).sum(axis=1)
    return ((own + power[:1, 0]) / power.sum(axis=(0, 1))[None]).T


def neuron_fve() -> Measure:
    """The share of each neuron's variance that its best frequency explains: see ``neuron_shares``."""

    def function(params: Params, context: Context) -> Float[Array, " neuron"]:
        return neuron_shares(table_neurons(params, context)).max(axis=1)

    return Measure("neuron_fve", function, ("neuron",), **_NEEDS)


def neuron_frequency() -> Measure:
    """The frequency that explains most of each neuron, from 1 to p // 2; 0 for a neuron that never varies."""

    def function(params: Params, context: Context) -> Int[Array, " neuron"]:
        shares = neuron_shares(table_neurons(params, context))
        return jnp.where(jnp.isfinite(shares).all(axis=1), 1 + shares.argmax(axis=1), 0)

    return Measure("neuron_frequency", function, ("neuron",), **_NEEDS)
