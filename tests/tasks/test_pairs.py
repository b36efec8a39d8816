"""Tasks on pairs: every operation and composition by brute force, formats, splits by structure,
label noise, training.
"""

import dataclasses
import itertools
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import few, tiny_experiment, tiny_mlp_experiment
from fakes import context_of, read, tables
from unchecked import unchecked

from mi_jax.basics.errors import ConfigError, MeasureError
from mi_jax.basics.records import decode, encode
from mi_jax.basics.streams import stream
from mi_jax.contracts import Task
from mi_jax.measures import MEASURES
from mi_jax.measuring.choosing import choose
from mi_jax.models import MLP, Transformer
from mi_jax.runs.experiment import REGISTRY
from mi_jax.runs.train import train
from mi_jax.tasks import TASKS, GroupComposition, ModularArithmetic, characters, group
from mi_jax.tasks.pairs import PairTask
from mi_jax.training.state import Program

_KEY = jax.random.key(5)

_FORMULAS: dict[str, Callable[[int, int], int]] = {
    "x^2+xy+y^2+x": lambda x, y: x**2 + x * y + y**2 + x,
    "x^3+xy": lambda x, y: x**3 + x * y,
    "x^3+xy^2+y": lambda x, y: x**3 + x * y**2 + y,
    "add_or_multiply": lambda x, y: x * y if x % 2 else x + y,
    "add_or_subtract": lambda x, y: x - y if x % 2 else x + y,
}


def _pairs(task: PairTask, batch: Any) -> list[tuple[int, int]]:
    return [
        (int(row[task.inputs.varied[0]]), int(row[task.inputs.varied[1]]))
        for row in np.asarray(batch.inputs)
    ]


def _answers(task: PairTask, seed: int = 0) -> dict[tuple[int, int], int]:
    """Target of each pair, from both splits."""
    batches = task.evaluation(task.data(seed), _KEY).batches.values()
    return {
        pair: int(y)
        for batch in batches
        for pair, y in zip(_pairs(task, batch), np.asarray(batch.targets)[:, 0], strict=True)
    }


@pytest.mark.parametrize("operation", _FORMULAS)
@pytest.mark.parametrize("p", [2, 7, 10])
def test_every_answer_is_the_operation_mod_p(operation: Any, p: int) -> None:
    answers = _answers(ModularArithmetic(p=p, operation=operation, fraction=0.5))
    assert answers == {(a, b): _FORMULAS[operation](a, b) % p for a in range(p) for b in range(p)}


@pytest.mark.parametrize("p", [2, 5, 13])
def test_division_undoes_multiplication_where_it_can(p: int) -> None:
    answers = _answers(ModularArithmetic(p=p, operation="divide", fraction=0.5))
    assert sorted(answers) == [(a, b) for a in range(p) for b in range(1, p)]
    assert all(c * b % p == a for (a, b), c in answers.items())
    mixed = _answers(ModularArithmetic(p=p, operation="divide_or_subtract", fraction=0.5))
    assert sorted(mixed) == [(a, b) for a in range(p) for b in range(p)]
    assert all(c * b % p == a if b % 2 else c == (a - b) % p for (a, b), c in mixed.items())


def test_division_has_no_table_and_measures_that_need_one_say_so() -> None:
    experiment = tiny_mlp_experiment(task=ModularArithmetic(p=11, operation="divide", fraction=0.5))
    with pytest.raises(
        MeasureError,
        match="logit_fve cannot be read here: it needs the task's ground truth 'table'",
    ):
        choose(["logit_fve"], experiment.subject())
    taken = {measure.name for measure in choose(None, experiment.subject())[0]}
    assert {"train_loss", "test_accuracy", "gini_embedding"} <= taken
    assert {"table", "answer"}.isdisjoint(
        experiment.task.evaluation(experiment.task.data(0), _KEY).ground_truth
    )


