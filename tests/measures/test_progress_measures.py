"""Restricted and excluded loss and the logits' FVE: closed forms, brute force in float64,
invariances.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fakes import context_of, read, tables
from permuting import permuted

from mi_jax.measures import MEASURES
from mi_jax.models import MLP, Transformer
from mi_jax.tasks import ModularArithmetic

_MEASURES = ("restricted_loss", "excluded_loss", "logit_fve")


def _task(p: int, operation: Any = "add") -> ModularArithmetic:
    return ModularArithmetic(p=p, operation=operation, fraction=0.4, split_seed=1)


def _answers(task: ModularArithmetic) -> np.ndarray:
    a, b = np.meshgrid(np.arange(task.p), np.arange(task.p), indexing="ij")
    return (a + b if task.operation == "add" else a - b) % task.p


def _cosines(task: ModularArithmetic, k: int) -> np.ndarray:
    """cos(2 pi k (a o b - c) / p) [a b c]."""
    return np.cos(2 * np.pi * k * (_answers(task)[:, :, None] - np.arange(task.p)) / task.p)


def _read(name: str, logits: np.ndarray, task: ModularArithmetic, keys: Sequence[int]) -> float:
    return float(read(name, tables(logits=logits), context_of(task, keys=keys)))


# --- Brute force, straight from the formulas


def _cross_entropy(logits: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Loss of each pair; the largest logit is subtracted, so that exp does not overflow."""
    z = logits - logits.max(axis=1, keepdims=True)
    return np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), answers]


