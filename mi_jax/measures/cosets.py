"""Neurons as functions of the cosets of a subgroup (arXiv 2312.06581)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mi_jax.basics.dims import Params
from mi_jax.contracts import Context, Measure
from mi_jax.measures.groups import operand_tables

TIE = 1e-3
"""Difference in concentration up to which two subgroups count as equally good."""


def between_cosets(
    table: Float[Array, "element unit"], labels: Int[Array, " element"]
) -> Float[Array, " unit"]:
    """Share of each column's variance that lies between cosets.

    Args:
        table: one row per element of the group.
        labels: coset of each element, named by one of its elements.

    Returns:
        1 for a column that is constant on each coset; NaN for one without variance.
    """
    n = table.shape[0]
    around = table - table.mean(axis=0, keepdims=True)
    sums, sizes = (
        jnp.zeros((n, *x.shape[1:])).at[labels].add(x) for x in (around, jnp.ones((n, 1)))
    )
    return (jnp.square(sums) / jnp.maximum(sizes, 1)).sum(axis=0) / jnp.square(around).sum(axis=0)


def coset_concentration() -> Measure:
    """How nearly each neuron's input is constant on the cosets of one subgroup.

    The input of a neuron is what an element adds to it before its activation. For a subgroup with c
    cosets the concentration is (s - e) / (1 - e), s = 1 - within / total variance the share of
    variance between cosets, and e = (c - 1) / (|G| - 1) the share expected of a random function.
    The measure takes the largest value over all proper subgroups of more than one element and their
    left and right cosets, and then the mean over the left and the right element. 1 for a function
    of the coset; a random function has 0 on average for each subgroup (arXiv 2312.06581).

    Returns:
        A Measure with ``coset_concentration`` and ``coset_order`` of dims (neuron). The order is
        the size of the left element's best subgroup, the largest of those within .001 of the best.
        It needs the role ``neuron_inputs`` and a task on a group with proper subgroups.
    """

    def _coset_concentration(params: Params, context: Context) -> dict[str, Array]:
        facts = context.ground_truth["cosets"]
        cosets = facts.reshape(-1, facts.shape[-1])
        n = cosets.shape[-1]
        # A coset is named by its least element, so the number of cosets is the number of elements
        # that are the name of their own coset.
        count = (cosets == jnp.arange(n)[None]).sum(axis=1)
        expected = (count - 1) / (n - 1)

        def best(table: Array) -> tuple[Array, Array]:
            between = jax.lax.map(lambda labels: between_cosets(table, labels), cosets)
            excess = (between - expected[:, None]) / (1 - expected[:, None])
            # A function of the cosets of a subgroup is also one of the cosets of any smaller
            # subgroup inside it, so the largest order among equally good subgroups counts.
            as_good = excess > excess.max(axis=0, keepdims=True) - TIE
            order = jnp.where(as_good, (n // count)[:, None], 0).max(axis=0)
            return excess.max(axis=0), order

        (left, order), (right, _) = (best(table) for table in operand_tables(params, context))
        return {"coset_concentration": (left + right) / 2, "coset_order": order}

    return Measure(
        "coset_concentration",
        _coset_concentration,
        {"coset_concentration": ("neuron",), "coset_order": ("neuron",)},
        roles=("neuron_inputs",),
        ground_truth=("cosets",),
        source="arXiv 2312.06581",
    )
