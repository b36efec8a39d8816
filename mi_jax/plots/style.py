"""The look that all figures share: colours by meaning, safe for colour-blind readers; axes whose
horizontal axis is the training step; saving.
"""

import functools
import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, ParamSpec, TypeVar

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Scale = Literal["log", "linear"]
"""Scale of a step axis: see ``step_axis``."""

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
"""Colours of Okabe and Ito's palette by meaning. "cycle" lists, separated by blanks, the colours of
things that have no meaning of their own, in the order of use.
"""

SeedStyle = str | tuple[int, tuple[int, ...]]
"""A line style: a name, or an offset and the lengths of dashes and gaps."""

SEED_STYLES: tuple[SeedStyle, ...] = (
    "-",
    "--",
    "-.",
    ":",
    (0, (8, 2)),
    (0, (6, 1, 1, 1, 1, 1)),
    (0, (2, 3)),
    (0, (10, 2, 3, 2)),
)
"""Line styles of the seeds in one panel, in their order: colours already carry a meaning."""

COLUMN = 3.4
"""Width of a printed column, in inches."""

WIDE = 7.0
"""Width of the text of a printed page, in inches."""

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
    # A fixed salt and no date (see ``save``): the same figure gives the same bytes.
    "svg.hashsalt": "mi_jax",
}


_P = ParamSpec("_P")
_R = TypeVar("_R")


def styled(draw: Callable[_P, _R]) -> Callable[_P, _R]:
    """Decorates a plot function: it draws in the shared style, and matplotlib's global settings
    are as before when it returns.

    Args:
        draw: the plot function.

    Returns:
        A function with the same signature.

    Example::

        @plots.styled
        def my_curve(dataset, *, ax=None):
            axes = ax if ax is not None else plots.new_axes()
            axes.plot(dataset["step"], dataset["test_loss"].mean("seed"))
            return axes
    """

    @functools.wraps(draw)
    def drawn(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with mpl.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return drawn


class FigureTexts(NamedTuple):
    """The texts of a plot function's figure in a report.

    Attributes:
        title: its heading.
        caption: the text below it: what is drawn, and what colours, line styles and marks mean.
        alt: the text in place of the picture, for readers who cannot see it.
        needs: the variables of the readings without any of which the figure is left out.
    """

    title: str
    caption: str
    alt: str
    needs: frozenset[str]


def described(
    *, title: str, caption: str, alt: str, needs: Iterable[str]
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Decorates a plot function with the texts of its figure, so that one line in
    ``report.catalogue.FIGURES`` adds it to reports.

    Args:
        title: see ``FigureTexts``.
        caption: see ``FigureTexts``.
        alt: see ``FigureTexts``.
        needs: see ``FigureTexts``.
    """

    def mark(draw: Callable[_P, _R]) -> Callable[_P, _R]:
        texts = FigureTexts(title, caption, alt, frozenset(needs))
        draw.figure_texts = texts  # pyright: ignore[reportFunctionMemberAccess]
        return draw

    return mark


@styled
def new_axes(width: float = COLUMN, height: float = 2.4) -> Axes:
    """Creates the Axes of a new figure, which pyplot does not know of.

    Args:
        width: of the figure, in inches; one printed column by default.
        height: of the figure, in inches.
    """
    return Figure(figsize=(width, height), layout="constrained").subplots()


def save(figure: Figure, folder: Path, name: str) -> dict[str, Path]:
    """Writes a figure as ``name.png`` and ``name.svg``. The same figure gives the same bytes.

    Args:
        figure: the figure; of Axes, ``axes.figure``.
        folder: where the files go; it is created if it does not exist.
        name: of the files, without suffix.

    Returns:
        The path of each file by format, "png" and "svg".

    Example::

        axes = plots.loss_curves(run.measures)
        plots.save(axes.figure, run.path / "figures", "loss")
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {kind: folder / f"{name}.{kind}" for kind in ("png", "svg")}
    with mpl.rc_context(_STYLE):
        for kind, path in paths.items():
            buffer = io.BytesIO()
            metadata = {"Date": None} if kind == "svg" else None
            figure.savefig(buffer, format=kind, dpi=250, metadata=metadata)
            path.write_bytes(buffer.getvalue())
    return paths


def step_axis(axes: Axes, steps: np.ndarray, scale: Scale = "log") -> None:
    """Makes the horizontal axis one of training steps: from 0, or from where a fork or a zoom
    begins, to the last step.

    Args:
        axes: to change.
        steps: of the snapshots, shape (step,).
        scale: "log" is logarithmic above step 10 (above 1 in runs of fewer than 1,000 steps) and
            linear below, so that step 0 can be shown; in a fork or a zoom it is logarithmic where
            the last step is at least four times the first, and linear otherwise. "linear" is linear
            throughout.
    """
    begin, last = int(np.min(steps)), max(int(np.max(steps)), 1)
    if begin > 0:
        if scale == "log" and last >= 4 * begin:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_minor_locator(ticker.NullLocator())
        axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
    elif scale == "log":
        first = 10 if last >= 1000 else 1
        axes.set_xscale("symlog", linthresh=first, linscale=0.4)
        decades = [10**k for k in range(len(str(last))) if first <= 10**k <= last]
        axes.set_xticks([0, *decades], ["0", *[f"{decade:,}" for decade in decades]])
        axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.set_xlim(begin, max(last, begin + 1))
    axes.set_xlabel("step (optimizer updates)")


def with_units(label: str, values: xr.DataArray) -> str:
    """Adds to a label, in brackets, the ``units`` that the values' attributes name, if any."""
    units = values.attrs.get("units")
    return f"{label} ({units})" if units else label


def legend_above(axes: Axes, columns: int) -> None:
    """Adds a legend of so many columns above the axes, where it hides no line."""
    axes.legend(
        frameon=False,
        handlelength=1.6,
        columnspacing=1.2,
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.03),
        ncols=columns,
    )


def legend_beside(axes: Axes, **options: Any) -> None:
    """Adds a legend of one column to the right of the axes.

    Args:
        axes: to add the legend to.
        options: further options of ``Axes.legend``, such as ``handles`` or ``title``.
    """
    axes.legend(
        frameon=False,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        handlelength=1.4,
        **options,
    )


def finish_panels(figure: Figure, grid: np.ndarray, count: int, columns: int) -> None:
    """Labels the step axis of a grid of panels once, and hides the panels that are not used.

    Args:
        figure: that holds the grid.
        grid: the panels in reading order, shape (panel,).
        count: how many panels are used, from the first.
        columns: of the grid. Tick labels go under the last used panel of each column.
    """
    for axes in grid[max(count - columns, 0) : count]:
        axes.xaxis.set_tick_params(labelbottom=True)
    for axes in grid[count:]:
        axes.set_axis_off()
    figure.supxlabel("step (optimizer updates)", fontsize=8)
