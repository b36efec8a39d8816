"""Forks: another history from the exact state of a run at any step, with one thing changed or none,
or looked at more closely.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from mi_jax.basics.errors import RunError, require, whole
from mi_jax.basics.pytrees import dotted
from mi_jax.basics.records import encode
from mi_jax.interventions import Intervention
from mi_jax.runs.experiment import REGISTRY, Experiment
from mi_jax.runs.replay import check_machine, load_params_of, mode_of
from mi_jax.runs.run import Run, Step, open_run
from mi_jax.runs.train import check_same, finish, run_record, train
from mi_jax.training.kept import read_arrays, write_arrays
from mi_jax.training.loop import Watch, check_resumable
from mi_jax.training.machine import machine
from mi_jax.training.program_schedule import ProgramSchedule
from mi_jax.training.record import lock, write_record
from mi_jax.training.state import Parts, TrainState, flat_state
from mi_jax.training.trajectory import INITIAL, ORIGIN, Trajectory

_WIDTH = 64

log = logging.getLogger(__name__)


def fork(
    run: Run | str | os.PathLike[str],
    *,
    step: Step,
    interventions: Sequence[Intervention] = (),
    steps: Step | None = None,
    out: str | os.PathLike[str] | None = None,
    watch: Watch = lambda progress: None,
    allow_other_machine: bool = False,
) -> Run:
    """Another history of a run: from its exact state at ``step`` on, with the same data in the same
    order.

    What the run's own interventions do, they do in the fork too. Without new ones it is bitwise the
    run; before the range of a new one begins, it still is. Snapshots are the run's steps from
    ``step`` on, with ``step`` itself; the fork's directory needs neither the run nor any other to
    be gone on with, replayed and read. The same call goes on with one that was interrupted.

    Args:
        run: a Run, or its directory.
        step: any that the run has reached. Where it holds snapshots alone, one of those: training
            then goes on with a fresh optimizer state, as the log, ``run.json`` and ``mi-jax info``
            say.
        interventions: changes from ``step`` on; one whose range would begin before it begins there.
        steps: the step to train to; the run's last by default.
        out: the fork's directory; beside the run by default, ``NAME-fork-STEP``.
        watch, allow_other_machine: as for ``train``.

    Raises:
        ConfigError, RunError: before anything is written where step, steps or an intervention can't
            be.
        Interrupted: after SIGINT or SIGTERM, with everything done so far saved.
    """
    parent = _single(run)
    step, last = (
        whole("step", step),
        parent.trajectories[0].last if steps is None else whole("steps", steps),
    )
    new = tuple(_from(step, intervention, last) for intervention in interventions)
    snapshots = _snapshots(parent, step, last)
    folder = (
        Path(out) if out is not None else parent.path.with_name(f"{parent.path.name}-fork-{step}")
    )
    return _train(
        _Fork(parent, step, new, last, snapshots, folder.resolve()), watch, allow_other_machine
    )


def zoom(
    run: Run | str | os.PathLike[str],
    *,
    around: Step,
    every: Step = 1,
    width: Step | None = None,
    out: str | os.PathLike[str] | None = None,
    watch: Watch = lambda progress: None,
    allow_other_machine: bool = False,
) -> Run:
    """Dense snapshots of the same trajectory around a step: bitwise those that the run would have
    kept there.

    Args:
        around: the step in the middle. every: steps from one snapshot to the next.
        width: steps to either side; 64 ``every`` by default. What lies outside the run is left out.
        out: the directory; beside the run by default, ``NAME-zoom-STEP``.
    """
    parent = _single(run)
    require(
        parent.experiment.path is None,
        f"{parent.path} is planted: plant it with another schedule instead",
    )
    around, every = whole("around", around), whole("every", every)
    width = _WIDTH * every if width is None else whole("width", width)
    require(every >= 1, f"every={every}: must be at least 1")
    require(width >= every, f"width={width}: must be at least every={every}")
    trajectory = parent.trajectories[0]
    if not trajectory.has_states:
        raise RunError(
            f"{parent.path} holds no train states: what lies between its snapshots is not known"
        )
    if not trajectory.origin <= around <= trajectory.done:
        raise RunError(
            f"there is no step {around} to zoom around: {parent.path} holds steps"
            f" {trajectory.origin} to {trajectory.done}"
        )
    begin, end = max(trajectory.origin, around - width), min(trajectory.done, around + width)
    snapshots = np.unique(
        [begin, *range(around - (around - begin) // every * every, end, every), end]
    )
    folder = (
        Path(out) if out is not None else parent.path.with_name(f"{parent.path.name}-zoom-{around}")
    )
    return _train(
        _Fork(parent, begin, (), end, snapshots, folder.resolve()), watch, allow_other_machine
    )


def train_again(
    run: Run, out: str | os.PathLike[str], *, watch: Watch = lambda progress: None
) -> Run:
    """Trains a run once more, from what it began with, into another directory."""
    if run.parent is None:
        return train(run.experiment, out, watch=watch, **run.mode._asdict())
    first, folder = run.trajectories[0], Path(out).resolve()
    check_resumable(folder)
    with lock(folder):
        if not (folder / "run.json").exists():
            write_record(folder, {**run.record, "machine": machine()})
        trajectory = Trajectory(folder)
        if not (folder / ORIGIN).exists():
            write_arrays(
                folder / ORIGIN,
                read_arrays(first.path / ORIGIN, first.record["hash"]),
                run.record["hash"],
            )
            for place, intervention in enumerate(run.experiment.interventions):
                kept = first.prepared.read(place)
                if kept is not None and (
                    intervention.start < first.origin or not intervention.reads_weights
                ):
                    trajectory.prepared.write(place, kept)
        finish(trajectory, run.experiment.parts(*run.mode), watch=watch, allow_other_machine=False)
    return open_run(folder)


class _Fork(NamedTuple):
    """What is asked for."""

    parent: Run
    step: int
    new: tuple[Intervention, ...]
    last: int
    snapshots: Int[np.ndarray, " step"]
    folder: Path

    @property
    def experiment(self) -> Experiment:
        """The parent's, with what is new. Raises ConfigError where that can't be."""
        own = self.parent.experiment
        inherited = tuple(i for i in own.interventions if i.start < self.last)
        # A planted path isn't followed any further: what comes after the step is trained.
        changed = replace(own, interventions=(), steps=self.last, name=self.folder.name, path=None)
        return replace(changed, interventions=(*inherited, *self.new))

    @property
    def record(self) -> dict[str, Any]:
        """What the fork says of its parent."""
        exact = self.parent.trajectories[0].has_states
        state = "exact" if exact else "fresh optimizer state"
        return {
            "path": str(self.parent.path),
            "hash": self.parent.record["hash"],
            "step": self.step,
            "state": state,
        }


def _single(run: Run | str | os.PathLike[str]) -> Run:
    run = run if isinstance(run, Run) else open_run(run)
    if len(run.trajectories) > 1:
        raise RunError(
            f"{len(run.trajectories)} runs are open as one; fork each, and open the forks as one"
        )
    return run


def _from(step: int, intervention: Intervention, last: int) -> Intervention:
    """The intervention with a range that begins at the fork. Raises ConfigError where none is left
    of it.
    """
    told = (
        f"{intervention} would never be in force: a fork from step {step} to {last} makes updates"
        f" {step} to {last - 1}"
    )
    require(
        intervention.start < last and (intervention.stop is None or intervention.stop > step), told
    )
    return replace(intervention, start=max(step, intervention.start))


def _snapshots(parent: Run, step: int, last: int) -> Int[np.ndarray, " step"]:
    """The parent's steps from ``step`` to ``last``, both of which are kept; its schedule goes on
    where the parent ends.
    """
    trajectory = parent.trajectories[0]
    if not trajectory.origin <= step <= trajectory.done:
        raise RunError(
            f"step {step} is beyond what {parent.path} holds: fork from one of its steps,"
            f" {trajectory.origin} to {trajectory.done}"
        )
    if not trajectory.has_states:
        trajectory.snapshot(step)
    require(
        last > step,
        f"steps={last}: a fork from step {step} must be trained to a later one; give"
        f" steps={step + 1} or more",
    )
    planned = [*trajectory.record["snapshots"], trajectory.done]
    if last > max(planned):
        schedule = parent.experiment.schedule.steps(last)
        planned += schedule[schedule > max(planned)].tolist()
    return np.unique([step, *(s for s in planned if step < s < last), last])


def _train(asked: _Fork, watch: Watch, allow_other_machine: bool) -> Run:
    folder, here = asked.folder, machine()
    check_resumable(folder)
    require(folder != asked.parent.path, f"{folder} is the run itself; give another --out")
    experiment = asked.experiment
    parts = experiment.parts(*mode_of(asked.parent.record))
    if (folder / "run.json").exists():
        _check_same(folder, asked, experiment)
    else:
        ProgramSchedule(
            parts, origin=asked.step, load_params=load_params_of(asked.parent.path, parts.seeds)
        ).check(asked.new)
    check_machine(asked.parent.trajectories[0], here, allow_other_machine)
    with lock(folder):
        if not (folder / "run.json").exists():
            record = run_record(experiment, here, parts, asked.record)
            write_record(folder, {**record, "snapshots": asked.snapshots.tolist()})
        trajectory = Trajectory(folder)
        if not (folder / ORIGIN).exists():
            _begin(asked, trajectory, parts, allow_other_machine)
        finish(trajectory, parts, watch=watch, allow_other_machine=allow_other_machine)
    return open_run(folder)


def _begin(asked: _Fork, trajectory: Trajectory, parts: Parts, allow_other_machine: bool) -> None:
    """Writes the state that the fork begins with, and what the parent's interventions prepared
    before.
    """
    parent, run = asked.parent.trajectories[0], trajectory.record["hash"]
    programs = ProgramSchedule(parts, origin=asked.step, initial=parent.initial)
    for place, intervention in enumerate(asked.experiment.interventions[: -len(asked.new) or None]):
        kept = parent.prepared.read(asked.parent.experiment.interventions.index(intervention))
        if kept is not None and (intervention.start < asked.step or not intervention.reads_weights):
            trajectory.prepared.write(place, kept)
    state = flat_state(_state(asked, programs, allow_other_machine))
    initial = {
        f"{INITIAL}{name}": np.asarray(value) for name, value in dotted(parent.initial()).items()
    }
    write_arrays(trajectory.path / ORIGIN, {**state, **initial}, run)


def _state(asked: _Fork, programs: ProgramSchedule, allow_other_machine: bool) -> TrainState:
    """The parent's exact state; or its parameters, with an optimizer state that is fresh."""
    parent = asked.parent.trajectories[0]
    if parent.has_states:
        return programs.begin(
            asked.parent.state_at(asked.step, allow_other_machine=allow_other_machine)
        )
    log.warning(
        "%s holds no train states: the fork begins with a fresh optimizer state", parent.path
    )
    return programs.fresh(
        jax.tree.map(lambda x: jax.numpy.asarray(x[0]), parent.stack([asked.step]))
    )


def _check_same(folder: Path, asked: _Fork, experiment: Experiment) -> None:
    """Refuses to go on with another fork. Raises RunError."""
    there = Trajectory(folder)
    own = there.record.get("parent", {})
    for name in ("hash", "step"):
        if own.get(name) != asked.record[name]:
            raise RunError(
                f"{folder} is no fork of {asked.parent.path} at step {asked.step}; give another"
                " --out"
            )
    if there.record["snapshots"] != asked.snapshots.tolist():
        raise RunError(f"{folder} keeps other snapshots than are asked for; give another --out")
    check_same(folder, encode(experiment, REGISTRY))
