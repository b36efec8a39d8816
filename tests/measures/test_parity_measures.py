"""Readings of networks on signs: against masks one by one, exact gradients over the whole cube, and
an exact parity.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fakes import context_of, read
from signs import SignNet

from mi_jax.contracts import Context, Loss, Model, Reference
from mi_jax.measures import MEASURES
from mi_jax.tasks import SparseParity
from mi_jax.tasks.fourier_gap import majority_gap

_CUBE = SparseParity(
    n=5, k=2, subset="random", examples=None, batch_size=4, test_examples=32, split_seed=2
)
_FINITE = SparseParity(n=8, k=2, examples=100, batch_size=None, test_examples=50)


def _net(width: int = 6, outputs: int = 2, task: SparseParity = _FINITE) -> tuple[Any, Context]:
    model = SignNet(width=width, outputs=outputs).build(task.inputs)
    return model.init(jax.random.key(3)), context_of(task, model=model)


@dataclass(frozen=True)
class _Correlation(Loss):
    """-y z of the second output."""

    def __call__(self, outputs: Any, targets: Any) -> Any:
        return -(2.0 * targets - 1) * outputs[..., 1]


def test_hidden_progress_is_the_largest_change_of_a_first_weight() -> None:
    params, context = _net()
    W = np.asarray(params["W"])
    before = {
        **params,
        "W": jnp.asarray(W + np.random.default_rng(0).normal(size=W.shape), jnp.float32),
    }
    context = dataclasses.replace(context, reference=Reference(initial=before))
    values = MEASURES["hidden_progress"].read(params, context)
    moved = np.abs(W - np.asarray(before["W"]))
    np.testing.assert_array_equal(values["hidden_progress_by_neuron"], moved.max(axis=0))
    assert float(values["hidden_progress"]) == moved.max()


def test_the_weight_gap_is_by_loops_the_worst_relevant_less_the_best_other() -> None:
    params, context = _net(task=_CUBE)
    W, S = np.abs(np.asarray(params["W"])), set(_CUBE.coordinates.tolist())
    expected = [min(w[i] for i in S) - max(w[j] for j in range(5) if j not in S) for w in W.T]
    values = MEASURES["weight_gap"].read(params, context)
    np.testing.assert_array_equal(values["weight_gap_by_neuron"], np.array(expected, np.float32))
    assert float(values["weight_gap"]) == np.float32(max(expected))


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_over_the_whole_cube_the_gradient_gap_of_a_neuron_of_signs_is_majoritys(
    scale: float,
) -> None:
    model = SignNet(width=1).build(_CUBE.inputs)
    params = {"W": jnp.array([[1.0], [-1], [-1], [1], [1]]), "U": jnp.array([[0.0, scale]])}
    gap = read("gradient_gap", params, context_of(_CUBE, model=model, loss=_Correlation()))
    assert gap == pytest.approx(scale * majority_gap(5, 2) / 2, rel=1e-5)


@pytest.mark.parametrize("outputs", [2, 1])
@pytest.mark.parametrize("useful", [1, 3, 6])
def test_effective_sparsity_is_the_first_k_whose_masked_network_is_right_as_often(
    useful: int, outputs: int
) -> None:
    params, context = _net(outputs=outputs)
    # Useless neurons see nothing and say nothing.
    size = jnp.where(jnp.arange(6) < useful, 1.0, 0.0)[jnp.array([3, 0, 5, 1, 4, 2])]
    params = {"W": params["W"] * size[None], "U": params["U"] * size[:, None]}
    W, batch = np.asarray(params["W"]), context.batches["train"]
    order = np.argsort(-np.linalg.norm(W, axis=0))
    counts = []
    for k in range(1, 7):
        mask = jnp.zeros(6).at[order[:k]].set(1.0)
        out = np.asarray(
            context.model.apply(
                params, batch.inputs, taps={"neurons": lambda v, mask=mask: v * mask[None, None]}
            )
        )
        chosen = out[..., 0] > 0 if outputs == 1 else out.argmax(axis=-1)
        counts.append(int((chosen == np.asarray(batch.targets)).sum()))
    expected = 1 + counts.index(counts[-1])
    assert read("effective_sparsity", params, context) == expected
    assert expected <= useful


def _parity(k: int) -> Model:
    def apply(params: Any, inputs: Any, *, taps: Any = None, positions: Any = None) -> jax.Array:
        product = inputs[..., :k].prod(axis=-1)
        return jnp.stack([-product, product], axis=-1) * params["scale"]

    return Model(init=lambda key: {}, apply=apply)


@pytest.mark.parametrize("k", [1, 2, 8])
def test_an_exact_parity_is_as_sensitive_as_it_is_large(k: int) -> None:
    params = {"scale": jnp.float32(0.5)}
    assert read("sensitivity", params, context_of(_FINITE, model=_parity(k))) == k
    assert np.isnan(
        read("sensitivity", {"scale": jnp.float32(np.nan)}, context_of(_FINITE, model=_parity(k)))
    )


def test_sensitivity_counts_flips_one_by_one() -> None:
    params, context = _net()
    x = np.asarray(context.batches["test"].inputs)

    def answers(x: np.ndarray) -> np.ndarray:
        return np.asarray(context.model.apply(params, jnp.asarray(x))).argmax(axis=-1)

    flips = [
        answers(x * np.where(np.arange(8) == i, -1, 1).astype(np.float32)) != answers(x)
        for i in range(8)
    ]
    assert read("sensitivity", params, context) == pytest.approx(np.mean(flips) * 8, rel=1e-6)


def test_weights_that_are_not_finite_give_nothing() -> None:
    params, context = _net()
    nowhere = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), params)
    context = dataclasses.replace(context, reference=Reference(initial=params))
    for name in (
        "hidden_progress",
        "weight_gap",
        "gradient_gap",
        "effective_sparsity",
        "sensitivity",
    ):
        assert np.isnan(MEASURES[name].read(nowhere, context)[name])