def _along(L: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """P_k L: parts along the unit vectors of cos and sin of an angle that each pair has."""
    part = np.zeros_like(L)
    for wave in (np.cos(angle), np.sin(angle)):
        norm = np.linalg.norm(wave)
        if norm > 1e-6:
            part += np.outer(wave / norm, (wave / norm) @ L)
    return part


def _brute_force(
    logits: np.ndarray, task: ModularArithmetic, keys: Sequence[int]
) -> dict[str, float]:
    p = task.p
    L = logits[:, :, :p].reshape(p * p, p)
    answers = _answers(task).ravel()
    key_part = sum(_along(L, 2 * np.pi * k * answers / p) for k in keys)
    train = task.order()[: int(task.fraction * p * p)]
    centred = (L - L.mean()).ravel()
    design = np.stack([_cosines(task, k).ravel() for k in keys], axis=1)
    residual = centred - design @ np.linalg.lstsq(design, centred, rcond=None)[0]
    return {
        "restricted_loss": float(_cross_entropy(key_part + L.mean(axis=0), answers).mean()),
        "excluded_loss": float(_cross_entropy(L - key_part, answers)[train].mean()),
        "logit_fve": float(1 - (residual**2).sum() / (centred**2).sum()),
    }


def _random_logits(task: ModularArithmetic, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(1, 2, size=(task.p, task.p, task.p + 1))


def _trained_logits(task: ModularArithmetic, keys: Sequence[int], seed: int) -> np.ndarray:
    """Two of the keys' cosines, waves of one input alone, a mean by class, and noise."""
    rng = np.random.default_rng(seed)
    logits = 0.7 * rng.normal(size=(task.p, task.p, task.p + 1)) + rng.normal(size=task.p + 1)
    for k in keys[:2]:
        logits[:, :, : task.p] += rng.uniform(1, 4) * _cosines(task, k)
    logits[:, :, : task.p] += np.cos(2 * np.pi * np.arange(task.p) / task.p)[
        :, None, None
    ] * rng.normal(size=task.p)
    return logits


_CASES = [(7, [1, 3]), (8, [1, 2]), (8, [3, 4]), (11, [2, 3, 5]), (12, [6]), (3, [1])]


@pytest.mark.slow
@pytest.mark.parametrize("operation", ["add", "subtract"])
@pytest.mark.parametrize(("p", "keys"), _CASES)
@pytest.mark.parametrize("trained", [False, True])
def test_each_measure_is_its_formula_in_float64(
    p: int, keys: list[int], operation: str, trained: bool
) -> None:
    task = _task(p, operation)
    logits = _trained_logits(task, keys, seed=p) if trained else _random_logits(task, seed=p)
    expected = _brute_force(np.asarray(logits, np.float32).astype(np.float64), task, keys)
    for name in _MEASURES:
        assert _read(name, logits, task, keys) == pytest.approx(
            expected[name], rel=2e-5, abs=1e-6
        ), name


@pytest.mark.parametrize("p", [7, 8])
def test_all_frequencies_together_leave_functions_of_the_answer_alone(p: int) -> None:
    """With every frequency key, restricted logits are each answer's mean: what is excluded averages
    to each class's mean.
    """
    task = _task(p)
    logits, answers = _random_logits(task, 0), _answers(task)
    L = logits[:, :, :p]
    by_answer = np.array([L[answers == s].mean(axis=0) for s in range(p)])[answers].reshape(
        p * p, p
    )
    expected = _cross_entropy(by_answer, answers.ravel()).mean()
    assert _read("restricted_loss", logits, task, range(1, p // 2 + 1)) == pytest.approx(
        expected, rel=2e-5
    )


# --- Closed forms

_WAVES = [(7, {1: 3.0, 3: 1.5}), (8, {1: 2.0, 4: 1.0}), (13, {2: 2.0, 5: 1.0, 6: 3.0})]


def _from_cosines(task: ModularArithmetic, amplitudes: dict[int, float]) -> np.ndarray:
    logits = np.full((task.p, task.p, task.p + 1), -50.0)
    logits[:, :, : task.p] = sum(
        amplitude * _cosines(task, k) for k, amplitude in amplitudes.items()
    )
    return logits


@pytest.mark.parametrize("operation", ["add", "subtract"])
@pytest.mark.parametrize(("p", "amplitudes"), _WAVES)
def test_logits_of_cosines_excluded_leave_the_logarithm_of_p(
    p: int, amplitudes: dict[int, float], operation: str
) -> None:
    task = _task(p, operation)
    logits = _from_cosines(task, amplitudes)
    assert _read("excluded_loss", logits, task, list(amplitudes)) == pytest.approx(
        np.log(p), rel=1e-6
    )
    shifted = logits + 17.0
    assert _read("excluded_loss", shifted, task, list(amplitudes)) == pytest.approx(
        np.log(p), rel=2e-6
    )


@pytest.mark.parametrize("operation", ["add", "subtract"])
@pytest.mark.parametrize(("p", "amplitudes"), _WAVES)
def test_logits_of_cosines_restricted_keep_their_loss(
    p: int, amplitudes: dict[int, float], operation: str
) -> None:
    task = _task(p, operation)
    logits = _from_cosines(task, amplitudes)
    by_class = np.random.default_rng(0).normal(size=p)
    for shift in (0.0, by_class):
        L = logits[:, :, :p] + shift
        whole = _cross_entropy(L.reshape(p * p, p), _answers(task).ravel()).mean()
        assert _read("restricted_loss", L, task, list(amplitudes)) == pytest.approx(whole, rel=1e-5)
    one_less = list(amplitudes)[1:]
    assert _read("restricted_loss", logits, task, one_less) > 1.2 * _read(
        "restricted_loss", logits, task, list(amplitudes)
    )


@pytest.mark.parametrize("operation", ["add", "subtract"])
@pytest.mark.parametrize(("p", "amplitudes"), _WAVES)
def test_logits_of_cosines_are_explained_by_the_squares_of_their_amplitudes(
    p: int, amplitudes: dict[int, float], operation: str
) -> None:
    task = _task(p, operation)
    logits = _from_cosines(task, amplitudes)
    assert _read("logit_fve", logits, task, list(amplitudes)) == pytest.approx(1, abs=1e-6)
    # The mean square of a cosine is a half, of the alternating one 1.
    energy = {k: amplitude**2 * (1.0 if 2 * k == p else 0.5) for k, amplitude in amplitudes.items()}
    first = next(iter(amplitudes))
    assert _read("logit_fve", logits, task, [first]) == pytest.approx(
        energy[first] / sum(energy.values()), rel=1e-5
    )


def test_sines_and_other_sums_are_not_explained() -> None:
    task = _task(7)
    a, b = np.meshgrid(np.arange(7), np.arange(7), indexing="ij")
    c = np.arange(7)
    sines = np.sin(2 * np.pi * 2 * (a[:, :, None] + b[:, :, None] - c) / 7)
    difference = np.cos(2 * np.pi * 2 * (a[:, :, None] - b[:, :, None] - c) / 7)
    for logits in (sines, difference):
        assert _read("logit_fve", logits, task, [2]) == pytest.approx(0, abs=1e-6)


# --- Which key frequencies


def test_keys_are_those_of_the_final_models_output_map() -> None:
    task = _task(11)
    wave = {k: np.cos(2 * np.pi * k * np.arange(11) / 11)[None] for k in (2, 5)}
    logits = _trained_logits(task, [2, 5], seed=0)
    params, final = tables(logits=logits, W_L=wave[2]), tables(logits=logits, W_L=wave[5])
    for name in _MEASURES:
        frozen = float(read(name, params, context_of(task, final=final)))
        assert frozen == pytest.approx(_read(name, logits, task, [5]), rel=1e-6), name
        assert abs(frozen - _read(name, logits, task, [2])) > 1e-2, name
        assert MEASURES[name].retrospective


# --- Invariances


@pytest.mark.parametrize("p", [7, 8])
def test_renaming_the_classes_by_a_shift_changes_nothing(p: int) -> None:
    """(a, b, c) -> (a + s, b, c + s) is a symmetry of addition; excluded loss is over the trained
    pairs, which move.
    """
    task, keys = _task(p), [1, 3]
    logits = _trained_logits(task, keys, seed=5)[:, :, :p]
    turned = np.roll(np.roll(logits, 2, axis=0), 2, axis=2)
    for name in ("restricted_loss", "logit_fve"):
        assert _read(name, turned, task, keys) == pytest.approx(
            _read(name, logits, task, keys), rel=1e-5
        ), name


@pytest.mark.parametrize("name", _MEASURES)
def test_a_constant_on_all_logits_changes_nothing(name: str) -> None:
    task = _task(7)
    logits = _trained_logits(task, [1, 3], seed=2)
    assert _read(name, logits + 8.0, task, [1, 3]) == pytest.approx(
        _read(name, logits, task, [1, 3]), rel=2e-5
    )


def test_the_share_explained_has_no_scale() -> None:
    task = _task(7)
    logits = _trained_logits(task, [1, 3], seed=2)
    assert _read("logit_fve", 9 * logits, task, [1, 3]) == pytest.approx(
        _read("logit_fve", logits, task, [1, 3]), rel=1e-5
    )


@pytest.mark.slow
def test_the_order_of_heads_and_neurons_changes_nothing() -> None:
    task = _task(7)
    model = Transformer(d_model=8, heads=4, d_mlp=12).build(task.inputs)
    params = jax.tree.map(lambda x: 2 * x, model.init(jax.random.key(0)))
    turned = permuted(params)
    for name in _MEASURES:
        plain, permuted_value = (
            float(read(name, x, context_of(task, model=model, final=x))) for x in (params, turned)
        )
        assert permuted_value == pytest.approx(plain, rel=2e-5), name


# --- On networks


def test_the_measures_read_an_mlp_through_its_roles() -> None:
    task = _task(7)
    model = MLP(width=16).build(task.inputs)
    params = jax.tree.map(lambda x: 3 * x, model.init(jax.random.key(0)))
    inputs = jnp.array([[a, b, 7] for a in range(7) for b in range(7)])
    logits = np.asarray(model.apply(params, inputs), np.float64).reshape(7, 7, 7)
    expected = _brute_force(logits, task, [1, 2])
    context = context_of(task, model=model, keys=[1, 2])
    for name in _MEASURES:
        assert float(read(name, params, context)) == pytest.approx(expected[name], rel=2e-5), name


@pytest.mark.parametrize("name", _MEASURES)
def test_compiled_and_plain_agree(name: str) -> None:
    task = _task(8)
    params, context = (
        tables(logits=_trained_logits(task, [1, 4], seed=3)),
        context_of(task, keys=[1, 4]),
    )
    compiled = jax.jit(MEASURES[name].read)(params, context)[name]
    assert float(compiled) == pytest.approx(float(read(name, params, context)), rel=1e-5)


@pytest.mark.parametrize("name", _MEASURES)
def test_logits_that_are_not_finite_show(name: str) -> None:
    task = _task(7)
    logits = _random_logits(task, 0)
    logits[2, 3, 4] = np.nan
    assert np.isnan(_read(name, logits, task, [1]))


# --- Label noise


_LABELLED = (
    "excluded_loss",
    "excluded_loss_3d",
    "excluded_loss_by_frequency",
    "restricted_loss_train",
    "restricted_loss",
    "restricted_loss_test",
)


@pytest.mark.parametrize("name", _LABELLED)
@pytest.mark.parametrize("operation", ["add", "subtract"])
def test_losses_of_the_training_pairs_are_of_the_labels_that_are_trained_on(
    name: str, operation: Any
) -> None:
    """Losses of all pairs and of test pairs are of right answers: nothing else is known there."""
    task = ModularArithmetic(p=7, operation=operation, fraction=0.4, split_seed=1, label_noise=0.5)
    keys, p = [1, 3], 7
    logits = _trained_logits(task, keys, seed=2)
    L = np.asarray(logits, np.float32).astype(np.float64)[:, :, :p].reshape(p * p, p)
    answers, trained = _answers(task).ravel(), task.order()[: task.trained]
    labels = answers.copy()
    noise = task.noise()
    labels[trained[noise.corrupted]] = noise.labels[noise.corrupted]
    assert (labels != answers).sum() >= 4
    test = np.setdiff1d(np.arange(p * p), trained)
    parts = {k: _along(L, 2 * np.pi * k * answers / p) for k in range(1, p // 2 + 1)}
    cosines = {k: _cosines(task, k).reshape(p * p, p) for k in keys}
    lines = sum((C * L).sum() / (C * C).sum() * C for C in cosines.values())
    kept, without = parts[1] + parts[3] + L.mean(axis=0), L - parts[1] - parts[3]
    expected = {
        "excluded_loss": _cross_entropy(without, labels)[trained].mean(),
        "excluded_loss_3d": _cross_entropy(L - lines, labels)[trained].mean(),
        "excluded_loss_by_frequency": [
            _cross_entropy(L - part, labels)[trained].mean() for part in parts.values()
        ],
        "restricted_loss_train": _cross_entropy(kept, labels)[trained].mean(),
        "restricted_loss": _cross_entropy(kept, answers).mean(),
        "restricted_loss_test": _cross_entropy(kept, answers)[test].mean(),
    }
    value = read(name, tables(logits=logits), context_of(task, keys=keys))
    np.testing.assert_allclose(value, expected[name], rtol=2e-5)


def test_nothing_excluded_leaves_the_training_loss_under_label_noise() -> None:
    task = ModularArithmetic(p=7, fraction=0.4, split_seed=1, label_noise=0.5)
    prepared = {"final_key_frequencies": jnp.zeros(3, bool)}
    context = dataclasses.replace(context_of(task), prepared=prepared)
    params = tables(logits=_random_logits(task, 0)[:, :, :7])
    loss = read("train_loss", params, context)
    for name in ("excluded_loss", "excluded_loss_3d"):
        np.testing.assert_allclose(read(name, params, context), loss, rtol=1e-6)


_BY_LABEL = {
    "train_loss",
    "train_accuracy",
    "train_margin",
    "label_noise_accuracy",
    "restricted_loss_train",
    "excluded_loss",
    "excluded_loss_online",
    "excluded_loss_by_frequency",
    "excluded_loss_3d",
}
"""Measures that read labels of the training split of a task on residues."""


def test_labels_that_are_trained_on_move_the_readings_of_the_training_split_and_no_other() -> None:
    """Every measure that applies is read with the drawn labels and with the right answers."""
    task = ModularArithmetic(p=7, fraction=0.4, split_seed=1, label_noise=0.5)
    model = MLP(width=10).build(task.inputs)
    # A network whose predictions agree with some of the drawn labels.
    params = model.init(jax.random.key(4))
    noisy = context_of(task, model=model, final=params)
    train = noisy.batches["train"]
    right = train._replace(targets=jnp.asarray(train.info["right_answer"])[:, None])
    clean = dataclasses.replace(noisy, batches={**noisy.batches, "train": right})
    moved: set[str] = set()
    for name, measure in MEASURES.items():
        lacking = measure.missing(
            model.roles,
            frozenset(noisy.ground_truth),
            frozenset({"final"}),
            splits=frozenset(noisy.batches),
        )
        if lacking or measure.prepare.keys() - {"final_key_frequencies"}:
            continue
        one, other = (measure.read(params, context) for context in (noisy, clean))
        if any(not np.array_equal(one[key], other[key], equal_nan=True) for key in one):
            moved.add(name)
    assert moved == _BY_LABEL
