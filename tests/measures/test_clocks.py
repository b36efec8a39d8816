"""Clock or pizza: closed forms, plain loops, finite differences, the published triples."""

import dataclasses
import itertools
import math
import random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import few
from fakes import context_of, read, tables

from mi_jax.contracts import Model, Roles, Site
from mi_jax.measures import MEASURES
from mi_jax.measures.clocks import (
    CANDIDATES,
    CIRCLES,
    _correlations,
    candidate_logits,
    symmetry_triples,
)
from mi_jax.models import MLP, Transformer
from mi_jax.models.taps import Tapped
from mi_jax.tasks import ModularArithmetic


def _task(p: int, **options: Any) -> ModularArithmetic:
    return ModularArithmetic(p=p, fraction=0.4, split_seed=1, **options)


def _wave(p: int, k: int, phase: float = 0.0) -> np.ndarray:
    """cos(2 pi k x / p - phase) of unit norm."""
    wave = np.cos(2 * np.pi * k * np.arange(p) / p - phase)
    return wave / np.linalg.norm(wave)


# --- Circularity


def _circularity(table: np.ndarray) -> float:
    return float(read("circularity", tables(W_E=table), context_of(_task(len(table)))))


def _of_components(vectors: list[np.ndarray], d: int = 9) -> np.ndarray:
    """Table whose principal components are these orthonormal vectors over the tokens, in this
    order.
    """
    directions = np.linalg.qr(np.random.default_rng(0).normal(size=(d, len(vectors))))[0]
    sizes = 2.0 ** -np.arange(len(vectors))
    return 3 + np.stack(vectors, axis=1) * sizes @ directions.T


@pytest.mark.slow
@pytest.mark.parametrize(
    ("p", "frequencies"), [(7, (1, 3)), (11, (5, 2)), (8, (1, 3)), (59, (17, 3))]
)
def test_an_embedding_of_circles_is_circular(p: int, frequencies: tuple[int, int]) -> None:
    vectors = [_wave(p, k, phase) for k in frequencies for phase in (0.4, 0.4 + np.pi / 2)]
    assert _circularity(_of_components(vectors)) == pytest.approx(1, abs=1e-5)


def test_each_component_counts_by_its_largest_frequency() -> None:
    """Two frequencies in one vector of unit norm: only the larger share counts; the mean is over
    four.
    """
    first, second, third = _wave(11, 1), _wave(11, 2), _wave(11, 3)
    vectors = [
        0.6 * first + 0.8 * second,
        0.8 * first - 0.6 * second,
        third,
        0.96 * _wave(11, 4) + 0.28 * _wave(11, 5),
    ]
    assert _circularity(_of_components(vectors)) == pytest.approx(
        (0.64 + 0.64 + 1 + 0.96**2) / 4, rel=1e-5
    )


def test_components_from_the_fifth_on_do_not_count() -> None:
    circles = [_wave(11, k, phase) for k in (1, 2) for phase in (0, np.pi / 2)]
    rest = [(_wave(11, 3) + _wave(11, 4)) / np.sqrt(2), (_wave(11, 3) - _wave(11, 4)) / np.sqrt(2)]
    assert _circularity(_of_components(circles + rest)) == pytest.approx(1, abs=1e-5)
    assert _circularity(_of_components(rest + circles)) == pytest.approx(
        (0.5 + 0.5 + 1 + 1) / 4, abs=1e-5
    )


