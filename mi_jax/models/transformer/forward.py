"""The forward pass of a transformer, whose every site can be listened to.

Dimension letters: b batch, s sequence position, q query position, k key position, h head, d
    d_model, e d_head, m d_mlp.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mi_jax.basics.errors import require
from mi_jax.contracts import Inputs
from mi_jax.models.activations import ACTIVATIONS
from mi_jax.models.positions import by_distance, causal_mask, distance_rows, positions_read, rotate
from mi_jax.models.products import lookup, matmul, spread
from mi_jax.models.taps import Tapped
from mi_jax.models.transformer.settings import TransformerSettings
from mi_jax.models.transformer.table import mix, project_on_table

_BEFORE_SCORES = (
    *(
        "embed.W_E",
        "embed",
        "pos_embed.W_pos",
        "pos_embed",
        "blocks.0.resid_pre",
        "blocks.0.ln1.scale",
        "blocks.0.ln1.normalized",
    ),
    *(
        f"blocks.0.attn.{name}"
        for x in "qkv"
        for name in (f"{x}_input", f"W_{x.upper()}", x, f"rot_{x}")
    ),
    "blocks.0.attn.W_rel_K",
)
"""Sites that the token table leaves out."""

_NORM_EPSILON = 1e-5
_FEW = 8


def forward(
    config: TransformerSettings,
    params: Any,
    tokens: Int[Array, "b s"],
    taps: Tapped,
    positions: tuple[int, ...] | None,
    alphabet: Inputs | None,
) -> Float[Array, "b q classes"]:
    """The whole forward pass; only ``positions`` are computed from the last layer's queries on.

    With ``alphabet`` the first layer goes by the token table, unless a tap listens to what that
    leaves out.
    """
    everywhere, read = tuple(range(tokens.shape[1])), positions_read(positions, tokens.shape[1])
    hidden = [
        site
        for site in _BEFORE_SCORES
        if taps.listens(site) and not (site == "embed" and taps.by_position(site))
    ]
    on_table = alphabet is not None and not hidden
    x = jnp.zeros(()) if on_table else _embedded(config, params, tokens, taps)
    for i in range(config.layers):
        queries = read if i == config.layers - 1 else everywhere
        if i == 0 and on_table and alphabet is not None:
            x = _first_block_on_table(config, params, alphabet, tokens, taps, queries)
            continue
        x = _block(config, params["blocks"][str(i)], f"blocks.{i}", x, taps, queries)
    x = _norm(config, params.get("ln_final"), x, taps, "ln_final")
    logits = taps.product("unembed.W_U", x, params["unembed"]["W_U"], matmul)
    if config.unembed_bias:
        logits = logits + spread(params["unembed"]["b_U"], logits)
    return taps.at("logits", config.logit_scale * logits if config.logit_scale != 1.0 else logits)


def _embedded(
    config: TransformerSettings, params: Any, tokens: Int[Array, "b s"], taps: Tapped
) -> Float[Array, "b s d"]:
    """Embedding and positions."""
    x = taps.at("embed", taps.product("embed.W_E", tokens, params["embed"]["W_E"], lookup))
    if config.positions != "learned":
        return x
    rows = jnp.arange(tokens.shape[1])
    return x + spread(
        taps.at(
            "pos_embed", taps.product("pos_embed.W_pos", rows, params["pos_embed"]["W_pos"], lookup)
        ),
        x,
    )


def _block(
    config: TransformerSettings,
    params: Any,
    name: str,
    x: Float[Array, "b s d"],
    taps: Tapped,
    queries: tuple[int, ...],
) -> Float[Array, "b q d"]:
    """One layer; from the queries on only those positions are computed."""
    x = taps.at(f"{name}.resid_pre", x)
    attended = _attention(config, params, name, x, taps, queries)
    return _after_attention(config, params, name, _rows(x, queries), attended, taps)


def _first_block_on_table(
    config: TransformerSettings,
    params: Any,
    inputs: Inputs,
    tokens: Int[Array, "b s"],
    taps: Tapped,
    queries: tuple[int, ...],
) -> Float[Array, "b q d"]:
    """The first layer by way of the token table: see ``table``."""
    block = params["blocks"]["0"]
    attn, name = block["attn"], "blocks.0"

    def project(
        rows: Float[Array, "n d"], places: Int[Array, " n"]
    ) -> tuple[Float[Array, "n h e"], ...]:
        normed = _norm(config, block.get("ln1"), rows, None, "")[None]
        q, k, v = (_project(normed, attn[f"W_{x}"]) for x in "QKV")
        if config.attention_bias:
            q, k, v = (
                x + spread(attn[f"b_{letter}"], x) for x, letter in ((q, "Q"), (k, "K"), (v, "V"))
            )
        if config.positions == "rotary":
            q, k = rotate(q, places), rotate(k, places)
        return q[0], k[0], v[0]

    apart = None
    if config.relative:
        apart = by_distance(
            attn["W_rel_K"], _distances(config, attn, range(tokens.shape[1]), tokens.shape[1])
        )
    seen = project_on_table(
        params,
        tokens,
        inputs,
        queries,
        config.score_scale,
        project,
        taps.by_position("embed"),
        apart,
    )
    attended = _attend(
        config,
        attn,
        f"{name}.attn",
        seen.scores,
        lambda pattern: mix(pattern, seen.values),
        taps,
        queries,
    )
    return _after_attention(config, block, name, seen.stream, attended, taps)


def _after_attention(
    config: TransformerSettings,
    params: Any,
    name: str,
    x: Float[Array, "b q d"],
    attended: Float[Array, "b q d"],
    taps: Tapped,
) -> Float[Array, "b q d"]:
    """The rest of a layer, at its queries."""
    x = taps.at(f"{name}.resid_mid", x + taps.at(f"{name}.attn_out", attended))
    if config.mlp_size:
        x = x + taps.at(
            f"{name}.mlp_out", _mlp(config, params, name, taps.at(f"{name}.mlp_in", x), taps)
        )
    return taps.at(f"{name}.resid_post", x)


def _attention(
    config: TransformerSettings,
    params: Any,
    block: str,
    x: Float[Array, "b s d"],
    taps: Tapped,
    queries: tuple[int, ...],
) -> Float[Array, "b q d"]:
    """softmax(q k^T / scale) v W_O, with a site at every step."""
    attn, name = params["attn"], f"{block}.attn"
    by_head = [
        f"{name}.{letter}_input" for letter in "qkv" if taps.listens(f"{name}.{letter}_input")
    ]
    shared = [
        f"{block}.ln1.{part}"
        for part in ("scale", "normalized")
        if taps.listens(f"{block}.ln1.{part}")
    ]
    require(
        not (by_head and shared),
        f"{shared} and {by_head} can't be tapped at once: the heads' inputs are normed apart",
    )
    normed = _norm(config, params.get("ln1"), x, taps, f"{block}.ln1")

    def project(letter: str, rows: tuple[int, ...] | None) -> Float[Array, "b t h e"]:
        source, site = normed, f"{name}.{letter.lower()}_input"
        if taps.listens(site):
            per_head = jnp.broadcast_to(x[:, :, None, :], (*x.shape[:2], config.heads, x.shape[2]))
            source = _norm(
                config, params.get("ln1"), taps.at(site, _rows(per_head, rows)), None, ""
            )
        else:
            source = _rows(normed, rows)
        value = taps.product(f"{name}.W_{letter}", source, attn[f"W_{letter}"], _project)
        value = value + spread(attn[f"b_{letter}"], value) if config.attention_bias else value
        return taps.at(f"{name}.{letter.lower()}", value)

    q, k, v = project("Q", queries), project("K", None), project("V", None)
    if config.positions == "rotary":
        q = taps.at(f"{name}.rot_q", rotate(q, jnp.array(queries)))
        k = taps.at(f"{name}.rot_k", rotate(k, jnp.arange(x.shape[1])))
    scores = jnp.einsum("bqhe,bkhe->bhqk", q, k)
    if config.relative:
        rows = _distances(config, attn, queries, x.shape[1])
        by_pair = lambda q, W: jnp.einsum("bqhe,qkhe->bhqk", q, by_distance(W, rows))  # noqa: E731
        scores = scores + taps.product(f"{name}.W_rel_K", q, attn["W_rel_K"], by_pair)
    scores = scores / config.score_scale
    return _attend(
        config,
        attn,
        name,
        scores,
        lambda pattern: jnp.einsum("bhqk,bkhe->bqhe", pattern, v),
        taps,
        queries,
    )


def _attend(
    config: TransformerSettings,
    attn: Any,
    name: str,
    scores: Float[Array, "b h q k"],
    mix: Callable[[Float[Array, "b h q k"]], Float[Array, "b q h e"]],
    taps: Tapped,
    queries: tuple[int, ...],
) -> Float[Array, "b q d"]:
    """From the scores on: mask, pattern, the values mixed by it, W_O."""
    if config.attention == "causal":
        scores = jnp.where(spread(causal_mask(queries, scores.shape[-1]), scores), scores, -jnp.inf)
    scores = taps.at(f"{name}.attn_scores", scores)
    pattern = _softmax(scores)
    if config.attention_rate != 1.0:
        pattern = config.attention_rate * pattern + (1 - config.attention_rate) * jnp.isfinite(
            scores
        )
    pattern = taps.at(f"{name}.pattern", pattern)
    z = mix(pattern)
    if "V" in config.relative:
        rows = _distances(config, attn, queries, scores.shape[-1])
        by_pair = lambda pattern, W: jnp.einsum("bhqk,qkhe->bqhe", pattern, by_distance(W, rows))  # noqa: E731
        z = z + taps.product(f"{name}.W_rel_V", pattern, attn["W_rel_V"], by_pair)
    z = taps.at(f"{name}.z", z)
    out = _write(name, z, attn["W_O"], taps)
    return out + spread(attn["b_O"], out) if config.attention_bias else out


def _distances(
    config: TransformerSettings, attn: Any, queries: Sequence[int], length: int
) -> Int[Array, "q k"]:
    """By query and key, the row of this layer's vectors by distance."""
    return distance_rows(
        queries, length, attn["W_rel_K"].shape[1], causal=config.attention == "causal"
    )


