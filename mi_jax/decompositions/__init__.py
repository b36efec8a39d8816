"""Decompositions: readings of the weights alone: factors, spectra, parts."""

from mi_jax.decompositions.svd import effective_rank, singular_values

DECOMPOSITIONS = {
    "singular_values_embedding": singular_values("embedding"),
    "singular_values_unembedding": singular_values("unembedding"),
    "effective_rank_embedding": effective_rank("embedding"),
    "effective_rank_unembedding": effective_rank("unembedding"),
}
"""Every reading of the weights by name."""

__all__ = ["DECOMPOSITIONS"]
