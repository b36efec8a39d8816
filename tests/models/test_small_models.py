"""Tests of bilinear, deep linear and Markov networks: formulas, roles, spreads and refusals."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import VECTOR, few, noisy_params

from mi_jax.basics.errors import ConfigError
from mi_jax.basics.pytrees import dotted
from mi_jax.contracts import Architecture, Inputs
from mi_jax.models import Bilinear, DeepLinear, MarkovAttention, capture
from mi_jax.tasks import ModularArithmetic

_PAIR = ModularArithmetic(p=5, fraction=0.5).inputs
_TOKENS = jnp.array([[a, b, 5] for a in range(5) for b in range(5)])
_X = jax.random.normal(jax.random.key(5), (11, 1, 7))
_LENGTH, _STATES = 6, 3
_CHAIN = Inputs(
    "tokens",
    vocabulary=_STATES,
    positions=_LENGTH,
    classes=_STATES,
    alphabet=((0, _STATES),) * _LENGTH,
)
_CHAINS = jax.random.randint(jax.random.key(6), (4, _LENGTH), 0, _STATES)

_EVERY = pytest.mark.parametrize(
    ("config", "inputs", "x"),
    [
        (Bilinear(width=9), _PAIR, _TOKENS),
        (DeepLinear(widths=(4, 6)), VECTOR, _X),
        (DeepLinear(widths=()), VECTOR, _X),
        (MarkovAttention(), _CHAIN, _CHAINS),
    ],
    ids=["bilinear", "deep linear", "one matrix", "markov attention"],
)


def _f64(params: Any) -> dict[str, np.ndarray]:
    return {name: np.asarray(value, np.float64) for name, value in dotted(params).items()}


@_EVERY
def test_every_parameter_has_a_finite_gradient(
    config: Architecture, inputs: Inputs, x: jax.Array
) -> None:
    model = config.build(inputs)
    gradients = dotted(
        jax.jit(jax.grad(lambda params: (model.apply(params, x) ** 2).mean()))(noisy_params(model))
    )
    for name, gradient in gradients.items():
        assert np.isfinite(gradient).all(), name
        assert np.abs(gradient).max() > 1e-6, name


@_EVERY
def test_every_activation_is_captured_and_a_tap_on_it_changes_the_outputs(
    config: Architecture, inputs: Inputs, x: jax.Array
) -> None:
    model = config.build(inputs)
    params = noisy_params(model)
    plain, seen = capture(model.apply, [site.name for site in model.sites])(params, x)
    np.testing.assert_allclose(plain, model.apply(params, x), rtol=1e-5, atol=1e-6)
    for site in model.sites:
        assert seen[site.name].ndim == len(site.dims), site.name
        if site.kind == "activation":
            tapped = model.apply(
                params,
                x,
                taps={
                    site.name: lambda value: (
                        value + jnp.cos(jnp.arange(value.size)).reshape(value.shape)
                    )
                },
            )
        else:
            tapped = model.apply(
                params, x, taps={site.name: lambda x, W, name=site.name: -seen[name]}
            )
        assert np.abs(tapped - plain).max() > 1e-2, site.name


# --- Bilinear


def test_bilinear_outputs_match_their_formula() -> None:
    model = Bilinear(width=9).build(_PAIR)
    params = noisy_params(model)
    w, (a, b, _) = _f64(params), np.asarray(_TOKENS).T
    expected = np.einsum("bn,bn,nc->bc", w["embed_a.W_E"][a], w["embed_b.W_E"][b], w["unembed.W_U"])
    np.testing.assert_allclose(model.apply(params, _TOKENS)[:, 0], expected, rtol=2e-5, atol=2e-6)


def test_bilinear_outputs_are_linear_in_each_table() -> None:
    model = Bilinear(width=9).build(_PAIR)
    params = noisy_params(model)
    doubled = {**params, "embed_b": {"W_E": 2 * params["embed_b"]["W_E"]}}
    np.testing.assert_allclose(
        model.apply(doubled, _TOKENS), 2 * model.apply(params, _TOKENS), rtol=1e-6
    )


def test_bilinear_weights_solve_addition_with_one_neuron_per_wave() -> None:
    """cos(w(a + b - c)) is four products of a wave of a, one of b and one of c."""
    p, task = 7, ModularArithmetic(p=7).inputs
    w = 2 * np.pi * np.arange(p)[:, None] * 1 / p
    cos, sin = np.cos(w), np.sin(w)
    a, b, c = (
        np.concatenate(x, axis=1)
        for x in ([cos, sin, sin, cos], [cos, sin, cos, sin], [cos, -cos, sin, sin])
    )
    params = jax.tree.map(
        jnp.float32, {"embed_a": {"W_E": a}, "embed_b": {"W_E": b}, "unembed": {"W_U": c.T}}
    )
    pairs = np.array([(a, b, p) for a in range(p) for b in range(p)])
    outputs = Bilinear(width=4).build(task).apply(params, jnp.asarray(pairs))[:, 0]
    expected = np.cos(2 * np.pi * (pairs[:, :1] + pairs[:, 1:2] - np.arange(p)) / p)
    np.testing.assert_allclose(outputs, expected, atol=1e-6)


def test_bilinear_weights_start_with_the_published_spread() -> None:
    params = _f64(
        Bilinear(width=256, init_scale=0.5)
        .build(ModularArithmetic(p=113).inputs)
        .init(jax.random.key(0))
    )
    assert {name: x.shape for name, x in params.items()} == {
        "embed_a.W_E": (113, 256),
        "embed_b.W_E": (113, 256),
        "unembed.W_U": (256, 113),
    }
    for name, x in params.items():
        assert x.std() == pytest.approx(0.5 / 16, rel=5 / math.sqrt(2 * x.size)), name


# --- Deep linear


@pytest.mark.parametrize("widths", [(), (4,), (4, 6, 5)])
@pytest.mark.parametrize("outputs", few([None, 1, 3], 1))
def test_deep_linear_outputs_are_one_matrix_that_the_roles_factor(
    widths: tuple[int, ...], outputs: int | None
) -> None:
    model = DeepLinear(widths, outputs).build(VECTOR)
    params = noisy_params(model)
    matrices = list(_f64(params).values())
    assert [W.shape for W in matrices] == list(
        zip((7, *widths), (*widths, outputs or 2), strict=True)
    )
    x = np.asarray(_X, np.float64)
    out, roles = model.apply(params, _X), model.roles
    whole = matrices[0] if len(matrices) == 1 else np.linalg.multi_dot(matrices)
    np.testing.assert_allclose(out, x @ whole, rtol=2e-5, atol=2e-5)
    if not widths:
        assert roles.neurons is None
        return
    assert roles.input_map is not None
    assert roles.output_map is not None
    assert roles.neurons is not None
    _, seen = capture(model.apply, [roles.neurons])(params, _X)
    np.testing.assert_allclose(
        seen[roles.neurons],
        x @ np.asarray(roles.input_map(params), np.float64),
        rtol=2e-5,
        atol=2e-5,
    )
    read = np.asarray(seen[roles.neurons]) @ np.asarray(roles.output_map(params))
    np.testing.assert_allclose(read, out[..., : VECTOR.classes], rtol=2e-5, atol=2e-5)


def test_deep_linear_weights_start_by_their_rows() -> None:
    inputs = Inputs("floats", vocabulary=0, positions=1, classes=90, alphabet=(), features=120)
    params = _f64(
        DeepLinear(widths=(80, 100), init_scale=2.0).build(inputs).init(jax.random.key(0))
    )
    for i, rows in enumerate((120, 80, 100)):
        W = params[f"layers.{i}.W"]
        assert W.std() == pytest.approx(2 / math.sqrt(rows), rel=5 / math.sqrt(2 * W.size))


# --- Markov attention


def _counted(v: np.ndarray, W: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Logits [batch position class], one number at a time."""
    out = np.zeros((*tokens.shape, len(W)))
    for n, chain in enumerate(tokens):
        for i in range(len(chain)):
            for j in range(i + 1):
                weights = np.exp([v[j - s] for s in range(j + 1)])
                y = sum(
                    weight / weights.sum() * np.eye(len(W))[chain[s]]
                    for s, weight in enumerate(weights)
                )
                out[n, i, chain[j]] += W[chain[i]] @ y
    return out


