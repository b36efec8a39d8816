"""Spectra and modes of weights, against NumPy, planted modes and known angles."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fakes import context_of, tables
from scipy.linalg import subspace_angles

from mi_jax.basics.fourier import fourier_basis
from mi_jax.basics.pytrees import dotted
from mi_jax.contracts import Context, Reference
from mi_jax.decompositions.modes import (
    key_mode_share,
    mode_frequency_share,
    principal_angles,
    subspace_angle,
)
from mi_jax.measuring.registry import EXPENSIVE, READINGS
from mi_jax.models import MLP, Transformer
from mi_jax.tasks import ModularArithmetic

_P = 11
_TASK = ModularArithmetic(p=_P, fraction=0.5)


def _read(name: str, params: object, context: Context) -> np.ndarray:
    return np.asarray({**READINGS, **EXPENSIVE}[name].read(params, context)[name])


# --- Every array ------------------------------------------------------------------------


def test_spectra_are_numpys_heads_side_by_side() -> None:
    model = Transformer(d_model=6, heads=2, d_head=4, d_mlp=9).build(_TASK.inputs)
    leaves, structure = jax.tree.flatten(model.init(jax.random.key(0)))
    params = structure.unflatten([leaf + 0.1 * i for i, leaf in enumerate(leaves)])
    context = context_of(_TASK, model=model)
    values, ranks = _read("singular_values", params, context), _read("stable_rank", params, context)
    arrays = {name: np.asarray(array, np.float64) for name, array in dotted(params).items()}
    for row, (name, array) in enumerate(arrays.items()):
        if array.ndim == 3:
            array = np.concatenate([*array], axis=0 if name.endswith("W_O") else 1)
        expected = np.linalg.svd(np.atleast_2d(array), compute_uv=False)
        np.testing.assert_allclose(values[row, : len(expected)], expected, rtol=1e-4, atol=1e-5)
        assert not values[row, len(expected) :].any()
        np.testing.assert_allclose(ranks[row], (array**2).sum() / expected[0] ** 2, rtol=1e-4)
    assert values.shape == (len(arrays), 6)


# --- Tables of waves --------------------------------------------------------------------


def _waves(p: int, frequencies: tuple[int, ...]) -> np.ndarray:
    """Columns: cosine and sine of each frequency."""
    return np.asarray(fourier_basis(p)).T[:, [i for k in frequencies for i in (2 * k - 1, 2 * k)]]


def _table(strengths: list[float], frequencies: tuple[int, ...], d: int = 8) -> np.ndarray:
    right = np.linalg.qr(np.random.default_rng(0).normal(size=(d, len(strengths))))[0]
    return _waves(_P, frequencies) * np.array(strengths) @ right.T


def test_modes_that_are_waves_are_the_key_frequencies() -> None:
    params = tables(W_L=_table([9, 8, 7, 6], (2, 5)).T)
    context = context_of(_TASK, keys=[2, 5])
    shares = _read("mode_frequency_share_unembedding", params, context)
    np.testing.assert_allclose(shares[:4], 1, atol=1e-5)
    assert np.isnan(shares[8:]).all()
    assert _read("key_mode_share_unembedding", params, context) == pytest.approx(1, abs=1e-5)
    assert _read(
        "key_mode_share_unembedding", params, context_of(_TASK, keys=[1, 4])
    ) == pytest.approx(0, abs=1e-5)
    # Both leading modes belong to one frequency.
    assert _read(
        "key_mode_share_unembedding", params, context_of(_TASK, keys=[2])
    ) == pytest.approx(1, abs=1e-5)


def test_the_modes_of_a_wide_table_are_those_of_a_narrow_one() -> None:
    """More neurons than classes, as trained networks have: the same four waves, spread over 30
    neurons.
    """
    spread = np.linalg.qr(np.random.default_rng(0).normal(size=(30, 8)))[0]
    params = tables(W_L=spread @ _table([9, 8, 7, 6], (2, 5)).T)
    context = context_of(_TASK, keys=[2, 5])
    np.testing.assert_allclose(
        _read("mode_frequency_share_unembedding", params, context)[:4], 1, atol=1e-5
    )
    assert _read("key_mode_share_unembedding", params, context) == pytest.approx(1, abs=1e-5)


def test_a_mode_of_two_frequencies_has_the_larger_ones_share() -> None:
    u = 0.6 * _waves(_P, (1,))[:, 0] + 0.8 * _waves(_P, (3,))[:, 1]
    params = tables(W_L=5 * u[None] * np.array([[3.0], [4.0]]))
    context = context_of(_TASK, keys=[1])
    assert _read("mode_frequency_share_unembedding", params, context)[0] == pytest.approx(
        0.64, abs=1e-5
    )
    # The second of the two modes has size 0 and any direction, so that only the first is known.
    assert 0.18 - 1e-5 <= _read("key_mode_share_unembedding", params, context) <= 0.68 + 1e-5


def test_random_modes_have_the_key_frequencies_share_of_dimensions() -> None:
    rng, context = np.random.default_rng(0), context_of(_TASK, keys=[2, 5])
    found = [
        _read("key_mode_share_unembedding", tables(W_L=rng.normal(size=(8, _P))), context)
        for _ in range(40)
    ]
    # Modes may lie along the constant too, so p of the dimensions count.
    assert np.mean(found) == pytest.approx(4 / _P, abs=0.05)


def test_strengths_along_the_final_modes() -> None:
    final = tables(W_L=_table([9, 7], (3,)).T)
    context = dataclasses.replace(context_of(_TASK), reference=Reference(final=final))
    half = tables(W_L=0.5 * _table([9, 7], (3,)).T)
    np.testing.assert_allclose(
        _read("final_mode_strength_unembedding", final, context)[:2], [9, 7], rtol=1e-5
    )
    np.testing.assert_allclose(
        _read("final_mode_strength_unembedding", half, context)[:2], [4.5, 3.5], rtol=1e-5
    )
    # The same modes with other strengths: 2 instead of 9, and 11 instead of 7.
    turned = tables(W_L=_table([2, 11], (3,)).T)
    np.testing.assert_allclose(
        _read("final_mode_strength_unembedding", turned, context)[:2], [2, 11], rtol=1e-5
    )


# --- Trailing modes and even moduli -----------------------------------------------------


def _falling_table(rng: np.random.Generator, p: int = 31, d: int = 64) -> np.ndarray:
    """Wide float32 table of six strong modes and a tail from 5e-3 down to 5e-4 of the first."""
    left = np.linalg.qr(rng.normal(size=(p, p)))[0]
    right = np.linalg.qr(rng.normal(size=(d, p)))[0]
    strengths = np.concatenate([np.linspace(1, 0.7, 6), np.linspace(5e-3, 5e-4, p - 6)])
    return (left * strengths @ right.T).astype(np.float32)


def _left(table: np.ndarray) -> np.ndarray:
    return np.linalg.svd(table.astype(np.float64), full_matrices=False)[0]


def _stored(place: str, table: np.ndarray) -> dict[str, jax.Array]:
    return tables(W_E=table) if place == "embedding" else tables(W_L=table.T)


@pytest.mark.parametrize("place", ["embedding", "unembedding"])
def test_weak_modes_of_a_wide_table_are_read_as_exactly_as_strong_ones(place: str) -> None:
    """Compare with float64: squared matrices in float32 lose modes below 1e-3 of the first."""
    rng = np.random.default_rng(0)
    table, task = _falling_table(rng), ModularArithmetic(p=31, fraction=0.5)
    context = context_of(task, keys=[1, 4, 6, 9])
    u = _left(table)
    power = np.square(np.asarray(fourier_basis(31), np.float64)[1:] @ u).reshape(15, 2, 31).sum(1)
    # Rounding turns a mode by 1e-7 over its gap to the next one, here 2e-4 of the first mode.
    share = mode_frequency_share(place).read(_stored(place, table), context)
    np.testing.assert_allclose(share[f"mode_frequency_share_{place}"], power.max(axis=0), atol=1e-4)
    of_keys = key_mode_share(place).read(_stored(place, table), context)[f"key_mode_share_{place}"]
    assert float(of_keys) == pytest.approx(power[[0, 3, 5, 8], :8].sum() / 8, abs=1e-5)


@pytest.mark.parametrize("place", ["embedding", "unembedding"])
@pytest.mark.parametrize("other", ["previous", "final"])
def test_a_small_turn_of_weak_modes_is_not_read_as_rounding(place: str, other: Any) -> None:
    """The leading ten modes, four of them weak, turn by .02 radians at most."""
    rng = np.random.default_rng(1)
    now = _falling_table(rng)
    turn = np.linalg.qr(np.eye(31) + 2e-3 * rng.normal(size=(31, 31)))[0]
    then = (turn @ now).astype(np.float32)
    angles = subspace_angles(_left(now)[:, :10], _left(then)[:, :10])
    context = dataclasses.replace(
        context_of(ModularArithmetic(p=31, fraction=0.5)),
        reference=Reference(**{other: _stored(place, then)}),
    )
    name = f"subspace_angle_{place}_{other}"
    read = subspace_angle(place, other).read(_stored(place, now), context)[name]
    assert float(read) == pytest.approx(np.sqrt(np.square(angles).mean()), rel=1e-3)


@pytest.mark.parametrize("p", [2, 3, 4, 6, 12, 13])
def test_modes_that_span_the_key_frequencies_lie_along_them_wholly(p: int) -> None:
    """The frequency p / 2 of an even p has one direction, so that it fills one mode only."""
    task = ModularArithmetic(p=p, fraction=0.5)
    for keys in ([p // 2], [1], list(range(1, p // 2 + 1))):
        rows = sorted({row for k in keys for row in (2 * k - 1, 2 * k) if row < p})
        waves = np.asarray(fourier_basis(p)).T[:, rows]
        weak = np.asarray(fourier_basis(p)).T[:, [i for i in range(p) if i not in rows]]
        table = np.concatenate([waves * np.linspace(9, 5, len(rows)), 0.1 * weak], axis=1)
        read = _read("key_mode_share_unembedding", tables(W_L=table.T), context_of(task, keys=keys))
        assert float(read) == pytest.approx(1, abs=1e-5), keys


# --- Angles -----------------------------------------------------------------------------


def test_principal_angles_are_scipys_small_ones_too() -> None:
    rng = np.random.default_rng(0)
    for shift in (1e-4, 0.1, 3.0):
        one = np.linalg.qr(rng.normal(size=(20, 4)))[0]
        other = np.linalg.qr(one + shift * rng.normal(size=(20, 4)))[0]
        found = principal_angles(jnp.asarray(one, jnp.float32), jnp.asarray(other, jnp.float32))
        np.testing.assert_allclose(
            np.sort(found), np.sort(subspace_angles(one, other)), rtol=2e-3, atol=2e-6
        )


@pytest.mark.parametrize("place", ["embedding", "unembedding"])
def test_the_angle_between_checkpoints(place: str) -> None:
    """Ten orthogonal modes, all rotated by a known angle into dimensions outside their span."""
    rng = np.random.default_rng(0)
    task = ModularArithmetic(p=31, fraction=0.5)
    axes, right = (
        np.linalg.qr(rng.normal(size=(31, 20)))[0],
        np.linalg.qr(rng.normal(size=(12, 10)))[0],
    )
    angle, strength = 0.3, np.linspace(10, 5, 10)
    turned = np.cos(angle) * axes[:, :10] + np.sin(angle) * axes[:, 10:]
    one, other = (u * strength @ right.T for u in (axes[:, :10], turned))
    here, there = (
        (tables(W_E=t) if place == "embedding" else tables(W_L=t.T)) for t in (one, other)
    )
    context = dataclasses.replace(
        context_of(task), reference=Reference(previous=there, final=there)
    )
    assert _read(f"subspace_angle_{place}_previous", here, context) == pytest.approx(
        angle, rel=1e-4
    )
    if place == "unembedding":
        assert _read("subspace_angle_unembedding_final", here, context) == pytest.approx(
            angle, rel=1e-4
        )


# --- Every weight that touches tokens or classes ----------------------------------------


def test_the_waves_of_every_weight_that_touches_tokens_or_classes() -> None:
    model = Transformer(d_model=6, heads=2, d_head=4, d_mlp=9).build(_TASK.inputs)
    params, context = model.init(jax.random.key(0)), context_of(_TASK, model=model)
    E, attention = np.asarray(params["embed"]["W_E"])[:_P], params["blocks"]["0"]["attn"]
    expected = {"readout": np.asarray(params["unembed"]["W_U"])[:, :_P].T}
    expected |= {
        place: np.concatenate([E @ np.asarray(W) for W in attention[f"W_{letter}"]], axis=1)
        for place, letter in (("queries", "Q"), ("keys", "K"), ("values", "V"))
    }
    mlp = MLP(embedding="two", d_embed=5, width=7).build(_TASK.inputs)
    own = mlp.init(jax.random.key(1))
    W = np.asarray(own["layers"]["0"]["W"])
    inputs = np.concatenate(
        [np.asarray(own[f"embed_{x}"]["W_E"]) @ W[i : i + 5] for x, i in (("a", 0), ("b", 5))],
        axis=1,
    )
    for place, table in (*expected.items(), ("neuron_inputs", inputs)):
        power = np.square(np.abs(np.fft.rfft(table, axis=0))).sum(axis=1)[1:]
        weights, where = (
            (own, context_of(_TASK, model=mlp)) if place == "neuron_inputs" else (params, context)
        )
        np.testing.assert_allclose(
            _read(f"fourier_power_{place}", weights, where), power / power.sum(), rtol=1e-4
        )


# --- Tables of zeros --------------------------------------------------------------------


@pytest.mark.parametrize("model", [Transformer(d_model=16, heads=2, d_mlp=32), MLP(width=4)])
def test_the_shape_of_a_table_of_zeros_is_not_a_number(model: Any) -> None:
    """Singular vectors of a table of zeros are arbitrary; whether it is wide or narrow."""
    built = model.build(_TASK.inputs)
    params = jax.tree.map(jnp.zeros_like, built.init(jax.random.key(0)))
    context = dataclasses.replace(
        context_of(_TASK, model=built),
        reference=Reference(initial=params, previous=params, final=params),
    )
    names = [
        "circularity",
        "effective_rank_unembedding",
        "gini_unembedding",
        "mode_frequency_share_unembedding",
        "subspace_angle_unembedding_final",
        "subspace_angle_unembedding_previous",
    ]
    for name in names:
        assert np.isnan(_read(name, params, context)).all(), name
