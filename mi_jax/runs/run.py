"""A run as users hold it: parameters by step and seed, losses, exact states, readings."""

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr
from jaxtyping import Int

from mi_jax.basics.dims import Params, Scalar
from mi_jax.basics.errors import ConfigError, RunError, nearest, require, whole
from mi_jax.basics.files import replacing
from mi_jax.basics.precision import computing_in
from mi_jax.basics.pytrees import dotted, take
from mi_jax.basics.records import differences
from mi_jax.basics.streams import stream
from mi_jax.contracts import PLAIN, Batch, Evaluation, Reference, Subject, Taps
from mi_jax.landscape import split_loss_of
from mi_jax.measuring import nulls
from mi_jax.measuring.choosing import Chosen, choose
from mi_jax.measuring.program import Watch as MeasureWatch
from mi_jax.measuring.program import make_context
from mi_jax.measuring.registry import EXPENSIVE
from mi_jax.measuring.stored import measure_trajectory, read_steps, stored_measures
from mi_jax.runs import replay
from mi_jax.runs.experiment import Experiment, identity
from mi_jax.training.state import Mode, TrainState
from mi_jax.training.trajectory import Status, Trajectory

Step = int | np.integer


Steps = Sequence[Step] | Int[np.ndarray, " step"]


def open_run(path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> "Run":
    """Opens a run directory, or several of one experiment with different seeds as one.

    Raises:
        RunError: where there is no run, its format is newer, or the runs are not of one experiment.
    """
    paths = [path] if isinstance(path, (str, os.PathLike)) else list(path)
    require(len(paths) > 0, "open_run was given no path")
    return Run(tuple(Trajectory(Path(p)) for p in paths))


class Run:
    """A trained (or partly trained) experiment: parameters by step and seed, losses, exact states,
    readings.
    """

    def __init__(self, trajectories: tuple[Trajectory, ...]):
        self.trajectories = trajectories
        first, *others = trajectories
        for other in others:
            different = differences(_shared(first), _shared(other))
            if different:
                raise RunError(
                    f"{first.path} and {other.path} are not of one experiment:"
                    f" {'; '.join(different)}"
                )
            if first.done != other.done or not np.array_equal(first.steps, other.steps):
                raise RunError(
                    f"{first.path} and {other.path} hold different steps; train both to their end"
                )
        twice = [seed for seed in self.seeds if self.seeds.count(seed) > 1]
        if twice:
            raise RunError(f"seeds {sorted(set(twice))} are in more than one of the runs")

    @property
    def path(self) -> Path:
        """The (first) run directory."""
        return self.trajectories[0].path

    @property
    def record(self) -> dict[str, Any]:
        """The (first) ``run.json``."""
        return self.trajectories[0].record

    @property
    def seeds(self) -> tuple[int, ...]:
        """The labels of the seeds."""
        return tuple(seed for trajectory in self.trajectories for seed in trajectory.seeds)

    @property
    def parent(self) -> tuple[Path, int] | None:
        """(the run that this one was forked from, the step); None where it was not."""
        return self.trajectories[0].parent

    @property
    def steps(self) -> Int[np.ndarray, " step"]:
        """The steps of the stored snapshots."""
        return self.trajectories[0].steps

    @cached_property
    def experiment(self) -> Experiment:
        """The settings. Raises ConfigError where a user's class can't be imported here; arrays are
        readable all the same.
        """
        return Experiment.from_json(self.record["experiment"])

    @cached_property
    def subject(self) -> Subject:
        """What measures read."""
        return self.experiment.subject()

    def params(self, step: Step, seed: int | None = None) -> Params:
        """The parameters after ``step`` updates as a nested dict of NumPy arrays.

        Args:
            seed: a label; without it every leaf has a leading seed axis, unless the run has one
                seed only.

        Raises:
            RunError: for a step that is no snapshot (the nearest are named; ``state_at`` gives any
                step) or an unknown seed.
        """
        if seed is None and len(self.seeds) == 1:
            seed = self.seeds[0]
        if seed is None:
            return take(self.stack([step]), 0)
        trajectory, place = self._find(seed)
        return jax.tree.map(lambda x: x[0, place], trajectory.stack([int(step)]))

    def stack(self, steps: Steps | None = None) -> Params:
        """Parameters at several snapshots (all by default), leading axes (step, seed)."""
        chosen = None if steps is None else [int(step) for step in steps]
        stacks = [trajectory.stack(chosen) for trajectory in self.trajectories]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *stacks)

    @cached_property
    def losses(self) -> xr.DataArray:
        """The training loss of every step, dims (seed, step): that at step s is of the parameters
        after s updates.

        Its attr ``units`` is missing where a class of the experiment can't be imported any more.
        """
        values = np.concatenate([trajectory.losses() for trajectory in self.trajectories], axis=1).T
        origin = self.trajectories[0].origin
        coords = {"seed": list(self.seeds), "step": np.arange(origin, origin + values.shape[1])}
        units = ""
        with contextlib.suppress(ConfigError):
            units = self.experiment.loss.units
        return xr.DataArray(
            values, coords, ("seed", "step"), name="loss", attrs={"units": units} if units else {}
        )

    @property
    def status(self) -> dict[int, Status]:
        """How each seed stands: finished, unfinished, or non-finite since a step."""
        return {
            seed: status
            for trajectory in self.trajectories
            for seed, status in trajectory.status().items()
        }

    def state_at(self, step: Step, *, allow_other_machine: bool = False) -> TrainState:
        """The exact train state after ``step`` updates, leading axis seed: stored, or replayed from
        the last stored one.

        Raises:
            RunError: for a step that the run has not reached, or a replay on a machine whose bits
                may differ.
        """
        step = whole("step", step)
        states = [
            replay.state_at(trajectory, step, allow_other_machine=allow_other_machine)
            for trajectory in self.trajectories
        ]
        with computing_in(self.experiment.precision):
            return (
                states[0]
                if len(states) == 1
                else jax.tree.map(lambda *leaves: jax.numpy.concatenate(leaves), *states)
            )

    def apply(
        self,
        params: Params,
        inputs: Any,
        *,
        taps: Taps | None = None,
        positions: Sequence[int] | None = None,
    ) -> jax.Array:
        """The model's outputs [batch position class]; all positions by default, or those given."""
        read = None if positions is None else tuple(int(position) for position in positions)
        # Of a float32 run whoever computes in float64 is left to do so.
        wide = self.experiment.precision == "float64"
        with computing_in("float64") if wide else contextlib.nullcontext():
            as_arrays = jax.tree.map(jax.numpy.asarray, params)
            return self.subject.model.along(PLAIN)(
                as_arrays, jax.numpy.asarray(inputs), taps=taps, positions=read
            )

    def evaluation(self, seed: int | None = None) -> Evaluation:
        """The fixed examples by split, and the concepts, that the run's measures read; of the first
        seed by default.
        """
        seed, task = self.seeds[0] if seed is None else seed, self.experiment.task
        self._find(seed)
        return task.evaluation(task.data(seed), stream(seed, "measure"))

    def split_loss(
        self, split: str = "train", seed: int | None = None
    ) -> tuple[Callable[[Params, Batch], Scalar], Batch]:
        """(loss, examples): ``loss(params, examples)`` is the mean loss over a split, the one that
        the run was trained with.

        It is what ``mi_jax.landscape`` takes: ``calibrate(loss, run.params(step), data=examples,
        n=len(examples.inputs), ...)``. Programs are kept by ``loss`` itself, so that it is to be
        asked for once.

        Args:
            split: one that the task evaluates. seed: whose examples, where seeds have their own;
                the first by default.

        Raises:
            ConfigError: for a split that the task doesn't have.
        """
        seed = self.seeds[0] if seed is None else seed
        self._find(seed)
        context = make_context(self.subject, seed, Reference(), [])
        require(
            split in context.batches,
            f"the task has no split {split!r}; {nearest(split, context.batches)}",
        )
        own = split_loss_of(context)

        def loss(params: Params, examples: Batch) -> Scalar:
            return own(jax.tree.map(jax.numpy.asarray, params), examples)

        return loss, context.batches[split]._replace(info={})

    def export(self, step: Step, path: str | os.PathLike[str], seed: int | None = None) -> Path:
        """Writes one seed's parameters at a snapshot as an npz of dotted names, which ``mi-jax
        measure`` reads back.

        Raises:
            RunError: where the run has several seeds and none is given, or the file can't be
                written.
        """
        if seed is None and len(self.seeds) > 1:
            raise RunError(
                f"the run has the seeds {list(self.seeds)}; say which to export with seed="
            )
        params, file = self.params(step, seed), Path(path)
        try:
            with replacing(file) as temporary, temporary.open("wb") as opened:
                np.savez(opened, **dotted(params))
        except OSError as error:
            raise RunError(f"{file} can't be written ({error.strerror})") from error
        return file

    @property
    def measures(self) -> xr.Dataset:
        """All stored readings of the run's snapshots as one dataset, dims (seed, step, ...)."""
        return _by_seed([stored_measures(trajectory) for trajectory in self.trajectories])

    def measure(
        self,
        measures: Sequence[Chosen] | None = None,
        *,
        watch: MeasureWatch = lambda done, total: None,
    ) -> xr.Dataset:
        """See ``mi_jax.measure``."""
        chosen, _ = choose(measures, self.subject)
        return _by_seed(
            [
                measure_trajectory(
                    trajectory, self.subject, chosen, provenance(trajectory.record), watch
                )
                for trajectory in self.trajectories
            ]
        )

    def read(self, measures: Sequence[Chosen], steps: Steps) -> xr.Dataset:
        """Readings at chosen snapshots, which are neither stored nor reused."""
        steps = [int(step) for step in steps]
        chosen, _ = choose(measures, self.subject)
        return _by_seed(
            [
                read_steps(trajectory, self.subject, chosen, steps)
                for trajectory in self.trajectories
            ]
        )

    def nulls(self) -> nulls.Nulls:
        """What every measure says where there is nothing to find: see ``nulls.read_nulls``. Of
        several runs, the first's.
        """
        chosen, _ = choose(None, self.subject)
        stored = set(self.measures)
        held = [name for name, one in EXPENSIVE.items() if set(one.variables) <= stored]
        expensive, _ = choose(held, self.subject)
        return nulls.read_nulls(self.trajectories[0], self.subject, chosen, expensive=expensive)

    @property
    def mode(self) -> Mode:
        """How the run was computed, where there is a choice that changes bits."""
        return replay.mode_of(self.record)

    def _find(self, seed: int) -> tuple[Trajectory, int]:
        for trajectory in self.trajectories:
            if seed in trajectory.seeds:
                return trajectory, trajectory.seeds.index(seed)
        raise RunError(f"the run has no seed {seed}; its seeds are {list(self.seeds)}")


