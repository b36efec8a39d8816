"""Tests of docs/sites.md: it is up to date, and every equation holds for captured values.

A new model appears on the page through ``MODELS``. Its equations can be held to captured values in
its own test file, or by cases in ``_CASES`` and ``_EQUATIONS`` here.
"""

import contextlib
import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import VECTOR, few

from mi_jax.basics.errors import ConfigError
from mi_jax.basics.pytrees import dotted, parameter_count
from mi_jax.contracts import (
    EXAMPLE_INPUTS,
    PAIR_INPUTS,
    Architecture,
    Inputs,
    Model,
    Site,
)
from mi_jax.models import (
    MLP,
    MODELS,
    Bilinear,
    DeepLinear,
    MarkovAttention,
    Transformer,
    capture,
)
from mi_jax.models.activations import ACTIVATIONS
from mi_jax.tasks import ModularArithmetic

_DOCS = Path(__file__).parents[2] / "docs"
_TASK = ModularArithmetic(p=7, fraction=0.5)
_E, _D = 4, 8

Values = dict[str, Any]


def _norm(x: Any, w: Any, b: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * w + b


def _heads(x: Any, W: Any) -> Any:
    return np.einsum("bsd,hde->bshe", x, W)


def _turned(x: Any) -> Any:
    out = np.array(x)
    for s in range(x.shape[1]):
        for j in range(_E // 2):
            angle = s * 10_000.0 ** (-2 * j / _E)
            first, second = x[:, s, :, j], x[:, s, :, j + _E // 2]
            out[:, s, :, j] = first * np.cos(angle) - second * np.sin(angle)
            out[:, s, :, j + _E // 2] = first * np.sin(angle) + second * np.cos(angle)
    return out


def _softmax(x: Any) -> Any:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _masked(scores: Any) -> Any:
    return np.where(np.tril(np.ones(scores.shape[-2:], bool)), scores, -np.inf)


def _distances(length: int) -> Any:
    return np.arange(length)[:, None] - np.arange(length)[None, :]


def _by_row(W: Any, rows: Any) -> Any:
    """The vectors of a table by distance, [query key head d_head]."""
    return W.transpose(1, 0, 2)[rows]


_EARLIER = np.maximum(_distances(3), 0)
_APART = _distances(3) + 2


def _relative_equations(row: str, rows: Any, masked: str) -> dict[str, Callable[[Values], Any]]:
    def keys(v: Values) -> Any:
        return np.einsum("bqhe,qkhe->bhqk", v["q"], _by_row(v["attn.W_rel_K"], rows))

    def values(v: Values) -> Any:
        return np.einsum("bhqk,qkhe->bqhe", v["pattern"], _by_row(v["attn.W_rel_V"], rows))

    def scores(v: Values) -> Any:
        return (np.einsum("bqhe,bkhe->bhqk", v["q"], v["k"]) + keys(v)) / np.sqrt(_E)

    return {
        f"q . W_rel_K[head, {row}]": keys,
        f"(q . k + q . W_rel_K[head, {row}]) / sqrt(d_head){masked}": (
            (lambda v: _masked(scores(v))) if masked else scores
        ),
        f"sum over keys of pattern W_rel_V[head, {row}]": values,
        f"sum over keys of pattern (v + W_rel_V[head, {row}])": lambda v: (
            np.einsum("bhqk,bkhe->bqhe", v["pattern"], v["v"]) + values(v)
        ),
    }


def _letter_equations(x: str) -> dict[str, Callable[[Values], Any]]:
    X = x.upper()
    return {
        f"resid_pre, a copy for each head's {x} alone, before the norm": lambda v: np.stack(
            [v["resid_pre"]] * 2, axis=2
        ),
        f"resid_pre W_{X}[head]": lambda v: _heads(v["resid_pre"], v[f"W_{X}"]),
        f"resid_pre W_{X}[head] + b_{X}[head]": lambda v: (
            _heads(v["resid_pre"], v[f"W_{X}"]) + v[f"b_{X}"]
        ),
        f"ln1(resid_pre) W_{X}[head]": lambda v: _heads(
            _norm(v["resid_pre"], v["ln1.w"], v["ln1.b"]), v[f"W_{X}"]
        ),
        f"{x} turned by its position": lambda v: _turned(v[x]),
    }


_EQUATIONS: dict[str, Callable[[Values], Any]] = {
    "W_E[tokens]": lambda v: v["W_E"][v["tokens"]],
    "W_pos[0, 1, ...]": lambda v: v["W_pos"],
    "embed + pos_embed": lambda v: v["embed"] + v["pos_embed"],
    "embed": lambda v: v["embed"],
    "blocks.0.resid_post": lambda v: v["before"],
    **_letter_equations("q"),
    **_letter_equations("k"),
    **_letter_equations("v"),
    "q . k / sqrt(d_head), -inf where key > query": lambda v: _masked(
        np.einsum("bqhe,bkhe->bhqk", v["q"], v["k"]) / np.sqrt(_E)
    ),
    "rot_q . rot_k / sqrt(d_head), -inf where key > query": lambda v: _masked(
        np.einsum("bqhe,bkhe->bhqk", v["rot_q"], v["rot_k"]) / np.sqrt(_E)
    ),
    "softmax over keys of attn_scores": lambda v: _softmax(v["attn_scores"]),
    **_relative_equations("max(query - key, 0)", _EARLIER, ", -inf where key > query"),
    **_relative_equations("query - key + positions - 1", _APART, ""),
    "sum over keys of pattern v": lambda v: np.einsum("bhqk,bkhe->bqhe", v["pattern"], v["v"]),
    "z W_O[head]": lambda v: np.einsum("bqhe,hed->bqhd", v["z"], v["W_O"]),
    "sum over heads of z W_O[head]": lambda v: np.einsum("bqhe,hed->bqd", v["z"], v["W_O"]),
    "sum over heads of z W_O[head] + b_O": lambda v: (
        np.einsum("bqhe,hed->bqd", v["z"], v["W_O"]) + v["b_O"]
    ),
    "resid_pre + attn_out": lambda v: v["resid_pre"] + v["attn_out"],
    "resid_mid, a copy for the MLP alone": lambda v: v["resid_mid"],
    "mlp_in W_in": lambda v: v["mlp_in"] @ v["W_in"],
    "mlp_in W_in + b_in": lambda v: v["mlp_in"] @ v["W_in"] + v["b_in"],
    "ln2(mlp_in) W_in": lambda v: _norm(v["mlp_in"], v["ln2.w"], v["ln2.b"]) @ v["W_in"],
    "ln2(mlp_in) W_in + b_in": lambda v: (
        _norm(v["mlp_in"], v["ln2.w"], v["ln2.b"]) @ v["W_in"] + v["b_in"]
    ),
    "relu(pre)": lambda v: np.maximum(v["pre"], 0),
    "post W_out": lambda v: v["post"] @ v["W_out"],
    "post W_out + b_out": lambda v: v["post"] @ v["W_out"] + v["b_out"],
    "resid_mid + mlp_out": lambda v: v["resid_mid"] + v["mlp_out"],
    "resid_post W_U": lambda v: v["resid_post"] @ v["W_U"],
    "resid_post W_U + b_U": lambda v: v["resid_post"] @ v["W_U"] + v["b_U"],
    "ln_final(resid_post) W_U": lambda v: (
        _norm(v["resid_post"], v["ln_final.w"], v["ln_final.b"]) @ v["W_U"]
    ),
    "embed_a.W_E[a]": lambda v: v["embed_a.W_E"][v["tokens"][:, :1]],
    "embed_b.W_E[b]": lambda v: v["embed_b.W_E"][v["tokens"][:, 1:2]],
    "embed_a.W_E[a] + embed_b.W_E[b] + embed.b": lambda v: (
        v["embed_a.W_E"][v["tokens"][:, :1]] + v["embed_b.W_E"][v["tokens"][:, 1:2]] + v["embed.b"]
    ),
    "embed_a.W_E[a], embed_b.W_E[b] side by side": lambda v: np.concatenate(
        [v["embed_a.W_E"][v["tokens"][:, :1]], v["embed_b.W_E"][v["tokens"][:, 1:2]]], axis=-1
    ),
    "embed.W_E[a], embed.W_E[b]": lambda v: v["embed.W_E"][v["tokens"][:, :2]],
    "embed at 0 + embed at 1": lambda v: v["embed"][:, :1] + v["embed"][:, 1:],
    "embed at 0, embed at 1 side by side": lambda v: np.concatenate(
        [v["embed"][:, :1], v["embed"][:, 1:]], axis=-1
    ),
    "the features": lambda v: v["tokens"],
    "input layers.0.W": lambda v: v["input"] @ v["layers.0.W"],
    "input layers.0.W + layers.0.b": lambda v: v["input"] @ v["layers.0.W"] + v["layers.0.b"],
    "hidden.0 layers.1.W": lambda v: v["hidden.0"] @ v["layers.1.W"],
    "hidden.0.post layers.1.W": lambda v: v["hidden.0.post"] @ v["layers.1.W"],
    "hidden.0.post layers.1.W + layers.1.b": lambda v: (
        v["hidden.0.post"] @ v["layers.1.W"] + v["layers.1.b"]
    ),
    "tanh(hidden.0.pre)": lambda v: np.tanh(v["hidden.0.pre"]),
    "tanh(hidden.1.pre)": lambda v: np.tanh(v["hidden.1.pre"]),
    "hidden.1.post W_U": lambda v: v["hidden.1.post"] @ v["unembed.W_U"],
    "hidden.1.post W_U + b_U": lambda v: v["hidden.1.post"] @ v["unembed.W_U"] + v["unembed.b_U"],
    "(hidden.0.post W_U + b_U) output_scale": lambda v: (
        (v["hidden.0.post"] @ v["W_U"] + v["b_U"]) * 0.3
    ),
    "embed_a.W_E[a] embed_b.W_E[b]": lambda v: (
        v["embed_a.W_E"][v["tokens"][:, :1]] * v["embed_b.W_E"][v["tokens"][:, 1:2]]
    ),
    "W_rel[max(query - key, 0)]": lambda v: v["attn.W_rel"][_EARLIER],
    "softmax over keys <= query of W_rel[query - key]": lambda v: _softmax(
        _masked(v["attn.W_rel"][_EARLIER])
    ),
    "sum over keys of pattern onehot(token)": lambda v: v["attn.pattern"] @ np.eye(8)[v["tokens"]],
    "W_QK[tokens]": lambda v: v["attn.W_QK"][v["tokens"]],
    "W_QK[token] . blocks.0.attn.z, 0 where key > query": lambda v: np.tril(
        v["attn.W_QK"][v["tokens"]] @ v["blocks.0.attn.z"].transpose(0, 2, 1)
    ),
    "sum over keys of attn_scores onehot(token)": lambda v: (
        v["blocks.1.attn.attn_scores"] @ np.eye(8)[v["tokens"]]
    ),
    "quadratic(hidden.0.pre)": lambda v: v["hidden.0.pre"] ** 2,
    "hidden.0.post W_U": lambda v: v["hidden.0.post"] @ v["W_U"],
    "hidden.0.post W_U + b_U": lambda v: v["hidden.0.post"] @ v["W_U"] + v["b_U"],
}
for _name, _x in (("ln1", "resid_pre"), ("ln2", "mlp_in"), ("ln_final", "resid_post")):
    _EQUATIONS[f"sqrt(mean(({_x} - mean({_x}))^2) + 1e-5)"] = lambda v, x=_x: np.sqrt(
        v[x].var(-1, keepdims=True) + 1e-5
    )
    _EQUATIONS[f"({_x} - mean({_x})) / scale; {_name}(x) = normalized w + b"] = lambda v, x=_x: (
        _norm(v[x], 1.0, 0.0)
    )

_CASES: dict[str, Architecture] = {
    "learned positions, biases": Transformer(
        layers=2, d_model=_D, heads=2, d_mlp=6, attention_bias=True, unembed_bias=True
    ),
    "rotary, layer norm": Transformer(
        layers=2, d_model=_D, heads=2, d_mlp=6, positions="rotary", normalization="layer"
    ),
    "relative positions": Transformer(layers=2, d_model=_D, heads=2, d_mlp=6, positions="relative"),
    "relative positions, bidirectional": Transformer(
        layers=2, d_model=_D, heads=2, d_mlp=6, positions="relative", attention="bidirectional"
    ),
    "mlp": MLP(width=6, bias=True),
    "mlp, output scale": MLP(width=6, bias=True, output_scale=0.3),
    "mlp, two embeddings": MLP(
        width=6, d_embed=4, embedding="two", depth=2, activation="tanh", bias=True
    ),
    "mlp, shared embedding": MLP(width=6, d_embed=4, embedding="shared"),
    "mlp, shared embedding, added": MLP(width=6, d_embed=4, embedding="shared", combination="sum"),
    "bilinear": Bilinear(width=6),
    "markov attention": MarkovAttention(init_scale=0.5),
    "mlp on floats": MLP(width=6, depth=2, activation="tanh"),
    "deep linear": DeepLinear(widths=(4,)),
}


def _page() -> str:
    """The page as ``docs/make_sites.py`` would write it now."""
    spec = importlib.util.spec_from_file_location("make_sites", _DOCS / "make_sites.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.page()


def test_the_page_is_up_to_date_and_has_every_model() -> None:
    page = _page()
    assert (_DOCS / "sites.md").read_text() == page, "run: python docs/make_sites.py"
    sections = re.findall(r"^## (.*)$", page, re.MULTILINE)
    assert sections == [architecture.__name__ for architecture in MODELS.values()]


@dataclass(frozen=True)
class _Undocumented(Bilinear):
    """A model that says nothing about its page."""

    def build(self, inputs: Inputs) -> Model:
        if inputs.kind != "floats":
            raise ConfigError("floats only")
        return Model(lambda key: {}, lambda params, inputs: inputs, sites=(Site("out", "x", ()),))


def test_a_model_documents_the_sites_of_its_smallest_setting_by_default() -> None:
    ((text, sites),) = _Undocumented.documented_sites()
    assert text == ""
    assert [site.name for site in sites] == ["out"]
    ((_, sites),) = Bilinear.documented_sites()
    assert sites == Bilinear.smallest().build(PAIR_INPUTS).sites


@pytest.mark.parametrize("name", MODELS)
def test_the_smallest_setting_is_small_and_builds_on_an_example_input(name: str) -> None:
    smallest = MODELS[name].smallest()
    assert isinstance(smallest, MODELS[name])
    sizes = []
    for inputs in EXAMPLE_INPUTS:
        with contextlib.suppress(ConfigError):
            params = jax.eval_shape(smallest.build(inputs).init, jax.random.key(0))
            sizes.append(parameter_count(params))
    assert sizes
    assert max(sizes) < 5_000


def _short(values: Values, block: str) -> Values:
    """Values by the names in the equations; those of ``block`` lose its prefix."""
    short: Values = dict(values)
    for name, value in values.items():
        if name.startswith("blocks.") and not name.startswith(f"{block}."):
            continue
        tail = name.removeprefix(f"{block}.")
        short[tail] = value
        short[tail.split(".")[-1]] = value
    return {**short, "before": values.get("blocks.0.resid_post")}


@pytest.mark.parametrize("name", few(_CASES, 1))
def test_every_equation_holds_for_what_is_captured(name: str) -> None:
    floats = name in ("mlp on floats", "deep linear")
    model = _CASES[name].build(VECTOR if floats else _TASK.inputs)
    keys = iter(jax.random.split(jax.random.key(0), 64))
    params = jax.tree.map(
        lambda x: x + 0.3 * jax.random.normal(next(keys), x.shape), model.init(jax.random.key(1))
    )
    tokens = (
        jax.random.normal(jax.random.key(2), (3, 1, 7))
        if floats
        else jnp.array([[1, 5, 7], [0, 2, 7], [6, 6, 7]])
    )
    # ln1's own sites and the heads' separate inputs exclude each other, hence two
    # groups.
    by_head = [s.name for s in model.sites if s.name.endswith("_input")]
    seen: Values = {}
    for group in ([s.name for s in model.sites if s.name not in by_head], by_head):
        if group:
            seen |= capture(model.apply, group)(params, tokens)[1]
    arrays = {site: np.asarray(value, np.float64) for site, value in seen.items()}
    weights = {key: np.asarray(value, np.float64) for key, value in dotted(params).items()}
    for site in model.sites:
        block = (
            ".".join(site.name.split(".")[:2]) if site.name.startswith("blocks.") else "blocks.1"
        )
        products = {s.name for s in model.sites if s.kind == "product"}
        activations = {key: value for key, value in arrays.items() if key not in products}
        values = {**_short({**activations, **weights}, block), "tokens": np.asarray(tokens)}
        expected = _EQUATIONS[site.equation](values)
        np.testing.assert_allclose(
            arrays[site.name],
            expected,
            rtol=2e-4,
            atol=2e-5,
            err_msg=f"{site.name} = {site.equation}",
        )


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_are_their_formulas(activation: Any) -> None:
    from scipy.special import erf

    x = np.linspace(-4, 4, 41)
    tanh = np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))
    formulas = {
        "relu": np.maximum(x, 0),
        "gelu": x * (1 + erf(x / np.sqrt(2))) / 2,
        "gelu_new": x * (1 + tanh) / 2,
        "silu": x / (1 + np.exp(-x)),
        "tanh": np.tanh(x),
        "quadratic": x**2,
        "identity": x,
    }
    np.testing.assert_allclose(
        ACTIVATIONS[activation](jnp.asarray(x, jnp.float32)), formulas[activation], atol=3e-6
    )
