"""Repeated sequences: halves, answers and ground truth, by loops over the tokens."""

import jax
import numpy as np
import pytest
from unchecked import unchecked

from mi_jax.basics.errors import ConfigError
from mi_jax.models import Transformer
from mi_jax.tasks import RepeatedSequences

_KEY = jax.random.key(3)


@pytest.mark.parametrize(
    "task",
    [
        RepeatedSequences(),
        RepeatedSequences(symbols=9, length=4, scored="all"),
        RepeatedSequences.smallest(),
    ],
)
def test_answers_and_concepts_are_those_of_the_tokens(task: RepeatedSequences) -> None:
    evaluation = task.evaluation(task.data(0), _KEY)
    (batch,), concepts = (
        evaluation.batches.values(),
        {k: np.asarray(v) for k, v in evaluation.ground_truth.items()},
    )
    tokens, L = np.asarray(batch.inputs), task.length
    assert len({tuple(row) for row in tokens.tolist()}) == task.test_examples
    for e, row in enumerate(tokens.tolist()):
        assert row[0] == task.symbols
        assert row[1 : L + 1] == row[L + 1 :]
        assert len(set(row[1 : L + 1])) == L
        assert np.asarray(batch.targets)[e].tolist() == row[1:]
        for i in task.read:
            earlier = [j for j in range(i) if row[j] == row[i]]
            assert concepts["previous_occurrence"][e, i] == (earlier[-1] if earlier else -1)
            assert concepts["previous_token"][e, i] == row[max(i - 1, 0)]
            assert concepts["token_two_back"][e, i] == row[max(i - 2, 0)]
            predicted = bool(earlier) and row[earlier[-1] + 1] == row[i + 1]
            assert concepts["repeated"][i] == predicted
            assert np.asarray(batch.weights)[e, i] == (task.scored == "all" or predicted)
    inputs = task.inputs
    assert (inputs.vocabulary, inputs.positions, inputs.classes) == (
        task.symbols + 1,
        2 * L + 1,
        task.symbols,
    )
    assert [
        (int(c.min()) >= first, int(c.max()) < end)
        for c, (first, end) in zip(tokens.T, inputs.alphabet, strict=True)
    ] == [(True, True)] * (2 * L + 1)


def test_a_steps_sequences_are_fresh_uniform_and_the_same_however_training_is_cut() -> None:
    task = RepeatedSequences(symbols=3, length=2, batch_size=4096, test_examples=6)
    whole = task.batches((), _KEY, 0, 3)
    np.testing.assert_array_equal(whole(2).inputs, task.batches((), _KEY, 2, 1)(0).inputs)
    tokens = np.asarray(whole(0).inputs)
    assert not np.array_equal(tokens, whole(1).inputs)
    _, counts = np.unique(tokens[:, 1:3], axis=0, return_counts=True)
    # Six sequences; chi-squared of 5 degrees of freedom has mean 5 and variance 10.
    assert len(counts) == 6
    assert ((counts - 4096 / 6) ** 2 / (4096 / 6)).sum() < 5 + 4 * np.sqrt(10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"symbols": 1}, "symbols=1.*at least 2"),
        ({"length": 17}, "length=17.*at most symbols=16"),
        ({"scored": "al"}, "scored='al' is unknown; did you mean all"),
        ({"symbols": 2, "length": 2}, "test_examples=64: there are only 2"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_invalid_settings_are_refused(settings: dict, message: str) -> None:
    with unchecked(), pytest.raises(ConfigError, match=message):
        RepeatedSequences(**settings)


def test_long_inputs_stay_off_the_token_table() -> None:
    task, short = RepeatedSequences(), RepeatedSequences(symbols=3, length=3, test_examples=6)
    routes = [
        Transformer().build(t.inputs).cheapest(t.inputs, (4096, t.inputs.positions), t.read)
        for t in (task, short)
    ]
    assert routes == ["plain", "table"]
