"""Fourier readings of the weights: the basis, power, Gini, key frequencies; closed forms, numpy's
DFT, invariances.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fakes import FAKE, context_of, read, tables

from mi_jax.basics.fourier import fourier_basis
from mi_jax.measures import MEASURES
from mi_jax.measures.fourier import gini
from mi_jax.models import MLP, Transformer
from mi_jax.tasks import ModularArithmetic

_PLACES = {"embedding": "W_E", "unembedding": "W_L"}
_MODULI = [2, 3, 7, 8, 11, 12]


def _task(p: int) -> ModularArithmetic:
    return ModularArithmetic(p=p, fraction=0.5)


def _wave(p: int, k: int, phase: float = 0.0) -> np.ndarray:
    return np.cos(2 * np.pi * k * np.arange(p) / p + phase)


def _placed(place: str, table: np.ndarray) -> dict[str, jax.Array]:
    """Parameters in which the role of a place finds the table [residue d]."""
    return tables(**{_PLACES[place]: table if place == "embedding" else table.T})


def _dft_power(table: np.ndarray) -> np.ndarray:
    """Shares by frequency of the non-constant energy of the columns, from numpy's DFT."""
    p = len(table)
    energy = (np.abs(np.fft.rfft(table, axis=0)) ** 2).sum(axis=1)[1:]
    if p % 2 == 0:
        energy[-1] /= 2
    return energy / energy.sum()


# --- The basis


@pytest.mark.parametrize("p", [*_MODULI, 59, 113])
def test_the_basis_is_orthonormal(p: int) -> None:
    F = np.asarray(fourier_basis(p), np.float64)
    assert F.shape == (p, p)
    np.testing.assert_allclose(F @ F.T, np.eye(p), atol=1e-6)


