"""Writes ``sites.md``, the page of every site with its equation, from the models in ``MODELS``.

python docs/make_sites.py
"""

from pathlib import Path

from mi_jax.contracts import Site
from mi_jax.models import MODELS

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


def _table(sites: tuple[Site, ...]) -> list[str]:
    rows = ["| site | equation | dims | kind |", "|---|---|---|---|"]
    for site in sites:
        kind = f"{site.kind}, optional" if site.optional else site.kind
        rows.append(f"| `{site.name}` | {site.equation} | {' '.join(site.dims)} | {kind} |")
    return rows


def page() -> str:
    """The text of the page."""
    lines = [_HEAD]
    for architecture in MODELS.values():
        lines += [f"## {architecture.__name__}", ""]
        for text, sites in architecture.documented_sites():
            if text:
                lines += [text, ""]
            lines += [*_table(sites), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    Path(__file__).with_name("sites.md").write_text(page())
