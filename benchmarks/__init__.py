"""Ours against what people use, as ratios in one run: ``python -m
benchmarks.training|checkpointing|...``, see README.

Needs the extra ``bench``. Each prints lines, or with ``--json`` one flat object; ``--save`` keeps
the result with the machine's description in ``benchmarks/results/``.
"""
