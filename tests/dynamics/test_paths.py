"""Principal components of trajectories and of random walks.

Trajectories are checked against scikit-learn, walks against their closed form and simulation.
"""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from mi_jax.dynamics import (
    likeness,
    path_of_products,
    principal_path,
    walk_like,
    walk_likeness,
    walk_path,
)
from mi_jax.dynamics.paths import PrincipalPath


def test_joint_components_are_scikits() -> None:
    rows = np.random.default_rng(0).normal(size=(2, 7, 30)) * np.linspace(1, 3, 30)
    path, model = principal_path(rows, modes=4), PCA(4)
    scores = model.fit_transform(rows.reshape(14, 30)).reshape(2, 7, 4)
    np.testing.assert_allclose(np.abs(path.scores), np.abs(scores), rtol=1e-6)
    np.testing.assert_allclose(path.shares, model.explained_variance_ratio_, rtol=1e-6)
    assert (path.scores[0, -1] >= 0).all()


def test_equal_steps_give_cosines_with_shares_in_closed_form() -> None:
    """Variances lambda_k = 1 / (4 sin^2(pi k / 2T)), which sum to (T^2 - 1) / 6."""
    T, k = 50, np.arange(1, 6)
    null = walk_path(np.full((1, T - 1), 0.7))
    np.testing.assert_allclose(
        null.shares, 1 / (4 * np.sin(np.pi * k / (2 * T)) ** 2) * 6 / (T**2 - 1), rtol=1e-9
    )
    cosines = np.cos(np.pi * k[None] * (np.arange(T)[:, None] + 0.5) / T)
    scores = null.scores[0] / np.linalg.norm(null.scores[0], axis=0)
    np.testing.assert_allclose(
        np.abs((scores * cosines).sum(axis=0)), np.linalg.norm(cosines, axis=0), rtol=1e-9
    )
    assert null.shares[0] == pytest.approx(6 / np.pi**2, rel=1e-3)


def test_walks_in_many_dimensions_converge_to_their_null() -> None:
    rng, lengths = np.random.default_rng(0), np.random.default_rng(1).uniform(0.5, 2, (2, 40))
    moves = rng.normal(size=(2, 40, 20_000))
    moves *= (lengths / np.linalg.norm(moves, axis=2))[:, :, None]
    start = rng.normal(size=(2, 1, 20_000)) * 0.05
    rows = start + np.concatenate([np.zeros((2, 1, 20_000)), np.cumsum(moves, axis=1)], axis=1)
    apart = np.linalg.norm(rows[:, None, 0] - rows[None, :, 0], axis=2)
    path, null = principal_path(rows), walk_path(lengths, apart)
    flat = rows.reshape(82, -1)
    for ours, same in (
        (path_of_products(flat @ flat.T, 2), path),
        (walk_like(flat @ flat.T, 2), null),
    ):
        np.testing.assert_allclose(ours.shares, same.shares, rtol=1e-6)
        np.testing.assert_allclose(ours.scores, same.scores, atol=1e-6 * np.abs(same.scores).max())
    np.testing.assert_allclose(path.shares, null.shares, rtol=0.05)
    assert (likeness(path, null) > 0.99).all()
    # Seeds that begin far apart lie along the first component.
    assert walk_path(lengths, 100 * apart).shares[0] > 0.99


def test_a_constant_has_no_components_and_few_rows_have_few() -> None:
    still = principal_path(np.ones((1, 4, 6)))
    assert still.scores.shape == (1, 4, 3)
    assert not still.scores.any()
    assert np.isnan(still.shares).all()
    assert np.isnan(likeness(still, walk_path(np.zeros((1, 3))))).all()


def test_a_straight_line_is_no_walk() -> None:
    rng = np.random.default_rng(0)
    direction = rng.normal(size=500)
    rows = (np.linspace(0, 1, 30) ** 3)[None, :, None] * direction + 1e-3 * rng.normal(
        size=(1, 30, 500)
    )
    lengths = np.linalg.norm(np.diff(rows, axis=1), axis=2)
    path, null = principal_path(rows), walk_path(lengths)
    assert path.shares[0] > 0.99 > null.shares[0]
    assert likeness(path, null)[1] < 0.5


def test_likeness_is_the_squared_cosine_of_all_seeds_scores_together() -> None:
    one, other = np.zeros((2, 3, 2)), np.zeros((2, 3, 2))
    one[0, 0], one[1, 2] = [3, 1], [4, 0]
    other[0, 0] = [-2, 5]
    np.testing.assert_allclose(
        likeness(PrincipalPath(one, np.ones(2)), PrincipalPath(other, np.ones(2))),
        [9 / 25, 1],
        rtol=1e-12,
    )


def test_each_seed_is_compared_with_a_walk_of_its_own() -> None:
    """Three seeds: two walks and a line. The walks are told from the line, and none from itself."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3, 30, 5000)).cumsum(axis=1)
    rows[2] = np.linspace(0, 1, 30)[:, None] ** 3 * rows[2, -1] + 1e-3 * rows[2]
    rows += rng.normal(size=(3, 1, 5000)) * 30
    flat = rows.reshape(90, -1)
    alike = walk_likeness(flat @ flat.T, 3, modes=4)
    assert alike.shape == (3, 4)
    assert (alike[:2] > 0.9).all()
    assert alike[2, 1] < 0.5
    for seed in range(3):
        alone = walk_likeness(rows[seed] @ rows[seed].T, 1, modes=4)
        np.testing.assert_allclose(alike[[seed]], alone, rtol=1e-6)


def test_components_that_a_seed_does_not_have_are_nan() -> None:
    rows = np.random.default_rng(0).normal(size=(2, 3, 50))
    flat = rows.reshape(6, -1)
    alike = walk_likeness(flat @ flat.T, 2, modes=5)
    assert np.isfinite(alike[:, :2]).all()
    assert np.isnan(alike[:, 2:]).all()
    assert np.isnan(walk_likeness(np.ones((4, 4)), 1, modes=2)).all()
