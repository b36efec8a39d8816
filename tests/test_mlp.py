"""The pair MLP against plain NumPy, Gromov's analytic solution, its roles and refusals."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from unchecked import unchecked

from mi_jax.contracts import Inputs, Model
from mi_jax.errors import ConfigError
from mi_jax.models import MLP, capture
from mi_jax.pytrees import dotted
from mi_jax.tasks import ModularArithmetic

_TASK = ModularArithmetic(p=5, fraction=0.5)
_TOKENS = jnp.array([[a, b, 5] for a in range(5) for b in range(5)])
_ACTIVATIONS = {"quadratic": np.square, "relu": lambda x: np.maximum(x, 0), "tanh": np.tanh, "identity": lambda x: x}


def _params(model: Model) -> Any:
    leaves, structure = jax.tree.flatten(model.init(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return structure.unflatten([x + 0.3 * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys, strict=True)])


def _one_hot(tokens: np.ndarray, size: int) -> np.ndarray:
    return (tokens[:, None] == np.arange(size)).astype(np.float64)


@pytest.mark.parametrize("activation", _ACTIVATIONS)
@pytest.mark.parametrize("bias", [False, True])
def test_the_forward_pass_is_one_hidden_layer_on_one_hot_pairs(activation: Any, bias: bool) -> None:
    model = MLP(width=9, activation=activation, bias=bias).build(_TASK.inputs)
    params = _params(model)
    flat = {name: np.asarray(value, np.float64) for name, value in dotted(params).items()}
    a, b, _ = np.asarray(_TOKENS).T
    pair = np.concatenate([_one_hot(a, 5), _one_hot(b, 5)], axis=1)
    pre = pair @ np.concatenate([flat["embed_a.W_E"], flat["embed_b.W_E"]]) + (flat["embed.b"] if bias else 0)
    logits = _ACTIVATIONS[activation](pre) @ flat["unembed.W_U"] + (flat["unembed.b_U"] if bias else 0)
    outputs = model.apply(params, _TOKENS, positions=(2,))
    assert outputs.shape == (25, 1, 5)
    np.testing.assert_allclose(outputs[:, 0], logits, rtol=2e-5, atol=2e-6)


def _gromov(p: int, width: int, seed: int, sign: int) -> dict[str, Any]:
    """The weights that solve addition exactly: phases of the output are the sum of those of the inputs; -1 turns that round."""
    rng = np.random.default_rng(seed)
    frequency = 1 + np.arange(width) % ((p - 1) // 2)
    phase_a, phase_b = rng.uniform(-np.pi, np.pi, (2, width))
    angle = 2 * np.pi * np.arange(p)[:, None] * frequency / p
    A = (2 / width) ** (1 / 3)
    tables = {
        "embed_a": {"W_E": A * np.cos(angle + phase_a)},
        "embed_b": {"W_E": A * np.cos(angle + phase_b)},
        "unembed": {"W_U": (A * np.cos(angle + sign * (phase_a + phase_b))).T},
    }
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tables)


def _answers(p: int, width: int, seed: int, sign: int) -> tuple[np.ndarray, np.ndarray]:
    """The pairs, and what the analytic network answers."""
    task = ModularArithmetic(p=p)
    inputs = np.array([(a, b, p) for a in range(p) for b in range(p)])
    outputs = MLP(width=width).build(task.inputs).apply(_gromov(p, width, seed, sign), jnp.asarray(inputs))
    return inputs[:, :2], np.asarray(outputs[:, 0].argmax(axis=-1))


@pytest.mark.parametrize("seed", range(3))
def test_gromovs_analytic_weights_are_right_everywhere(seed: int) -> None:
    pairs, answers = _answers(23, 128, seed, sign=1)
    np.testing.assert_array_equal(answers, pairs.sum(axis=1) % 23)


def test_gromovs_weights_with_the_wrong_sign_answer_the_negative_sum() -> None:
    pairs, answers = _answers(23, 128, 0, sign=-1)
    np.testing.assert_array_equal(answers, -pairs.sum(axis=1) % 23)
    assert abs((answers == pairs.sum(axis=1) % 23).mean() - 1 / 23) < 1e-6


def test_the_order_of_neurons_does_not_matter() -> None:
    model = MLP(width=9, bias=True).build(_TASK.inputs)
    params, order = _params(model), jnp.array([4, 2, 8, 0, 6, 1, 7, 3, 5])
    turned = {
        "embed_a": {"W_E": params["embed_a"]["W_E"][:, order]},
        "embed_b": {"W_E": params["embed_b"]["W_E"][:, order]},
        "embed": {"b": params["embed"]["b"][order]},
        "unembed": {"W_U": params["unembed"]["W_U"][order], "b_U": params["unembed"]["b_U"]},
    }
    np.testing.assert_allclose(model.apply(turned, _TOKENS), model.apply(params, _TOKENS), rtol=1e-5, atol=1e-6)


def test_the_roles_are_its_two_tables_its_neurons_and_its_output_matrix() -> None:
    model = MLP(width=9).build(_TASK.inputs)
    params = _params(model)
    first, second = (np.asarray(table(params)) for table in model.roles.embedding)
    np.testing.assert_array_equal(first, params["embed_a"]["W_E"])
    np.testing.assert_array_equal(second, params["embed_b"]["W_E"])
    assert model.roles.output_map is not None
    assert model.roles.neurons is not None
    outputs, seen = capture(model.apply, [model.roles.neurons])(params, _TOKENS)
    neurons = np.asarray(seen[model.roles.neurons], np.float64)
    np.testing.assert_allclose(neurons @ np.asarray(model.roles.output_map(params), np.float64), outputs, rtol=2e-5, atol=2e-6)


def test_the_tokens_that_vary_are_read_wherever_they_stand() -> None:
    turned = Inputs("tokens", vocabulary=6, positions=3, classes=5, alphabet=((5, 6), (0, 5), (0, 5)))
    model, plain = MLP(width=9).build(turned), MLP(width=9).build(_TASK.inputs)
    params = _params(plain)
    np.testing.assert_array_equal(model.apply(params, _TOKENS[:, jnp.array([2, 0, 1])]), plain.apply(params, _TOKENS))


@pytest.mark.parametrize("token", [-1, 5])
def test_an_unknown_token_gives_nan(token: int) -> None:
    model = MLP(width=9).build(_TASK.inputs)
    outputs = model.apply(_params(model), _TOKENS.at[3, 1].set(token))
    assert bool(jnp.isnan(outputs[3]).all())
    assert bool(jnp.isfinite(jnp.delete(outputs, 3, axis=0)).all())


def test_initial_weights_have_the_stated_spreads() -> None:
    inputs = ModularArithmetic(p=97).inputs
    params = dotted(MLP(width=500, bias=True, init_scale=0.7).build(inputs).init(jax.random.key(0)))
    for name, rows in {"embed_a.W_E": 2 * 97, "embed_b.W_E": 2 * 97, "unembed.W_U": 500}.items():
        assert abs(float(params[name].std()) * math.sqrt(rows) / 0.7 - 1) < 5 / math.sqrt(2 * 97 * 500), name
    assert not params["embed.b"].any()
    assert not params["unembed.b_U"].any()


def _varying(*alphabet: tuple[int, int]) -> Inputs:
    return Inputs("tokens", vocabulary=6, positions=len(alphabet), classes=5, alphabet=alphabet)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (_varying((0, 5), (5, 6)), "an mlp reads a pair of tokens; the task has 1 varying positions of tokens"),
        (_varying((0, 5), (0, 5), (0, 5)), "the task has 3 varying positions"),
        (Inputs("floats", vocabulary=0, positions=2, classes=5, alphabet=()), "of floats"),
    ],
)
def test_a_task_that_is_no_pair_of_tokens_is_refused(inputs: Inputs, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MLP().build(inputs)


def test_bad_settings_are_refused_with_what_is_allowed() -> None:
    with pytest.raises(ConfigError, match="width=0: must be at least 1"):
        MLP(width=0)
    with unchecked(), pytest.raises(ConfigError, match="activation='quadratc' is unknown; did you mean quadratic"):
        MLP(activation="quadratc")  # pyright: ignore[reportArgumentType]
