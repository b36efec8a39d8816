"""Schedules: the exact steps of the snapshots."""

import numpy as np
import pytest
from conftest import tiny_experiment
from hypothesis import given, settings
from hypothesis import strategies as st
from unchecked import unchecked

from mi_jax.basics.errors import ConfigError
from mi_jax.basics.records import decode, encode
from mi_jax.runs.experiment import REGISTRY
from mi_jax.training import SCHEDULES, at, dense, every, log_spaced
from mi_jax.training.schedules import Schedule, Union


@settings(max_examples=300, deadline=None)
@given(n=st.integers(2, 400), last=st.integers(1, 60_000))
def test_log_spaced_has_exactly_n_distinct_steps_or_every_step(n: int, last: int) -> None:
    steps = log_spaced(n).steps(last)
    assert len(steps) == min(n, last + 1)
    assert (np.diff(steps) > 0).all()
    assert (steps[0], steps[-1]) == (0, last)


@pytest.mark.parametrize("last", [200, 201, 250, 500, 1_000, 6_000, 10_000, 40_000, 100_000])
def test_log_spaced_200_has_200_steps_of_any_run(last: int) -> None:
    steps = log_spaced(200).steps(last)
    assert len(np.unique(steps)) == 200
    assert (steps[0], steps[-1]) == (0, last)


@pytest.mark.parametrize("last", [1, 5, 198, 199])
def test_log_spaced_keeps_every_step_of_a_short_run(last: int) -> None:
    assert log_spaced(200).steps(last).tolist() == list(range(last + 1))


def test_log_spaced_starts_with_every_step_and_then_grows_by_a_ratio() -> None:
    steps = log_spaced(200).steps(10_000)
    assert steps[:10].tolist() == list(range(10))
    late = np.log1p(steps[steps > 1_000])
    gaps = np.diff(late)
    assert gaps.max() / gaps.min() < 3  # thinning leaves single and double gaps of one fine grid
    assert abs((steps > 1_000).sum() / (steps > 100).sum() - 0.5) < 0.05  # a decade each


def test_log_spaced_where_rounding_does_nothing_is_the_log_grid_itself() -> None:
    assert log_spaced(5).steps(9_999).tolist() == [0, 9, 99, 999, 9_999]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (every(3), [0, 3, 6, 9, 10]),
        (every(5), [0, 5, 10]),
        (every(1), list(range(11))),
        (every(50), [0, 10]),
        (at(7, 2, 2), [0, 2, 7, 10]),
        (at(), [0, 10]),
        (at(0, 10), [0, 10]),
        (dense(5, 1), [0, 4, 5, 6, 10]),
        (dense(9, 3), [0, 6, 7, 8, 9, 10]),
        (dense(1, 3), [0, 1, 2, 3, 4, 10]),
        (dense(10, 0), [0, 10]),
        (at(7) | dense(2, 1), [0, 1, 2, 3, 7, 10]),
        (at(7) | at(8) | every(4), [0, 4, 7, 8, 10]),
        (log_spaced(3) | at(9), [0, 2, 9, 10]),
        (Union((at(3), at(5), at(7))), [0, 3, 5, 7, 10]),
    ],
)
def test_a_schedule_keeps_its_steps_and_both_ends(schedule: Schedule, expected: list[int]) -> None:
    assert schedule.steps(10).tolist() == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 99)), st.integers(1, 120), st.integers(0, 99), st.integers(0, 120))
def test_a_union_is_the_union_of_the_sets(
    chosen: list[int], n: int, around: int, width: int
) -> None:
    wanted = (
        set(chosen)
        | set(range(0, 100, n))
        | {s for s in range(100) if abs(s - around) <= width}
        | {0, 99}
    )
    assert (at(*chosen) | every(n) | dense(around, width)).steps(99).tolist() == sorted(wanted)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (at(11), r"\[11\] lie outside the run\. Its steps are 0 to 10"),
        (at(3, 40, 12), r"\[12, 40\]"),
        (at(-1), r"\[-1\]"),
        (dense(11, 5), "around=11"),
        (every(3) | at(11), r"\[11\]"),
    ],
)
def test_steps_outside_the_run_are_refused_by_name(schedule: Schedule, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        schedule.steps(10)


def test_an_experiment_refuses_a_schedule_beyond_its_last_step_when_it_is_built() -> None:
    assert tiny_experiment(steps=60, schedule=at(60)).snapshots().tolist() == [0, 60]
    with pytest.raises(ConfigError, match=r"\[61\]"):
        tiny_experiment(steps=60, schedule=at(61))


@pytest.mark.parametrize(
    "make", [lambda: every(0), lambda: every(-3), lambda: log_spaced(1), lambda: dense(4, -1)]
)
def test_a_senseless_schedule_is_refused_when_it_is_made(make: object) -> None:
    with pytest.raises(ConfigError, match="must be at least"):
        make()  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize(
    "make",
    [
        lambda: at(2.7),  # pyright: ignore[reportArgumentType]
        lambda: at(1, True),
        lambda: every(2.5),  # pyright: ignore[reportArgumentType]
        lambda: log_spaced(3.5),  # pyright: ignore[reportArgumentType]
        lambda: dense(1.5, 2),  # pyright: ignore[reportArgumentType]
        lambda: dense(4, 2.5),  # pyright: ignore[reportArgumentType]
    ],
)
def test_steps_that_are_not_whole_are_refused(make: object) -> None:
    with unchecked(), pytest.raises(ConfigError, match="must be a whole number"):
        make()  # pyright: ignore[reportCallIssue]


def test_numpy_steps_are_the_same_schedule() -> None:
    steps = np.array([3, 5])
    with unchecked():
        assert at(*steps) == at(3, 5)
        assert every(np.int64(4)) == every(4)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "schedule",
    [
        every(7),
        log_spaced(9),
        at(3, 1, 2),
        dense(50, 4),
        every(7) | log_spaced(9) | (at(1) | dense(5, 2)),
    ],
)
def test_a_schedule_comes_back_from_json_as_it_was(schedule: Schedule) -> None:
    again = decode(encode(schedule, REGISTRY), REGISTRY)
    assert again == schedule
    assert again.steps(200).tolist() == schedule.steps(200).tolist()


def test_every_registered_schedule_is_tried_above() -> None:
    tried = {
        type(schedule) for schedule in (every(1), log_spaced(2), at(), dense(0, 0), at() | at())
    }
    assert tried == set(SCHEDULES.values())
