"""Plots: one function a figure. A dataset in, Axes out; nothing is computed, no global setting is changed."""

from mi_jax.plots.curves import accuracy_curves, loss_curves, progress_curves
from mi_jax.plots.maps import frequency_map, spectra
from mi_jax.plots.style import new_axes, save

__all__ = ["accuracy_curves", "frequency_map", "loss_curves", "new_axes", "progress_curves", "save", "spectra"]
