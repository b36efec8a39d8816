"""A transformer whose every site can be listened to, whose parameters carry TransformerLens's names and row-vector shapes.

Dimension letters: b batch, s sequence position, q query position, k key position, h head, d d_model, e d_head, m d_mlp.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mi_jax.arrays import Params, PRNGKey
from mi_jax.contracts import PLAIN, Architecture, Inputs, Model, Roles, Taps
from mi_jax.errors import nearest, require
from mi_jax.models.activations import ACTIVATIONS, Activation
from mi_jax.models.initial import normal_parameters
from mi_jax.models.positions import by_distance, causal_mask, distance_count, distance_rows, positions_read, rotate
from mi_jax.models.products import lookup, matmul, spread
from mi_jax.models.sites import transformer_sites
from mi_jax.models.table import mix, multiply_adds, project_on_table
from mi_jax.models.taps import Tapped
from mi_jax.models.views import added_by_neurons, attention_heads, neuron_output_map

Normalization = Literal["none", "layer", "rms"]
Positions = Literal["learned", "rotary", "relative", "relative_keys", "none"]
Attention = Literal["causal", "bidirectional"]
Initialization = Literal["nanda_2023", "zhong_2023", "edelman_2024", "fan_in"]

TABLE = "table"
"""The first layer on the token table (see ``table``), not example by example."""

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
    *(f"blocks.0.attn.{name}" for x in "qkv" for name in (f"{x}_input", f"W_{x.upper()}", x, f"rot_{x}")),
    "blocks.0.attn.W_rel_K",
)
"""Sites that the token table leaves out."""

_NORM_EPSILON = 1e-5
_FEW = 8
_LONGEST_TABLE = 8
"""Positions up to which the token table is taken by itself: it is a program of its own for every query and key."""


@dataclass(frozen=True)
class Transformer(Architecture):
    """Pre-norm transformer of 1 to n layers. The defaults are the network of arXiv 2301.05217 (Nanda et al.).

    Attributes:
        layers, d_model, heads: sizes.
        d_head: size of a head; None is d_model / heads, which must then be whole.
        d_mlp: hidden width of the MLPs; None is 4 d_model, 0 leaves them out (attention-only).
        activation: of the MLPs.
        normalization: before attention, MLP and unembedding; eps 1e-5.
        positions: "learned" vectors added to the embedding, "rotary" (halves, base 10,000), "none", or "relative": each layer has
            a vector for every distance query - key and head, W_rel_K added to keys and W_rel_V to values (arXiv 1803.02155, as in
            2402.11004, Edelman et al.); "relative_keys" has those of the keys alone. Their rows [head distance d_head] begin at
            distance 0 where attention is causal, else at 1 - the task's positions.
        attention: which positions a query sees.
        attention_scale: scores are q.k / attention_scale; None is sqrt(d_head).
        attention_rate: the pattern is attention_rate softmax + (1 - attention_rate) ones, over the positions that are seen: from
            uniform sums (0) to attention (1), as in arXiv 2306.17844.
        attention_bias, mlp_bias, unembed_bias: which biases there are; they start at 0.
        output_vocabulary: logits a position has; None is the task's vocabulary, special tokens included.
        logit_scale: multiplies the logits.
        initialization: "nanda_2023": every matrix N(0, 1/d_model), W_U N(0, 1/output_vocabulary); "zhong_2023": the same, W_in
            N(0, 1/d_mlp); "edelman_2024": N(0, .02^2), W_O N(0, .01^2); "fan_in": N(0, 1/rows), W_E and W_pos N(0, 1/d_model),
            W_rel_K and W_rel_V N(0, 1/d_head).
        init_scale: multiplies every initial matrix.
    """

    layers: int = 1
    d_model: int = 128
    heads: int = 4
    d_head: int | None = None
    d_mlp: int | None = None
    activation: Activation = "relu"
    normalization: Normalization = "none"
    positions: Positions = "learned"
    attention: Attention = "causal"
    attention_scale: float | None = None
    attention_rate: float = 1.0
    attention_bias: bool = False
    mlp_bias: bool = True
    unembed_bias: bool = False
    output_vocabulary: int | None = None
    logit_scale: float = 1.0
    initialization: Initialization = "nanda_2023"
    init_scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("layers", "d_model", "heads"):
            require(getattr(self, name) >= 1, f"{name}={getattr(self, name)}: must be at least 1")
        require(
            self.d_head is not None or self.d_model % self.heads == 0,
            f"heads={self.heads} don't divide d_model={self.d_model}; choose a divisor, or give d_head",
        )
        require(self.d_head is None or self.d_head >= 1, f"d_head={self.d_head}: must be at least 1")
        require(self.d_mlp is None or self.d_mlp >= 0, f"d_mlp={self.d_mlp}: must be at least 0")
        require(self.attention_scale is None or self.attention_scale > 0, f"attention_scale={self.attention_scale}: must be > 0")
        require(math.isfinite(self.logit_scale), f"logit_scale={self.logit_scale}: must be a finite number")
        require(0 <= self.init_scale < math.inf, f"init_scale={self.init_scale}: must be a finite number of at least 0")
        require(0 <= self.attention_rate <= 1, f"attention_rate={self.attention_rate}: must lie between 0 and 1")
        require(
            self.positions != "rotary" or self.head_size % 2 == 0, f"rotary positions need an even d_head, not {self.head_size}"
        )
        for name, kinds in (
            ("activation", Activation),
            ("normalization", Normalization),
            ("positions", Positions),
            ("attention", Attention),
            ("initialization", Initialization),
        ):
            value = getattr(self, name)
            require(value in get_args(kinds), f"{name}={value!r} is unknown; {nearest(str(value), get_args(kinds))}")

    @property
    def head_size(self) -> int:
        """d_head as used."""
        return self.d_head or self.d_model // self.heads

    @property
    def score_scale(self) -> float:
        """attention_scale as used."""
        return self.attention_scale or math.sqrt(self.head_size)

    @property
    def mlp_size(self) -> int:
        """d_mlp as used; 0 without MLPs."""
        return 4 * self.d_model if self.d_mlp is None else self.d_mlp

    @property
    def relative(self) -> str:
        """The letters of what distances are added to: keys, values, or nothing."""
        return {"relative": "KV", "relative_keys": "K"}.get(self.positions, "")

    def outputs(self, inputs: Inputs) -> int:
        """How many logits a position has. Raises ConfigError where they are fewer than the task's classes."""
        outputs = inputs.vocabulary if self.output_vocabulary is None else self.output_vocabulary
        require(outputs >= inputs.classes, f"output_vocabulary={outputs} is less than the task's {inputs.classes} classes")
        return outputs

    def shapes(self, inputs: Inputs) -> dict[str, tuple[int, ...]]:
        """Every parameter's shape by dotted name."""
        d, h, e, m = self.d_model, self.heads, self.head_size, self.mlp_size
        shapes: dict[str, tuple[int, ...]] = {"embed.W_E": (inputs.vocabulary, d)}
        if self.positions == "learned":
            shapes["pos_embed.W_pos"] = (inputs.positions, d)
        for block in (f"blocks.{i}" for i in range(self.layers)):
            shapes |= self._norm_shapes(f"{block}.ln1")
            shapes |= {f"{block}.attn.W_{x}": (h, d, e) for x in "QKV"} | {f"{block}.attn.W_O": (h, e, d)}
            distances = distance_count(inputs.positions, causal=self.attention == "causal")
            shapes |= {f"{block}.attn.W_rel_{x}": (h, distances, e) for x in self.relative}
            if self.attention_bias:
                shapes |= {f"{block}.attn.b_{x}": (h, e) for x in "QKV"} | {f"{block}.attn.b_O": (d,)}
            if m:
                shapes |= self._norm_shapes(f"{block}.ln2")
                shapes |= {f"{block}.mlp.W_in": (d, m), f"{block}.mlp.W_out": (m, d)}
                if self.mlp_bias:
                    shapes |= {f"{block}.mlp.b_in": (m,), f"{block}.mlp.b_out": (d,)}
        shapes |= self._norm_shapes("ln_final")
        shapes["unembed.W_U"] = (d, self.outputs(inputs))
        if self.unembed_bias:
            shapes["unembed.b_U"] = (self.outputs(inputs),)
        return shapes

    def _norm_shapes(self, name: str) -> dict[str, tuple[int, ...]]:
        d = (self.d_model,)
        return {"none": {}, "layer": {f"{name}.w": d, f"{name}.b": d}, "rms": {f"{name}.w": d}}[self.normalization]

    def _scale(self, name: str, shape: tuple[int, ...]) -> float:
        if self.initialization == "edelman_2024":
            return self.init_scale * (0.01 if name.endswith("W_O") else 0.02)
        rows = shape[0] * shape[1] if name.endswith("W_O") else shape[-2]
        if self.initialization in ("nanda_2023", "zhong_2023"):
            by_columns = ("unembed.W_U", *((".mlp.W_in",) if self.initialization == "zhong_2023" else ()))
            variance = shape[-1] if name.endswith(by_columns) else self.d_model
        elif ".W_rel_" in name:
            variance = shape[-1]
        else:
            variance = self.d_model if name.startswith(("embed", "pos_embed")) else rows
        return self.init_scale / math.sqrt(variance)

    def build(self, inputs: Inputs) -> Model:
        """The model for these inputs."""
        task_inputs = inputs
        require(inputs.kind == "tokens", f"a transformer reads tokens, the task gives {inputs.kind}; use an mlp")
        require(
            not inputs.causal or self.attention == "causal",
            f"attention={self.attention!r} would see the answers, which stand in this task's input; use 'causal'",
        )
        shapes = self.shapes(inputs)
        scales = {name: self._scale(name, shape) for name, shape in shapes.items() if name.split(".")[-1].startswith("W_")}
        sites = transformer_sites(self)

        def init(key: PRNGKey) -> Params:
            return normal_parameters(key, shapes, scales)

        def along(route: str | None) -> Callable[..., Float[Array, "batch read class"]]:
            def apply(
                params: Params,
                inputs: Int[Array, "batch position"],
                *,
                taps: Taps | None = None,
                positions: tuple[int, ...] | None = None,
            ) -> Float[Array, "batch read class"]:
                chosen = route or self.cheapest_route(task_inputs, inputs.shape, positions)
                return _forward(self, params, inputs, Tapped(taps, sites), positions, task_inputs if chosen == TABLE else None)

            return apply

        last = f"blocks.{self.layers - 1}"
        roles = Roles(
            embedding=(lambda params: params["embed"]["W_E"][: inputs.tokens],),
            output_map=neuron_output_map(self.layers - 1, inputs.classes) if self.mlp_size else None,
            neurons=f"{last}.mlp.post" if self.mlp_size else None,
            neurons_added=added_by_neurons(self.layers - 1, inputs.classes) if self.mlp_size else None,
            embedded="embed",
            unembedding=lambda params: params["unembed"]["W_U"][:, : inputs.classes],
            heads=attention_heads(self.layers),
            attention=tuple(f"blocks.{i}.attn.attn_scores" for i in range(self.layers)),
            patterns=tuple(f"blocks.{i}.attn.pattern" for i in range(self.layers)),
            linear_readout=self.normalization == "none" and self.logit_scale == 1.0,
            writers=self._writers(),
            readers=self._readers(),
        )
        return Model(init, along(None), roles, sites, {route: along(route) for route in (PLAIN, TABLE)}, self.cheapest_route)

    def cheapest_route(self, inputs: Inputs, shape: tuple[int, ...], positions: tuple[int, ...] | None) -> str:
        """The way of computing the first layer that takes fewer multiply-adds for inputs of this shape."""
        everywhere = range(shape[1])
        if inputs.positions > _LONGEST_TABLE or shape[1] != inputs.positions or not {*(positions or ())} <= {*everywhere}:
            return PLAIN
        queries = everywhere if positions is None or self.layers > 1 else positions
        plain, table = multiply_adds(inputs, shape[0], list(queries), self.d_model, self.heads, self.head_size)
        return TABLE if table < plain else PLAIN

    def _writers(self) -> tuple[str, ...]:
        parts = ["embed", *(["pos_embed"] if self.positions == "learned" else [])]
        for i in range(self.layers):
            parts += [f"blocks.{i}.attn.result", *([f"blocks.{i}.mlp_out"] if self.mlp_size else [])]
        return tuple(parts)

    def _readers(self) -> tuple[str, ...]:
        parts: list[str] = []
        for i in range(self.layers):
            parts += [f"blocks.{i}.attn.{x}_input" for x in "qkv"]
            parts += [f"blocks.{i}.mlp_in"] if self.mlp_size else []
        return (*parts, f"blocks.{self.layers - 1}.resid_post")


