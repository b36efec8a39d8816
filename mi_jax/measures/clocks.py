"""Clock or pizza: which algorithm a network of modular addition uses (arXiv 2306.17844)."""

import random
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mi_jax.basics.dims import Params, Scalar
from mi_jax.basics.errors import check_choice
from mi_jax.basics.fourier import dft_power
from mi_jax.contracts import Context, Measure, option_suffix
from mi_jax.measures.evaluation import right_and_wrong, table_inputs, table_logits
from mi_jax.measures.fourier import embedding_table
from mi_jax.models.taps import ByPosition

SOURCE = "arXiv 2306.17844"
CIRCLES = 6
"""Number of circles read: pairs of principal components."""
CANDIDATES = ("clock", "pizza", "pizza'", "accompanying")
"""Algorithms whose logits are compared with the network's (see ``candidate_logits``)."""
_TRIPLES, _TRIPLE_SEED = 100, 42
_UNDEFINED = 1e-5
"""Standard deviation, relative to the largest entry, below which a table counts as constant."""

Logit = Literal["correct", "wrong"]


def principal_components(
    table: Float[Array, "token d"],
) -> tuple[Float[Array, "token mode"], Float[Array, "mode d"]]:
    """Principal components of the rows of a table, by falling variance.

    Returns:
        Unit vectors over the tokens, and the matching directions in d.
    """
    U, _, V = jnp.linalg.svd(table - table.mean(axis=0, keepdims=True), full_matrices=False)
    return U, V


def frequency_shares(
    components: Float[Array, "token mode"],
) -> Float[Array, "frequency mode"]:
    """Share of each frequency k = 1, ..., p // 2 in vectors of unit norm over the tokens.

    (2 / p) |sum_t v_t e^(2 pi i k t / p)|^2, the squared norm of v's projection on cosine and sine.
    For k = p / 2, which has no sine, the factor is 1 / p.
    """
    p = components.shape[0]
    shares = 2 / p * dft_power(components)[1:]
    return shares if p % 2 else shares.at[-1].multiply(0.5)


def circularity() -> Measure:
    """Purity of frequency of the embedding's first four principal components.

    The mean over these components v of max_k (2 / p) |sum_t v_t e^(2 pi i k t / p)|^2, v of unit
    norm over the tokens, clipped to [0, 1]; 1 / p takes the place of 2 / p for k = p / 2, whose
    wave has no sine. The mean is over p - 1 components where p < 5, since a centred table has no
    more. 1 means that each component is a wave of one frequency, so that the tokens lie on circles
    (arXiv 2306.17844).

    Returns:
        A Measure with the scalar ``circularity``, from 0 to 1; NaN if all rows of the embedding
        are equal. It needs the role ``embedding`` and a task on residues.
    """

    def _circularity(params: Params, context: Context) -> Scalar:
        table = embedding_table(params, context)
        # A centred table of p tokens has p - 1 components; the next one is arbitrary.
        components = principal_components(table)[0][:, : min(4, table.shape[0] - 1)]
        purity = jnp.clip(frequency_shares(components).max(axis=0), 0, 1).mean()
        # A table of equal rows has no components.
        return jnp.where((table == table[:1]).all(), jnp.nan, purity)

    return Measure(
        "circularity", _circularity, roles=("embedding",), ground_truth=("residues",), source=SOURCE
    )


def distance_irrelevance(of: Logit = "correct") -> Measure:
    """How little a logit depends on the distance a - b of the two tokens.

    mean_d std_s(M[s, d]) / std(M), M the logit by answer s and distance d, with population standard
    deviations. 0 if the logit depends on the distance only (pizza), near 1 if it does not
    depend on it at all (clock) (arXiv 2306.17844).

    Args:
        of: "correct" reads the logit of the right class, as in the table of the paper; "wrong"
            reads the largest other logit, as in its phase plots (by the CSV of its code).

    Returns:
        A Measure with the scalar ``distance_irrelevance`` (``distance_irrelevance_wrong``), a
        ratio from 0 to 1; NaN if M is constant. It needs a task on all pairs with the fact
        ``distance`` (addition or subtraction mod an odd p).

    Raises:
        ConfigError: if ``of`` is unknown.
    """
    check_choice("of", of, get_args(Logit))

    def _distance_irrelevance(params: Params, context: Context) -> Scalar:
        answer, p = context.ground_truth["answer"], context.inputs.classes
        right, wrong = right_and_wrong(table_logits(params, context), answer)
        values = right if of == "correct" else wrong
        M = jnp.zeros((p, p)).at[answer, context.ground_truth["distance"]].set(values)
        spread = M.std()
        # The ratio of a constant M would be one of rounding errors.
        return jnp.where(
            spread > _UNDEFINED * jnp.abs(M).max(), M.std(axis=0).mean() / spread, jnp.nan
        )

    return Measure(
        f"distance_irrelevance{option_suffix({'of': of}, {'of': 'correct'}, bare=('of',))}",
        _distance_irrelevance,
        ground_truth=("table", "answer", "distance"),
        options={"logit": of},
        source=SOURCE,
    )