def provenance(record: Mapping[str, Any]) -> dict[str, Any]:
    """What every result says of the run it was read from."""
    return {key: record[key] for key in ("experiment", "hash", "machine")}


def _by_seed(datasets: list[xr.Dataset]) -> xr.Dataset:
    return (
        datasets[0]
        if len(datasets) == 1
        else xr.concat(datasets, "seed", join="exact", combine_attrs="override")
    )


def _shared(trajectory: Trajectory) -> dict[str, Any]:
    """The settings that runs of one experiment share, with what an older version left unsaid at its
    default.
    """
    parent = trajectory.record.get("parent")
    forked = {} if parent is None else {"forked": [parent["hash"], parent["step"]]}
    return {**identity(Experiment.from_json(trajectory.record["experiment"]).to_json()), **forked}


def measure(
    run: Run,
    measures: Sequence[Chosen] | None = None,
    *,
    watch: MeasureWatch = lambda done, total: None,
) -> xr.Dataset:
    """Reads measures over every snapshot of a run in one compiled program, stores them in the run,
    returns the dataset.

    Args:
        measures: names, Measures, or plain functions ``(params, context) -> scalar``; all that can
            be taken by default.
        watch: called with (snapshots done, snapshots in all).

    Raises:
        MeasureError: for an unknown measure, or one that needs what this model or task doesn't
            have.
    """
    return run.measure(measures, watch=watch)
