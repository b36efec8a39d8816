"""Description length of a concept's labels given a site's activations, in bits of the online code.

Source: Voita and Titov, arXiv 2003.12298.
"""

from itertools import pairwise
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mi_jax.basics.dims import Params
from mi_jax.basics.errors import ConfigError, nearest
from mi_jax.contracts import Context, Measure
from mi_jax.measures.activations import centred_rows, map_sites, positions_of, site_vectors
from mi_jax.measures.linear_probes import Rows, by_size, fit, one_hot_rows, row_ranges
from mi_jax.measures.probes import Probe, concept_labels, measure_of, probe_of, row_values

SOURCE = "arXiv 2003.12298"

BLOCKS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)
"""The published ends of the blocks, as shares of the examples."""

SHARPNESS: dict[str, tuple[float, ...]] = {
    "ridge": (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0),
    "logistic": (0.0, 0.5, 1.0),
}
"""The factors beta by kind of probe: the code mixes softmax(beta s) of the probe's scores s.

The factor 0 is the uniform code.
"""

_ORDER = 1
"""Seed of the order in which examples are sent."""


def block_ends(n: int) -> tuple[int, ...]:
    """Number of examples that are known after each block.

    Args:
        n: number of all examples.

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
    """Length of the online code of labels given vectors, per concept.

    The first block is sent uniformly, log2 C bits per label. Each further block is sent with the
    probabilities of a probe that is fitted on all blocks before it: p(c | x) = softmax_c(beta
    s_c(x)). The factor beta is not tuned: the code is the Bayesian mixture of those in
    ``SHARPNESS``, weighted by their probabilities of the blocks sent so far. So it is at most
    log2(number of betas) bits longer than the best of them, and of the uniform code.

    Args:
        X: vectors in the order in which their labels are sent.
        values: the class of each example, per concept.
        classes: number of classes of each concept.
        ridge: strength of the probe, relative to the mean variance of the vectors.
        kind: kind of the probe.

    Returns:
        The length in bits.
    """
    rows, betas = row_ranges(classes), jnp.array(SHARPNESS[kind])
    Y, ends = one_hot_rows(list(values), classes), block_ends(len(X))
    first = ends[0] * jnp.log2(jnp.array(classes, jnp.float32))
    nats = jnp.zeros((len(betas), len(classes)))
    for start, end in pairwise(ends):
        around, _ = centred_rows(X[:end], start)
        W, b = fit(kind, around[:start], Y[:, :start], rows, ridge)
        nats = nats + _block_nats(W @ around[start:].T + b[:, None], Y[:, start:end], rows, betas)
    mixture = -jax.scipy.special.logsumexp(-nats, axis=0) + jnp.log(len(betas))
    return first + mixture / jnp.log(2.0)


def _block_nats(
    scores: Float[Array, "row example"],
    Y: Float[Array, "row example"],
    rows: Rows,
    betas: Float[Array, " beta"],
) -> Float[Array, "beta concept"]:
    """-sum log softmax(beta s) of the right classes over a block, in nats."""

    def nats(
        s: Float[Array, "class example"], y: Float[Array, "class example"]
    ) -> Float[Array, " beta"]:
        # Scores below the largest one, so that no exponential overflows.
        below = s - s.max(axis=0, keepdims=True)
        right = (below * y).sum(axis=0)
        return jax.lax.map(
            lambda beta: (jnp.log(jnp.exp(beta * below).sum(axis=0)) - beta * right).sum(), betas
        )

    return jnp.stack(by_size(rows, nats, [scores, Y]), axis=1)


def probe_mdl(**options: Any) -> Measure:
    """Minimum description length of a concept's labels given a site, by the online code.

    See ``online_bits`` for the code. Labels that the site says nothing about take n log2(classes)
    bits, where n is the number of the evaluation's rows; fewer bits mean that the concept is easy
    to decode, from few examples. The probes of the first blocks have fewer rows than dimensions,
    and amplify the rounding of float32 vectors: lengths are known to about 1e-4 of the largest.

    Args:
        options: fields of ``Probe``. The kind is "ridge" or "logistic". ``held_out`` stays unset,
            since examples are sent in a random order.

    Returns:
        A measure ``probe_mdl`` (with a suffix for options) with dims (site, concept), in bits.
        Source: arXiv 2003.12298.

    Raises:
        ConfigError: for an option that a probe does not have, or that has no online code.
    """
    probe = probe_of(options)
    kind: Any = probe.kind
    if kind not in SHARPNESS:
        raise ConfigError(
            f"kind={kind!r} gives no probabilities, which the online code needs;"
            f" {nearest(kind, SHARPNESS)}"
        )
    if probe.held_out is not None:
        raise ConfigError(
            f"held_out={probe.held_out!r} is invalid here. The online code sends examples in a"
            " random order. Leave held_out unset."
        )

    def _probe_mdl(params: Params, context: Context) -> Float[Array, "site concept"]:
        sites, labels = probe.site_names(context.model), concept_labels(probe, context)
        classes = tuple(concept.classes for concept in labels)
        vectors = site_vectors(params, context, sites, positions_of(context, probe.position))
        order = np.random.default_rng(_ORDER).permutation(len(vectors[sites[0]]))
        values = jnp.stack([row_values(concept, context, probe.position) for concept in labels])
        values = values[:, order]

        def bits(X: Float[Array, "example d"]) -> Float[Array, " concept"]:
            return online_bits(X, values, classes, ridge=probe.ridge, kind=kind)

        # A constant site has the same code whatever its width; in one dimension it is cheapest.
        constant_bits = bits(jnp.zeros((len(order), 1)))

        def site_bits(X: Float[Array, "example d"]) -> Float[Array, " concept"]:
            constant = (centred_rows(X, len(X))[0] == 0).all()
            length = jax.lax.cond(constant, lambda: constant_bits, lambda: bits(X[order]))
            return jnp.where(jnp.isfinite(X).all(), length, jnp.nan)

        return map_sites(site_bits, sites, vectors)

    return measure_of(
        f"probe_mdl{probe.suffix()}",
        _probe_mdl,
        ("site", "concept"),
        probe,
        source=SOURCE,
        units="bits",
        options={"blocks": list(BLOCKS), "sharpness": list(SHARPNESS[kind])},
    )
