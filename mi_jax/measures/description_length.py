"""How many bits a concept's labels take given what a site holds: the online code (Voita and Titov,
arXiv 2003.12298).
"""

from itertools import pairwise
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mi_jax.basics.dims import Params
from mi_jax.basics.errors import nearest, require
from mi_jax.contracts import Context, Measure
from mi_jax.measures.activations import (
    as_stack,
    by_width,
    centred,
    in_order,
    positions_of,
    site_vectors,
)
from mi_jax.measures.linear_probes import (
    Rows,
    Weights,
    by_size,
    logistic_fit,
    one_hot_rows,
    ridge_fit,
    rows_of,
)
from mi_jax.measures.probes import Probe, concept_labels, measure_of, probe_of, row_values

SOURCE = "arXiv 2003.12298"

BLOCKS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)
"""Published ends of the blocks, as shares of the examples."""

SHARPNESS: dict[str, tuple[float, ...]] = {
    "ridge": (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0),
    "logistic": (0.0, 0.5, 1.0),
}
"""By kind of probe, the factors beta of its scores under which the code mixes softmax(beta s); 0 is
the uniform code.
"""

_ORDER = 1
"""Seed of the order in which examples are sent."""


def block_ends(n: int) -> tuple[int, ...]:
    """How many examples are known after each block.

    Example:
        >>> block_ends(100)
        (1, 2, 3, 6, 12, 25, 50, 100)
    """
    return tuple(sorted({max(1, round(share * n)) for share in BLOCKS}))


def online_bits(
    X: Float[Array, "example d"],
    values: Int[Array, "concept example"],
    classes: tuple[int, ...],
    *,
    ridge: float = Probe.ridge,
    kind: Literal["ridge", "logistic"] = "ridge",
) -> Float[Array, " concept"]:
    """The length of the online code of labels given vectors, in bits, by concept.

    The first block is sent uniformly, log2 C bits a label. Each further block is sent with the
    probabilities of a probe that was fitted on all blocks before it: p(c | x) = softmax_c(beta
    s_c(x)). beta is not tuned: the code is the Bayesian mixture of those in SHARPNESS, weighted by
    their probabilities of the blocks sent so far; so it is at most log2(number of betas) bits
    longer than the best of them, the uniform code among them.

    Args:
        X: vectors in the order in which labels are sent.
    """
    rows, betas = rows_of(classes), jnp.array(SHARPNESS[kind])
    Y, ends = one_hot_rows(list(values), classes), block_ends(len(X))
    first = ends[0] * jnp.log2(jnp.array(classes, jnp.float32))
    nats = jnp.zeros((len(betas), len(classes)))
    for start, end in pairwise(ends):
        around, _ = centred(X[:end], start)
        W, b = _fit(around[:start], Y[:, :start], rows, ridge, kind)
        nats = nats + _block_nats(W @ around[start:].T + b[:, None], Y[:, start:end], rows, betas)
    mixture = -jax.scipy.special.logsumexp(-nats, axis=0) + jnp.log(len(betas))
    return first + mixture / jnp.log(2.0)


def _fit(
    X: Float[Array, "example d"],
    Y: Float[Array, "row example"],
    rows: Rows,
    ridge: float,
    kind: str,
) -> Weights:
    return logistic_fit(X, Y, rows, ridge) if kind == "logistic" else ridge_fit(X, Y, ridge)


def _block_nats(
    scores: Float[Array, "row example"],
    Y: Float[Array, "row example"],
    rows: Rows,
    betas: Float[Array, " beta"],
) -> Float[Array, "beta concept"]:
    """-sum log softmax(beta s) of the right class, by beta and concept."""

    def nats(
        s: Float[Array, "class example"], y: Float[Array, "class example"]
    ) -> Float[Array, " beta"]:
        # Below the largest, so that no exponential overflows.
        below = s - s.max(axis=0, keepdims=True)
        right = (below * y).sum(axis=0)
        return jax.lax.map(
            lambda beta: (jnp.log(jnp.exp(beta * below).sum(axis=0)) - beta * right).sum(), betas
        )

    return jnp.stack(by_size(rows, nats, [scores, Y]), axis=1)


def probe_mdl(**options: Any) -> Measure:
    """The minimum description length of a concept's labels given a site, in bits of the online
    code: see ``online_bits``.

    Labels of which nothing is known take n log2(classes) bits, n the evaluation's examples.

    Args:
        options: see ``Probe``; of the kinds ridge and logistic, without held_out: examples are sent
            in a random order.
    """
    probe = probe_of(options)
    kind: Any = probe.kind
    require(kind in SHARPNESS, f"kind={kind!r} gives no probabilities; {nearest(kind, SHARPNESS)}")
    require(
        probe.held_out is None,
        "held_out: the online code sends examples in a random order; leave it out",
    )

    def function(params: Params, context: Context) -> Float[Array, "site concept"]:
        sites, held = probe.site_names(context.model), concept_labels(probe, context)
        classes = tuple(one.classes for one in held)
        found = site_vectors(params, context, sites, positions_of(context, probe.position))
        order = np.random.default_rng(_ORDER).permutation(len(found[sites[0]]))
        values = jnp.stack([row_values(one, context, probe.position) for one in held])[:, order]

        def bits(X: Float[Array, "example d"]) -> Float[Array, " concept"]:
            return online_bits(X, values, classes, ridge=probe.ridge, kind=kind)

        # A site that never varies says the same in one dimension as in many.
        nothing = bits(jnp.zeros((len(order), 1)))

        def one_site(X: Float[Array, "example d"]) -> Float[Array, " concept"]:
            constant = (centred(X, len(X))[0] == 0).all()
            told = jax.lax.cond(constant, lambda: nothing, lambda: bits(X[order]))
            return jnp.where(jnp.isfinite(X).all(), told, jnp.nan)

        groups = [
            (names, jax.lax.map(one_site, as_stack(found, names))) for names in by_width(found)
        ]
        return in_order(groups, sites)

    code = {"blocks": list(BLOCKS), "sharpness": list(SHARPNESS[kind])}
    name = f"probe_mdl{probe.suffix()}"
    return measure_of(
        name, function, ("site", "concept"), probe, source=SOURCE, units="bits", options=code
    )
