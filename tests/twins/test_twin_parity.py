"""Twins of the parity measures, and of the behaviour of a network with a single output."""

import dataclasses
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from attending import noisy
from fakes import context_of
from networks import Weights, assert_twin, fit, read

from mi_jax.contracts import Context, Reference
from mi_jax.models import MLP
from mi_jax.tasks import SparseParity
from mi_jax.training.losses import LOSSES

NAMES = (
    "train_loss",
    "test_loss",
    "train_accuracy",
    "test_accuracy",
    "train_margin",
    "hidden_progress",
    "weight_gap",
    "gradient_gap",
    "effective_sparsity",
    "effective_sparsity_test",
    "sensitivity",
)


class Setting(NamedTuple):
    """A task of parity with a network and its loss."""

    n: int
    k: int
    outputs: int | None
    loss: str
    bias: bool
    subset: Any = "first"


SETTINGS = [
    Setting(6, 2, 1, "hinge", bias=True),
    Setting(6, 3, 1, "mse", bias=False, subset="random"),
    Setting(5, 2, None, "cross_entropy", bias=True, subset="random"),
    # Every feature is relevant.
    Setting(4, 4, None, "hinge", bias=False),
    Setting(4, 1, 1, "hinge", bias=True),
]


class Signs(NamedTuple):
    """Network ReLU(x W + b) U + c on signs, in float64.

    Attributes:
        setting: the task, network and loss.
        context: context with the initial parameters.
        params: the float32 parameters that are read.
        initial: the initial parameters.
    """

    setting: Setting
    context: Context
    params: Any
    initial: Any

    def weights(self, params: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """W, b, U and c."""
        w = jax.tree.map(lambda array: np.asarray(array, np.float64), params)
        layer, readout = w["layers"]["0"], w["unembed"]
        return layer["W"], layer.get("b", 0.0), readout["W_U"], readout.get("b_U", 0.0)

    def hidden(self, x: np.ndarray) -> np.ndarray:
        W, b, _, _ = self.weights(self.params)
        return np.maximum(x @ W + b, 0)

    def outputs(self, x: np.ndarray) -> np.ndarray:
        _, _, U, c = self.weights(self.params)
        return self.hidden(x) @ U + c

    def split(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Signs and classes of a split."""
        examples = self.context.batches[name]
        return np.asarray(examples.inputs, np.float64)[:, 0], np.asarray(examples.targets)[:, 0]


@lru_cache
def _network(setting: Setting, weights: Weights) -> Signs:
    n, k, outputs, loss, bias, subset = setting
    task = SparseParity(
        n=n,
        k=k,
        subset=subset,
        examples=2 ** (n - 1),
        batch_size=None,
        test_examples=2 ** (n - 2),
        label_noise=0.2,
    )
    model = MLP(width=7, activation="relu", bias=bias, outputs=outputs).build(task.inputs)
    context = context_of(task, model=model, loss=LOSSES[loss]())
    initial = noisy(model, n)
    context = dataclasses.replace(context, reference=Reference(initial=initial))
    params = fit(initial, context, 0.05) if weights == "trained" else initial
    return Signs(setting, context, params, initial)


def _classes(outputs: np.ndarray) -> np.ndarray:
    """Two outputs, the single one beside a 0."""
    return np.concatenate([0 * outputs, outputs], axis=1) if outputs.shape[1] == 1 else outputs


def _answers(outputs: np.ndarray) -> np.ndarray:
    first, second = _classes(outputs).T
    apart = abs(first - second)
    assert ((apart > 1e-6) | (apart == 0)).all()
    return (second > first).astype(int)


def _loss(name: str, outputs: np.ndarray, classes: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean loss, and its gradient in the outputs."""
    n, rows = len(classes), np.arange(len(classes))
    one_hot = np.eye(2)[classes]
    if name == "cross_entropy":
        apart = outputs[rows, 1 - classes] - outputs[rows, classes]
        q = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
        return np.log1p(np.exp(apart)).mean(), (q - one_hot) / n
    if name == "mse":
        target = 2 * classes[:, None] - 1 if outputs.shape[1] == 1 else one_hot
        wrong = outputs - target
        return np.square(wrong).mean(axis=1).mean(), 2 * wrong / n / outputs.shape[1]
    # The margin is linear in the outputs, with these signs.
    signs = 2 * classes[:, None] - 1.0 if outputs.shape[1] == 1 else 2 * one_hot - 1
    margins = (signs * outputs).sum(axis=1)
    assert (abs(margins - 1) > 1e-6).all()
    active = (margins < 1).astype(float)
    return np.maximum(0, 1 - margins).mean(), -active[:, None] * signs / n


def _gap(sizes: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Smallest size inside the subset minus the largest outside it."""
    return sizes[inside].min(axis=0) - (sizes[~inside].max(axis=0) if (~inside).any() else 0)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("weights", ["random", "trained"])
def test_parity_readings_are_their_formulas(setting: Setting, weights: Any) -> None:
    net = _network(setting, weights)
    values = read(NAMES, net.params, net.context)
    for split in ("train", "test"):
        x, classes = net.split(split)
        outputs = net.outputs(x)
        assert_twin(values[f"{split}_loss"], _loss(setting.loss, outputs, classes)[0])
        accuracy = (_answers(outputs) == classes).mean()
        assert values[f"{split}_accuracy"] == np.float32(accuracy)
    x, classes = net.split("train")
    two = _classes(net.outputs(x))
    margins = two[np.arange(len(x)), classes] - two[np.arange(len(x)), 1 - classes]
    expected = [margins.mean(), margins.min()]
    np.testing.assert_allclose(
        [values["train_margin"], values["train_margin_minimum"]],
        expected,
        rtol=0,
        atol=1e-6 * abs(two).max(),
    )
    W, _, U, _ = net.weights(net.params)
    moved = abs(W - net.weights(net.initial)[0]).max(axis=0)
    np.testing.assert_allclose(values["hidden_progress_by_neuron"], moved, rtol=0, atol=1e-6)
    np.testing.assert_allclose(values["hidden_progress"], moved.max(), rtol=0, atol=1e-6)
    inside = np.asarray(net.context.ground_truth["subset"])
    gap = _gap(abs(W), inside)
    np.testing.assert_allclose(values["weight_gap_by_neuron"], gap, rtol=0, atol=1e-6)
    np.testing.assert_allclose(values["weight_gap"], gap.max(), rtol=0, atol=1e-6)
    x, classes = net.split("test")
    _, into = _loss(setting.loss, net.outputs(x), classes)
    gradient = x.T @ ((into @ U.T) * (net.hidden(x) > 0))
    sizes = abs(gradient).mean(axis=1)
    # The gap is a difference, which may cancel.
    np.testing.assert_allclose(
        values["gradient_gap"], _gap(sizes, inside), rtol=0, atol=1e-5 * sizes.max()
    )


def _sparsity(net: Signs, split: str) -> int:
    """Smallest number of neurons, in the order of their input norms, that answer as well."""
    W, _, U, c = net.weights(net.params)
    x, classes = net.split(split)
    hidden = net.hidden(x)
    order = np.argsort(-np.linalg.norm(W, axis=0), kind="stable")
    right = []
    for count in range(1, len(order) + 1):
        kept = order[:count]
        outputs = hidden[:, kept] @ U[kept] + c
        right.append((_answers(outputs + np.zeros((len(x), 1))) == classes).sum())
    return 1 + next(i for i, count in enumerate(right) if count == right[-1])


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("weights", ["random", "trained"])
def test_sparsity_and_sensitivity_are_their_formulas(setting: Setting, weights: Any) -> None:
    net = _network(setting, weights)
    values = read(NAMES, net.params, net.context)
    assert values["effective_sparsity"] == _sparsity(net, "train")
    assert values["effective_sparsity_test"] == _sparsity(net, "test")
    x, _ = net.split("test")
    flips = 0
    for i in range(setting.n):
        flipped = x.copy()
        flipped[:, i] *= -1
        flips += (_answers(net.outputs(flipped)) != _answers(net.outputs(x))).mean()
    assert values["sensitivity"] == pytest.approx(flips, rel=1e-6)


@pytest.mark.parametrize("setting", [setting for setting in SETTINGS if not setting.bias])
def test_a_network_of_zeros_answers_class_zero_and_needs_one_neuron(setting: Setting) -> None:
    net = _network(setting, "random")
    zeros = jax.tree.map(np.zeros_like, net.params)
    values = read(NAMES, zeros, net.context)
    for split in ("train", "test"):
        _, classes = net.split(split)
        assert values[f"{split}_accuracy"] == np.float32((classes == 0).mean())
    assert values["effective_sparsity"] == 1
    assert values["sensitivity"] == 0
    assert values["weight_gap"] == 0
    assert values["gradient_gap"] == 0
