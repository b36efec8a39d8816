"""Catalogue of the figures that a report can have.

A new figure is a plot function in ``mi_jax.plots`` with its texts (``plots.described``),
and the line ``of_plot(function)`` in ``FIGURES``. A figure that draws more than the readings, or
whose texts depend on them, is a function here that returns its ``FigurePlan``.
"""

from collections.abc import Callable

from mi_jax.report.catalogue import (
    curves,
    landscape,
    neural,
    paths,
    pictures,
    probes,
    rest,
    spectral,
    weights,
)
from mi_jax.report.catalogue.plan import FigurePlan, of_plot
from mi_jax.report.inputs import ReportInputs

__all__ = ["FIGURES", "FigurePlan", "of_plot", "plans"]

FIGURES: tuple[Callable[[ReportInputs], list[FigurePlan]], ...] = (
    curves.progress,
    curves.loss,
    curves.accuracy,
    curves.wrong_labels,
    curves.test_curves,
    curves.seeds,
    spectral.frequencies,
    spectral.frequencies_embedding,
    spectral.spectra,
    spectral.gini,
    spectral.excluded_by_frequency,
    neural.clusters,
    neural.neuron_flow,
    neural.attention,
    neural.hidden_progress,
    neural.positions,
    weights.norms,
    weights.singular_values,
    weights.irreps,
    pictures.surface,
    pictures.circles,
    landscape.learning_coefficient,
    landscape.sharpness,
    landscape.learning_coefficient_variants,
    probes.decodable_and_used,
    probes.probe_map,
)
"""The figures in the order of the report."""

_REST: tuple[Callable[[ReportInputs, set[str]], list[FigurePlan]], ...] = (
    rest.parts,
    rest.readings,
)
"""Figures that collect the readings that none of ``FIGURES`` shows."""

_ACROSS_SNAPSHOTS: tuple[Callable[[ReportInputs], list[FigurePlan]], ...] = (
    paths.modes,
    paths.path,
)
"""The last figures, which draw what was read of several snapshots together."""


def plans(inputs: ReportInputs) -> list[FigurePlan]:
    """Every figure that the report of these inputs can have, in its order.

    Whether a figure is drawn depends on its ``needs``: see ``report.figures``.
    """
    first = [plan for figure in FIGURES for plan in figure(inputs)]
    shown = {name for plan in first for name in (*plan.needs, *plan.shows)}
    remaining = [plan for figure in _REST for plan in figure(inputs, shown)]
    last = [plan for figure in _ACROSS_SNAPSHOTS for plan in figure(inputs)]
    return [*first, *remaining, *last]
