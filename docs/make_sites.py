"""Writes ``sites.md``, the page of every site with its equation, from the lists that the models are built with.

python docs/make_sites.py
"""

from pathlib import Path

from mi_jax.contracts import Site
from mi_jax.models import MLP, Transformer
from mi_jax.tasks import ModularArithmetic

_HEAD = """# Sites

Every place in a forward pass that a tap may listen to or replace (`taps={site: fn}`, `capture(apply, sites)`). Names are
TransformerLens's without `hook_`. This page is made by `python docs/make_sites.py`; a test holds every equation to the code.

- An *activation*'s tap is `value -> value`. A *product*'s tap gets `(x, W)` and returns the product, without the bias; its name
  is the parameter's. For `W_E` and `W_pos`, x are tokens and places, and the product is `W[x]`.
- *Optional* sites are computed only when they are listened to.
- With `positions` given, sites of the last layer from the query on have that many positions; all others keep every one.
  `query` counts the positions that attend, `key` those attended to.
- `blocks.i` stands for each layer; layer 0 reads `embed + pos_embed` where others read the layer before. `mean` is over
  `d_model`.
- `capture` on a site that is also tapped records what the tap returned.
"""


def _rows(sites: tuple[Site, ...]) -> list[str]:
    rows = ["| site | equation | dims | kind |", "|---|---|---|---|"]
    for site in sites:
        name = site.name.replace("blocks.1.", "blocks.i.")
        kind = site.kind + (", optional" if site.optional else "")
        rows.append(f"| `{name}` | {site.equation.replace('blocks.0.', 'blocks.(i-1).')} | {' '.join(site.dims)} | {kind} |")
    return rows


def page() -> str:
    """The page's text."""
    inputs = ModularArithmetic(p=7, fraction=0.5).inputs
    learned = Transformer(layers=2, attention_bias=True, unembed_bias=True)
    rotary = Transformer(layers=2, positions="rotary", normalization="layer")
    plain = {site.name for site in learned.build(inputs).sites}
    normed = tuple(site for site in rotary.build(inputs).sites if site.name not in plain and ".0." not in site.name)
    parts = [
        (_HEAD, ()),
        (
            "## Transformer\n\nLearned positions, causal, no norm, all biases. Without `d_mlp` there are no `mlp` sites; without"
            " a bias its term is not there.\n",
            tuple(site for site in learned.build(inputs).sites if "blocks.0." not in site.name),
        ),
        (
            "With `normalization` each place before a product with a weight is `ln1(...)`, `ln2(...)` or `ln_final(...)` of what"
            " stands above, and with rotary positions queries and keys are turned; these sites are added. RMSNorm leaves out the"
            " mean and b.\n",
            normed,
        ),
        ("## MLP\n\nOn a pair of tokens a and b; one position.\n", MLP(bias=True).build(inputs).sites),
    ]
    return "\n".join(line for text, sites in parts for line in (text, *(_rows(sites) if sites else []), *([""] if sites else [])))


if __name__ == "__main__":
    Path(__file__).with_name("sites.md").write_text(page())
