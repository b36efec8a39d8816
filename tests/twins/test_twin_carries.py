"""Twins of the readings of addition digit by digit."""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pytest
from attending import forward, noisy, plain_model
from fakes import context_of
from networks import Weights, assert_twin, cross_entropy, fit, read

from mi_jax.contracts import Context
from mi_jax.models import Transformer
from mi_jax.tasks import MultiDigitAddition

NAMES = (
    "train_loss",
    "test_loss",
    "cascade_loss",
    "train_accuracy",
    "test_accuracy",
    "cascade_accuracy",
    "test_loss_by_position",
    "test_exact_match",
    "cascade_exact_match",
    "by_carry",
)

SETTINGS = {
    1: Transformer(d_model=8, heads=1, d_mlp=6),
    2: Transformer(layers=2, d_model=8, heads=2, d_mlp=6, attention_bias=True),
    3: Transformer(d_model=8, heads=2, d_mlp=8, mlp_bias=False),
}
"""Transformer by number of digits."""


class Adding(NamedTuple):
    """A transformer on sums, with the context to read it with."""

    task: MultiDigitAddition
    params: Any
    context: Context


@lru_cache
def _network(digits: int, weights: Weights) -> Adding:
    # Numbers of one digit have no cascade.
    task = MultiDigitAddition(
        digits=digits,
        examples=30,
        batch_size=None,
        test_examples=40,
        cascade_examples=20 if digits > 1 else 0,
    )
    model = plain_model(SETTINGS[digits], task)
    context, params = context_of(task, model=model), noisy(model, digits)
    if weights == "trained":
        params = fit(params, context, 0.05)
    return Adding(task, params, context)


def _outputs(net: Adding, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Loss and correctness of every digit of a split's sums, and the digits themselves."""
    examples = net.context.batches[split]
    tokens, digits = np.asarray(examples.inputs), np.asarray(examples.targets)
    logits = forward(SETTINGS[net.task.digits], net.params, tokens).logits
    logits = logits[:, list(net.task.read)]
    ordered = np.sort(logits, axis=2)
    assert (ordered[..., -1] - ordered[..., -2] > 1e-6).all()
    losses = cross_entropy(logits.reshape(-1, logits.shape[2]), digits.ravel())
    return losses.reshape(digits.shape), logits.argmax(axis=2) == digits, tokens


@pytest.mark.parametrize("digits", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("weights", ["random", "trained"])
def test_readings_of_digits_are_their_formulas(digits: int, weights: Any) -> None:
    net = _network(digits, weights)
    splits = sorted(net.context.batches)
    names = tuple(name for name in NAMES if digits > 1 or "cascade" not in name)
    values = read(names, net.params, net.context)
    for split in splits:
        losses, right, _ = _outputs(net, split)
        assert_twin(values[f"{split}_loss"], losses.mean())
        assert values[f"{split}_accuracy"] == pytest.approx(right.mean(), abs=1e-6)
        if split != "train":
            share = right.all(axis=1).mean()
            assert values[f"{split}_exact_match"] == pytest.approx(share, abs=1e-6)
    losses, right, tokens = _outputs(net, "test")
    by_position = np.full(tokens.shape[1], np.nan)
    by_position[list(net.task.read)] = losses.mean(axis=0)
    assert_twin(values["test_loss_by_position"], by_position)
    a, b = tokens[:, :digits], tokens[:, digits + 1 : 2 * digits + 1]
    sums = a + b
    # Places of the answer, highest first: place i takes the carry of the digits to its right.
    cases = np.zeros(losses.shape, int)
    for row, place in np.ndindex(losses.shape):
        right_of = sums[row, place:]
        if len(right_of) == 0:
            continue
        value = sum(int(s) * 10**power for power, s in enumerate(right_of[::-1]))
        if value >= 10 ** len(right_of):
            cases[row, place] = 2 if right_of[0] == 9 else 1
    for name, each in (("loss_by_carry", losses), ("accuracy_by_carry", right)):
        expected = [each[cases == i].mean() if (cases == i).any() else np.nan for i in range(3)]
        assert np.isnan(values[name]).tolist() == np.isnan(expected).tolist()
        # An accuracy may be 0 in every case.
        np.testing.assert_allclose(
            values[name], expected, rtol=0, atol=1e-5 * max(np.nanmax(expected), 0.1)
        )
