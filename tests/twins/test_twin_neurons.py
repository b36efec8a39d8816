"""Twins of the neurons' frequencies and of what they send to the logits."""

import numpy as np
import pytest
from networks import EACH, Network, answer_waves, assert_twin, frequencies, network, waves


def _block(p: int, k: int) -> np.ndarray:
    """Orthonormal functions {1, cos k, sin k} x {1, cos k, sin k} without 1 x 1, [wave pair]."""
    rows = np.concatenate([np.full((1, p), p**-0.5), waves(p, k)])
    return np.einsum("ia,jb->ijab", rows, rows).reshape(-1, p * p)[1:]


def shares(net: Network) -> np.ndarray:
    """Share of each neuron's variance that functions of one frequency explain, by frequency."""
    around = net.H - net.H.mean(axis=0)
    power = np.array([np.square(_block(net.p, k) @ around).sum(axis=0) for k in frequencies(net.p)])
    return power / np.square(around).sum(axis=0)


@pytest.mark.parametrize(("p", "operation", "weights"), EACH)
def test_frequencies_of_neurons_are_their_formulas(p: int, operation: str, weights: str) -> None:
    net = network(p, operation, weights)  # pyright: ignore[reportArgumentType]
    share = shares(net)
    assert_twin(net.read("neuron_fve")["neuron_fve"], share.max(axis=0))
    ordered = np.sort(share, axis=0)
    apart = np.ones(share.shape[1], bool) if len(share) == 1 else ordered[-1] - ordered[-2] > 1e-6
    assert apart.all()
    assert (
        net.read("neuron_frequency")["neuron_frequency"].tolist()
        == (1 + share.argmax(axis=0)).tolist()
    )
    assert (abs(share.max(axis=0) - 0.85) > 1e-6).all()
    sizes = [
        int(((share.argmax(axis=0) == i) & (share[i] >= 0.85)).sum()) for i in range(len(share))
    ]
    assert net.read("cluster_sizes")["cluster_sizes"].tolist() == sizes
    clusters = net.read("key_frequencies_neurons")["key_frequencies_neurons"].tolist()
    assert clusters == [size > 0 for size in sizes]


@pytest.mark.parametrize(("p", "operation", "weights"), EACH)
def test_what_neurons_send_to_a_frequency_is_its_formula(
    p: int, operation: str, weights: str
) -> None:
    net = network(p, operation, weights)  # pyright: ignore[reportArgumentType]
    read = net.read("readout_fve")
    expected = np.zeros((2, p // 2))
    for k in frequencies(p):
        y = net.H @ net.U @ waves(p, k).T
        y = y - y.mean(axis=0)
        along = np.einsum("pw,wp->w", y, answer_waves(net, k))
        expected[: len(along), k - 1] = along**2 / np.square(y).sum(axis=0)
    np.testing.assert_allclose(read["readout_fve_cos"], expected[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(read["readout_fve_sin"], expected[1], rtol=0, atol=1e-5)
