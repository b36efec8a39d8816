"""One look for all figures: colours by meaning, safe for colour-blind readers, and axes for
training curves.
"""

import functools
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS: Mapping[str, str] = {
    "train": "#0072B2",
    "test": "#D55E00",
    "restricted": "#009E73",
    "excluded": "#CC79A7",
    "embedding": "#0072B2",
    "unembedding": "#E69F00",
    "date": "#555555",
    "key": "#D55E00",
    "birth": "#009E73",
    "decodable": "#0072B2",
    "used": "#D55E00",
    "memorisation": "#999999",
    "circuit formation": "#56B4E9",
    "clean-up": "#F0E442",
    "cycle": "#0072B2 #D55E00 #009E73 #CC79A7 #E69F00 #56B4E9 #000000",
}
"""Okabe and Ito's palette, by what is shown; "cycle" is the order for things without a meaning of
their own.
"""

SEED_STYLES = ("-", "--", "-.", ":")
"""Seeds beside each other are told apart by line, as colours carry meaning."""

COLUMN = 3.4
"""Width of a printed column, in inches."""

WIDE = 7.0
"""Width of a printed page's text, in inches."""

_STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.2,
    "svg.fonttype": "none",
    "svg.hashsalt": "mi_jax",
}


_P = ParamSpec("_P")
_R = TypeVar("_R")


def styled(draw: Callable[_P, _R]) -> Callable[_P, _R]:
    """A plot function in the house style, which is undone when it returns: pyplot and global
    settings are not touched.
    """

    @functools.wraps(draw)
    def drawn(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with mpl.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return drawn


@styled
def new_axes(width: float = COLUMN, height: float = 2.4) -> Axes:
    """Axes of a new figure, one printed column wide by default."""
    return Figure(figsize=(width, height), layout="constrained").subplots()


def save(figure: Figure, folder: Path, name: str) -> dict[str, Path]:
    """Writes ``name.png`` and ``name.svg``; returns the paths by format."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {kind: folder / f"{name}.{kind}" for kind in ("png", "svg")}
    with mpl.rc_context(_STYLE):
        for kind, path in paths.items():
            buffer = io.BytesIO()
            figure.savefig(
                buffer, format=kind, dpi=250, metadata={"Date": None} if kind == "svg" else None
            )
            path.write_bytes(buffer.getvalue())
    return paths


def step_axis(axes: Axes, steps: np.ndarray, scale: Literal["log", "linear"] = "log") -> None:
    """A step axis: logarithmic, linear below 10 (1 in a short run) so that step 0 has its place; or
    linear.
    """
    last = max(int(np.max(steps)), 1)
    if scale == "log":
        first = 10 if last >= 1000 else 1
        axes.set_xscale("symlog", linthresh=first, linscale=0.4)
        decades = [10**k for k in range(len(str(last))) if first <= 10**k <= last]
        axes.set_xticks([0, *decades], ["0", *[f"{decade:,}" for decade in decades]])
        axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.set_xlim(0, last)
    axes.set_xlabel("step (optimizer updates)")


def with_units(label: str, values: xr.DataArray) -> str:
    """A label with the units that the values say they are in."""
    units = values.attrs.get("units")
    return f"{label} ({units})" if units else label


def legend_above(axes: Axes, columns: int) -> None:
    """A legend above the axes, where it hides nothing."""
    axes.legend(
        frameon=False,
        handlelength=1.6,
        columnspacing=1.2,
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.03),
        ncols=columns,
    )
