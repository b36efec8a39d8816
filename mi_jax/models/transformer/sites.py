"""Sites of the transformer, each with its name, equation and dims."""

from mi_jax.contracts import Site
from mi_jax.models.site_dims import LOGIT_DIMS
from mi_jax.models.transformer.settings import TransformerSettings

_STREAM = ("batch", "position", "d_model")
_STREAM_BY_HEAD = ("batch", "position", "head", "d_model")
_HEADS = ("batch", "position", "head", "d_head")
_SCORES = ("batch", "head", "query", "key")
_HIDDEN = ("batch", "position", "d_mlp")


def transformer_sites(config: TransformerSettings) -> tuple[Site, ...]:
    """The sites of a transformer, in the order of the forward pass."""
    learned = config.positions == "learned"
    sites = [
        Site("embed.W_E", "W_E[tokens]", _STREAM, "product"),
        Site("embed", "W_E[tokens]", _STREAM),
    ]
    if learned:
        sites += [
            Site("pos_embed.W_pos", "W_pos[0, 1, ...]", ("position", "d_model"), "product"),
            Site("pos_embed", "W_pos[0, 1, ...]", ("position", "d_model")),
        ]
    before = "embed + pos_embed" if learned else "embed"
    for i in range(config.layers):
        sites += _attention_sites(config, f"blocks.{i}", before)
        after = "resid_mid"
        if config.mlp_size:
            sites += _mlp_sites(config, f"blocks.{i}")
            after = "resid_mid + mlp_out"
        sites.append(Site(f"blocks.{i}.resid_post", after, _STREAM))
        before = f"blocks.{i}.resid_post"
    sites += _norm_sites(config, "ln_final", "resid_post")
    product = f"{_normed(config, 'ln_final', 'resid_post')} W_U"
    logits = f"{product} + b_U" if config.unembed_bias else product
    if config.logit_scale != 1.0:
        logits = f"({logits}) logit_scale"
    return (
        *sites,
        Site("unembed.W_U", product, LOGIT_DIMS, "product"),
        Site("logits", logits, LOGIT_DIMS),
    )


def _normed(config: TransformerSettings, name: str, x: str) -> str:
    return x if config.normalization == "none" else f"{name}({x})"


def _norm_sites(config: TransformerSettings, name: str, x: str) -> list[Site]:
    """The sites of the norm ``name`` of x; none without normalization."""
    if config.normalization == "none":
        return []
    centred, shift = x, ""
    if config.normalization == "layer":
        centred, shift = f"({x} - mean({x}))", " + b"
    short = name.split(".")[-1]
    return [
        Site(f"{name}.scale", f"sqrt(mean({centred}^2) + 1e-5)", ("batch", "position", "one")),
        Site(
            f"{name}.normalized",
            f"{centred} / scale; {short}(x) = normalized w{shift}",
            _STREAM,
        ),
    ]


def _attention_sites(config: TransformerSettings, block: str, before: str) -> list[Site]:
    """The sites of a layer up to ``resid_mid``; ``before`` is the equation of its input."""
    return [
        Site(f"{block}.resid_pre", before, _STREAM),
        *_norm_sites(config, f"{block}.ln1", "resid_pre"),
        *(site for letter in "qkv" for site in _projection_sites(config, block, letter)),
        *_pattern_sites(config, f"{block}.attn"),
        *_output_sites(config, block),
    ]


def _projection_sites(config: TransformerSettings, block: str, letter: str) -> list[Site]:
    """The sites of the projection to queries, keys or values."""
    attn, upper = f"{block}.attn", letter.upper()
    product = f"{_normed(config, 'ln1', 'resid_pre')} W_{upper}[head]"
    projected = f"{product} + b_{upper}[head]" if config.attention_bias else product
    return [
        Site(
            f"{attn}.{letter}_input",
            f"resid_pre, a copy for each head's {letter} alone, before the norm",
            _STREAM_BY_HEAD,
            optional=True,
        ),
        Site(f"{attn}.W_{upper}", product, _HEADS, "product"),
        Site(f"{attn}.{letter}", projected, _HEADS),
    ]


def _pattern_sites(config: TransformerSettings, attn: str) -> list[Site]:
    """The sites from the scores to the mixed values z."""
    sites: list[Site] = []
    causal = config.attention == "causal"
    q, k = "q", "k"
    if config.positions == "rotary":
        q, k = "rot_q", "rot_k"
        sites += [Site(f"{attn}.rot_{x}", f"{x} turned by its position", _HEADS) for x in "qk"]
    row = "max(query - key, 0)" if causal else "query - key + positions - 1"
    scores, values = f"{q} . {k}", "v"
    if "K" in config.relative:
        relative = f"q . W_rel_K[head, {row}]"
        sites.append(Site(f"{attn}.W_rel_K", relative, _SCORES, "product"))
        scores = f"(q . k + {relative})"
    scale = "sqrt(d_head)" if config.attention_scale is None else "attention_scale"
    masked = ", -inf where key > query" if causal else ""
    pattern = "softmax over keys of attn_scores"
    if config.attention_rate != 1.0:
        pattern = f"attention_rate {pattern} + (1 - attention_rate) where seen"
    sites += [
        Site(f"{attn}.attn_scores", f"{scores} / {scale}{masked}", _SCORES),
        Site(f"{attn}.pattern", pattern, _SCORES),
    ]
    if "V" in config.relative:
        relative = f"W_rel_V[head, {row}]"
        equation = f"sum over keys of pattern {relative}"
        sites.append(Site(f"{attn}.W_rel_V", equation, _HEADS, "product"))
        values = f"(v + {relative})"
    return [*sites, Site(f"{attn}.z", f"sum over keys of pattern {values}", _HEADS)]


def _output_sites(config: TransformerSettings, block: str) -> list[Site]:
    """The sites of what attention writes."""
    written = "sum over heads of z W_O[head]"
    if config.attention_bias:
        written += " + b_O"
    return [
        Site(f"{block}.attn.W_O", "z W_O[head]", _STREAM_BY_HEAD, "product"),
        Site(f"{block}.attn.result", "z W_O[head]", _STREAM_BY_HEAD, optional=True),
        Site(f"{block}.attn_out", written, _STREAM),
        Site(f"{block}.resid_mid", "resid_pre + attn_out", _STREAM),
    ]


def _mlp_sites(config: TransformerSettings, block: str) -> list[Site]:
    """The sites of a layer's MLP."""
    mlp = f"{block}.mlp"
    pre = f"{_normed(config, 'ln2', 'mlp_in')} W_in"
    biased_pre, out = pre, "post W_out"
    if config.mlp_bias:
        biased_pre, out = f"{pre} + b_in", "post W_out + b_out"
    return [
        Site(f"{block}.mlp_in", "resid_mid, a copy for the MLP alone", _STREAM, optional=True),
        *_norm_sites(config, f"{block}.ln2", "mlp_in"),
        Site(f"{mlp}.W_in", pre, _HIDDEN, "product"),
        Site(f"{mlp}.pre", biased_pre, _HIDDEN),
        Site(f"{mlp}.post", f"{config.activation}(pre)", _HIDDEN),
        Site(f"{mlp}.W_out", "post W_out", _STREAM, "product"),
        Site(f"{block}.mlp_out", out, _STREAM),
    ]
