"""Sites of the transformer: each with its name, equation and dims, in the order of the forward
pass.
"""

from mi_jax.contracts import Site
from mi_jax.models.transformer.settings import TransformerSettings

_STREAM = ("batch", "position", "d_model")


_HEADS = ("batch", "position", "head", "d_head")


_SCORES = ("batch", "head", "query", "key")


_HIDDEN = ("batch", "position", "d_mlp")


_LOGITS = ("batch", "position", "class")


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
    for i in range(config.layers):
        before = (
            f"blocks.{i - 1}.resid_post" if i else ("embed + pos_embed" if learned else "embed")
        )
        sites += _attention_sites(config, f"blocks.{i}", before)
        sites += _mlp_sites(config, f"blocks.{i}") if config.mlp_size else []
        sites.append(
            Site(
                f"blocks.{i}.resid_post",
                "resid_mid + mlp_out" if config.mlp_size else "resid_mid",
                _STREAM,
            )
        )
    sites += _norm_sites(config, "ln_final", "resid_post")
    x = _normed(config, "ln_final", "resid_post")
    bias = " + b_U" if config.unembed_bias else ""
    return (
        *sites,
        Site("unembed.W_U", f"{x} W_U", ("batch", "position", "class"), "product"),
        Site(
            "logits",
            f"({x} W_U{bias}) logit_scale" if config.logit_scale != 1.0 else f"{x} W_U{bias}",
            ("batch", "position", "class"),
        ),
    )


def _normed(config: TransformerSettings, name: str, x: str) -> str:
    return x if config.normalization == "none" else f"{name}({x})"


def _norm_sites(config: TransformerSettings, name: str, x: str) -> list[Site]:
    if config.normalization == "none":
        return []
    centred = f"({x} - mean({x}))" if config.normalization == "layer" else x
    short = name.split(".")[-1]
    return [
        Site(f"{name}.scale", f"sqrt(mean({centred}^2) + 1e-5)", ("batch", "position", "one")),
        Site(
            f"{name}.normalized",
            f"{centred} / scale; {short}(x) = normalized"
            f" w{' + b' * (config.normalization == 'layer')}",
            _STREAM,
        ),
    ]


def _attention_sites(config: TransformerSettings, block: str, before: str) -> list[Site]:
    a, rotary, biased = f"{block}.attn", config.positions == "rotary", config.attention_bias
    scale = "sqrt(d_head)" if config.attention_scale is None else "attention_scale"
    masked = ", -inf where key > query" if config.attention == "causal" else ""
    sites = [
        Site(f"{block}.resid_pre", before, _STREAM),
        *_norm_sites(config, f"{block}.ln1", "resid_pre"),
    ]
    for x in "qkv":
        heads = ("batch", "position", "head", "d_model")
        sites += [
            Site(
                f"{a}.{x}_input",
                f"resid_pre, a copy for each head's {x} alone, before the norm",
                heads,
                optional=True,
            ),
            Site(
                f"{a}.W_{x.upper()}",
                f"{_normed(config, 'ln1', 'resid_pre')} W_{x.upper()}[head]",
                _HEADS,
                "product",
            ),
            Site(
                f"{a}.{x}",
                f"{_normed(config, 'ln1', 'resid_pre')} W_{x.upper()}[head]"
                + f" + b_{x.upper()}[head]" * biased,
                _HEADS,
            ),
        ]
    if rotary:
        sites += [Site(f"{a}.rot_{x}", f"{x} turned by its position", _HEADS) for x in "qk"]
    q, k = ("rot_q", "rot_k") if rotary else ("q", "k")
    row = "max(query - key, 0)" if config.attention == "causal" else "query - key + positions - 1"
    scores, values = f"{q} . {k}", "v"
    if "K" in config.relative:
        sites.append(Site(f"{a}.W_rel_K", f"q . W_rel_K[head, {row}]", _SCORES, "product"))
        scores = f"(q . k + q . W_rel_K[head, {row}])"
    by_distance = []
    if "V" in config.relative:
        by_distance = [
            Site(
                f"{a}.W_rel_V", f"sum over keys of pattern W_rel_V[head, {row}]", _HEADS, "product"
            )
        ]
        values = f"(v + W_rel_V[head, {row}])"
    pattern = "softmax over keys of attn_scores"
    if config.attention_rate != 1.0:
        pattern = f"attention_rate {pattern} + (1 - attention_rate) where seen"
    return [
        *sites,
        Site(f"{a}.attn_scores", f"{scores} / {scale}{masked}", _SCORES),
        Site(f"{a}.pattern", pattern, _SCORES),
        *by_distance,
        Site(f"{a}.z", f"sum over keys of pattern {values}", _HEADS),
        Site(f"{a}.W_O", "z W_O[head]", ("batch", "position", "head", "d_model"), "product"),
        Site(f"{a}.result", "z W_O[head]", ("batch", "position", "head", "d_model"), optional=True),
        Site(f"{block}.attn_out", "sum over heads of z W_O[head]" + " + b_O" * biased, _STREAM),
        Site(f"{block}.resid_mid", "resid_pre + attn_out", _STREAM),
    ]


def _mlp_sites(config: TransformerSettings, block: str) -> list[Site]:
    m, biased = f"{block}.mlp", config.mlp_bias
    x = _normed(config, "ln2", "mlp_in")
    return [
        Site(f"{block}.mlp_in", "resid_mid, a copy for the MLP alone", _STREAM, optional=True),
        *_norm_sites(config, f"{block}.ln2", "mlp_in"),
        Site(f"{m}.W_in", f"{x} W_in", _HIDDEN, "product"),
        Site(f"{m}.pre", f"{x} W_in" + " + b_in" * biased, _HIDDEN),
        Site(f"{m}.post", f"{config.activation}(pre)", _HIDDEN),
        Site(f"{m}.W_out", "post W_out", _STREAM, "product"),
        Site(f"{block}.mlp_out", "post W_out" + " + b_out" * biased, _STREAM),
    ]