def _circularity_in_float64(table: np.ndarray) -> float:
    """Mean over the components of variance of the largest share that one frequency's waves have."""
    p, values = len(table), []
    components = min(4, p - 1, table.shape[1])
    for v in np.linalg.svd(table - table.mean(axis=0))[0][:, :components].T:
        shares = []
        for k in range(1, p // 2 + 1):
            angles = 2 * np.pi * k * np.arange(p) / p
            waves = [np.cos(angles)] if 2 * k == p else [np.cos(angles), np.sin(angles)]
            shares.append(sum((w @ v) ** 2 / (w @ w) for w in waves))
        values.append(max(shares))
    return float(np.mean(values))


@pytest.mark.parametrize(
    ("p", "d"), [(5, 8), (6, 9), (7, 5), (8, 20), (11, 6), (12, 16), (16, 3), (59, 128)]
)
def test_circularity_is_its_formula_in_float64_and_low_at_random(p: int, d: int) -> None:
    table = np.random.default_rng(p).normal(size=(p, d)) * np.linspace(0.5, 2, d)
    table = table.astype(np.float32).astype(np.float64)
    value = _circularity(table)
    assert value == pytest.approx(_circularity_in_float64(table), rel=1e-4)
    assert p < 7 or value < 0.9
    assert p != 59 or value < 0.25


@pytest.mark.parametrize("p", [2, 3, 4, 6, 12])
def test_pure_waves_are_circular_for_any_modulus(p: int) -> None:
    """A centred table of p tokens has p - 1 components: fewer than four count for p < 5."""
    angles = [(k, phase) for k in range(1, (p + 1) // 2) for phase in (0, np.pi / 2)]
    vectors = [_wave(p, k, phase) for k, phase in angles]
    if p % 2 == 0:
        vectors.insert(0, _wave(p, p // 2))
    assert _circularity(_of_components(vectors, d=max(9, p))) == pytest.approx(1, abs=1e-5)


def test_the_alternating_wave_of_an_even_modulus_counts_once() -> None:
    """A component that is half the alternating wave and half frequency 1 has the share .5."""
    alternating, first, sine = _wave(12, 6), _wave(12, 1), _wave(12, 1, np.pi / 2)
    mixed = [(alternating + first) / np.sqrt(2), (alternating - first) / np.sqrt(2)]
    assert _circularity(_of_components([*mixed, sine, _wave(12, 2)])) == pytest.approx(
        (0.5 + 0.5 + 1 + 1) / 4, abs=1e-5
    )


def test_circularity_is_invariant_to_shift_rotation_offset_and_factor() -> None:
    rng = np.random.default_rng(1)
    table = rng.normal(size=(11, 6)) * np.linspace(0.5, 3, 6)
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    turned = 7 * np.roll(table, 3, axis=0) @ rotation + rng.normal(size=6)
    assert _circularity(turned) == pytest.approx(_circularity(table), rel=1e-4)


# --- Distance irrelevance

_IRRELEVANCE = ("distance_irrelevance", "distance_irrelevance_wrong")


def _irrelevance(logits: np.ndarray, name: str = "distance_irrelevance", **options: Any) -> float:
    return float(read(name, tables(logits=logits), context_of(_task(len(logits), **options))))


def _candidate(name: str, k: int, p: int) -> np.ndarray:
    """[a b class], in float64 from the float32 function under test, which has tests of its own
    below.
    """
    return np.asarray(
        candidate_logits(jnp.array(k), p)[CANDIDATES.index(name)], np.float64
    ).reshape(p, p, p)


@pytest.mark.parametrize("name", few(_IRRELEVANCE, 1))
@pytest.mark.parametrize("operation", ["add", "subtract"])
@pytest.mark.parametrize("p", [7, 11])
def test_irrelevance_is_its_formula_in_plain_loops(name: str, operation: Any, p: int) -> None:
    logits = (
        np.random.default_rng(p).normal(size=(p, p, p + 1)).astype(np.float32).astype(np.float64)
    )
    logits[..., p] = 99
    M = np.zeros((p, p))
    for a, b in itertools.product(range(p), repeat=2):
        s, d = ((a + b) % p, (a - b) % p) if operation == "add" else ((a - b) % p, (a + b) % p)
        M[s, d] = (
            logits[a, b, s]
            if name == "distance_irrelevance"
            else max(logits[a, b, c] for c in range(p) if c != s)
        )
    expected = np.mean([M[:, d].std() for d in range(p)]) / M.std()
    assert _irrelevance(logits, name, operation=operation) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("p", [7, 59])
@pytest.mark.parametrize("k", [1, 3])
def test_the_ideal_pizzas_logit_depends_on_the_distance_alone(p: int, k: int) -> None:
    a, b = np.meshgrid(np.arange(p), np.arange(p), indexing="ij")
    logits = np.zeros((p, p, p))
    logits[a, b, (a + b) % p] = np.abs(np.cos(np.pi * k * (a - b) / p))
    assert _irrelevance(5 * logits + 2) == pytest.approx(0, abs=1e-6)
    assert _irrelevance(_candidate("pizza", k, p)) == pytest.approx(0, abs=1e-4)


def test_a_logit_of_the_answer_alone_does_not_depend_on_the_distance() -> None:
    a, b = np.meshgrid(np.arange(7), np.arange(7), indexing="ij")
    logits = np.zeros((7, 7, 7))
    logits[a, b, (a + b) % 7] = np.random.default_rng(0).normal(size=7)[(a + b) % 7]
    assert _irrelevance(logits) == pytest.approx(1, abs=1e-6)


def test_irrelevance_of_noise_is_the_known_one() -> None:
    values = [
        _irrelevance(np.random.default_rng(seed).normal(size=(59, 59, 59))) for seed in range(4)
    ]
    assert np.mean(values) == pytest.approx(0.988, abs=1.5e-3)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3])
def test_a_correct_logit_that_never_varies_has_no_irrelevance(value: float) -> None:
    """The noise-free clock: 0 / 0."""
    a, b = np.meshgrid(np.arange(59), np.arange(59), indexing="ij")
    logits = np.random.default_rng(0).normal(size=(59, 59, 59))
    logits[a, b, (a + b) % 59] = value
    assert np.isnan(_irrelevance(logits))
    assert np.isfinite(_irrelevance(logits, "distance_irrelevance_wrong"))
    assert np.isnan(_irrelevance(_candidate("clock", 5, 59)))


@pytest.mark.parametrize("name", few(_IRRELEVANCE, 1))
def test_irrelevance_stays_under_an_offset_a_factor_and_a_shift_of_both_inputs(name: str) -> None:
    """(a, b, c) -> (a + 2, b + 2, c + 4) keeps the distance."""
    logits = np.random.default_rng(0).normal(size=(7, 7, 7))
    turned = np.roll(logits, (2, 2, 4), axis=(0, 1, 2))
    for other in (4 * logits, logits + 3, turned):
        assert _irrelevance(other, name) == pytest.approx(_irrelevance(logits, name), rel=1e-5)


def test_an_even_modulus_has_no_distance_that_tells_the_pair() -> None:
    concepts = frozenset(context_of(_task(8)).ground_truth)
    for name in _IRRELEVANCE:
        reason = MEASURES[name].missing(
            MLP(width=4).build(_task(8).inputs).roles, concepts, frozenset()
        )
        assert reason == "needs the task's ground truth 'distance'"


# --- Gradient symmetricity


@pytest.mark.parametrize("p", [5, 7, 59])
def test_the_triples_are_the_published_ones(p: int) -> None:
    triples = list(itertools.product(range(p), repeat=3))
    random.Random(42).shuffle(triples)
    assert [tuple(triple) for triple in symmetry_triples(p).tolist()] == triples[:100]


def _float64_logits(config: Transformer, w: Any, embedded: np.ndarray) -> np.ndarray:
    """Logits at the last position of one layer without norms, from the embedded tokens [example
    position d].
    """
    x = embedded + (w["pos_embed"]["W_pos"] if config.positions == "learned" else 0)
    attn, mlp = w["blocks"]["0"]["attn"], w["blocks"]["0"]["mlp"]
    mid = x[:, -1]
    for h in range(config.heads):
        scores = np.einsum("ne,nse->ns", x[:, -1] @ attn["W_Q"][h], x @ attn["W_K"][h]) / math.sqrt(
            config.head_size
        )
        softmax = np.exp(scores - scores.max(axis=1, keepdims=True))
        pattern = (
            config.attention_rate * softmax / softmax.sum(axis=1, keepdims=True)
            + 1
            - config.attention_rate
        )
        mid = mid + np.einsum("ns,nse->ne", pattern, x @ attn["W_V"][h]) @ attn["W_O"][h]
    post = np.maximum(mid @ mlp["W_in"] + mlp["b_in"], 0)
    return (mid + post @ mlp["W_out"] + mlp["b_out"]) @ w["unembed"]["W_U"]


def _symmetricity(params: Any, model: Any, task: ModularArithmetic) -> float:
    return float(read("gradient_symmetricity", params, context_of(task, model=model)))


@pytest.mark.slow
@pytest.mark.parametrize("format", few(["a b", "a b ="], 1))
def test_symmetricity_is_that_of_finite_differences(format: Any) -> None:
    p, d = 7, 6
    task = _task(p, format=format)
    config = Transformer(
        d_model=d, heads=2, d_mlp=10, attention="bidirectional", attention_rate=0.6
    )
    model = config.build(task.inputs)
    params = jax.tree.map(lambda x: 1.5 * x + 0.05, model.init(jax.random.key(0)))
    w = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    triples = list(itertools.product(range(p), repeat=3))
    random.Random(42).shuffle(triples)
    a, b, c = np.array(triples[:100]).T
    embedded = w["embed"]["W_E"][
        np.stack([a, b, np.full_like(a, p)][: task.inputs.positions], axis=1)
    ]
    gradients, h = np.zeros((2, 100, d)), 1e-6
    for place, i in np.ndindex(2, d):
        step = np.zeros_like(embedded)
        step[:, place, i] = h
        up, down = (
            _float64_logits(config, w, embedded + sign * step)[np.arange(100), c]
            for sign in (1, -1)
        )
        gradients[place, :, i] = (up - down) / (2 * h)
    first, second = gradients
    cosines = (
        (first * second).sum(axis=1)
        / np.linalg.norm(first, axis=1)
        / np.linalg.norm(second, axis=1)
    )
    assert -0.5 < cosines.mean() < 0.95
    assert _symmetricity(params, model, task) == pytest.approx(cosines.mean(), abs=2e-5)


@pytest.mark.slow
def test_a_network_of_the_sum_of_its_tokens_is_symmetric() -> None:
    """Without positions and with all attention 1, only E_a + E_b is seen at '='."""
    task = _task(7)
    model = Transformer(d_model=8, heads=2, d_mlp=12, attention_rate=0.0, positions="none").build(
        task.inputs
    )
    assert _symmetricity(model.init(jax.random.key(0)), model, task) == pytest.approx(1, abs=1e-5)
    uneven = Transformer(d_model=8, heads=2, d_mlp=12, positions="learned").build(task.inputs)
    params = jax.tree.map(lambda x: 2 * x, uneven.init(jax.random.key(0)))
    assert _symmetricity(params, uneven, task) < 0.99


def test_a_model_without_embedded_tokens_has_no_gradients_to_compare() -> None:
    roles, concepts = (
        MLP(width=4).build(_task(7).inputs).roles,
        frozenset(context_of(_task(7)).ground_truth),
    )
    for name in ("gradient_symmetricity", "circle_fve"):
        assert (
            MEASURES[name].missing(roles, concepts, frozenset())
            == "needs the model's role 'embedded'"
        )


# --- Logits of clock and pizza


def _by_loops(name: str, k: int, p: int) -> np.ndarray:
    """[a b class], one number at a time."""
    w, cos, sin = 2 * math.pi * k / p, math.cos, math.sin

    def answer(a: int, b: int, c: int) -> float:
        X, Y = cos(w * a) + cos(w * b), sin(w * a) + sin(w * b)
        C, S = cos(w * c / 2), sin(w * c / 2)
        if name == "clock":
            return cos(w * (a + b - c))
        if name == "pizza":
            return abs(C * X + S * Y) - abs(-S * X + C * Y)
        if name == "pizza'":
            return (abs(X) - abs(Y)) * cos(w * c) - (abs(X - Y) - abs(X + Y)) * sin(
                w * c
            ) / math.sqrt(2)
        assert name == "accompanying"
        return -cos(w * c) * (cos(2 * w * a) + cos(2 * w * b)) - sin(w * c) * (
            sin(2 * w * a) + sin(2 * w * b)
        )

    return np.array([answer(a, b, c) for a, b, c in itertools.product(range(p), repeat=3)]).reshape(
        p, p, p
    )


@pytest.mark.parametrize(("p", "k"), few([(8, 4), (7, 1), (8, 3), (31, 13)], 1))
def test_correlations_with_the_candidates_are_those_of_all_their_numbers(p: int, k: int) -> None:
    logits = np.random.default_rng(0).normal(size=(p * p, p)) + 0.3 * _by_loops(
        "pizza", k, p
    ).reshape(p * p, p)
    a, b = np.divmod(np.arange(p * p), p)
    answer = jnp.asarray((a + b) % p)
    read = _correlations(jnp.asarray(logits, jnp.float32), jnp.array(k), answer, p)
    varies = [_by_loops(name, k, p).std() > 1e-9 for name in CANDIDATES]
    expected = [
        np.corrcoef(logits.ravel(), _by_loops(name, k, p).ravel())[0, 1]
        for name in np.array(CANDIDATES)[varies]
    ]
    assert len(expected) >= 2
    np.testing.assert_allclose(np.asarray(read)[varies], expected, atol=1e-5)


@pytest.mark.parametrize("name", CANDIDATES)
@pytest.mark.parametrize(("p", "k"), [(7, 1), (7, 3), (8, 4), (11, 5), (31, 13)])
def test_candidates_are_their_formulas_in_plain_loops(name: str, p: int, k: int) -> None:
    np.testing.assert_allclose(_candidate(name, k, p), _by_loops(name, k, p), atol=1e-4)


@pytest.mark.parametrize(("p", "k"), [(7, 1), (11, 4), (59, 5)])
def test_the_pizzas_correct_logit_is_twice_the_cosine_of_half_the_distance(p: int, k: int) -> None:
    a, b = np.meshgrid(np.arange(p), np.arange(p), indexing="ij")
    correct = _candidate("pizza", k, p)[a, b, (a + b) % p]
    np.testing.assert_allclose(correct, 2 * np.abs(np.cos(np.pi * k * (a - b) / p)), atol=1e-4)


def test_an_ideal_clock_and_an_ideal_pizza_correlate_as_published() -> None:
    clock, pizza = (_candidate(name, 5, 59).ravel() for name in ("clock", "pizza"))
    r = np.corrcoef(clock, pizza)[0, 1]
    assert r == pytest.approx(0.8965, abs=5e-5)
    assert 2 * r - 1 == pytest.approx(0.793, abs=5e-4)


@pytest.mark.parametrize("name", CANDIDATES)
def test_frequencies_k_and_p_minus_k_answer_the_same(name: str) -> None:
    """For an odd frequency k, half of p - k may therefore stand for half of k."""
    np.testing.assert_allclose(_candidate(name, 3, 11), _candidate(name, 8, 11), atol=1e-4)


# --- Circles


def _circles(params: Any, model: Any, task: ModularArithmetic) -> np.ndarray:
    return np.asarray(
        MEASURES["circle_fve"].read(params, context_of(task, model=model))["circle_fve"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("format", ["a b", "a b ="])
def test_circles_are_those_of_networks_with_the_others_taken_from_their_embedding(
    format: Any,
) -> None:
    """W_E of the tokens becomes its mean plus its projection on two components; '=' stays."""
    p, d = 13, 16
    task = _task(p, format=format)
    model = Transformer(
        d_model=d, heads=2, d_mlp=20, attention="bidirectional", attention_rate=0.5
    ).build(task.inputs)
    params: Any = jax.tree.map(lambda x: 2 * x + 0.02, model.init(jax.random.key(5)))
    W_E = np.asarray(params["embed"]["W_E"], np.float64)
    mean = W_E[:p].mean(axis=0)
    U, s, V = np.linalg.svd(W_E[:p] - mean, full_matrices=False)
    assert (s[:11] / s[1:12]).min() > 1.01, "components must be apart"
    inputs = jnp.array([[a, b, p][: task.inputs.positions] for a in range(p) for b in range(p)])
    expected = np.zeros((CIRCLES, len(CANDIDATES)))
    for i in range(CIRCLES):
        plane = V[2 * i : 2 * i + 2]
        table = W_E.copy()
        table[:p] = mean + (W_E[:p] - mean) @ plane.T @ plane
        alone = {**params, "embed": {"W_E": jnp.asarray(table, jnp.float32)}}
        logits = np.asarray(model.apply(alone, inputs)[:, -1, :p], np.float64).ravel()
        k = 1 + int(np.abs(np.fft.fft(U[:, 2 * i])[1 : p // 2 + 1]).argmax())
        for j, name in enumerate(CANDIDATES):
            w = (
                next(half for half in range(1, p) if 2 * half % p == k)
                if name == "accompanying"
                else k
            )
            expected[i, j] = 2 * np.corrcoef(logits, _by_loops(name, w, p).ravel())[0, 1] - 1
    np.testing.assert_allclose(_circles(params, model, task), expected, atol=5e-5)
    assert np.ptp(expected) > 0.05


@pytest.mark.slow
def test_circles_that_an_embedding_lacks_are_nan() -> None:
    """A centred table of 7 tokens has 6 components, one of width 8 among 13 tokens has 8: 3 and 4
    circles.
    """
    for p, circles in ((7, 3), (13, 4)):
        task = _task(p)
        model = Transformer(d_model=8, heads=2, d_mlp=12).build(task.inputs)
        values = _circles(model.init(jax.random.key(0)), model, task)
        assert np.isfinite(values[:circles]).all()
        assert np.isnan(values[circles:]).all()


@pytest.mark.slow
def test_an_odd_frequency_of_an_even_modulus_has_no_half_that_could_accompany_it() -> None:
    p, task = 12, _task(12)
    model = Transformer(d_model=16, heads=2, d_mlp=12).build(task.inputs)
    params: Any = model.init(jax.random.key(0))
    circles = [20 / k * _wave(p, k, phase) for k in (1, 2) for phase in (0, np.pi / 2)]
    params["embed"]["W_E"] = (
        params["embed"]["W_E"].at[:p, :4].add(jnp.asarray(np.stack(circles, axis=1), jnp.float32))
    )
    values = _circles(params, model, task)
    assert np.isfinite(values[:2, :3]).all()
    assert np.isnan(values[:2, 3]).tolist() == [True, False]


@dataclasses.dataclass(frozen=True)
class _Circle:
    """Network on the circle of its embedding, W_E [token 2]: logits cos(a o b - c) of the angles.

    Attributes:
        p: the modulus.
        sign: 1 for the sum of the two angles, -1 for their difference.
        frequency: of the classes' angles 2 pi k c / p.
    """

    p: int
    sign: int
    frequency: int

    def apply(self, params: Any, inputs: Any, *, taps: Any = None, positions: Any = None) -> Any:
        tokens = Tapped(taps, (_EMBEDDED,)).at("embed", params["W_E"][inputs])
        first, second = tokens[:, 0, :2], tokens[:, 1, :2] * jnp.array([[1.0, self.sign]])
        cos = first[:, 0] * second[:, 0] - first[:, 1] * second[:, 1]
        sin = first[:, 1] * second[:, 0] + first[:, 0] * second[:, 1]
        angles = 2 * np.pi * self.frequency * np.arange(self.p) / self.p
        logits = cos[:, None] * np.cos(angles)[None] + sin[:, None] * np.sin(angles)[None]
        return logits[:, None]

    def model(self) -> Model:
        roles = Roles(embedding=(lambda params: params["W_E"][: self.p],), embedded="embed")
        return Model(lambda key: {}, self.apply, roles=roles, sites=(_EMBEDDED,))


_EMBEDDED = Site("embed", "W_E[token]", ("batch", "position", "d"))


def _circle_network(task: ModularArithmetic, k: int, extra: float = 0.0) -> tuple[Any, Model]:
    """Parameters and model of an exact clock at frequency k.

    Args:
        task: addition or subtraction.
        k: the frequency of the clock.
        extra: strength of the alternating wave that is mixed into the first coordinate.
    """
    p = task.p
    angles = 2 * np.pi * k * np.arange(p) / p
    table = np.stack([1.1 * np.cos(angles), np.sin(angles)], axis=1)
    table[:, 0] += extra * (-1.0) ** np.arange(p)
    W_E = np.concatenate([table, np.zeros((1, 2))])
    sign = 1 if task.operation == "add" else -1
    return tables(W_E=W_E), _Circle(p, sign, k).model()


@pytest.mark.parametrize("p", [7, 12, 13, 23])
@pytest.mark.parametrize("operation", ["add", "subtract"])
def test_a_clock_is_a_clock_on_addition_and_on_subtraction(operation: Any, p: int) -> None:
    task = _task(p, operation=operation)
    first = _circles(*_circle_network(task, k=2), task)[0]
    assert first[0] > 0.98
    assert first.argmax() == 0


@pytest.mark.parametrize("operation", ["add", "subtract"])
def test_a_circles_frequency_is_not_the_alternating_wave_that_has_less_power(
    operation: Any,
) -> None:
    """Shares .6 of frequency 5 and .4 of frequency 12, of p = 24: the circle is of frequency 5."""
    p, k, task = 24, 5, _task(24, operation=operation)
    # The cosine has power 1.1^2 p / 2, the alternating wave extra^2 p.
    params, model = _circle_network(task, k, extra=1.1 / np.sqrt(3))
    first = _circles(params, model, task)[0]
    W_E = np.asarray(params["W_E"], np.float64)
    inputs = jnp.array([[a, b, p] for a in range(p) for b in range(p)])
    logits = np.asarray(model.apply(params, inputs)[:, -1, :p], np.float64).ravel()
    sign = 1 if operation == "add" else -1
    a, b = np.divmod(np.arange(p * p), p)
    angle = 2 * np.pi * k * ((a + sign * b)[:, None] - np.arange(p)) / p
    r = np.corrcoef(logits, np.cos(angle).ravel())[0, 1]
    assert W_E[:p].mean(axis=0) == pytest.approx(0, abs=1e-6)
    assert first[0] == pytest.approx(2 * r - 1, abs=1e-4)