def test_markov_attention_is_its_formula_at_every_position_that_is_read() -> None:
    model = MarkovAttention().build(_CHAIN)
    params = noisy_params(model)
    w = _f64(params)
    assert {name: x.shape for name, x in w.items()} == {
        "blocks.0.attn.W_rel": (_LENGTH,),
        "blocks.1.attn.W_QK": (3, 3),
    }
    expected = _counted(w["blocks.0.attn.W_rel"], w["blocks.1.attn.W_QK"], np.asarray(_CHAINS))
    np.testing.assert_allclose(model.apply(params, _CHAINS), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        model.apply(params, _CHAINS, positions=(5, 2)), expected[:, [5, 2]], rtol=1e-5, atol=1e-5
    )


def test_looking_one_back_and_matching_counts_what_followed_the_last_token() -> None:
    params = {
        "blocks": {
            "0": {"attn": {"W_rel": jnp.zeros(_LENGTH).at[1].set(60.0)}},
            "1": {"attn": {"W_QK": jnp.eye(3)}},
        }
    }
    chain = np.array([2, 1, 1, 0, 1, 1])
    logits = np.asarray(
        MarkovAttention().build(_CHAIN).apply(params, jnp.asarray(chain)[None], positions=(5,))
    )[0, 0]
    followed = [sum(chain[j - 1] == 1 and chain[j] == c for j in range(1, 6)) for c in range(3)]
    # The first token has nothing before it: it looks at itself.
    np.testing.assert_allclose(logits, followed, atol=1e-5)


