"""Losses and accuracies by split, and squares of the weights: by hand, on all outputs, where
something is not finite.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import VECTOR, few
from fakes import context_of, read, tables

from mi_jax.basics.errors import MeasureError
from mi_jax.contracts import Batch, Loss
from mi_jax.measures import MEASURES
from mi_jax.measures.behaviour import accuracy, class_outputs, split_loss
from mi_jax.models import MLP, Transformer
from mi_jax.tasks import ModularArithmetic

_TASK = ModularArithmetic(p=5, fraction=0.5, split_seed=2)
_TRAIN = _TASK.order()[:12]
_TEST = _TASK.order()[12:]
_SPLITS = {"train": _TRAIN, "test": _TEST}
_ANSWERS = np.add.outer(np.arange(5), np.arange(5)) % 5


def _logits(seed: int = 0) -> np.ndarray:
    """[a b output] for the five classes and one output that is no class."""
    return np.random.default_rng(seed).normal(0, 2, size=(5, 5, 6))


def _read(name: str, logits: np.ndarray) -> float:
    return float(read(name, tables(logits=logits), context_of(_TASK)))


@pytest.mark.parametrize("split", _SPLITS)
def test_the_loss_is_the_mean_cross_entropy_of_the_split_over_all_outputs(split: str) -> None:
    logits = _logits().astype(np.float32).astype(np.float64).reshape(25, 6)
    each = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(25), _ANSWERS.ravel()]
    assert _read(f"{split}_loss", _logits()) == pytest.approx(each[_SPLITS[split]].mean(), rel=1e-6)


@pytest.mark.parametrize("split", _SPLITS)
def test_accuracy_is_the_share_of_the_split_that_is_right(split: str) -> None:
    right = [
        _logits()[divmod(int(pair), 5)].argmax() == _ANSWERS.ravel()[pair]
        for pair in _SPLITS[split]
    ]
    assert _read(f"{split}_accuracy", _logits()) == pytest.approx(np.mean(right), abs=1e-6)


def test_accuracies_by_hand() -> None:
    logits = np.zeros((5, 5, 6))
    for place, pair in enumerate(_TRAIN):
        a, b = divmod(int(pair), 5)
        logits[a, b, (a + b + (place % 4 == 0)) % 5] = 1
    for pair in _TEST:
        a, b = divmod(int(pair), 5)
        logits[a, b, 5] = 1
    assert _read("train_accuracy", logits) == pytest.approx(9 / 12, rel=1e-6)
    assert _read("test_accuracy", logits) == 0, "an output that is no class is a wrong answer"


def test_the_order_of_a_split_and_a_shift_of_all_logits_change_nothing() -> None:
    for name in ("train_loss", "test_loss", "train_accuracy", "test_accuracy"):
        assert _read(name, _logits() + 3.0) == pytest.approx(_read(name, _logits()), rel=1e-5)


def test_weights_say_what_counts() -> None:
    out = jnp.array([[[2.0, 1.0]], [[0.0, 1.0]], [[5.0, 1.0]]])
    batch = Batch(jnp.zeros((3, 1)), jnp.array([[0], [0], [1]]), jnp.array([[1.0], [3.0], [0.0]]))
    assert float(accuracy(out, batch)) == pytest.approx(1 / 4)


@dataclass(frozen=True)
class _Squares(Loss):
    """Loss defined by a user."""

    def __call__(self, outputs: Any, targets: Any) -> Any:
        return jnp.square(outputs).sum(axis=-1)


def test_the_loss_is_the_runs_own() -> None:
    context = context_of(_TASK, loss=_Squares())
    expected = (_logits().reshape(25, 6)[_TRAIN] ** 2).sum(axis=1).mean()
    assert float(read("train_loss", tables(logits=_logits()), context)) == pytest.approx(
        expected, rel=1e-5
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_output_that_is_not_finite_shows_in_its_split_alone(value: float) -> None:
    logits = _logits()
    logits[divmod(int(_TRAIN[3]), 5)][0] = value
    assert np.isnan(_read("train_accuracy", logits))
    assert np.isnan(_read("train_loss", logits)) or value == np.inf
    assert np.isfinite(_read("test_accuracy", logits))
    assert np.isfinite(_read("test_loss", logits))


def test_an_infinite_wrong_logit_is_an_infinite_loss() -> None:
    logits = _logits()
    a, b = divmod(int(_TRAIN[0]), 5)
    logits[a, b, (a + b + 1) % 5] = np.inf
    assert not np.isfinite(_read("train_loss", logits))


def test_an_unknown_split_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(
        MeasureError, match=r"no split 'valid'\. Its splits are \['test', 'train'\]"
    ):
        split_loss("valid").read(tables(logits=_logits()), context_of(_TASK))


def test_of_one_output_the_sign_tells_the_class() -> None:
    out = jnp.array([2.0, -1.0, 0.0, 0.0, -3.0, jnp.nan])[:, None, None]
    targets, weights = jnp.array([1, 1, 0, 1, 0, 0])[:, None], jnp.ones((6, 1))
    right = [
        float(accuracy(out[i : i + 1], Batch(jnp.zeros((1, 1)), targets[i : i + 1], weights[:1])))
        for i in range(6)
    ]
    assert right[:5] == [1, 0, 1, 0, 1]
    assert np.isnan(right[5])
    two = class_outputs(out)
    assert two.shape == (6, 1, 2)
    np.testing.assert_array_equal(two[:, 0], np.stack([np.zeros(6), out[:, 0, 0]], axis=1))
    np.testing.assert_array_equal(class_outputs(two), two)


def test_the_margin_of_one_output_is_itself_on_the_right_side() -> None:
    """A network with one output, which is 3 for every pair, on both classes of the task."""
    vector = Batch(jnp.ones((4, 1, 7)), jnp.array([[1], [1], [1], [0]]), jnp.ones((4, 1)))
    model = MLP(width=1, activation="identity", outputs=1).build(VECTOR)
    params = {
        "layers": {"0": {"W": jnp.ones((7, 1)) / 7}},
        "unembed": {"W_U": jnp.full((1, 1), 3.0)},
    }
    context = dataclasses.replace(
        context_of(_TASK, model=model),
        batches={"test": vector},
        ground_truth={},
        inputs=VECTOR,
        read=(0,),
    )
    values = MEASURES["test_margin"].read(params, context)
    assert float(values["test_margin"]) == pytest.approx((3 * 3 - 3) / 4)
    assert float(values["test_margin_minimum"]) == pytest.approx(-3)
    assert float(MEASURES["test_accuracy"].read(params, context)["test_accuracy"]) == 0.75


@pytest.mark.parametrize("name", ["train_loss", "test_loss", "train_accuracy", "test_accuracy"])
def test_compiled_and_plain_agree(name: str) -> None:
    params, context = tables(logits=_logits()), context_of(_TASK)
    compiled = jax.jit(MEASURES[name].read)(params, context)[name]
    assert float(compiled) == pytest.approx(float(read(name, params, context)), rel=1e-6)


@pytest.mark.parametrize(
    "config",
    few(
        [Transformer(d_model=8, heads=2, d_mlp=12, attention_bias=True), MLP(width=9, bias=True)], 1
    ),
)
def test_networks_are_read_where_their_answer_stands(config: Any) -> None:
    model = config.build(_TASK.inputs)
    params = jax.tree.map(lambda x: x + 0.1, model.init(jax.random.key(0)))
    inputs = jnp.array([[a, b, 5] for a in range(5) for b in range(5)])
    logits = np.asarray(model.apply(params, inputs)[:, -1], np.float64)
    each = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(25), _ANSWERS.ravel()]
    context = context_of(_TASK, model=model)
    assert float(read("test_loss", params, context)) == pytest.approx(each[_TEST].mean(), rel=1e-5)
    right = (logits.argmax(axis=1) == _ANSWERS.ravel())[_TEST]
    assert float(read("test_accuracy", params, context)) == pytest.approx(right.mean(), abs=1e-6)


def test_squares_are_summed_over_all_parameters_biases_included() -> None:
    params = tables(W_E=[[1.0, 2.0], [3.0, 0.0]], b=[2.0, -1.0])
    assert float(read("sum_squared_weights", params, context_of(_TASK))) == pytest.approx(
        1 + 4 + 9 + 4 + 1
    )
    model = Transformer(d_model=8, heads=2, d_mlp=12).build(_TASK.inputs)
    weights = jax.tree.map(lambda x: x + 0.3, model.init(jax.random.key(0)))
    expected = sum(float((np.asarray(x, np.float64) ** 2).sum()) for x in jax.tree.leaves(weights))
    assert float(
        read("sum_squared_weights", weights, context_of(_TASK, model=model))
    ) == pytest.approx(expected, rel=1e-6)
