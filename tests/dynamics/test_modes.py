"""Modes followed through training: planted ranks, births, crossings and turns are found.

Noise has no modes.
"""

from typing import Literal

import numpy as np
import pytest

from mi_jax.dynamics import follow_modes
from mi_jax.dynamics.modes import noise_threshold

_STEPS = np.unique(np.geomspace(1, 10_000, 60).astype(int))


def _directions(rng: np.random.Generator, n: int, r: int) -> np.ndarray:
    return np.linalg.qr(rng.normal(size=(n, r)))[0]


def _planted(r: int, seed: int, shape: tuple[int, int] = (40, 60)) -> tuple[np.ndarray, np.ndarray]:
    """Noise whose scale decays, plus r modes that rise within two snapshots.

    Returns:
        The matrices, and the snapshots at which the modes are born.
    """
    rng = np.random.default_rng(seed)
    u, v = (_directions(rng, n, r) for n in shape)
    births = np.sort(rng.choice(np.arange(5, len(_STEPS) - 8), r, replace=False))
    age = np.arange(len(_STEPS))[:, None] - births[None]
    scale = np.geomspace(1, 0.2, len(_STEPS))
    # The noise's edge is scale (sqrt m + sqrt n); a mode just above it cannot be told from noise.
    strength = np.where(age >= 0, 2.0 * (1 - 0.5 ** (age + 1.0)) * (1 + np.arange(r) / r), 0) * (
        np.sqrt(40) + np.sqrt(60)
    )
    noise = rng.normal(size=(len(_STEPS), *shape)) * scale[:, None, None]
    return np.einsum("tr,mr,nr->tmn", strength, u, v) + noise, births


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("r", [1, 4, 8])
def test_a_planted_rank_and_its_births_are_found(r: int, seed: int) -> None:
    matrices, births = _planted(r, seed)
    lines = follow_modes(matrices, _STEPS)
    assert abs(int(lines.found.sum()) - r) <= 1
    dated = np.searchsorted(_STEPS, np.sort(lines.birth[lines.found, 1]))
    for planted in births:
        assert np.abs(dated - planted).min() <= 1
    np.testing.assert_array_equal(
        lines.death[lines.found], [[_STEPS[-1], np.inf]] * lines.found.sum()
    )
    assert (_STEPS[dated - 1] == np.sort(lines.birth[lines.found, 0])).all()
    assert np.isnan(lines.birth[~lines.found]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("noise", ["median", "first"])
def test_rounding_in_a_matrix_without_noise_is_no_mode(
    noise: Literal["median", "first"], dtype: type
) -> None:
    rng, births = np.random.default_rng(2), np.array([2, 5, 5, 9])
    u, v = (_directions(rng, n, 4) for n in (59, 200))
    age = np.arange(16)[:, None] - births[None]
    matrices = np.einsum(
        "tr,mr,nr->tmn", np.where(age >= 0, 1 + 0.1 * age + 0.3 * np.arange(4), 0), u, v
    )
    lines = follow_modes(matrices.astype(dtype), np.arange(16), noise=noise)
    dates = np.sort(lines.birth[lines.found], axis=0)
    assert dates.tolist() == np.stack([births - 1, births], axis=1).tolist()


@pytest.mark.parametrize("shape", [(30, 30), (20, 80), (113, 64)])
def test_noise_has_no_modes_whatever_its_scale(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    lines = follow_modes(
        rng.normal(size=(6, *shape)) * np.geomspace(1e-3, 1e3, 6)[:, None, None], np.arange(6)
    )
    assert not lines.found.any()
    assert not lines.alive.any()


def test_the_threshold_is_gavish_and_donohos() -> None:
    """2.858 medians for a square matrix, 1.43 for a single row (their table 3 and equation 5)."""
    values = np.array([[1.0, 2, 3], [2, 4, 6]])
    np.testing.assert_allclose(noise_threshold(values, (5, 5)), [5.72, 11.44], rtol=1e-3)
    np.testing.assert_allclose(noise_threshold(values, (1, 10**9)), [2.86, 5.72], rtol=1e-3)


def test_modes_of_a_product_must_exceed_the_first_snapshots_largest() -> None:
    """A product of random matrices has modes far above its median from the beginning."""
    rng = np.random.default_rng(0)
    product = rng.normal(size=(60, 20)) @ rng.normal(size=(20, 50)) / np.sqrt(20)
    u, v = _directions(rng, 60, 1)[:, 0], _directions(rng, 50, 1)[:, 0]
    rise = np.where(np.arange(12) >= 5, 60.0, 0)
    matrices = (
        product[None] * np.linspace(1, 0.5, 12)[:, None, None]
        + rise[:, None, None] * u[None, :, None] * v[None, None]
    )
    assert follow_modes(matrices, np.arange(12)).found.sum() > 1
    lines = follow_modes(matrices, np.arange(12), noise="first")
    assert lines.birth[lines.found].tolist() == [[4, 5]]
    np.testing.assert_allclose(lines.noise, np.linalg.svd(product, compute_uv=False)[0])


def test_lines_keep_to_their_modes_where_values_cross() -> None:
    rng = np.random.default_rng(0)
    u, v = _directions(rng, 20, 2), _directions(rng, 30, 2)
    rise = np.linspace(1, 3, 21)
    strength = np.stack([rise, rise[::-1]], axis=1)
    lines = follow_modes(np.einsum("tr,mr,nr->tmn", strength, u, v), np.arange(21), most=2)
    # Where both are 2 exactly, the modes are any two directions of their plane.
    np.testing.assert_allclose(lines.values, strength, atol=1e-9)
    away = np.r_[1:10, 12:21]
    np.testing.assert_allclose(lines.turn[away], 0, atol=1e-6)
    assert np.isnan(lines.turn[0]).all()


def test_a_modes_turn_and_when_it_freezes() -> None:
    """u turns by .1 radians per snapshot until the tenth; v does not turn."""
    angle = 0.1 * np.minimum(np.arange(20), 10)
    u = np.zeros((20, 6))
    u[:, 0], u[:, 1] = np.cos(angle), np.sin(angle)
    v = np.eye(8)[0]
    steps = 10 * np.arange(20)
    lines = follow_modes(
        5 * u[:, :, None] * v[None, None] + 1e-3 * np.eye(6, 8)[None], steps, most=1
    )
    np.testing.assert_allclose(lines.turn[1:, 0], np.r_[np.full(10, 0.1), np.zeros(9)], atol=1e-3)
    assert lines.found.tolist() == [True]
    assert lines.birth[0].tolist() == [-np.inf, 0]
    # At snapshot 8 the mode is .2 radians away, up to the rest of the matrix; from 9 on it is
    # nearer.
    assert lines.frozen[0].tolist() in ([70, 80], [80, 90])


def test_a_mode_that_vanishes_has_a_death() -> None:
    rng = np.random.default_rng(0)
    u, v = _directions(rng, 30, 1)[:, 0], _directions(rng, 30, 1)[:, 0]
    strength = np.where((np.arange(20) >= 4) & (np.arange(20) < 15), 60.0, 0)
    matrices = strength[:, None, None] * u[None, :, None] * v[None, None] + rng.normal(
        size=(20, 30, 30)
    )
    lines = follow_modes(matrices, np.arange(20))
    (mode,) = np.flatnonzero(lines.found)
    assert (lines.birth[mode].tolist(), lines.death[mode].tolist()) == ([3, 4], [14, 15])
    assert lines.alive[:, mode].sum() == 11


def test_a_trajectory_of_few_snapshots() -> None:
    one = follow_modes(
        np.eye(4)[None] * np.array([9.0, 1, 1, 1])[None, None], np.array([0]), most=2
    )
    assert one.values.shape == one.turn.shape == (1, 2)
    assert one.found.tolist() == [True, False]
