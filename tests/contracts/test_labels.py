"""Labels that tasks make for probes, by brute force, and control inputs."""

from collections.abc import Mapping

import jax
import numpy as np
import pytest

from mi_jax.basics.errors import ConfigError
from mi_jax.contracts import Evaluation, Labels, Task, labels, renamed_inputs
from mi_jax.tasks import (
    TASKS,
    GroupComposition,
    ModularArithmetic,
    MultiDigitAddition,
    SparseParity,
    group,
)
from mi_jax.tasks.pairs import PairTask


def _read(task: Task) -> tuple[Evaluation, Mapping[str, Labels]]:
    evaluation = task.evaluation(task.data(0), jax.random.key(0))
    return evaluation, task.labels(evaluation)


@pytest.mark.parametrize("task", [make.smallest() for make in TASKS.values()], ids=list(TASKS))
def test_every_task_labels_every_example(task: Task) -> None:
    evaluation, by_concept = _read(task)
    for name, label in by_concept.items():
        values = np.asarray(label.values)
        assert values.shape in (
            (len(evaluation.inputs),),
            (len(evaluation.inputs), len(task.read)),
        ), name
        assert values.dtype == np.int32
        assert values.min() >= 0, name
        assert values.max() < label.classes, name
        assert len(np.unique(values)) > 1, f"{name} is constant"
    assert any(name.startswith("answer") for name in by_concept)


class _Plain(ModularArithmetic):
    """A task with only the labels of every task."""

    def labels(self, evaluation: Evaluation) -> Mapping[str, Labels]:
        return super(PairTask, self).labels(evaluation)


def test_the_default_labels_are_answer_tokens_and_trained() -> None:
    task = _Plain(p=5, fraction=0.4, format="a op b = c")
    evaluation, by_concept = _read(task)
    assert {name: label.classes for name, label in by_concept.items()} == {
        "answer": 5,
        "trained": 2,
        "token_0": 5,
        "token_2": 5,
    }
    np.testing.assert_array_equal(by_concept["token_2"].values, evaluation.inputs[:, 2])
    np.testing.assert_array_equal(
        by_concept["answer"].values, evaluation.inputs[:, [0, 2]].sum(axis=1) % 5
    )
    trained = np.asarray(task.data(0).inputs)
    np.testing.assert_array_equal(evaluation.inputs[by_concept["trained"].values == 1], trained)


_P = 7


@pytest.mark.parametrize("operation", ["add", "subtract", "multiply", "divide"])
def test_labels_of_residues_by_brute_force(operation: str) -> None:
    evaluation, by_concept = _read(ModularArithmetic(p=_P, fraction=0.4, operation=operation))  # pyright: ignore[reportArgumentType]
    squares = {x * x % _P for x in range(1, _P)}
    for i, (a, b, _) in enumerate(evaluation.inputs.tolist()):
        answer = {
            "add": a + b,
            "subtract": a - b,
            "multiply": a * b,
            "divide": a * pow(b, -1, _P) if b else 0,
        }[operation] % _P
        expected = {
            "a": a,
            "b": b,
            "answer": answer,
            "a_parity": a % 2,
            "answer_parity": answer % 2,
            "larger": max(a, b),
        }
        expected |= {
            "order": 0 if a < b else 1 if a == b else 2,
            "a_square": 0 if a == 0 else 1 if a in squares else 2,
        }
        expected |= {"difference": (a - b) % _P, "sum": (a + b) % _P, "product": a * b % _P}
        expected |= {"carry": int(a + b >= _P if operation == "add" else a - b < 0)}
        for name in expected.keys() & by_concept.keys():
            assert by_concept[name].values[i] == expected[name], name
    absent = {"add": "sum", "subtract": "difference", "multiply": "product", "divide": "carry"}[
        operation
    ]
    assert absent not in by_concept
    assert len(by_concept) == {"add": 15, "subtract": 15, "multiply": 14, "divide": 15}[operation]


def test_the_demo_has_ten_concepts_of_up_to_59_classes() -> None:
    _, by_concept = _read(ModularArithmetic(p=59, fraction=0.35))
    assert len(by_concept) >= 10
    assert max(label.classes for label in by_concept.values()) == 59


