"""Writes ``sites.md``, the page of every site with its equation, from the models in ``MODELS``.

python docs/make_sites.py
"""

from pathlib import Path

from mi_jax.contracts import Site
from mi_jax.models import MODELS

_HEAD = """# Sites

Every place in a forward pass that a tap can listen to or replace (`taps={site: fn}`,
`capture(apply, sites)`). Names are those of TransformerLens without `hook_`.
`python docs/make_sites.py` writes this page; a test holds the equations to the code.

- The tap of an *activation* is `value -> value`. The tap of a *product* gets `(x, W)` and returns
  the product, without the bias; the site's name is that of the parameter. For `W_E` and `W_pos`,
  x holds tokens and positions, and the product is `W[x]`.
- *Optional* sites are computed only when a tap listens to them.
- When `positions` is given, the sites of the last layer from the query on have that many
  positions; all others keep every position. `query` counts the positions that attend, `key` those
  attended to.
- `blocks.i` stands for each layer. Layer 0 reads `embed + pos_embed` where the others read the
  layer before. `mean` is over `d_model`.
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
