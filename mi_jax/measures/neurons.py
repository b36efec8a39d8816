"""Which frequency each neuron has, and how much of it (arXiv 2301.05217, section 4.2)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mi_jax.basics.dims import Params
from mi_jax.basics.fourier import by_frequency, fourier_basis, frequencies
from mi_jax.contracts import Context, Measure
from mi_jax.measures.evaluation import shared, table_neurons, table_site
from mi_jax.measures.fourier import SOURCE, answer_components, unembedding_table

CLUSTER_FVE = 0.85
"""The share of a neuron's variance that its frequency must explain for it to count."""

_ROUNDING = 1e-12
"""Relative variance below which a unit counts as constant: float32 centres a constant to about
1e-14.
"""

_NEEDS = {"roles": ("neurons",), "ground_truth": ("table", "residues"), "source": SOURCE}


def neuron_shares(
    activations: Float[Array, "token token_other neuron"],
) -> Float[Array, "neuron frequency"]:
    """The share of each neuron's variance over the pairs that functions of one frequency explain.

    With T the 2-D Fourier transform F A F^T of the centred activations A of a neuron: the sum of
    T_ij^2 over the indices {0, cos k, sin k}^2, over that of all T_ij^2, which is that of A^2. A
    neuron that never varies has NaN.
    """
    return _shares(frequency_blocks(activations), centred(activations).power)


class Centred(NamedTuple):
    """Each unit's table without its mean, and the sum of its squares; 0 for a unit that varies by
    no more than its rounding.
    """

    around: Float[Array, "token token_other unit"]
    power: Float[Array, " unit"]


def centred(table: Float[Array, "token token_other unit"]) -> Centred:
    """See ``Centred``."""
    mean = table.mean(axis=(0, 1))
    around = table - mean[None, None]
    power = jnp.square(around).sum(axis=(0, 1))
    constant = power <= _ROUNDING * (power + table.shape[0] * table.shape[1] * mean**2)
    return Centred(around, jnp.where(constant, 0, power))


def shares_of(components: Float[Array, "..."], power: Float[Array, "*unit"]) -> Float[Array, "..."]:
    """The share of each unit's power that lies along its components [... unit]; NaN for a unit that
    never varies.
    """
    power = jnp.broadcast_to(power, components.shape)
    return jnp.where(power == 0, 0, jnp.square(components)) / power


def frequency_blocks(
    table: Float[Array, "token token_other unit"],
) -> Float[Array, "frequency part part_other unit"]:
    """Of each unit's 2-D Fourier transform F A F^T, what belongs to one frequency: the indices {0,
    cos k, sin k}^2.

    All p^2 components are never formed: of the second transform a component needs three rows. 0 for
    the constant, which all frequencies share, and where an even p has no sine.
    """
    p = table.shape[0]
    F = jnp.asarray(fourier_basis(p))
    along = jnp.einsum("ia,abn->ibn", F, table)
    constant = by_frequency(F[1:] @ along[0], frequencies(p))
    both = by_frequency((jnp.asarray(_waves(p)) @ along)[1:], frequencies(p))
    first = jnp.pad(constant, ((0, 0), (1, 0), (0, 0)))
    return jnp.concatenate([first[:, None], both], axis=1)


def from_blocks(
    blocks: Float[Array, "frequency part part_other unit"], p: int
) -> Float[Array, "token token_other unit"]:
    """The tables whose components are these, without a constant."""
    F, units = jnp.asarray(fourier_basis(p)), blocks.shape[-1]
    constant = F[1:].T @ blocks[:, 0, 1:].reshape(-1, units)[: p - 1]
    both = _waves(p)[1:].transpose(0, 2, 1) @ blocks[:, 1:].reshape(-1, 3, units)[: p - 1]
    return jnp.einsum("ia,ibn->abn", F, jnp.concatenate([constant[None], both]))


def _waves(p: int) -> Float[np.ndarray, "component part token"]:
    """For every component the rows 1, cos k and sin k of F, k being its frequency (0 for one that
    isn't there).
    """
    F = fourier_basis(p)
    rows = np.concatenate(
        [np.zeros((1, p), F.dtype), F[1:], np.zeros((2 * frequencies(p) - (p - 1), p), F.dtype)]
    )
    k = (np.arange(p) + 1) // 2
    return np.stack(
        [np.broadcast_to(F[0], (p, p)), rows[np.maximum(2 * k - 1, 0)], rows[2 * k]], axis=1
    )


