"""Plots, one function per figure: each takes a dataset and returns its Axes, or a Figure if it
has several panels.

Plot functions compute nothing and leave pyplot and matplotlib's global settings alone. The dataset
comes first, every option is keyword-only, and ``ax=`` draws on Axes that exist already.
"""

from mi_jax.plots.curves import (
    accuracy_curves,
    aligned_seeds,
    attention_curves,
    curves,
    gini_curves,
    label_noise_curves,
    loss_curves,
    norm_curves,
    position_curves,
    progress_curves,
    reading_panels,
    singular_value_curves,
)
from mi_jax.plots.dates import mark_dates, shade_phases
from mi_jax.plots.diagrams import dates_against, phase_diagram
from mi_jax.plots.effects import paired_effects
from mi_jax.plots.histories import diverging_histories
from mi_jax.plots.landscape import calibration_curves, learning_coefficient_curves, sharpness_curves
from mi_jax.plots.maps import (
    frequency_lines,
    frequency_map,
    key_labels,
    neuron_clusters,
    neuron_flow,
    spectra,
)
from mi_jax.plots.modes import irrep_curves, mode_curves, path_panels
from mi_jax.plots.parity import hidden_progress_panels
from mi_jax.plots.parts import PARTS, part_panels
from mi_jax.plots.pictures import answer_surface, circle_animation, embedding_circles
from mi_jax.plots.probes import decodable_and_used, probe_map
from mi_jax.plots.style import described, new_axes, save, styled

__all__ = [
    "PARTS",
    "accuracy_curves",
    "aligned_seeds",
    "answer_surface",
    "attention_curves",
    "calibration_curves",
    "circle_animation",
    "curves",
    "dates_against",
    "decodable_and_used",
    "described",
    "diverging_histories",
    "embedding_circles",
    "frequency_lines",
    "frequency_map",
    "gini_curves",
    "hidden_progress_panels",
    "irrep_curves",
    "key_labels",
    "label_noise_curves",
    "learning_coefficient_curves",
    "loss_curves",
    "mark_dates",
    "mode_curves",
    "neuron_clusters",
    "neuron_flow",
    "new_axes",
    "norm_curves",
    "paired_effects",
    "part_panels",
    "path_panels",
    "phase_diagram",
    "position_curves",
    "probe_map",
    "progress_curves",
    "reading_panels",
    "save",
    "shade_phases",
    "sharpness_curves",
    "singular_value_curves",
    "spectra",
    "styled",
]