def test_markov_attention_starts_as_an_average_and_a_small_matrix() -> None:
    inputs = Inputs("tokens", vocabulary=60, positions=9, classes=60, alphabet=((0, 60),) * 9)
    params = _f64(MarkovAttention().build(inputs).init(jax.random.key(0)))
    assert not params["blocks.0.attn.W_rel"].any()
    assert params["blocks.1.attn.W_QK"].std() == pytest.approx(0.01, rel=5 / math.sqrt(2 * 3600))


def test_a_later_token_changes_no_earlier_answer_and_a_longer_input_gives_nan() -> None:
    model = MarkovAttention().build(_CHAIN)
    params = noisy_params(model)
    before, after = (model.apply(params, x)[:, :4] for x in (_CHAINS, _CHAINS.at[:, 4:].set(0)))
    np.testing.assert_allclose(before, after, rtol=1e-6)
    longer = model.apply(params, jnp.zeros((1, _LENGTH + 1), jnp.int32))
    assert bool(jnp.isnan(longer[:, -1]).all())


# --- Refusals


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Bilinear(width=0), "width=0: must be at least 1"),
        (
            lambda: Bilinear(init_scale=math.nan),
            "init_scale=nan: must be a finite number of at least 0",
        ),
        (
            lambda: Bilinear().build(VECTOR),
            "A bilinear network reads a pair of tokens. This task has 0 varying positions",
        ),
        (lambda: DeepLinear(widths=(4, 0)), r"widths=\(4, 0\): each must be at least 1"),
        (lambda: DeepLinear(outputs=0), "outputs=0: must be at least 1"),
        (lambda: DeepLinear(init_scale=-1.0), "init_scale=-1.0: must be"),
        (
            lambda: DeepLinear().build(_PAIR),
            "A deep linear network reads one vector of floats .*3 positions of tokens",
        ),
        (lambda: MarkovAttention(init_scale=-0.1), "init_scale=-0.1: must be"),
        (
            lambda: MarkovAttention().build(VECTOR),
            "answers with one of its 0 tokens. The task has 2 classes of floats",
        ),
    ],
)
def test_invalid_settings_and_tasks_are_refused(build: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()


def test_inputs_of_another_shape_and_positions_outside_the_input_are_refused() -> None:
    linear, chain = DeepLinear().build(VECTOR), MarkovAttention().build(_CHAIN)
    with pytest.raises(ConfigError, match=r"wrong shape \(3, 1, 6\)"):
        linear.apply(noisy_params(linear), jnp.zeros((3, 1, 6)))
    with pytest.raises(
        ConfigError, match=r"positions=\(6,\) is invalid. An input of length 6 has positions 0 to 5"
    ):
        chain.apply(noisy_params(chain), _CHAINS, positions=(6,))
