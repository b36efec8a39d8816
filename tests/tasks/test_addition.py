"""Multi-digit addition: tokens and carries against integer arithmetic, sets, and readings."""

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fakes import context_of
from unchecked import unchecked

from mi_jax.basics.errors import ConfigError, MeasureError
from mi_jax.contracts import Model, Site
from mi_jax.measures import MEASURES
from mi_jax.measuring.choosing import choose
from mi_jax.models import MLP, Transformer
from mi_jax.runs.experiment import Experiment
from mi_jax.runs.train import train
from mi_jax.tasks import TASKS, MultiDigitAddition
from mi_jax.training import AdamW, at

_KEY = jax.random.key(5)


def _numbers(inputs: Any, digits: int) -> list[tuple[int, int]]:
    """The numbers (a, b) of each row of tokens."""
    tokens = np.asarray(inputs)
    power = 10 ** np.arange(digits)[::-1]
    a, b = tokens[:, :digits] @ power, tokens[:, digits + 1 : 2 * digits + 1] @ power
    return list(zip(a.tolist(), b.tolist(), strict=True))


def _digit(number: int, place: int) -> int:
    return number // 10**place % 10


def _facts(a: int, b: int, digits: int) -> dict[str, list[int]]:
    """The ground truth, by integer arithmetic."""
    places = range(digits, -1, -1)
    sums = {place: _digit(a, place) + _digit(b, place) for place in range(digits + 1)}
    carry = {place: int(a % 10**place + b % 10**place >= 10**place) for place in places}
    case = {
        place: carry[place] * (2 if sums[place - 1] == 9 else 1) if place else 0 for place in places
    }
    return {
        "answer": [_digit(a + b, place) for place in places],
        "base_sum": [sums[place] % 10 for place in places],
        "makes_carry": [int(sums[place] >= 10) for place in places],
        "sum_nine": [int(sums[place] == 9) for place in places],
        "carry_in": [carry[place] for place in places],
        "carry_case": [case[place] for place in places],
    }


def _pairs(digits: int) -> np.ndarray:
    """All pairs of numbers of 1 or 2 digits; a thousand pairs of longer numbers."""
    if digits <= 2:
        return np.array(list(itertools.product(range(10), repeat=2 * digits))).reshape(
            -1, 2, digits
        )
    return np.random.default_rng(digits).integers(10, size=(1000, 2, digits))


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("digits", [1, 2, 5, 19])
def test_answers_and_carries_are_those_of_whole_numbers(digits: int, traced: bool) -> None:
    task, pairs = (
        MultiDigitAddition(digits=digits, cascade_examples=0, test_examples=20),
        _pairs(digits),
    )
    facts = jax.jit(task.facts)(jnp.asarray(pairs)) if traced else task.facts(pairs)
    numbers = [[int("".join(map(str, number))) for number in pair] for pair in pairs.tolist()]
    expected = [_facts(a, b, digits) for a, b in numbers]
    assert set(facts) == set(expected[0])
    for name, fact in facts.items():
        assert np.asarray(fact).tolist() == [by_name[name] for by_name in expected], name


def test_an_example_is_the_sum_as_it_is_written() -> None:
    batch = MultiDigitAddition().examples_of(np.array([[[0, 9, 9, 9, 5], [1, 2, 0, 0, 7]]]))
    assert batch.inputs.tolist() == [[0, 9, 9, 9, 5, 10, 1, 2, 0, 0, 7, 11, 0, 2, 2, 0, 0]]
    assert batch.targets.tolist() == [[0, 2, 2, 0, 0, 2]]


def test_each_answer_is_read_where_its_predecessor_stands() -> None:
    task = MultiDigitAddition(digits=3)
    batch = task.evaluation(task.data(0), _KEY).batches["test"]
    inputs, targets = np.asarray(batch.inputs), np.asarray(batch.targets)
    assert task.read == (7, 8, 9, 10)
    assert (inputs[:, 7] == 11).all()
    np.testing.assert_array_equal(inputs[:, 8:], targets[:, :-1])
    for (a, b), answer in zip(_numbers(inputs, 3), targets.tolist(), strict=True):
        assert int("".join(map(str, answer))) == a + b


@pytest.mark.parametrize("examples", [None, 200])
def test_the_splits_share_no_pair_and_the_hardest_carry_from_end_to_end(
    examples: int | None,
) -> None:
    task = MultiDigitAddition(
        digits=3, examples=examples, batch_size=8, test_examples=300, cascade_examples=100
    )
    evaluation = task.evaluation(task.data(0), _KEY)
    batches = evaluation.batches
    assert sorted(batches) == sorted(["cascade", "test", *(["train"] if examples else [])])
    seen = [pair for batch in batches.values() for pair in _numbers(batch.inputs, 3)]
    assert len(set(seen)) == len(seen) == 400 + (examples or 0)
    cases = np.asarray(evaluation.ground_truth["carry_case"])
    np.testing.assert_array_equal(cases[:100], np.tile([2, 2, 1, 0], (100, 1)))
    assert evaluation.ground_truth["places"].tolist() == [3, 2, 1, 0]
    rows = [pair for name in sorted(batches) for pair in _numbers(batches[name].inputs, 3)]
    assert cases.tolist() == [_facts(a, b, 3)["carry_case"] for a, b in rows]


