"""Report: one self-contained HTML page a run."""

from mi_jax.report.page import Figure, Page, render

__all__ = ["Figure", "Page", "render"]
