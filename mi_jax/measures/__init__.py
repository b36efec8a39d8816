"""Measures: readings of one checkpoint, pure functions of (params, context)."""

from mi_jax.measures.behaviour import split_accuracy, split_loss
from mi_jax.measures.fourier import fourier_gini, fourier_power, key_frequencies
from mi_jax.measures.neurons import neuron_frequency, neuron_fve
from mi_jax.measures.norms import sum_squared_weights
from mi_jax.measures.progress import excluded_loss, logit_fve, restricted_loss

MEASURES = {
    "train_loss": split_loss("train"),
    "test_loss": split_loss("test"),
    "train_accuracy": split_accuracy("train"),
    "test_accuracy": split_accuracy("test"),
    "sum_squared_weights": sum_squared_weights(),
    "fourier_power_embedding": fourier_power("embedding"),
    "fourier_power_unembedding": fourier_power("unembedding"),
    "gini_embedding": fourier_gini("embedding"),
    "gini_unembedding": fourier_gini("unembedding"),
    "key_frequencies": key_frequencies(),
    "restricted_loss": restricted_loss(),
    "excluded_loss": excluded_loss(),
    "logit_fve": logit_fve(),
    "neuron_fve": neuron_fve(),
    "neuron_frequency": neuron_frequency(),
}
"""Every measure by name, as published."""

__all__ = ["MEASURES"]
