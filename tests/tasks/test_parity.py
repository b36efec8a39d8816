"""Sparse parity: answers, sets and fresh data; the exact coefficients of majority against brute
force and the published table.
"""

import itertools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from signs import SignNet
from unchecked import unchecked

from mi_jax.basics.errors import ConfigError
from mi_jax.runs.experiment import Experiment
from mi_jax.runs.train import train
from mi_jax.tasks import TASKS, SparseParity
from mi_jax.tasks.fourier_gap import (
    cube,
    fourier_gap,
    majority_coefficient,
    majority_gap,
    parity_coefficients,
    sign_neuron_gradient,
)
from mi_jax.training import AdamW, log_spaced

_KEY = jax.random.key(5)


def _rows(inputs: Any) -> list[tuple[int, ...]]:
    return [tuple(int(v) for v in row) for row in np.asarray(inputs)[:, 0]]


def _class(row: tuple[int, ...], coordinates: Any) -> int:
    return int(np.prod([row[i] for i in coordinates]) == 1)


# --- The task
# --------------------------------------------------------------------------------


@pytest.mark.parametrize("subset", ["first", "random"])
@pytest.mark.parametrize(("n", "k"), [(5, 1), (5, 5), (9, 3)])
def test_class_one_is_a_product_of_plus_one(n: int, k: int, subset: Any) -> None:
    task = SparseParity(
        n=n, k=k, subset=subset, examples=12, batch_size=None, test_examples=20, split_seed=3
    )
    evaluation = task.evaluation(task.data(0), _KEY)
    S = np.flatnonzero(evaluation.ground_truth["subset"])
    assert len(S) == k
    assert S.tolist() == (list(range(k)) if subset == "first" else task.coordinates.tolist())
    rows = [row for split in ("test", "train") for row in _rows(evaluation.batches[split].inputs)]
    assert set(itertools.chain(*rows)) == {-1, 1}
    answers = [_class(row, S) for row in rows]
    labels = np.concatenate(
        [evaluation.batches[split].targets[:, 0] for split in ("test", "train")]
    )
    np.testing.assert_array_equal(labels, answers)
    np.testing.assert_array_equal(evaluation.ground_truth["answer"], answers)
    np.testing.assert_array_equal(
        evaluation.ground_truth["relevant_bits"], [[int(row[i] == 1) for i in S] for row in rows]
    )
    expected = [[_class(row, S[: j + 1]) for j in range(k)] for row in rows]
    np.testing.assert_array_equal(evaluation.ground_truth["partial_parities"], expected)
    assert not evaluation.ground_truth["corrupted"].any()


def test_the_sets_are_different_inputs_and_the_whole_cube_where_they_are_as_large() -> None:
    task = SparseParity(n=5, k=2, examples=20, batch_size=None, test_examples=12)
    batches = task.evaluation(task.data(0), _KEY).batches
    seen = [*_rows(batches["train"].inputs), *_rows(batches["test"].inputs)]
    assert sorted(seen) == sorted(itertools.product((-1, 1), repeat=5))


def test_splits_by_seed_differ_and_never_share_inputs_with_the_test_set() -> None:
    task = SparseParity(
        n=8, k=2, examples=100, batch_size=None, test_examples=100, split_per_seed=True
    )
    assert task.per_seed
    sets = []
    for seed in (0, 1):
        batches = task.evaluation(task.data(seed), _KEY).batches
        sets.append(set(_rows(batches["train"].inputs)))
        assert not sets[-1] & set(_rows(batches["test"].inputs))
    assert sets[0] != sets[1]
    alone = SparseParity(n=8, k=2, examples=100, batch_size=None, test_examples=100, split_seed=1)
    assert set(_rows(alone.data(0).inputs)) == sets[1]  # pyright: ignore[reportAttributeAccessIssue]


def test_exactly_the_stated_share_of_the_trained_labels_is_flipped() -> None:
    task = SparseParity(
        n=10, k=3, examples=200, batch_size=None, test_examples=50, label_noise=0.25
    )
    clean = SparseParity(n=10, k=3, examples=200, batch_size=None, test_examples=50)
    ours, theirs = (each.evaluation(each.data(0), _KEY) for each in (task, clean))
    np.testing.assert_array_equal(ours.batches["train"].inputs, theirs.batches["train"].inputs)
    wrong = np.asarray(ours.batches["train"].targets != theirs.batches["train"].targets)[:, 0]
    assert wrong.sum() == 50
    np.testing.assert_array_equal(ours.ground_truth["corrupted"], [*[False] * 50, *wrong])
    np.testing.assert_array_equal(ours.ground_truth["answer"], theirs.ground_truth["answer"])


