"""Twins of the ablation losses."""

import numpy as np
import pytest
from networks import (
    EACH,
    Network,
    along_keys,
    assert_twin,
    cross_entropy,
    frequencies,
    network,
    waves,
)


def _functions(p: int, k: int) -> np.ndarray:
    """Orthonormal functions {1, cos k, sin k} x {1, cos k, sin k} of the pair, [wave pair]."""
    rows = np.concatenate([np.full((1, p), p**-0.5), waves(p, k)])
    return np.einsum("ia,jb->ijab", rows, rows).reshape(-1, p * p)


def _on_blocks(table: np.ndarray, p: int, keys: list[int]) -> np.ndarray:
    """Mean of a table over pairs, and its parts in the blocks of some frequencies."""
    mean = table.mean(axis=0, keepdims=True)
    part = np.zeros_like(table)
    for k in keys:
        F = _functions(p, k)
        part += F.T @ (F @ (table - mean))
    return part + mean


def _polynomial(net: Network) -> np.ndarray:
    """Activations with each neuron of one frequency replaced by its polynomial."""
    H, p = net.H.copy(), net.p
    for n in range(H.shape[1]):
        neuron = net.H[:, n : n + 1]
        total = np.square(neuron - neuron.mean()).sum()
        parts = {k: _on_blocks(neuron, p, [k]) for k in frequencies(p)}
        share = {k: np.square(x - neuron.mean()).sum() / total for k, x in parts.items()}
        best = max(share, key=lambda k: share[k])
        if share[best] >= 0.85:
            H[:, n : n + 1] = parts[best]
    return H


@pytest.mark.parametrize(("p", "operation", "weights"), EACH)
def test_ablation_losses_are_their_formulas(p: int, operation: str, weights: str) -> None:
    net = network(p, operation, weights)  # pyright: ignore[reportArgumentType]
    H, U, L = net.H, net.U, net.L
    directions = U @ np.concatenate([waves(p, k) for k in net.keys]).T
    u, s, _ = np.linalg.svd(directions, full_matrices=False)
    span = u[:, s > 1e-6 * s[0]]
    within = H @ span @ span.T
    logits = {
        "intact": L,
        "neuron_directions": (H.mean(axis=0) + along_keys(net, H, net.keys)) @ U,
        "logit_blocks": _on_blocks(L, p, net.keys),
        "output_directions": within @ U,
        "null_space": (H - within) @ U,
        "polynomial_neurons": _polynomial(net) @ U,
    }
    read = net.read("ablation_loss")
    for part, kept in logits.items():
        name = f"ablation_loss_{part}"
        assert_twin(read[name], cross_entropy(kept, net.answers).mean(), name)
