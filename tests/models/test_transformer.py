"""Tests of the transformer.

A plain float64 forward pass, symmetries, causality, initialisation, roles and refusals.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import few
from scipy.special import erf
from unchecked import unchecked

from mi_jax.basics.errors import ConfigError
from mi_jax.basics.pytrees import dotted, nested
from mi_jax.contracts import Inputs, Model
from mi_jax.models import Transformer, capture

Flat = Mapping[str, np.ndarray]

_LENGTH, _VOCABULARY = 5, 7
_INPUTS = Inputs(
    "tokens",
    vocabulary=_VOCABULARY,
    positions=_LENGTH,
    classes=6,
    alphabet=((0, 6),) * 4 + ((6, 7),),
)
_TOKENS = jnp.array([[1, 5, 0, 3, 6], [2, 2, 4, 0, 6], [0, 1, 2, 3, 6], [5, 5, 5, 5, 6]])
_SMALL: dict[str, Any] = {"d_model": 8, "heads": 2, "d_mlp": 12}


def _model(**settings: Any) -> Model:
    return Transformer(**{**_SMALL, **settings}).build(_INPUTS)


def _params(model: Model, seed: int = 0) -> Any:
    """Initial parameters with noise on everything, so that no bias is zero and no norm is one."""
    leaves, structure = jax.tree.flatten(model.init(jax.random.key(seed)))
    keys = jax.random.split(jax.random.key(seed + 100), len(leaves))
    noisy = [x + 0.3 * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys, strict=True)]
    return structure.unflatten(noisy)


# --- The whole forward pass, in plain NumPy


_ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * (1 + erf(x / math.sqrt(2))) / 2,
    "silu": lambda x: x / (1 + np.exp(-x)),
    "quadratic": lambda x: x**2,
    "tanh": np.tanh,
}


def _normed(config: Transformer, params: Flat, name: str, x: np.ndarray) -> np.ndarray:
    if config.normalization == "none":
        return x
    out = np.empty_like(x)
    for s, row in enumerate(x):
        centred = row - row.mean() if config.normalization == "layer" else row
        out[s] = centred / math.sqrt(np.mean(centred**2) + 1e-5) * params[f"{name}.w"]
        out[s] += params[f"{name}.b"] if config.normalization == "layer" else 0
    return out


def _turn(x: np.ndarray, position: int) -> np.ndarray:
    """Complex rotation: component j is the real part of number j, component j + half its imaginary
    part.
    """
    half = len(x) // 2
    numbers = x[:half] + 1j * x[half:]
    turned = numbers * np.array(
        [np.exp(1j * position / 10_000 ** (2 * j / len(x))) for j in range(half)]
    )
    return np.concatenate([turned.real, turned.imag])


def _by_distance(
    config: Transformer, params: Flat, name: str, head: int, query: int, length: int
) -> Callable[[str, int], np.ndarray | float]:
    """The vectors that distances add to keys or values."""
    first = 0 if config.attention == "causal" else 1 - length

    def added(letter: str, key: int) -> np.ndarray | float:
        vectors = params.get(f"{name}.W_rel_{letter}")
        return 0.0 if vectors is None else vectors[head][query - key - first]

    return added


def _attended(config: Transformer, params: Flat, name: str, x: np.ndarray) -> np.ndarray:
    length, out = len(x), np.zeros_like(x)
    bias = (
        (lambda letter, head: params[f"{name}.b_{letter}"][head])
        if config.attention_bias
        else lambda *_: 0.0
    )
    scale = config.attention_scale or math.sqrt(config.d_head or config.d_model / config.heads)
    for head in range(config.heads):
        q, k, v = (
            [x[s] @ params[f"{name}.W_{c}"][head] + bias(c, head) for s in range(length)]
            for c in "QKV"
        )
        if config.positions == "rotary":
            q, k = ([_turn(row, s) for s, row in enumerate(rows)] for rows in (q, k))
        for query in range(length):
            seen = range(query + 1 if config.attention == "causal" else length)
            apart = _by_distance(config, params, name, head, query, length)
            weights = np.exp([q[query] @ (k[key] + apart("K", key)) / scale for key in seen])
            z = sum(
                w / weights.sum() * (v[key] + apart("V", key))
                for w, key in zip(weights, seen, strict=True)
            )
            out[query] += z @ params[f"{name}.W_O"][head]
    return out + params[f"{name}.b_O"] if config.attention_bias else out


def _reference(config: Transformer, params: Flat, tokens: np.ndarray) -> np.ndarray:
    """Logits [batch position class], written from the equations, one example, head and query after
    the other.
    """
    logits = []
    for example in tokens:
        x = params["embed.W_E"][example]
        if config.positions == "learned":
            x = x + params["pos_embed.W_pos"]
        for block in (f"blocks.{i}" for i in range(config.layers)):
            x = x + _attended(
                config, params, f"{block}.attn", _normed(config, params, f"{block}.ln1", x)
            )
            if config.d_mlp != 0:
                pre = _normed(config, params, f"{block}.ln2", x) @ params[f"{block}.mlp.W_in"]
                pre = pre + params[f"{block}.mlp.b_in"] if config.mlp_bias else pre
                out = _ACTIVATIONS[config.activation](pre) @ params[f"{block}.mlp.W_out"]
                x = x + (out + params[f"{block}.mlp.b_out"] if config.mlp_bias else out)
        out = _normed(config, params, "ln_final", x) @ params["unembed.W_U"]
        logits.append(
            config.logit_scale * (out + params["unembed.b_U"] if config.unembed_bias else out)
        )
    return np.array(logits)


_BIASES = {"attention_bias": True, "unembed_bias": True}
_GRID: list[dict[str, Any]] = [
    {},
    {"layers": 2},
    {"layers": 3, "attention": "bidirectional", **_BIASES},
    {"d_mlp": 0},
    {"d_mlp": 0, "layers": 2, "positions": "none", **_BIASES},
    {"d_mlp": None},
    {"normalization": "layer", **_BIASES},
    {"normalization": "layer", "layers": 2, "positions": "rotary"},
    {"normalization": "rms", "layers": 2, "attention": "bidirectional"},
    {"normalization": "rms", "d_mlp": 0},
    {"positions": "rotary"},
    {"positions": "rotary", "attention": "bidirectional", "d_head": 6, **_BIASES},
    {"positions": "none", "attention": "bidirectional"},
    {"positions": "relative", "layers": 2, "d_mlp": 0, "normalization": "layer"},
    {"positions": "relative", "attention": "bidirectional", "heads": 3, "d_head": 5, **_BIASES},
    {"positions": "relative_keys", "attention_scale": 0.8},
    {"mlp_bias": False},
    {"heads": 3, "d_head": 5, "attention_scale": 1.7},
    {"heads": 1, "output_vocabulary": 11, "logit_scale": 0.25, "unembed_bias": True},
    {"output_vocabulary": 6, "unembed_bias": True, "logit_scale": 3.0},
    {"activation": "gelu"},
    {"activation": "silu", "layers": 2},
    {"activation": "quadratic"},
    {"activation": "tanh", "normalization": "layer"},
]


def _named(settings: Mapping[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in settings.items()) or "defaults"


@pytest.mark.parametrize("settings", few(_GRID, 4), ids=_named)
def test_the_forward_pass_is_that_of_plain_numpy(settings: dict[str, Any]) -> None:
    config = Transformer(**{**_SMALL, **settings})
    model = config.build(_INPUTS)
    params = _params(model)
    wide = {name: np.asarray(value, np.float64) for name, value in dotted(params).items()}
    expected = _reference(config, wide, np.asarray(_TOKENS))
    # Where a logit is near 0, what it is the sum of is not: a few roundings of the largest.
    np.testing.assert_allclose(
        jax.jit(model.apply)(params, _TOKENS),
        expected,
        rtol=1e-5,
        atol=4 * 2.0**-23 * np.abs(expected).max(),
    )


_CUT = [settings for settings in _GRID if len(settings) != 1]


@pytest.mark.parametrize("settings", few(_CUT, 2), ids=_named)
@pytest.mark.parametrize("positions", few([((3, 1),), ((4,),)], 1))
def test_positions_give_those_rows_of_the_full_forward_pass(
    settings: dict[str, Any], positions: tuple[int, ...]
) -> None:
    model = _model(**settings)
    params = _params(model)
    full = model.apply(params, _TOKENS)[:, jnp.array(positions)]
    np.testing.assert_allclose(
        model.apply(params, _TOKENS, positions=positions), full, rtol=1e-5, atol=2e-6
    )


@pytest.mark.parametrize(
    "settings", [{}, {"positions": "rotary", "attention": "bidirectional"}], ids=_named
)
@pytest.mark.parametrize("positions", [(-1,), (5,)])
def test_a_position_that_the_input_does_not_have_is_refused(
    settings: dict[str, Any], positions: tuple[int, ...]
) -> None:
    model = _model(**settings)
    with pytest.raises(ConfigError, match=f"position.*{positions[0]}"):
        model.apply(_params(model), _TOKENS, positions=positions)


def test_no_position_at_all_is_refused() -> None:
    model = _model()
    with pytest.raises(ConfigError, match=r"positions=\(\) is invalid.*Give at least one"):
        model.apply(_params(model), _TOKENS, positions=())


@pytest.mark.parametrize("rate", [1.0, 0.4, 0.0])
def test_a_key_that_a_tap_hides_is_hidden_at_every_attention_rate(rate: float) -> None:
    model = _model(attention="bidirectional", attention_rate=rate)
    name = "blocks.0.attn.attn_scores"
    pattern = capture(model.apply, ["blocks.0.attn.pattern"])

    def hide(scores: jax.Array) -> jax.Array:
        return scores.at[..., 2].set(-jnp.inf)

    _, seen = pattern(_params(model), _TOKENS, taps={name: hide})
    assert np.all(np.asarray(seen["blocks.0.attn.pattern"])[..., 2] == 0)
    assert np.all(np.asarray(seen["blocks.0.attn.pattern"])[..., 3] > 0)


# --- Causality


def _sensitivity(query: int, **settings: Any) -> np.ndarray:
    """By position, the largest derivative of the logits at ``query`` with respect to what is
    embedded there.
    """
    model = _model(layers=2, **settings)
    params = _params(model)

    def outputs(shift: jax.Array) -> jax.Array:
        taps = {"blocks.0.resid_pre": lambda x: x + shift}
        return jnp.square(model.apply(params, _TOKENS, taps=taps)[:, query]).sum()

    return np.abs(jax.grad(outputs)(jnp.zeros((len(_TOKENS), _LENGTH, 8)))).max(axis=(0, 2))


@pytest.mark.parametrize("normalization", ["none", "layer"])
@pytest.mark.parametrize("query", few(range(_LENGTH)[::-1], 1))
def test_no_later_position_changes_a_causal_query(query: int, normalization: str) -> None:
    change = _sensitivity(query, normalization=normalization)
    assert np.all(change[query + 1 :] == 0)
    assert np.all(change[: query + 1] > 1e-3)


def test_every_position_changes_a_bidirectional_query() -> None:
    assert np.all(_sensitivity(1, attention="bidirectional") > 1e-3)


# --- Symmetries


def _changed(params: Any, changes: Mapping[str, Any]) -> Any:
    flat = dict(dotted(params))
    for name, change in changes.items():
        flat[name] = change(flat[name])
    return nested(flat)


def _largest_change(model: Model, params: Any, changes: Mapping[str, Any]) -> float:
    """The largest change of the logits, relative to the largest logit."""
    before, after = (
        model.apply(weights, _TOKENS) for weights in (params, _changed(params, changes))
    )
    return float(jnp.abs(after - before).max() / jnp.abs(before).max())


@pytest.mark.slow
@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_the_order_of_heads_does_not_matter(positions: str) -> None:
    model = _model(layers=2, heads=4, attention_bias=True, positions=positions)
    order = jnp.array([2, 0, 3, 1])
    names = [f"blocks.1.attn.{name}" for name in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V")]
    params = _params(model)
    assert _largest_change(model, params, {name: lambda x: x[order] for name in names}) < 1e-6
    assert _largest_change(model, params, {name: lambda x: x[order] for name in names[:3]}) > 0.01


def test_the_order_of_neurons_does_not_matter() -> None:
    model = _model(layers=2)
    order, params = jnp.array(np.random.default_rng(0).permutation(12)), _params(model)
    incoming = {"blocks.0.mlp.W_in": lambda x: x[:, order], "blocks.0.mlp.b_in": lambda x: x[order]}
    assert (
        _largest_change(model, params, {**incoming, "blocks.0.mlp.W_out": lambda x: x[order]})
        < 1e-6
    )
    assert _largest_change(model, params, incoming) > 0.01


def _invertible(seed: int, size: int = 4) -> tuple[jax.Array, jax.Array]:
    A = np.eye(size) + 0.4 * np.random.default_rng(seed).normal(size=(size, size)) / math.sqrt(size)
    return jnp.asarray(A, jnp.float32), jnp.asarray(np.linalg.inv(A), jnp.float32)


def test_queries_and_keys_have_a_gauge() -> None:
    model = _model(attention_bias=True)
    A, inverse = _invertible(0)
    queries = {f"blocks.0.attn.{name}": lambda x: x @ A for name in ("W_Q", "b_Q")}
    keys = {f"blocks.0.attn.{name}": lambda x: x @ inverse.T for name in ("W_K", "b_K")}
    assert _largest_change(model, _params(model), {**queries, **keys}) < 1e-6
    assert _largest_change(model, _params(model), queries) > 0.01


def test_values_and_outputs_have_a_gauge() -> None:
    model = _model(attention_bias=True)
    A, inverse = _invertible(1)
    values = {f"blocks.0.attn.{name}": lambda x: x @ A for name in ("W_V", "b_V")}
    outputs = {"blocks.0.attn.W_O": lambda x: inverse @ x}
    assert _largest_change(model, _params(model), {**values, **outputs}) < 1e-6
    assert _largest_change(model, _params(model), values) > 0.01


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    model = _model(positions="rotary", attention="bidirectional", d_head=6)
    same = jnp.full((1, _LENGTH), 3)
    seen = capture(model.apply, ["blocks.0.attn.attn_scores"])(_params(model), same)[1][
        "blocks.0.attn.attn_scores"
    ]
    by_distance = [np.array([np.diag(head, offset) for head in seen[0]]) for offset in range(-4, 5)]
    for diagonal in by_distance:
        np.testing.assert_allclose(
            diagonal, diagonal[:, :1].repeat(diagonal.shape[1], axis=1), atol=1e-6
        )
    firsts = np.array([diagonal[:, 0] for diagonal in by_distance])
    assert np.all(np.ptp(firsts, axis=0) > 0.05), "and they do depend on it"


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_relative_scores_and_values_depend_on_the_distance_alone(attention: Any) -> None:
    model = _model(positions="relative", attention=attention, d_head=6)
    same = jnp.full((1, _LENGTH), 3)
    sites = ["blocks.0.attn.attn_scores", "blocks.0.attn.W_rel_V", "blocks.0.attn.pattern"]
    seen = capture(model.apply, sites)(_params(model), same)[1]
    scores = np.asarray(seen["blocks.0.attn.attn_scores"][0])
    offsets = range(-4, 1) if attention == "causal" else range(-4, 5)
    by_distance = [np.array([np.diag(head, offset) for head in scores]) for offset in offsets]
    for diagonal in by_distance:
        np.testing.assert_allclose(
            diagonal, diagonal[:, :1].repeat(diagonal.shape[1], axis=1), atol=1e-6
        )
    assert np.all(np.ptp([diagonal[:, 0] for diagonal in by_distance], axis=0) > 0.05), (
        "and they do depend on it"
    )
    assert np.all(
        np.isneginf(scores)
        == (np.triu(np.ones((_LENGTH, _LENGTH), bool), 1) & (attention == "causal"))
    )


def test_without_relative_vectors_a_relative_model_has_no_positions() -> None:
    relative, plain = (
        _model(positions=positions, attention="bidirectional", layers=2)
        for positions in ("relative", "none")
    )
    params = _params(relative)
    zeroed = {
        name: jnp.zeros_like(x) if "W_rel" in name else x for name, x in dotted(params).items()
    }
    others = nested({name: x for name, x in zeroed.items() if "W_rel" not in name})
    np.testing.assert_allclose(
        relative.apply(nested(zeroed), _TOKENS), plain.apply(others, _TOKENS), rtol=1e-5, atol=1e-6
    )
    assert not np.allclose(relative.apply(params, _TOKENS), plain.apply(others, _TOKENS), atol=0.1)


def test_without_positions_a_bidirectional_model_does_not_see_order() -> None:
    model = _model(positions="none", attention="bidirectional", layers=2)
    params, order = _params(model), jnp.array([3, 1, 4, 0, 2])
    turned, plain = model.apply(params, _TOKENS[:, order]), model.apply(params, _TOKENS)[:, order]
    np.testing.assert_allclose(turned, plain, rtol=1e-5, atol=2e-6)
    assert not np.allclose(plain, model.apply(params, _TOKENS), atol=0.1)


# --- Unknown tokens


@pytest.mark.parametrize("token", [-1, _VOCABULARY, 1000])
@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_an_unknown_token_gives_nan_and_never_another_tokens_answer(
    token: int, attention: str
) -> None:
    model = _model(attention=attention)
    params = _params(model)
    outputs = model.apply(params, _TOKENS.at[1, 2].set(token))
    assert bool(jnp.isnan(outputs[1, 2:]).all())
    np.testing.assert_array_equal(
        outputs[jnp.array([0, 2, 3])], model.apply(params, _TOKENS)[jnp.array([0, 2, 3])]
    )


@pytest.mark.parametrize("positions", ["learned", "relative", "relative_keys"])
def test_positions_beyond_those_of_the_task_give_nan(positions: str) -> None:
    model = _model(positions=positions)
    outputs = model.apply(_params(model), jnp.zeros((1, _LENGTH + 1), jnp.int32))
    assert bool(jnp.isnan(outputs[:, _LENGTH:]).all())
    if positions != "learned":  # whose NaN row is a value, weighted by 0, of every query
        assert bool(jnp.isfinite(outputs[:, :_LENGTH]).all())


@pytest.mark.parametrize("settings", [{}, {"attention": "bidirectional"}], ids=_named)
def test_relative_vectors_have_finite_gradients_beside_masked_keys(
    settings: dict[str, Any],
) -> None:
    model = _model(positions="relative", layers=2, **settings)
    gradients = dotted(
        jax.grad(lambda params: (model.apply(params, _TOKENS) ** 2).mean())(_params(model))
    )
    for name, gradient in gradients.items():
        assert np.isfinite(gradient).all(), name
        assert np.abs(gradient).max() > 1e-6, name


# --- Initialisation

_LARGE: dict[str, Any] = {
    "layers": 2,
    "d_model": 256,
    "heads": 4,
    "d_mlp": 512,
    "normalization": "layer",
    **_BIASES,
}


def _initial(**settings: Any) -> dict[str, np.ndarray]:
    params = Transformer(**{**_LARGE, **settings}).build(_INPUTS).init(jax.random.key(3))
    return {name: np.asarray(value, np.float64) for name, value in dotted(params).items()}


def _check_spread(arrays: Mapping[str, np.ndarray], expected: Mapping[str, float]) -> None:
    matrices = [name for name in arrays if name.split(".")[-1].startswith("W_")]
    for name in matrices:
        std = expected.get(name.split(".")[-1], expected["default"])
        bound = 5 / math.sqrt(arrays[name].size)
        assert abs(arrays[name].std() / std - 1) < bound / math.sqrt(2), name
        assert abs(arrays[name].mean() / std) < bound, name
    firsts = [float(arrays[name].flat[0]) for name in matrices]
    assert len(set(firsts)) == len(matrices) == 15, "each matrix is a draw of its own"


def test_nandas_initialisation_has_the_published_spreads() -> None:
    _check_spread(_initial(), {"default": 1 / math.sqrt(256), "W_U": 1 / math.sqrt(_VOCABULARY)})


def test_the_unembeddings_spread_goes_by_all_outputs() -> None:
    _check_spread(_initial(output_vocabulary=40), {"default": 1 / 16, "W_U": 1 / math.sqrt(40)})


def test_initial_scale_multiplies_every_matrix() -> None:
    _check_spread(
        _initial(init_scale=0.3), {"default": 0.3 / 16, "W_U": 0.3 / math.sqrt(_VOCABULARY)}
    )
    plain, scaled = _initial(), _initial(init_scale=0.3)
    for name in (name for name in plain if ".W_" in name):
        np.testing.assert_allclose(scaled[name], 0.3 * plain[name], rtol=1e-6)


def test_fan_in_initialisation_goes_by_the_rows_that_are_summed() -> None:
    arrays = _initial(initialization="fan_in", d_head=32)
    _check_spread(
        arrays, {"default": 1 / 16, "W_O": 1 / math.sqrt(4 * 32), "W_out": 1 / math.sqrt(512)}
    )


def test_edelmans_initialisation_has_the_published_spreads() -> None:
    arrays = _initial(initialization="edelman_2024", positions="relative", init_scale=3.0)
    for name in (name for name in arrays if ".W_" in name):
        std = 3 * (0.01 if name.endswith("W_O") else 0.02)
        assert abs(arrays[name].std() / std - 1) < 5 / math.sqrt(2 * arrays[name].size), name


def test_relative_vectors_have_the_stated_spreads() -> None:
    for initialization, std in (("nanda_2023", 1 / 16), ("fan_in", 1 / 8)):
        arrays = _initial(initialization=initialization, positions="relative")
        for name in (f"blocks.{i}.attn.W_rel_{x}" for i in (0, 1) for x in "KV"):
            assert arrays[name].shape == (4, _LENGTH, 64)
            assert abs(arrays[name].std() / std - 1) < 5 / math.sqrt(2 * arrays[name].size), name
    keys = _initial(positions="relative_keys", attention="bidirectional")
    assert keys["blocks.1.attn.W_rel_K"].shape == (4, 2 * _LENGTH - 1, 64)
    assert "blocks.1.attn.W_rel_V" not in keys
    assert "pos_embed.W_pos" not in keys


def test_biases_start_at_zero_and_norms_at_one() -> None:
    others = {name: value for name, value in _initial().items() if ".W_" not in name}
    assert len(others) == 23
    for name, value in others.items():
        assert np.all(value == (1.0 if name.endswith(".w") else 0.0)), name


def test_the_key_determines_the_initialisation() -> None:
    model = _model()
    first, same, other = (dotted(model.init(jax.random.key(seed))) for seed in (0, 0, 1))
    assert all(bool((first[name] == same[name]).all()) for name in first)
    assert not np.allclose(first["embed.W_E"], other["embed.W_E"])


def test_names_and_shapes_are_transformer_lens_row_vector_ones() -> None:
    model = Transformer(d_model=8, heads=4, d_head=3, d_mlp=12, output_vocabulary=9).build(_INPUTS)
    shapes = {name: value.shape for name, value in dotted(model.init(jax.random.key(0))).items()}
    head = {f"blocks.0.attn.W_{x}": (4, 8, 3) for x in "QKV"}
    mlp = {
        "blocks.0.mlp.W_in": (8, 12),
        "blocks.0.mlp.b_in": (12,),
        "blocks.0.mlp.W_out": (12, 8),
        "blocks.0.mlp.b_out": (8,),
    }
    ends = {"embed.W_E": (7, 8), "pos_embed.W_pos": (5, 8), "unembed.W_U": (8, 9)}
    assert shapes == {**head, "blocks.0.attn.W_O": (4, 3, 8), **mlp, **ends}


# --- Roles


def test_the_embedding_role_is_the_table_of_the_tasks_tokens() -> None:
    model = _model()
    params = _params(model)
    (embedding,) = model.roles.embedding
    np.testing.assert_array_equal(embedding(params), params["embed"]["W_E"][:6])


def test_the_output_map_is_what_the_last_neurons_add_to_each_class() -> None:
    model = _model(layers=2, output_vocabulary=11)
    params = _params(model)
    assert model.roles.output_map is not None
    flat = {name: np.asarray(value, np.float64) for name, value in dotted(params).items()}
    W_L = flat["blocks.1.mlp.W_out"] @ flat["unembed.W_U"][:, :6]
    np.testing.assert_allclose(model.roles.output_map(params), W_L, rtol=1e-5, atol=1e-5)
    assert model.roles.neurons == "blocks.1.mlp.post"
    site, before = model.roles.neurons, model.apply(params, _TOKENS)
    after = model.apply(params, _TOKENS, taps={site: lambda x: x.at[:, :, 3].add(1.0)})
    np.testing.assert_allclose(
        (after - before)[..., :6], np.broadcast_to(W_L[3], (4, 5, 6)), atol=1e-5
    )


def test_without_an_mlp_there_are_no_neurons() -> None:
    roles = _model(d_mlp=0).roles
    assert roles.output_map is None
    assert roles.neurons is None


def _attention_biases(params: Any) -> list[np.ndarray]:
    return [
        np.asarray(value, np.float64)
        for name, value in dotted(params).items()
        if name.endswith("b_O")
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"layers": 3, "normalization": "layer"},
        {"d_mlp": 0, "positions": "rotary"},
        {"layers": 2, "attention_bias": True},
    ],
    ids=_named,
)
def test_the_writers_add_up_to_the_residual_stream(settings: dict[str, Any]) -> None:
    model = _model(**settings)
    last = model.roles.readers[-1]
    params = _params(model)
    seen = capture(model.apply, [*model.roles.writers, last])(params, _TOKENS)[1]
    arrays = [np.asarray(seen[name]) for name in model.roles.writers]
    written = sum(x.sum(axis=2) if x.ndim == 4 else x for x in arrays) + sum(
        _attention_biases(params)
    )
    np.testing.assert_allclose(written, seen[last], rtol=1e-5, atol=1e-5)


def test_every_reader_and_writer_is_a_site() -> None:
    model = _model(layers=2)
    names = {site.name for site in model.sites}
    assert names >= {*model.roles.writers, *model.roles.readers}
    assert len(model.roles.writers) == 2 + 2 * 2
    assert len(model.roles.readers) == 2 * 4 + 1


# --- Compiling and batching


@pytest.mark.parametrize(
    "settings", [{}, {"layers": 2, "normalization": "layer", "positions": "rotary"}], ids=_named
)
def test_compiled_and_plain_agree(settings: dict[str, Any]) -> None:
    model = _model(**settings)
    params = jax.tree.map(lambda x: x / 2, _params(model))
    plain = model.apply(params, _TOKENS)
    np.testing.assert_allclose(jax.jit(model.apply)(params, _TOKENS), plain, rtol=1e-6, atol=1e-6)


def test_parameters_can_be_a_batch() -> None:
    model = _model(layers=2, normalization="rms")
    each = [_params(model, seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    together = jax.vmap(lambda params: model.apply(params, _TOKENS, positions=(4,)))(stacked)
    alone = np.stack([model.apply(params, _TOKENS, positions=(4,)) for params in each])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)


# --- Refusals

_BAD: list[tuple[dict[str, Any], str]] = [
    ({"layers": 0}, "layers=0: must be at least 1"),
    ({"d_model": 0}, "d_model=0: must be at least 1"),
    ({"heads": 0}, "heads=0: must be at least 1"),
    ({"d_model": 10, "heads": 4}, "heads=4 does not divide d_model=10.*or give d_head"),
    ({"d_head": 0}, "d_head=0: must be at least 1"),
    ({"d_mlp": -1}, "d_mlp=-1: must be at least 0"),
    ({"attention_scale": 0.0}, "attention_scale=0.0: must be above 0"),
    ({"attention_scale": -1.0}, r"attention_scale=-1\.0: must be above 0"),
    ({"attention_scale": float("nan")}, "attention_scale=nan: must be above 0"),
    ({"positions": "rotary", "d_head": 3}, "Rotary positions need an even d_head, not 3"),
    (
        {"positions": "rotary", "d_model": 10, "heads": 2},
        "Rotary positions need an even d_head, not 5",
    ),
    ({"activation": "rleu"}, "activation='rleu' is unknown; did you mean relu"),
    ({"normalization": "batch"}, "normalization='batch' is unknown; known are layer, none, rms"),
    ({"positions": "sinusoidal"}, "positions='sinusoidal' is unknown"),
    ({"attention": "casual"}, "attention='casual' is unknown; did you mean causal"),
    ({"initialization": "xavier"}, "initialization='xavier' is unknown"),
    ({"logit_scale": float("nan")}, "logit_scale=nan: must be a finite number"),
    ({"init_scale": -1.0}, r"init_scale=-1\.0: must be a finite number of at least 0"),
    ({"init_scale": float("inf")}, "init_scale=inf: must be a finite number of at least 0"),
    ({"attention_rate": 1.5}, r"attention_rate=1\.5: must lie between 0 and 1"),
    ({"output_vocabulary": 0}, "output_vocabulary=0"),
    ({"output_vocabulary": 5}, "output_vocabulary=5 is less than the task's 6 classes"),
]


@pytest.mark.parametrize(
    ("settings", "message"),
    _BAD,
    ids=lambda value: _named(value) if isinstance(value, dict) else "",
)
def test_invalid_settings_are_refused_with_the_allowed_ones(
    settings: dict[str, Any], message: str
) -> None:
    with unchecked(), pytest.raises(ConfigError, match=message):
        Transformer(**settings).build(_INPUTS)


@pytest.mark.slow
def test_heads_need_not_divide_the_model_where_their_size_is_given() -> None:
    model = _model(d_model=10, heads=4, d_head=3)
    assert model.apply(_params(model), _TOKENS).shape == (4, 5, 7)


def test_floats_are_refused_with_the_model_to_use() -> None:
    floats = Inputs("floats", vocabulary=0, positions=3, classes=2, alphabet=())
    with pytest.raises(
        ConfigError,
        match=r"A transformer reads tokens\. This task gives floats\. Use another model",
    ):
        Transformer().build(floats)
