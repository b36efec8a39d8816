"""Forks and zooms: bitwise their parent where nothing was changed, on their own from there, and
complete without it.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import tiny_mlp_experiment
from unchecked import unchecked

from mi_jax.basics.errors import ConfigError, DamagedError, Interrupted, RunError
from mi_jax.basics.fourier import fourier_basis
from mi_jax.basics.pytrees import dotted
from mi_jax.interventions import Change, Clamp, Freeze, Graft, Project, Reset
from mi_jax.runs.fork import fork, train_again, zoom
from mi_jax.runs.run import Run, open_run
from mi_jax.runs.train import train
from mi_jax.training import AdamW, Storage, segments
from mi_jax.training.loop import Progress, replay
from mi_jax.training.program_schedule import ProgramSchedule
from mi_jax.training.record import write_record
from mi_jax.training.trajectory import Trajectory
from mi_jax.training.verifying import problems

DECAY = "optimizer.weight_decay"
PARENT = tiny_mlp_experiment(seeds=(0, 3), storage=Storage(states=3))


def same(one: Any, other: Any) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(PARENT, tmp_path_factory.mktemp("runs") / "parent")


@pytest.fixture(scope="module")
def changed(parent: Run) -> Run:
    """A fork at step 21 without weight decay from step 45 on."""
    return fork(
        parent,
        step=21,
        interventions=[Change(DECAY, 0.0, start=45)],
        out=parent.path.with_name("changed"),
    )


@pytest.fixture(scope="module")
def projected(parent: Run) -> Run:
    """A fork at step 21 with the key frequencies projected out once, at step 40, and the table
    frozen from step 50 on.
    """
    new = [Project("unembed.W_U", "key", None, start=40), Freeze("embed_a.*", start=50)]
    return fork(parent, step=21, interventions=new, out=parent.path.with_name("projected"))


def test_a_fork_without_intervention_is_the_parent_bit_for_bit(parent: Run, tmp_path: Path) -> None:
    made = fork(parent, step=21, out=tmp_path / "fork")
    assert made.parent == (parent.path, 21)
    assert made.steps.tolist() == [21, *(step for step in parent.steps.tolist() if step > 21)]
    assert same(made.stack([21]), jax.tree.map(lambda x: x[None], parent.state_at(21).params))
    assert same(made.stack(made.steps[1:]), parent.stack(made.steps[1:]))
    assert same(made.state_at(60), parent.state_at(60))
    assert same(made.state_at(33), parent.state_at(33))
    assert made.losses["step"].values.tolist() == list(range(21, 60))
    np.testing.assert_array_equal(made.losses, parent.losses.sel(step=slice(21, None)))


def test_a_fork_is_the_parent_before_the_range_and_not_after(parent: Run, changed: Run) -> None:
    for step in changed.steps[1:]:
        assert same(changed.stack([step]), parent.stack([step])) == (step <= 45)


def test_a_changed_decay_is_a_run_from_that_state_with_that_decay(
    parent: Run, changed: Run
) -> None:
    other = ProgramSchedule(
        replace(PARENT, optimizer=AdamW(learning_rate=1e-2, weight_decay=0.0)).parts()
    )
    assert same(replay(other, parent.state_at(45), 45, 60), changed.state_at(60))


def test_a_fork_can_start_where_the_parent_ended(parent: Run, tmp_path: Path) -> None:
    longer = train(replace(PARENT, steps=75), tmp_path / "longer")
    made = fork(parent, step=60, steps=75, out=tmp_path / "fork")
    assert same(made.state_at(75), longer.state_at(75))
    assert made.steps[0] == 60
    assert made.steps[-1] == 75


def test_steps_may_be_numpys_and_must_be_whole(parent: Run, tmp_path: Path) -> None:
    made = fork(parent, step=parent.steps[5], steps=parent.steps[6], out=tmp_path / "fork")
    assert made.parent == (parent.path, int(parent.steps[5]))
    with unchecked(), pytest.raises(ConfigError, match=r"step=5\.5: must be a whole number"):
        fork(parent, step=5.5, out=tmp_path / "no")  # pyright: ignore[reportArgumentType]
    with unchecked(), pytest.raises(ConfigError, match="around='5': must be a whole number"):
        zoom(parent, around="5", out=tmp_path / "no")  # pyright: ignore[reportArgumentType]
    assert not (tmp_path / "no").exists()


@pytest.mark.slow
def test_a_fork_of_a_fork_keeps_the_change(parent: Run, projected: Run, tmp_path: Path) -> None:
    made = fork(projected, step=44, out=tmp_path / "fork")
    assert same(made.state_at(60), projected.state_at(60))
    assert made.experiment.interventions == projected.experiment.interventions
    early = fork(projected, step=30, out=tmp_path / "early")
    assert same(early.state_at(60), projected.state_at(60))


def test_a_fork_is_resumed_replayed_and_trained_again_without_its_parent(
    projected: Run, tmp_path: Path
) -> None:
    shutil.copytree(projected.path.with_name("parent"), tmp_path / "parent")

    def stop(progress: Progress) -> None:
        if progress.step >= 48:
            raise Interrupted("here")

    new = projected.experiment.interventions
    with pytest.raises(Interrupted):
        fork(tmp_path / "parent", step=21, interventions=new, out=tmp_path / "fork", watch=stop)
    shutil.rmtree(tmp_path / "parent")
    resumed = train(open_run(tmp_path / "fork").experiment, tmp_path / "fork")
    assert same(resumed.stack(), projected.stack())
    assert same(resumed.state_at(60), projected.state_at(60))
    assert same(resumed.state_at(52), projected.state_at(52))
    again = train_again(resumed, tmp_path / "again")
    assert resumed.trajectories[0].differences(again.trajectories[0]) == []
    assert list(problems(again.trajectories[0])) == []


def test_named_frequencies_are_projected_out_seed_by_seed(parent: Run, tmp_path: Path) -> None:
    project = Project("unembed.W_U", ((0, (2,)), (3, (1, 4))), start=55)
    U = fork(parent, step=50, interventions=[project], out=tmp_path / "fork").params(60)["unembed"][
        "W_U"
    ]
    for place, gone in ((0, {2}), (1, {1, 4})):
        norms = np.linalg.norm(fourier_basis(11)[1:] @ U[place].T, axis=1).reshape(5, 2).max(axis=1)
        assert {int(k) + 1 for k in np.flatnonzero(norms < 1e-5 * norms.max())} == gone


def test_a_fork_is_described_on_disk(parent: Run, projected: Run) -> None:
    record = json.loads((projected.path / "run.json").read_text())
    assert record["format"] == 3
    assert record["parent"] == {
        "path": str(parent.path),
        "hash": PARENT.hash,
        "step": 21,
        "state": "exact",
        "departs": True,
    }
    assert record["hash"] != PARENT.hash
    assert json.loads((parent.path / "run.json").read_text())["format"] == 3
    assert list(problems(Trajectory(projected.path))) == []
    assert [one.state for one in projected.status.values()] == ["finished", "finished"]


@pytest.mark.parametrize("name", ["origin.npz", "prepared/0.npz"])
def test_damage_of_stored_arrays_is_named(projected: Run, tmp_path: Path, name: str) -> None:
    shutil.copytree(projected.path, tmp_path / "run")
    file = tmp_path / "run" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert any(name.split("/")[-1] in line for line in problems(Trajectory(tmp_path / "run")))
    with pytest.raises(DamagedError, match=name.split("/")[-1]):
        open_run(tmp_path / "run").state_at(23 if name == "origin.npz" else 43)


def test_readings_of_a_fork_refer_to_step_0_as_those_of_the_parent_do(
    parent: Run, tmp_path: Path
) -> None:
    def from_initial(params: Any, context: Any) -> Any:
        return sum(
            jax.numpy.abs(x - y).sum()
            for x, y in zip(*map(jax.tree.leaves, (params, context.initial)), strict=True)
        )

    from mi_jax.contracts import Measure

    far = Measure(
        "far",
        lambda params, context: from_initial(params, context.reference),
        uses=frozenset({"initial"}),
    )
    made = fork(parent, step=21, out=tmp_path / "fork")
    ours, theirs = made.measure([far])["far"], parent.measure([far])["far"]
    np.testing.assert_array_equal(ours[:, 1:], theirs.sel(step=made.steps[1:]))


def test_zooming_is_bitwise_on_the_trajectory(parent: Run, changed: Run, tmp_path: Path) -> None:
    made = zoom(parent, around=40, every=2, width=6, out=tmp_path / "zoom")
    assert made.steps.tolist() == [34, 36, 38, 40, 42, 44, 46]
    for step in made.steps:
        assert same(
            made.stack([step]), jax.tree.map(lambda x: x[None], parent.state_at(int(step)).params)
        )
    assert zoom(parent, around=3, every=2, out=tmp_path / "first").steps.tolist()[:4] == [
        0,
        1,
        3,
        5,
    ]
    of_a_fork = zoom(changed, around=58, width=20, out=tmp_path / "of_a_fork")
    assert of_a_fork.steps.tolist() == list(range(38, 61))
    assert same(of_a_fork.state_at(60), changed.state_at(60))


def test_the_same_call_resumes_and_another_call_is_refused(parent: Run, changed: Run) -> None:
    new = [Change(DECAY, 0.0, start=45)]
    assert same(fork(parent, step=21, interventions=new, out=changed.path).stack(), changed.stack())
    with pytest.raises(RunError, match=r"is not a fork of .* at step 22. Give another --out"):
        fork(parent, step=22, interventions=new, out=changed.path)
    for other in ([Change(DECAY, 0.5, start=45)], []):
        with pytest.raises(RunError, match=r"another run: interventions.*here. Use a new --out"):
            fork(parent, step=21, interventions=other, out=changed.path)


@pytest.mark.parametrize(
    ("step", "steps", "new", "message"),
    [
        (61, None, [], r"Cannot fork at step 61: .* holds the steps 0 to 60"),
        (-1, None, [], r"Cannot fork at step -1: .* holds the steps 0 to 60"),
        (60, None, [], r"steps=60 is too early: a fork from step 60 .*Give steps=61"),
        (30, 30, [], r"steps=30"),
        (30, None, [Change(DECAY, 0.0, start=60)], r"never be in force.*30 to 59"),
        (30, None, [Change(DECAY, 0.0, start=10, stop=30)], r"never be in force"),
        (
            30,
            None,
            [Clamp("hidden.0.pots", 0.0)],
            r"no activation 'hidden.0.pots'.*did you mean hidden.0.post",
        ),
        (30, None, [Clamp("embed_a.W_E", 0.0)], r"no activation"),
        (30, None, [Clamp("hidden.0.post", (1.0, 2.0))], r"shape \(2,\) does not fit"),
        (30, None, [Clamp("hidden.0.post", 0.0, only={"head": (0,)})], r"no dim 'head'"),
        (
            30,
            None,
            [Clamp("hidden.0.post", 0.0, only={"neuron": (24,)})],
            r"24 places along 'neuron'",
        ),
        (30, None, [Freeze("unembed.W_Q")], r"no parameter matches 'unembed.W_Q'.*unembed.W_U"),
        (30, None, [Reset(("unembed.*", "nothing"))], r"'nothing'"),
        (
            30,
            None,
            [Project("unembed.W_U", (6,))],
            r"frequencies must lie between 1 and 5, for 11 residues; you gave \[6\]",
        ),
        (30, None, [Graft("*", "nowhere", 3)], r"is no run"),
        (30, None, [Graft("*", None, 99)], r"99"),
        (30, None, [Change("task.fraction", 2.0)], r"fraction=2.0"),
        (30, None, [Change("task.p", 13)], r"cannot read such a task"),
        (30, None, [Change("optimizer.name", "sdg")], r"no optimizer 'sdg'.*did you mean sgd"),
    ],
)
def test_an_invalid_fork_is_refused_before_anything_is_written(
    parent: Run, tmp_path: Path, step: int, steps: int | None, new: list[Any], message: str
) -> None:
    with pytest.raises((ConfigError, RunError), match=message):
        fork(parent, step=step, interventions=new, steps=steps, out=tmp_path / "fork")
    assert list(tmp_path.iterdir()) == []


def test_weights_without_train_states_are_forked_with_a_fresh_one_and_say_so(
    parent: Run, tmp_path: Path
) -> None:
    folder, whole = tmp_path / "weights", parent.trajectories[0]
    write_record(folder, whole.record)
    stack = dict(dotted(parent.stack()))
    losses = parent.losses.values.T
    segments.write(
        folder / "segments",
        segments.Segment(0, 60, tuple(parent.steps.tolist()), stack, {}, losses),
        (0, 3),
        PARENT.hash,
    )
    step = int(parent.steps[5])
    made = fork(folder, step=step, out=tmp_path / "fork")
    assert made.record["parent"]["state"] == "fresh optimizer state"
    programs = ProgramSchedule(PARENT.parts())
    state = programs.base.fresh(
        jax.tree.map(lambda x: jax.numpy.asarray(x[0]), parent.stack([step])), step
    )
    assert same(replay(programs, state, step, 60), made.state_at(60))
    assert not same(made.state_at(60).params, parent.state_at(60).params)
    with pytest.raises(RunError, match=rf"Step {step + 1} is no snapshot.*nearest are.*{step}"):
        fork(folder, step=step + 1, out=tmp_path / "no")
    with pytest.raises(RunError, match="no train states"):
        zoom(folder, around=step, out=tmp_path / "no")
    assert not (tmp_path / "no").exists()
    with pytest.raises(RunError, match="no train states"):
        open_run(folder).state_at(step)


def test_zooming_outside_the_run_is_refused(parent: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no step 61"):
        zoom(parent, around=61, out=tmp_path / "zoom")
    with pytest.raises(ConfigError, match="every=0"):
        zoom(parent, around=30, every=0, out=tmp_path / "zoom")
