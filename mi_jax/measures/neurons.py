"""Frequency of each neuron, and the share that it explains (arXiv 2301.05217, section 4.2)."""

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
"""Share of variance from which on a neuron belongs to the cluster of its best frequency."""

_ROUNDING = 1e-12
"""Relative variance below which a unit counts as constant: centring a constant in float32 leaves
about 1e-14.
"""

_NEEDS = {"roles": ("neurons",), "ground_truth": ("table", "residues"), "source": SOURCE}


# --- Shares of variance


class Centred(NamedTuple):
    """Table of each unit without its mean, and the sum of its squares.

    The power is 0 for a unit that varies by no more than its rounding error.
    """

    around: Float[Array, "token token_other unit"]
    power: Float[Array, " unit"]


def centred_units(table: Float[Array, "token token_other unit"]) -> Centred:
    """Centre the table of each unit (see ``Centred``)."""
    mean = table.mean(axis=(0, 1))
    around = table - mean[None, None]
    power = jnp.square(around).sum(axis=(0, 1))
    # Without this test the share of a constant unit would be a ratio of rounding errors.
    constant = power <= _ROUNDING * (power + table.shape[0] * table.shape[1] * mean**2)
    return Centred(around, jnp.where(constant, 0, power))


def shares_of(components: Float[Array, "..."], power: Float[Array, "*unit"]) -> Float[Array, "..."]:
    """Share of each unit's power in each of its components; NaN for a unit that never varies.

    Args:
        components: amplitudes with the unit on the last axes.
        power: sum of squares of each unit, as in ``Centred``.
    """
    power = jnp.broadcast_to(power, components.shape)
    return jnp.where(power == 0, 0, jnp.square(components)) / power


def frequency_blocks(
    table: Float[Array, "token token_other unit"],
) -> Float[Array, "frequency part part_other unit"]:
    """Blocks {0, cos k, sin k} x {0, cos k, sin k} of each unit's 2-D Fourier transform F A F^T.

    The entry of the constant, which all frequencies share, is 0, as are the entries of the sine
    that an even p lacks at its last frequency.
    """
    p = table.shape[0]
    F = jnp.asarray(fourier_basis(p))
    # Not all p^2 components are formed: each row of the first transform needs three rows of the
    # second one.
    along = jnp.einsum("ia,abn->ibn", F, table)
    constant = by_frequency(F[1:] @ along[0], frequencies(p))
    both = by_frequency((jnp.asarray(_waves(p)) @ along)[1:], frequencies(p))
    first = jnp.pad(constant, ((0, 0), (1, 0), (0, 0)))
    return jnp.concatenate([first[:, None], both], axis=1)


def from_blocks(
    blocks: Float[Array, "frequency part part_other unit"], p: int
) -> Float[Array, "token token_other unit"]:
    """Tables over pairs with the given blocks, without a constant: inverse of ``frequency_blocks``.

    Args:
        blocks: as from ``frequency_blocks``.
        p: number of tokens.
    """
    F, units = jnp.asarray(fourier_basis(p)), blocks.shape[-1]
    constant = F[1:].T @ blocks[:, 0, 1:].reshape(-1, units)[: p - 1]
    both = _waves(p)[1:].transpose(0, 2, 1) @ blocks[:, 1:].reshape(-1, 3, units)[: p - 1]
    return jnp.einsum("ia,ibn->abn", F, jnp.concatenate([constant[None], both]))


def _waves(p: int) -> Float[np.ndarray, "component part token"]:
    """Rows 1, cos k and sin k of F for every component, k its frequency.

    Rows of a wave that does not exist, such as the sine of frequency p / 2, are 0.
    """
    F = fourier_basis(p)
    rows = np.concatenate(
        [np.zeros((1, p), F.dtype), F[1:], np.zeros((2 * frequencies(p) - (p - 1), p), F.dtype)]
    )
    k = (np.arange(p) + 1) // 2
    return np.stack(
        [np.broadcast_to(F[0], (p, p)), rows[np.maximum(2 * k - 1, 0)], rows[2 * k]], axis=1
    )


# --- The neurons of the model


@shared
def neuron_blocks(
    params: Params, context: Context
) -> Float[Array, "frequency part part_other neuron"]:
    """``frequency_blocks`` of the model's neurons over all pairs."""
    return frequency_blocks(table_neurons(params, context))


@shared
def table_shares(params: Params, context: Context) -> Float[Array, "neuron frequency"]:
    """Share of each neuron's variance over the pairs that functions of one frequency explain.

    T = F A F^T is the 2-D Fourier transform of a neuron's centred activations A. The share of
    frequency k is the sum of T_ij^2 over the indices i, j in {0, cos k, sin k}, divided by the sum
    of all T_ij^2, which equals that of all A_ab^2. NaN for a neuron that never varies.
    """
    power = centred_units(table_neurons(params, context)).power
    return shares_of(neuron_blocks(params, context), power).sum(axis=(1, 2)).T


@shared
def read_out(params: Params, context: Context) -> Float[Array, "pair class"]:
    """A W_L for all pairs: what the neurons with activations A add to each logit."""
    added = context.model.roles.neurons_added
    if added is not None:
        site, read = added
        return read(params, table_site(params, context, site)[:, :, 0]).reshape(
            -1, context.inputs.classes
        )
    table = table_neurons(params, context)
    return table.reshape(-1, table.shape[-1]) @ unembedding_table(params, context).T


