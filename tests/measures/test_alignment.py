"""Alignment of gradient and weights, against a gradient written out, finite differences, and
networks that only grow.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fakes import context_of, tables

from mi_jax.basics.pytrees import dotted
from mi_jax.contracts import Subject
from mi_jax.measures import MEASURES, nlm_alignment
from mi_jax.measuring.stored import measure_weights
from mi_jax.models import MLP
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import MSE, CrossEntropy

_TASK = ModularArithmetic(p=5, fraction=0.5)


def test_it_is_the_cosine_with_the_gradient_written_out() -> None:
    context = context_of(_TASK)
    logits = np.random.default_rng(0).normal(size=(5, 5, 6))
    train = context.batches["train"]
    gradient = np.zeros_like(logits)
    for inputs, target in zip(
        np.asarray(train.inputs), np.asarray(train.targets)[:, 0], strict=True
    ):
        a, b = inputs[0], inputs[1]
        softmax = np.exp(logits[a, b]) / np.exp(logits[a, b]).sum()
        gradient[a, b] = (softmax - np.eye(6)[target]) / len(train.targets)
    expected = -(gradient * logits).sum() / np.linalg.norm(gradient) / np.linalg.norm(logits)
    values = nlm_alignment().read(tables(logits=logits), context)
    assert float(values["nlm_alignment"]) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(values["nlm_alignment_by_parameter"], [expected], rtol=1e-5)


@pytest.mark.slow
def test_its_product_with_the_norms_is_how_the_loss_falls_as_the_weights_grow() -> None:
    model = MLP(width=7).build(_TASK.inputs)
    params = model.init(jax.random.key(0))
    context = context_of(_TASK, model=model, loss=MSE())
    train = context.batches["train"]
    values = {
        name: np.asarray(x, np.float64) for name, x in nlm_alignment().read(params, context).items()
    }
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float64)), params)
        leaves, structure = jax.tree.flatten(wide)

        def loss(scales: jax.Array) -> jax.Array:
            grown = structure.unflatten(
                [scale * leaf for scale, leaf in zip(scales, leaves, strict=True)]
            )
            return MSE()(
                model.apply(grown, train.inputs, positions=context.read), train.targets
            ).mean()

        at = jax.jit(loss)
        total = jax.jit(
            lambda w: MSE()(
                model.apply(w, train.inputs, positions=context.read), train.targets
            ).mean()
        )
        slopes = jax.tree.leaves(jax.jit(jax.grad(total))(wide))
        sizes = np.array(
            [
                [jnp.linalg.norm(x.ravel()) for x in pair]
                for pair in zip(leaves, slopes, strict=True)
            ]
        )
        ones = np.ones(len(leaves))
        for i, product in enumerate(values["nlm_alignment_by_parameter"] * sizes.prod(axis=1)):
            step = 1e-6 * np.eye(len(leaves))[i]
            assert product == pytest.approx(
                float(at(ones - step) - at(ones + step)) / 2e-6, rel=1e-5
            )
        product = (
            values["nlm_alignment"] * np.linalg.norm(sizes[:, 0]) * np.linalg.norm(sizes[:, 1])
        )
        assert product == pytest.approx(
            float(at(ones * (1 - 1e-6)) - at(ones * (1 + 1e-6))) / 2e-6, rel=1e-5
        )


def test_tiny_gradients_keep_their_direction() -> None:
    context = context_of(_TASK)
    logits = np.full((5, 5, 6), -30.0)
    train = context.batches["train"]
    for (a, b, *_), target in zip(
        np.asarray(train.inputs), np.asarray(train.targets)[:, 0], strict=True
    ):
        logits[a, b, target] = 30.0
    value = float(nlm_alignment().read(tables(logits=logits), context)["nlm_alignment"])
    assert 0.5 < value < 1


def test_without_a_gradient_it_is_not_a_number() -> None:
    assert np.isnan(
        float(
            nlm_alignment().read(tables(logits=np.zeros((5, 5, 6))), context_of(_TASK))[
                "nlm_alignment"
            ]
        )
    )


def test_weights_are_read_with_it_when_asked() -> None:
    model = MLP(width=3, bias=True).build(_TASK.inputs)
    params = model.init(jax.random.key(1))
    readings = measure_weights(
        params,
        Subject(model, _TASK, CrossEntropy()),
        [nlm_alignment()],
        {"experiment": {}, "hash": ""},
    )
    assert readings["nlm_alignment"].dims == ("seed", "step")
    assert set(readings["nlm_alignment_by_parameter"]["parameter"].values) == set(dotted(params))
    assert "nlm_alignment" not in MEASURES
