"""Forks and zooms: another history from a run's exact state at any step, or a closer look at it."""

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from mi_jax.basics.errors import ConfigError, RunError, whole
from mi_jax.basics.modules import sources
from mi_jax.basics.pytrees import dotted
from mi_jax.interventions import Intervention
from mi_jax.runs import replay
from mi_jax.runs.experiment import Experiment
from mi_jax.runs.limits import check_fits
from mi_jax.runs.run import Run, Step, open_run
from mi_jax.runs.train import check_same, finish, run_record, train
from mi_jax.training.kept import read_arrays, write_arrays
from mi_jax.training.loop import Watch, check_resumable
from mi_jax.training.machine import machine, with_packages
from mi_jax.training.program_schedule import ProgramSchedule
from mi_jax.training.record import lock, write_record
from mi_jax.training.state import Parts, TrainState, flat_state
from mi_jax.training.trajectory import INITIAL, ORIGIN, Trajectory

_WIDTH = 64
"""Snapshots to either side of a zoom's step, by default."""

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
    allow_no_lock: bool = False,
) -> Run:
    """Trains another history of a run, from its exact state at a step, on the same batches.

    The run's own interventions stay in force. Without new ones the fork is bitwise the run; with
    one, it is bitwise the run until the intervention begins. The fork keeps snapshots at the run's
    steps from ``step`` on. Its folder is complete: resuming, replaying and reading it need no other
    run. The same call resumes a fork that was interrupted.

    Args:
        run: a Run, or its folder.
        step: where to fork: any step that the run has reached. Of a run that holds snapshots but no
            train states (a planted one), a snapshot's; training then begins with a fresh optimizer
            state, as the log, ``run.json`` and ``mi-jax info`` say.
        interventions: changes to training from ``step`` on.
        steps: the step to train to; the run's last by default.
        out: the fork's folder; ``NAME-fork-STEP`` beside the run by default.
        watch: called with a ``Progress`` after each chunk of training.
        allow_other_machine: continue even if versions, cores or flags differ from the run's.
        allow_no_lock: write the folder even if its file system has no locks. No other process may
            then train it.

    Returns:
        The finished fork.

    Raises:
        ConfigError: a step or an intervention is invalid. Nothing was written.
        RunError: the run has not reached the step, or the folder holds something else.
        Interrupted: SIGINT or SIGTERM arrived. Everything up to that step is saved.

    Example:
        >>> from mi_jax import fork
        >>> from mi_jax.interventions import Freeze
        >>> forked = fork("my_run", step=400, interventions=[Freeze("embed.W_E")])  # doctest: +SKIP
    """
    parent = _single(run)
    trajectory = parent.trajectories[0]
    step, last = whole("step", step), trajectory.last if steps is None else whole("steps", steps)
    plan = _Fork(
        parent,
        step,
        tuple(_from(step, intervention, last) for intervention in interventions),
        last,
        _snapshots(parent, step, last),
        _folder(out, parent, f"fork-{step}"),
    )
    return _train(plan, watch, allow_other_machine, allow_no_lock)


def zoom(
    run: Run | str | os.PathLike[str],
    *,
    around: Step,
    every: Step = 1,
    width: Step | None = None,
    out: str | os.PathLike[str] | None = None,
    watch: Watch = lambda progress: None,
    allow_other_machine: bool = False,
    allow_no_lock: bool = False,
) -> Run:
    """Dense snapshots of a run around a step: bitwise those that the run would have kept there.

    Args:
        run: a Run with train states, or its folder.
        around: the step in the middle.
        every: steps from one snapshot to the next.
        width: steps to either side; 64 times ``every`` by default. Steps outside of the run are
            left out.
        out: the folder; ``NAME-zoom-STEP`` beside the run by default.
        watch: called with a ``Progress`` after each chunk of training.
        allow_other_machine: continue even if versions, cores or flags differ from the run's.
        allow_no_lock: write the folder even if its file system has no locks. No other process may
            then train it.

    Returns:
        A run of the steps around.

    Raises:
        ConfigError: ``every`` or ``width`` is invalid, or the run is planted.
        RunError: the run does not reach the step, or holds no train states.
    """
    parent = _single(run)
    if parent.experiment.path is not None:
        raise ConfigError(
            f"{parent.path} is a planted run and has no train states to replay. Plant it again"
            " with a denser schedule instead."
        )
    around, every = whole("around", around), whole("every", every)
    width = _WIDTH * every if width is None else whole("width", width)
    if every < 1:
        raise ConfigError(f"every={every} must be at least 1.")
    if width < every:
        raise ConfigError(f"width={width} must be at least every={every}.")
    trajectory = parent.trajectories[0]
    if not trajectory.has_states:
        raise RunError(
            f"{parent.path} holds no train states, so the steps between its snapshots cannot be"
            " computed."
        )
    if not trajectory.origin <= around <= trajectory.done:
        raise RunError(
            f"There is no step {around} to zoom around: {parent.path} holds the steps"
            f" {trajectory.origin} to {trajectory.done}. Use one of them."
        )
    begin, end = max(trajectory.origin, around - width), min(trajectory.done, around + width)
    first = around - (around - begin) // every * every
    snapshots = np.unique([begin, *range(first, end, every), end])
    folder = _folder(out, parent, f"zoom-{around}")
    plan = _Fork(parent, begin, (), end, snapshots, folder)
    return _train(plan, watch, allow_other_machine, allow_no_lock)


