"""Benchmarks against common alternatives: ``python -m benchmarks.training|checkpointing|...``.

They need the extra ``bench``. Each prints lines, or with ``--json`` one flat object; ``--save``
writes the result and a description of the machine to ``benchmarks/results/``. See the README of
this folder.
"""