def _softmax(scores: Float[Array, "b h q k"]) -> Float[Array, "b h q k"]:
    """Over the keys; a few of them one by one, since reductions over short axes are slow on CPU."""
    if scores.shape[-1] > _FEW:
        return jax.nn.softmax(scores, axis=-1)
    shifted = (
        scores
        - jax.lax.stop_gradient(
            reduce(jnp.maximum, [scores[..., j] for j in range(scores.shape[-1])])
        )[..., None]
    )
    parts = [jnp.exp(shifted[..., j]) for j in range(scores.shape[-1])]
    total = sum(parts)
    return jnp.stack([part / total for part in parts], axis=-1)


def _write(
    name: str, z: Float[Array, "b q h e"], W_O: Float[Array, "h e d"], taps: Tapped
) -> Float[Array, "b q d"]:
    """sum over heads of z_h W_O[h]: by head where that is listened to, else as one product."""
    if taps.listens(f"{name}.result") or taps.listens(f"{name}.W_O"):
        result = taps.product(
            f"{name}.W_O", z, W_O, lambda z, W: jnp.einsum("bqhe,hed->bqhd", z, W)
        )
        return taps.at(f"{name}.result", result).sum(axis=2)
    h, e, d = W_O.shape
    return matmul(z.reshape(*z.shape[:2], h * e), W_O.reshape(h * e, d))


