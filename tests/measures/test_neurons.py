"""Neurons' frequencies: hand-built neurons, least squares in float64, Gromov's network,
invariances.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fakes import context_of, read, tables

from mi_jax.contracts import Context
from mi_jax.measures import MEASURES
from mi_jax.models import MLP, Transformer, capture
from mi_jax.tasks import ModularArithmetic

pytestmark = pytest.mark.slow  # over half a minute in all


def _task(p: int) -> ModularArithmetic:
    return ModularArithmetic(p=p, fraction=0.5, split_seed=3)


def _context(p: int) -> Context:
    return context_of(_task(p))


def _waves(p: int, k: int) -> tuple[np.ndarray, ...]:
    """w a and w b over the table, w = 2 pi k / p."""
    return np.meshgrid(*[2 * np.pi * k * np.arange(p) / p] * 2, indexing="ij")


def _read(neurons: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """FVE and frequency of neurons [a b neuron]."""
    params, context = tables(neurons=neurons), _context(len(neurons))
    return read("neuron_fve", params, context), read("neuron_frequency", params, context)


def _explained(neuron: np.ndarray, k: int) -> float:
    """R^2 of a neuron on the products of {1, cos, sin}(w a) and {1, cos, sin}(w b), by least
    squares.
    """
    p = len(neuron)
    wa, wb = _waves(p, k)
    functions = [
        f * g
        for f in (np.ones((p, p)), np.cos(wa), np.sin(wa))
        for g in (np.ones((p, p)), np.cos(wb), np.sin(wb))
    ]
    design = np.stack([f.ravel() for f in functions], axis=1)
    residual = neuron.ravel() - design @ np.linalg.lstsq(design, neuron.ravel(), rcond=1e-9)[0]
    return float(1 - (residual**2).sum() / ((neuron - neuron.mean()) ** 2).sum())


# --- Closed forms


@pytest.mark.parametrize(
    ("p", "k"), [(7, 1), (7, 3), (8, 1), (8, 3), (8, 4), (12, 6), (3, 1), (113, 56)]
)
def test_a_neuron_of_one_frequency_is_explained_whole(p: int, k: int) -> None:
    wa, wb = _waves(p, k)
    fve, frequency = _read(
        np.stack([2 + np.cos(wa) + np.cos(wb) + np.cos(wa + wb + 0.3), 3 * np.cos(wa) - 1], axis=-1)
    )
    np.testing.assert_allclose(fve, 1, atol=1e-5)
    assert frequency.tolist() == [k, k]


def test_two_frequencies_share_by_their_squares() -> None:
    (wa, _), (_, vb) = _waves(11, 2), _waves(11, 5)
    fve, frequency = _read((2 * np.cos(wa) + 1 * np.sin(vb))[:, :, None])
    assert fve[0] == pytest.approx(4 / 5, rel=1e-5)
    assert frequency[0] == 2


def test_products_of_two_different_frequencies_belong_to_neither() -> None:
    (wa, _), (_, vb) = _waves(11, 2), _waves(11, 5)
    fve, _ = _read((np.cos(wa) * np.cos(vb) + 0.1 * np.cos(vb))[:, :, None])
    assert fve[0] == pytest.approx(0.005 / 0.255, rel=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.1, 1.7, 1234.567])
@pytest.mark.parametrize("p", [7, 8, 59])
def test_a_neuron_that_never_varies_has_no_frequency(value: float, p: int) -> None:
    wa, _ = _waves(p, 1)
    fve, frequency = _read(np.stack([np.full((p, p), value), np.cos(wa)], axis=-1))
    assert np.isnan(fve[0])
    assert fve[1] == pytest.approx(1, rel=1e-5)
    assert frequency.tolist() == [0, 1]


def test_a_neuron_without_numbers_has_no_frequency() -> None:
    fve, frequency = _read(np.full((7, 7, 1), np.nan))
    assert np.isnan(fve[0])
    assert frequency[0] == 0


# --- Brute force


@pytest.mark.parametrize("p", [5, 6, 7, 8, 11, 12])
def test_shares_are_those_of_least_squares(p: int) -> None:
    rng = np.random.default_rng(p)
    neurons = np.maximum(rng.normal(size=(p, p, 6)), -0.3)
    for n in range(3):
        wa, wb = _waves(p, n % (p // 2) + 1)
        neurons[:, :, n] = np.maximum(np.cos(wa) + np.cos(wb + 0.4) + 0.3 * neurons[:, :, n], 0)
    neurons = neurons.astype(np.float32).astype(np.float64)
    fve, frequency = _read(neurons)
    for n in range(6):
        shares = [_explained(neurons[:, :, n], k) for k in range(1, p // 2 + 1)]
        assert fve[n] == pytest.approx(max(shares), rel=1e-5)
        assert frequency[n] == 1 + int(np.argmax(shares))


# --- Invariances


def test_order_is_kept_and_scale_offset_and_shifts_of_the_inputs_change_nothing() -> None:
    rng = np.random.default_rng(0)
    neurons = rng.normal(size=(7, 7, 5))
    order = [3, 1, 4, 0, 2]
    fve, frequency = _read(neurons)
    for other in (
        neurons[:, :, order],
        5 * neurons[:, :, order] - 2,
        np.roll(neurons, (2, 3), axis=(0, 1))[:, :, order],
    ):
        other_fve, other_frequency = _read(other)
        np.testing.assert_allclose(other_fve, fve[order], rtol=1e-5)
        np.testing.assert_array_equal(other_frequency, frequency[order])


# --- On networks


def test_gromovs_analytic_neurons_have_the_frequencies_they_were_built_with() -> None:
    p, width = 11, 20
    rng = np.random.default_rng(0)
    frequency = 1 + np.arange(width) % 5
    phases = rng.uniform(-np.pi, np.pi, (2, width))
    angle = 2 * np.pi * np.arange(p)[:, None] * frequency / p
    first, second = (jnp.asarray(np.cos(angle + phase), jnp.float32) for phase in phases)
    params = {
        "embed_a": {"W_E": first},
        "embed_b": {"W_E": second},
        "unembed": {"W_U": jnp.asarray(np.cos(angle + phases.sum(axis=0)).T, jnp.float32)},
    }
    task = _task(p)
    model = MLP(width=width, activation="identity").build(task.inputs)
    context = context_of(task, model=model)
    np.testing.assert_array_equal(read("neuron_frequency", params, context), frequency)
    np.testing.assert_allclose(read("neuron_fve", params, context), 1, atol=1e-5)
    quadratic = MLP(width=width).build(task.inputs)
    # (x + y)^2 = 1 + cos(2.)/2 + cos(2.)/2 + 2 x y: frequency k has 2 x y, of variance 1; 2k has
    # the rest, of variance 1/4.
    fve = read("neuron_fve", params, context_of(task, model=quadratic))
    np.testing.assert_allclose(fve, 0.8, atol=1e-5)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_transformers_neurons_are_those_of_its_last_layer_at_the_position_that_is_read(
    layers: int,
) -> None:
    task = _task(7)
    model = Transformer(layers=layers, d_model=8, heads=2, d_mlp=10).build(task.inputs)
    params = model.init(jax.random.key(0))
    site = f"blocks.{layers - 1}.mlp.post"
    inputs = jnp.array([[a, b, 7] for a in range(7) for b in range(7)])
    neurons = np.asarray(
        capture(model.apply, [site])(params, inputs)[1][site][:, 2], np.float64
    ).reshape(7, 7, 10)
    context = context_of(task, model=model)
    fve, frequency = read("neuron_fve", params, context), read("neuron_frequency", params, context)
    shares = np.array(
        [
            (
                [_explained(neurons[:, :, n], k) for k in (1, 2, 3)]
                if np.ptp(neurons[:, :, n])
                else [0.0] * 3
            )
            for n in range(10)
        ]
    )
    alive = shares.max(axis=1) > 0
    assert alive.sum() >= 5
    np.testing.assert_allclose(fve[alive], shares[alive].max(axis=1), rtol=1e-4)
    np.testing.assert_array_equal(frequency, np.where(alive, 1 + shares.argmax(axis=1), 0))


@pytest.mark.parametrize("name", ["neuron_fve", "neuron_frequency"])
def test_compiled_and_plain_agree(name: str) -> None:
    params, context = tables(neurons=np.random.default_rng(0).normal(size=(8, 8, 4))), _context(8)
    np.testing.assert_allclose(
        jax.jit(MEASURES[name].read)(params, context)[name], read(name, params, context), rtol=1e-5
    )


def test_a_model_without_neurons_is_refused() -> None:
    roles = Transformer(d_model=8, heads=2, d_mlp=0).build(_task(7).inputs).roles
    reason = MEASURES["neuron_fve"].missing(roles, frozenset(_context(7).ground_truth), frozenset())
    assert reason == "needs the model's role 'neurons'"