def _forward(
    config: Transformer,
    params: Any,
    tokens: Int[Array, "b s"],
    taps: Tapped,
    positions: tuple[int, ...] | None,
    alphabet: Inputs | None,
) -> Float[Array, "b q classes"]:
    """The whole forward pass; only ``positions`` are computed from the last layer's queries on.

    With ``alphabet`` the first layer goes by the token table, unless a tap listens to what that leaves out.
    """
    everywhere, read = tuple(range(tokens.shape[1])), positions_read(positions, tokens.shape[1])
    hidden = [site for site in _BEFORE_SCORES if taps.listens(site) and not (site == "embed" and taps.by_position(site))]
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


def _embedded(config: Transformer, params: Any, tokens: Int[Array, "b s"], taps: Tapped) -> Float[Array, "b s d"]:
    """Embedding and positions."""
    x = taps.at("embed", taps.product("embed.W_E", tokens, params["embed"]["W_E"], lookup))
    if config.positions != "learned":
        return x
    rows = jnp.arange(tokens.shape[1])
    return x + spread(taps.at("pos_embed", taps.product("pos_embed.W_pos", rows, params["pos_embed"]["W_pos"], lookup)), x)


def _block(
    config: Transformer, params: Any, name: str, x: Float[Array, "b s d"], taps: Tapped, queries: tuple[int, ...]
) -> Float[Array, "b q d"]:
    """One layer; from the queries on only those positions are computed."""
    x = taps.at(f"{name}.resid_pre", x)
    attended = _attention(config, params, name, x, taps, queries)
    return _after_attention(config, params, name, _rows(x, queries), attended, taps)


