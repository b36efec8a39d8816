"""Twins of the measures of clock and pizza."""

import random

import numpy as np
import pytest
from networks import EACH, Bilinear, assert_twin, bilinear, frequencies, waves

from mi_jax.measures.clocks import CANDIDATES, CIRCLES


def _components(net: Bilinear) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of the embedding, unit vectors over the tokens, and directions, by falling variance."""
    E = net.arrays["E"][: net.task.p]
    U, _, V = np.linalg.svd(E - E.mean(axis=0), full_matrices=False)
    return E.mean(axis=0), U, V


def _shares(v: np.ndarray) -> np.ndarray:
    """Share of each frequency in a vector of unit norm."""
    p = len(v)
    return np.array([np.square(waves(p, k) @ v).sum() for k in frequencies(p)])


@pytest.mark.parametrize(("p", "operation", "weights"), EACH)
def test_circularity_is_its_formula(p: int, operation: str, weights: str) -> None:
    net = bilinear(p, operation, weights)  # pyright: ignore[reportArgumentType]
    _, U, _ = _components(net)
    best = [_shares(v).max() for v in U[:, : min(4, p - 1)].T]
    assert_twin(net.read("circularity"), np.mean(best))


@pytest.mark.parametrize(
    ("p", "operation", "weights"), [case for case in EACH if case.values[0] % 2]
)
@pytest.mark.parametrize("name", ["distance_irrelevance", "distance_irrelevance_wrong"])
def test_distance_irrelevance_is_its_formula(
    p: int, operation: str, weights: str, name: str
) -> None:
    net = bilinear(p, operation, weights)  # pyright: ignore[reportArgumentType]
    logits, sign = net.logits(net.arrays["E"][:p]), 1 if operation == "add" else -1
    M = np.zeros((p, p))
    for a in range(p):
        for b in range(p):
            answer = (a + sign * b) % p
            others = np.delete(logits[a, b], answer)
            right = name == "distance_irrelevance"
            M[answer, (a - sign * b) % p] = logits[a, b, answer] if right else others.max()
    assert_twin(net.read(name), M.std(axis=0).mean() / M.std())


@pytest.mark.parametrize(("p", "operation", "weights"), EACH)
def test_symmetricity_of_gradients_is_its_formula(p: int, operation: str, weights: str) -> None:
    net = bilinear(p, operation, weights)  # pyright: ignore[reportArgumentType]
    E, A, B, U = (net.arrays[name] for name in "EABU")
    triples = list(range(p**3))
    random.Random(42).shuffle(triples)
    cosines = []
    for i in triples[:100]:
        a, b, c = i // p**2, i // p % p, i % p
        first, second = A @ ((E[b] @ B) * U[:, c]), B @ ((E[a] @ A) * U[:, c])
        cosines.append(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))
    value = net.read("gradient_symmetricity")
    assert value == pytest.approx(np.mean(cosines), abs=1e-6)


def _candidate(name: str, k: int, p: int, sign: int) -> np.ndarray:
    """Logits of a candidate at one frequency, [token token_other class]."""
    w = 2 * np.pi * k / p
    a, b, c = np.meshgrid(*[np.arange(p)] * 3, indexing="ij")
    b = sign * b
    X, Y = np.cos(w * a) + np.cos(w * b), np.sin(w * a) + np.sin(w * b)
    C, S = np.cos(w * c / 2), np.sin(w * c / 2)
    if name == "clock":
        return np.cos(w * (a + b - c))
    if name == "pizza":
        return abs(C * X + S * Y) - abs(-S * X + C * Y)
    if name == "pizza'":
        other = (abs(X - Y) - abs(X + Y)) * np.sin(w * c) / np.sqrt(2)
        return (abs(X) - abs(Y)) * np.cos(w * c) - other
    double = np.cos(2 * w * a) + np.cos(2 * w * b), np.sin(2 * w * a) + np.sin(2 * w * b)
    return -np.cos(w * c) * double[0] - np.sin(w * c) * double[1]


def _half(k: int, p: int) -> int | None:
    """Frequency whose double is k mod p, if there is one."""
    return next((half for half in range(1, p) if 2 * half % p == k), None)


@pytest.mark.parametrize(("p", "operation", "weights"), EACH)
def test_circles_are_their_formula(p: int, operation: str, weights: str) -> None:
    net = bilinear(p, operation, weights)  # pyright: ignore[reportArgumentType]
    mean, U, V = _components(net)
    E, sign = net.arrays["E"][:p], 1 if operation == "add" else -1
    expected = np.full((CIRCLES, len(CANDIDATES)), np.nan)
    for i in range(min(CIRCLES, (p - 1) // 2)):
        plane = V[2 * i : 2 * i + 2]
        logits = net.logits(mean + (E - mean) @ plane.T @ plane).ravel()
        share = _shares(U[:, 2 * i])
        k = 1 + int(share.argmax())
        for j, name in enumerate(CANDIDATES):
            w = _half(k, p) if name == "accompanying" else k
            if w is not None:
                candidate = _candidate(name, w, p, sign).ravel()
                expected[i, j] = 2 * np.corrcoef(logits, candidate)[0, 1] - 1
    read = net.read("circle_fve")
    assert np.isnan(read).tolist() == np.isnan(expected).tolist()
    if np.isfinite(expected).any():
        assert_twin(read, expected)
