"""The report of a run: one self-contained HTML page.

``study`` is the main job, ``inputs`` gathers everything that a report is made from, ``catalogue``
lists the figures, ``figures`` draws them, ``findings`` states results in words and numbers,
``claims`` judges what they are evidence for, and ``page`` renders them.
"""

from mi_jax.report.page import Figure, Page, render

__all__ = ["Figure", "Page", "render"]