@pytest.mark.parametrize("p", [7, 8])
def test_the_rows_are_the_constant_and_then_cosine_and_sine_of_each_frequency(p: int) -> None:
    rows = [np.ones(p)]
    for k in range(1, (p - 1) // 2 + 1):
        rows += [_wave(p, k), np.sin(2 * np.pi * k * np.arange(p) / p)]
    rows += [np.array([(-1.0) ** x for x in range(p)])] if p % 2 == 0 else []
    expected = np.array([row / np.sqrt((row**2).sum()) for row in rows])
    np.testing.assert_allclose(fourier_basis(p), expected, atol=1e-6)


# --- Power


@pytest.mark.parametrize("place", _PLACES)
@pytest.mark.parametrize("p", _MODULI)
def test_power_is_that_of_numpys_transform(place: str, p: int) -> None:
    table = np.random.default_rng(p).normal(size=(p, 5)) + 3
    power = read(f"fourier_power_{place}", _placed(place, table), context_of(_task(p)))
    assert power.shape == (p // 2,)
    np.testing.assert_allclose(power, _dft_power(table), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("place", _PLACES)
def test_power_is_a_share_of_squares(place: str) -> None:
    table = np.stack([3 * _wave(11, 2, 0.7), 4 * _wave(11, 5, -1.0), np.full(11, 9.0)], axis=1)
    power = read(f"fourier_power_{place}", _placed(place, table), context_of(_task(11)))
    np.testing.assert_allclose(power, [0, 9 / 25, 0, 0, 16 / 25], atol=1e-6)


def test_power_stays_under_a_shift_of_residues_a_rotation_of_columns_and_a_factor() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(11, 4))
    rotation = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    context = context_of(_task(11))
    plain, turned = (
        read("fourier_power_embedding", _placed("embedding", x), context)
        for x in (table, 2.5 * np.roll(table, 3, axis=0) @ rotation)
    )
    np.testing.assert_allclose(turned, plain, rtol=1e-5)


# --- Gini


@pytest.mark.parametrize("n", [1, 2, 5, 112])
def test_gini_of_one_alone_and_of_equals(n: int) -> None:
    assert float(gini(jnp.zeros(n).at[n // 2].set(4.0))) == pytest.approx(1 - 1 / n, abs=1e-6)
    assert float(gini(jnp.full(n, 4.0))) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("n", [3, 10, 58])
def test_gini_is_half_the_relative_mean_absolute_difference(n: int) -> None:
    x = np.random.default_rng(n).exponential(size=n)
    differences = np.abs(x[:, None] - x[None, :]).mean()
    assert float(gini(jnp.asarray(x, jnp.float32))) == pytest.approx(
        differences / (2 * x.mean()), rel=1e-5
    )


def test_gini_ignores_order_and_scale() -> None:
    x = jnp.asarray(np.random.default_rng(1).exponential(size=9), jnp.float32)
    assert float(gini(7 * x[::-1])) == pytest.approx(float(gini(x)), rel=1e-6)


@pytest.mark.parametrize("place", _PLACES)
@pytest.mark.parametrize(
    ("p", "k", "phase", "count"),
    [(11, 5, 0.0, 1), (11, 3, np.pi / 2, 1), (11, 2, np.pi / 4, 2), (8, 4, 0.0, 1)],
)
def test_gini_of_pure_waves(place: str, p: int, k: int, phase: float, count: int) -> None:
    """A cosine or a sine is one component of p - 1; a wave with equal parts of both is two."""
    table = 5 + _wave(p, k, phase)[:, None] * np.array([[1.0, -2.0, 0.5]])
    value = read(f"gini_{place}", _placed(place, table), context_of(_task(p)))
    assert float(value) == pytest.approx(1 - count / (p - 1), abs=1e-5)


@pytest.mark.parametrize("place", _PLACES)
@pytest.mark.parametrize("p", [7, 8])
def test_gini_is_that_of_the_norms_of_the_components(place: str, p: int) -> None:
    table = np.random.default_rng(p).normal(size=(p, 3)) * np.linspace(0.2, 2, p)[:, None]
    transform = np.fft.rfft(table, axis=0)[1:]
    scale = np.where(2 * np.arange(1, p // 2 + 1) == p, 1 / np.sqrt(2), 1.0)[:, None]
    norms = np.concatenate(
        [
            np.linalg.norm(transform.real * scale, axis=1),
            np.linalg.norm(transform.imag, axis=1)[: (p - 1) // 2],
        ]
    )
    expected = np.abs(norms[:, None] - norms[None, :]).mean() / (2 * norms.mean())
    assert float(
        read(f"gini_{place}", _placed(place, table), context_of(_task(p)))
    ) == pytest.approx(expected, rel=1e-5)


# --- Key frequencies


def _keys(table: np.ndarray) -> list[int]:
    mask = read("key_frequencies", _placed("unembedding", table), context_of(_task(len(table))))
    assert mask.dtype == bool
    return (np.flatnonzero(mask) + 1).tolist()


@pytest.mark.parametrize(("p", "k"), [(11, 1), (11, 5), (12, 6), (12, 5), (3, 1), (2, 1)])
def test_a_pure_wave_has_its_own_frequency_alone(p: int, k: int) -> None:
    assert _keys(100 + _wave(p, k)[:, None]) == [k]
    if 2 * k != p:
        assert _keys(_wave(p, k, np.pi / 2)[:, None]) == [k]


def test_key_is_what_exceeds_a_quarter_of_the_largest_norm() -> None:
    columns = [
        _wave(13, 1),
        0.252 * _wave(13, 2),
        0.248 * _wave(13, 4),
        0.252 * _wave(13, 6, np.pi / 2),
    ]
    assert _keys(np.stack(columns, axis=1)) == [1, 2, 6]


def test_cosine_or_sine_must_be_large_and_not_both_together() -> None:
    both = np.stack([_wave(13, 1), 0.3 * _wave(13, 3, np.pi / 4)], axis=1)
    assert _keys(both) == [1]
    assert _keys(np.stack([_wave(13, 1), 0.3 * _wave(13, 3)], axis=1)) == [1, 3]


def test_a_table_without_numbers_has_no_key_frequency() -> None:
    assert _keys(np.full((7, 3), np.nan)) == []


# --- Tables by role


def test_special_tokens_and_outputs_of_a_transformer_are_left_out() -> None:
    task = _task(7)
    model = Transformer(d_model=8, heads=2, d_mlp=12).build(task.inputs)
    params = model.init(jax.random.key(0))
    wild = {
        **params,
        "embed": {"W_E": params["embed"]["W_E"].at[7].set(1e3)},
        "unembed": {"W_U": params["unembed"]["W_U"].at[:, 7].set(1e3)},
    }
    context = context_of(task, model=model)
    for name in (
        "fourier_power_embedding",
        "fourier_power_unembedding",
        "gini_embedding",
        "gini_unembedding",
        "key_frequencies",
    ):
        np.testing.assert_array_equal(
            read(name, wild, context), read(name, params, context), err_msg=name
        )
    W_L = (
        np.asarray(params["blocks"]["0"]["mlp"]["W_out"], np.float64)
        @ np.asarray(params["unembed"]["W_U"], np.float64)[:, :7]
    )
    np.testing.assert_allclose(
        read("fourier_power_unembedding", params, context), _dft_power(W_L.T), rtol=1e-4
    )
    W_E = np.asarray(params["embed"]["W_E"], np.float64)[:7]
    np.testing.assert_allclose(
        read("fourier_power_embedding", params, context), _dft_power(W_E), rtol=1e-4
    )


def test_two_embeddings_are_read_side_by_side() -> None:
    task = _task(7)
    model = MLP(width=5).build(task.inputs)
    params, context = model.init(jax.random.key(0)), context_of(task, model=model)
    both = np.concatenate(
        [np.asarray(params[name]["W_E"], np.float64) for name in ("embed_a", "embed_b")], axis=1
    )
    np.testing.assert_allclose(
        read("fourier_power_embedding", params, context), _dft_power(both), rtol=1e-4
    )
    W_L = np.asarray(params["unembed"]["W_U"], np.float64)
    np.testing.assert_allclose(
        read("fourier_power_unembedding", params, context), _dft_power(W_L.T), rtol=1e-4
    )


def test_a_missing_role_or_fact_is_named() -> None:
    model = Transformer(d_model=8, heads=2, d_mlp=0).build(_task(7).inputs)
    everything = frozenset(context_of(_task(7)).ground_truth)
    none = frozenset[str]()
    reason = MEASURES["gini_unembedding"].missing(model.roles, everything, none)
    assert reason == "needs the model's role 'output_map'"
    assert MEASURES["gini_embedding"].missing(model.roles, everything, none) is None
    other = MEASURES["fourier_power_embedding"].missing(FAKE.roles, none, none)
    assert other is not None
    assert other.startswith("needs the task's ground truth")


@pytest.mark.parametrize("name", ["fourier_power_embedding", "gini_unembedding", "key_frequencies"])
def test_compiled_and_plain_agree(name: str) -> None:
    params = tables(
        W_E=np.random.default_rng(0).normal(size=(8, 4)),
        W_L=np.random.default_rng(1).normal(size=(5, 8)),
    )
    context = context_of(_task(8))
    np.testing.assert_allclose(
        jax.jit(MEASURES[name].read)(params, context)[name], read(name, params, context), rtol=1e-6
    )