def _first_block_on_table(
    config: Transformer, params: Any, inputs: Inputs, tokens: Int[Array, "b s"], taps: Tapped, queries: tuple[int, ...]
) -> Float[Array, "b q d"]:
    """The first layer by way of the token table: see ``table``."""
    block = params["blocks"]["0"]
    attn, name = block["attn"], "blocks.0"

    def project(rows: Float[Array, "n d"], places: Int[Array, " n"]) -> tuple[Float[Array, "n h e"], ...]:
        normed = _norm(config, block.get("ln1"), rows, None, "")[None]
        q, k, v = (_project(normed, attn[f"W_{x}"]) for x in "QKV")
        if config.attention_bias:
            q, k, v = (x + spread(attn[f"b_{letter}"], x) for x, letter in ((q, "Q"), (k, "K"), (v, "V")))
        if config.positions == "rotary":
            q, k = rotate(q, places), rotate(k, places)
        return q[0], k[0], v[0]

    apart = None
    if config.relative:
        apart = by_distance(attn["W_rel_K"], _distances(config, attn, range(tokens.shape[1]), tokens.shape[1]))
    seen = project_on_table(params, tokens, inputs, queries, config.score_scale, project, taps.by_position("embed"), apart)
    attended = _attend(config, attn, f"{name}.attn", seen.scores, lambda pattern: mix(pattern, seen.values), taps, queries)
    return _after_attention(config, block, name, seen.stream, attended, taps)