def test_online_examples_are_fresh_and_the_same_however_training_is_cut() -> None:
    task = SparseParity(n=12, k=3, examples=None, batch_size=16, test_examples=32)

    @jax.jit
    def at(start: jax.Array, n: jax.Array, i: jax.Array) -> Any:
        return task.batches(task.data(0), _KEY, start, n)(i)

    whole = [at(jnp.asarray(0), jnp.asarray(9), jnp.asarray(i)) for i in range(9)]
    for start, n in ((0, 1), (4, 5), (8, 1)):
        for i in range(n):
            np.testing.assert_array_equal(
                at(jnp.asarray(start), jnp.asarray(n), jnp.asarray(i)).inputs,
                whole[start + i].inputs,
            )
    assert at._cache_size() == 1  # pyright: ignore[reportAttributeAccessIssue]
    rows = [row for batch in whole for row in _rows(batch.inputs)]
    assert len(set(rows)) > 0.9 * len(rows), "144 draws of 4,096 inputs repeat little"
    labels = np.concatenate([batch.targets[:, 0] for batch in whole])
    assert labels.tolist() == [_class(row, range(3)) for row in rows]
    assert sorted(task.evaluation(task.data(0), _KEY).batches) == ["test"]


def test_online_labels_are_flipped_with_the_stated_probability() -> None:
    task = SparseParity(
        n=12, k=3, examples=None, batch_size=4000, test_examples=32, label_noise=0.2
    )
    batch = task.batches(task.data(0), _KEY, 7, 1)(0)
    wrong = np.mean(np.asarray(batch.targets)[:, 0] != np.asarray(task.answers(batch.inputs[:, 0])))
    assert abs(wrong - 0.2) < 4 * np.sqrt(0.2 * 0.8 / 4000)


def test_minibatches_are_of_the_finite_set() -> None:
    task = SparseParity.smallest()
    data: Any = task.data(0)
    trained = dict(zip(_rows(data.inputs), np.asarray(data.targets)[:, 0].tolist(), strict=True))
    feed = task.batches(data, _KEY, 0, 4)
    epoch = [feed(i) for i in range(4)]
    rows = [row for batch in epoch for row in _rows(batch.inputs)]
    assert sorted(rows) == sorted(trained)
    assert [trained[row] for row in rows] == [
        int(y) for batch in epoch for y in np.asarray(batch.targets)[:, 0]
    ]


def test_the_inputs_are_one_position_of_floats() -> None:
    task = SparseParity()
    inputs, data = task.inputs, task.data(0)
    assert (inputs.kind, inputs.features, inputs.positions, inputs.classes, inputs.tokens) == (
        "floats",
        40,
        1,
        2,
        0,
    )
    assert data.inputs.shape == (1000, 1, 40)  # pyright: ignore[reportAttributeAccessIssue]
    assert data.inputs.dtype == jnp.float32  # pyright: ignore[reportAttributeAccessIssue]
    assert TASKS["sparse_parity"] is SparseParity


@pytest.mark.slow
def test_a_model_of_two_functions_learns_a_small_parity_and_is_read(tmp_path: Path) -> None:
    experiment = Experiment(
        task=SparseParity(n=6, k=2, examples=None, batch_size=32, test_examples=64),
        model=SignNet(width=32),
        optimizer=AdamW(learning_rate=1e-2, weight_decay=0.0, warmup=1),
        steps=400,
        schedule=log_spaced(4),
    )
    run = train(experiment, tmp_path / "run")
    names = [
        "test_accuracy",
        "hidden_progress",
        "weight_gap",
        "sensitivity",
        "effective_sparsity_test",
    ]
    last = run.measure(names).isel(step=-1, seed=0)
    assert float(last["test_accuracy"]) == 1.0
    assert float(last["sensitivity"]) == 2.0, (
        "an exact parity of two changes with each of its two signs"
    )
    assert float(last["weight_gap"]) > 0
    assert 1 <= float(last["effective_sparsity_test"]) <= 32
    assert float(run.measures["hidden_progress"].isel(step=0, seed=0)) == 0.0
    assert float(last["hidden_progress"]) > 0


