"""The forward pass of a transformer, with a tap at every site.

Dimension letters: b batch, s sequence position, t positions that are read, q query position,
k key position, h head, d d_model, e d_head, m d_mlp.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mi_jax.basics.errors import ConfigError
from mi_jax.contracts import Inputs
from mi_jax.models.activations import ACTIVATIONS
from mi_jax.models.positions import by_distance, causal_mask, distance_rows, positions_read, rotate
from mi_jax.models.products import lookup, matmul, spread
from mi_jax.models.taps import Tapped
from mi_jax.models.transformer.settings import TransformerSettings
from mi_jax.models.transformer.table import mix, project_on_table

_NOT_ON_TABLE = (
    "embed.W_E",
    "embed",
    "pos_embed.W_pos",
    "pos_embed",
    "blocks.0.resid_pre",
    "blocks.0.ln1.scale",
    "blocks.0.ln1.normalized",
    *(
        f"blocks.0.attn.{name}"
        for x in "qkv"
        for name in (f"{x}_input", f"W_{x.upper()}", x, f"rot_{x}")
    ),
    "blocks.0.attn.W_rel_K",
)
"""Sites whose values the token table never computes."""

_NORM_EPSILON = 1e-5
_FEW_KEYS = 8
"""The most keys for which the softmax is written out key by key."""


def forward(
    config: TransformerSettings,
    params: Any,
    tokens: Int[Array, "b s"],
    taps: Tapped,
    positions: tuple[int, ...] | None,
    alphabet: Inputs | None,
) -> Float[Array, "b q classes"]:
    """Computes the logits.

    From the queries of the last layer on, only ``positions`` are computed.

    Args:
        config: the settings.
        params: the model's parameters.
        tokens: the batch.
        taps: the taps of this pass.
        positions: the positions whose logits are wanted; None for all.
        alphabet: the task's inputs, to compute the first layer on the token table; None to compute
            it example by example. The table is also left if a tap sits at a site that it never
            computes.

    Raises:
        ConfigError: for positions outside the input, or taps that exclude each other.
    """
    everywhere, read = tuple(range(tokens.shape[1])), positions_read(positions, tokens.shape[1])
    bypassed = [
        site
        for site in _NOT_ON_TABLE
        if taps.listens(site) and not (site == "embed" and taps.by_position(site))
    ]
    on_table = alphabet is not None and not bypassed
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
    if config.logit_scale != 1.0:
        logits = config.logit_scale * logits
    return taps.at("logits", logits)


def _embedded(
    config: TransformerSettings, params: Any, tokens: Int[Array, "b s"], taps: Tapped
) -> Float[Array, "b s d"]:
    """The residual stream before layer 0: embedding plus learned positions, if there are any."""
    x = taps.at("embed", taps.product("embed.W_E", tokens, params["embed"]["W_E"], lookup))
    if config.positions != "learned":
        return x
    rows = jnp.arange(tokens.shape[1])
    positional = taps.product("pos_embed.W_pos", rows, params["pos_embed"]["W_pos"], lookup)
    return x + spread(taps.at("pos_embed", positional), x)


def _block(
    config: TransformerSettings,
    params: Any,
    name: str,
    x: Float[Array, "b s d"],
    taps: Tapped,
    queries: tuple[int, ...],
) -> Float[Array, "b q d"]:
    """One layer. Attention reads every position of x and writes at ``queries`` alone.

    Args:
        config: the settings of the model.
        params: of this layer.
        name: site prefix of this layer, such as ``blocks.0``.
        x: the residual stream before the layer, at all positions.
        taps: record or replace values at the sites.
        queries: the positions at which the layer's output is computed.

    Returns:
        The residual stream after the layer, at ``queries``.
    """
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
    """The first layer, its attention computed on the token table (see ``table``)."""
    block = params["blocks"]["0"]
    attn, name = block["attn"], "blocks.0"

    def project(
        rows: Float[Array, "n d"], positions: Int[Array, " n"]
    ) -> tuple[Float[Array, "n h e"], ...]:
        normed = _norm(config, block.get("ln1"), rows, None, "")[None]
        q, k, v = (_project(normed, attn[f"W_{x}"]) for x in "QKV")
        if config.attention_bias:
            q, k, v = (
                x + spread(attn[f"b_{letter}"], x) for x, letter in ((q, "Q"), (k, "K"), (v, "V"))
            )
        if config.positions == "rotary":
            q, k = rotate(q, positions), rotate(k, positions)
        return q[0], k[0], v[0]

    relative_keys = None
    if config.relative:
        length = tokens.shape[1]
        rows = _distances(config, attn, range(length), length)
        relative_keys = by_distance(attn["W_rel_K"], rows)
    projected = project_on_table(
        params,
        tokens,
        inputs,
        queries,
        config.score_scale,
        project,
        taps.by_position("embed"),
        relative_keys,
    )
    attended = _attend(
        config,
        attn,
        f"{name}.attn",
        projected.scores,
        lambda pattern: mix(pattern, projected.values),
        taps,
        queries,
    )
    return _after_attention(config, block, name, projected.stream, attended, taps)


def _after_attention(
    config: TransformerSettings,
    params: Any,
    name: str,
    x: Float[Array, "b q d"],
    attended: Float[Array, "b q d"],
    taps: Tapped,
) -> Float[Array, "b q d"]:
    """The rest of a layer after attention: the residual sums and the MLP."""
    x = taps.at(f"{name}.resid_mid", x + taps.at(f"{name}.attn_out", attended))
    if config.mlp_size:
        written = _mlp(config, params, name, taps.at(f"{name}.mlp_in", x), taps)
        x = x + taps.at(f"{name}.mlp_out", written)
    return taps.at(f"{name}.resid_post", x)


def _attention(
    config: TransformerSettings,
    params: Any,
    block: str,
    x: Float[Array, "b s d"],
    taps: Tapped,
    queries: tuple[int, ...],
) -> Float[Array, "b q d"]:
    """softmax(q k^T / scale) v W_O, with a tap at every step.

    Args:
        config: the settings of the model.
        params: of this layer.
        block: site prefix of this layer, such as ``blocks.0``.
        x: the residual stream before the layer, at all positions.
        taps: record or replace values at the sites.
        queries: the positions at which the output is computed.

    Returns:
        What attention adds to the residual stream, at ``queries``.
    """
    attn, name = params["attn"], f"{block}.attn"
    _check_taps(block, taps)
    normed = _norm(config, params.get("ln1"), x, taps, f"{block}.ln1")

    def project(letter: str, rows: tuple[int, ...] | None) -> Float[Array, "b t h e"]:
        site = f"{name}.{letter.lower()}_input"
        if taps.listens(site):
            by_head = jnp.broadcast_to(x[:, :, None, :], (*x.shape[:2], config.heads, x.shape[2]))
            by_head = taps.at(site, _rows(by_head, rows))
            source = _norm(config, params.get("ln1"), by_head, None, "")
        else:
            source = _rows(normed, rows)
        value = taps.product(f"{name}.W_{letter}", source, attn[f"W_{letter}"], _project)
        if config.attention_bias:
            value = value + spread(attn[f"b_{letter}"], value)
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


def _check_taps(block: str, taps: Tapped) -> None:
    """Refuses taps on the norm that all heads share beside taps on the inputs of single heads.

    The inputs of single heads are normed separately, so the shared norm would have no one value.
    """
    by_head = [f"{block}.attn.{letter}_input" for letter in "qkv"]
    shared = [f"{block}.ln1.{part}" for part in ("scale", "normalized")]
    by_head, shared = (
        [site for site in sites if taps.listens(site)] for sites in (by_head, shared)
    )
    if by_head and shared:
        raise ConfigError(
            f"Sites {shared} and {by_head} cannot be tapped at once, because the inputs of single"
            " heads are normed separately. Tap them in two passes."
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
    """Attention from the scores on: the mask, the pattern, the mixed values z, and W_O.

    Args:
        config: the settings of the model.
        attn: the parameters of this layer's attention.
        name: site prefix of this layer's attention, such as ``blocks.0.attn``.
        scores: scaled scores before the mask.
        mix: the pattern -> z, the mixed values of each head.
        taps: record or replace values at the sites.
        queries: the positions of the axis q.

    Returns:
        What attention adds to the residual stream, at ``queries``.
    """
    if config.attention == "causal":
        scores = jnp.where(spread(causal_mask(queries, scores.shape[-1]), scores), scores, -jnp.inf)
    scores = taps.at(f"{name}.attn_scores", scores)
    pattern = _softmax(scores)
    if config.attention_rate != 1.0:
        rate = config.attention_rate
        pattern = rate * pattern + (1 - rate) * jnp.isfinite(scores)
    pattern = taps.at(f"{name}.pattern", pattern)
    z = mix(pattern)
    if "V" in config.relative:
        rows = _distances(config, attn, queries, scores.shape[-1])

        def by_pair(pattern: Any, W: Any) -> Any:
            return jnp.einsum("bhqk,qkhe->bqhe", pattern, by_distance(W, rows))

        z = z + taps.product(f"{name}.W_rel_V", pattern, attn["W_rel_V"], by_pair)
    z = taps.at(f"{name}.z", z)
    out = _write(name, z, attn["W_O"], taps)
    return out + spread(attn["b_O"], out) if config.attention_bias else out


def _distances(
    config: TransformerSettings, attn: Any, queries: Sequence[int], length: int
) -> Int[Array, "q k"]:
    """The row of each (query, key) in this layer's tables of vectors by distance."""
    return distance_rows(
        queries, length, attn["W_rel_K"].shape[1], causal=config.attention == "causal"
    )


