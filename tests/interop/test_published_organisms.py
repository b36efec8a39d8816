"""Tests that experiment files reproduce the published results that they state."""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from mi_jax.cli.overrides import with_overrides
from mi_jax.dynamics import GrokkingRule, grokking_dates, interpolated_crossings
from mi_jax.runs.library import find
from mi_jax.runs.train import train

_FOLDER = Path(__file__).parents[2] / "experiments"


def _stated(name: str) -> str:
    """The docstring of an experiment file, on one line."""
    return " ".join((_FOLDER / f"{name}.py").read_text().split('"""')[1].split())


def _number(name: str, words: str) -> float:
    """The number that an experiment file's docstring states in place of {}."""
    before, after = (re.escape(part) for part in words.split("{}"))
    match = re.search(rf"{before}([\d.,e-]*\d){after}", _stated(name))
    assert match, f"{name} does not state {words!r}"
    return float(match[1].replace(",", ""))


def _read(name: str, overrides: str, path: Path, *measures: str) -> xr.Dataset:
    experiment = with_overrides(find(name), shlex.split(overrides), "test")
    chosen: list[Any] = ["train_accuracy", "test_accuracy", *measures]
    return train(experiment, path / "run").measure(chosen)


def _last(dataset: xr.Dataset, name: str) -> np.ndarray:
    return dataset[name].isel(step=-1).values


@pytest.mark.slow
def test_doshi_groks_within_a_quarter_of_the_published_steps(tmp_path: Path) -> None:
    dataset = _read("doshi_2023", "--seeds 0-2", tmp_path)
    train_step, test_step = (
        float(np.median(interpolated_crossings(dataset[f"{split}_accuracy"], 1.0)))
        for split in ("train", "test")
    )
    assert train_step == pytest.approx(28, rel=0.25)
    assert test_step == pytest.approx(44, rel=0.25)
    assert train_step == pytest.approx(_number("doshi_2023", "medians {} (training)"), abs=1.5)
    assert test_step == pytest.approx(_number("doshi_2023", "and {} (test)"), abs=2)


@pytest.mark.slow
def test_doshi_inverts_wrong_labels_under_decay_15(tmp_path: Path) -> None:
    given = "--task.label-noise 0.35 --optimizer.weight-decay 15 --steps 350 --seeds 0"
    dataset = _read("doshi_2023", given, tmp_path, "label_noise_accuracy")
    assert _last(dataset, "train_accuracy") == pytest.approx(1 - 0.35 + 0.35 / 97, abs=0.01)
    assert _last(dataset, "test_accuracy") > 0.99
    assert _last(dataset, "corrected_accuracy") > 0.99


@pytest.mark.slow
def test_merrill_parity_groks_onto_a_few_neurons(tmp_path: Path) -> None:
    dataset = _read("merrill_2023", "--seeds 0,3", tmp_path, "effective_sparsity", "sensitivity")
    assert (grokking_dates(dataset, GrokkingRule(gap=3.0))["verdict"] == "grokked").all()
    np.testing.assert_allclose(_last(dataset, "test_accuracy"), 1)
    np.testing.assert_allclose(_last(dataset, "sensitivity"), 3, atol=0.01)
    fewest = dataset["effective_sparsity"]
    assert (_last(dataset, "effective_sparsity") <= 50).all()
    assert (fewest.max("step") > 500).all()
    assert _last(dataset, "effective_sparsity")[0] == pytest.approx(
        _number("merrill_2023", "at the end is {}, 6, 6, 14, 6"), abs=10
    )


@pytest.mark.slow
def test_barak_weights_tell_the_parity_before_the_answers_do(tmp_path: Path) -> None:
    experiment = with_overrides(find("barak_2022"), ["--seeds", "0,1"], "test")
    dataset = train(experiment, tmp_path / "run").measure(
        ["test_accuracy", "hidden_progress", "weight_gap"]
    )
    seen, answered = (
        interpolated_crossings(dataset["weight_gap"], 0.0),
        interpolated_crossings(dataset["test_accuracy"], 0.6),
    )
    assert (seen < answered).all()
    assert (interpolated_crossings(dataset["hidden_progress"], 0.1) < 0.5 * answered).all()
    assert (_last(dataset, "test_accuracy") == 1).all()
    assert _last(dataset, "hidden_progress")[0] == pytest.approx(
        _number("barak_2022", "ends at {}, 1.49"), abs=0.1
    )


@pytest.mark.slow
def test_the_lazier_a_network_the_less_it_moves_and_the_later_it_generalises(
    tmp_path: Path,
) -> None:
    delays, moves = [], []
    for scale, rate in ((0.5, 0.4), (2, 0.025), (4, 0.00625)):
        given = (
            f"--seeds 0 --model.output-scale {scale} --optimizer.learning-rate {rate} --steps 1500"
        )
        dataset = _read("lazy_to_rich", given, tmp_path / str(scale), "hidden_progress")
        train_step, test_step = (
            float(interpolated_crossings(dataset[f"{split}_accuracy"], 0.9)[0])
            for split in ("train", "test")
        )
        delays.append(test_step / train_step)
        moves.append(float(_last(dataset, "hidden_progress")[0]))
    assert delays == sorted(delays)
    assert delays[0] < 1.5
    assert delays[-1] > 2
    assert moves == sorted(moves, reverse=True)


@pytest.mark.slow
def test_log_softmax_without_decay_collapses_and_does_not_grok(tmp_path: Path) -> None:
    dataset = _read(
        "prieto_2025", "--seeds 0 --steps 1700", tmp_path, "softmax_collapse", "exact_loss_collapse"
    )
    assert _last(dataset, "train_accuracy") == 1
    assert _last(dataset, "test_accuracy") < 0.1
    assert _last(dataset, "softmax_collapse") > 0.2
    np.testing.assert_array_equal(
        _last(dataset, "softmax_collapse"), _last(dataset, "exact_loss_collapse")
    )


@pytest.mark.slow
def test_the_orthogonal_gradient_groks_without_collapse(tmp_path: Path) -> None:
    given = "--seeds 0 --steps 150 --optimizer.filter.name orthogonal_gradient"
    dataset = _read("prieto_2025", given, tmp_path, "exact_loss_collapse")
    assert _last(dataset, "test_accuracy") > 0.99
    assert (dataset["exact_loss_collapse"] == 0).all()