def test_digits_are_uniform_and_the_alphabet_is_what_stands_there() -> None:
    task = MultiDigitAddition(digits=2, test_examples=4000, cascade_examples=0)
    inputs = task.inputs
    tokens = np.asarray(task.evaluation(task.data(0), _KEY).batches["test"].inputs)
    assert [(int(column.min()), int(column.max()) + 1) for column in tokens.T] == list(
        inputs.alphabet
    )
    assert (inputs.vocabulary, inputs.classes, inputs.tokens, inputs.positions) == (12, 10, 10, 8)
    counts = np.stack([np.bincount(column, minlength=10) for column in tokens[:, [0, 1, 3, 4]].T])
    assert (np.abs(counts - 400) < 4.5 * np.sqrt(400 * 0.9)).all()


def test_online_examples_are_fresh_and_the_same_however_training_is_cut() -> None:
    task = MultiDigitAddition(digits=4, batch_size=32, test_examples=20, cascade_examples=0)

    @jax.jit
    def drawn(start: jax.Array, n: jax.Array, i: jax.Array) -> Any:
        return task.batches(task.data(0), _KEY, start, n)(i)

    whole = [drawn(jnp.asarray(0), jnp.asarray(6), jnp.asarray(i)) for i in range(6)]
    for start, n in ((0, 1), (2, 4), (5, 1)):
        for i in range(n):
            np.testing.assert_array_equal(
                drawn(jnp.asarray(start), jnp.asarray(n), jnp.asarray(i)).inputs,
                whole[start + i].inputs,
            )
    assert drawn._cache_size() == 1  # pyright: ignore[reportAttributeAccessIssue]
    seen = [pair for batch in whole for pair in _numbers(batch.inputs, 4)]
    assert len(set(seen)) == 192
    answers = np.concatenate([batch.targets for batch in whole])
    assert answers.tolist() == [_facts(a, b, 4)["answer"] for a, b in seen]


def test_a_finite_set_is_read_whole_or_in_minibatches_and_may_differ_by_seed() -> None:
    task = MultiDigitAddition(
        digits=2,
        examples=60,
        batch_size=20,
        test_examples=20,
        cascade_examples=20,
        split_per_seed=True,
    )
    data: Any = task.data(0)
    trained = _numbers(data.inputs, 2)
    feed = task.batches(data, _KEY, 0, 3)
    assert sorted(pair for i in range(3) for pair in _numbers(feed(i).inputs, 2)) == sorted(trained)
    whole = MultiDigitAddition(
        digits=2, examples=60, batch_size=None, test_examples=20, cascade_examples=20
    )
    assert whole.batches(data, _KEY, 0, 3)(1) is data
    other: Any = task.data(1)
    assert set(_numbers(other.inputs, 2)) != set(trained)
    assert task.per_seed


# --- Models and readings
# --------------------------------------------------------------------------------


def _without_carries(digits: int, wrong: float) -> Model:
    """A model that answers each digit without carries: logits 0, and ``wrong`` for its answer."""

    def apply(params: Any, inputs: Any, *, taps: Any = None, positions: Any = None) -> jax.Array:
        sums = (inputs[:, :digits] + inputs[:, digits + 1 : 2 * digits + 1]) % 10
        return wrong * jax.nn.one_hot(jnp.pad(sums, ((0, 0), (1, 0))), 10) + params["bias"]

    return Model(init=lambda key: {}, apply=apply, sites=(Site("none", "0", ("batch",)),))


