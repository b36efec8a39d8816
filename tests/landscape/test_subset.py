"""Learning coefficient of some examples and of one head: closed forms, and invalid choices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax.basics.errors import ConfigError, MeasureError
from mi_jax.contracts import Reference, Subject
from mi_jax.landscape import SGLDSettings, exact, learning_coefficient, restrict
from mi_jax.landscape.subset import chosen_rows, split_rows, take_examples
from mi_jax.measuring.program import make_context
from mi_jax.models import MLP
from mi_jax.tasks import ModularArithmetic
from mi_jax.training.losses import CrossEntropy

_COORDINATE = np.arange(20) % 10
_DATA = jnp.asarray(np.sqrt(10) * np.eye(10)[_COORDINATE], jnp.float32)
_HEADS = {"attn": {"W_Q": jnp.zeros((3, 10))}, "b": jnp.zeros(2)}
_PROTOCOL = {
    "n_beta": 100.0,
    "gamma": 1.0,
    "epsilon": 1e-3,
    "burn_in": 500,
    "draws": 1000,
    "chains": 64,
}


def _loss(w: Any, x: Any) -> jax.Array:
    """(x . sum of heads)^2 / 2 + |b|^2 / 2. Each example reads one coordinate of every head; all
    examples together read each coordinate equally often.
    """
    return 0.5 * ((x @ w["attn"]["W_Q"].sum(axis=0)) ** 2).mean() + 0.5 * (w["b"] ** 2).sum()


@pytest.mark.parametrize(
    ("examples", "curvatures"),
    [
        (None, [1.0] * 10),
        (np.flatnonzero(_COORDINATE < 4), [2.5] * 4),
        (_COORDINATE < 4, [2.5] * 4),
        ([19, 9], [10.0]),
    ],
)
def test_the_coefficient_of_a_head_on_some_examples_is_the_closed_form_of_their_loss(
    examples: Any, curvatures: Any
) -> None:
    """One of three heads is sampled; the loss depends on the coordinates of the examples."""
    mask = restrict(_HEADS, "attn.W_?", entry=1)
    found = learning_coefficient(
        _loss,
        _HEADS,
        n=20,
        settings=SGLDSettings(**_PROTOCOL),
        key=jax.random.key(0),
        mask=mask,
        data=_DATA,
        examples=examples,
    )
    protocol = {name: value for name, value in _PROTOCOL.items() if name != "chains"}
    assert float(found.learning_coefficient) == pytest.approx(
        exact.quadratic(curvatures, **protocol), rel=0.03
    )
    # All heads and the bias together would have two more directions.
    assert float(found.learning_coefficient) < 0.9 * exact.quadratic(
        [*curvatures, 1.0, 1.0], **protocol
    )


def test_the_chosen_examples_keep_their_bits_in_the_order_of_the_data() -> None:
    data = {"x": np.random.default_rng(0).normal(size=(5, 3)), "y": np.arange(5)}
    for examples in ([4, 1], np.array([False, True, False, False, True])):
        jax.tree.map(
            np.testing.assert_array_equal,
            take_examples(data, examples),
            {"x": data["x"][[1, 4]], "y": np.array([1, 4])},
        )


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([], "examples is empty"),
        ([False] * 4, "examples is empty"),
        ([True] * 3, r"must have the shape \(4,\), one entry per example; it has \(3,\)"),
        ([0, 4], r"indices from 0 to 3; it holds \[4\]"),
        ([-1], r"holds \[-1\]"),
        ([2, 2], "examples repeats 1 of its indices"),
    ],
)
def test_invalid_examples_are_refused(examples: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        chosen_rows(examples, 4)
    if examples == [0, 4]:
        with pytest.raises(ConfigError, match="examples is given without data"):
            learning_coefficient(
                _loss,
                _HEADS,
                n=4,
                settings=SGLDSettings(**_PROTOCOL),
                key=jax.random.key(0),
                examples=examples,
            )


def test_examples_of_a_split_are_chosen_by_index_and_by_label() -> None:
    task = ModularArithmetic(p=5, fraction=0.6)
    context = make_context(
        Subject(MLP(width=4).build(task.inputs), task, CrossEntropy()), 0, Reference(), []
    )
    for split in ("train", "test"):
        b = np.asarray(context.batches[split].inputs)[:, 1]
        odd = np.flatnonzero(b % 2)
        np.testing.assert_array_equal(split_rows(context, split, None, ("b_parity", 1)), odd)
        np.testing.assert_array_equal(
            split_rows(context, split, range(5), ("b_parity", (1, 7))), odd[odd < 5]
        )
    np.testing.assert_array_equal(split_rows(context, "test", [3, 1], None), [1, 3])
    with pytest.raises(
        MeasureError, match="no labels of a concept 'b_party'; did you mean b_parity"
    ):
        split_rows(context, "train", None, ("b_party", 1))
    with pytest.raises(
        ConfigError, match=r"no example of 'train' is of that class\. 'b_parity' has \[0, 1\]"
    ):
        split_rows(context, "train", None, ("b_parity", 2))
    with pytest.raises(MeasureError, match="no split 'nowhere'"):
        split_rows(context, "nowhere", None, None)
