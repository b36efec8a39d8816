"""Write ``sites.md``, the page of every site with its equation, from the models' own lists.

python docs/make_sites.py
"""

from collections.abc import Iterable
from pathlib import Path

from mi_jax.contracts import Inputs, Site
from mi_jax.models import MLP, Bilinear, DeepLinear, MarkovAttention, Transformer
from mi_jax.tasks import ModularArithmetic

_HEAD = """# Sites

Every place in a forward pass that a tap may record or replace (`taps={site: fn}`,
`capture(apply, sites)`). Names are those of TransformerLens, without `hook_`. This page is made by
`python docs/make.py`; a test holds every equation to the code.

- An *activation*'s tap is `value -> value`. A *product*'s tap gets `(x, W)` and returns the
  product, without the bias; its site has the name of the parameter. For `W_E` and `W_pos`, x are
  tokens and positions, and the product is `W[x]`.
- *Optional* sites are computed only where a tap listens.
- With `positions` given, sites of the last layer from the query on have only these positions; all
  other sites keep every one. `query` counts the positions that attend, `key` the positions that are
  attended to.
- `blocks.i` stands for each layer; layer 0 reads `embed + pos_embed` where others read the previous
  layer. `mean` is over `d_model`.
- `capture` on a site that is also tapped records what the tap returned.
"""


def _rows(sites: tuple[Site, ...]) -> list[str]:
    rows = ["| site | equation | dims | kind |", "|---|---|---|---|"]
    for site in sites:
        kind = site.kind + (", optional" if site.optional else "")
        rows.append(f"| `{site.name}` | {site.equation} | {' '.join(site.dims)} | {kind} |")
    return rows


def _any_layer(sites: Iterable[Site]) -> tuple[Site, ...]:
    """Sites of layer 1, renamed to those of any layer i, and sites outside of the layers."""
    return tuple(
        site._replace(
            name=site.name.replace("blocks.1.", "blocks.i."),
            equation=site.equation.replace("blocks.0.", "blocks.(i-1)."),
        )
        for site in sites
        if "blocks.0." not in site.name
    )


def page() -> str:
    """Text of the page."""
    inputs = ModularArithmetic(p=7, fraction=0.5).inputs
    learned = Transformer(layers=2, attention_bias=True, unembed_bias=True)
    rotary = Transformer(layers=2, positions="rotary", normalization="layer")
    relative = Transformer(layers=2, positions="relative")
    learned_sites, rotary_sites, relative_sites = (
        _any_layer(model.build(inputs).sites) for model in (learned, rotary, relative)
    )
    plain = {site.name for site in learned_sites}
    vector = Inputs("floats", vocabulary=0, positions=1, classes=2, alphabet=(), features=40)
    parts = [
        (_HEAD, ()),
        (
            (
                "## Transformer\n\nLearned positions, causal, no norm, all biases. Without `d_mlp`"
                " there are no `mlp` sites; without a bias its term is absent.\n"
            ),
            learned_sites,
        ),
        (
            (
                "With `normalization` each place before a product with a weight is `ln1(...)`,"
                " `ln2(...)` or `ln_final(...)` of the value above, and with rotary positions"
                " queries and keys are rotated; these sites are added. RMSNorm has no mean and"
                " no b.\n"
            ),
            tuple(site for site in rotary_sites if site.name not in plain),
        ),
        (
            (
                "With relative positions each distance adds a vector of its own to keys and values"
                " (`relative_keys`: to keys only), and there is no `pos_embed`. Bidirectional"
                " attention has rows for later keys too: `query - key + positions - 1`.\n"
            ),
            tuple(site for site in relative_sites if "W_rel" in site.equation),
        ),
        (
            (
                "## MLP\n\nOn a pair of tokens a and b; one position. `output_scale` multiplies the"
                " last line.\n"
            ),
            MLP(bias=True).build(inputs).sites,
        ),
        (
            "With two embeddings, here of depth 2; every layer has such sites:\n",
            MLP(embedding="two", depth=2, activation="relu").build(inputs).sites,
        ),
        (
            (
                "With a shared embedding, these come before `layers.0.W`; with `combination` sum,"
                " the embeddings are added instead of concatenated:\n"
            ),
            MLP(embedding="shared").build(inputs).sites[:3],
        ),
        ("On floats, this comes first:\n", MLP().build(vector).sites[:1]),
        ("## Bilinear\n", Bilinear().build(inputs).sites),
        ("## Deep linear\n\nTwo layers.\n", DeepLinear(widths=(16,)).build(vector).sites),
        (
            "## Markov attention\n\nOne head per layer; tokens are one-hot.\n",
            MarkovAttention().build(inputs).sites,
        ),
    ]
    return "\n".join(
        line
        for text, sites in parts
        for line in (text, *(_rows(sites) if sites else []), *([""] if sites else []))
    )


if __name__ == "__main__":
    Path(__file__).with_name("sites.md").write_text(page())
