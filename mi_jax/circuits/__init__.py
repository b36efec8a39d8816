"""Circuits: relations of attention heads to tokens and to one another, read from the weights.

Three registries hold the measures of this folder by name: ``CIRCUITS``, ``EIGENVALUES`` and
``COMPOSITION``.
"""

from mi_jax.circuits.factored import Factored
from mi_jax.circuits.heads import (
    composition_score,
    copying_score,
    full_output_value,
    full_query_key,
    head_norms,
    head_rank,
    matching_score,
    matching_through_head,
    output_value,
    query_key,
)

CIRCUITS = {measure.name: measure for measure in (head_norms(), head_rank())}
"""Measures of single heads by name."""

EIGENVALUES = {measure.name: measure for measure in (copying_score(), matching_score())}
"""Measures of single heads by their circuits' eigenvalues, by name.

LAPACK's eigenvalues are slow beside other measures (150 ms a checkpoint).
"""

COMPOSITION = {measure.name: measure for measure in (composition_score(), matching_through_head())}
"""Measures of pairs of heads by name: their dim head runs over the heads of all layers."""

__all__ = [
    "CIRCUITS",
    "COMPOSITION",
    "EIGENVALUES",
    "Factored",
    "composition_score",
    "copying_score",
    "full_output_value",
    "full_query_key",
    "head_norms",
    "head_rank",
    "matching_score",
    "matching_through_head",
    "output_value",
    "query_key",
]