_BAD: list[tuple[dict[str, Any], str]] = [
    ({"n": 3, "k": 4, "examples": None}, "k=4 of n=3 signs: k must be at most n"),
    ({"k": 0}, "k=0: must be a whole number of at least 1"),
    ({"n": 2.5}, r"n=2\.5: must be a whole number"),
    ({"n": 6, "k": 2}, r"examples=1000 and test_examples=100: there are only 2\^6 = 64"),
    ({"examples": 0}, "examples=0.*or None for fresh examples"),
    (
        {"examples": 10, "batch_size": 11},
        "batch_size=11.*from 1 to the 10 trained examples, or None",
    ),
    ({"batch_size": 0}, "batch_size=0.*whole number from 1"),
    ({"examples": None, "batch_size": None}, "batch_size=None: fresh examples"),
    ({"subset": "frist"}, "subset='frist' is unknown; did you mean first"),
    ({"label_noise": 0.6}, r"label_noise=0\.6.*between 0 and 0\.5"),
    ({"label_noise": float("nan")}, "label_noise=nan"),
    ({"split_seed": -1}, "split_seed=-1.*at least 0"),
    ({"test_examples": 0}, "test_examples=0.*at least 1"),
]


@pytest.mark.parametrize(("settings", "message"), _BAD)
def test_bad_settings_are_refused_with_what_is_allowed(
    settings: dict[str, Any], message: str
) -> None:
    with unchecked(), pytest.raises(ConfigError, match=message):
        SparseParity(**settings)


# --- Functions of signs
# --------------------------------------------------------------------------------


def _majority(n: int) -> np.ndarray:
    return np.sign(cube(n).sum(axis=1))


@pytest.mark.parametrize("n", [1, 4])
def test_coefficients_are_means_of_products(n: int) -> None:
    f, x = np.random.default_rng(n).normal(size=2**n), cube(n)
    for T in range(2**n):
        inside = [i for i in range(n) if T >> i & 1]
        assert parity_coefficients(f)[T] == pytest.approx(
            np.mean(f * x[:, inside].prod(axis=1)), abs=1e-12
        )


@pytest.mark.parametrize("n", [1, 3, 5, 9])
def test_majoritys_coefficients_are_those_of_brute_force(n: int) -> None:
    sizes = np.array([T.bit_count() for T in range(2**n)])
    expected = np.array([majority_coefficient(n, m) for m in range(n + 1)])[sizes]
    np.testing.assert_allclose(parity_coefficients(_majority(n)), expected, atol=1e-12)


def test_majoritys_coefficients_are_the_published_table() -> None:
    table = [majority_coefficient(9, m) for m in (1, 3, 5, 7, 9)]
    assert [round(value, 4) for value in table] == [0.2734, -0.0391, 0.0234, -0.0391, 0.2734]
    assert (round(majority_gap(51, 2), 6), round(majority_gap(51, 4), 6)) == (0.109984, 0.002145)
    for n, k in ((19, 2), (51, 2), (51, 4), (99, 6), (1501, 2), (1501, 8)):
        assert majority_gap(n, k) >= 0.03 * (n - 1) ** (-(k - 1) / 2)
    assert majority_gap(9, 6) < 0


@pytest.mark.parametrize(("n", "S"), [(9, (0, 1)), (9, (2, 5, 6, 8)), (5, (1, 4))])
def test_the_gap_of_a_turned_majority_is_the_closed_form(n: int, S: tuple[int, ...]) -> None:
    w = np.random.default_rng(0).choice([-1.0, 1.0], n)
    assert fourier_gap(np.sign(cube(n) @ w), S) == pytest.approx(majority_gap(n, len(S)), abs=1e-12)


@pytest.mark.parametrize(
    ("n", "S"), [(9, (0, 1)), (9, (1, 3, 4)), (9, (2, 5, 6, 8)), (5, (0, 1, 2, 3, 4))]
)
def test_the_gradient_at_a_neuron_of_signs_is_that_of_brute_force(
    n: int, S: tuple[int, ...]
) -> None:
    w, x = np.random.default_rng(1).choice([-1.0, 1.0], n), cube(n)
    chi = x[:, S].prod(axis=1)
    expected = -(chi[:, None] * (x @ w > 0)[:, None] * x).mean(axis=0)
    np.testing.assert_allclose(sign_neuron_gradient(w, S), expected, atol=1e-12)


def test_arguments_without_a_closed_form_are_refused() -> None:
    for call, message in (
        (lambda: majority_coefficient(8, 1), "n=8: must be odd, for signs"),
        (lambda: majority_coefficient(9, 10), "m=10"),
        (lambda: majority_gap(9, 3), "k=3: must be even"),
        (lambda: fourier_gap(np.ones(8), (0, 1, 2)), "some, and not all"),
        (lambda: fourier_gap(np.ones(6), (0,)), r"shape \(6,\)"),
        (lambda: sign_neuron_gradient(np.array([1.0, 0.5, 1.0]), (0, 1)), "-1 or 1"),
        (lambda: sign_neuron_gradient(np.ones(3), (0,)), "at least 2"),
    ):
        with pytest.raises(ConfigError, match=message):
            call()
