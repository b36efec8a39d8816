"""Measures: readings of one checkpoint, as pure functions of (params, context).

Each public function here is a factory: it returns a Measure. To add one, write the factory in a
file of this folder and name it in ``MEASURES``; listing, nulls and report read that registry.
"""

from mi_jax.measures.ablations import ablation_loss
from mi_jax.measures.alignment import nlm_alignment
from mi_jax.measures.attention import attention_frequency, attention_fve, attention_pattern
from mi_jax.measures.behaviour import (
    exact_loss_collapse,
    label_noise_accuracy,
    margin,
    softmax_collapse,
    split_accuracy,
    split_loss,
)
from mi_jax.measures.carries import by_carry
from mi_jax.measures.clocks import (
    circle_fve,
    circularity,
    distance_irrelevance,
    gradient_symmetricity,
)
from mi_jax.measures.cosets import coset_concentration
from mi_jax.measures.description_length import probe_mdl
from mi_jax.measures.fourier import (
    fourier_gini,
    fourier_power,
    inverse_participation_ratio,
    key_frequencies,
    key_frequencies_final,
)
from mi_jax.measures.groups import (
    group_fourier_power,
    hidden_excluded_loss,
    hidden_restricted_loss,
    irrep_divergence,
    irrep_fve_embedding,
    irrep_fve_neurons,
    irrep_fve_unembedding,
    key_irreps,
    key_irreps_final,
    logit_similarity,
    logits_explained,
)
from mi_jax.measures.heads import (
    duplicate_token_score,
    head_ablation_loss,
    in_context,
    induction_score,
    prefix_matching_score,
    previous_token_attention,
    previous_token_score,
)
from mi_jax.measures.neurons import (
    cluster_sizes,
    key_frequencies_neurons,
    neuron_frequency,
    neuron_fve,
    readout_fve,
)
from mi_jax.measures.norms import sum_squared_weights, sum_squared_weights_by_parameter
from mi_jax.measures.parity import (
    effective_sparsity,
    gradient_gap,
    hidden_progress,
    sensitivity,
    weight_gap,
)
from mi_jax.measures.pictures import (
    PICTURES,
    answer_surface,
    circle_coordinates,
    trained_pairs,
)
from mi_jax.measures.positions import exact_match, loss_by_position
from mi_jax.measures.probe_effects import probe_effect
from mi_jax.measures.probes import probe_accuracy, probe_selectivity
from mi_jax.measures.progress import (
    cos_coefficients,
    excluded_loss,
    excluded_loss_3d,
    excluded_loss_by_frequency,
    logit_fve,
    logit_fve_by_frequency,
    restricted_loss,
)

MEASURES = {
    measure.name: measure
    for measure in (
        split_loss("train"),
        split_loss("test"),
        split_accuracy("train"),
        split_accuracy("test"),
        margin("train"),
        margin("test"),
        split_loss("cascade"),
        split_accuracy("cascade"),
        loss_by_position(),
        exact_match(),
        exact_match("cascade"),
        by_carry(),
        label_noise_accuracy(),
        softmax_collapse(),
        exact_loss_collapse(),
        sum_squared_weights(),
        sum_squared_weights_by_parameter(),
        fourier_power("embedding"),
        fourier_power("unembedding"),
        fourier_gini("embedding"),
        fourier_gini("unembedding"),
        key_frequencies("unembedding"),
        key_frequencies("embedding"),
        key_frequencies_neurons(),
        key_frequencies_final(),
        restricted_loss(),
        restricted_loss("train"),
        restricted_loss("test"),
        restricted_loss(keys="online"),
        excluded_loss(),
        excluded_loss(keys="online"),
        excluded_loss_by_frequency(),
        excluded_loss_3d(),
        cos_coefficients(),
        logit_fve(),
        logit_fve_by_frequency(),
        neuron_fve(),
        neuron_frequency(),
        cluster_sizes(),
        readout_fve(),
        attention_fve(),
        attention_frequency(),
        attention_pattern(),
        ablation_loss(),
        inverse_participation_ratio(),
        circularity(),
        distance_irrelevance("correct"),
        distance_irrelevance("wrong"),
        gradient_symmetricity(),
        circle_fve(),
        hidden_progress(),
        weight_gap(),
        gradient_gap(),
        effective_sparsity(),
        effective_sparsity("test"),
        sensitivity(),
        previous_token_attention(),
        previous_token_score(),
        duplicate_token_score(),
        induction_score(),
        prefix_matching_score(),
        in_context(),
        head_ablation_loss(),
        logit_similarity(),
        logits_explained(),
        key_irreps(),
        key_irreps_final(),
        irrep_fve_embedding(),
        irrep_fve_unembedding(),
        irrep_fve_neurons(),
        group_fourier_power("embedding"),
        group_fourier_power("unembedding"),
        irrep_divergence("embedding"),
        irrep_divergence("unembedding"),
        hidden_restricted_loss(),
        hidden_excluded_loss(),
        coset_concentration(),
    )
}
"""Every measure by name, with its published options."""

