"""Clock or pizza: which algorithm a network of modular addition uses (arXiv 2306.17844, Zhong et
al.).
"""

import random
from functools import lru_cache
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mi_jax.basics.dims import Params, Scalar
from mi_jax.basics.fourier import dft_power
from mi_jax.contracts import Context, Measure
from mi_jax.measures.evaluation import table_inputs, table_logits
from mi_jax.measures.fourier import embedding_table
from mi_jax.models.taps import ByPosition

SOURCE = "arXiv 2306.17844"
CIRCLES = 6
"""Pairs of principal components whose circles are tried."""
CANDIDATES = ("clock", "pizza", "pizza'", "accompanying")
_TRIPLES, _TRIPLE_SEED = 100, 42
_UNDEFINED = 1e-5


def principal_components(
    table: Float[Array, "token d"],
) -> tuple[Float[Array, "token mode"], Float[Array, "mode d"]]:
    """PCA of the rows: unit vectors over the tokens, and the directions in d, by falling variance."""
    U, _, V = jnp.linalg.svd(table - table.mean(axis=0, keepdims=True), full_matrices=False)
    return U, V


def circularity() -> Measure:
    """How close the first four principal components of W_E are to one frequency each: 1 is a pure
    one.

    The mean over them of max_k (2 / p) |sum_t v_t e^(2 pi i k t / p)|^2, v of unit norm over the
    tokens, clipped to [0, 1].
    """

    def function(params: Params, context: Context) -> Scalar:
        table = embedding_table(params, context)
        components = principal_components(table)[0][:, :4]
        power = 2 / table.shape[0] * dft_power(components)[1:]
        return jnp.clip(power.max(axis=0), 0, 1).mean()

    return Measure(
        "circularity", function, roles=("embedding",), ground_truth=("residues",), source=SOURCE
    )


def distance_irrelevance(of: Literal["correct", "wrong"] = "correct") -> Measure:
    """How little a logit depends on the distance a - b: mean_d std_s(M[s, d]) / std(M), M by answer
    s and distance d.

    Population standard deviations. 0 where the logit depends on the distance alone (pizza), near 1
    where not at all (clock); NaN where M is constant. The paper's table uses the correct logit, its
    phase plots (through its code's CSV) the largest wrong one.
    """

    def function(params: Params, context: Context) -> Scalar:
        logits, answer = table_logits(params, context), context.ground_truth["answer"]
        p = context.inputs.classes
        right = jax.nn.one_hot(answer, p, dtype=bool)
        values = (
            jnp.where(right, logits, 0).sum(-1)
            if of == "correct"
            else jnp.where(right, -jnp.inf, logits).max(-1)
        )
        M = jnp.zeros((p, p)).at[answer, context.ground_truth["distance"]].set(values)
        spread = M.std()
        return jnp.where(
            spread > _UNDEFINED * jnp.abs(M).max(), M.std(axis=0).mean() / spread, jnp.nan
        )

    name = "distance_irrelevance" if of == "correct" else "distance_irrelevance_wrong"
    concepts = ("table", "answer", "distance")
    return Measure(name, function, ground_truth=concepts, options={"logit": of}, source=SOURCE)