def _shares(
    blocks: Float[Array, "frequency part part_other neuron"], power: Float[Array, " neuron"]
) -> Float[Array, "neuron frequency"]:
    return shares_of(blocks, power).sum(axis=(1, 2)).T


@shared
def neuron_blocks(
    params: Params, context: Context
) -> Float[Array, "frequency part part_other neuron"]:
    """``frequency_blocks`` of the model's neurons over all pairs."""
    return frequency_blocks(table_neurons(params, context))


@shared
def table_shares(params: Params, context: Context) -> Float[Array, "neuron frequency"]:
    """``neuron_shares`` of the model's neurons over all pairs."""
    return _shares(neuron_blocks(params, context), centred(table_neurons(params, context)).power)


@shared
def read_out(params: Params, context: Context) -> Float[Array, "pair class"]:
    """A W_L: what the neurons send to each logit, over all pairs."""
    added = context.model.roles.neurons_added
    if added is not None:
        site, read = added
        return read(params, table_site(params, context, site)[:, :, 0]).reshape(
            -1, context.inputs.classes
        )
    table = table_neurons(params, context)
    return table.reshape(-1, table.shape[-1]) @ unembedding_table(params, context).T


def neuron_fve() -> Measure:
    """The share of each neuron's variance that its best frequency explains: see ``neuron_shares``."""

    def function(params: Params, context: Context) -> Float[Array, " neuron"]:
        # Not max: XLA would fuse it with the shares, which are rounded otherwise then than in the
        # company of other measures.
        return jax.lax.top_k(table_shares(params, context), 1)[0][:, 0]

    return Measure("neuron_fve", function, ("neuron",), **_NEEDS)


def neuron_frequency() -> Measure:
    """The frequency that explains most of each neuron, from 1 to p // 2; 0 for a neuron that never
    varies.
    """

    def function(params: Params, context: Context) -> Int[Array, " neuron"]:
        shares = table_shares(params, context)
        return jnp.where(jnp.isfinite(shares).all(axis=1), 1 + shares.argmax(axis=1), 0)

    return Measure("neuron_frequency", function, ("neuron",), **_NEEDS)


def clustered(shares: Float[Array, "neuron frequency"]) -> Bool[Array, "neuron frequency"]:
    """Which frequency's cluster each neuron is in: its best one, where that explains at least
    CLUSTER_FVE.
    """
    best = jnp.arange(shares.shape[1])[None, :] == shares.argmax(axis=1)[:, None]
    return best & (shares >= CLUSTER_FVE)


def cluster_sizes() -> Measure:
    """How many neurons have each frequency and are explained by it to at least .85; all others
    belong to none.
    """

    def function(params: Params, context: Context) -> Int[Array, " frequency"]:
        return clustered(table_shares(params, context)).sum(axis=0)

    return Measure(
        "cluster_sizes", function, ("frequency",), options={"fve": CLUSTER_FVE}, **_NEEDS
    )


def key_frequencies_neurons() -> Measure:
    """The frequencies that have a cluster of neurons (see ``cluster_sizes``): the third published
    rule, online.
    """

    def function(params: Params, context: Context) -> Bool[Array, " frequency"]:
        return clustered(table_shares(params, context)).any(axis=0)

    return Measure(
        "key_frequencies_neurons",
        function,
        ("frequency",),
        options={"fve": CLUSTER_FVE, "read": "online"},
        **_NEEDS,
    )


def readout_fve() -> Measure:
    """How much of what neurons send to each frequency of the logits lies along cos or sin of that
    frequency of the answer.

    y = A (W_L F_k), A the neurons' activations over all pairs and F_k the cosine or sine row of F;
    the share (y^T c_k)^2 / ||y||^2 of y centred, with s_k for the sine (table 1 of the paper).
    """

    def function(params: Params, context: Context) -> dict[str, Array]:
        p = context.inputs.classes
        read = read_out(params, context) @ fourier_basis(p)[1:].T
        read = read - read.mean(axis=0, keepdims=True)
        along = jnp.diagonal(answer_components(read, context))
        shares = by_frequency(along**2 / jnp.square(read).sum(axis=0), frequencies(p))
        return {"readout_fve_cos": shares[:, 0], "readout_fve_sin": shares[:, 1]}

    return Measure(
        "readout_fve",
        function,
        {"readout_fve_cos": ("frequency",), "readout_fve_sin": ("frequency",)},
        roles=("neurons", "output_map"),
        ground_truth=("table", "residues", "cyclic_answer"),
        source=SOURCE,
    )