def test_a_network_that_never_carries_is_right_where_nothing_is_carried() -> None:
    task, size = MultiDigitAddition(digits=3, test_examples=400), 3.0
    params, context = {"bias": jnp.float32(0)}, context_of(task, model=_without_carries(3, size))
    carried = np.array(
        [_facts(a, b, 3)["carry_in"] for a, b in _numbers(context.batches["test"].inputs, 3)]
    )
    right, wrong = np.log(np.exp(size) + 9) - size, np.log(np.exp(size) + 9)
    by_carry = MEASURES["by_carry"].read(params, context)
    np.testing.assert_array_equal(by_carry["accuracy_by_carry"], [1, 0, 0])
    np.testing.assert_allclose(by_carry["loss_by_carry"], [right, wrong, wrong], rtol=1e-5)
    by_position = MEASURES["test_loss_by_position"].read(params, context)["test_loss_by_position"]
    assert np.isnan(by_position[:7]).all()
    np.testing.assert_allclose(
        by_position[7:], right + (wrong - right) * carried.mean(axis=0), rtol=1e-5
    )
    exact = MEASURES["test_exact_match"].read(params, context)["test_exact_match"]
    assert float(exact) == pytest.approx((carried.sum(axis=1) == 0).mean(), rel=1e-6)
    assert float(MEASURES["cascade_accuracy"].read(params, context)["cascade_accuracy"]) == 0.25, (
        "the units alone are right"
    )
    assert float(MEASURES["test_accuracy"].read(params, context)["test_accuracy"]) == pytest.approx(
        1 - carried.mean(), rel=1e-6
    )
    nowhere = {"bias": jnp.float32(np.nan)}
    for name in ("by_carry", "test_loss_by_position", "test_exact_match"):
        assert all(
            np.isnan(value).all() for value in MEASURES[name].read(nowhere, context).values()
        )


@pytest.mark.slow
def test_both_routes_of_a_transformer_give_the_same_answers() -> None:
    task = MultiDigitAddition.smallest()
    model = Transformer(d_model=16, heads=2, d_mlp=16).build(task.inputs)
    params, inputs = (
        model.init(jax.random.key(0)),
        task.evaluation(task.data(0), _KEY).batches["test"].inputs,
    )
    plain, table = (
        jax.jit(partial(model.along(route), positions=task.read))(params, inputs)
        for route in ("plain", "table")
    )
    np.testing.assert_allclose(table, plain, atol=2e-5)


def test_a_model_that_would_see_the_answers_or_reads_pairs_is_refused() -> None:
    inputs = MultiDigitAddition().inputs
    with pytest.raises(
        ConfigError, match=r"attention='bidirectional' would see this task's answers.*'causal'"
    ):
        Transformer(attention="bidirectional").build(inputs)
    with pytest.raises(ConfigError, match="pair of tokens"):
        MLP().build(inputs)


@pytest.mark.slow
def test_a_run_is_read_by_split_position_and_carry(tmp_path: Path) -> None:
    experiment = Experiment(
        task=MultiDigitAddition.smallest(),
        model=Transformer(d_model=16, heads=2, d_mlp=16, output_vocabulary=10),
        optimizer=AdamW(learning_rate=1e-2),
        steps=30,
        schedule=at(5, 10),
    )
    whole = train(experiment, tmp_path / "whole")
    assert np.isfinite(whole.losses).all()
    names = [
        "test_loss",
        "cascade_accuracy",
        "test_exact_match",
        "test_loss_by_position",
        "loss_by_carry",
    ]
    dataset = whole.measure(names)
    assert dataset["test_loss_by_position"].dims == ("seed", "step", "position")
    assert dataset["condition"].values.tolist() == ["no carry", "carry", "cascade"]
    read = (
        dataset["test_loss_by_position"].isel(position=list(experiment.task.read)).mean("position")
    )
    np.testing.assert_allclose(read, dataset["test_loss"], rtol=1e-5)
    _, skipped = choose(None, whole.subject)
    assert "split 'train'" in {measure.name: measure.reason for measure in skipped}["train_loss"]
    with pytest.raises(
        MeasureError, match="train_accuracy cannot be read here: it needs the task's split 'train'"
    ):
        whole.measure(["train_accuracy"])


_BAD: list[tuple[dict[str, Any], str]] = [
    ({"digits": 0}, "digits=0: must be a whole number of at least 1"),
    ({"digits": 1.5}, r"digits=1\.5: must be a whole number"),
    (
        {"digits": 1, "test_examples": 101, "cascade_examples": 0},
        "only 100 different pairs of 1-digit numbers",
    ),
    ({"digits": 1, "test_examples": 20}, "cascade_examples=128: 1-digit numbers have 0 such pairs"),
    (
        {"digits": 2, "examples": 700},
        "cascade_examples=128: 2-digit numbers have 450 such pairs, of which 1212",
    ),
    ({"examples": 0}, "examples=0.*or None for fresh examples"),
    (
        {"examples": 700, "batch_size": 701},
        "batch_size=701.*from 1 to the 700 trained examples, or None",
    ),
    ({"batch_size": None}, "batch_size=None: fresh examples"),
    ({"batch_size": 0}, "batch_size=0.*whole number from 1"),
    ({"split_seed": -1}, "split_seed=-1.*at least 0"),
]


@pytest.mark.parametrize(("settings", "message"), _BAD)
def test_bad_settings_are_refused_with_what_is_allowed(
    settings: dict[str, Any], message: str
) -> None:
    with unchecked(), pytest.raises(ConfigError, match=message):
        MultiDigitAddition(**settings)


def test_the_registry_holds_the_task() -> None:
    assert TASKS["multi_digit_addition"] is MultiDigitAddition