@lru_cache(maxsize=4)
def symmetry_triples(p: int) -> Int[np.ndarray, "triple 3"]:
    """The published triples (a, b, c): the first 100 of ``random.Random(42).shuffle`` of the
    lexicographic list.
    """
    places = list(range(p**3))
    random.Random(_TRIPLE_SEED).shuffle(places)
    flat = np.array(places[:_TRIPLES])
    return np.stack([flat // p**2, flat // p % p, flat % p], axis=1).astype(np.int32)


def gradient_symmetricity() -> Measure:
    """How alike a logit's gradients are with respect to the two tokens' embeddings: the mean cosine
    over 100 triples (a, b, c).

    The gradient of logit c on input (a, b), with respect to the embedded tokens before positions
    are added; c is any class.
    """

    def function(params: Params, context: Context) -> Scalar:
        site = context.model.roles.embedded
        assert site is not None
        p, places = context.inputs.classes, jnp.array(context.inputs.varied)
        triples = jnp.asarray(symmetry_triples(p))
        inputs = table_inputs(context)[triples[:, 0] * p + triples[:, 1]]

        def logit(
            shift: Float[Array, "position d"], one: Int[Array, " position"], c: Int[Array, ""]
        ) -> Scalar:
            taps = {site: lambda value: value + shift[None]}
            return context.model.apply(params, one[None], taps=taps, positions=context.read)[
                0, 0, c
            ]

        shape = (context.inputs.positions, embedding_table(params, context).shape[1])
        gradients = jax.vmap(jax.grad(logit), in_axes=(None, 0, 0))(
            jnp.zeros(shape), inputs, triples[:, 2]
        )[:, places]
        first, second = gradients[:, 0], gradients[:, 1]
        norms = jnp.linalg.norm(first, axis=1) * jnp.linalg.norm(second, axis=1)
        return ((first * second).sum(axis=1) / norms).mean()

    return Measure(
        "gradient_symmetricity",
        function,
        roles=("embedded", "embedding"),
        ground_truth=("table", "residues"),
        options={"triples": _TRIPLES, "seed": _TRIPLE_SEED},
        source=SOURCE,
    )


class _Candidates(NamedTuple):
    """Logits f(a - b) g(a + b, c), by condition."""

    of_difference: Float[Array, "condition token"]
    of_sum: Float[Array, "condition token class"]


def _candidates(k: Int[Array, ""], p: int) -> _Candidates:
    """``candidate_logits`` in the factors that X and Y have: (X, Y) = 2 cos(w(a - b)/2) (cos w(a +
    b)/2, sin w(a + b)/2).
    """
    w, x = 2 * jnp.pi * k / p, jnp.arange(p)
    half, full = w * x / 2, w * x
    s, c = half[:, None], full[None, :]
    answer = jnp.cos(2 * s - c)
    pizza = jnp.abs(jnp.cos(s - c / 2)) - jnp.abs(jnp.sin(s - c / 2))
    cos, sin = jnp.cos(s), jnp.sin(s)
    other = (jnp.abs(cos) - jnp.abs(sin)) * jnp.cos(c) - (
        jnp.abs(cos - sin) - jnp.abs(cos + sin)
    ) * jnp.sin(c) / jnp.sqrt(2)
    size = 2 * jnp.abs(jnp.cos(half))
    return _Candidates(
        jnp.stack([jnp.ones(p), size, size, -2 * jnp.cos(full)]),
        jnp.stack([answer, pizza, other, answer]),
    )


def candidate_logits(k: Int[Array, ""], p: int) -> Float[Array, "condition pair class"]:
    """What the algorithms answer at one frequency, w = 2 pi k / p, with X = cos wa + cos wb and Y =
    sin wa + sin wb.

    clock cos(w(a + b - c)); pizza |C X + S Y| - |-S X + C Y| with C, S = cos, sin(wc / 2); pizza'
    (|X| - |Y|) cos wc
    - (|X - Y| - |X + Y|) sin wc / sqrt(2); accompanying -cos wc (cos 2wa + cos 2wb) - sin wc (sin
      2wa + sin 2wb).
    """
    candidates, (total, difference) = _candidates(k, p), _sums_and_differences(p)
    return candidates.of_difference[:, difference, None] * candidates.of_sum[:, total]


def _sums_and_differences(p: int) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
    """a + b and a - b mod p of every pair."""
    a, b = np.divmod(np.arange(p * p), p)
    return (a + b) % p, (a - b) % p


def _correlations(
    logits: Float[Array, "pair class"], k: Int[Array, ""], p: int
) -> Float[Array, " condition"]:
    """The correlation of logits with each of ``candidate_logits``, whose p^3 numbers are never
    formed.
    """
    (of_difference, of_sum), (total, difference) = _candidates(k, p), _sums_and_differences(p)
    around = logits - logits.mean()

    def one(f: Float[Array, " token"], g: Float[Array, "token class"]) -> Scalar:
        weights = f[difference]
        sums = jnp.zeros((p, p)).at[total].add(around * weights[:, None])
        mean, square = (
            jnp.zeros(p).at[total].add(w) @ rows
            for w, rows in ((weights, g.sum(1)), (weights**2, (g**2).sum(1)))
        )
        return (sums * g).sum() / jnp.sqrt(jnp.square(around).sum() * (square - mean**2 / p**3))

    return jnp.stack([one(of_difference[i], of_sum[i]) for i in range(len(CANDIDATES))])


def circle_fve() -> Measure:
    """How well each algorithm explains the logits of the network that sees one circle of its
    embedding alone: 2 r - 1.

    Circle i keeps the mean of W_E and its principal components 2i - 1 and 2i; r is the correlation
    over all (a, b, c) of the logits with ``candidate_logits`` at the frequency k of the first of
    the two components; for the accompanying pizza, whose tokens enter by their doubled angle, at k
    / 2 mod p. NaN for a circle that the embedding has no components for.
    """

    def function(params: Params, context: Context) -> Float[Array, "component condition"]:
        site = context.model.roles.embedded
        assert site is not None
        p, table = context.inputs.classes, embedding_table(params, context)
        U, V = principal_components(table)
        mean, inputs = table.mean(axis=0), table_inputs(context)

        def one(circle: Int[Array, ""]) -> Float[Array, " condition"]:
            plane = jax.lax.dynamic_slice_in_dim(V, 2 * circle, 2)

            def alone(rows: Float[Array, "token d"], position: int) -> Float[Array, "token d"]:
                kept = mean[None] + (rows - mean[None]) @ plane.T @ plane
                return kept if position in context.inputs.varied else rows

            taps = {site: ByPosition(alone)}
            out = context.model.apply(params, inputs, taps=taps, positions=context.read)[:, 0, :p]
            power = dft_power(jax.lax.dynamic_index_in_dim(U, 2 * circle, axis=1))[:, 0]
            k = 1 + power[1:].argmax()
            doubled = jnp.where(k % 2 == 0, k, p - k)
            alike = jnp.concatenate(
                [_correlations(out, k, p)[:-1], _correlations(out, doubled // 2, p)[-1:]]
            )
            explained = 2 * alike - 1
            # An odd frequency of an even modulus is twice no frequency: nothing accompanies it.
            return explained.at[-1].set(jnp.where(doubled % 2 == 0, explained[-1], jnp.nan))

        held = min(CIRCLES, min(p - 1, table.shape[1]) // 2)
        read = jax.lax.map(one, jnp.arange(held))
        return jnp.pad(read, ((0, CIRCLES - held), (0, 0)), constant_values=jnp.nan)

    return Measure(
        "circle_fve",
        function,
        ("component", "condition"),
        roles=("embedded", "embedding"),
        ground_truth=("table", "cyclic_answer", "residues"),
        coordinates={"component": tuple(range(1, CIRCLES + 1)), "condition": CANDIDATES},
        source=SOURCE,
    )