@lru_cache(maxsize=4)
def symmetry_triples(p: int) -> Int[np.ndarray, "triple 3"]:
    """Published sample of 100 triples (a, b, c).

    The first 100 entries of the lexicographic list after ``random.Random(42).shuffle``.
    """
    # The published code shuffles a list with Python's generator; any other one would draw other
    # triples.
    indices = list(range(p**3))
    random.Random(_TRIPLE_SEED).shuffle(indices)
    flat = np.array(indices[:_TRIPLES])
    return np.stack([flat // p**2, flat // p % p, flat % p], axis=1).astype(np.int32)


def gradient_symmetricity() -> Measure:
    """Similarity of a logit's gradients with respect to the embeddings of the two tokens.

    The mean over 100 fixed triples (a, b, c) of the cosine of dL_c / dE_a with dL_c / dE_b, L_c the
    logit of class c (right or not) on the input (a, b), E the embedded tokens before positions are
    added. Near 1 the two tokens act alike (pizza); lower values mark a clock (arXiv 2306.17844).

    Returns:
        A Measure with the scalar ``gradient_symmetricity``, from -1 to 1. It needs the roles
        ``embedded`` and ``embedding`` and a task on all pairs of residues.
    """

    def _gradient_symmetricity(params: Params, context: Context) -> Scalar:
        site = context.model.roles.embedded
        assert site is not None
        p, token_positions = context.inputs.classes, jnp.array(context.inputs.varied)
        triples = jnp.asarray(symmetry_triples(p))
        inputs = table_inputs(context)[triples[:, 0] * p + triples[:, 1]]

        def logit(
            shift: Float[Array, "position d"], tokens: Int[Array, " position"], c: Int[Array, ""]
        ) -> Scalar:
            taps = {site: lambda value: value + shift[None]}
            out = context.model.apply(params, tokens[None], taps=taps, positions=context.read)
            return out[0, 0, c]

        shape = (context.inputs.positions, embedding_table(params, context).shape[1])
        gradients = jax.vmap(jax.grad(logit), in_axes=(None, 0, 0))(
            jnp.zeros(shape), inputs, triples[:, 2]
        )[:, token_positions]
        first, second = gradients[:, 0], gradients[:, 1]
        norms = jnp.linalg.norm(first, axis=1) * jnp.linalg.norm(second, axis=1)
        return ((first * second).sum(axis=1) / norms).mean()

    return Measure(
        "gradient_symmetricity",
        _gradient_symmetricity,
        roles=("embedded", "embedding"),
        ground_truth=("table", "residues"),
        options={"triples": _TRIPLES, "seed": _TRIPLE_SEED},
        source=SOURCE,
    )


# --- Candidate algorithms


class _Candidates(NamedTuple):
    """Candidate logits as products f(a - b) g(a + b, c), by candidate."""

    of_difference: Float[Array, "condition token"]
    of_sum: Float[Array, "condition token class"]


def _candidates(k: Int[Array, ""], p: int) -> _Candidates:
    """Factors of ``candidate_logits``.

    They follow from (X, Y) = 2 cos(w (a - b) / 2) (cos(w (a + b) / 2), sin(w (a + b) / 2)).
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
    """Logits of each candidate algorithm of addition at one frequency.

    With w = 2 pi k / p, X = cos wa + cos wb and Y = sin wa + sin wb:

        clock: cos(w (a + b - c)).
        pizza: |C X + S Y| - |-S X + C Y|, C = cos(wc / 2) and S = sin(wc / 2).
        pizza': (|X| - |Y|) cos wc - (|X - Y| - |X + Y|) sin wc / sqrt(2).
        accompanying: -cos wc (cos 2wa + cos 2wb) - sin wc (sin 2wa + sin 2wb).

    Args:
        k: frequency, from 1 to p - 1.
        p: modulus.

    Returns:
        Logits in the order of ``CANDIDATES``; pair (a, b) has the index a p + b.
    """
    candidates, a = _candidates(k, p), jnp.arange(p)
    total = ((a[:, None] + a[None, :]) % p).ravel()
    return candidates.of_difference[:, _other_sum(total, p), None] * candidates.of_sum[:, total]


def _other_sum(answer: Int[Array, " pair"], p: int) -> Int[Array, " pair"]:
    """a - b of every pair where the answer is a + b, and a + b where it is a - b, mod p.

    Subtraction is the addition of -b, so the two change places in every candidate.
    """
    a = jnp.arange(p * p) // p
    return (2 * a - answer) % p


def _correlations(
    logits: Float[Array, "pair class"],
    k: Int[Array, ""],
    answer: Int[Array, " pair"],
    p: int,
) -> Float[Array, " condition"]:
    """Correlation of logits with each of ``candidate_logits``, for addition or subtraction.

    Args:
        logits: one row per pair, in the order a p + b.
        k: frequency, from 1 to p - 1.
        answer: a + b or a - b mod p of every pair.
        p: modulus.
    """
    # The p^3 candidate logits are never formed: they are products f(a - b) g(a + b, c), so sums
    # over the pairs are taken by a + b first.
    (of_difference, of_sum), total, difference = _candidates(k, p), answer, _other_sum(answer, p)
    around = logits - logits.mean()

    def correlation(f: Float[Array, " token"], g: Float[Array, "token class"]) -> Scalar:
        weights = f[difference]
        sums = jnp.zeros((p, p)).at[total].add(around * weights[:, None])
        mean, square = (
            jnp.zeros(p).at[total].add(w) @ rows
            for w, rows in ((weights, g.sum(1)), (weights**2, (g**2).sum(1)))
        )
        return (sums * g).sum() / jnp.sqrt(jnp.square(around).sum() * (square - mean**2 / p**3))

    return jnp.stack([correlation(of_difference[i], of_sum[i]) for i in range(len(CANDIDATES))])


def circle_fve() -> Measure:
    """Fit of each candidate algorithm to a network that sees one circle of its embedding only.

    2 r - 1 for each circle i, which keeps the mean of W_E and its principal components 2i - 1 and
    2i. r is the correlation over all (a, b, c) of the logits with ``candidate_logits`` at the
    frequency k of the first of the two components. For subtraction, -b takes the place of b in the
    candidates. For the accompanying pizza, whose tokens enter by their doubled angle, the frequency
    is k / 2 mod p; it is NaN where an even p and an odd k leave no such frequency. 1 means that the
    algorithm explains the circle's logits (arXiv 2306.17844).

    Returns:
        A Measure with ``circle_fve`` of dims (component, condition), the circles from 1 to
        ``CIRCLES`` by the algorithms ``CANDIDATES``, from -3 to 1; NaN for a circle for which the
        embedding has too few components. It needs the roles ``embedded`` and ``embedding`` and a
        task on all pairs with a cyclic answer.
    """

    def _circle_fve(params: Params, context: Context) -> Float[Array, "component condition"]:
        site = context.model.roles.embedded
        assert site is not None
        p, table = context.inputs.classes, embedding_table(params, context)
        U, V = principal_components(table)
        mean, inputs = table.mean(axis=0), table_inputs(context)
        answer = context.ground_truth["cyclic_answer"].ravel()

        def fits(circle: Int[Array, ""]) -> Float[Array, " condition"]:
            plane = jax.lax.dynamic_slice_in_dim(V, 2 * circle, 2)

            def on_plane(rows: Float[Array, "token d"], position: int) -> Float[Array, "token d"]:
                projected = mean[None] + (rows - mean[None]) @ plane.T @ plane
                return projected if position in context.inputs.varied else rows

            taps = {site: ByPosition(on_plane)}
            out = context.model.apply(params, inputs, taps=taps, positions=context.read)[:, 0, :p]
            shares = frequency_shares(jax.lax.dynamic_index_in_dim(U, 2 * circle, axis=1))[:, 0]
            k = 1 + shares.argmax()
            # Frequencies k and p - k give the same logits, so the half of an odd k is that of
            # p - k.
            doubled = jnp.where(k % 2 == 0, k, p - k)
            r = jnp.concatenate(
                [
                    _correlations(out, k, answer, p)[:-1],
                    _correlations(out, doubled // 2, answer, p)[-1:],
                ]
            )
            explained = 2 * r - 1
            # An odd frequency of an even modulus is not the double of any frequency, so no pizza
            # accompanies it.
            return explained.at[-1].set(jnp.where(doubled % 2 == 0, explained[-1], jnp.nan))

        count = min(CIRCLES, min(p - 1, table.shape[1]) // 2)
        read = jax.lax.map(fits, jnp.arange(count))
        return jnp.pad(read, ((0, CIRCLES - count), (0, 0)), constant_values=jnp.nan)

    return Measure(
        "circle_fve",
        _circle_fve,
        ("component", "condition"),
        roles=("embedded", "embedding"),
        ground_truth=("table", "cyclic_answer", "residues"),
        coordinates={"component": tuple(range(1, CIRCLES + 1)), "condition": CANDIDATES},
        source=SOURCE,
    )
