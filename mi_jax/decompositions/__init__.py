"""Decompositions: readings of the weights alone: factors, spectra, modes."""

from mi_jax.decompositions.modes import (
    final_mode_strength,
    key_mode_share,
    mode_frequency_share,
    subspace_angle,
)
from mi_jax.decompositions.similarity import loss_barrier, similarity
from mi_jax.decompositions.spectra import singular_values_by_parameter, stable_rank
from mi_jax.decompositions.svd import effective_rank, singular_values

DECOMPOSITIONS = {
    one.name: one
    for one in (
        singular_values("embedding"),
        singular_values("unembedding"),
        effective_rank("embedding"),
        effective_rank("unembedding"),
        mode_frequency_share("unembedding"),
        key_mode_share("unembedding"),
        subspace_angle("unembedding", "final"),
    )
}
"""Every reading of the weights by name."""

SPECTRA = {one.name: one for one in (singular_values_by_parameter(), stable_rank())}
"""Readings of every array's spectrum: their dim mode is as long as the largest array's."""

COMPARISONS = {
    one.name: one
    for one in (
        final_mode_strength("embedding"),
        final_mode_strength("unembedding"),
        subspace_angle("embedding", "previous"),
        subspace_angle("unembedding", "previous"),
        similarity("cka", "previous"),
        similarity("cka", "final"),
        similarity("procrustes", "previous"),
        similarity("procrustes", "final"),
        loss_barrier("train"),
        loss_barrier("test"),
        loss_barrier("train", "previous"),
    )
}
"""Readings of a checkpoint beside another one, neuron by neuron or by passes through both."""

__all__ = ["COMPARISONS", "DECOMPOSITIONS", "SPECTRA"]