def _after_attention(
    config: Transformer, params: Any, name: str, x: Float[Array, "b q d"], attended: Float[Array, "b q d"], taps: Tapped
) -> Float[Array, "b q d"]:
    """The rest of a layer, at its queries."""
    x = taps.at(f"{name}.resid_mid", x + taps.at(f"{name}.attn_out", attended))
    if config.mlp_size:
        x = x + taps.at(f"{name}.mlp_out", _mlp(config, params, name, taps.at(f"{name}.mlp_in", x), taps))
    return taps.at(f"{name}.resid_post", x)


def _attention(
    config: Transformer, params: Any, block: str, x: Float[Array, "b s d"], taps: Tapped, queries: tuple[int, ...]
) -> Float[Array, "b q d"]:
    """softmax(q k^T / scale) v W_O, with a site at every step."""
    attn, name = params["attn"], f"{block}.attn"
    by_head = [f"{name}.{letter}_input" for letter in "qkv" if taps.listens(f"{name}.{letter}_input")]
    shared = [f"{block}.ln1.{part}" for part in ("scale", "normalized") if taps.listens(f"{block}.ln1.{part}")]
    require(not (by_head and shared), f"{shared} and {by_head} can't be tapped at once: the heads' inputs are normed apart")
    normed = _norm(config, params.get("ln1"), x, taps, f"{block}.ln1")

    def project(letter: str, rows: tuple[int, ...] | None) -> Float[Array, "b t h e"]:
        source, site = normed, f"{name}.{letter.lower()}_input"
        if taps.listens(site):
            per_head = jnp.broadcast_to(x[:, :, None, :], (*x.shape[:2], config.heads, x.shape[2]))
            source = _norm(config, params.get("ln1"), taps.at(site, _rows(per_head, rows)), None, "")
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
    return _attend(config, attn, name, scores, lambda pattern: jnp.einsum("bhqk,bkhe->bqhe", pattern, v), taps, queries)


