"""Plan of a figure: its texts, the readings that it needs, and how it is drawn."""

from collections.abc import Callable
from typing import Any, NamedTuple

from mi_jax.dynamics import rule_of
from mi_jax.plots.style import FigureTexts
from mi_jax.report.inputs import ReportInputs

KEYS = ("final_keys",)
"""Mark of a figure that shows which frequencies are key in the last snapshot."""


class FigurePlan(NamedTuple):
    """A figure that a report has if its readings were taken.

    Attributes:
        name: of its files, without suffix.
        title: its heading in the report.
        caption: the text below it: what is drawn, and what colours, line styles, bands and marks
            mean.
        alt: the text in place of the picture, for readers who cannot see it.
        needs: the variables that it draws, of one of the datasets in ``ReportInputs``. Without any
            of them it is left out.
        draw: draws it; returns its Axes or its Figure.
        marks: what else is drawn on it, by the names of ``report.figures._marks``: stored with the
            data of the figure.
        shows: further variables that it covers, so that the last figures, which collect the
            remaining readings, leave them out.
    """

    name: str
    title: str
    caption: str
    alt: str
    needs: set[str]
    draw: Callable[[], Any]
    marks: tuple[str, ...] = ()
    shows: tuple[str, ...] = ()


def of_plot(draw: Callable[..., Any]) -> Callable[[ReportInputs], list[FigurePlan]]:
    """An entry of ``FIGURES`` for a plot function that carries its own texts.

    Args:
        draw: a function of the dataset of readings, decorated with ``plots.style.described``.
    """
    texts: FigureTexts = draw.figure_texts  # pyright: ignore[reportFunctionMemberAccess]

    def figure(inputs: ReportInputs) -> list[FigurePlan]:
        plan = FigurePlan(
            draw.__name__,
            texts.title,
            f"{texts.caption}{seed_note(inputs)}",
            texts.alt,
            set(texts.needs),
            lambda: draw(inputs.dataset),
        )
        return [plan]

    return figure


def seed_note(inputs: ReportInputs) -> str:
    """The sentence of a caption that explains line styles, if there are several seeds."""
    return " Line styles are seeds." if inputs.dataset.sizes["seed"] > 1 else ""


def date_note(inputs: ReportInputs) -> str:
    """The sentences of a caption that explain shaded phases and marked dates, if there are any."""
    dates, note = inputs.dates, ""
    if "circuit_formation_end" in dates and bool(dates["circuit_formation_end"].notnull().any()):
        note += (
            " Shading: memorisation (grey), circuit formation (blue) and clean-up (yellow), each up"
            " to its median end over the seeds that have phases. A white strip is the pair of"
            " snapshots around that end; it goes on to the right edge where the end lies beyond the"
            " last snapshot. Bars at the bottom: intervals of these ends."
        )
    if "generalised" in dates:
        level = f"{rule_of(dates.attrs).level:g}"
        note += (
            " Bars at the top: the pair of snapshots around the step at which a seed reached"
            f" {level} training accuracy (blue) and {level} test accuracy (orange). At the edges:"
            " numbers of seeds that got there later than the last snapshot, or by the first one."
        )
    return note
