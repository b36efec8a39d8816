"""More of the published numbers of Nanda et al.'s weights: every digit that the README prints, of
all of the newer measures.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from mi_jax.measuring.choosing import choose
from mi_jax.measuring.stored import measure_weights
from mi_jax.runs.library import find
from mi_jax.runs.weights import load_weights
from mi_jax.tasks import ModularArithmetic

_P = 113
_KEYS = (6, 23, 37, 39, 41)
_FILE = "nanda_mod_add_wd0.1.npz"
_MEASURES = (
    "excluded_loss_by_frequency",
    "cos_coefficients",
    "logit_fve_by_frequency",
    "logit_fve",
    "readout_fve",
    "cluster_sizes",
    "key_frequencies",
    "key_frequencies_embedding",
    "key_frequencies_neurons",
    "key_frequencies_final",
    "singular_values_unembedding",
    "ablation_loss",
    "excluded_loss",
    "excluded_loss_online",
    "restricted_loss",
    "restricted_loss_online",
    "restricted_loss_train",
    "restricted_loss_test",
    "sum_squared_weights_by_parameter",
)
# Every digit of shared/published/README.md, section 1.
_BY_FREQUENCY = {
    "excluded_loss_by_frequency": {
        6: ".0292582",
        23: "1.175779",
        37: "4.35657e-4",
        39: "6.54772e-5",
        41: "2.60808e-4",
    },
    "cos_coefficients": {6: "9.37499", 23: "31.30047", 37: "6.80449", 39: "5.05049", 41: "6.06734"},
    "readout_fve_cos": {6: ".94122", 23: ".98537", 37: ".93544", 39: ".89572", 41: ".86943"},
    "readout_fve_sin": {6: ".93386", 23: ".98543", 37: ".94650", 39: ".88787", 41: ".87855"},
}
_SINGULAR_VALUES = (
    "27.107 26.333 17.268 17.223 16.063 15.292 14.337 14.231 13.748 13.498 3.036 2.252"
)
_CLUSTERS = {6: 47, 23: 31, 37: 65, 39: 11, 41: 31}


def _unit(printed: str) -> float:
    """One unit in the last digit of a printed number."""
    digits, _, exponent = printed.partition("e")
    return 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))


@pytest.fixture(scope="module")
def readings(published: Path) -> xr.Dataset:
    experiment = find("nanda_2023")
    assert isinstance(experiment.task, ModularArithmetic)
    subject = dataclasses.replace(
        experiment, task=dataclasses.replace(experiment.task, split_seed=1)
    ).subject()
    params, _ = load_weights(published / _FILE, subject.model)
    measures, _ = choose(_MEASURES, subject, frozenset({"final"}))
    return measure_weights(params, subject, measures, {"experiment": {}, "hash": ""}).isel(
        seed=0, step=0
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", _BY_FREQUENCY)
def test_a_number_by_frequency_is_the_published_one_to_its_last_digit(
    readings: xr.Dataset, name: str
) -> None:
    """Within half a unit of the last digit, and what float32 logits of up to 74 leave of seven
    digits.
    """
    for k, printed in _BY_FREQUENCY[name].items():
        value = float(readings[name].sel(frequency=k))
        assert abs(value - float(printed)) <= 0.5 * _unit(printed) + 3e-6 * float(printed), (
            k,
            value,
            printed,
        )


def test_the_singular_values_are_the_published_ones(readings: xr.Dataset) -> None:
    values = readings["singular_values_unembedding"].values
    assert [f"{value:.3f}" for value in values[:12]] == _SINGULAR_VALUES.split()
    assert values.shape == (_P,)
    assert (np.diff(values) <= 0).all()


def test_neurons_cluster_at_the_published_frequencies_and_nowhere_else(
    readings: xr.Dataset,
) -> None:
    sizes = readings["cluster_sizes"]
    assert {
        int(k): int(sizes.sel(frequency=k)) for k in sizes["frequency"] if sizes.sel(frequency=k)
    } == _CLUSTERS
    assert int(sizes.sum()) / 512 == pytest.approx(0.361328, abs=5e-7)


def test_the_rules_find_the_published_key_frequencies(readings: xr.Dataset) -> None:
    frequency = readings["frequency"].values
    for name in ("key_frequencies", "key_frequencies_neurons", "key_frequencies_final"):
        assert tuple(frequency[readings[name].values]) == _KEYS, name
    embedding = frequency[readings["key_frequencies_embedding"].values]
    assert len(embedding) == 10
    assert set(_KEYS) < set(embedding.tolist())


def test_the_shares_of_the_five_cosines_add_up_to_the_published_one(readings: xr.Dataset) -> None:
    shares = readings["logit_fve_by_frequency"].sel(frequency=list(_KEYS))
    assert float(shares.sum()) == pytest.approx(0.974770, abs=1e-6)
    assert float(readings["logit_fve_by_frequency"].sum()) == pytest.approx(0.974770, abs=1e-5)


def test_a_model_is_its_own_final_reference(readings: xr.Dataset) -> None:
    for name in ("restricted_loss", "excluded_loss"):
        assert float(readings[name]) == float(readings[f"{name}_online"])


def test_restricted_losses_of_the_splits_weigh_up_to_that_of_all_pairs(
    readings: xr.Dataset,
) -> None:
    train, test = (float(readings[f"restricted_loss_{split}"]) for split in ("train", "test"))
    assert float(readings["restricted_loss"]) == pytest.approx(
        (3830 * train + 8939 * test) / _P**2, rel=1e-5
    )


def test_squares_by_matrix_add_up_to_the_published_sum(readings: xr.Dataset) -> None:
    assert float(readings["sum_squared_weights_by_parameter"].sum()) == pytest.approx(
        1180.966, abs=5e-4
    )


def test_ablations_change_the_loss_as_the_paper_found(readings: xr.Dataset) -> None:
    """The paper's own run (5.2): key directions and blocks lower the loss, ten directions keep it,
    their null space ruins it.
    """
    loss = {
        str(name)[len("ablation_loss_") :]: float(value)
        for name, value in readings.items()
        if "ablation" in str(name)
    }
    assert loss["intact"] == pytest.approx(3.51974e-7, abs=5e-13)
    assert loss["neuron_directions"] < 0.3 * loss["intact"]
    assert loss["logit_blocks"] < 0.3 * loss["intact"]
    assert 0.3 < loss["output_directions"] / loss["intact"] < 3
    assert 0.3 < loss["polynomial_neurons"] / loss["intact"] < 3
    assert loss["null_space"] > np.log(_P)
