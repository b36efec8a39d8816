"""``Change``: in force for its range of updates and for no other, without a new program."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from compiling import compilations
from conftest import tiny_mlp_experiment

from mi_jax.basics.errors import ConfigError
from mi_jax.interventions import Change
from mi_jax.runs.experiment import Experiment
from mi_jax.runs.train import train
from mi_jax.training import AdamW, every
from mi_jax.training.loop import Progress, replay
from mi_jax.training.program_schedule import ProgramSchedule
from mi_jax.training.state import TrainState


def _changed(*changes: Change, **settings: Any) -> Experiment:
    return tiny_mlp_experiment(interventions=changes, steps=40, **settings)


def _at(experiment: Experiment, step: int) -> TrainState:
    programs = ProgramSchedule(experiment.parts())
    return replay(programs, programs.init(), 0, step)


def _same(state: Any, other: Any) -> bool:
    pairs = zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


DECAY = "optimizer.weight_decay"
PARENT, CHANGED = _changed(), _changed(Change(field=DECAY, value=0.01, start=17))


@pytest.mark.parametrize("step", [0, 1, 16, 17])
def test_every_step_before_a_change_is_the_parents_bit_for_bit(step: int) -> None:
    assert _same(_at(CHANGED, step), _at(PARENT, step))


@pytest.mark.parametrize("step", [18, 40])
def test_from_its_start_on_a_change_is_a_run_from_that_state_with_that_setting(step: int) -> None:
    other = ProgramSchedule(
        tiny_mlp_experiment(
            optimizer=AdamW(learning_rate=1e-2, weight_decay=0.01), steps=40
        ).parts()
    )
    assert _same(_at(CHANGED, step), replay(other, _at(PARENT, 17), 17, step))
    assert not _same(_at(CHANGED, step).params, _at(PARENT, step).params)


def test_a_range_ends_where_it_says() -> None:
    parent = ProgramSchedule(PARENT.parts())
    changed = _changed(Change(field=DECAY, value=0.01, start=17, stop=23))
    other = ProgramSchedule(
        tiny_mlp_experiment(optimizer=AdamW(learning_rate=1e-2, weight_decay=0.01)).parts()
    )
    within = replay(other, _at(PARENT, 17), 17, 23)
    assert _same(_at(changed, 40), replay(parent, within, 23, 40))


def test_overlapping_changes_of_one_number_are_won_by_the_later_one() -> None:
    both = (
        Change(field=DECAY, value=0.2, start=5, stop=30),
        Change(field=DECAY, value=0.3, start=10, stop=20),
    )
    programs = ProgramSchedule(_changed(*both).parts())
    in_force = [programs.active(step).numbers[DECAY] for step in (4, 5, 9, 10, 19, 20, 29, 30)]
    assert in_force == [1.0, 0.2, 0.2, 0.3, 0.3, 0.2, 0.2, 1.0]
    assert [programs.next_change(step) for step in (0, 5, 10, 19, 20, 30)] == [
        5,
        10,
        20,
        20,
        30,
        None,
    ]


def test_changes_of_two_numbers_are_both_in_force() -> None:
    both = _changed(
        Change(field=DECAY, value=0.01, start=17),
        Change(field="optimizer.learning_rate", value=3e-3, start=17),
    )
    other = ProgramSchedule(
        tiny_mlp_experiment(optimizer=AdamW(learning_rate=3e-3, weight_decay=0.01)).parts()
    )
    assert _same(_at(both, 40), replay(other, _at(PARENT, 17), 17, 40))


@pytest.mark.parametrize(
    ("start", "stop", "step", "expected"),
    [
        (3, 5, 2, False),
        (3, 5, 3, True),
        (3, 5, 4, True),
        (3, 5, 5, False),
        (3, None, 10**6, True),
        (0, 1, 0, True),
    ],
)
def test_a_range_holds_its_start_and_not_its_stop(
    start: int, stop: int | None, step: int, expected: bool
) -> None:
    assert Change(field=DECAY, value=0.1, start=start, stop=stop).in_force(step) is expected


def test_a_change_compiles_nothing() -> None:
    programs = ProgramSchedule(_changed(Change(field=DECAY, value=0.01, start=3, stop=9)).parts())
    with compilations("jit(_advance") as compiled:
        replay(programs, programs.init(), 0, 12)
    assert len(compiled) == 1


def test_a_trainer_stops_where_ranges_begin_and_end_and_stores_what_replay_gives(
    tmp_path: Path,
) -> None:
    changed = _changed(
        Change(field=DECAY, value=0.01, start=17, stop=23), schedule=every(40), seeds=(0,)
    )
    stops: list[int] = []

    def watch(progress: Progress) -> None:
        stops.append(progress.step)

    run = train(changed, tmp_path / "run", watch=watch)
    assert {17, 23} <= set(stops)
    for step in (17, 20, 23, 40):
        assert _same(run.state_at(step), _at(changed, step))


def test_a_change_is_stored_in_the_run_and_read_back(tmp_path: Path) -> None:
    changed = _changed(Change(field=DECAY, value=0.01, start=17, stop=23), seeds=(0,))
    run = train(changed, tmp_path / "run")
    stored = json.loads((tmp_path / "run" / "run.json").read_text())
    assert stored["experiment"]["interventions"] == [
        {"type": "change", "start": 17, "stop": 23, "field": DECAY, "value": 0.01}
    ]
    assert stored["numbers"][DECAY] == 1.0
    assert run.experiment == changed
    assert run.experiment.hash != PARENT.hash


@pytest.mark.parametrize(("start", "stop"), [(5, 5), (5, 4), (-1, None), (0, 0)])
def test_an_empty_range_is_refused(start: int, stop: int | None) -> None:
    with pytest.raises(ConfigError, match=f"start={start}, stop={stop}"):
        Change(field=DECAY, value=0.1, start=start, stop=stop)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ConfigError, match="must be finite"):
        Change(field=DECAY, value=value)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("optimizer.weight_decy", "did you mean optimizer.weight_decay"),
        ("weight_decay", "optimizer.weight_decay"),
        ("model.d_mlp", "known are"),
        ("task.fractoin", "did you mean task.fraction"),
    ],
)
def test_a_field_that_is_no_setting_is_refused_before_anything_is_written(
    tmp_path: Path, field: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=f"'{field}'.*{message}"):
        train(_changed(Change(field=field, value=0.1, start=3)), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("start", [40, 41])
def test_a_change_that_begins_after_the_last_update_is_refused(start: int) -> None:
    assert _changed(Change(field=DECAY, value=0.1, start=39)).interventions
    with pytest.raises(
        ConfigError, match=f"start={start}.*after the last of 40 updates.*step 39 or earlier"
    ):
        _changed(Change(field=DECAY, value=0.1, start=start))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("optimizer.learning_rate", -1.0),
        (DECAY, -0.1),
        ("optimizer.b1", 1.0),
        ("optimizer.b2", 2.0),
    ],
)
def test_a_value_that_the_optimizer_itself_refuses_is_refused(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=field.split(".")[1]):
        _changed(Change(field=field, value=value, start=3)).parts()


def test_a_field_by_its_old_name_is_the_field_by_its_new_one() -> None:
    """Stored runs hold old names, such as ``task.batch``."""
    programs = [
        ProgramSchedule(_changed(Change(field=field, value=16, start=3)).parts())
        for field in ("task.batch", "task.batch_size")
    ]
    tasks = [schedule.active(3).program.parts.task for schedule in programs]
    assert tasks[0] == tasks[1] == replace(PARENT.task, batch_size=16)  # pyright: ignore
