"""Twins of the alignment of the gradient with the weights."""

import jax
import numpy as np
import pytest
from networks import SPREAD, Network, network

from mi_jax.measures import nlm_alignment

_READ = jax.jit(nlm_alignment().read)


def _gradients(net: Network) -> list[np.ndarray]:
    """Gradient of the training loss in E_a, E_b and U, for the rows that tokens use."""
    pairs, p = net.trained, net.p
    a, b = np.divmod(pairs, p)
    shifted = net.L[pairs] - net.L[pairs].max(axis=1, keepdims=True)
    q = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    wrong = (q - np.eye(p)[net.labels[pairs]]) / len(pairs)
    into = 2 * (net.E_a[a] + net.E_b[b]) * (wrong @ net.U.T)
    d_a, d_b = np.zeros_like(net.E_a), np.zeros_like(net.E_b)
    np.add.at(d_a, a, into)
    np.add.at(d_b, b, into)
    return [d_a, d_b, net.H[pairs].T @ wrong]


@pytest.mark.parametrize(("p", "operation", "weights"), SPREAD)
def test_alignment_is_its_formula(p: int, operation: str, weights: str) -> None:
    net = network(p, operation, weights)  # pyright: ignore[reportArgumentType]
    used = [net.E_a, net.E_b, net.U]
    arrays = [np.asarray(array, np.float64) for array in jax.tree.leaves(net.params)]
    assert all(
        np.array_equal(array[: len(rows), : rows.shape[1]], rows)
        for array, rows in zip(arrays, used, strict=True)
    )
    dots, of_gradient, of_weights = [], [], []
    for g, rows, array in zip(_gradients(net), used, arrays, strict=True):
        dots.append(-(g * rows).sum())
        of_gradient.append(np.linalg.norm(g))
        of_weights.append(np.linalg.norm(array))
    whole = sum(dots) / (np.linalg.norm(of_gradient) * np.linalg.norm(of_weights))
    by_parameter = np.array(dots) / (np.array(of_gradient) * np.array(of_weights))
    values = _READ(net.params, net.context)
    # A cosine is a sum of numbers of size 1, which may cancel.
    assert values["nlm_alignment"] == pytest.approx(whole, abs=1e-6)
    np.testing.assert_allclose(
        values["nlm_alignment_by_parameter"], by_parameter, rtol=0, atol=1e-6
    )