# --- Measures


def neuron_fve() -> Measure:
    """Share of each neuron's variance that its best frequency explains.

    max_k of ``table_shares``, over all pairs. Near 1 a neuron is a function of a
    single frequency (FVE: fraction of variance explained; arXiv 2301.05217).

    Returns:
        A Measure with ``neuron_fve`` of dims (neuron), shares from 0 to 1; NaN for a neuron that
        never varies. It needs the role ``neurons`` and a task on all pairs of residues.
    """

    def _neuron_fve(params: Params, context: Context) -> Float[Array, " neuron"]:
        # top_k instead of max: XLA would fuse max with the shares, and their rounding would depend
        # on which other measures are read.
        return jax.lax.top_k(table_shares(params, context), 1)[0][:, 0]

    return Measure("neuron_fve", _neuron_fve, ("neuron",), **_NEEDS)


def neuron_frequency() -> Measure:
    """Frequency that explains most of each neuron's variance over all pairs.

    Neurons with the same frequency form a cluster (arXiv 2301.05217); read it with ``neuron_fve``,
    which says how much the frequency explains.

    Returns:
        A Measure with ``neuron_frequency`` of dims (neuron), integers from 1 to p // 2; 0 for a
        neuron that never varies. It needs the role ``neurons`` and a task on all pairs of residues.
    """

    def _neuron_frequency(params: Params, context: Context) -> Int[Array, " neuron"]:
        shares = table_shares(params, context)
        return jnp.where(jnp.isfinite(shares).all(axis=1), 1 + shares.argmax(axis=1), 0)

    return Measure("neuron_frequency", _neuron_frequency, ("neuron",), **_NEEDS)


def clustered(shares: Float[Array, "neuron frequency"]) -> Bool[Array, "neuron frequency"]:
    """Membership of each neuron in the cluster of a frequency.

    A neuron belongs to its best frequency if that explains at least ``CLUSTER_FVE`` of its
    variance, and otherwise to none.
    """
    best = jnp.arange(shares.shape[1])[None, :] == shares.argmax(axis=1)[:, None]
    return best & (shares >= CLUSTER_FVE)


def cluster_sizes() -> Measure:
    """Number of neurons in the cluster of each frequency.

    A neuron belongs to its best frequency if that explains at least .85 of its variance over all
    pairs. A large cluster means that many neurons compute with this frequency (arXiv 2301.05217).

    Returns:
        A Measure with ``cluster_sizes`` of dims (frequency), counts of neurons. It needs the role
        ``neurons`` and a task on all pairs of residues.
    """

    def _cluster_sizes(params: Params, context: Context) -> Int[Array, " frequency"]:
        return clustered(table_shares(params, context)).sum(axis=0)

    return Measure(
        "cluster_sizes", _cluster_sizes, ("frequency",), options={"fve": CLUSTER_FVE}, **_NEEDS
    )


def key_frequencies_neurons() -> Measure:
    """Frequencies that have a cluster of neurons, determined anew at each checkpoint.

    The third published rule for key frequencies: those with a positive ``cluster_sizes``
    (arXiv 2301.05217). True means that some neuron computes with the frequency.

    Returns:
        A Measure with ``key_frequencies_neurons`` of dims (frequency), booleans. It needs the role
        ``neurons`` and a task on all pairs of residues.
    """

    def _key_frequencies_neurons(params: Params, context: Context) -> Bool[Array, " frequency"]:
        return clustered(table_shares(params, context)).any(axis=0)

    return Measure(
        "key_frequencies_neurons",
        _key_frequencies_neurons,
        ("frequency",),
        options={"fve": CLUSTER_FVE, "read": "online"},
        **_NEEDS,
    )


def readout_fve() -> Measure:
    """Share of what the neurons send to a frequency of the logits that is its wave of the answer.

    y_k = A W_L F_k, centred over the pairs, with A the neurons' activations over all pairs and F_k
    the cosine or sine row of F. The share is (y_k^T c_k)^2 / ||y_k||^2, with s_k in place of c_k
    for the sine (table 1 of arXiv 2301.05217). Near 1 the neurons compute cos or sin of
    w_k (a o b).

    Returns:
        A Measure with ``readout_fve_cos`` and ``readout_fve_sin`` of dims (frequency), shares from
        0 to 1. It needs the roles ``neurons`` and ``output_map`` and a task on all pairs with a
        cyclic answer.
    """

    def _readout_fve(params: Params, context: Context) -> dict[str, Array]:
        p = context.inputs.classes
        read = read_out(params, context) @ fourier_basis(p)[1:].T
        read = read - read.mean(axis=0, keepdims=True)
        along = jnp.diagonal(answer_components(read, context))
        shares = by_frequency(along**2 / jnp.square(read).sum(axis=0), frequencies(p))
        return {"readout_fve_cos": shares[:, 0], "readout_fve_sin": shares[:, 1]}

    return Measure(
        "readout_fve",
        _readout_fve,
        {"readout_fve_cos": ("frequency",), "readout_fve_sin": ("frequency",)},
        roles=("neurons", "output_map"),
        ground_truth=("table", "residues", "cyclic_answer"),
        source=SOURCE,
    )