def train_again(
    run: Run, out: str | os.PathLike[str], *, watch: Watch = lambda progress: None
) -> Run:
    """Trains a run once more, from what it began with, into another folder.

    Args:
        run: a run of one folder.
        out: the other folder.
        watch: called with a ``Progress`` after each chunk of training.
    """
    if run.parent is None:
        return train(run.experiment, out, watch=watch, **run.mode._asdict())
    first, folder = run.trajectories[0], Path(out).resolve()
    check_resumable(folder)
    with lock(folder):
        if not (folder / "run.json").exists():
            own = sources(run.record["experiment"])
            write_record(
                folder,
                {
                    **run.record,
                    "machine": with_packages(machine(), run.subject.model.packages),
                    **({"modules": own} if own else {}),
                },
            )
        trajectory = Trajectory(folder)
        if not (folder / ORIGIN).exists():
            origin = read_arrays(first.path / ORIGIN, first.record["hash"])
            write_arrays(folder / ORIGIN, origin, run.record["hash"])
            for index, intervention in enumerate(run.experiment.interventions):
                _copy_prepared(first, trajectory, index, index, intervention, first.origin)
        parts = run.experiment.parts(*run.mode)
        finish(trajectory, parts, watch=watch, allow_other_machine=False)
    return open_run(folder)


class _Fork(NamedTuple):
    """A fork as it is asked for."""

    parent: Run
    step: int
    new: tuple[Intervention, ...]
    last: int
    snapshots: Int[np.ndarray, " step"]
    folder: Path

    @property
    def experiment(self) -> Experiment:
        """The parent's experiment with the new interventions. Raises ConfigError if they clash
        with its settings.
        """
        own = self.parent.experiment
        inherited = tuple(change for change in own.interventions if change.start < self.last)
        # After the step a planted run is trained, not planted.
        bare = replace(own, interventions=(), steps=self.last, name=self.folder.name, path=None)
        return replace(bare, interventions=(*inherited, *self.new))

    @property
    def record(self) -> dict[str, Any]:
        """The entry ``parent`` of the fork's ``run.json``."""
        exact = self.parent.trajectories[0].has_states
        return {
            "path": str(self.parent.path),
            "hash": self.parent.record["hash"],
            "step": self.step,
            "state": "exact" if exact else "fresh optimizer state",
            "departs": bool(self.new) or self.last > self.parent.trajectories[0].last,
        }


def _folder(out: str | os.PathLike[str] | None, parent: Run, suffix: str) -> Path:
    """The folder asked for, or one beside the parent's."""
    beside = parent.path.with_name(f"{parent.path.name}-{suffix}")
    return (beside if out is None else Path(out)).resolve()


def _single(run: Run | str | os.PathLike[str]) -> Run:
    run = run if isinstance(run, Run) else open_run(run)
    if len(run.trajectories) > 1:
        raise RunError(
            f"Cannot fork {len(run.trajectories)} runs that are open as one. Fork each of them, and"
            " open the forks as one."
        )
    return run


def _from(step: int, intervention: Intervention, last: int) -> Intervention:
    """The intervention, beginning at the fork's step at the earliest. Raises ConfigError if it
    would never be in force.
    """
    if intervention.start >= last or (intervention.stop is not None and intervention.stop <= step):
        raise ConfigError(
            f"{intervention} would never be in force. A fork from step {step} to {last} makes the"
            f" updates {step} to {last - 1}. Its range must hold one of them."
        )
    return replace(intervention, start=max(step, intervention.start))


def _snapshots(parent: Run, step: int, last: int) -> Int[np.ndarray, " step"]:
    """The fork's snapshots: the parent's between ``step`` and ``last``, and these two. Beyond the
    parent's end its schedule continues.
    """
    trajectory = parent.trajectories[0]
    if not trajectory.origin <= step <= trajectory.done:
        raise RunError(
            f"Cannot fork at step {step}: {parent.path} holds the steps {trajectory.origin} to"
            f" {trajectory.done}. Fork from one of them."
        )
    if not trajectory.has_states:
        trajectory.snapshot(step)
    if last <= step:
        raise ConfigError(
            f"steps={last} is too early: a fork from step {step} must be trained further. Give"
            f" steps={step + 1} or more."
        )
    planned = [*trajectory.record["snapshots"], trajectory.done]
    if last > max(planned):
        schedule = parent.experiment.schedule.steps(last)
        planned += schedule[schedule > max(planned)].tolist()
    return np.unique([step, *(s for s in planned if step < s < last), last])


