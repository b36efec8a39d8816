"""Twins of the measures of heads on sequences that repeat themselves."""

import dataclasses
from functools import lru_cache
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from attending import forward, noisy, plain_model
from fakes import context_of
from networks import Weights, assert_twin, cross_entropy, fit, read

from mi_jax.contracts import Context
from mi_jax.models import Transformer
from mi_jax.tasks import RepeatedSequences

NAMES = (
    "test_loss",
    "previous_token_attention",
    "previous_token_score",
    "duplicate_token_score",
    "induction_score",
    "prefix_matching_score",
    "in_context",
    "head_ablation_loss",
)

SETTINGS = {
    "learned": (
        RepeatedSequences(symbols=6, length=4, test_examples=12),
        Transformer(layers=2, d_model=8, heads=2, d_mlp=6, attention_bias=True),
    ),
    "relative": (
        RepeatedSequences(symbols=5, length=5, test_examples=12, scored="all"),
        Transformer(layers=2, d_model=6, heads=1, d_mlp=0, positions="relative"),
    ),
    "one layer": (
        RepeatedSequences(symbols=4, length=3, test_examples=12),
        Transformer(d_model=8, heads=2, d_mlp=6, unembed_bias=True),
    ),
}
"""Task and transformer by name: single heads, odd lengths, with and without biases and MLP."""

NAMED = [
    pytest.param(name, marks=pytest.mark.slow if name == "one layer" else ()) for name in SETTINGS
]


class Repeating(NamedTuple):
    """A transformer on sequences, with the context to read it with."""

    settings: Transformer
    params: Any
    context: Context


@lru_cache
def _network(name: str, weights: Weights) -> Repeating:
    task, settings = SETTINGS[name]
    model = plain_model(settings, task)
    context = context_of(task, model=model)
    params = noisy(model, task.length)
    if weights == "trained":
        params = fit(params, context, 0.03, "test")
    return Repeating(settings, params, context)


def _with_repeats(net: Repeating, symbols: int) -> Repeating:
    """The same network on tokens drawn with replacement, which have several earlier copies."""
    examples = net.context.batches["test"]
    tokens = np.array(examples.inputs)
    rng = np.random.default_rng(0)
    tokens[:, 1:] = rng.integers(symbols, size=tokens[:, 1:].shape)
    previous = np.full(np.asarray(examples.targets).shape, -1)
    for row, i in np.ndindex(previous.shape):
        earlier = np.flatnonzero(tokens[row, :i] == tokens[row, i])
        previous[row, i] = earlier[-1] if len(earlier) else -1
    batches = {"test": examples._replace(inputs=jnp.asarray(tokens))}
    facts = {**net.context.ground_truth, "previous_occurrence": jnp.asarray(previous)}
    context = dataclasses.replace(net.context, batches=batches, ground_truth=facts)
    return net._replace(context=context)


def _attention_scores(net: Repeating) -> dict[str, np.ndarray]:
    """Every attention score by loops over sequences and positions."""
    tokens = np.asarray(net.context.batches["test"].inputs)
    patterns = np.stack(forward(net.settings, net.params, tokens).patterns)
    layers, _, heads, length, _ = patterns.shape
    read_positions = range(length - 1)
    by_query = np.full((layers, heads, length), np.nan)
    for i in read_positions[1:]:
        by_query[:, :, i] = patterns[:, :, :, i, i - 1].mean(axis=1)
    seen: dict[str, list[np.ndarray]] = {"duplicate": [], "induction": [], "prefix": []}
    for row in range(len(tokens)):
        for i in read_positions:
            copies = [j for j in range(i) if tokens[row, j] == tokens[row, i]]
            if copies:
                A = patterns[:, row, :, i]
                seen["duplicate"].append(A[..., copies[-1]])
                seen["induction"].append(A[..., copies[-1] + 1])
                seen["prefix"].append(A[..., np.array(copies) + 1].sum(axis=-1))
    return {
        "previous_token_attention": by_query,
        "previous_token_score": by_query[:, :, 1:-1].mean(axis=2),
        "duplicate_token_score": np.mean(seen["duplicate"], axis=0),
        "induction_score": np.mean(seen["induction"], axis=0),
        "prefix_matching_score": np.mean(seen["prefix"], axis=0),
    }


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("weights", ["random", "trained"])
@pytest.mark.parametrize("repeats", [False, True])
def test_attention_of_heads_is_its_formula(name: str, weights: Any, repeats: bool) -> None:
    net = _network(name, weights)
    if repeats:
        net = _with_repeats(net, SETTINGS[name][0].symbols)
    values = read(NAMES, net.params, net.context)
    expected = _attention_scores(net)
    for score, value in expected.items():
        assert_twin(values[score], value, score)
    apart = abs(expected["prefix_matching_score"] - expected["induction_score"]).max()
    assert (apart > 1e-3) == repeats


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("weights", ["random", "trained"])
def test_losses_with_and_without_heads_are_their_formulas(name: str, weights: Any) -> None:
    net = _network(name, weights)
    values = read(NAMES, net.params, net.context)
    examples, (task, settings) = net.context.batches["test"], SETTINGS[name]
    tokens, targets = np.asarray(examples.inputs), np.asarray(examples.targets)
    L, shape = task.length, targets.shape
    # The answers from position L + 1 on can be predicted by induction.
    predicted = np.arange(2 * L) > L
    weight = predicted if task.scored == "repeated" else np.ones(2 * L)

    def losses(without: tuple[int, int] | None = None) -> np.ndarray:
        logits = forward(settings, net.params, tokens, without=without).logits[:, :-1]
        return cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.ravel()).reshape(shape)

    each = losses()
    assert_twin(values["test_loss"], (each * weight).sum() / (weight.sum() * len(each)))
    assert_twin(values["first_half_loss"], each[:, :L].mean())
    assert_twin(values["repeated_loss"], each[:, predicted].mean())
    score = (each[:, -1] - each[:, L // 2]).mean()
    # The score is a difference, which may cancel.
    np.testing.assert_allclose(
        values["in_context_score"], score, rtol=0, atol=1e-6 * abs(each).max()
    )
    ablated = [
        [
            (losses((layer, head)) * weight).sum() / (weight.sum() * len(each))
            for head in range(settings.heads)
        ]
        for layer in range(settings.layers)
    ]
    assert_twin(values["head_ablation_loss"], ablated)
