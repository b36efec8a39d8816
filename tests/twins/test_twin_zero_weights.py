"""A network whose weights are all 0: every reading is what its formula gives, or NaN for 0 / 0."""

import jax
import numpy as np
import pytest
from networks import Operation, network, read

LOSSES = (
    "train_loss",
    "test_loss",
    "restricted_loss",
    "restricted_loss_train",
    "restricted_loss_test",
    "restricted_loss_online",
    "excluded_loss",
    "excluded_loss_3d",
    "excluded_loss_by_frequency",
    "excluded_loss_online",
    "ablation_loss",
)
ZEROS = (
    "train_margin",
    "test_margin",
    "softmax_collapse",
    "exact_loss_collapse",
    "sum_squared_weights",
    "sum_squared_weights_by_parameter",
    "cos_coefficients",
    "key_frequencies",
    "key_frequencies_embedding",
    "key_frequencies_neurons",
    "cluster_sizes",
    "neuron_frequency",
    "singular_values_embedding",
    "singular_values_unembedding",
)
UNDEFINED = (
    "fourier_power_embedding",
    "fourier_power_unembedding",
    "gini_embedding",
    "gini_unembedding",
    "inverse_participation_ratio",
    "logit_fve",
    "logit_fve_by_frequency",
    "neuron_fve",
    "effective_rank_embedding",
    "effective_rank_unembedding",
    "stable_rank",
    "cka_final",
    "procrustes_final",
)


@pytest.mark.parametrize("operation", ["add", "subtract"])
def test_a_network_of_zeros_has_the_readings_of_its_formulas(operation: Operation) -> None:
    net = network(6, operation, "trained")
    zeros = jax.tree.map(np.zeros_like, net.params)
    values = read(
        (*LOSSES, *ZEROS, *UNDEFINED, "test_accuracy", "train_accuracy"), zeros, net.context
    )
    test = np.setdiff1d(np.arange(36), net.trained)
    # Of equal outputs the first counts, which answers 0.
    assert values.pop("test_accuracy") == np.float32((net.answers[test] == 0).mean())
    assert values.pop("train_accuracy") == np.float32((net.labels[net.trained] == 0).mean())
    for name, value in values.items():
        if name.startswith(UNDEFINED):
            assert np.isnan(value).all(), name
        elif name.startswith(LOSSES):
            np.testing.assert_allclose(value, np.log(6), rtol=1e-6, err_msg=name)
        else:
            assert name.startswith(ZEROS), name
            assert (value == 0).all(), name