def _train(asked: _Fork, watch: Watch, allow_other_machine: bool, allow_no_lock: bool) -> Run:
    folder, here, parent = asked.folder, machine(), asked.parent.trajectories[0]
    check_resumable(folder)
    if folder == asked.parent.path:
        raise ConfigError(f"{folder} is the run itself. Give another --out.")
    mode = replay.mode_of(parent.record)
    is_new = not (folder / "run.json").exists()
    check_fits(asked.experiment, folder if is_new else None, mode.seed_mode)
    plan = asked.experiment.plan(*mode)
    if not is_new:
        _check_same(asked, plan.experiment)
    else:
        load_params = replay.load_params_of(parent.path, plan.parts.seeds)
        programs = ProgramSchedule(plan.parts, origin=asked.step, load_params=load_params)
        programs.check(asked.new)
    replay.check_machine(parent, here, allow_other_machine)
    with lock(folder, allow_no_lock=allow_no_lock):
        if not (folder / "run.json").exists():
            record = run_record(plan, here, asked.record)
            write_record(folder, {**record, "snapshots": asked.snapshots.tolist()})
        trajectory = Trajectory(folder)
        if not (folder / ORIGIN).exists():
            _begin(asked, trajectory, plan.parts, allow_other_machine)
        finish(trajectory, plan.parts, watch=watch, allow_other_machine=allow_other_machine)
    return open_run(folder)


def _begin(asked: _Fork, trajectory: Trajectory, parts: Parts, allow_other_machine: bool) -> None:
    """Writes the state that the fork begins with, and what the parent's interventions prepared."""
    parent = asked.parent.trajectories[0]
    inherited = parts.interventions[: len(parts.interventions) - len(asked.new)]
    for index, intervention in enumerate(inherited):
        there = asked.parent.experiment.interventions.index(intervention)
        _copy_prepared(parent, trajectory, there, index, intervention, asked.step)
    programs = ProgramSchedule(parts, origin=asked.step, initial=parent.initial)
    state = flat_state(_state(asked, programs, allow_other_machine))
    initial = dotted(parent.initial())
    first = {f"{INITIAL}{name}": np.asarray(value) for name, value in initial.items()}
    write_arrays(trajectory.path / ORIGIN, {**state, **first}, trajectory.record["hash"])


def _copy_prepared(
    source: Trajectory,
    target: Trajectory,
    there: int,
    here: int,
    intervention: Intervention,
    step: int,
) -> None:
    """Copies the arrays of an inherited intervention, unless the fork must make its own: those that
    are read from the run's weights at a step which the fork has not reached.

    Args:
        source: the run that prepared them.
        target: the fork.
        there: index of the intervention in the source.
        here: its index in the fork.
        intervention: the intervention.
        step: where the fork begins.
    """
    arrays = source.prepared.read(there)
    if arrays is not None and (intervention.start < step or not intervention.reads_weights):
        target.prepared.write(here, arrays)


def _state(asked: _Fork, programs: ProgramSchedule, allow_other_machine: bool) -> TrainState:
    """The parent's exact state; if it has none, its parameters and a fresh optimizer state."""
    parent = asked.parent.trajectories[0]
    if parent.has_states:
        exact = replay.state_at(parent, asked.step, allow_other_machine=allow_other_machine)
        return programs.begin(exact)
    log.warning(
        "%s holds no train states: the fork begins with a fresh optimizer state", parent.path
    )
    stack = parent.stack([asked.step])
    return programs.fresh(jax.tree.map(lambda leaf: jax.numpy.asarray(leaf[0]), stack))


def _check_same(asked: _Fork, experiment: dict[str, Any]) -> None:
    """Refuses to resume another fork. Raises RunError."""
    folder = asked.folder
    there = Trajectory(folder)
    parent = there.record.get("parent", {})
    if any(parent.get(name) != asked.record[name] for name in ("hash", "step")):
        raise RunError(
            f"{folder} is not a fork of {asked.parent.path} at step {asked.step}. Give another"
            " --out."
        )
    if there.record["snapshots"] != asked.snapshots.tolist():
        raise RunError(
            f"{folder} keeps other snapshots than you asked for. Give another --out, or the"
            " arguments that it was made with."
        )
    check_same(folder, there.record, experiment)