def _mlp(
    config: TransformerSettings, params: Any, block: str, x: Float[Array, "b q d"], taps: Tapped
) -> Float[Array, "b q d"]:
    """f(norm(x) W_in + b_in) W_out + b_out."""
    mlp, name = params["mlp"], f"{block}.mlp"
    pre = taps.product(
        f"{name}.W_in",
        _norm(config, params.get("ln2"), x, taps, f"{block}.ln2"),
        mlp["W_in"],
        matmul,
    )
    pre = taps.at(f"{name}.pre", pre + spread(mlp["b_in"], pre) if config.mlp_bias else pre)
    post = taps.at(f"{name}.post", ACTIVATIONS[config.activation](pre))
    out = taps.product(f"{name}.W_out", post, mlp["W_out"], matmul)
    return out + spread(mlp["b_out"], out) if config.mlp_bias else out


def _norm(
    config: TransformerSettings,
    params: Any,
    x: Float[Array, "*b d"],
    taps: Tapped | None,
    name: str,
) -> Float[Array, "*b d"]:
    """LayerNorm or RMSNorm over d, or x itself; without taps where a site of its own would be
    ambiguous.
    """
    if config.normalization == "none":
        return x
    at = taps.at if taps is not None else lambda _, value: value
    if config.normalization == "layer":
        x = x - x.mean(axis=-1, keepdims=True)
    scale = at(f"{name}.scale", jnp.sqrt((x * x).mean(axis=-1, keepdims=True) + _NORM_EPSILON))
    x = at(f"{name}.normalized", x / scale) * spread(params["w"], x)
    return x + spread(params["b"], x) if config.normalization == "layer" else x


def _rows(x: Float[Array, "b s *rest"], rows: tuple[int, ...] | None) -> Float[Array, "b t *rest"]:
    """The given positions; all of them as they are."""
    return x if rows is None or rows == tuple(range(x.shape[1])) else x[:, jnp.array(rows)]


def _project(
    x: Float[Array, "b t d"] | Float[Array, "b t h d"], W: Float[Array, "h d e"]
) -> Float[Array, "b t h e"]:
    """x W[h] for every head; x may differ by head."""
    if x.ndim == 4:
        return jnp.einsum("bthd,hde->bthe", x, W)
    h, d, e = W.shape
    return matmul(x, W.transpose(1, 0, 2).reshape(d, h * e)).reshape(*x.shape[:2], h, e)
