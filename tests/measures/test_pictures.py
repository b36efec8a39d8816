"""Readings for figures, one snapshot at a time: the answer surface, trained pairs, and tokens in
the planes of frequencies.
"""

import dataclasses
from typing import Any

import numpy as np
import pytest
from fakes import context_of, tables

from mi_jax.contracts import Reference
from mi_jax.measures import PICTURES
from mi_jax.tasks import ModularArithmetic


def _read(name: str, params: Any, task: ModularArithmetic, final: Any = None) -> np.ndarray:
    context = dataclasses.replace(context_of(task), reference=Reference(final=final))
    return np.asarray(PICTURES[name].read(params, context)[name])


@pytest.mark.parametrize("operation", ["add", "multiply", "random"])
def test_the_answer_surface_is_the_right_logit_less_the_largest_wrong_one(operation: Any) -> None:
    p, rng = 5, np.random.default_rng(0)
    task, logits = (
        ModularArithmetic(p=p, fraction=0.5, operation=operation),
        rng.normal(size=(p, p, p)),
    )
    answer = np.asarray(task.examples(np.arange(p * p)).targets).reshape(p, p)
    expected = np.empty((p, p))
    for a, b in np.ndindex(p, p):
        right = int(answer[a, b])
        expected[a, b] = logits[a, b, right] - max(logits[a, b, c] for c in range(p) if c != right)
    surface = _read("answer_surface", tables(logits=logits), task)
    np.testing.assert_allclose(surface, expected, rtol=1e-5, atol=1e-6)
    assert {True, False} == set((surface > 0).ravel().tolist())
    np.testing.assert_array_equal(surface > 0, logits.argmax(-1) == answer)


def test_trained_pairs_are_those_of_the_split() -> None:
    task = ModularArithmetic(p=7, fraction=0.4, split_seed=3)
    pairs = {(int(a), int(b)) for a, b, _ in np.asarray(task.data(0).inputs)}
    expected = [[float((a, b) in pairs) for b in range(7)] for a in range(7)]
    np.testing.assert_array_equal(
        _read("trained_pairs", tables(logits=np.zeros((7, 7, 7))), task), expected
    )


def _plane(final: np.ndarray, k: int) -> np.ndarray:
    """[2 d]: the orthonormal directions of frequency k in the rows of ``final``."""
    p = len(final)
    t = 2 * np.pi * k * np.arange(p) / p
    cos, sin = np.cos(t) @ final, np.sin(t) @ final
    cos = cos / np.linalg.norm(cos)
    sin = sin - (sin @ cos) * cos
    return np.stack([cos, sin / np.linalg.norm(sin)])


@pytest.mark.parametrize("p", [7, 8])
def test_circle_coordinates_are_the_centred_embedding_in_the_final_models_planes(p: int) -> None:
    rng = np.random.default_rng(p)
    table, final = rng.normal(size=(p, 9)) + 2, rng.normal(size=(p, 9))
    places = _read(
        "circle_coordinates",
        tables(W_E=table),
        ModularArithmetic(p=p, fraction=0.5),
        tables(W_E=final),
    )
    assert places.shape == (p // 2, p, 2)
    for k in range(1, (p - 1) // 2 + 1):
        expected = (table - table.mean(axis=0)) @ _plane(final, k).T
        np.testing.assert_allclose(places[k - 1], expected, rtol=1e-4, atol=1e-5)
    if p % 2 == 0:
        np.testing.assert_array_equal(places[-1], 0)  # the alternating direction has no plane


def test_an_embedding_of_one_circle_is_that_circle_in_its_plane_and_a_point_in_the_others() -> None:
    p, k, radius = 11, 3, 2.5
    turns = 2 * np.pi * np.arange(1, 6)[:, None] * np.arange(p) / p
    waves = np.stack([np.cos(turns), np.sin(turns)], axis=1).reshape(10, p)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(12, 12)))[0]
    # In the final model each frequency has two directions; this embedding holds those of k only.
    final, circle = waves.T @ rotation[:10], radius * waves[2 * (k - 1) : 2 * k]
    table = circle.T @ rotation[2 * (k - 1) : 2 * k]
    places = _read(
        "circle_coordinates",
        tables(W_E=table),
        ModularArithmetic(p=p, fraction=0.5),
        tables(W_E=final),
    )
    for j in range(1, 6):
        np.testing.assert_allclose(places[j - 1], circle.T if j == k else 0, atol=1e-5)


def test_circle_coordinates_stay_under_an_offset_and_a_rotation_of_both_embeddings() -> None:
    p, rng = 7, np.random.default_rng(4)
    task, table, final = (
        ModularArithmetic(p=p, fraction=0.5),
        rng.normal(size=(p, 6)),
        rng.normal(size=(p, 6)),
    )
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    plain = _read("circle_coordinates", tables(W_E=table), task, tables(W_E=final))
    moved = _read(
        "circle_coordinates", tables(W_E=(table + 3) @ rotation), task, tables(W_E=final @ rotation)
    )
    np.testing.assert_allclose(moved, plain, rtol=1e-4, atol=1e-5)
