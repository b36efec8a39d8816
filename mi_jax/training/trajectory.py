"""A run on disk: ``run.json`` beside its segments, read by step and seed.

Parameters are read one segment at a time, so memory is bounded by the size of a segment (128 MB by
default), whatever the length of the run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mi_jax.basics.errors import DamagedError, RunError, require
from mi_jax.basics.pytrees import dotted, nested
from mi_jax.training import segments
from mi_jax.training.kept import PREPARED, read_arrays, write_arrays
from mi_jax.training.record import read_record

ORIGIN = "origin.npz"
"""File in a fork's directory: the state that it begins with, and the parameters of step 0."""

INITIAL = "initial."
"""Stands before the names of the parameters of step 0 in that file."""


@dataclass(frozen=True)
class Storage:
    """Rules for when a segment is written; whichever comes first.

    Attributes:
        snapshots: largest number of snapshots in a segment.
        megabytes: largest size of the snapshots of a segment, in units of 2^20 bytes.
        states: smallest number of segments, and so of stored train states, per run.
    """

    snapshots: int = 256
    megabytes: float = 128.0
    states: int = 8

    def __post_init__(self) -> None:
        for name in ("snapshots", "states"):
            require(getattr(self, name) >= 1, f"{name}={getattr(self, name)}: must be at least 1.")
        require(
            0 < self.megabytes < float("inf"),
            f"megabytes={self.megabytes}: must be a finite number above 0.",
        )


class Status(NamedTuple):
    """Status of a seed. A seed that became non-finite stays in the run, and its readings are NaN.

    Attributes:
        state: whether its training is finished, unfinished, or became non-finite.
        last_finite_step: the last step known to be finite, by its loss, or by its parameters at the
            end.
    """

    state: Literal["finished", "unfinished", "non-finite"]
    last_finite_step: int


class Part(NamedTuple):
    """Snapshots of one segment, as they are streamed.

    Attributes:
        steps: the steps of the snapshots.
        parameters: parameters (snapshot, seed, ...) by dotted name.
    """

    steps: tuple[int, ...]
    parameters: dict[str, np.ndarray]


