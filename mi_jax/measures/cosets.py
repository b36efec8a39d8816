"""Whether neurons are functions of cosets of a subgroup (Stander et al. 2023, arXiv 2312.06581)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mi_jax.basics.dims import Params
from mi_jax.contracts import Context, Measure
from mi_jax.measures.groups import operand_tables

TIE = 1e-3


def between_cosets(
    table: Float[Array, "element unit"], labels: Int[Array, " element"]
) -> Float[Array, " unit"]:
    """The share of each column's variance that lies between cosets: 1 where it is constant on each.
    NaN without variance.
    """
    n = table.shape[0]
    around = table - table.mean(axis=0, keepdims=True)
    sums, sizes = (
        jnp.zeros((n, *x.shape[1:])).at[labels].add(x) for x in (around, jnp.ones((n, 1)))
    )
    return (jnp.square(sums) / jnp.maximum(sizes, 1)).sum(axis=0) / jnp.square(around).sum(axis=0)


def coset_concentration() -> Measure:
    """How nearly what an element adds to a neuron before its activation is constant on the cosets
    of one subgroup.

    1 - within / total variance is the share between cosets, (c - 1) / (|G| - 1) of it to be
    expected of c cosets of a random function; the excess over that, as a share of what is left, is
    1 for a function of the coset and 0 on average for a random one. The largest over all proper
    subgroups, left and right cosets; the mean over the left and the right element. ``coset_order``
    is the order of the left element's best subgroup, the largest of those within .001 of it.
    """

    def function(params: Params, context: Context) -> dict[str, Array]:
        cosets = context.ground_truth["cosets"].reshape(
            -1, context.ground_truth["cosets"].shape[-1]
        )
        n = cosets.shape[-1]
        # A coset is named by its least element, so there are as many as elements that are their own
        # coset's name.
        count = (cosets == jnp.arange(n)[None]).sum(axis=1)
        expected = (count - 1) / (n - 1)

        def best(table: Array) -> tuple[Array, Array]:
            between = jax.lax.map(lambda labels: between_cosets(table, labels), cosets)
            excess = (between - expected[:, None]) / (1 - expected[:, None])
            # A function on the cosets of a subgroup is one on those of its own subgroups too: the
            # largest counts.
            as_good = excess > excess.max(axis=0, keepdims=True) - TIE
            order = jnp.where(as_good, (n // count)[:, None], 0).max(axis=0)
            return excess.max(axis=0), order

        (left, order), (right, _) = (best(table) for table in operand_tables(params, context))
        return {"coset_concentration": (left + right) / 2, "coset_order": order}

    return Measure(
        "coset_concentration",
        function,
        {"coset_concentration": ("neuron",), "coset_order": ("neuron",)},
        roles=("neuron_inputs",),
        ground_truth=("cosets",),
        source="arXiv 2312.06581",
    )