def _attend(
    config: Transformer,
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
        pattern = config.attention_rate * pattern + (1 - config.attention_rate) * jnp.isfinite(scores)
    pattern = taps.at(f"{name}.pattern", pattern)
    z = mix(pattern)
    if "V" in config.relative:
        rows = _distances(config, attn, queries, scores.shape[-1])
        by_pair = lambda pattern, W: jnp.einsum("bhqk,qkhe->bqhe", pattern, by_distance(W, rows))  # noqa: E731
        z = z + taps.product(f"{name}.W_rel_V", pattern, attn["W_rel_V"], by_pair)
    z = taps.at(f"{name}.z", z)
    out = _write(name, z, attn["W_O"], taps)
    return out + spread(attn["b_O"], out) if config.attention_bias else out


def _distances(config: Transformer, attn: Any, queries: Sequence[int], length: int) -> Int[Array, "q k"]:
    """By query and key, the row of this layer's vectors by distance."""
    return distance_rows(queries, length, attn["W_rel_K"].shape[1], causal=config.attention == "causal")


def _softmax(scores: Float[Array, "b h q k"]) -> Float[Array, "b h q k"]:
    """Over the keys; a few of them one by one, since reductions over short axes are slow on CPU."""
    if scores.shape[-1] > _FEW:
        return jax.nn.softmax(scores, axis=-1)
    shifted = scores - jax.lax.stop_gradient(reduce(jnp.maximum, [scores[..., j] for j in range(scores.shape[-1])]))[..., None]
    parts = [jnp.exp(shifted[..., j]) for j in range(scores.shape[-1])]
    total = sum(parts)
    return jnp.stack([part / total for part in parts], axis=-1)


def _write(name: str, z: Float[Array, "b q h e"], W_O: Float[Array, "h e d"], taps: Tapped) -> Float[Array, "b q d"]:
    """sum over heads of z_h W_O[h]: by head where that is listened to, else as one product."""
    if taps.listens(f"{name}.result") or taps.listens(f"{name}.W_O"):
        result = taps.product(f"{name}.W_O", z, W_O, lambda z, W: jnp.einsum("bqhe,hed->bqhd", z, W))
        return taps.at(f"{name}.result", result).sum(axis=2)
    h, e, d = W_O.shape
    return matmul(z.reshape(*z.shape[:2], h * e), W_O.reshape(h * e, d))


def _mlp(config: Transformer, params: Any, block: str, x: Float[Array, "b q d"], taps: Tapped) -> Float[Array, "b q d"]:
    """f(norm(x) W_in + b_in) W_out + b_out."""
    mlp, name = params["mlp"], f"{block}.mlp"
    pre = taps.product(f"{name}.W_in", _norm(config, params.get("ln2"), x, taps, f"{block}.ln2"), mlp["W_in"], matmul)
    pre = taps.at(f"{name}.pre", pre + spread(mlp["b_in"], pre) if config.mlp_bias else pre)
    post = taps.at(f"{name}.post", ACTIVATIONS[config.activation](pre))
    out = taps.product(f"{name}.W_out", post, mlp["W_out"], matmul)
    return out + spread(mlp["b_out"], out) if config.mlp_bias else out


def _norm(config: Transformer, params: Any, x: Float[Array, "*b d"], taps: Tapped | None, name: str) -> Float[Array, "*b d"]:
    """LayerNorm or RMSNorm over d, or x itself; without taps where a site of its own would be ambiguous."""
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


def _project(x: Float[Array, "b t d"] | Float[Array, "b t h d"], W: Float[Array, "h d e"]) -> Float[Array, "b t h e"]:
    """x W[h] for every head; x may differ by head."""
    if x.ndim == 4:
        return jnp.einsum("bthd,hde->bthe", x, W)
    h, d, e = W.shape
    return matmul(x, W.transpose(1, 0, 2).reshape(d, h * e)).reshape(*x.shape[:2], h, e)
