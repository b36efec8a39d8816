"""Which frequency each neuron has, and how much of it (arXiv 2301.05217, section 4.2)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mi_jax.arrays import Params
from mi_jax.contracts import Context, Measure
from mi_jax.measures.evaluation import shared, table_neurons
from mi_jax.measures.fourier import SOURCE, answer_directions, by_frequency, fourier_basis, frequencies, unembedding_table

CLUSTER_FVE = 0.85
"""The share of a neuron's variance that its frequency must explain for it to count."""

_ROUNDING = 1e-12
"""Relative variance below which a unit counts as constant: float32 centres a constant to about 1e-14."""

_NEEDS = {"roles": ("neurons",), "concepts": ("table", "residues"), "source": SOURCE}


def neuron_shares(activations: Float[Array, "token token_other neuron"]) -> Float[Array, "neuron frequency"]:
    """The share of each neuron's variance over the pairs that functions of one frequency explain.

    With T the 2-D Fourier transform F A F^T of the centred activations A of a neuron: the sum of T_ij^2 over the indices {0, cos
    k, sin k}^2, over that of all T_ij^2. A neuron that never varies has NaN.
    """
    return shares_of_power(jnp.square(components_2d(centred(activations))))


def centred(table: Float[Array, "token token_other unit"]) -> Float[Array, "token token_other unit"]:
    """Each unit's table without its mean; exactly 0 for a unit that varies by no more than its rounding."""
    around = table - table.mean(axis=(0, 1), keepdims=True)
    varies = jnp.square(around).sum(axis=(0, 1)) > _ROUNDING * jnp.square(table).sum(axis=(0, 1))
    return jnp.where(varies[None, None] | ~jnp.isfinite(around), around, 0)


def components_2d(table: Float[Array, "token token_other unit"]) -> Float[Array, "component component_other unit"]:
    """The 2-D Fourier transform F A F^T of each unit's table over the pairs."""
    F = jnp.asarray(fourier_basis(table.shape[0]))
    return jnp.einsum("ia,jb,abn->ijn", F, F, table)


def shares_of_power(power: Float[Array, "component component_other neuron"]) -> Float[Array, "neuron frequency"]:
    """``neuron_shares`` from the squared components of centred activations."""
    p = power.shape[0]
    count = frequencies(p)
    padded = jnp.pad(power, ((0, 2 * count + 1 - p),) * 2 + ((0, 0),))
    blocks = padded[1:, 1:].reshape(count, 2, count, 2, -1)
    own = jnp.einsum("kikjn->kn", blocks)
    own += padded[0, 1:].reshape(count, 2, -1).sum(axis=1) + padded[1:, 0].reshape(count, 2, -1).sum(axis=1)
    return ((own + power[:1, 0]) / power.sum(axis=(0, 1))[None]).T


@shared
def neuron_components(params: Params, context: Context) -> Float[Array, "component component_other neuron"]:
    """``components_2d`` of the model's neurons over all pairs, centred: the constant is 0."""
    return components_2d(centred(table_neurons(params, context)))


@shared
def table_shares(params: Params, context: Context) -> Float[Array, "neuron frequency"]:
    """``neuron_shares`` of the model's neurons over all pairs."""
    return shares_of_power(jnp.square(neuron_components(params, context)))


def neuron_fve() -> Measure:
    """The share of each neuron's variance that its best frequency explains: see ``neuron_shares``."""

    def function(params: Params, context: Context) -> Float[Array, " neuron"]:
        # Not max: XLA would fuse it with the shares, which are rounded otherwise then than in the company of other measures.
        return jax.lax.top_k(table_shares(params, context), 1)[0][:, 0]

    return Measure("neuron_fve", function, ("neuron",), **_NEEDS)


def neuron_frequency() -> Measure:
    """The frequency that explains most of each neuron, from 1 to p // 2; 0 for a neuron that never varies."""

    def function(params: Params, context: Context) -> Int[Array, " neuron"]:
        shares = table_shares(params, context)
        return jnp.where(jnp.isfinite(shares).all(axis=1), 1 + shares.argmax(axis=1), 0)

    return Measure("neuron_frequency", function, ("neuron",), **_NEEDS)


def clustered(shares: Float[Array, "neuron frequency"]) -> Bool[Array, "neuron frequency"]:
    """Which frequency's cluster each neuron is in: its best one, where that explains at least CLUSTER_FVE."""
    best = jnp.arange(shares.shape[1])[None, :] == shares.argmax(axis=1)[:, None]
    return best & (shares >= CLUSTER_FVE)


def cluster_sizes() -> Measure:
    """How many neurons have each frequency and are explained by it to at least .85; all others belong to none."""

    def function(params: Params, context: Context) -> Int[Array, " frequency"]:
        return clustered(table_shares(params, context)).sum(axis=0)

    return Measure("cluster_sizes", function, ("frequency",), options={"fve": CLUSTER_FVE}, **_NEEDS)


def key_frequencies_neurons() -> Measure:
    """The frequencies that have a cluster of neurons (see ``cluster_sizes``): the third published rule, online."""

    def function(params: Params, context: Context) -> Bool[Array, " frequency"]:
        return clustered(table_shares(params, context)).any(axis=0)

    return Measure("key_frequencies_neurons", function, ("frequency",), options={"fve": CLUSTER_FVE, "read": "online"}, **_NEEDS)


def readout_fve() -> Measure:
    """How much of what neurons send to each frequency of the logits lies along cos or sin of that frequency of the answer.

    y = A (W_L F_k), A the neurons' activations over all pairs and F_k the cosine or sine row of F; the share (y^T c_k)^2 /
    ||y||^2 of y centred, with s_k for the sine (table 1 of the paper).
    """

    def function(params: Params, context: Context) -> dict[str, Array]:
        p = context.inputs.classes
        activations = table_neurons(params, context)
        read = activations.reshape(p * p, -1) @ (unembedding_table(params, context).T @ fourier_basis(p)[1:].T)
        read = read - read.mean(axis=0, keepdims=True)
        along = (answer_directions(context) * read.T).sum(axis=1)
        shares = by_frequency(along**2 / jnp.square(read).sum(axis=0), frequencies(p))
        return {"readout_fve_cos": shares[:, 0], "readout_fve_sin": shares[:, 1]}

    return Measure(
        "readout_fve",
        function,
        {"readout_fve_cos": ("frequency",), "readout_fve_sin": ("frequency",)},
        roles=("neurons", "output_map"),
        concepts=("table", "residues", "cyclic_answer"),
        source=SOURCE,
    )
