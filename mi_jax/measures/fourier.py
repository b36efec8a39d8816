"""The Fourier basis of Z_p, and what of the weights lies along each frequency (arXiv 2301.05217,
section 4).

F has orthonormal rows: 1/sqrt(p), then cos(2 pi k x / p) and sin(2 pi k x / p) for k = 1 ... p //
    2, each divided by its norm;
for even p the last frequency has a cosine only. Tables are found by role, so that these measures
need no particular model.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mi_jax.basics.dims import Params, Scalar
from mi_jax.basics.fourier import (
    KEY_THRESHOLD,
    by_frequency,
    component_norms,
    dft_power,
    fourier_basis,
    frequencies,
    key_rule,
)
from mi_jax.contracts import Context, Measure, Reference

SOURCE = "arXiv 2301.05217"


def answer_components(
    table: Float[Array, "pair unit"], context: Context
) -> Float[Array, "component unit"]:
    """c_1^T T, s_1^T T, c_2^T T, ...: what a table over the pairs holds along each wave of the
    answer a o b.

    The unit vectors over the pairs are rows of F looked up at a o b, divided by sqrt(p), since each
    answer is given by p pairs. So pairs are summed by answer first: the products are p times
    smaller.
    """
    p = context.inputs.classes
    by_answer = (
        jnp.zeros((p, table.shape[1])).at[context.ground_truth["cyclic_answer"].ravel()].add(table)
    )
    return jnp.asarray(fourier_basis(p))[1:] @ by_answer / jnp.sqrt(p)


def of_answers(
    components: Float[Array, "component unit"], context: Context
) -> Float[Array, "residue unit"]:
    """sum_k c_k x row of components, by answer: look it up at ``cyclic_answer`` for the table over
    the pairs.
    """
    p = context.inputs.classes
    return jnp.asarray(fourier_basis(p))[1:].T @ components / jnp.sqrt(p)


def embedding_table(params: Params, context: Context) -> Float[Array, "token d"]:
    """The embedding of the task's tokens; several tables side by side along the columns."""
    return jnp.concatenate(
        [jnp.asarray(table(params)) for table in context.model.roles.embedding], axis=1
    )


def unembedding_table(params: Params, context: Context) -> Float[Array, "class neuron"]:
    """W_L^T = (W_out W_U)^T, the task's classes only: what neurons add to each logit."""
    assert context.model.roles.output_map is not None
    return jnp.asarray(context.model.roles.output_map(params)).T


def readout_table(params: Params, context: Context) -> Float[Array, "class d"]:
    """W_U^T, the task's classes only."""
    assert context.model.roles.unembedding is not None
    return jnp.asarray(context.model.roles.unembedding(params)).T


def neuron_input_table(params: Params, context: Context) -> Float[Array, "token neuron"]:
    """What each token adds to each neuron before its activation; the positions' tables side by
    side.
    """
    return jnp.concatenate(
        [jnp.asarray(table(params)) for table in context.model.roles.neuron_inputs], axis=1
    )


def head_table(name: Literal["W_Q", "W_K", "W_V"]) -> "Table":
    """W_E times one matrix of every head, the heads side by side: what tokens ask for, offer and
    send, but for norms.
    """

    def table(params: Params, context: Context) -> Float[Array, "token d"]:
        assert context.model.roles.heads is not None
        matrices = jnp.asarray(getattr(context.model.roles.heads(params), name))
        sent = embedding_table(params, context)[None] @ matrices.reshape(-1, *matrices.shape[2:])
        return jnp.moveaxis(sent, 0, 1).reshape(sent.shape[1], -1)

    return table


Table = Callable[[Params, Context], Float[Array, "residue d"]]


TABLES: Mapping[str, tuple[Table, str]] = {
    "embedding": (embedding_table, "embedding"),
    "unembedding": (unembedding_table, "output_map"),
    "readout": (readout_table, "unembedding"),
    "neuron_inputs": (neuron_input_table, "neuron_inputs"),
    "queries": (head_table("W_Q"), "heads"),
    "keys": (head_table("W_K"), "heads"),
    "values": (head_table("W_V"), "heads"),
}
"""By place, the table of residues that is read and the role that it needs: all weights that touch
tokens or classes.

"embedding" W_E and "unembedding" W_L^T are read of every run; the others when they are named.
"""


