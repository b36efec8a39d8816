"""Landscape: the loss around a checkpoint: learning coefficient, curvature."""

from collections.abc import Mapping

from mi_jax.contracts import Measure

LANDSCAPE: Mapping[str, Measure] = {}
"""Every reading of the landscape by name."""

__all__ = ["LANDSCAPE"]
