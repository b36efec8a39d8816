"""Twins of losses, accuracies, margins, collapse, and the sizes of the weights."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import SPREAD, Network, assert_twin, cross_entropy, network, read

from mi_jax.training.losses import LOSSES


def _splits(net: Network) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pairs of each split, and the class of each that counts as right."""
    test = np.setdiff1d(np.arange(net.p**2), net.trained)
    return {"train": (net.trained, net.labels), "test": (test, net.answers)}


def _margins(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Right output minus the largest other one, by row."""
    others = logits.copy()
    rows = np.arange(len(labels))
    others[rows, labels] = -np.inf
    return logits[rows, labels] - others.max(axis=1)


def _share_right(logits: np.ndarray, labels: np.ndarray) -> float:
    margins = _margins(logits, labels)
    assert (abs(margins) > 1e-6).all()
    return (margins > 0).mean() if len(margins) else np.nan


@pytest.mark.parametrize(("p", "operation", "weights"), SPREAD)
def test_losses_accuracies_and_margins_are_their_formulas(
    p: int, operation: str, weights: str
) -> None:
    net = network(p, operation, weights)  # pyright: ignore[reportArgumentType]
    values = net.read(
        "train_loss",
        "test_loss",
        "train_accuracy",
        "test_accuracy",
        "train_margin",
        "test_margin",
        "label_noise_accuracy",
        "sum_squared_weights",
        "sum_squared_weights_by_parameter",
    )
    for split, (pairs, labels) in _splits(net).items():
        logits, labels = net.L[pairs], labels[pairs]
        assert_twin(values[f"{split}_loss"], cross_entropy(logits, labels).mean())
        assert values[f"{split}_accuracy"] == np.float32(_share_right(logits, labels))
        margins = _margins(logits, labels)
        # A mean margin may cancel, so that the margins' size is what rounds it.
        np.testing.assert_allclose(
            [values[f"{split}_margin"], values[f"{split}_margin_minimum"]],
            [margins.mean(), margins.min()],
            rtol=0,
            atol=1e-6 * abs(logits).max(),
        )
    corrupted = net.task.noise().corrupted
    trained, drawn = net.L[net.trained], net.labels[net.trained]
    expected = {
        "clean_accuracy": _share_right(trained[~corrupted], drawn[~corrupted]),
        "memorised_accuracy": _share_right(trained[corrupted], drawn[corrupted]),
        "corrected_accuracy": _share_right(trained[corrupted], net.answers[net.trained][corrupted]),
    }
    for name, value in expected.items():
        np.testing.assert_array_equal(values[name], np.float32(value), err_msg=name)
    arrays = [np.asarray(array, np.float64) for array in jax.tree.leaves(net.params)]
    squares = [np.square(array).sum() for array in arrays]
    assert_twin(values["sum_squared_weights_by_parameter"], squares)
    assert_twin(values["sum_squared_weights"], sum(squares))


def _loss(name: str, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Loss of every row by its definition."""
    match name:
        case "cross_entropy" | "log_softmax_cross_entropy":
            return cross_entropy(logits, labels)
        case "stablemax":
            s = np.where(logits >= 0, logits + 1, 1 / (1 - np.minimum(logits, 0)))
            return -np.log(s[np.arange(len(s)), labels] / s.sum(axis=1))
        case "mse":
            return np.square(logits - np.eye(logits.shape[1])[labels]).mean(axis=1)
        case _:
            return np.maximum(0, 1 - _margins(logits, labels))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("operation", ["add", "subtract"])
def test_losses_are_those_of_the_run(loss: str, operation: str) -> None:
    net = network(6, operation, "random")  # pyright: ignore[reportArgumentType]
    context = dataclasses.replace(net.context, loss=LOSSES[loss]())
    values = read(("train_loss", "test_loss"), net.params, context)
    for split, (pairs, labels) in _splits(net).items():
        assert_twin(values[f"{split}_loss"], _loss(loss, net.L[pairs], labels[pairs]).mean())


def _scaled(net: Network, factor: float) -> tuple[Any, np.ndarray]:
    """Parameters times a factor, and the training logits that they give in float64."""
    # A power of 2 keeps the float32 parameters exact.
    params = jax.tree.map(lambda x: jnp.float32(factor) * x, net.params)
    return params, factor**3 * net.L[net.trained]


@pytest.mark.parametrize(("p", "operation", "weights"), SPREAD)
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_softmax_collapse_is_its_formula(p: int, operation: str, weights: str, factor: int) -> None:
    net = network(p, operation, weights)  # pyright: ignore[reportArgumentType]
    params, logits = _scaled(net, factor)
    value = read(("softmax_collapse", "exact_loss_collapse"), params, net.context)
    below = np.sort(np.exp(logits - logits.max(axis=1, keepdims=True)), axis=1)[:, :-1]
    # 1 + x is 1 in float32 where x <= 2^-24. Several such terms may or may not exceed it together,
    # which depends on the order of the sum.
    edge, n = 2.0**-24, len(logits)
    slack = 1e-5 * abs(logits).max()
    surely = (below.sum(axis=1) < edge * np.exp(-slack)).sum()
    possibly = (below.max(axis=1) < edge * np.exp(slack)).sum()
    assert surely - 1e-3 <= value["softmax_collapse"] * n <= possibly + 1e-3
    # The exact cross-entropy is 0 where it underflows float32.
    losses = cross_entropy_of_margins(logits, net.labels[net.trained])
    least = (losses < 2.0**-151).sum(), (losses < 2.0**-125).sum()
    assert least[0] - 1e-3 <= value["exact_loss_collapse"] * n <= least[1] + 1e-3


def cross_entropy_of_margins(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """log(1 + sum_{c != y} exp(z_c - z_y)) by row, without cancellation."""
    rows = np.arange(len(labels))
    apart = logits - logits[rows, labels][:, None]
    apart[rows, labels] = -np.inf
    with np.errstate(over="ignore"):
        return np.log1p(np.exp(apart).sum(axis=1))


@pytest.mark.parametrize(("p", "operation", "weights"), SPREAD)
def test_a_loss_of_exactly_zero_counts_as_collapsed(p: int, operation: str, weights: str) -> None:
    net = network(p, operation, weights)  # pyright: ignore[reportArgumentType]
    context = dataclasses.replace(net.context, loss=LOSSES["hinge"]())
    margins = _margins(net.L[net.trained], net.labels[net.trained])
    assert (abs(margins - 1) > 1e-6).all()
    value = read(("exact_loss_collapse",), net.params, context)["exact_loss_collapse"]
    assert value == np.float32((margins >= 1).mean())
