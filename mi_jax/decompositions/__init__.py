"""Decompositions: readings of weights and representations as factors, spectra, modes and parts.

Three registries hold the measures of this folder by name: ``DECOMPOSITIONS``, ``SPECTRA`` and
``COMPARISONS``. The factories below make variants of them.
"""

from mi_jax.decompositions.modes import (
    final_mode_strength,
    key_mode_share,
    mode_frequency_share,
    principal_angles,
    subspace_angle,
)
from mi_jax.decompositions.parts import Parts, parts
from mi_jax.decompositions.similarity import (
    barrier,
    linear_cka,
    loss_barrier,
    procrustes_distance,
    similarity,
)
from mi_jax.decompositions.spectra import singular_values_by_parameter, stable_rank
from mi_jax.decompositions.svd import effective_rank, singular_values

DECOMPOSITIONS = {
    measure.name: measure
    for measure in (
        singular_values("embedding"),
        singular_values("unembedding"),
        effective_rank("embedding"),
        effective_rank("unembedding"),
        mode_frequency_share("unembedding"),
        key_mode_share("unembedding"),
        subspace_angle("unembedding", "final"),
    )
}
"""Measures of the tables that touch tokens and classes, by name."""

SPECTRA = {measure.name: measure for measure in (singular_values_by_parameter(), stable_rank())}
"""Measures of every array's spectrum, by name: their dim mode is as long as the largest array's."""

COMPARISONS = {
    measure.name: measure
    for measure in (
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
"""Measures that compare a checkpoint with another one of the same seed, by name."""

__all__ = [
    "COMPARISONS",
    "DECOMPOSITIONS",
    "SPECTRA",
    "Parts",
    "barrier",
    "effective_rank",
    "final_mode_strength",
    "key_mode_share",
    "linear_cka",
    "loss_barrier",
    "mode_frequency_share",
    "parts",
    "principal_angles",
    "procrustes_distance",
    "similarity",
    "singular_values",
    "singular_values_by_parameter",
    "stable_rank",
    "subspace_angle",
]
