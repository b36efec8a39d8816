"""A run on disk: ``run.json`` beside its segments, written under a lock, read by step and seed.

Parameters are read one segment at a time, so that memory is bounded by a segment (64 MB by
default), whatever the run's length.
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
from mi_jax.training.kept import read_arrays, write_arrays
from mi_jax.training.record import read_record

ORIGIN = "origin.npz"
"""The state that a fork begins with, and the parameters of step 0, in its directory."""


INITIAL = "initial."
"""Before the names of the latter."""


@dataclass(frozen=True)
class Storage:
    """When a segment is written: after so many snapshots or megabytes of them, and at least
    ``states`` times a run.
    """

    snapshots: int = 64
    megabytes: float = 64.0
    states: int = 16

    def __post_init__(self) -> None:
        for name in ("snapshots", "states"):
            require(getattr(self, name) >= 1, f"{name}={getattr(self, name)}: must be at least 1")
        require(
            0 < self.megabytes < float("inf"),
            f"megabytes={self.megabytes}: must be a finite number above 0",
        )


class Status(NamedTuple):
    """How a seed stands. Failure is data: a seed that turned non-finite stays in the run, its
    readings are NaN.
    """

    state: Literal["finished", "unfinished", "non-finite"]
    last_finite_step: int
    """The last step whose loss, or at the end whose parameters, are known to be finite."""


class Part(NamedTuple):
    """Some snapshots, as they are streamed."""

    steps: tuple[int, ...]
    parameters: dict[str, np.ndarray]
    """[snapshot seed ...] by dotted name."""


def segment_ends(
    snapshots: Int[np.ndarray, " step"],
    last: int,
    snapshot_bytes: int,
    storage: Storage,
    origin: int = 0,
) -> list[int]:
    """The steps at which segments end: they follow from the schedule, never from the clock.

    A segment ends at a snapshot that fills it (``storage.snapshots`` of them, or
    ``storage.megabytes``), at every ``states``-th part of the run, which begins at ``origin``, and
    at the last step.
    """
    most = max(1, min(storage.snapshots, int(storage.megabytes * 2**20 // max(snapshot_bytes, 1))))
    parts = {
        origin - (-(last - origin) * part // storage.states)
        for part in range(1, storage.states + 1)
    } | {last}
    ends, held = set[int](), 0
    for step in sorted(parts | set(snapshots.tolist())):
        held += step in snapshots
        if step in parts or held >= most:
            ends.add(step)
            held = 0
    return sorted(end for end in ends if end > origin)


class Trajectory:
    """The readable half of a run directory: seeds, steps, parameters, losses, stored states,
    status.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path).resolve()
        self.record = read_record(self.path)

    @property
    def folder(self) -> Path:
        """Where the segments are."""
        return self.path / "segments"

    @property
    def seeds(self) -> tuple[int, ...]:
        """The labels of the run's seeds."""
        return tuple(self.record["seeds"])

    @property
    def parent(self) -> tuple[Path, int] | None:
        """(the run that this one was forked from, the step); None where it began at step 0."""
        parent = self.record.get("parent")
        return None if parent is None else (Path(parent["path"]), parent["step"])

    @property
    def origin(self) -> int:
        """The step that it begins at."""
        return 0 if self.parent is None else self.parent[1]

    @property
    def last(self) -> int:
        """The step at which the run is finished."""
        return self.record["steps"]

    @cached_property
    def indexes(self) -> tuple[segments.Index, ...]:
        """What each finished segment holds. Raises DamagedError where one is missing or changed."""
        indexes = tuple(self.read_index(end) for end in segments.finished(self.folder))
        for before, index in zip(
            (self.origin, *(index.end for index in indexes)), indexes, strict=False
        ):
            if index.start != before:
                raise DamagedError(
                    f"the segment that ends at step {index.start} is missing from {self.folder}"
                )
        return indexes

    def read_index(self, end: int) -> segments.Index:
        """What the segment that ends at a step holds. Raises DamagedError where it was changed, or
        is another run's.
        """
        index = segments.read_index(self.folder, end)
        if index.seeds != self.seeds or index.run not in (None, self.record["hash"]):
            raise DamagedError(
                f"segment {end:09d} in {self.folder} belongs to another run; put this run's own"
                " back"
            )
        return index

    @property
    def done(self) -> int:
        """The step that it has been trained to."""
        return self.indexes[-1].end if self.indexes else self.origin

    @property
    def steps(self) -> Int[np.ndarray, " step"]:
        """The steps of the stored snapshots."""
        return np.array([step for index in self.indexes for step in index.steps], np.int64)

    def hashes(self) -> dict[str, str]:
        """The sha256 of every stored snapshot's arrays, by step, seed and name."""
        return {
            name: h for index in self.indexes for name, h in index.hashes.items() if "@" not in name
        }

    def stream(
        self, steps: Sequence[int] | None = None, names: Sequence[str] | None = None
    ) -> Iterator[Part]:
        """The snapshots at ``steps`` (all by default), one segment at a time.

        Raises:
            RunError: for a step that is no snapshot, naming the nearest. DamagedError: see
                ``segments``.
        """
        wanted = None if steps is None else {self.snapshot(step) for step in steps}
        for index in self.indexes:
            rows = [row for row, step in enumerate(index.steps) if wanted is None or step in wanted]
            if rows:
                read = segments.read_snapshots(self.folder, index, names, rows)
                yield Part(tuple(index.steps[row] for row in rows), read)

    def stack(
        self, steps: Sequence[int] | None = None, names: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """Parameters with leading axes (step, seed), as a nested dict."""
        parts = list(self.stream(steps, names))
        if not parts:
            raise RunError(f"{self.path} holds no snapshot yet; train it first")
        joined = {
            name: np.concatenate([part.parameters[name] for part in parts])
            for name in parts[0].parameters
        }
        if steps is not None:
            place = {
                step: row for row, step in enumerate(step for part in parts for step in part.steps)
            }
            order = [place[int(step)] for step in steps]
            joined = {name: stack[order] for name, stack in joined.items()}
        return nested(joined)

    def losses(self) -> Float[np.ndarray, "step seed"]:
        """The training loss of the parameters after origin, origin + 1, ... done - 1 updates."""
        parts = [segments.read_losses(self.folder, index) for index in self.indexes]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.seeds)), np.float32)

    def stored_state(self, step: int) -> tuple[int, segments.Flat] | None:
        """The last stored train state at or before ``step``, and its step; None where there is
        none.
        """
        before = [index for index in self.indexes if index.end <= step]
        if not self.has_states:
            return None
        if before:
            return before[-1].end, segments.read_state(self.folder, before[-1])
        if self.parent is None:
            return None
        kept = read_arrays(self.path / ORIGIN, self.record["hash"])
        return self.origin, {
            name: value for name, value in kept.items() if not name.startswith(INITIAL)
        }

    def initial(self) -> dict[str, Any]:
        """The parameters of step 0, leading axis seed, as a nested dict; those of the first
        snapshot where there is no step 0.
        """
        if self.parent is None:
            return nested(
                {name: stack[0] for name, stack in dotted(self.stack([int(self.steps[0])])).items()}
            )
        kept = read_arrays(self.path / ORIGIN, self.record["hash"])
        return nested(
            {
                name.removeprefix(INITIAL): value
                for name, value in kept.items()
                if name.startswith(INITIAL)
            }
        )

    @property
    def has_states(self) -> bool:
        """Whether train states are stored: a trajectory made otherwise than by training has
        snapshots alone.
        """
        return not self.indexes or any(
            name.startswith("state@") for name in self.indexes[-1].hashes
        )

    @property
    def prepared(self) -> "Prepared":
        """What the run's interventions prepared."""
        return Prepared(self.path / "prepared", self.record["hash"])

    def differences(self, other: "Trajectory") -> list[str]:
        """What two runs of one experiment store differently: one line a kind, the first step at
        which it differs named.
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
        """The common ends of segments at which the train states differ."""

        def states(index: segments.Index) -> dict[str, str]:
            return {name: h for name, h in index.hashes.items() if name.startswith("state@")}

        theirs = {index.end: states(index) for index in other.indexes}
        return [
            index.end
            for index in self.indexes
            if theirs.get(index.end, states(index)) != states(index)
        ]

    def status(self) -> dict[int, Status]:
        """How each seed stands, by label."""
        losses, done = self.losses(), self.done
        state = "finished" if done >= self.last else "unfinished"
        stored = self.stored_state(done)
        result: dict[int, Status] = {}
        for place, seed in enumerate(self.seeds):
            bad = np.flatnonzero(~np.isfinite(losses[:, place]))
            ended = stored is None or all(
                np.isfinite(v[place]).all() for n, v in stored[1].items() if n.startswith("params.")
            )
            first_bad = self.origin + int(bad[0]) if len(bad) else (done if ended else done - 1) + 1
            result[seed] = Status("non-finite" if len(bad) or not ended else state, first_bad - 1)
        return result

    def snapshot(self, step: int) -> int:
        """The step. Raises RunError where it is no snapshot, naming the nearest."""
        if step not in self.steps:
            if not len(self.steps):
                raise RunError(f"{self.path} holds no snapshot yet; train it first")
            near = self.steps[np.argsort(np.abs(self.steps - step), kind="stable")[:2]]
            raise RunError(
                f"step {step} is no snapshot of {self.path}; the nearest are"
                f" {sorted(near.tolist())}, see .steps"
            )
        return int(step)


class Prepared(NamedTuple):
    """What a run's interventions prepared, a file each: see ``programs.Store``."""

    folder: Path
    run: str

    def read(self, place: int) -> dict[str, np.ndarray] | None:
        """The arrays of the run's intervention at a place; None where there are none yet."""
        file = self.folder / f"{place}.npz"
        return read_arrays(file, self.run) if file.exists() else None

    def write(self, place: int, arrays: dict[str, np.ndarray]) -> None:
        """Keeps them. Raises RunError where they can't be written."""
        write_arrays(self.folder / f"{place}.npz", arrays, self.run)

    def places(self) -> list[int]:
        """Of which interventions there are some."""
        return sorted(int(file.stem) for file in self.folder.glob("*.npz") if file.stem.isdigit())
