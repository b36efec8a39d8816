"""Tests of MLPs on pairs and on floats: against plain NumPy and Gromov's analytic solution; roles,
initial spreads and refusals.
"""

import math
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import VECTOR, few, noisy_params
from unchecked import unchecked

from mi_jax.basics.errors import ConfigError
from mi_jax.basics.pytrees import dotted
from mi_jax.contracts import Inputs
from mi_jax.models import MLP, capture
from mi_jax.models.mlp import MLPInitialization
from mi_jax.tasks import ModularArithmetic

_TASK = ModularArithmetic(p=5, fraction=0.5)
_TOKENS = jnp.array([[a, b, 5] for a in range(5) for b in range(5)])
_ACTIVATIONS = {
    "quadratic": np.square,
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "identity": lambda x: x,
}


def _one_hot(tokens: np.ndarray, size: int) -> np.ndarray:
    return (tokens[:, None] == np.arange(size)).astype(np.float64)


# --- The forward pass


def _first_product(config: MLP, w: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """The first layer's pre-activation without its bias, for features or one-hot pairs."""
    if x.dtype.kind == "f":
        return x @ w["layers.0.W"]
    a, b = _one_hot(x[:, 0], 5), _one_hot(x[:, 1], 5)
    if config.embedding == "one_hot":
        return np.concatenate([a, b], axis=1) @ np.concatenate([w["embed_a.W_E"], w["embed_b.W_E"]])
    first, second = ("embed", "embed") if config.embedding == "shared" else ("embed_a", "embed_b")
    rows = a @ w[f"{first}.W_E"], b @ w[f"{second}.W_E"]
    return (rows[0] + rows[1] if config.combination == "sum" else np.concatenate(rows, axis=1)) @ w[
        "layers.0.W"
    ]


def _reference(config: MLP, w: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Outputs [batch class], written from the equations."""
    f = _ACTIVATIONS[config.activation]
    first_bias = "embed.b" if "embed_a.W_E" in w and config.embedding == "one_hot" else "layers.0.b"
    h = f(_first_product(config, w, x) + (w[first_bias] if config.bias else 0))
    for i in range(1, config.depth):
        h = f(h @ w[f"layers.{i}.W"] + (w[f"layers.{i}.b"] if config.bias else 0))
    biased = config.bias if config.output_bias is None else config.output_bias
    return config.output_scale * (h @ w["unembed.W_U"] + (w["unembed.b_U"] if biased else 0))


_PAIRS: list[dict[str, Any]] = [
    *(
        {"activation": activation, "bias": bias}
        for activation in _ACTIVATIONS
        for bias in (False, True)
    ),
    {"depth": 3, "activation": "relu"},
    {"depth": 2, "activation": "relu", "bias": True, "output_bias": False},
    {"output_bias": True, "output_scale": 0.3, "outputs": 8},
    {"embedding": "two", "activation": "relu"},
    {"embedding": "two", "combination": "sum", "bias": True, "output_scale": -2.0},
    {"embedding": "two", "depth": 2, "bias": True, "activation": "tanh"},
    {"embedding": "shared", "activation": "relu"},
    {"embedding": "shared", "combination": "sum", "depth": 2, "bias": True, "activation": "tanh"},
]
_VECTORS: list[dict[str, Any]] = [
    {"activation": "relu", "bias": True, "output_bias": False, "outputs": 1},
    {"depth": 2, "activation": "tanh", "bias": True},
    {"activation": "quadratic", "outputs": 4, "output_scale": 5.0},
]
_X = jax.random.normal(jax.random.key(5), (11, 1, 7))
_ALL = [(settings, _TASK.inputs, _TOKENS) for settings in _PAIRS] + [
    (settings, VECTOR, _X) for settings in _VECTORS
]
_EVERY = pytest.mark.parametrize(
    ("settings", "inputs", "x"),
    few(_ALL, 4),
    ids=[
        f"{inputs.kind},{','.join(f'{k}={v}' for k, v in settings.items())}"
        for settings, inputs, _ in _ALL
    ],
)


@_EVERY
def test_the_forward_pass_is_that_of_plain_numpy(
    settings: dict[str, Any], inputs: Inputs, x: jax.Array
) -> None:
    config = MLP(**{"width": 9, "d_embed": 6, **settings})
    model = config.build(inputs)
    params = noisy_params(model)
    w = {name: np.asarray(value, np.float64) for name, value in dotted(params).items()}
    expected = _reference(config, w, np.asarray(x).reshape(len(x), -1))
    outputs = jax.jit(model.apply)(params, x)
    assert outputs.shape == (len(x), 1, config.outputs or inputs.classes)
    np.testing.assert_allclose(
        outputs[:, 0], expected, rtol=2e-5, atol=2e-6 * np.abs(expected).max()
    )


@_EVERY
def test_every_parameter_has_a_finite_gradient(
    settings: dict[str, Any], inputs: Inputs, x: jax.Array
) -> None:
    model = MLP(**{"width": 9, "d_embed": 6, **settings}).build(inputs)
    gradients = dotted(
        jax.jit(jax.grad(lambda params: (model.apply(params, x) ** 2).mean()))(noisy_params(model))
    )
    for name, gradient in gradients.items():
        assert np.isfinite(gradient).all(), name
        assert np.abs(gradient).max() > 1e-6, name


@_EVERY
def test_roles_say_how_neurons_are_reached_and_read(
    settings: dict[str, Any], inputs: Inputs, x: jax.Array
) -> None:
    config = MLP(**{"width": 9, "d_embed": 6, **settings})
    model = config.build(inputs)
    params, roles, last = noisy_params(model), model.roles, config.depth - 1
    w = {name: np.asarray(value, np.float64) for name, value in dotted(params).items()}
    outputs, seen = jax.jit(capture(model.apply, [f"hidden.{last}.pre", f"hidden.{last}.post"]))(
        params, x
    )
    assert roles.neurons == f"hidden.{last}.post"
    assert roles.output_map is not None
    W_L = np.asarray(roles.output_map(params), np.float64)
    read = np.asarray(seen[roles.neurons], np.float64) @ W_L
    rest = np.asarray(outputs, np.float64)[..., : W_L.shape[1]] - read
    biased = config.bias if config.output_bias is None else config.output_bias
    constant = config.output_scale * w["unembed.b_U"][: W_L.shape[1]] if biased else 0.0
    np.testing.assert_allclose(
        rest, np.broadcast_to(constant, rest.shape), atol=2e-5 * np.abs(read).max()
    )
    assert bool(roles.input_map) == (inputs.kind == "floats" and config.depth == 1)
    assert bool(roles.neuron_inputs) == (inputs.kind == "tokens" and config.depth == 1)
    if config.depth > 1:
        return
    pre = np.asarray(seen["hidden.0.pre"][:, 0], np.float64)
    if roles.input_map is not None:
        added = np.asarray(x[:, 0], np.float64) @ np.asarray(roles.input_map(params), np.float64)
    else:
        tables = [np.asarray(table(params), np.float64) for table in roles.neuron_inputs]
        added = tables[0][np.asarray(x[:, 0])] + tables[-1][np.asarray(x[:, 1])]
    bias = w.get("embed.b", w.get("layers.0.b", 0.0))
    np.testing.assert_allclose(pre, added + bias, rtol=2e-5, atol=1e-5)


def test_inputs_of_another_shape_are_refused() -> None:
    model = MLP(width=9).build(VECTOR)
    params = noisy_params(model)
    for shape in ((3, 7), (3, 1, 6), (3, 2, 7)):
        with pytest.raises(
            ConfigError, match=r"wrong shape .*Give \[batch 1 feature\] with 7 features"
        ):
            model.apply(params, jnp.zeros(shape))


def test_embeddings_are_the_tables_of_the_tasks_tokens() -> None:
    for embedding, names in (("two", ["embed_a.W_E", "embed_b.W_E"]), ("shared", ["embed.W_E"])):
        model = MLP(width=9, d_embed=6, embedding=embedding).build(_TASK.inputs)
        params = noisy_params(model)
        for table, name in zip(model.roles.embedding, names, strict=True):
            np.testing.assert_array_equal(table(params), dotted(params)[name])


def test_a_shared_embedding_has_the_role_embedded_when_the_input_is_the_pair() -> None:
    pair = ModularArithmetic(p=5, fraction=0.5, format="a b")
    assert MLP(embedding="shared").build(pair.inputs).roles.embedded == "embed"
    assert MLP(embedding="shared").build(_TASK.inputs).roles.embedded is None
    assert MLP(embedding="two").build(pair.inputs).roles.embedded is None


# --- Gromov's solution


def _gromov(p: int, width: int, seed: int, sign: int) -> dict[str, Any]:
    """The weights that solve addition exactly.

    The output's phases are the sum of the inputs' phases; sign -1 subtracts that sum instead.
    """
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
    """All pairs, and the answers of the analytic network."""
    task = ModularArithmetic(p=p)
    inputs = np.array([(a, b, p) for a in range(p) for b in range(p)])
    outputs = (
        MLP(width=width)
        .build(task.inputs)
        .apply(_gromov(p, width, seed, sign), jnp.asarray(inputs))
    )
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
    params, order = noisy_params(model), jnp.array([4, 2, 8, 0, 6, 1, 7, 3, 5])
    turned = {
        "embed_a": {"W_E": params["embed_a"]["W_E"][:, order]},
        "embed_b": {"W_E": params["embed_b"]["W_E"][:, order]},
        "embed": {"b": params["embed"]["b"][order]},
        "unembed": {"W_U": params["unembed"]["W_U"][order], "b_U": params["unembed"]["b_U"]},
    }
    np.testing.assert_allclose(
        model.apply(turned, _TOKENS), model.apply(params, _TOKENS), rtol=1e-5, atol=1e-6
    )


def test_varying_tokens_are_read_at_any_position() -> None:
    turned = Inputs(
        "tokens", vocabulary=6, positions=3, classes=5, alphabet=((5, 6), (0, 5), (0, 5))
    )
    model, plain = MLP(width=9).build(turned), MLP(width=9).build(_TASK.inputs)
    params = noisy_params(plain)
    np.testing.assert_array_equal(
        model.apply(params, _TOKENS[:, jnp.array([2, 0, 1])]), plain.apply(params, _TOKENS)
    )


@pytest.mark.parametrize("token", [-1, 5])
def test_an_unknown_token_gives_nan(token: int) -> None:
    model = MLP(width=9).build(_TASK.inputs)
    outputs = model.apply(noisy_params(model), _TOKENS.at[3, 1].set(token))
    assert bool(jnp.isnan(outputs[3]).all())
    assert bool(jnp.isfinite(jnp.delete(outputs, 3, axis=0)).all())


# --- Initial parameters


def _initial(inputs: Inputs = _TASK.inputs, **settings: Any) -> dict[str, np.ndarray]:
    model = MLP(**settings).build(inputs)
    return {
        name: np.asarray(value, np.float64)
        for name, value in dotted(model.init(jax.random.key(3))).items()
    }


def _assert_spreads(arrays: dict[str, np.ndarray], expected: dict[str, float]) -> None:
    assert arrays.keys() == expected.keys()
    for name, std in expected.items():
        assert abs(arrays[name].std() - std) <= 5 * std / math.sqrt(2 * arrays[name].size), name
        assert abs(arrays[name].mean()) <= 5 * std / math.sqrt(arrays[name].size), name


def test_initial_weights_have_the_stated_spreads() -> None:
    arrays = _initial(ModularArithmetic(p=97).inputs, width=500, bias=True, init_scale=0.7)
    first = 0.7 / math.sqrt(2 * 97)
    spreads = {"embed_a.W_E": first, "embed_b.W_E": first, "unembed.W_U": 0.7 / math.sqrt(500)}
    _assert_spreads(arrays, {**spreads, "embed.b": 0.0, "unembed.b_U": 0.0})


def test_initial_bits_are_those_of_stored_runs() -> None:
    """A single normal draw is cut in the order of the names."""
    arrays, key = MLP(width=6).build(_TASK.inputs).init(jax.random.key(3)), jax.random.key(3)
    draw = np.asarray(jax.random.normal(key, (3 * 5 * 6,)))
    first = np.float32(1 / math.sqrt(10)) * draw
    np.testing.assert_array_equal(arrays["embed_a"]["W_E"], first[:30].reshape(5, 6))
    np.testing.assert_array_equal(arrays["embed_b"]["W_E"], first[30:60].reshape(5, 6))
    np.testing.assert_array_equal(
        arrays["unembed"]["W_U"], (np.float32(1 / math.sqrt(6)) * draw)[60:].reshape(6, 5)
    )


def test_chughtais_network_has_the_published_spreads() -> None:
    arrays = _initial(
        ModularArithmetic(p=113).inputs, embedding="two", d_embed=256, width=128, activation="relu"
    )
    tables = {"embed_a.W_E": 1 / 16, "embed_b.W_E": 1 / 16}
    _assert_spreads(
        arrays, {**tables, "layers.0.W": 1 / math.sqrt(512), "unembed.W_U": 1 / math.sqrt(128)}
    )
    assert {name: x.shape for name, x in arrays.items() if name != "unembed.W_U"} == {
        "embed_a.W_E": (113, 256),
        "embed_b.W_E": (113, 256),
        "layers.0.W": (512, 128),
    }


def test_doshis_network_has_the_published_spread_in_both_layers() -> None:
    arrays = _initial(ModularArithmetic(p=97).inputs, width=500, initialization="doshi_2023")
    # .5 / 1000^(1/3)
    _assert_spreads(arrays, dict.fromkeys(("embed_a.W_E", "embed_b.W_E", "unembed.W_U"), 0.05))


def _assert_uniform(array: np.ndarray, bound: float) -> None:
    assert np.abs(array).max() <= bound
    assert abs(np.abs(array).mean() / bound - 0.5) < 5 / math.sqrt(12 * array.size)
    assert array.std() == pytest.approx(bound / math.sqrt(3), rel=5 / math.sqrt(array.size))


@pytest.mark.parametrize("alpha", [1.0, 8.0])
def test_torchs_defaults_are_scaled_uniform_draws_for_weights_and_biases(
    alpha: float,
) -> None:
    settings = {
        "width": 200,
        "depth": 2,
        "activation": "relu",
        "initialization": "torch",
        "init_scale": alpha,
        "bias": True,
    }
    arrays = _initial(ModularArithmetic(p=113).inputs, **settings)
    rows = {
        "embed_a.W_E": 226,
        "embed_b.W_E": 226,
        "embed.b": 226,
        "layers.1.W": 200,
        "layers.1.b": 200,
    }
    rows |= {"unembed.W_U": 200, "unembed.b_U": 200}
    assert arrays.keys() == rows.keys()
    for name, count in rows.items():
        _assert_uniform(arrays[name], alpha / math.sqrt(count))
    vector = _initial(VECTOR, **settings)
    for name, count in {"layers.0.W": 7, "layers.0.b": 7, "layers.1.W": 200}.items():
        _assert_uniform(vector[name], alpha / math.sqrt(count))


def test_torchs_embeddings_are_normal() -> None:
    arrays = _initial(
        ModularArithmetic(p=113).inputs,
        embedding="shared",
        d_embed=64,
        initialization="torch",
        init_scale=2.0,
    )
    assert arrays["embed.W_E"].std() == pytest.approx(2.0, rel=5 / math.sqrt(2 * 113 * 64))
    assert arrays["embed.W_E"].max() > 5.0
    _assert_uniform(arrays["layers.0.W"], 2 / math.sqrt(128))


@pytest.mark.parametrize("initialization", get_args(MLPInitialization))
def test_the_scale_multiplies_every_initial_parameter(initialization: Any) -> None:
    settings = {
        "width": 8,
        "depth": 2,
        "embedding": "two",
        "bias": True,
        "initialization": initialization,
    }
    plain, scaled = _initial(**settings), _initial(init_scale=3.0, **settings)
    for name, value in plain.items():
        np.testing.assert_allclose(scaled[name], 3 * value, rtol=1e-6)


# --- Refusals


def _varying(*alphabet: tuple[int, int]) -> Inputs:
    return Inputs("tokens", vocabulary=6, positions=len(alphabet), classes=5, alphabet=alphabet)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            _varying((0, 5), (5, 6)),
            "An MLP reads a pair of tokens. This task has 1 varying positions of tokens",
        ),
        (_varying((0, 5), (0, 5), (0, 5)), "This task has 3 varying positions"),
        (
            Inputs("floats", vocabulary=0, positions=2, classes=5, alphabet=()),
            "has 2 positions of floats with 0 features",
        ),
        (
            Inputs("floats", vocabulary=0, positions=2, classes=5, alphabet=(), features=3),
            "reads one vector of floats",
        ),
    ],
)
def test_a_task_without_a_pair_of_tokens_is_refused(inputs: Inputs, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MLP().build(inputs)


_BAD: list[tuple[dict[str, Any], str]] = [
    ({"width": 0}, "width=0: must be at least 1"),
    ({"depth": 0}, "depth=0: must be at least 1"),
    ({"d_embed": -1}, "d_embed=-1: must be at least 1"),
    ({"outputs": 0}, "outputs=0: must be at least 1"),
    (
        {"outputs": 4},
        "outputs=4 cannot distinguish the task's 5 classes. Give at least 5 outputs, or 1",
    ),
    ({"outputs": 1}, "outputs=1 cannot distinguish the task's 5 classes"),
    ({"init_scale": -1.0}, r"init_scale=-1\.0: must be a finite number of at least 0"),
    ({"output_scale": math.inf}, "output_scale=inf: must be a finite number"),
    ({"activation": "quadratc"}, "activation='quadratc' is unknown; did you mean quadratic"),
    ({"embedding": "tow"}, "embedding='tow' is unknown; did you mean two"),
    (
        {"combination": "sums", "embedding": "two"},
        "combination='sums' is unknown; did you mean sum",
    ),
    (
        {"combination": "sum"},
        "combination='sum' does not apply to embedding='one_hot'.*'two' or 'shared'",
    ),
    (
        {"initialization": "xavier"},
        "initialization='xavier' is unknown; known are doshi_2023, fan_in, torch",
    ),
]


@pytest.mark.parametrize(("settings", "message"), _BAD, ids=[message[:20] for _, message in _BAD])
def test_invalid_settings_are_refused_with_the_allowed_ones(
    settings: dict[str, Any], message: str
) -> None:
    with unchecked(), pytest.raises(ConfigError, match=message):
        MLP(**settings).build(_TASK.inputs)


def test_floats_are_not_embedded() -> None:
    with pytest.raises(
        ConfigError,
        match=r"embedding='two' applies to tokens only\. This task gives floats\. Leave embedding",
    ):
        MLP(embedding="two").build(VECTOR)