def test_cosets_of_s4_by_hand() -> None:
    evaluation, by_concept = _read(GroupComposition(group="S4", fraction=0.5))
    elements = group("S4").elements
    for i, (x, y, _) in enumerate(evaluation.inputs.tolist()):
        first, second = elements[x], elements[y]
        both = tuple(second[j] for j in first)  # pyright: ignore
        odd = sum(both[j] > both[k] for j in range(4) for k in range(j + 1, 4)) % 2
        assert by_concept["answer_coset_1+1+1+1"].values[i] == odd
        assert by_concept["answer_image_of_0"].values[i] == both[0]
        assert by_concept["answer_preimage_of_0"].values[i] == both.index(0)
    sizes = {np.sum(by_concept["a_class"].values == c) // 24 for c in range(5)}
    assert sizes == {1, 3, 6, 8}


def test_carries_of_decimals() -> None:
    evaluation, by_concept = _read(MultiDigitAddition.smallest())
    for i, row in enumerate(evaluation.inputs.tolist()):
        (a1, a0), (b1, b0) = row[:2], row[3:5]
        total = 10 * (a1 + b1) + a0 + b0
        expected = {
            "a": [0, a1, a0],
            "b": [0, b1, b0],
            "answer": [total // 100, total // 10 % 10, total % 10],
        }
        expected |= {
            "carry_in": [total > 99, a0 + b0 > 9, 0],
            "base_sum": [0, (a1 + b1) % 10, (a0 + b0) % 10],
        }
        expected |= {
            "makes_carry": [0, a1 + b1 > 9, a0 + b0 > 9],
            "sum_nine": [0, a1 + b1 == 9, a0 + b0 == 9],
        }
        for name, by_place in expected.items():
            np.testing.assert_array_equal(by_concept[name].values[i], by_place, name)


def test_bits_of_a_parity() -> None:
    evaluation, by_concept = _read(
        SparseParity(n=6, k=3, subset="random", examples=20, batch_size=None, test_examples=20)
    )
    signs, S = (
        evaluation.inputs[:, 0],
        SparseParity(
            n=6, k=3, subset="random", examples=20, batch_size=None, test_examples=20
        ).coordinates,
    )
    np.testing.assert_array_equal(by_concept["answer"].values, signs[:, S].prod(axis=1) > 0)
    np.testing.assert_array_equal(by_concept["parity_2"].values, signs[:, S[:2]].prod(axis=1) > 0)
    outside = [
        int(name.removeprefix("bit_"))
        for name in by_concept
        if name.startswith("bit_") and int(name[4:]) not in S
    ]
    assert len(outside) == 1
    np.testing.assert_array_equal(by_concept[f"bit_{outside[0]}"].values, signs[:, outside[0]] > 0)


def test_control_inputs_rename_tokens_everywhere_and_leave_special_ones() -> None:
    task = ModularArithmetic(p=11, fraction=0.4)
    inputs = _read(task)[0].inputs
    other = renamed_inputs(inputs, task.inputs.alphabet, 0)
    names = np.array([other[:, 0][inputs[:, 0] == token][0] for token in range(11)])
    assert sorted(names) == list(range(11))
    assert (names != np.arange(11)).any()
    np.testing.assert_array_equal(other[:, :2], names[inputs[:, :2]])
    np.testing.assert_array_equal(other[:, 2], 11)
    np.testing.assert_array_equal(renamed_inputs(inputs, task.inputs.alphabet, 0), other)
    assert (renamed_inputs(inputs, task.inputs.alphabet, 1) != other).any()


def test_control_inputs_stay_inside_the_alphabet() -> None:
    task = MultiDigitAddition.smallest()
    other = renamed_inputs(_read(task)[0].inputs, task.inputs.alphabet, 0)
    for column, (first, end) in zip(other.T, task.inputs.alphabet, strict=True):
        assert column.min() >= first
        assert column.max() < end


def test_control_inputs_of_floats_have_their_features_in_another_order() -> None:
    inputs = np.random.default_rng(0).normal(size=(6, 1, 5))
    other = renamed_inputs(inputs, (), 0)
    np.testing.assert_array_equal(np.sort(other), np.sort(inputs))
    columns = [int(np.flatnonzero(inputs[0, 0] == x)[0]) for x in other[0, 0]]
    np.testing.assert_array_equal(other, inputs[..., columns])


def test_labels_outside_their_classes_are_refused() -> None:
    with pytest.raises(ConfigError, match="0 to 2"):
        labels(np.array([0, 3]), 3)
    with pytest.raises(ConfigError, match="-1"):
        labels(np.array([0, -1]), 3)