def fourier_power(place: str) -> Measure:
    """||F_k table||^2 over the sum of all non-constant ones: the share of each frequency (cosine
    and sine together).
    """
    table, role = TABLES[place]

    def function(params: Params, context: Context) -> Float[Array, " frequency"]:
        norms = component_norms(table(params, context))
        power = (by_frequency(norms, frequencies(context.inputs.classes)) ** 2).sum(axis=1)
        return power / power.sum()

    return Measure(
        f"fourier_power_{place}",
        function,
        ("frequency",),
        roles=(role,),
        ground_truth=("residues",),
        source=SOURCE,
    )


def gini(x: Float[Array, " n"]) -> Scalar:
    """Gini coefficient 2 sum_i i x_(i) / (n sum x) - (n + 1) / n, x ascending: 0 where all are
    equal, 1 - 1/n for one alone.
    """
    n = x.shape[0]
    return 2 * (jnp.arange(1, n + 1) * jnp.sort(x)).sum() / (n * x.sum()) - (n + 1) / n


def fourier_gini(place: str) -> Measure:
    """Gini coefficient of the norms of the Fourier components, cos and sin apart, without the
    constant.
    """
    table, role = TABLES[place]

    def function(params: Params, context: Context) -> Scalar:
        return gini(component_norms(table(params, context)))

    return Measure(
        f"gini_{place}", function, roles=(role,), ground_truth=("residues",), source=SOURCE
    )


def key_mask(
    params: Params, context: Context, table: Table = unembedding_table
) -> Bool[Array, " frequency"]:
    """Frequencies whose cosine or sine component of a table exceeds a quarter of the largest
    non-constant one.
    """
    return key_rule(table(params, context))


def key_frequencies(place: str = "unembedding") -> Measure:
    """Which frequencies a table uses, read afresh at each checkpoint (online): see ``key_mask``.

    The unembedding's are the rule of the paper; on published weights the embedding's rule finds
    twice as many.
    """
    table, role = TABLES[place]

    def function(params: Params, context: Context) -> Bool[Array, " frequency"]:
        return key_mask(params, context, table)

    return Measure(
        "key_frequencies" if place == "unembedding" else f"key_frequencies_{place}",
        function,
        ("frequency",),
        roles=(role,),
        ground_truth=("residues",),
        options={
            "table": {"unembedding": "W_L", "embedding": "W_E"}[place],
            "threshold": KEY_THRESHOLD,
            "read": "online",
        },
        source=SOURCE,
    )


def key_frequencies_final() -> Measure:
    """The final model's key frequencies, the same at every step: what retrospective measures are
    frozen to.
    """

    def function(params: Params, context: Context) -> Bool[Array, " frequency"]:
        return context.prepared["final_key_frequencies"]

    return Measure(
        "key_frequencies_final",
        function,
        ("frequency",),
        roles=("output_map",),
        ground_truth=("residues",),
        uses=frozenset({"final"}),
        prepare=FINAL_KEYS,
        options={"table": "W_L", "threshold": KEY_THRESHOLD, "read": "final"},
        source=SOURCE,
    )


def final_keys(reference: Reference, context: Context) -> Bool[Array, " frequency"]:
    """The key frequencies of the final model: what restricted and excluded loss are frozen to."""
    return key_mask(reference.final, context)


FINAL_KEYS = {"final_key_frequencies": final_keys}
"""The preparation that measures frozen to the final model's key frequencies declare."""


def inverse_participation_ratio() -> Measure:
    """IPR_2 of each neuron: sum_k (|v_k|^2 / sum |v|^2)^2, v the real DFT of a vector over the
    residues, constant included.

    The mean over the neuron's vectors: what each token adds to it, where the model's weights say
    that alone, and what it adds to each logit. 1 for a pure cosine, about 4 / (p + 1) for Gaussian
    weights.
    """

    def function(params: Params, context: Context) -> Float[Array, " neuron"]:
        tables = [jnp.asarray(table(params)) for table in context.model.roles.neuron_inputs]
        tables.append(unembedding_table(params, context))
        power = [dft_power(table) for table in tables]
        ratios = [jnp.square(one / one.sum(axis=0, keepdims=True)).sum(axis=0) for one in power]
        return jnp.stack(ratios).mean(axis=0)

    return Measure(
        "inverse_participation_ratio",
        function,
        ("neuron",),
        roles=("output_map",),
        ground_truth=("residues",),
        options={"r": 2},
        source="arXiv 2310.13061",
    )
