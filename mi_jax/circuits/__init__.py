"""Circuits: what heads and neurons are to one another and to the tokens."""

from mi_jax.circuits.heads import (
    composition_score,
    copying_score,
    head_norms,
    head_rank,
    matching_score,
    matching_through_head,
)

CIRCUITS = {one.name: one for one in (head_norms(), head_rank())}
"""Readings of single heads by name."""

EIGENVALUES = {one.name: one for one in (copying_score(), matching_score())}
"""Readings of single heads by their circuits' eigenvalues: LAPACK's are slow beside other readings
(150 ms a checkpoint).
"""

COMPOSITION = {one.name: one for one in (composition_score(), matching_through_head())}
"""Readings of pairs of heads by name: their dim head runs over the heads of all layers."""

__all__ = ["CIRCUITS", "COMPOSITION", "EIGENVALUES"]
