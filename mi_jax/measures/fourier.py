"""Fourier components of the weights that touch tokens or classes (arXiv 2301.05217, section 4).

F is the Fourier basis of Z_p with orthonormal rows: 1/sqrt(p), then cos(2 pi k x / p) and
sin(2 pi k x / p) for k = 1 ... p // 2, each divided by its norm; for even p the last frequency has
a cosine only. Tables are found by the roles of the model, so that these measures need no particular
architecture.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mi_jax.basics.dims import Params, Scalar
from mi_jax.basics.errors import ConfigError, nearest
from mi_jax.basics.fourier import (
    KEY_THRESHOLD,
    by_frequency,
    component_norms,
    dft_power,
    fourier_basis,
    frequencies,
    key_rule,
)
from mi_jax.contracts import Context, Measure, Reference, option_suffix

SOURCE = "arXiv 2301.05217"


# --- Functions of the answer


def answer_components(
    table: Float[Array, "pair unit"], context: Context
) -> Float[Array, "component unit"]:
    """Components of a table over pairs along each wave of the answer: c_1^T T, s_1^T T, c_2^T T ...

    c_k and s_k are the unit vectors over the pairs along the cosine and sine of the answer a o b:
    rows of F looked up at a o b, divided by sqrt(p) because each answer belongs to p = n pairs.

    Args:
        table: one row per pair (a, b), in the order of the flat index a n + b, where n is the
            number of elements (the task's classes).
        context: of the reading, with the fact ``cyclic_answer``.
    """
    p = context.inputs.classes
    # Pairs are summed by answer first: the product with F is then p times smaller.
    by_answer = (
        jnp.zeros((p, table.shape[1])).at[context.ground_truth["cyclic_answer"].ravel()].add(table)
    )
    return jnp.asarray(fourier_basis(p))[1:] @ by_answer / jnp.sqrt(p)


def of_answers(
    components: Float[Array, "component unit"], context: Context
) -> Float[Array, "residue unit"]:
    """Table over answers with the given components: sum_k c_k x row k.

    Index the result with ``cyclic_answer`` for the table over pairs.

    Args:
        components: one row per wave of the answer, as from ``answer_components``.
        context: of the reading.
    """
    p = context.inputs.classes
    return jnp.asarray(fourier_basis(p))[1:].T @ components / jnp.sqrt(p)


# --- Tables of residues


def embedding_table(params: Params, context: Context) -> Float[Array, "token d"]:
    """Embedding of the task's tokens; several embeddings stand side by side along the columns."""
    return jnp.concatenate(
        [jnp.asarray(table(params)) for table in context.model.roles.embedding], axis=1
    )


def unembedding_table(params: Params, context: Context) -> Float[Array, "class neuron"]:
    """W_L^T = (W_out W_U)^T for the task's classes: what each neuron adds to each logit."""
    assert context.model.roles.output_map is not None
    return jnp.asarray(context.model.roles.output_map(params)).T


def readout_table(params: Params, context: Context) -> Float[Array, "class d"]:
    """W_U^T for the task's classes."""
    assert context.model.roles.unembedding is not None
    return jnp.asarray(context.model.roles.unembedding(params)).T


def neuron_input_table(params: Params, context: Context) -> Float[Array, "token neuron"]:
    """The term that each token adds to each neuron before its activation.

    The tables of the input positions stand side by side along the columns.
    """
    return jnp.concatenate(
        [jnp.asarray(table(params)) for table in context.model.roles.neuron_inputs], axis=1
    )


Table = Callable[[Params, Context], Float[Array, "residue d"]]


def head_table(name: Literal["W_Q", "W_K", "W_V"]) -> Table:
    """W_E times one matrix of every head, with the heads side by side along the columns.

    These are the queries, keys or values of the tokens, without normalisation.
    """

    def table(params: Params, context: Context) -> Float[Array, "token d"]:
        assert context.model.roles.heads is not None
        matrices = jnp.asarray(getattr(context.model.roles.heads(params), name))
        products = embedding_table(params, context)[None] @ matrices.reshape(
            -1, *matrices.shape[2:]
        )
        return jnp.moveaxis(products, 0, 1).reshape(products.shape[1], -1)

    return table


TABLES: Mapping[str, tuple[Table, str]] = {
    "embedding": (embedding_table, "embedding"),
    "unembedding": (unembedding_table, "output_map"),
    "readout": (readout_table, "unembedding"),
    "neuron_inputs": (neuron_input_table, "neuron_inputs"),
    "queries": (head_table("W_Q"), "heads"),
    "keys": (head_table("W_K"), "heads"),
    "values": (head_table("W_V"), "heads"),
}
"""Table of residues by place, with the role that it needs: all weights that touch tokens or
classes.

"embedding" (W_E) and "unembedding" (W_L^T) are read for every run, the others when they are named.
"""


def table_at(place: str, places: Mapping[str, tuple[Table, str]] = TABLES) -> tuple[Table, str]:
    """Table of a place.

    Args:
        place: a key of ``TABLES``.
        places: the places to choose from.

    Returns:
        The function that gives the table, and the name of the role that it needs.

    Raises:
        ConfigError: if there is no such place.
    """
    if place not in places:
        raise ConfigError(f"There is no table at place '{place}'; {nearest(place, places)}")
    return places[place]


# --- Measures


def fourier_power(place: str) -> Measure:
    """Share of each frequency in the non-constant power of a table.

    ||F_k T||^2 / sum_j ||F_j T||^2, F_k the cosine and sine rows of frequency k. A share near 1
    means that the table uses this frequency alone; 2 / (p - 1) is the share in a random table.

    Args:
        place: which table, a key of ``TABLES``: "embedding", "unembedding", "readout",
            "neuron_inputs", "queries", "keys" or "values".

    Returns:
        A Measure with ``fourier_power_{place}`` of dims (frequency), shares with sum 1. It needs
        the role of the place and a task on residues.

    Raises:
        ConfigError: if there is no such place.
    """
    table, role = table_at(place)

    def _fourier_power(params: Params, context: Context) -> Float[Array, " frequency"]:
        norms = component_norms(table(params, context))
        power = (by_frequency(norms, frequencies(context.inputs.classes)) ** 2).sum(axis=1)
        return power / power.sum()

    return Measure(
        f"fourier_power_{place}",
        _fourier_power,
        ("frequency",),
        roles=(role,),
        ground_truth=("residues",),
        source=SOURCE,
    )


def gini(x: Float[Array, " n"]) -> Scalar:
    """Gini coefficient of non-negative numbers.

    2 sum_i i x_(i) / (n sum x) - (n + 1) / n, x_(1) <= ... <= x_(n). 0 if all are equal, 1 - 1/n if
    only one is not 0.
    """
    n = x.shape[0]
    return 2 * (jnp.arange(1, n + 1) * jnp.sort(x)).sum() / (n * x.sum()) - (n + 1) / n


def fourier_gini(place: str) -> Measure:
    """Gini coefficient of the norms of a table's Fourier components.

    The cosine and sine of a frequency count apart; the constant does not count. Near 1 the table is
    sparse in the Fourier basis, near 0 its power is spread over all components.

    Args:
        place: which table, a key of ``TABLES`` (see ``fourier_power``).

    Returns:
        A Measure with the scalar ``gini_{place}``, from 0 to 1. It needs the role of the place and
        a task on residues.

    Raises:
        ConfigError: if there is no such place.
    """
    table, role = table_at(place)

    def _fourier_gini(params: Params, context: Context) -> Scalar:
        return gini(component_norms(table(params, context)))

    return Measure(
        f"gini_{place}", _fourier_gini, roles=(role,), ground_truth=("residues",), source=SOURCE
    )


def key_mask(
    params: Params, context: Context, table: Table = unembedding_table
) -> Bool[Array, " frequency"]:
    """Mask of the key frequencies of a table.

    A frequency is key if the norm of its cosine or sine component exceeds a quarter of the largest
    non-constant norm.
    """
    return key_rule(table(params, context))


_KEY_TABLES = {"unembedding": "W_L", "embedding": "W_E"}


def key_frequencies(place: str = "unembedding") -> Measure:
    """Key frequencies of a table, determined anew at each checkpoint.

    A frequency is key if the norm of its cosine or sine component exceeds a quarter of the largest
    non-constant norm. True means that the network uses the frequency.

    Args:
        place: "unembedding" (W_L), the rule of the paper, or "embedding" (W_E), whose rule finds
            twice as many key frequencies on the published weights.

    Returns:
        A Measure with ``key_frequencies`` (for the embedding ``key_frequencies_embedding``) of dims
        (frequency), booleans. It needs the role of the place and a task on residues.

    Raises:
        ConfigError: if the place is neither of the two.
    """
    table, role = table_at(place, {name: TABLES[name] for name in _KEY_TABLES})

    def _key_frequencies(params: Params, context: Context) -> Bool[Array, " frequency"]:
        return key_mask(params, context, table)

    suffix = option_suffix({"place": place}, {"place": "unembedding"}, bare=("place",))
    return Measure(
        f"key_frequencies{suffix}",
        _key_frequencies,
        ("frequency",),
        roles=(role,),
        ground_truth=("residues",),
        options={"table": _KEY_TABLES[place], "threshold": KEY_THRESHOLD, "read": "online"},
        source=SOURCE,
    )


def key_frequencies_final() -> Measure:
    """Key frequencies of the final model's W_L, the same at every step.

    Retrospective measures such as ``restricted_loss`` are frozen to them. True means that the final
    network uses the frequency.

    Returns:
        A Measure with ``key_frequencies_final`` of dims (frequency), booleans. It needs the final
        parameters, the role ``output_map`` and a task on residues.
    """

    def _key_frequencies_final(params: Params, context: Context) -> Bool[Array, " frequency"]:
        return context.prepared["final_key_frequencies"]

    return Measure(
        "key_frequencies_final",
        _key_frequencies_final,
        ("frequency",),
        roles=("output_map",),
        ground_truth=("residues",),
        uses=frozenset({"final"}),
        prepare=FINAL_KEYS,
        options={"table": "W_L", "threshold": KEY_THRESHOLD, "read": "final"},
        source=SOURCE,
    )


def final_keys(reference: Reference, context: Context) -> Bool[Array, " frequency"]:
    """Key frequencies of the final parameters, to which retrospective measures are frozen."""
    return key_mask(reference.final, context)


FINAL_KEYS = {"final_key_frequencies": final_keys}
"""The ``prepare`` of measures that are frozen to the key frequencies of the final model."""


def inverse_participation_ratio() -> Measure:
    """Inverse participation ratio (IPR) of each neuron's weights over the frequencies.

    IPR_2(v) = sum_k (|v_k|^2 / sum_j |v_j|^2)^2, v_k the real DFT of a vector v over the residues,
    constant included; the mean over the neuron's vectors. These are what each token adds to the
    neuron, if the model's weights alone determine it, and what the neuron adds to each logit. 1 for
    a pure cosine, about 4 / (p + 1) for Gaussian weights (arXiv 2310.13061).

    Returns:
        A Measure with ``inverse_participation_ratio`` of dims (neuron), from 0 to 1. It needs the
        role ``output_map`` and a task on residues.
    """

    def _inverse_participation_ratio(params: Params, context: Context) -> Float[Array, " neuron"]:
        tables = [jnp.asarray(table(params)) for table in context.model.roles.neuron_inputs]
        tables.append(unembedding_table(params, context))
        powers = [dft_power(table) for table in tables]
        ratios = [
            jnp.square(power / power.sum(axis=0, keepdims=True)).sum(axis=0) for power in powers
        ]
        return jnp.stack(ratios).mean(axis=0)

    return Measure(
        "inverse_participation_ratio",
        _inverse_participation_ratio,
        ("neuron",),
        roles=("output_map",),
        ground_truth=("residues",),
        options={"r": 2},
        source="arXiv 2310.13061",
    )
