"""Twins of the frequencies and patterns of attention."""

from typing import Any

import jax
import numpy as np
import pytest
from attending import Attending, attending, forward
from networks import SPREAD, assert_twin, frequencies, read, waves

NAMES = ("attention_fve", "attention_frequency", "attention_pattern")


def _scores(net: Attending) -> np.ndarray:
    """Score of the read position for the first token, [layer head token token_other]."""
    p = net.task.p
    scores = [layer[:, :, 2, 0] for layer in forward(net.settings, net.params, net.pairs).scores]
    return np.stack(scores).transpose(0, 2, 1).reshape(len(scores), -1, p, p)


@pytest.mark.parametrize(("p", "operation", "weights"), SPREAD)
def test_frequencies_of_attention_are_their_formulas(p: int, operation: Any, weights: Any) -> None:
    net = attending(p, operation, weights)
    values, scores = net.read(*NAMES), _scores(net)
    around = scores - scores.mean(axis=(2, 3), keepdims=True)
    shares = []
    for k in frequencies(p):
        functions = np.repeat(waves(p, k)[:, :, None], p, axis=2) / np.sqrt(p)
        along = np.einsum("wab,lhab->wlh", functions, around)
        shares.append(np.square(along).sum(axis=0) / np.square(around).sum(axis=(2, 3)))
    shares = np.array(shares)
    assert_twin(values["attention_fve"], shares.max(axis=0))
    if len(shares) > 1:
        ordered = np.sort(shares, axis=0)
        assert (ordered[-1] - ordered[-2] > 1e-6).all()
    assert values["attention_frequency"].tolist() == (1 + shares.argmax(axis=0)).tolist()
    patterns = [
        layer[:, :, 2].mean(axis=0)
        for layer in forward(net.settings, net.params, net.pairs).patterns
    ]
    assert_twin(values["attention_pattern"], np.stack(patterns))


@pytest.mark.parametrize("p", [2, 13])
def test_a_head_whose_score_never_varies_has_no_frequency(p: int) -> None:
    net = attending(p, "add", "random")
    values = read(NAMES, jax.tree.map(np.zeros_like, net.params), net.context)
    assert np.isnan(values["attention_fve"]).all()
    assert (values["attention_frequency"] == 0).all()
    pattern = values["attention_pattern"]
    assert_twin(pattern, np.full(pattern.shape, 1 / 3))
