"""Twins of the Fourier measures of weights."""

import numpy as np
import pytest
from networks import (
    EACH,
    Network,
    assert_twin,
    frequencies,
    key_frequencies,
    network,
    waves,
)

NAMES = (
    "fourier_power_embedding",
    "fourier_power_unembedding",
    "fourier_power_neuron_inputs",
    "gini_embedding",
    "gini_unembedding",
    "gini_neuron_inputs",
)


def _tables(net: Network) -> dict[str, np.ndarray]:
    """Table of each place; one-hot tokens enter the neurons by their embeddings."""
    embedding = np.concatenate([net.E_a, net.E_b], axis=1)
    return {"embedding": embedding, "neuron_inputs": embedding, "unembedding": net.U.T}


@pytest.mark.parametrize(("p", "operation", "weights"), EACH)
def test_fourier_measures_are_their_formulas(p: int, operation: str, weights: str) -> None:
    net = network(p, operation, weights)  # pyright: ignore[reportArgumentType]
    values = net.read(*NAMES)
    for place, table in _tables(net).items():
        power = np.array([np.square(waves(p, k) @ table).sum() for k in frequencies(p)])
        name = f"fourier_power_{place}"
        assert_twin(values[name], power / power.sum(), name)
        norms = [np.linalg.norm(waves(p, k) @ table, axis=1) for k in frequencies(p)]
        x = np.sort(np.concatenate(norms))
        n = len(x)
        gini = 2 * (np.arange(1, n + 1) * x).sum() / (n * x.sum()) - (n + 1) / n
        # The Gini coefficient is a difference of numbers of size 1.
        assert values[f"gini_{place}"] == pytest.approx(gini, abs=1e-6)


@pytest.mark.parametrize(("p", "operation", "weights"), EACH)
def test_key_frequencies_are_their_rule(p: int, operation: str, weights: str) -> None:
    net = network(p, operation, weights)  # pyright: ignore[reportArgumentType]
    tables = _tables(net)
    expected = {
        "key_frequencies": key_frequencies(tables["unembedding"]),
        "key_frequencies_embedding": key_frequencies(tables["embedding"]),
        "key_frequencies_final": key_frequencies(net.U_final.T),
    }
    for name, keys in expected.items():
        assert (1 + np.flatnonzero(net.read(name)[name])).tolist() == keys, name


@pytest.mark.parametrize(("p", "operation", "weights"), EACH)
def test_the_participation_ratio_is_its_formula(p: int, operation: str, weights: str) -> None:
    net = network(p, operation, weights)  # pyright: ignore[reportArgumentType]
    ratios = []
    for table in (net.E_a, net.E_b, net.U.T):
        power = np.abs(np.fft.rfft(table, axis=0)) ** 2
        ratios.append(np.square(power / power.sum(axis=0)).sum(axis=0))
    name = "inverse_participation_ratio"
    assert_twin(net.read(name)[name], np.mean(ratios, axis=0))