@pytest.mark.parametrize(("p", "operation"), [(7, "multiply"), (11, "divide"), (2, "multiply")])
def test_logarithms_turn_products_into_sums(p: int, operation: Any) -> None:
    task = ModularArithmetic(p=p, operation=operation, fraction=0.5)
    logarithm = np.asarray(task.evaluation(task.data(0), _KEY).ground_truth["logarithm"])
    assert logarithm[0] == -1
    assert sorted(logarithm[1:]) == list(range(p - 1))
    sign = 1 if operation == "multiply" else -1
    for (a, b), c in _answers(task).items():
        if a and b:
            assert logarithm[c] == (logarithm[a] + sign * logarithm[b]) % (p - 1)
    others = (ModularArithmetic(p=7), ModularArithmetic(p=9, operation="multiply", fraction=0.5))
    assert all(
        "logarithm" not in other.evaluation(other.data(0), _KEY).ground_truth for other in others
    )


def _composed(x: tuple[int, ...], y: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(y[i] for i in x)


def _inverted(x: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(range(len(x)), key=x.__getitem__))


_FORMS: dict[str, Callable[[Any, Any], Any]] = {
    "xy": _composed,
    "xyx^-1": lambda x, y: _composed(_composed(x, y), _inverted(x)),
    "xyx": lambda x, y: _composed(_composed(x, y), x),
}


@pytest.mark.parametrize("form", _FORMS)
@pytest.mark.parametrize("name", ["S4", "A5"])
def test_every_composition_is_that_of_the_permutations(name: str, form: Any) -> None:
    task, elements = GroupComposition(name, form), group(name).elements
    answers = _answers(task)
    assert len(answers) == len(elements) ** 2
    assert all(
        elements[c] == _FORMS[form](elements[x], elements[y]) for (x, y), c in answers.items()
    )
    concepts = task.evaluation(task.data(0), _KEY).ground_truth
    assert all(int(concepts["answer"][x, y]) == c for (x, y), c in list(answers.items())[:200])


def test_a_groups_concepts_are_its_table_and_irreps() -> None:
    task = GroupComposition("S4", "xyx^-1")
    concepts = {
        name: np.asarray(value)
        for name, value in task.evaluation(task.data(0), _KEY).ground_truth.items()
    }
    np.testing.assert_array_equal(concepts["product"], group("S4").table)
    assert task.irrep_labels == ("4", "3+1", "2+2", "2+1+1", "1+1+1+1")
    np.testing.assert_allclose(
        concepts["characters"], [chi for _, chi in characters("S4")], atol=1e-6
    )
    np.testing.assert_allclose(
        concepts["irrep_basis"].T @ concepts["irrep_basis"], np.eye(24), atol=1e-6
    )
    assert np.bincount(concepts["irrep_of_mode"]).tolist() == [1, 9, 4, 9, 1]
    # The docstring's way of writing chi(x y z^-1): largest, the dimension, where z is the answer.
    quotients = concepts["product"][concepts["answer"][:, :, None], concepts["inverse"][None, None]]
    chi = concepts["characters"][1][quotients]
    np.testing.assert_array_equal(chi.argmax(axis=2), concepts["answer"])
    np.testing.assert_allclose(chi.max(axis=2), 3, atol=1e-6)
    assert {"residues", "cyclic_answer", "distance"}.isdisjoint(concepts)


def test_a_cyclic_group_is_modular_addition() -> None:
    cyclic, modular = GroupComposition("C11", fraction=0.5), ModularArithmetic(p=11, fraction=0.5)
    ours, theirs = (task.evaluation(task.data(0), _KEY) for task in (cyclic, modular))
    for split, batch in theirs.batches.items():
        jax.tree.map(np.testing.assert_array_equal, ours.batches[split], batch)
    for name, concept in theirs.ground_truth.items():
        np.testing.assert_array_equal(ours.ground_truth[name], concept)
    rng = np.random.default_rng(0)
    params = tables(
        logits=rng.normal(size=(11, 11, 11)),
        W_E=rng.normal(size=(11, 6)),
        W_L=rng.normal(size=(8, 11)),
    )
    for name in ("gini_embedding", "logit_fve"):
        both = [read(name, params, context_of(task, keys=(2, 5))) for task in (cyclic, modular)]
        np.testing.assert_array_equal(both[0], both[1])


@pytest.mark.parametrize(
    "task", [ModularArithmetic(p=7, fraction=0.5), GroupComposition("S3", fraction=0.5)]
)
def test_in_the_longest_format_the_operation_and_the_equals_sign_are_tokens_of_their_own(
    task: Any,
) -> None:
    long, n = dataclasses.replace(task, format="a op b = c"), task.elements
    inputs = long.inputs
    assert (inputs.vocabulary, inputs.positions, inputs.classes, inputs.varied, inputs.tokens) == (
        n + 2,
        4,
        n,
        (0, 2),
        n,
    )
    assert inputs.alphabet == ((0, n), (n, n + 1), (0, n), (n + 1, n + 2))
    assert long.read == (3,)
    tokens = np.asarray(long.data(0).inputs)
    assert (tokens[:, 1] == n).all()
    assert (tokens[:, 3] == n + 1).all()
    np.testing.assert_array_equal(tokens[:, [0, 2]], np.asarray(task.data(0).inputs)[:, :2])
    assert _answers(long) == _answers(task)
    np.testing.assert_array_equal(
        *(each.evaluation(each.data(0), _KEY).ground_truth["table"] for each in (long, task))
    )


def _trained(task: PairTask, seed: int = 0) -> set[tuple[int, int]]:
    return set(_pairs(task, task.data(seed)))


@pytest.mark.parametrize("operation", ["add", "divide"])
def test_unordered_pairs_stand_on_one_side(operation: Any) -> None:
    task = ModularArithmetic(
        p=11, operation=operation, fraction=0.6, split="unordered", split_seed=3
    )
    trained, everything = _trained(task), set(_answers(task))
    test = everything - trained
    assert len(trained) == task.trained
    assert all((b, a) in trained or (b, a) not in everything for a, b in trained)
    assert not {(b, a) for a, b in test} & trained
    alone = {(a, b) for a, b in everything if a == b or (b, a) not in everything}
    assert len(trained & alone) == int(0.6 * len(alone))
    assert len(trained - alone) == 2 * int(0.6 * (len(everything - alone) // 2))


@pytest.mark.parametrize("operation", ["add", "divide"])
@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.81])
def test_every_test_pair_holds_a_held_out_element_and_no_trained_one_does(
    operation: Any, fraction: float
) -> None:
    task = ModularArithmetic(
        p=11, operation=operation, fraction=fraction, split="held_out", split_seed=1
    )
    trained, everything = _trained(task), set(_answers(task))
    retained = {x for pair in trained for x in pair}
    assert trained == {(a, b) for a, b in everything if {a, b} <= retained}
    most = int(fraction * len(everything))
    larger = len(retained) + 1
    assert (
        len(trained)
        == task.trained
        <= most
        < (larger**2 if operation == "add" else larger * (larger - 1))
    )
    assert operation == "add" or 0 in retained


def test_the_split_of_power_et_al_is_numpys_old_shuffle_of_their_equations() -> None:
    p = 7
    equations = [(c * b % p, b) for c, b in itertools.product(range(p), repeat=2) if b]
    np.random.RandomState(5).shuffle(equations)
    task = ModularArithmetic(
        p=p, operation="divide", fraction=0.5, split="power_2022", split_seed=5
    )
    assert _pairs(task, task.data(0)) == equations[: int(0.5 * len(equations))]
    pairs = list(itertools.product(range(p), repeat=2))
    np.random.RandomState(5).shuffle(pairs)
    assert (
        _pairs(task, dataclasses.replace(task, operation="add").data(0))
        == pairs[: int(0.5 * len(pairs))]
    )


_SPLITS = ("published", "power_2022", "permutation", "unordered", "held_out")


@pytest.mark.parametrize("operation", ["add", "divide"])
@pytest.mark.parametrize("split", few(_SPLITS, 2))
def test_a_larger_fraction_trains_on_more_of_the_same_and_seeds_on_as_many(
    split: Any, operation: Any
) -> None:
    task = ModularArithmetic(
        p=11, operation=operation, split=split, fraction=0.05, split_per_seed=True
    )
    larger = [
        dataclasses.replace(task, fraction=fraction)
        for fraction in (0.05, 0.2, 0.21, 0.5, 0.73, 0.95)
    ]
    for seed in range(4):
        sets = [_trained(task, seed) for task in larger]
        assert all(first <= second for first, second in itertools.pairwise(sets))
        assert [len(trained) for trained in sets] == [task.trained for task in larger]
        rest = [
            set(_answers(task, seed)) - trained for task, trained in zip(larger, sets, strict=True)
        ]
        assert all(len(a) + len(b) == len(task.domain) for a, b in zip(sets, rest, strict=True))
    assert _trained(larger[3], 0) != _trained(larger[3], 1)


def _noisy(share: float, **settings: Any) -> ModularArithmetic:
    return ModularArithmetic(**{"p": 31, "fraction": 0.5, "label_noise": share, **settings})


def test_label_noise_draws_its_share_of_training_labels_and_no_other() -> None:
    noisy, clean = _noisy(0.35), _noisy(0.0)
    data, right = noisy.data(0), clean.data(0)
    np.testing.assert_array_equal(data.inputs, right.inputs)
    evaluation = noisy.evaluation(data, _KEY)
    jax.tree.map(
        np.testing.assert_array_equal,
        evaluation.batches["test"],
        clean.evaluation(right, _KEY).batches["test"],
    )
    corrupted = np.asarray(evaluation.ground_truth["corrupted"])
    np.testing.assert_array_equal(evaluation.ground_truth["right_answer"], right.targets[:, 0])
    np.testing.assert_array_equal(
        evaluation.ground_truth["answer"], np.add.outer(np.arange(31), np.arange(31)) % 31
    )
    changed = np.asarray(data.targets != right.targets)[:, 0]
    assert corrupted.sum() == int(0.35 * noisy.trained)
    assert not (changed & ~corrupted).any()
    # Uniform labels are right by chance one time in p: who answers rightly has accuracy 1 - xi + xi
    # / p.
    expected, deviation = 1 - 0.35 + 0.35 / 31, np.sqrt(0.35 / 31 / noisy.trained)
    assert abs((~changed).mean() - expected) < 4 * deviation + 1 / noisy.trained
    labels = np.asarray(_noisy(1.0, fraction=0.9).data(0).targets)[:, 0]
    counts = np.bincount(labels, minlength=31)
    mean = len(labels) / 31
    assert abs(((counts - mean) ** 2 / mean).sum() - 30) < 4 * np.sqrt(60)


def test_a_larger_share_contains_the_corruptions_of_a_smaller_one() -> None:
    before = (np.zeros(_noisy(0.0).trained, bool), None)
    for share in (0.1, 0.35, 0.36, 0.8, 1.0):
        corrupted, labels = _noisy(share).noise()
        assert corrupted[before[0]].all()
        assert before[1] is None or (labels == before[1]).all()
        before = (corrupted, labels)
    assert before[0].all()


def test_another_fraction_leaves_most_labels_as_they_were() -> None:
    few, many = _answers(_noisy(0.3)), _answers(_noisy(0.3, fraction=0.8))
    trained = _trained(_noisy(0.3))
    assert sum(few[pair] != many[pair] for pair in trained) < 0.05 * len(trained)


def test_noise_is_shared_by_seeds_unless_each_has_its_own_split() -> None:
    shared, per_seed = _noisy(0.3), _noisy(0.3, split_per_seed=True)
    assert _answers(shared, 0) == _answers(shared, 3)
    assert _answers(per_seed, 3) == _answers(_noisy(0.3, split_seed=3)) != _answers(per_seed, 0)


def test_minibatches_mark_corrupted_examples() -> None:
    task = _noisy(0.5, batch_size=20)
    feed = task.batches(task.data(0), _KEY, 0, 2)(1)
    right = np.asarray(feed.inputs)[:, :2].sum(axis=1) % 31
    np.testing.assert_array_equal(feed.info["right_answer"], right)
    assert (np.asarray(feed.targets)[:, 0] == right)[~np.asarray(feed.info["corrupted"])].all()


def test_accuracies_under_label_noise_by_hand() -> None:
    task = ModularArithmetic(p=5, fraction=0.6, label_noise=0.6, split_seed=4)
    corrupted, labels = task.noise()
    logits, rng = np.zeros((5, 5, 5)), np.random.default_rng(0)
    kinds: dict[str, list[bool]] = {
        "clean_accuracy": [],
        "memorised_accuracy": [],
        "corrected_accuracy": [],
    }
    for (a, b), bad, label in zip(_pairs(task, task.data(0)), corrupted, labels, strict=True):
        said = ((a + b) % 5, int(label), int(rng.integers(5)))[rng.integers(3)]
        logits[a, b, said] = 1
        if bad:
            kinds["memorised_accuracy"].append(said == label)
            kinds["corrected_accuracy"].append(said == (a + b) % 5)
        else:
            kinds["clean_accuracy"].append(said == (a + b) % 5)
    values = MEASURES["label_noise_accuracy"].read(tables(logits=logits), context_of(task))
    assert {name: pytest.approx(np.mean(hits), abs=1e-6) for name, hits in kinds.items()} == {
        name: float(value) for name, value in values.items()
    }
    subject = tiny_mlp_experiment().subject()
    with pytest.raises(MeasureError, match="needs the task's ground truth 'corrupted'"):
        choose(["memorised_accuracy"], subject)


def test_splits_and_noise_per_seed_are_stacked_for_the_program() -> None:
    task = ModularArithmetic(
        p=11,
        operation="divide",
        fraction=0.5,
        split="held_out",
        label_noise=0.2,
        split_per_seed=True,
    )
    data = Program(tiny_mlp_experiment(task=task).parts()).data
    for seed in (0, 1, 2):
        jax.tree.map(
            lambda x, alone, seed=seed: np.testing.assert_array_equal(x[seed], alone),
            data,
            task.data(seed),
        )


_TRAINED = {
    "division, a transformer": tiny_experiment(
        task=ModularArithmetic(
            p=7, operation="divide", fraction=0.5, format="a op b = c", label_noise=0.3
        )
    ),
    "a group, an mlp": tiny_mlp_experiment(
        task=GroupComposition("S3", "xyx^-1", fraction=0.6, batch_size=8)
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", _TRAINED)
def test_new_tasks_train_and_are_read(name: str, tmp_path: Path) -> None:
    run = train(dataclasses.replace(_TRAINED[name], steps=12, seeds=(0,)), tmp_path / "run")
    assert np.isfinite(run.losses).all()
    noisy = ["label_noise_accuracy"] if "division" in name else []
    dataset = run.measure(["train_loss", "test_loss", "train_accuracy", *noisy])
    if "division" in name:  # trained on the whole batch
        np.testing.assert_allclose(dataset["train_loss"][0, 0], run.losses[0, 0], rtol=1e-5)
    assert all(np.isfinite(values).all() for values in dataset.data_vars.values())


@pytest.mark.parametrize("model", [Transformer(d_model=8, heads=2, d_mlp=8), MLP(width=8)])
def test_both_models_read_the_longest_format(model: Any) -> None:
    task = GroupComposition("Q8", fraction=0.5, format="a op b = c")
    built, data = model.build(task.inputs), task.data(0)
    params = jax.jit(built.init)(_KEY)
    routes = built.routes or ("plain",)
    passes = [jax.jit(partial(built.along(route), positions=task.read)) for route in routes]
    outputs = [apply(params, data.inputs) for apply in passes]
    assert outputs[0].shape == (
        32,
        1,
        task.inputs.classes if isinstance(model, MLP) else task.inputs.vocabulary,
    )
    assert all(jnp.allclose(outputs[0], other, atol=1e-5) for other in outputs)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_defaults_and_a_smallest_setting_that_can_be_stored(name: str) -> None:
    default, smallest = TASKS[name](), TASKS[name].smallest()
    for task in (default, smallest):
        assert isinstance(task, Task)
        assert decode(json.loads(json.dumps(encode(task, REGISTRY))), REGISTRY) == task
        assert hash(task) == hash(dataclasses.replace(task))
    assert smallest.evaluation(smallest.data(0), stream(0, "measure")).batches


_BAD: tuple[tuple[dict[str, Any], str], ...] = (
    ({"group": "S7"}, "group='S7' is unknown; did you mean S3"),
    ({"form": "yx"}, "form='yx' is unknown; did you mean xyx"),
    ({"group": "C2", "fraction": 0.2}, "of 4 pairs leaves 0 to train on"),
    ({"group": "S3", "batch_size": 15}, "batch_size=15.*14 trained pairs"),
)


def test_a_group_task_refuses_invalid_settings() -> None:
    for settings, message in _BAD:
        with unchecked(), pytest.raises(ConfigError, match=message):
            GroupComposition(**settings)
