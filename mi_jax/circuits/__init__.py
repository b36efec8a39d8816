"""Circuits: what heads and neurons are to one another and to the tokens."""

from mi_jax.circuits.heads import composition_score, copying_score, head_norms, head_rank, matching_score, matching_through_head

CIRCUITS = {one.name: one for one in (copying_score(), matching_score(), head_norms(), head_rank())}
"""Readings of single heads by name."""

COMPOSITION = {one.name: one for one in (composition_score(), matching_through_head())}
"""Readings of pairs of heads by name: their dim head runs over the heads of all layers."""

__all__ = ["CIRCUITS", "COMPOSITION"]
