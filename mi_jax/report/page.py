"""The HTML page of a run: figures, numbers, how they were measured, the manifest, and the command
that reproduces it.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment

from mi_jax.dynamics import LEVELS, Claim


class Figure(NamedTuple):
    """A figure of the page.

    Attributes:
        title: its heading.
        caption: the text below it.
        file: the picture, which is embedded in the page.
        alt: the text in place of the picture.
        data: the name of the file, in the folder of the picture, that holds the data behind it.
    """

    title: str
    caption: str
    file: Path
    alt: str
    data: str


class Page(NamedTuple):
    """The contents of a report.

    Attributes:
        title: the name of the experiment.
        summary: the story in a sentence.
        figures: in their order.
        numbers: the rows of a table. Each is a label and its cells: one per seed, then the median
            and interval over seeds. The first row is the header.
        claims: the claims with their levels of evidence, supported or not.
        status: how training of each seed ended, by the label of the seed.
        how: pairs of readings and how they were measured.
        manifest: the contents of ``run.json``.
        command: reproduces the run.
    """

    title: str
    summary: str
    figures: Sequence[Figure]
    numbers: Sequence[tuple[str, Sequence[str]]]
    claims: Sequence[Claim]
    status: Mapping[str, str]
    how: Sequence[tuple[str, str]]
    manifest: Mapping[str, Any]
    command: str


def render(page: Page) -> str:
    """Renders a page as HTML that contains everything and loads nothing from elsewhere.

    Args:
        page: the contents; their texts are escaped.
    """
    source = files("mi_jax.report").joinpath("template.html").read_text()
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        source
    )
    pictures = [_embedded(figure.file) for figure in page.figures]
    # The steps of the snapshots would fill pages.
    manifest = {key: value for key, value in page.manifest.items() if key != "snapshots"}
    return template.render(
        page=page,
        pictures=pictures,
        manifest=json.dumps(manifest, indent=1),
        levels=LEVELS,
        probability=_probability,
        tested=sum(claim.p is not None for claim in page.claims),
        findings=[claim for claim in page.claims if claim.supported],
        observed=[c for c in page.claims if not (c.supported or c.contradicted)],
        contradicted=[claim for claim in page.claims if claim.contradicted],
    )


def _probability(p: float | None) -> str:
    """A p-value to two digits, such as "p = 0.0042"; empty where there is none."""
    if p is None:
        return ""
    return f"p = {p:.2g}" if p >= _SMALLEST else f"p < {_SMALLEST:g}"


_SMALLEST = 1e-6
"""p-value below which only its bound is printed."""


def _embedded(file: Path) -> str:
    """A picture as a data URL."""
    kind = file.suffix.removeprefix(".")
    return f"data:image/{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"
