"""Likeness of representations, loss barriers, and parts.

Checked against definitions, invariances, known losses, and planted parts.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fakes import context_of
from scipy.linalg import orthogonal_procrustes

from mi_jax.basics.dims import Params
from mi_jax.basics.errors import ConfigError
from mi_jax.contracts import Reference
from mi_jax.decompositions.parts import parts
from mi_jax.decompositions.similarity import (
    barrier,
    linear_cka,
    loss_barrier,
    path_losses,
    procrustes_distance,
    similarity,
)
from mi_jax.measures import MEASURES
from mi_jax.models import MLP
from mi_jax.tasks import ModularArithmetic

_RNG = np.random.default_rng(0)
_X, _Y = _RNG.normal(size=(40, 5)) + 2, _RNG.normal(size=(40, 5))


def _unit(rows: np.ndarray) -> np.ndarray:
    around = rows - rows.mean(axis=0)
    return around / np.linalg.norm(around)


def _float(rows: np.ndarray) -> jax.Array:
    return jnp.asarray(rows, jnp.float32)


def test_cka_is_the_cosine_of_centred_gram_matrices() -> None:
    K, L = (rows @ rows.T for rows in (_unit(_X), _unit(_Y)))
    expected = (K * L).sum() / (np.linalg.norm(K) * np.linalg.norm(L))
    assert float(linear_cka(_float(_X), _float(_Y))) == pytest.approx(expected, rel=1e-5)


def test_procrustes_is_the_distance_after_scipys_best_rotation() -> None:
    X, Y = _unit(_X), _unit(_Y)
    rotation, _ = orthogonal_procrustes(Y, X)
    assert float(procrustes_distance(_float(_X), _float(_Y))) == pytest.approx(
        np.linalg.norm(X - Y @ rotation), rel=1e-5
    )


@pytest.mark.parametrize(("compare", "same"), [(linear_cka, 1.0), (procrustes_distance, 0.0)])
def test_a_rotation_a_factor_and_a_shift_change_nothing(compare: Any, same: float) -> None:
    rotation = np.linalg.qr(_RNG.normal(size=(5, 5)))[0]
    assert float(compare(_float(_X), _float(3 * _X @ rotation + 7))) == pytest.approx(
        same, abs=2e-3
    )
    assert float(compare(_float(_X[:, :2]), _float(_Y))) == pytest.approx(
        float(compare(_float(_X[:, [1, 0]]), _float(_Y))), rel=1e-5
    )


@pytest.mark.parametrize("widths", [(5, 5), (5, 9), (9, 5)])
@pytest.mark.parametrize("size", [0.0, 1e-5, 1e-4, 1e-3, 1e-2, 1.0])
def test_small_distances_are_not_rounding(widths: tuple[int, int], size: float) -> None:
    """One representation beside its rotation in a wider space, moved by a little; in float64."""
    rng = np.random.default_rng(3)
    width, other_width = widths
    rotation = np.linalg.qr(rng.normal(size=(max(widths), max(widths))))[0]
    one = np.zeros((60, max(widths)))
    one[:, : min(widths)] = rng.normal(size=(60, min(widths)))
    if size < 1:
        other = one @ rotation + size * rng.normal(size=(60, max(widths)))
    else:
        other = rng.normal(size=(60, max(widths)))
    one = one[:, : min(widths)]
    if width > other_width:
        one, other = other, one
    one, other = (x.astype(np.float32) for x in (one, other))
    X, Y = (_unit(x.astype(np.float64)) for x in (one, other))
    X, Y = (np.pad(x, ((0, 0), (0, max(widths) - x.shape[1]))) for x in (X, Y))
    expected = np.linalg.norm(X - Y @ orthogonal_procrustes(Y, X)[0])
    assert float(procrustes_distance(_float(one), _float(other))) == pytest.approx(
        expected, rel=1e-3, abs=3e-6
    )


def test_unrelated_directions_have_the_largest_distance() -> None:
    one, other = np.eye(6)[:, :1] - np.eye(6)[:, 1:2], np.eye(6)[:, 2:3] - np.eye(6)[:, 3:4]
    assert float(linear_cka(_float(one), _float(other))) == pytest.approx(0, abs=1e-6)
    assert float(procrustes_distance(_float(one), _float(other))) == pytest.approx(
        np.sqrt(2), rel=1e-6
    )


_TASK = ModularArithmetic(p=7, fraction=0.5)
_MODEL = MLP(width=12).build(_TASK.inputs)
_ONE, _OTHER = (_MODEL.init(jax.random.key(i)) for i in (0, 1))
_CONTEXT = dataclasses.replace(context_of(_TASK, model=_MODEL), reference=Reference(final=_OTHER))


def test_measures_compare_the_neurons_with_the_final_ones() -> None:
    inputs = np.array([[a, b, 7] for a in range(7) for b in range(7)])
    activations = []
    for params in (_ONE, _OTHER):
        pre = (
            np.asarray(params["embed_a"]["W_E"])[inputs[:, 0]]
            + np.asarray(params["embed_b"]["W_E"])[inputs[:, 1]]
        )
        activations.append(pre**2)
    for kind, compare in (("cka", linear_cka), ("procrustes", procrustes_distance)):
        read = similarity(kind, "final").read(_ONE, _CONTEXT)[f"{kind}_final"]  # pyright: ignore[reportArgumentType]
        assert float(read) == pytest.approx(float(compare(*map(_float, activations))), rel=1e-3)


def _fitted(params: Params, steps: int = 200) -> Params:
    """Parameters after gradient descent on the training loss.

    Between two fitted networks there is a barrier, between random ones there is none.
    """
    gradient = jax.grad(lambda p: MEASURES["train_loss"].read(p, _CONTEXT)["train_loss"])
    return jax.lax.fori_loop(
        0, steps, lambda _, p: jax.tree.map(lambda x, g: x - 0.5 * g, p, gradient(p)), params
    )


def test_the_path_between_networks_and_its_barrier() -> None:
    one, other = _fitted(_ONE), _fitted(_OTHER)
    context = dataclasses.replace(_CONTEXT, reference=Reference(final=other))
    losses = path_losses(one, other, context, "train")
    for share, loss in zip((0, 0.3, 1), np.asarray(losses)[[0, 3, 10]], strict=True):
        between = jax.tree.map(lambda x, y, s=share: (1 - s) * x + s * y, one, other)
        assert float(MEASURES["train_loss"].read(between, context)["train_loss"]) == pytest.approx(
            float(loss), rel=1e-5
        )
    expected = (np.asarray(losses) - np.linspace(losses[0], losses[-1], 11)).max()
    assert expected > 0.1
    read = loss_barrier("train").read(one, context)["loss_barrier_train_final"]
    assert float(read) == pytest.approx(expected, rel=1e-4)


def test_a_convex_line_has_no_barrier_and_a_hill_its_height() -> None:
    x = jnp.linspace(0, 1, 11)
    assert float(barrier((x - 0.3) ** 2)) == pytest.approx(0, abs=1e-6)
    assert float(barrier(5 * x + 2 - 8 * (x - 0.5) ** 2)) == pytest.approx(2, rel=1e-5)


# --- Parts ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["nmf", "ica"])
def test_planted_parts_are_found_but_for_order_sign_and_scale(method: Any) -> None:
    rng = np.random.default_rng(0)
    if method == "nmf":
        codes, rows = (
            rng.exponential(size=(60, 3)) * (rng.uniform(size=(60, 3)) < 0.4),
            np.kron(np.eye(3), np.ones((1, 4))),
        )
    else:
        codes, rows = rng.uniform(-1, 1, (2000, 3)), rng.normal(size=(3, 12))
    found = parts(codes @ rows, method, 3)
    likeness = np.abs(np.corrcoef(found.codes.T, codes.T)[:3, 3:])
    assert (likeness.max(axis=0) > 0.99).all()
    assert found.explained > 0.999
    np.testing.assert_allclose(found.codes @ found.parts + found.mean, codes @ rows, atol=0.05)


@pytest.mark.parametrize(
    ("method", "count", "word"),
    [
        ("pca", 2, "ica"),
        ("nmf", 0, "between 1 and"),
        ("ica", 9, "between 1 and"),
        ("nmf", 2, "negative"),
    ],
)
def test_invalid_parts_are_refused(method: Any, count: int, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        parts(-np.ones((4, 8)), method, count)
