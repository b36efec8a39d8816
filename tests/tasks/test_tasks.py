"""Modular arithmetic: the published split, the operations, the evaluation's bookkeeping, and
minibatches however they are cut.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import few
from unchecked import unchecked

from mi_jax.basics.errors import ConfigError
from mi_jax.contracts import LONGEST_CHUNK
from mi_jax.tasks import TASKS, ModularArithmetic
from mi_jax.tasks.sampling import minibatches

_FORMULAS: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "x^2+y^2": lambda a, b: a**2 + b**2,
    "x^2+xy+y^2": lambda a, b: a**2 + a * b + b**2,
}
_KEY = jax.random.key(5)


def _pairs(inputs: Any) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in np.asarray(inputs)[:, :2]]


@pytest.mark.parametrize(
    ("p", "fraction", "seed"),
    [(7, 0.5, 0), (7, 0.5, 3), (12, 0.3, 1), (2, 0.3, 0), (113, 0.3, 598)],
)
def test_the_published_split_is_pythons_shuffle_of_the_lexicographic_pairs(
    p: int, fraction: float, seed: int
) -> None:
    pairs = [(a, b) for a in range(p) for b in range(p)]
    random.Random(seed).shuffle(pairs)
    count = int(fraction * len(pairs))
    task = ModularArithmetic(p=p, fraction=fraction, split_seed=seed)
    evaluation = task.evaluation(task.data(0), _KEY)
    assert _pairs(task.data(0).inputs) == pairs[:count]
    assert _pairs(evaluation.batches["train"].inputs) == pairs[:count]
    assert sorted(_pairs(evaluation.batches["test"].inputs)) == sorted(pairs[count:])


def test_the_split_is_that_of_the_published_weights(published: Path) -> None:
    with np.load(published / "nanda_mod_add_wd0.1.npz") as file:
        train, test = file["train_idx"], file["test_idx"]
    order = ModularArithmetic(p=113, fraction=0.3, split_seed=1).order()
    assert (len(train), len(test)) == (3830, 8939)
    np.testing.assert_array_equal(order, np.concatenate([train, test]))
    task = ModularArithmetic(p=113, fraction=0.3, split_seed=1)
    inputs = np.asarray(task.data(0).inputs)
    np.testing.assert_array_equal(inputs[:, 0] * 113 + inputs[:, 1], train)


def test_the_permutation_split_is_numpys() -> None:
    task = ModularArithmetic(p=7, fraction=0.5, split="permutation", split_seed=4)
    order = np.random.default_rng(4).permutation(49)
    assert _pairs(task.data(0).inputs) == [divmod(int(pair), 7) for pair in order[:24]]


@pytest.mark.parametrize("operation", _FORMULAS)
@pytest.mark.parametrize("p", [2, 7, 10])
def test_every_answer_is_the_operation_mod_p(operation: Any, p: int) -> None:
    task = ModularArithmetic(p=p, operation=operation, fraction=0.5)
    evaluation = task.evaluation(task.data(0), _KEY)
    for batch in evaluation.batches.values():
        for (a, b, equals), answer in zip(
            np.asarray(batch.inputs).tolist(), np.asarray(batch.targets).tolist(), strict=True
        ):
            assert answer == [_FORMULAS[operation](a, b) % p]
            assert equals == p
    expected = [[_FORMULAS[operation](a, b) % p for b in range(p)] for a in range(p)]
    np.testing.assert_array_equal(evaluation.ground_truth["answer"], expected)


@pytest.mark.parametrize("split", ["published", "permutation"])
def test_the_splits_are_disjoint_and_together_the_full_table(split: Any) -> None:
    task = ModularArithmetic(p=11, fraction=0.3, split=split)
    batches = task.evaluation(task.data(0), _KEY).batches
    assert sorted(batches) == ["test", "train"]
    seen = [pair for batch in batches.values() for pair in _pairs(batch.inputs)]
    assert sorted(seen) == [(a, b) for a in range(11) for b in range(11)]
    assert len(batches["train"].targets) == int(0.3 * 121)
    assert all(np.all(np.asarray(batch.weights) == 1) for batch in batches.values())


@pytest.mark.parametrize("p", [5, 8])
def test_the_table_gives_the_row_of_each_pair_among_the_splits(p: int) -> None:
    task = ModularArithmetic(p=p, fraction=0.4, split_seed=2)
    evaluation = task.evaluation(task.data(0), _KEY)
    rows = [
        pair
        for name in sorted(evaluation.batches)
        for pair in _pairs(evaluation.batches[name].inputs)
    ]
    table = np.asarray(evaluation.ground_truth["table"])
    assert [rows[table[a, b]] for a in range(p) for b in range(p)] == [
        (a, b) for a in range(p) for b in range(p)
    ]


@pytest.mark.parametrize("operation", _FORMULAS)
def test_only_group_tables_of_the_cyclic_group_have_a_cyclic_answer(operation: Any) -> None:
    task = ModularArithmetic(p=7, operation=operation, fraction=0.5)
    concepts = task.evaluation(task.data(0), _KEY).ground_truth
    assert ("cyclic_answer" in concepts) == (operation in ("add", "subtract"))
    if "cyclic_answer" in concepts:
        np.testing.assert_array_equal(concepts["cyclic_answer"], concepts["answer"])


def test_the_inputs_describe_the_tokens() -> None:
    task = ModularArithmetic(p=7, fraction=0.5)
    tokens = np.concatenate(
        [b.inputs for b in task.evaluation(task.data(0), _KEY).batches.values()]
    )
    inputs = task.inputs
    assert (inputs.vocabulary, inputs.positions, inputs.classes, inputs.tokens, inputs.varied) == (
        8,
        3,
        7,
        7,
        (0, 1),
    )
    assert [(int(column.min()), int(column.max()) + 1) for column in tokens.T] == list(
        inputs.alphabet
    )
    assert task.read == (2,)


def test_without_an_equals_sign_the_same_pairs_are_two_tokens_read_at_the_second() -> None:
    plain, short = (
        ModularArithmetic(p=7, fraction=0.5),
        ModularArithmetic(p=7, fraction=0.5, format="a b"),
    )
    inputs = short.inputs
    assert (inputs.vocabulary, inputs.positions, inputs.classes, inputs.tokens, inputs.varied) == (
        7,
        2,
        7,
        7,
        (0, 1),
    )
    assert inputs.alphabet == ((0, 7), (0, 7))
    assert short.read == (1,)
    ours, theirs = (task.evaluation(task.data(0), _KEY) for task in (short, plain))
    for name, batch in theirs.batches.items():
        np.testing.assert_array_equal(ours.batches[name].inputs, np.asarray(batch.inputs)[:, :2])
        np.testing.assert_array_equal(ours.batches[name].targets, batch.targets)
    assert ours.ground_truth.keys() == theirs.ground_truth.keys()
    for name, concept in theirs.ground_truth.items():
        np.testing.assert_array_equal(ours.ground_truth[name], concept)


def test_minibatches_have_two_tokens_where_examples_do() -> None:
    task = ModularArithmetic(p=5, fraction=0.5, format="a b", batch_size=4)
    assert task.batches(task.data(0), _KEY, 0, 2)(1).inputs.shape == (4, 2)


@pytest.mark.parametrize("operation", ["add", "subtract", "multiply", "random"])
@pytest.mark.parametrize("p", [5, 6])
def test_answer_and_distance_together_tell_the_pair_where_there_is_a_distance(
    operation: Any, p: int
) -> None:
    task = ModularArithmetic(p=p, operation=operation, fraction=0.5)
    concepts = task.evaluation(task.data(0), _KEY).ground_truth
    assert ("distance" in concepts) == (operation in ("add", "subtract") and p % 2 == 1)
    if "distance" in concepts:
        sign = -1 if operation == "add" else 1
        expected = [[(a + sign * b) % p for b in range(p)] for a in range(p)]
        np.testing.assert_array_equal(concepts["distance"], expected)
        seen = set(
            zip(
                np.ravel(concepts["answer"]).tolist(),
                np.ravel(concepts["distance"]).tolist(),
                strict=True,
            )
        )
        assert len(seen) == p * p


def _labels(task: ModularArithmetic, seed: int = 0) -> dict[tuple[int, int], int]:
    """Target of each pair, from both splits."""
    batches = task.evaluation(task.data(seed), _KEY).batches.values()
    pairs = [pair for batch in batches for pair in _pairs(batch.inputs)]
    return dict(
        zip(
            pairs,
            [int(y) for batch in batches for y in np.asarray(batch.targets)[:, 0]],
            strict=True,
        )
    )


@pytest.mark.parametrize("split", ["published", "permutation"])
def test_random_labels_are_one_table_of_the_split_seed(split: Any) -> None:
    task = ModularArithmetic(p=7, operation="random", fraction=0.5, split=split, split_seed=5)
    table = np.random.default_rng(5).integers(7, size=(7, 7))
    assert _labels(task) == {(a, b): table[a, b] for a in range(7) for b in range(7)}
    concepts = task.evaluation(task.data(0), _KEY).ground_truth
    np.testing.assert_array_equal(concepts["answer"], table)
    assert "cyclic_answer" not in concepts
    plain = ModularArithmetic(p=7, fraction=0.5, split=split, split_seed=5)
    np.testing.assert_array_equal(task.data(0).inputs, plain.data(0).inputs)


def test_random_labels_are_shared_by_seeds_even_where_splits_are_not_and_differ_by_split_seed() -> (
    None
):
    per_seed = ModularArithmetic(
        p=7, operation="random", fraction=0.5, split_seed=5, split_per_seed=True
    )
    assert _pairs(per_seed.data(0).inputs) != _pairs(per_seed.data(1).inputs)
    assert _labels(per_seed, 0) == _labels(per_seed, 1)
    assert _labels(per_seed) != _labels(
        ModularArithmetic(p=7, operation="random", fraction=0.5, split_seed=6)
    )


def test_random_labels_are_all_used_about_equally_and_follow_no_sum() -> None:
    p = 31
    task = ModularArithmetic(p=p, operation="random", fraction=0.5)
    answer = np.asarray(task.evaluation(task.data(0), _KEY).ground_truth["answer"])
    counts = np.bincount(answer.ravel(), minlength=p)
    # Chi-squared of p - 1 degrees of freedom: mean p - 1, variance 2 (p - 1).
    assert abs(((counts - p) ** 2 / p).sum() - (p - 1)) < 4 * np.sqrt(2 * (p - 1))
    right = (answer == (np.arange(p)[:, None] + np.arange(p)) % p).mean()
    assert right < 1 / p + 4 * np.sqrt(1 / p / p**2)


def test_splits_by_seed_differ_and_are_those_of_the_shifted_split_seed() -> None:
    shared = ModularArithmetic(p=11, split_seed=3)
    per_seed = ModularArithmetic(p=11, split_seed=3, split_per_seed=True)
    assert not shared.per_seed
    assert per_seed.per_seed
    assert _pairs(shared.data(0).inputs) == _pairs(shared.data(5).inputs)
    for seed in (0, 5):
        alone = ModularArithmetic(p=11, split_seed=3 + seed)
        assert _pairs(per_seed.data(seed).inputs) == _pairs(alone.data(0).inputs)
    assert set(_pairs(per_seed.data(0).inputs)) != set(_pairs(per_seed.data(5).inputs))


def test_a_full_batch_is_the_data_in_every_step() -> None:
    task = ModularArithmetic(p=5, fraction=0.5)
    data = task.data(0)
    feed = task.batches(data, _KEY, 0, 10)
    assert feed(0) is data
    assert feed(9) is data


def _drawn(size: int, batch: int, start: int, n: int) -> np.ndarray:
    """Indices [step example] of steps start to start + n - 1."""

    def draw(start: jax.Array, n: jax.Array) -> jax.Array:
        return jax.lax.map(minibatches(_KEY, size, batch, start, n), jnp.arange(16))

    return np.asarray(_jitted(draw, size, batch)(jnp.asarray(start), jnp.asarray(n)))[:n]


_programs: dict[tuple[int, int], Any] = {}


def _jitted(draw: Callable[..., Any], size: int, batch: int) -> Any:
    return _programs.setdefault((size, batch), jax.jit(draw))


_SIZES = [(7, 2), (9, 3), (5, 5), (6, 1), (8, 5), (1, 1)]


@pytest.mark.parametrize(("size", "batch"), _SIZES)
def test_a_step_sees_the_same_examples_however_training_is_cut(size: int, batch: int) -> None:
    whole = _drawn(size, batch, 0, 16)
    for cuts in ([1] * 16, [5, 1, 7, 3], [2, 14], [15, 1]):
        starts = np.cumsum([0, *cuts[:-1]])
        parts = [_drawn(size, batch, int(start), n) for start, n in zip(starts, cuts, strict=True)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize(("size", "batch"), _SIZES)
def test_an_epoch_is_its_own_permutation_without_the_remainder(size: int, batch: int) -> None:
    whole, per_epoch = _drawn(size, batch, 0, 16), size // batch
    for epoch in range(16 // per_epoch):
        examples = whole[epoch * per_epoch : (epoch + 1) * per_epoch].ravel()
        assert len(set(examples.tolist())) == per_epoch * batch
        assert 0 <= examples.min() <= examples.max() < size
        order = jax.random.permutation(jax.random.fold_in(_KEY, epoch), size)
        np.testing.assert_array_equal(examples, order[: per_epoch * batch])


def test_epochs_and_keys_order_the_examples_differently() -> None:
    whole = _drawn(6, 1, 0, 16)[:, 0]
    assert whole[:6].tolist() != whole[6:12].tolist()
    other = minibatches(jax.random.key(6), 30, 30, 0, 1)(0)
    assert other.tolist() != minibatches(_KEY, 30, 30, 0, 1)(0).tolist()


@pytest.mark.parametrize("batch", few([3, 1, 2, 5], 1))
def test_the_longest_chunk_ends_as_a_chunk_of_one_step_does(batch: int) -> None:
    start = 1_000_003
    long = minibatches(_KEY, 5, batch, start, LONGEST_CHUNK)
    for i in (0, 1, 2047, LONGEST_CHUNK - 2, LONGEST_CHUNK - 1):
        np.testing.assert_array_equal(long(i), minibatches(_KEY, 5, batch, start + i, 1)(0))


def test_other_starts_and_lengths_compile_nothing() -> None:
    task = ModularArithmetic(p=5, fraction=0.5, batch_size=3)

    @jax.jit
    def last(data: Any, start: jax.Array, n: jax.Array) -> Any:
        return task.batches(data, _KEY, start, n)(n - 1)

    for start, n in ((0, 1), (7, 90), (3, 4096)):
        last(task.data(0), jnp.asarray(start), jnp.asarray(n))
    assert last._cache_size() == 1


def test_a_minibatch_holds_whole_examples_of_the_trained_pairs() -> None:
    task = ModularArithmetic(p=7, fraction=0.5, batch_size=10)
    data = task.data(0)
    trained = dict(zip(_pairs(data.inputs), np.asarray(data.targets)[:, 0].tolist(), strict=True))
    feed = task.batches(data, _KEY, 0, 4)
    for i in range(4):
        batch = feed(i)
        assert batch.inputs.shape == (10, 3)
        assert batch.weights.tolist() == [[1.0]] * 10
        assert np.asarray(batch.targets)[:, 0].tolist() == [
            trained[pair] for pair in _pairs(batch.inputs)
        ]
    first, second = _pairs(feed(0).inputs), _pairs(feed(1).inputs)
    assert not set(first) & set(second), "two steps of one epoch share no example"


_BAD: list[tuple[dict[str, Any], str]] = [
    ({"p": 0}, "p=0.*at least 2"),
    ({"p": -7}, "p=-7.*at least 2"),
    ({"p": 1}, "p=1.*at least 2"),
    ({"p": 7.5}, r"p=7\.5.*whole number"),
    ({"fraction": 0.0}, "fraction=0.0.*between 0 and 1"),
    ({"fraction": 1.0}, "fraction=1.0.*between 0 and 1"),
    ({"fraction": -0.2}, r"fraction=-0\.2.*between 0 and 1"),
    ({"fraction": 1.2}, r"fraction=1\.2.*between 0 and 1"),
    ({"fraction": float("nan")}, "fraction=nan.*between 0 and 1"),
    ({"p": 2, "fraction": 0.2}, "of 4 pairs leaves 0 to train on"),
    ({"operation": "ad"}, "operation='ad' is unknown; did you mean add"),
    ({"operation": "dvide"}, "operation='dvide' is unknown; did you mean divide"),
    ({"operation": "gcd"}, "operation='gcd' is unknown; known are add, add_or_multiply"),
    (
        {"operation": "divide", "p": 15},
        r"'divide' needs a prime modulus.*p=15 is not prime. The next prime is 17",
    ),
    (
        {"operation": "divide_or_subtract", "p": 9},
        "'divide_or_subtract' needs a prime modulus.*p=9 is not prime. The next prime is 11",
    ),
    ({"operation": "divide", "p": 2, "fraction": 0.2}, "of 2 pairs leaves 0 to train on"),
    ({"split": "held_out", "p": 5, "fraction": 0.03}, "of 25 pairs leaves 0 to train on"),
    ({"split": "unordered", "p": 3, "fraction": 0.3}, "of 9 pairs leaves 0 to train on"),
    ({"label_noise": -0.1}, r"label_noise=-0\.1.*between 0 and 1"),
    ({"label_noise": 1.5}, r"label_noise=1\.5.*between 0 and 1"),
    ({"label_noise": float("nan")}, "label_noise=nan.*between 0 and 1"),
    ({"split": "random"}, "split='random': must be one of .*permutation"),
    ({"format": "a+b"}, r"format='a\+b': must be one of"),
    ({"p": 5, "fraction": 0.5, "batch_size": 13}, "batch_size=13.*12 trained pairs, or None"),
    ({"batch_size": 0}, "batch_size=0.*whole number from 1"),
    ({"batch_size": 2.5}, r"batch_size=2\.5.*whole number"),
    ({"split": "permutation", "split_seed": -1}, "split_seed=-1.*at least 0"),
]


@pytest.mark.parametrize(("settings", "message"), _BAD)
def test_bad_settings_are_refused_with_what_is_allowed(
    settings: dict[str, Any], message: str
) -> None:
    with unchecked(), pytest.raises(ConfigError, match=message):
        ModularArithmetic(**settings)


@pytest.mark.parametrize(
    "settings", [{"p": 2}, {"p": 5, "fraction": 0.5, "batch_size": 12}, {"p": 5, "fraction": 0.99}]
)
def test_settings_at_the_edge_are_accepted(settings: dict[str, Any]) -> None:
    task = ModularArithmetic(**settings)
    evaluation = task.evaluation(task.data(0), _KEY)
    assert sum(len(batch.targets) for batch in evaluation.batches.values()) == task.p**2


def test_the_registry_holds_the_task() -> None:
    assert TASKS["modular_arithmetic"] is ModularArithmetic
