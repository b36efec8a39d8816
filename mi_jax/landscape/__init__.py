"""Landscape: the loss around a checkpoint: learning coefficient, curvature."""