def _softmax(scores: Float[Array, "b h q k"]) -> Float[Array, "b h q k"]:
    """Softmax over the keys.

    A few keys are written out one by one, since reductions over short axes are slow on CPU.
    """
    if scores.shape[-1] > _FEW_KEYS:
        return jax.nn.softmax(scores, axis=-1)
    keys = range(scores.shape[-1])
    # The largest score is subtracted so that exp cannot overflow. It cancels in the quotient, hence
    # stop_gradient.
    largest = jax.lax.stop_gradient(reduce(jnp.maximum, [scores[..., j] for j in keys]))
    shifted = scores - largest[..., None]
    parts = [jnp.exp(shifted[..., j]) for j in keys]
    total = sum(parts)
    return jnp.stack([part / total for part in parts], axis=-1)


def _write(
    name: str, z: Float[Array, "b q h e"], W_O: Float[Array, "h e d"], taps: Tapped
) -> Float[Array, "b q d"]:
    """Sum over heads of z_h W_O[h]: head by head if a tap needs that, else as one product."""
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
    x = _norm(config, params.get("ln2"), x, taps, f"{block}.ln2")
    pre = taps.product(f"{name}.W_in", x, mlp["W_in"], matmul)
    if config.mlp_bias:
        pre = pre + spread(mlp["b_in"], pre)
    pre = taps.at(f"{name}.pre", pre)
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
    """LayerNorm or RMSNorm over d, or x itself without normalization.

    Args:
        config: the settings.
        params: weight w and, for LayerNorm, bias b.
        x: the input.
        taps: taps of the norm's sites; None if these sites would have no single value.
        name: the norm's name; read only with ``taps``.
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
    """x at the given positions; x itself for None or all of them."""
    return x if rows is None or rows == tuple(range(x.shape[1])) else x[:, jnp.array(rows)]


def _project(
    x: Float[Array, "b t d"] | Float[Array, "b t h d"], W: Float[Array, "h d e"]
) -> Float[Array, "b t h e"]:
    """x W[h] for every head h; with four axes, x differs by head."""
    if x.ndim == 4:
        return jnp.einsum("bthd,hde->bthe", x, W)
    h, d, e = W.shape
    return matmul(x, W.transpose(1, 0, 2).reshape(d, h * e)).reshape(*x.shape[:2], h, e)