def segment_ends(
    snapshots: Int[np.ndarray, " step"],
    last: int,
    snapshot_bytes: int,
    storage: Storage,
    origin: int = 0,
) -> list[int]:
    """The steps at which segments end.

    A segment ends at a snapshot that fills it, at every ``storage.states``-th part of the run, and
    at the last step. The steps follow from these numbers, never from the clock, so that a run that
    was interrupted has the same segments as one that was not.

    Args:
        snapshots: the steps of the snapshots.
        last: the last step of the run.
        snapshot_bytes: the size of one snapshot of all seeds.
        storage: the rules.
        origin: the step at which the run begins.
    """
    most = max(1, min(storage.snapshots, int(storage.megabytes * 2**20 // max(snapshot_bytes, 1))))
    # More parts than steps would end at the same steps.
    states = min(storage.states, last - origin)
    # Rounded up: -(-a // b).
    parts = {origin - (-(last - origin) * part // states) for part in range(1, states + 1)} | {last}
    ends, count = set[int](), 0
    for step in sorted(parts | set(snapshots.tolist())):
        count += step in snapshots
        if step in parts or count >= most:
            ends.add(step)
            count = 0
    return sorted(end for end in ends if end > origin)


class Trajectory:
    """Reader of a run directory: seeds, steps, parameters, losses, stored states, status.

    Attributes:
        path: the run's directory.
        record: the contents of ``run.json``.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path).resolve()
        self.record = read_record(self.path)

    @property
    def folder(self) -> Path:
        """The folder of segments."""
        return self.path / "segments"

    @property
    def seeds(self) -> tuple[int, ...]:
        """The labels of the run's seeds."""
        return tuple(self.record["seeds"])

    @property
    def parent(self) -> tuple[Path, int] | None:
        """(path of the run that this one was forked from, step); None for a run that began at step
        0.
        """
        parent = self.record.get("parent")
        return None if parent is None else (Path(parent["path"]), parent["step"])

    @property
    def origin(self) -> int:
        """The step at which the run begins: 0, or where it was forked."""
        return 0 if self.parent is None else self.parent[1]

    @property
    def last(self) -> int:
        """The step at which the run is finished."""
        return self.record["steps"]

    @cached_property
    def indexes(self) -> tuple[segments.Index, ...]:
        """The indexes of the finished segments. Raises DamagedError if one is missing or
        changed.
        """
        indexes = tuple(self.read_index(end) for end in segments.finished(self.folder))
        starts = (self.origin, *(index.end for index in indexes[:-1]))
        for start, index in zip(starts, indexes, strict=False):
            if index.start != start:
                raise DamagedError(
                    f"The segment that ends at step {index.start} is missing from {self.folder}."
                    " Restore it from a copy of this run, or remove every later one and train on."
                )
        return indexes

    def read_index(self, end: int) -> segments.Index:
        """The index of the segment that ends at a step. Raises DamagedError if it was changed,
        or belongs to another run.
        """
        index = segments.read_index(self.folder, end)
        if index.seeds != self.seeds or index.run not in (None, self.record["hash"]):
            raise DamagedError(
                f"Segment {end:09d} in {self.folder} belongs to another run. Restore the segment"
                " from a copy of this run."
            )
        return index

    @property
    def done(self) -> int:
        """The step to which the run has been trained."""
        return self.indexes[-1].end if self.indexes else self.origin

    @property
    def steps(self) -> Int[np.ndarray, " step"]:
        """The steps of the stored snapshots."""
        return np.array([step for index in self.indexes for step in index.steps], np.int64)

    def hashes(self) -> dict[str, str]:
        """The sha256 of every array of every snapshot, by ``step/seed/name``."""
        return {
            label: sha256
            for index in self.indexes
            for label, sha256 in index.hashes.items()
            if "@" not in label
        }

    def stream(self, steps: Sequence[int] | None = None) -> Iterator[Part]:
        """Snapshots, one segment at a time.

        Args:
            steps: the steps of the snapshots; all by default. They come in the order of training.

        Raises:
            RunError: for a step that is no snapshot; it names the nearest ones.
            DamagedError: if a segment was changed.
        """
        wanted = None if steps is None else {self.snapshot(step) for step in steps}
        for index in self.indexes:
            rows = [row for row, step in enumerate(index.steps) if wanted is None or step in wanted]
            if rows:
                read = segments.read_snapshots(self.folder, index, rows)
                yield Part(tuple(index.steps[row] for row in rows), read)

    def stack(self, steps: Sequence[int] | None = None) -> dict[str, Any]:
        """Parameters with leading axes (step, seed), as a nested dict.

        Args:
            steps: the steps of the snapshots, in the order of the result; all by default.

        Raises:
            RunError: for a step that is no snapshot, or if there is no snapshot yet.
            DamagedError: if a segment was changed.
        """
        parts = list(self.stream(steps))
        if not parts:
            raise self._no_snapshot()
        joined = {
            name: np.concatenate([part.parameters[name] for part in parts])
            for name in parts[0].parameters
        }
        if steps is not None:
            stored = [step for part in parts for step in part.steps]
            row_of = {step: row for row, step in enumerate(stored)}
            order = [row_of[int(step)] for step in steps]
            joined = {name: stack[order] for name, stack in joined.items()}
        return nested(joined)

    def losses(self) -> Float[np.ndarray, "step seed"]:
        """The training loss of the parameters after origin, origin + 1, ..., done - 1 updates."""
        parts = [segments.read_losses(self.folder, index) for index in self.indexes]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.seeds)), np.float32)

    def stored_state(self, step: int) -> tuple[int, segments.Flat] | None:
        """The last stored train state at or before ``step``: (its step, arrays by dotted name).

        None if no such state is stored.
        """
        before = [index for index in self.indexes if index.end <= step]
        if not self.has_states:
            return None
        if before:
            return before[-1].end, segments.read_state(self.folder, before[-1])
        if self.parent is None:
            return None
        arrays = read_arrays(self.path / ORIGIN, self.record["hash"])
        return self.origin, {
            name: value for name, value in arrays.items() if not name.startswith(INITIAL)
        }

    def initial(self) -> dict[str, Any]:
        """The parameters of step 0, leading axis seed, as a nested dict.

        Those of the first snapshot if there is no snapshot of step 0.
        """
        if self.parent is None:
            first = dotted(self.stack([int(self.steps[0])]))
            return nested({name: stack[0] for name, stack in first.items()})
        arrays = read_arrays(self.path / ORIGIN, self.record["hash"])
        return nested(
            {
                name.removeprefix(INITIAL): value
                for name, value in arrays.items()
                if name.startswith(INITIAL)
            }
        )

    @property
    def has_states(self) -> bool:
        """Whether train states are stored. A trajectory that was planted or imported has snapshots
        alone.
        """
        return not self.indexes or any(
            name.startswith("state@") for name in self.indexes[-1].hashes
        )

    @property
    def prepared(self) -> "Prepared":
        """The arrays that the run's interventions prepared."""
        return Prepared(self.path / PREPARED, self.record["hash"])

    def differences(self, other: "Trajectory") -> list[str]:
        """Differences between what this run and another run of the same experiment store.

        One line for each kind of array, with the first step at which it differs; the other run is
        "here".
        """
        lines: list[str] = []
        if not np.array_equal(self.steps, other.steps):
            lines.append(f"snapshots: {len(self.steps)} there, {len(other.steps)} here")
        ours, theirs = self.hashes(), other.hashes()
        unequal = sorted(
            {
                int(name.split("/")[0])
                for name in ours
                if name in theirs and ours[name] != theirs[name]
            }
        )
        if unequal:
            lines.append(
                f"parameters: different at {len(unequal)} of {len(self.steps)} snapshots, first at"
                f" step {unequal[0]}"
            )
        states = self._unequal_states(other)
        if states:
            lines.append(
                f"train states: different at {len(states)} ends of segments, first at step"
                f" {states[0]}"
            )
        mine, others = self.losses(), other.losses()
        if not np.array_equal(mine, others, equal_nan=True):
            n = min(len(mine), len(others))
            bad = np.flatnonzero((mine[:n] != others[:n]).any(axis=1))
            lines.append(
                f"losses: first different at step {self.origin + (int(bad[0]) if len(bad) else n)}"
            )
        return lines

    def _unequal_states(self, other: "Trajectory") -> list[int]:
        """The ends of segments common to both runs at which the train states differ."""

        def states(index: segments.Index) -> dict[str, str]:
            return {
                label: sha256
                for label, sha256 in index.hashes.items()
                if label.startswith("state@")
            }

        theirs = {index.end: states(index) for index in other.indexes}
        return [
            index.end
            for index in self.indexes
            if theirs.get(index.end, states(index)) != states(index)
        ]

    def status(self) -> dict[int, Status]:
        """The status of each seed."""
        losses, done = self.losses(), self.done
        state = "finished" if done >= self.last else "unfinished"
        stored = self.stored_state(done)
        result: dict[int, Status] = {}
        for seed_index, seed in enumerate(self.seeds):
            bad = np.flatnonzero(~np.isfinite(losses[:, seed_index]))
            # The loss at the last step is not stored: its parameters are looked at instead.
            end_is_finite = stored is None or all(
                np.isfinite(value[seed_index]).all()
                for name, value in stored[1].items()
                if name.startswith("params.")
            )
            if len(bad):
                result[seed] = Status("non-finite", self.origin + int(bad[0]) - 1)
            elif not end_is_finite:
                result[seed] = Status("non-finite", done - 1)
            else:
                result[seed] = Status(state, done)
        return result

    def snapshot(self, step: int) -> int:
        """The step itself, if it is the step of a snapshot.

        Raises:
            RunError: if it is not; the error names the nearest ones.
        """
        if step not in self.steps:
            if not len(self.steps):
                raise self._no_snapshot()
            near = self.steps[np.argsort(np.abs(self.steps - step), kind="stable")[:2]]
            raise RunError(
                f"Step {step} is no snapshot of {self.path}. The nearest are"
                f" {sorted(near.tolist())}; all are in .steps."
            )
        return int(step)

    def _no_snapshot(self) -> RunError:
        return RunError(f"{self.path} holds no snapshot yet. Train it first.")


class Prepared(NamedTuple):
    """The arrays that a run's interventions prepared, one file for each intervention.

    It is the ``program_schedule.Store`` of a run on disk.

    Attributes:
        folder: the folder of the files.
        run: the identity hash of the run.
    """

    folder: Path
    run: str

    def file(self, index: int) -> Path:
        """The file of the run's intervention ``index``."""
        return self.folder / f"{index}.npz"

    def read(self, index: int) -> dict[str, np.ndarray] | None:
        """The arrays of the run's intervention ``index``; None if none are stored yet."""
        file = self.file(index)
        return read_arrays(file, self.run) if file.exists() else None

    def write(self, index: int, arrays: dict[str, np.ndarray]) -> None:
        """Store the arrays of the run's intervention ``index``.

        Raises:
            RunError: if the file cannot be written.
        """
        write_arrays(self.file(index), arrays, self.run)

    def indices(self) -> list[int]:
        """Indices of the interventions that have stored arrays."""
        return sorted(int(file.stem) for file in self.folder.glob("*.npz") if file.stem.isdigit())
