"""Every site of the models: its name, equation and dims. The page ``docs/sites.md`` is made from these lists, and tested."""

from typing import TYPE_CHECKING

from mi_jax.contracts import Site

if TYPE_CHECKING:
    from mi_jax.models.mlp import MLP
    from mi_jax.models.transformer import Transformer

_STREAM = ("batch", "position", "d_model")
_HEADS = ("batch", "position", "head", "d_head")
_SCORES = ("batch", "head", "query", "key")
_HIDDEN = ("batch", "position", "d_mlp")
_NEURONS = ("batch", "position", "neuron")
_LOGITS = ("batch", "position", "class")


def transformer_sites(config: "Transformer") -> tuple[Site, ...]:
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
        before = f"blocks.{i - 1}.resid_post" if i else ("embed + pos_embed" if learned else "embed")
        sites += _attention_sites(config, f"blocks.{i}", before)
        sites += _mlp_sites(config, f"blocks.{i}") if config.mlp_size else []
        sites.append(Site(f"blocks.{i}.resid_post", "resid_mid + mlp_out" if config.mlp_size else "resid_mid", _STREAM))
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


def _normed(config: "Transformer", name: str, x: str) -> str:
    return x if config.normalization == "none" else f"{name}({x})"


def _norm_sites(config: "Transformer", name: str, x: str) -> list[Site]:
    if config.normalization == "none":
        return []
    centred = f"({x} - mean({x}))" if config.normalization == "layer" else x
    short = name.split(".")[-1]
    return [
        Site(f"{name}.scale", f"sqrt(mean({centred}^2) + 1e-5)", ("batch", "position", "one")),
        Site(
            f"{name}.normalized",
            f"{centred} / scale; {short}(x) = normalized w{' + b' * (config.normalization == 'layer')}",
            _STREAM,
        ),
    ]


def _attention_sites(config: "Transformer", block: str, before: str) -> list[Site]:
    a, rotary, biased = f"{block}.attn", config.positions == "rotary", config.attention_bias
    scale = "sqrt(d_head)" if config.attention_scale is None else "attention_scale"
    masked = ", -inf where key > query" if config.attention == "causal" else ""
    sites = [Site(f"{block}.resid_pre", before, _STREAM), *_norm_sites(config, f"{block}.ln1", "resid_pre")]
    for x in "qkv":
        heads = ("batch", "position", "head", "d_model")
        sites += [
            Site(f"{a}.{x}_input", f"resid_pre, a copy for each head's {x} alone, before the norm", heads, optional=True),
            Site(f"{a}.W_{x.upper()}", f"{_normed(config, 'ln1', 'resid_pre')} W_{x.upper()}[head]", _HEADS, "product"),
            Site(
                f"{a}.{x}",
                f"{_normed(config, 'ln1', 'resid_pre')} W_{x.upper()}[head]" + f" + b_{x.upper()}[head]" * biased,
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
        by_distance = [Site(f"{a}.W_rel_V", f"sum over keys of pattern W_rel_V[head, {row}]", _HEADS, "product")]
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


def _mlp_sites(config: "Transformer", block: str) -> list[Site]:
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


def mlp_sites(config: "MLP", kind: str) -> tuple[Site, ...]:
    """The sites of an MLP on inputs of this kind, in the order of the forward pass."""
    sites, x, bias = _entry_sites(config, kind)
    for i in range(config.depth):
        if x is not None:
            sites.append(Site(f"layers.{i}.W", f"{x} layers.{i}.W", _NEURONS, "product"))
        product = f"{x} layers.{i}.W" if x is not None else "embed_a.W_E[a] + embed_b.W_E[b]"
        sites.append(Site(f"hidden.{i}.pre", product + f" + {f'layers.{i}.b' if i else bias}" * config.bias, _NEURONS))
        sites.append(Site(f"hidden.{i}.post", f"{config.activation}(hidden.{i}.pre)", _NEURONS))
        x = f"hidden.{i}.post"
    out = f"{x} W_U" + " + b_U" * config.biased_output
    return (
        *sites,
        Site("unembed.W_U", f"{x} W_U", _LOGITS, "product"),
        Site("logits", f"({out}) output_scale" if config.output_scale != 1.0 else out, _LOGITS),
    )


def _entry_sites(config: "MLP", kind: str) -> tuple[list[Site], str | None, str]:
    """The sites before the first layer's pre-activation, what its weight is multiplied with, and its bias."""
    embedded, read = ("batch", "position", "d_embed"), ("batch", "position", "d_input")
    if kind == "floats":
        return [Site("input", "the features", ("batch", "position", "feature"))], "input", "layers.0.b"
    if config.embedding == "one_hot":
        return [Site(f"embed_{x}.W_E", f"embed_{x}.W_E[{x}]", _NEURONS, "product") for x in "ab"], None, "embed.b"
    if config.embedding == "two":
        sites = [Site(f"embed_{x}.W_E", f"embed_{x}.W_E[{x}]", embedded, "product") for x in "ab"]
        a, b = "embed_a.W_E[a]", "embed_b.W_E[b]"
    else:
        equation = "embed.W_E[a], embed.W_E[b]"
        sites = [Site("embed.W_E", equation, embedded, "product"), Site("embed", equation, embedded)]
        a, b = "embed at 0", "embed at 1"
    sites.append(Site("input", f"{a} + {b}" if config.combination == "sum" else f"{a}, {b} side by side", read))
    return sites, "input", "layers.0.b"


def bilinear_sites() -> tuple[Site, ...]:
    """The sites of a bilinear network, in the order of the forward pass."""
    return (
        *(Site(f"embed_{x}.W_E", f"embed_{x}.W_E[{x}]", _NEURONS, "product") for x in "ab"),
        Site("hidden.0.post", "embed_a.W_E[a] embed_b.W_E[b]", _NEURONS),
        Site("unembed.W_U", "hidden.0.post W_U", _LOGITS, "product"),
        Site("logits", "hidden.0.post W_U", _LOGITS),
    )


def linear_sites(layers: int) -> tuple[Site, ...]:
    """The sites of a deep linear network, in the order of the forward pass."""
    sites, x = [Site("input", "the features", ("batch", "position", "feature"))], "input"
    for i in range(layers):
        last = i == layers - 1
        name, dims = ("logits", _LOGITS) if last else (f"hidden.{i}", _NEURONS)
        sites += [Site(f"layers.{i}.W", f"{x} layers.{i}.W", dims, "product"), Site(name, f"{x} layers.{i}.W", dims)]
        x = name
    return tuple(sites)


def markov_sites() -> tuple[Site, ...]:
    """The sites of the least network for Markov chains, in the order of the forward pass."""
    one_hots, a, b = ("batch", "position", "token"), "blocks.0.attn", "blocks.1.attn"
    return (
        Site(f"{a}.W_rel", "W_rel[max(query - key, 0)]", ("query", "key"), "product"),
        Site(f"{a}.pattern", "softmax over keys <= query of W_rel[query - key]", ("query", "key")),
        Site(f"{a}.z", "sum over keys of pattern onehot(token)", one_hots),
        Site(f"{b}.W_QK", "W_QK[tokens]", one_hots, "product"),
        Site(f"{b}.attn_scores", "W_QK[token] . blocks.0.attn.z, 0 where key > query", ("batch", "query", "key")),
        Site("logits", "sum over keys of attn_scores onehot(token)", _LOGITS),
    )
