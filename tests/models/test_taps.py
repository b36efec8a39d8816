"""Tests of taps and captures.

Every site is reached, recording changes nothing, replacing does; both are safe inside jit, vmap and
grad.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_jax.basics.errors import ConfigError
from mi_jax.basics.pytrees import dotted
from mi_jax.contracts import Architecture, Model, Site
from mi_jax.models import MLP, Transformer, capture
from mi_jax.tasks import ModularArithmetic

pytestmark = pytest.mark.slow  # over half a minute in all

_TASK = ModularArithmetic(p=6, fraction=0.5)
_TOKENS = jnp.array([[1, 5, 6], [0, 2, 6], [3, 3, 6], [4, 0, 6]])
_MODELS: dict[str, Architecture] = {
    "learned, biases": Transformer(
        layers=2, d_model=8, heads=2, d_mlp=12, attention_bias=True, unembed_bias=True
    ),
    "rotary, layer norm": Transformer(
        layers=2, d_model=8, heads=2, d_mlp=12, positions="rotary", normalization="layer"
    ),
    "rms norm, bidirectional": Transformer(
        d_model=6, heads=3, d_head=4, d_mlp=10, normalization="rms", attention="bidirectional"
    ),
    "attention only": Transformer(
        layers=2, d_model=8, heads=4, d_mlp=0, positions="none", logit_scale=0.5
    ),
    "relative": Transformer(
        d_model=8, heads=2, d_mlp=12, positions="relative", attention="bidirectional"
    ),
    "mlp": MLP(width=9, bias=True),
    "mlp, two embeddings": MLP(
        width=9, d_embed=5, embedding="two", depth=2, activation="tanh", bias=True, output_scale=0.5
    ),
    "mlp, shared embedding": MLP(width=9, d_embed=5, embedding="shared", activation="tanh"),
}
_SITES = [
    (name, site) for name, config in _MODELS.items() for site in config.build(_TASK.inputs).sites
]
_EVERY_SITE = pytest.mark.parametrize(
    ("name", "site"), _SITES, ids=lambda x: x.name if isinstance(x, Site) else x
)
_EVERY_MODEL = pytest.mark.parametrize("name", _MODELS)
_FIRST = "learned, biases"

_built: dict[str, tuple[Model, Any]] = {}


def _subject(name: str) -> tuple[Model, Any]:
    """A model, and parameters that are all different from their initial values."""
    if name not in _built:
        model = _MODELS[name].build(_TASK.inputs)
        leaves, structure = jax.tree.flatten(model.init(jax.random.key(0)))
        keys = jax.random.split(jax.random.key(1), len(leaves))
        noisy = [
            x + 0.2 * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys, strict=True)
        ]
        _built[name] = model, structure.unflatten(noisy)
    return _built[name]


_outputs: dict[str, np.ndarray] = {}


def _plain(name: str) -> np.ndarray:
    """The outputs without taps."""
    if name not in _outputs:
        model, params = _subject(name)
        _outputs[name] = np.asarray(model.apply(params, _TOKENS))
    return _outputs[name]


def _groups(model: Model) -> list[list[str]]:
    """All sites, in groups that can be tapped at once; the sites of ln1 and the heads' own inputs
    exclude each other.
    """
    names = [site.name for site in model.sites]
    by_head = [name for name in names if name.endswith("_input")]
    return [group for group in ([name for name in names if name not in by_head], by_head) if group]


def _product(site: str) -> Callable[[Any, Any], Any]:
    """The default product with the weight of this name."""
    letter = site.split(".")[-1]
    if letter in ("W_E", "W_pos"):
        return lambda x, W: W[x]
    if letter == "W_O":
        return lambda x, W: jnp.einsum("bqhe,hed->bqhd", x, W)
    if letter in ("W_rel_K", "W_rel_V"):
        apart = jnp.arange(3)[:, None] - jnp.arange(3)[None, :] + 2
        formula = "bqhe,qkhe->bhqk" if letter == "W_rel_K" else "bhqk,qkhe->bqhe"
        return lambda x, W: jnp.einsum(formula, x, W.transpose(1, 0, 2)[apart])
    if letter in ("W_Q", "W_K", "W_V"):
        return lambda x, W: jnp.einsum("bsd,hde->bshe", x, W)
    return lambda x, W: jnp.einsum("bsi,io->bso", x, W)


def _unchanged(site: Site) -> Callable[..., Any]:
    return _product(site.name) if site.kind == "product" else lambda value: value


def _noisy(site: Site) -> Callable[..., Any]:
    """Adds different numbers to all entries; a constant would leave a softmax or norm as it is."""

    def tap(*values: Any) -> Any:
        value = _unchanged(site)(*values)
        return value + 0.3 * jax.random.normal(jax.random.key(7), value.shape)

    return tap


# --- Every site is reached


@_EVERY_SITE
def test_a_tap_that_returns_what_it_gets_leaves_the_outputs(name: str, site: Site) -> None:
    model, params = _subject(name)
    tapped = model.apply(params, _TOKENS, taps={site.name: _unchanged(site)})
    np.testing.assert_allclose(tapped, _plain(name), rtol=1e-5, atol=1e-5)


@_EVERY_SITE
def test_a_tap_that_changes_its_value_changes_the_outputs(name: str, site: Site) -> None:
    model, params = _subject(name)
    change = np.abs(
        np.asarray(model.apply(params, _TOKENS, taps={site.name: _noisy(site)})) - _plain(name)
    )
    assert change.max() > 1e-2
    assert np.all(change.max(axis=(1, 2)) > 1e-4), "every example flows through every site"


@_EVERY_MODEL
def test_captures_have_the_dims_that_the_sites_state(name: str) -> None:
    config, (model, params) = _MODELS[name], _subject(name)
    sizes = {"batch": 4, "position": 3, "query": 3, "key": 3, "one": 1, "class": 7}
    if isinstance(config, Transformer):
        sizes |= {
            "d_model": config.d_model,
            "head": config.heads,
            "d_head": config.head_size,
            "d_mlp": config.mlp_size,
        }
    else:
        sizes |= {"position": 1, "neuron": 9, "class": 6, "d_embed": 5, "d_input": 10}
    dims = {site.name: site.dims for site in model.sites}
    for names in _groups(model):
        outputs, seen = capture(model.apply, names)(params, _TOKENS)
        # A shared embedding looks both tokens up at once.
        pairs = {"embed", "embed.W_E"} if isinstance(config, MLP) else set[str]()
        shapes = {
            name: tuple(2 if d == "position" and name in pairs else sizes[d] for d in dims[name])
            for name in names
        }
        assert {name: x.shape for name, x in seen.items()} == shapes
        np.testing.assert_allclose(outputs, _plain(name), rtol=1e-5, atol=1e-5)


def _reads_the_query(site: Site) -> bool:
    """Whether a site lies in the last layer from the query on, or after it."""
    last = (
        "attn.q_input",
        "attn.W_Q",
        "attn.q",
        "attn.rot_q",
        "attn.attn_scores",
        "attn.pattern",
        "attn.z",
        "attn.W_O",
    )
    late = ("attn.result", "attn_out", "resid_mid", "mlp_in", "ln2", "mlp", "mlp_out", "resid_post")
    ends = tuple(f"blocks.1.{part}" for part in (*last, *late))
    return site.name.startswith(("ln_final", "unembed", "logits")) or any(
        site.name == end or site.name.startswith(f"{end}.") for end in ends
    )


@pytest.mark.parametrize("name", [_FIRST, "rotary, layer norm"])
def test_with_positions_given_only_sites_from_the_last_query_on_are_cut(name: str) -> None:
    model, params = _subject(name)
    for names in _groups(model):
        whole = capture(model.apply, names)(params, _TOKENS)[1]
        cut = capture(model.apply, names)(params, _TOKENS, positions=(2, 1))[1]
        for site in (site for site in model.sites if site.name in names):
            expected = whole[site.name]
            if _reads_the_query(site):
                axis = site.dims.index("query" if "query" in site.dims else "position")
                expected = jnp.take(expected, jnp.array([2, 1]), axis=axis)
            np.testing.assert_allclose(
                cut[site.name], expected, rtol=1e-5, atol=1e-5, err_msg=site.name
            )


# --- Equations


@pytest.mark.parametrize("name", [name for name in _MODELS if not isinstance(_MODELS[name], MLP)])
def test_attention_patterns_are_distributions_over_the_keys_seen(name: str) -> None:
    model, params = _subject(name)
    pattern = np.asarray(
        capture(model.apply, ["blocks.0.attn.pattern"])(params, _TOKENS)[1]["blocks.0.attn.pattern"]
    )
    assert np.all(pattern >= 0)
    np.testing.assert_allclose(pattern.sum(axis=-1), 1, rtol=1e-6)
    causal = _MODELS[name].attention == "causal"  # pyright: ignore[reportAttributeAccessIssue]
    assert np.all((pattern > 0) == (np.tri(3, dtype=bool) if causal else True))


def test_heads_and_bias_add_up_to_what_attention_writes() -> None:
    model, params = _subject(_FIRST)
    names = [f"blocks.1.{part}" for part in ("resid_pre", "attn.result", "attn_out", "resid_mid")]
    before, result, written, after = (
        np.asarray(x) for x in capture(model.apply, names)(params, _TOKENS)[1].values()
    )
    np.testing.assert_allclose(
        result.sum(axis=2) + np.asarray(params["blocks"]["1"]["attn"]["b_O"]), written, atol=1e-5
    )
    np.testing.assert_allclose(before + written, after, atol=1e-6)


@pytest.mark.parametrize("name", ["rotary, layer norm", "mlp"])
def test_a_product_tap_gets_the_input_and_the_weight(name: str) -> None:
    model, params = _subject(name)
    weights = dotted(params)
    for site in (site for site in model.sites if site.kind == "product"):
        got: list[Any] = []

        def tap(x: Any, W: Any, got: list[Any] = got, name: str = site.name) -> Any:
            got.append((x, W))
            return _product(name)(x, W)

        model.apply(params, _TOKENS, taps={site.name: tap})
        ((x, W),) = got
        np.testing.assert_array_equal(W, weights[site.name])
        if site.name.endswith("W_U"):
            before = model.roles.neurons if name == "mlp" else "ln_final.normalized"
            assert before is not None
            value = capture(model.apply, [before])(params, _TOKENS)[1][before]
            if name != "mlp":
                value = (
                    value * params["ln_final"]["w"][None, None]
                    + params["ln_final"]["b"][None, None]
                )
            np.testing.assert_allclose(x, value, rtol=1e-6, atol=1e-6)


def test_a_weight_changed_in_a_tap_is_the_weight_changed_in_the_parameters() -> None:
    model, params = _subject(_FIRST)
    delta = jax.random.normal(jax.random.key(3), (8, 12))
    tapped = model.apply(params, _TOKENS, taps={"blocks.0.mlp.W_in": lambda x, W: x @ (W + delta)})
    block = params["blocks"]["0"]
    edited_block = {**block, "mlp": {**block["mlp"], "W_in": block["mlp"]["W_in"] + delta}}
    edited = {**params, "blocks": {**params["blocks"], "0": edited_block}}
    np.testing.assert_allclose(tapped, model.apply(edited, _TOKENS), rtol=1e-5, atol=1e-5)


# --- Heads' separate inputs


@pytest.mark.parametrize(
    ("letter", "site"), [("q", "attn_scores"), ("k", "attn_scores"), ("v", "v")]
)
@pytest.mark.parametrize("name", [_FIRST, "rotary, layer norm"])
def test_one_heads_input_changes_that_head_alone(letter: str, site: str, name: str) -> None:
    model, params = _subject(name)
    names = [f"blocks.1.attn.{part}" for part in ("attn_scores", "q", "k", "v")]
    noise = jax.random.normal(jax.random.key(5), (4, 3, 8))
    taps = {f"blocks.1.attn.{letter}_input": lambda x: x.at[:, :, 1].add(noise)}
    plain = capture(model.apply, names)(params, _TOKENS)[1]
    tapped = capture(model.apply, names)(params, _TOKENS, taps=taps)[1]
    axis = {"attn_scores": 1, "q": 2, "k": 2, "v": 2}
    for full in names:
        part = full.split(".")[-1]
        # Masked scores are -inf in both.
        before, after = (
            np.nan_to_num(np.asarray(seen[full]), neginf=0.0) for seen in (plain, tapped)
        )
        change = np.abs(after - before)
        by_head = np.moveaxis(change, axis[part], 0).reshape(2, -1).max(axis=1)
        assert by_head[0] < 1e-5, full
        assert (by_head[1] > 0.1) == (part in (letter, site)), full


def test_a_norms_sites_and_the_heads_own_inputs_are_refused_together() -> None:
    model, params = _subject("rotary, layer norm")
    with pytest.raises(
        ConfigError,
        match=r"blocks\.0\.ln1\.scale.*blocks\.0\.attn\.q_input.*cannot be tapped at once",
    ):
        capture(model.apply, ["blocks.0.ln1.scale", "blocks.0.attn.q_input"])(params, _TOKENS)
    capture(model.apply, ["blocks.0.ln1.scale", "blocks.1.attn.q_input"])(params, _TOKENS)


def _results_computed(model: Model, params: Any, **arguments: Any) -> int:
    """How many arrays [batch position head d_model] the traced program holds; 2 heads, so that no
    other array looks like it.
    """
    return str(jax.make_jaxpr(lambda p: model.apply(p, _TOKENS, **arguments))(params)).count(
        "f32[4,3,2,8]"
    )


def test_optional_sites_are_computed_only_when_they_are_tapped() -> None:
    model, params = _subject(_FIRST)
    optional = [site.name for site in model.sites if site.optional]
    assert {name.split(".", 2)[-1] for name in optional} == {
        "attn.q_input",
        "attn.k_input",
        "attn.v_input",
        "attn.result",
        "mlp_in",
    }
    assert _results_computed(model, params) == 0
    for name in (name for name in optional if not name.endswith("mlp_in")):
        assert _results_computed(model, params, taps={name: lambda x: x}) > 0, name


# --- Unknown sites


@_EVERY_MODEL
def test_an_unknown_site_is_refused_with_the_nearest_names(name: str) -> None:
    model, params = _subject(name)
    of_mlp = ("hidden.0.pots", r"hidden\.0\.post")
    near = (
        of_mlp
        if isinstance(_MODELS[name], MLP)
        else ("blocks.0.attn.patern", r"blocks\.0\.attn\.pattern")
    )
    with pytest.raises(
        ConfigError, match=f"This model has no site '{near[0]}'; did you mean .*{near[1]}"
    ):
        model.apply(params, _TOKENS, taps={near[0]: lambda x: x})
    with pytest.raises(ConfigError, match=near[1]):
        capture(model.apply, [near[0]])(params, _TOKENS)


def test_a_site_that_this_variant_lacks_is_refused() -> None:
    model, params = _subject("attention only")
    with pytest.raises(ConfigError, match=r"no site 'blocks\.0\.mlp\.post'"):
        capture(model.apply, ["blocks.0.mlp.post"])(params, _TOKENS)


# --- Captures

_CAPTURED = [
    "blocks.0.attn.pattern",
    "blocks.0.mlp.post",
    "blocks.1.mlp.W_out",
    "blocks.1.attn.q_input",
]


def _captured(params: Any, tokens: Any) -> Any:
    return capture(_subject(_FIRST)[0].apply, _CAPTURED)(params, tokens)


def _assert_same(actual: Any, expected: Any) -> None:
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), actual, expected
    )


@pytest.mark.parametrize(
    ("name", "site"),
    [(_FIRST, "blocks.0.mlp.post"), (_FIRST, "blocks.1.attn.z"), ("mlp", "hidden.0.pre")],
)
def test_a_capture_records_what_a_tap_on_the_same_site_returned(name: str, site: str) -> None:
    model, params = _subject(name)
    plain = capture(model.apply, [site])(params, _TOKENS)[1][site]
    outputs, seen = capture(model.apply, [site])(params, _TOKENS, taps={site: lambda x: 2 * x + 1})
    np.testing.assert_allclose(seen[site], 2 * plain + 1, rtol=1e-6)
    _assert_same(outputs, model.apply(params, _TOKENS, taps={site: lambda x: 2 * x + 1}))


def test_a_capture_of_a_product_records_what_a_tap_on_it_returned() -> None:
    model, params = _subject(_FIRST)
    taps = {"unembed.W_U": lambda x, W: 3 * (x @ W)}
    outputs, seen = capture(model.apply, ["unembed.W_U"])(params, _TOKENS, taps=taps)
    bias = params["unembed"]["b_U"][None, None]
    np.testing.assert_allclose(
        seen["unembed.W_U"], 3 * (model.apply(params, _TOKENS) - bias), rtol=1e-5, atol=1e-5
    )
    _assert_same(outputs, seen["unembed.W_U"] + bias)


def test_a_tap_changes_the_captures_after_it() -> None:
    model, params = _subject(_FIRST)
    taps = {"blocks.0.mlp.post": lambda x: jnp.zeros_like(x)}
    names = ["blocks.0.resid_mid", "blocks.0.resid_post"]
    before, after = capture(model.apply, names)(params, _TOKENS, taps=taps)[1].values()
    np.testing.assert_allclose(
        after, before + params["blocks"]["0"]["mlp"]["b_out"][None, None], rtol=1e-6
    )


def test_a_single_site_can_be_given_as_a_string() -> None:
    model, params = _subject(_FIRST)
    assert list(capture(model.apply, "logits")(params, _TOKENS)[1]) == ["logits"]
    assert capture(model.apply, [])(params, _TOKENS)[1] == {}


def test_captures_are_the_same_inside_jit() -> None:
    params = _subject(_FIRST)[1]
    _assert_same(jax.jit(_captured)(params, _TOKENS), _captured(params, _TOKENS))


def test_captures_are_the_same_inside_vmap() -> None:
    params = _subject(_FIRST)[1]
    stack = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x]), params)
    together = jax.vmap(lambda params: _captured(params, _TOKENS))(stack)
    for i, scale in enumerate((1.0, 0.5)):
        _assert_same(
            jax.tree.map(lambda x, i=i: x[i], together),
            _captured(jax.tree.map(lambda x, s=scale: s * x, params), _TOKENS),
        )


def test_captures_are_the_same_inside_a_loop() -> None:
    params = _subject(_FIRST)[1]
    looped = jax.lax.map(lambda token: _captured(params, token[None]), _TOKENS)
    _assert_same(jax.tree.map(lambda x: x[:, 0], looped), _captured(params, _TOKENS))


@pytest.mark.parametrize("wrap", [lambda f: f, jax.checkpoint], ids=["plain", "remat"])
def test_captures_can_be_differentiated(wrap: Callable[..., Any]) -> None:
    params = _subject(_FIRST)[1]
    site = "blocks.0.mlp.post"

    def total(b_in: jax.Array) -> jax.Array:
        block = params["blocks"]["0"]
        changed = {**block, "mlp": {**block["mlp"], "b_in": b_in}}
        return _captured({**params, "blocks": {**params["blocks"], "0": changed}}, _TOKENS)[1][
            site
        ].sum()

    gradient = jax.grad(wrap(total))(params["blocks"]["0"]["mlp"]["b_in"])
    active = _captured(params, _TOKENS)[1][site] > 0
    np.testing.assert_allclose(gradient, active.sum(axis=(0, 1)), rtol=1e-6)


# --- Gradients through taps


@pytest.mark.parametrize("name", [_FIRST, "rms norm, bidirectional", "mlp"])
def test_the_gradient_of_an_added_zero_is_the_finite_difference(name: str) -> None:
    with jax.enable_x64(True):
        model = _MODELS[name].build(_TASK.inputs)
        params = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), _subject(name)[1])
        rng = np.random.default_rng(0)
        probe = jnp.asarray(rng.normal(size=model.apply(params, _TOKENS).shape))
        names = [site.name for site in model.sites if site.kind == "activation"]

        def outputs(name: str, shift: jax.Array) -> jax.Array:
            return (
                probe * jnp.tanh(model.apply(params, _TOKENS, taps={name: lambda x: x + shift}))
            ).sum()

        for site in names:
            shape = capture(model.apply, [site])(params, _TOKENS)[1][site].shape
            direction = jnp.asarray(rng.normal(size=shape))
            gradient = jax.grad(lambda shift, site=site: outputs(site, shift))(jnp.zeros(shape))
            step = 1e-6
            difference = (outputs(site, step * direction) - outputs(site, -step * direction)) / (
                2 * step
            )
            assert float((gradient * direction).sum()) == pytest.approx(
                float(difference), rel=1e-6, abs=1e-9
            ), site
            assert abs(float(difference)) > 1e-4, site
