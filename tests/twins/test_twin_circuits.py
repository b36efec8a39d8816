"""Twins of the heads' circuits, and of the Fourier measures of the weights that touch tokens."""

from typing import Any

import jax
import numpy as np
import pytest
from attending import Attending, attending
from networks import SPREAD, assert_twin, frequencies, read, waves

SINGLE = ("head_norms", "head_rank", "copying_score", "matching_score")
COMPOSED = ("composition_score", "matching_through_head")
FOURIER = (
    "fourier_power_queries",
    "fourier_power_keys",
    "fourier_power_values",
    "fourier_power_readout",
    "gini_queries",
    "gini_keys",
    "gini_values",
    "gini_readout",
)


def _score(matrix: np.ndarray) -> float:
    """Sum of the eigenvalues over the sum of their sizes."""
    values = np.linalg.eigvals(matrix)
    return values.sum().real / abs(values).sum()


def _circuits(net: Attending) -> tuple[np.ndarray, np.ndarray]:
    """W_Q W_K^T and W_V W_O of every head, [layer head d d]."""
    W_Q, W_K, W_V, W_O = (net.heads(name) for name in ("W_Q", "W_K", "W_V", "W_O"))
    return W_Q @ W_K.transpose(0, 1, 3, 2), W_V @ W_O


@pytest.mark.parametrize(("p", "operation", "weights"), SPREAD)
def test_single_heads_are_their_formulas(p: int, operation: Any, weights: Any) -> None:
    net = attending(p, operation, weights)
    values = net.read(*SINGLE)
    E, W_U = net.w["embed.W_E"][:p], net.w["unembed.W_U"][:, :p]
    for name, circuits in zip(("qk", "ov"), _circuits(net), strict=True):
        power = np.square(np.linalg.svd(circuits, compute_uv=False))
        assert_twin(values[f"{name}_norm"], np.sqrt(power.sum(axis=2)))
        ratio = power.sum(axis=2) ** 2 / np.square(power).sum(axis=2)
        assert_twin(values[f"{name}_rank"], ratio)
    qk, ov = _circuits(net)
    copying = [[_score(E @ head @ W_U) for head in layer] for layer in ov]
    matching = [[_score(E @ head @ E.T) for head in layer] for layer in qk]
    # A score is a sum of numbers of size 1, which may cancel.
    np.testing.assert_allclose(values["copying_score"], copying, rtol=0, atol=1e-5)
    np.testing.assert_allclose(values["matching_score"], matching, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("p", "operation", "weights"), [case for case in SPREAD if case.values[0] not in (2, 12)]
)
def test_compositions_are_their_formulas(p: int, operation: Any, weights: Any) -> None:
    net = attending(p, operation, weights)
    E, (layers, heads) = net.w["embed.W_E"][:p], net.heads("W_Q").shape[:2]
    qk, ov = (x.reshape(layers * heads, *x.shape[2:]) for x in _circuits(net))
    score = np.zeros((len(qk), len(qk), 3))
    excess = np.full_like(score, np.nan)
    matching = np.full((len(qk), len(qk)), np.nan)
    for i in range(len(qk)):
        for j in range(len(qk)):
            if i // heads >= j // heads:
                continue
            for slot, R in enumerate((qk[j], qk[j].T, ov[j])):
                score[i, j, slot] = np.linalg.norm(ov[i] @ R)
                score[i, j, slot] /= np.linalg.norm(ov[i]) * np.linalg.norm(R)
            excess[i, j] = score[i, j] - 1 / np.sqrt(net.settings.d_model)
            matching[i, j] = _score(E @ qk[j] @ ov[i].T @ E.T)
    values = net.read(*COMPOSED)
    assert_twin(values["composition_score"], score)
    np.testing.assert_allclose(values["composition_excess"], excess, rtol=0, atol=1e-6)
    np.testing.assert_allclose(values["matching_through_head"], matching, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("p", "operation", "weights"), SPREAD)
def test_waves_of_queries_keys_values_and_readout_are_their_formulas(
    p: int, operation: Any, weights: Any
) -> None:
    net = attending(p, operation, weights)
    values, E = net.read(*FOURIER), net.w["embed.W_E"][:p]
    tables = {"readout": net.w["unembed.W_U"][:, :p].T}
    for place, name in (("queries", "W_Q"), ("keys", "W_K"), ("values", "W_V")):
        tables[place] = np.concatenate([E @ W for layer in net.heads(name) for W in layer], axis=1)
    for place, table in tables.items():
        power = np.array([np.square(waves(p, k) @ table).sum() for k in frequencies(p)])
        assert_twin(values[f"fourier_power_{place}"], power / power.sum(), place)
        norms = [np.linalg.norm(waves(p, k) @ table, axis=1) for k in frequencies(p)]
        x = np.sort(np.concatenate(norms))
        n = len(x)
        gini = 2 * (np.arange(1, n + 1) * x).sum() / (n * x.sum()) - (n + 1) / n
        # The Gini coefficient is a difference of numbers of size 1.
        assert values[f"gini_{place}"] == pytest.approx(gini, abs=1e-6)


@pytest.mark.parametrize("p", [2, 13])
def test_heads_of_zeros_have_norm_zero_and_no_rank_or_score(p: int) -> None:
    net = attending(p, "add", "random")
    values = read(SINGLE, jax.tree.map(np.zeros_like, net.params), net.context)
    assert (values["qk_norm"] == 0).all()
    assert (values["ov_norm"] == 0).all()
    for name in ("qk_rank", "ov_rank", "copying_score", "matching_score"):
        assert np.isnan(values[name]).all(), name
