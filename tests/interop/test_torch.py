"""Tests of the published set-up's gradients against PyTorch's, on random and grokked weights."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax.basics.pytrees import dotted
from mi_jax.contracts import mean_loss
from mi_jax.runs.library import find
from mi_jax.runs.weights import load_weights

pytestmark = pytest.mark.slow


def _ours(params: Any, route: str) -> dict[str, np.ndarray]:
    experiment = find("nanda_2023")
    model, data = experiment.build(), experiment.task.data(0)

    def loss(params: Any) -> jax.Array:
        outputs = model.along(route)(
            params, jnp.asarray(data.inputs), positions=experiment.task.read
        )
        return mean_loss(
            experiment.loss(outputs, jnp.asarray(data.targets)), jnp.asarray(data.weights)
        )

    return {
        name: np.asarray(value) for name, value in dotted(jax.jit(jax.grad(loss))(params)).items()
    }


def _theirs(torch: Any, params: Any) -> dict[str, np.ndarray]:
    """PyTorch's gradients, at all positions, with one einsum per step as in the papers' code."""
    data = find("nanda_2023").task.data(0)
    w = {
        name: torch.tensor(np.asarray(x), dtype=torch.float64, requires_grad=True)
        for name, x in dotted(params).items()
    }
    tokens, answers = (torch.from_numpy(np.array(x)).long() for x in (data.inputs, data.targets))
    x = w["embed.W_E"][tokens] + w["pos_embed.W_pos"]
    block = "blocks.0"
    q, k, v = (torch.einsum("bsd,hde->bhse", x, w[f"{block}.attn.W_{letter}"]) for letter in "QKV")
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    scores = scores.masked_fill(~torch.tril(torch.ones(3, 3)).bool(), float("-inf"))
    x = x + torch.einsum("bhse,hed->bsd", scores.softmax(-1) @ v, w[f"{block}.attn.W_O"])
    hidden = torch.relu(x @ w[f"{block}.mlp.W_in"] + w[f"{block}.mlp.b_in"])
    x = x + hidden @ w[f"{block}.mlp.W_out"] + w[f"{block}.mlp.b_out"]
    torch.nn.functional.cross_entropy((x @ w["unembed.W_U"])[:, -1], answers[:, -1]).backward()
    return {name: weight.grad.numpy() for name, weight in w.items()}


def _grokked(published: Path) -> Any:
    return load_weights(published / "nanda_mod_add_wd0.1.npz", find("nanda_2023").build())[0]


@pytest.fixture(params=["random", "grokked"])
def params(request: pytest.FixtureRequest) -> Any:
    """Weights before training, and the published weights, whose training loss is 9e-9."""
    if request.param == "grokked":
        return _grokked(request.getfixturevalue("published"))
    # A key for which no neuron lies within rounding of 0, where a ReLU has no derivative.
    return find("nanda_2023").build().init(jax.random.key(0))


def _distance(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> float:
    """The largest relative distance of a tensor."""
    assert ours.keys() == theirs.keys()
    return max(
        float(np.linalg.norm(ours[name] - gradient) / np.linalg.norm(gradient))
        for name, gradient in theirs.items()
    )


@pytest.mark.parametrize("route", ["plain", "table"])
def test_gradients_are_those_of_pytorch(params: Any, route: str) -> None:
    torch = pytest.importorskip(
        "torch", reason="PyTorch is not installed: pip install 'mi-jax[bench]'"
    )
    theirs = _theirs(torch, params)
    # Measured: 1e-6 on random weights and 1.7e-5 on grokked ones, where rounding the logits changes
    # the loss's exponent. PyTorch's own float32, with its log_softmax, is 3e-2 away there.
    assert _distance(_ours(params, route), theirs) < 2e-5
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float64)), params)
        assert _distance(_ours(wide, route), theirs) < 1e-9
