"""Published weights give the published numbers, whatever the order of heads and neurons; files that
don't fit are refused.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import xarray as xr
from flipping import assert_flips_are_refused
from permuting import permuted

from mi_jax.basics.errors import WeightsError
from mi_jax.basics.pytrees import dotted
from mi_jax.contracts import Model
from mi_jax.measures import MEASURES
from mi_jax.measuring.choosing import choose
from mi_jax.measuring.stored import measure_weights
from mi_jax.models import Transformer
from mi_jax.runs.experiment import Experiment
from mi_jax.runs.library import find
from mi_jax.runs.weights import load_weights
from mi_jax.tasks import ModularArithmetic

_P = 113
_KEYS = (6, 23, 37, 39, 41)
_FILE = "nanda_mod_add_wd0.1.npz"

# Digits of shared/published/README.md, section 1. Where float32 can't give the last of them (above
# all that of e^-20): those of reference/grokking.md, section 5.1. The losses' last digits are those
# of float64, below.
_SCALARS = {
    "train_loss": "9.2024e-9",
    "test_loss": "4.9884e-7",
    "train_accuracy": "1.000000",
    "test_accuracy": "1.000000",
    "sum_squared_weights": "1180.966",
    "gini_embedding": ".53531",
    "gini_unembedding": ".75551",
    "restricted_loss": "2.2011e-9",
    "restricted_loss_train": "2.0924e-9",
    "restricted_loss_test": "2.2477e-9",
    "excluded_loss": "8.38537",
    "logit_fve": ".97477",
}
_BY_FREQUENCY = {
    "fourier_power_unembedding": {
        23: ".4288",
        6: ".1779",
        41: ".1408",
        39: ".1288",
        37: ".1138",
        54: ".0028",
    },
    "fourier_power_embedding": {
        23: ".2380",
        6: ".1685",
        37: ".1523",
        41: ".1442",
        39: ".1271",
        46: ".0325",
        12: ".0269",
    },
    "excluded_loss_by_frequency": {
        6: ".02926",
        23: "1.17578",
        37: "4.357e-4",
        39: "6.548e-5",
        41: "2.608e-4",
    },
    "cos_coefficients": {6: "9.375", 23: "31.300", 37: "6.804", 39: "5.050", 41: "6.067"},
    "readout_fve_cos": {6: ".9412", 23: ".9854", 37: ".9354", 39: ".8957", 41: ".8694"},
    "readout_fve_sin": {6: ".9339", 23: ".9854", 37: ".9465", 39: ".8879", 41: ".8786"},
    "cluster_sizes": {6: "47", 23: "31", 37: "65", 39: "11", 41: "31"},
}
_BY_PARAMETER = {
    "embed.W_E": "203.826",
    "pos_embed.W_pos": "8.0691",
    "blocks.0.attn.W_Q": "9.8003",
    "blocks.0.attn.W_K": "9.7672",
    "blocks.0.attn.W_V": "189.724",
    "blocks.0.attn.W_O": "189.671",
    "blocks.0.mlp.W_in": "188.392",
    "blocks.0.mlp.b_in": "0.11147",
    "blocks.0.mlp.W_out": "188.665",
    "blocks.0.mlp.b_out": "0.0035834",
    "unembed.W_U": "192.936",
}
_NAMES = (
    *(name for name in _SCALARS),
    *(name for name in _BY_FREQUENCY if not name.startswith("readout")),
    "readout_fve",
    "sum_squared_weights_by_parameter",
    "key_frequencies",
    "key_frequencies_embedding",
    "key_frequencies_neurons",
    "neuron_fve",
    "neuron_frequency",
)


def _half_unit(printed: str) -> float:
    """Half a unit in the last digit of a printed number."""
    digits, _, exponent = printed.partition("e")
    return 0.5 * 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))


def _is_printed(value: float, printed: str) -> bool:
    return abs(float(value) - float(printed)) <= _half_unit(printed)


def _experiment() -> Experiment:
    """The published set-up with the split that the weights were trained on."""
    experiment = find("nanda_2023")
    assert isinstance(experiment.task, ModularArithmetic)
    return dataclasses.replace(experiment, task=dataclasses.replace(experiment.task, split_seed=1))


@pytest.fixture(scope="module", params=["as published", "heads and neurons in another order"])
def readings(request: pytest.FixtureRequest, published: Path) -> xr.Dataset:
    subject = _experiment().subject()
    params, _ = load_weights(published / _FILE, subject.model)
    params = params if request.param == "as published" else permuted(params)
    measures, _ = choose([MEASURES[name] for name in _NAMES], subject, frozenset({"final"}))
    provenance = {"experiment": {}, "hash": "", "machine": {}}
    return measure_weights(params, subject, measures, provenance).isel(seed=0, step=0)


# --- The numbers


@pytest.mark.parametrize("name", _SCALARS)
def test_a_number_is_the_published_one(readings: xr.Dataset, name: str) -> None:
    assert _is_printed(readings[name], _SCALARS[name]), (float(readings[name]), _SCALARS[name])


@pytest.mark.parametrize("name", _BY_FREQUENCY)
def test_a_number_by_frequency_is_the_published_one(readings: xr.Dataset, name: str) -> None:
    for k, printed in _BY_FREQUENCY[name].items():
        value = float(readings[name].sel(frequency=k))
        assert _is_printed(value, printed), (k, value, printed)


@pytest.mark.parametrize("name", ["fourier_power_unembedding", "fourier_power_embedding"])
def test_the_frequencies_named_are_the_largest_ones(readings: xr.Dataset, name: str) -> None:
    falling = 1 + np.argsort(readings[name].values)[::-1]
    frequencies = list(_BY_FREQUENCY[name])
    assert falling[: len(frequencies)].tolist() == frequencies
    assert float(readings[name].sum()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", _BY_PARAMETER)
def test_the_squares_of_a_matrix_are_the_published_ones(readings: xr.Dataset, name: str) -> None:
    value = float(readings["sum_squared_weights_by_parameter"].sel(parameter=name))
    assert _is_printed(value, _BY_PARAMETER[name]), (value, _BY_PARAMETER[name])


def test_the_key_frequencies_are_the_published_ones(readings: xr.Dataset) -> None:
    key_frequencies = {
        name: readings["frequency"].values[readings[name].values].tolist()
        for name in readings
        if "key_freq" in str(name)
    }
    assert key_frequencies["key_frequencies"] == list(_KEYS)
    assert key_frequencies["key_frequencies_neurons"] == list(_KEYS)
    assert len(key_frequencies["key_frequencies_embedding"]) == 10


def test_the_clusters_of_neurons_are_the_published_ones(readings: xr.Dataset) -> None:
    fve, frequency = readings["neuron_fve"].values, readings["neuron_frequency"].values
    clustered = frequency[fve >= 0.85]
    assert len(clustered) / 512 == pytest.approx(0.361328, abs=5e-7)
    assert {k: int((clustered == k).sum()) for k in np.unique(clustered)} == {
        6: 47,
        23: 31,
        37: 65,
        39: 11,
        41: 31,
    }
    assert _is_printed(float(np.median(fve)), ".715847")


def test_the_curve_ends_at_the_loss_of_the_weights(readings: xr.Dataset, published: Path) -> None:
    """The last logged losses are those of one step before."""
    with np.load(published / _FILE) as file:
        train, test = file["train_losses"][-1], file["test_losses"][-1]
    assert float(readings["train_loss"]) == pytest.approx(train, rel=1e-4)
    assert float(readings["test_loss"]) == pytest.approx(test, rel=1e-3)


# --- The same in float64


def _float64_logits(w: dict[str, np.ndarray]) -> np.ndarray:
    """Logits [pair class] of the forward pass that shared/published/README.md writes down, at the
    position of '='.
    """
    a, b = np.divmod(np.arange(_P * _P), _P)
    x = w["embed.W_E"][np.stack([a, b, np.full_like(a, _P)], axis=1)] + w["pos_embed.W_pos"]
    mid = x[:, -1].copy()
    for W_Q, W_K, W_V, W_O in zip(
        *(w[f"blocks.0.attn.W_{letter}"] for letter in "QKVO"), strict=True
    ):
        scores = np.einsum("pe,pse->ps", x[:, -1] @ W_Q, x @ W_K) / np.sqrt(32)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        mid += np.einsum("ps,pse->pe", weights / weights.sum(axis=1, keepdims=True), x @ W_V) @ W_O
    post = np.maximum(mid @ w["blocks.0.mlp.W_in"] + w["blocks.0.mlp.b_in"], 0)
    return (mid + post @ w["blocks.0.mlp.W_out"] + w["blocks.0.mlp.b_out"]) @ w["unembed.W_U"][
        :, :_P
    ]


def _cross_entropy(L: np.ndarray, answers: np.ndarray) -> np.ndarray:
    margins = L - L[np.arange(len(L)), answers][:, None]
    margins[np.arange(len(L)), answers] = -np.inf
    return np.log1p(np.exp(margins).sum(axis=1))


@pytest.fixture(scope="module")
def exact(published: Path) -> dict[str, float]:
    """Losses and shares in float64, written from the formulas of shared/published/README.md."""
    with np.load(published / _FILE) as file:
        L = _float64_logits(
            {name: file[name].astype(np.float64) for name in file.files if "." in name}
        )
        train, test = file["train_idx"], file["test_idx"]
    answers = np.add(*np.divmod(np.arange(_P * _P), _P)) % _P
    key_part, explained, C = np.zeros_like(L), 0.0, L - L.mean()
    for k in _KEYS:
        angle = 2 * np.pi * k * answers / _P
        for wave in (np.cos(angle), np.sin(angle)):
            unit = wave / np.linalg.norm(wave)
            key_part += np.outer(unit, unit @ L)
        cosine = np.cos(2 * np.pi * k * (answers[:, None] - np.arange(_P)) / _P)
        explained += (cosine * C).sum() ** 2 / (cosine**2).sum()
    restricted = _cross_entropy(key_part + L.mean(axis=0), answers)
    whole = _cross_entropy(L, answers)
    return {
        "train_loss": whole[train].mean(),
        "test_loss": whole[test].mean(),
        "restricted_loss": restricted.mean(),
        "restricted_loss_train": restricted[train].mean(),
        "restricted_loss_test": restricted[test].mean(),
        "excluded_loss": _cross_entropy(L - key_part, answers)[train].mean(),
        "logit_fve": explained / (C**2).sum(),
    }


_FLOAT64 = {
    "train_loss": "9.20242e-9",
    "test_loss": "4.98838e-7",
    "restricted_loss": "2.20113e-9",
    "restricted_loss_train": "2.09243e-9",
    "restricted_loss_test": "2.24770e-9",
    "excluded_loss": "8.38537",
    "logit_fve": ".974770",
}


@pytest.mark.parametrize("name", _FLOAT64)
def test_a_reading_is_that_of_plain_float64(
    readings: xr.Dataset, exact: dict[str, float], name: str
) -> None:
    assert _is_printed(exact[name], _FLOAT64[name]), (exact[name], _FLOAT64[name])
    # Logits of 70 in float32 are good to 6e-5 at worst, and so is e^-logit.
    assert float(readings[name]) == pytest.approx(exact[name], rel=1e-5)


# --- Files of weights


def _small() -> Model:
    return Transformer(d_model=8, heads=2, d_mlp=12).build(
        ModularArithmetic(p=5, fraction=0.5).inputs
    )


def _arrays() -> dict[str, np.ndarray]:
    return {name: np.asarray(x) for name, x in dotted(_small().init(jax.random.key(0))).items()}


def _load(folder: Path, arrays: dict[str, Any]) -> tuple[Any, list[str]]:
    np.savez(folder / "weights.npz", **arrays)
    return load_weights(folder / "weights.npz", _small())


def test_weights_come_back_as_they_were_saved_and_other_arrays_are_listed(tmp_path: Path) -> None:
    params, ignored = _load(
        tmp_path, {**_arrays(), "losses": np.zeros(3), "config": np.array("{}")}
    )
    assert ignored == ["config", "losses"]
    assert jax.tree.structure(params) == jax.tree.structure(_small().init(jax.random.key(0)))
    for name, value in dotted(params).items():
        np.testing.assert_array_equal(value, _arrays()[name])
        assert value.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_weights_of_another_precision_are_read_as_float32(tmp_path: Path, dtype: Any) -> None:
    params, _ = _load(tmp_path, {name: value.astype(dtype) for name, value in _arrays().items()})
    for name, value in dotted(params).items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, _arrays()[name].astype(dtype).astype(np.float32))


_MISFITS: list[tuple[dict[str, Any], str]] = [
    ({"embed.W_E": None}, r"missing embed\.W_E \[6, 8\]"),
    (
        {"blocks.0.mlp.b_in": None, "unembed.W_U": None},
        r"missing blocks\.0\.mlp\.b_in \[12\]; missing unembed\.W_U \[8, 6\]",
    ),
    (
        {"embed.W_E": np.zeros((6, 9), np.float32)},
        r"embed\.W_E has the shape \[6, 9\], that of the model is \[6, 8\]",
    ),
    ({"embed.W_E": np.zeros((8, 6), np.float32)}, r"embed\.W_E has the shape \[8, 6\]"),
    (
        {"blocks.1.attn.W_Q": np.zeros((2, 8, 4))},
        r"blocks\.1\.attn\.W_Q \[2, 8, 4\] is not a parameter of this model",
    ),
    (
        {"unembed.b_U": np.zeros(6, np.float32)},
        r"unembed\.b_U \[6\] is not a parameter of this model",
    ),
    (
        {"embed.W_E": np.zeros((6, 8), int)},
        r"embed\.W_E has the type int64, a parameter is a floating-point number",
    ),
    ({"embed.W_E": np.zeros((6, 8), bool)}, r"embed\.W_E has the type bool"),
    ({"embed.W_E": np.zeros((6, 8), complex)}, r"embed\.W_E has the type complex128"),
    ({"embed.W_E": np.full((6, 8), "x")}, r"embed\.W_E has the type <U1"),
]


@pytest.mark.parametrize(("changes", "message"), _MISFITS)
def test_weights_that_do_not_fit_are_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    arrays = {name: value for name, value in {**_arrays(), **changes}.items() if value is not None}
    with pytest.raises(WeightsError, match=message):
        _load(tmp_path, arrays)


def test_everything_that_does_not_fit_is_said_at_once(tmp_path: Path) -> None:
    arrays = {**_arrays(), "embed.W_E": np.zeros((2, 2)), "blocks.7.x": np.zeros(1)}
    del arrays["unembed.W_U"]
    with pytest.raises(
        WeightsError,
        match=r"missing unembed\.W_U.*embed\.W_E has the shape.*blocks\.7\.x \[1\] is not a param",
    ):
        _load(tmp_path, arrays)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path, value: float) -> None:
    arrays = _arrays()
    arrays["blocks.0.mlp.b_in"] = np.where(np.arange(12) == 3, value, arrays["blocks.0.mlp.b_in"])
    with pytest.raises(WeightsError, match=r"blocks\.0\.mlp\.b_in .*not finite"):
        _load(tmp_path, arrays)


def test_weights_beyond_float32_are_refused_where_they_would_become_infinite(
    tmp_path: Path,
) -> None:
    arrays = {name: value.astype(np.float64) for name, value in _arrays().items()}
    arrays["embed.W_E"][1, 2] = -1e39
    with pytest.raises(WeightsError, match=r"embed\.W_E .*beyond float32.*float64"):
        _load(tmp_path, arrays)
    params, _ = load_weights(tmp_path / "weights.npz", _small(), "float64")
    assert dotted(params)["embed.W_E"][1, 2] == -1e39


def _truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:1000])


def _flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[content.find(b"embed.W_E") + 200] ^= 0xFF
    file.write_bytes(bytes(content))


def _as_npy(file: Path) -> None:
    with file.open("wb") as out:
        np.save(out, np.zeros(3))


def _pickled(file: Path) -> None:
    np.savez(file, **{**_arrays(), "config": np.array({"a": 1}, dtype=object)})


_CORRUPTIONS: dict[str, Callable[[Path], Any]] = {
    "truncated": _truncated,
    "one byte flipped": _flipped,
    "empty": lambda file: file.write_bytes(b""),
    "text": lambda file: file.write_text("weights, as it were"),
    "zip magic and nothing else": lambda file: file.write_bytes(b"PK\x03\x04" + bytes(100)),
    "a single array": _as_npy,
    "pickled objects": _pickled,
    "absent": lambda file: file.unlink(),
}


def test_a_file_with_one_flipped_bit_is_refused_or_read_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "weights.npz"
    np.savez(file, **_arrays())
    content = file.read_bytes()
    assert_flips_are_refused(
        file, content, lambda: dotted(load_weights(file, _small())[0]), WeightsError
    )


@pytest.mark.parametrize("corruption", _CORRUPTIONS)
def test_a_file_that_is_no_npz_of_arrays_is_refused_by_name(
    tmp_path: Path, corruption: str
) -> None:
    file = tmp_path / "weights.npz"
    np.savez(file, **_arrays())
    _CORRUPTIONS[corruption](file)
    with pytest.raises(WeightsError, match=r"weights\.npz cannot be read as an npz of arrays"):
        load_weights(file, _small())


def test_a_folder_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be read as an npz of arrays"):
        load_weights(tmp_path, _small())
