"""Tests that the weights of the published pizza give the published numbers.

The pizza is Model A of Zhong et al. (arXiv 2306.17844).
"""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from permuting import permuted

from mi_jax.measuring.choosing import choose
from mi_jax.measuring.stored import measure_weights
from mi_jax.runs.library import find
from mi_jax.runs.weights import load_weights

_P = 59
_FILE = "zhong_model_A.npz"
_MEASURES = (
    "train_loss",
    "test_loss",
    "train_accuracy",
    "test_accuracy",
    "sum_squared_weights",
    "ablation_loss",
    "circularity",
    "distance_irrelevance",
    "distance_irrelevance_wrong",
    "gradient_symmetricity",
    "circle_fve",
    "key_frequencies",
    "attention_frequency",
    "attention_pattern",
)

# The six digits of reference/grokking.md, section 5.1, and all of those of
# shared/published/README.md: published, and in float64.
_SIX_DIGITS = {
    "distance_irrelevance": (".171736", 0.1717364566, 0.1717364614),
    "distance_irrelevance_wrong": (".221807", 0.2218072733),
    "gradient_symmetricity": (".993665", 0.9936651683, 0.9936651651),
    "circularity": (".997818", 0.9978184479, 0.9978183514),
}
_CIRCLES = {
    1: {"clock": "75.41", "pizza": "98.31", "pizza'": "98.36"},
    2: {"clock": "75.62", "pizza": "98.31", "pizza'": "98.30"},
    3: {"clock": "75.38", "pizza": "98.41", "pizza'": "98.61"},
    4: {"accompanying": "97.56"},
    5: {"accompanying": "97.23"},
    6: {"accompanying": "97.69"},
}


def _is_printed(value: float, printed: str) -> bool:
    return abs(float(value) - float(printed)) <= 0.5 * 10.0 ** -len(printed.partition(".")[2])


@pytest.fixture(scope="module", params=["as published", "heads and neurons in another order"])
def readings(request: pytest.FixtureRequest, published: Path) -> xr.Dataset:
    subject = find("zhong_2023").subject()
    params, ignored = load_weights(published / _FILE, subject.model)
    assert ignored == ["config"]
    params = params if request.param == "as published" else permuted(params)
    measures, _ = choose(_MEASURES, subject, frozenset({"final"}))
    return measure_weights(params, subject, measures, {"experiment": {}, "hash": ""}).isel(
        seed=0, step=0
    )


@pytest.mark.slow
def test_the_loss_of_all_pairs_is_the_published_one(readings: xr.Dataset) -> None:
    """The published split is unknown, so the losses of our split are weighted by its sizes."""
    trained = int(0.8 * _P**2)
    parts = [float(readings[f"{split}_loss"]) for split in ("train", "test")]
    whole = (trained * parts[0] + (_P**2 - trained) * parts[1]) / _P**2
    assert whole == pytest.approx(1.38433e-7, abs=0.5e-12)
    assert float(readings["ablation_loss_intact"]) == pytest.approx(1.38433e-7, abs=0.5e-12)


def test_every_answer_is_right(readings: xr.Dataset) -> None:
    assert float(readings["train_accuracy"]) == float(readings["test_accuracy"]) == 1


def test_the_parameters_norm_is_the_published_one(readings: xr.Dataset) -> None:
    norm = float(readings["sum_squared_weights"]) ** 0.5
    assert _is_printed(norm, "22.854")
    assert norm == pytest.approx(22.853816, rel=1e-6)


@pytest.mark.parametrize("name", _SIX_DIGITS)
def test_a_number_is_the_published_one_to_six_digits(readings: xr.Dataset, name: str) -> None:
    """A seventh digit is more than float32 holds."""
    printed, *exact = _SIX_DIGITS[name]
    assert _is_printed(float(readings[name]), printed)
    assert [float(readings[name])] * len(exact) == pytest.approx(exact, abs=7e-7)


@pytest.mark.parametrize(
    ("circle", "condition"),
    [(circle, name) for circle, names in _CIRCLES.items() for name in names],
)
def test_a_circle_is_explained_as_published(
    readings: xr.Dataset, circle: int, condition: str
) -> None:
    value = 100 * float(readings["circle_fve"].sel(component=circle, condition=condition))
    assert _is_printed(value, _CIRCLES[circle][condition]), (value, _CIRCLES[circle][condition])


def test_the_first_circles_are_pizzas_and_the_others_accompany_them(readings: xr.Dataset) -> None:
    best = readings["circle_fve"].idxmax("condition").values.tolist()
    assert all(name.startswith("pizza") for name in best[:3])
    assert best[3:] == ["accompanying"] * 3


def test_the_circles_frequencies_are_the_key_ones(readings: xr.Dataset) -> None:
    frequencies = readings["frequency"].values[readings["key_frequencies"].values]
    assert frequencies.tolist() == [3, 15, 17]


def test_attention_is_everywhere_one_and_its_scores_are_gone(readings: xr.Dataset) -> None:
    np.testing.assert_array_equal(readings["attention_pattern"], np.ones((1, 4, 2)))
    np.testing.assert_array_equal(readings["attention_frequency"], np.zeros((1, 4)))


def test_the_components_of_the_embedding_have_the_published_frequencies(published: Path) -> None:
    """Circles 4 to 6 stand at twice the frequencies 17, 3, 15 (mod 59, up to sign): they accompany
    by the doubled angle.
    """
    with np.load(published / _FILE) as file:
        W_E = file["embed.W_E"].astype(np.float64)
    U = np.linalg.svd(W_E - W_E.mean(axis=0))[0][:, :12]
    frequencies = (1 + np.abs(np.fft.rfft(U, axis=0))[1:].argmax(axis=0)).tolist()
    assert frequencies[:6] == [17, 17, 3, 3, 15, 15]
    assert frequencies[6:] == [min(2 * k % _P, _P - 2 * k % _P) for k in (17, 17, 3, 3, 15, 15)]
