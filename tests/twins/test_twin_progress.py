"""Twins of the progress measures: losses with and without key frequencies, and FVEs of logits."""

import numpy as np
import pytest
from networks import (
    EACH,
    Network,
    along_keys,
    assert_twin,
    cross_entropy,
    frequencies,
    key_frequencies,
    network,
)


def _cosine(net: Network, k: int) -> np.ndarray:
    """cos(2 pi k (a o b - c) / p), [pair class]."""
    return np.cos(2 * np.pi * k * (net.answers[:, None] - np.arange(net.p)) / net.p)


def _on_cosine(net: Network, k: int) -> np.ndarray:
    """Projection of the logits on one cosine of a o b - c."""
    C = _cosine(net, k)
    return (C * net.L).sum() / (C * C).sum() * C


@pytest.mark.parametrize(("p", "operation", "weights"), EACH)
def test_losses_are_their_formulas(p: int, operation: str, weights: str) -> None:
    net = network(p, operation, weights)  # pyright: ignore[reportArgumentType]
    L, answers, labels, train = net.L, net.answers, net.labels, net.trained
    test = np.setdiff1d(np.arange(p * p), train)
    own = key_frequencies(net.U.T)
    restricted = along_keys(net, L, net.keys) + L.mean(axis=0)
    expected = {
        "restricted_loss": cross_entropy(restricted, answers).mean(),
        "restricted_loss_train": cross_entropy(restricted, labels)[train].mean(),
        "restricted_loss_test": cross_entropy(restricted, answers)[test].mean(),
        "restricted_loss_online": cross_entropy(
            along_keys(net, L, own) + L.mean(axis=0), answers
        ).mean(),
        "excluded_loss": cross_entropy(L - along_keys(net, L, net.keys), labels)[train].mean(),
        "excluded_loss_online": cross_entropy(L - along_keys(net, L, own), labels)[train].mean(),
        "excluded_loss_by_frequency": [
            cross_entropy(L - along_keys(net, L, [k]), labels)[train].mean() for k in frequencies(p)
        ],
        "excluded_loss_3d": cross_entropy(L - sum(_on_cosine(net, k) for k in net.keys), labels)[
            train
        ].mean(),
    }
    read = net.read(*expected)
    for name, value in expected.items():
        assert_twin(read[name], value, name)


@pytest.mark.parametrize(("p", "operation", "weights"), EACH)
def test_shares_of_the_logits_are_their_formulas(p: int, operation: str, weights: str) -> None:
    net = network(p, operation, weights)  # pyright: ignore[reportArgumentType]
    total = np.square(net.L - net.L.mean()).sum()
    cosines = {k: _cosine(net, k) for k in frequencies(p)}
    alpha = [(C * net.L).sum() / (C * C).sum() for C in cosines.values()]
    shares = {k: np.square(_on_cosine(net, k)).sum() / total for k in cosines}
    explained = sum(_on_cosine(net, k) for k in net.keys)
    fve = 1 - np.square(net.L - net.L.mean() - explained).sum() / total
    # A coefficient is a mean over all logits, so that the logits' size is what rounds it.
    name = "cos_coefficients"
    np.testing.assert_allclose(net.read(name)[name], alpha, rtol=0, atol=1e-6 * abs(net.L).max())
    np.testing.assert_allclose(
        net.read("logit_fve_by_frequency")["logit_fve_by_frequency"],
        list(shares.values()),
        rtol=0,
        atol=1e-6,
    )
    assert net.read("logit_fve")["logit_fve"] == pytest.approx(fve, abs=1e-6)