BY_WEIGHT = {
    measure.name: measure
    for place in ("readout", "neuron_inputs", "queries", "keys", "values")
    for measure in (
        fourier_power(place),
        fourier_gini(place),
        group_fourier_power(place),
        irrep_divergence(place),
    )
}
"""Fourier and irrep decompositions, by name, of the other weights that touch tokens or classes."""

PROBES = {
    measure.name: measure
    for measure in (
        probe_accuracy(),
        probe_accuracy(kind="logistic"),
        probe_accuracy(kind="circular"),
        probe_accuracy(held_out="a"),
        probe_accuracy(kind="circular", held_out="a"),
        probe_selectivity(),
        probe_selectivity(kind="logistic"),
        probe_mdl(),
        probe_mdl(kind="logistic"),
        probe_effect(),
        probe_effect("steer"),
        probe_effect("swap"),
    )
}
"""Probes of every site and concept, by name: fits that cost seconds per checkpoint."""

__all__ = [
    "BY_WEIGHT",
    "MEASURES",
    "PICTURES",
    "PROBES",
    "ablation_loss",
    "answer_surface",
    "attention_frequency",
    "attention_fve",
    "attention_pattern",
    "by_carry",
    "circle_coordinates",
    "circle_fve",
    "circularity",
    "cluster_sizes",
    "cos_coefficients",
    "coset_concentration",
    "distance_irrelevance",
    "duplicate_token_score",
    "effective_sparsity",
    "exact_loss_collapse",
    "exact_match",
    "excluded_loss",
    "excluded_loss_3d",
    "excluded_loss_by_frequency",
    "fourier_gini",
    "fourier_power",
    "gradient_gap",
    "gradient_symmetricity",
    "group_fourier_power",
    "head_ablation_loss",
    "hidden_excluded_loss",
    "hidden_progress",
    "hidden_restricted_loss",
    "in_context",
    "induction_score",
    "inverse_participation_ratio",
    "irrep_divergence",
    "irrep_fve_embedding",
    "irrep_fve_neurons",
    "irrep_fve_unembedding",
    "key_frequencies",
    "key_frequencies_final",
    "key_frequencies_neurons",
    "key_irreps",
    "key_irreps_final",
    "label_noise_accuracy",
    "logit_fve",
    "logit_fve_by_frequency",
    "logit_similarity",
    "logits_explained",
    "loss_by_position",
    "margin",
    "neuron_frequency",
    "neuron_fve",
    "nlm_alignment",
    "prefix_matching_score",
    "previous_token_attention",
    "previous_token_score",
    "probe_accuracy",
    "probe_effect",
    "probe_mdl",
    "probe_selectivity",
    "readout_fve",
    "restricted_loss",
    "sensitivity",
    "softmax_collapse",
    "split_accuracy",
    "split_loss",
    "sum_squared_weights",
    "sum_squared_weights_by_parameter",
    "trained_pairs",
    "weight_gap",
]
