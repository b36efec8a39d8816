"""The page of a run: figures, numbers, how they were measured, the manifest, and the command to
make it again.
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
    """A picture with what it shows, in words."""

    title: str
    caption: str
    file: Path
    alt: str
    data: str
    """The name of the file beside it that holds its data."""


class Page(NamedTuple):
    """What a report says."""

    title: str
    summary: str
    """The story in a sentence."""
    figures: Sequence[Figure]
    numbers: Sequence[tuple[str, Sequence[str]]]
    """Rows: a label, a cell a seed, and the interval over seeds; the first row is the header."""
    claims: Sequence[Claim]
    status: Mapping[str, str]
    how: Sequence[tuple[str, str]]
    manifest: Mapping[str, Any]
    command: str


def render(page: Page) -> str:
    """The HTML: everything in it, nothing loaded from elsewhere."""
    source = files("mi_jax.report").joinpath("template.html").read_text()
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        source
    )
    pictures = [_embedded(figure.file) for figure in page.figures]
    manifest = json.dumps(
        {key: value for key, value in page.manifest.items() if key != "snapshots"}, indent=1
    )
    return template.render(page=page, pictures=pictures, manifest=manifest, levels=LEVELS)


def _embedded(file: Path) -> str:
    kind = file.suffix.removeprefix(".")
    return f"data:image/{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"
