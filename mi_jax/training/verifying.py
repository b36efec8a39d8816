"""Verification of a whole run directory: every array against its hash, and nothing missing."""

from collections.abc import Iterator

import numpy as np

from mi_jax.basics.errors import DamagedError
from mi_jax.training import segments
from mi_jax.training.kept import read_arrays
from mi_jax.training.trajectory import ORIGIN, Trajectory


def problems(trajectory: Trajectory) -> Iterator[str]:
    """Problems of a run on disk, one line each; none if every stored number is intact.

    Each segment is read as every other reader does: index, losses, state, snapshots. What
    ``run.json`` says should be there is held against what is. A fork or a zoom that was stopped
    before it stored anything has no problem: the command that began it begins it again.
    """
    if not began(trajectory):
        return
    yield from _damaged_files(trajectory)
    if not segments.finished(trajectory.folder):
        yield (
            f"there is no segment in {trajectory.folder}, but run.json says that"
            f" {len(trajectory.record['snapshots'])} snapshots from step {trajectory.origin} to"
            f" step {trajectory.last} belong there: the run was stopped before its first segment,"
            " or its segments were removed. Restore them from a copy, or train the run again"
        )
    start, steps = trajectory.origin, list[int]()
    # Which snapshots a segment held is unknown where its index is damaged.
    unknown = False
    for end in segments.finished(trajectory.folder):
        try:
            index = trajectory.read_index(end)
        except DamagedError as error:
            yield str(error)
            start, unknown = end, True
            continue
        if index.start != start:
            yield (
                f"segment {end:09d} begins at step {index.start}, the segment before it ends at"
                f" {start}: one is missing"
            )
        yield from _damaged_arrays(trajectory, index)
        steps += index.steps
        start = end
    expected = trajectory.record["snapshots"]
    unexpected = np.setdiff1d(steps, expected)
    if len(unexpected):
        yield f"snapshots at steps {unexpected.tolist()} are stored, and run.json has none there"
    if start > trajectory.last:
        yield f"the last segment ends at step {start}, and the run at step {trajectory.last}"
    missing = np.setdiff1d([step for step in expected if step <= start], steps)
    if len(missing) and start > trajectory.origin and not unknown:
        yield f"snapshots at steps {missing.tolist()} are missing"


def began(trajectory: Trajectory) -> bool:
    """Whether a run stored anything that it can be resumed from. A run that is no fork begins with
    ``run.json`` alone.
    """
    is_fork = trajectory.parent is not None
    origin = (trajectory.path / ORIGIN).exists()
    return not is_fork or origin or bool(segments.finished(trajectory.folder))


def _damaged_files(trajectory: Trajectory) -> Iterator[str]:
    """Damage in the files beside the segments."""
    files = [] if trajectory.parent is None else [trajectory.path / ORIGIN]
    files += [trajectory.prepared.file(index) for index in trajectory.prepared.indices()]
    for file in files:
        try:
            read_arrays(file, trajectory.record["hash"])
        except DamagedError as error:
            yield str(error)


def _damaged_arrays(trajectory: Trajectory, index: segments.Index) -> Iterator[str]:
    """First damage in a segment's arrays."""
    try:
        losses = segments.read_losses(trajectory.folder, index)
        segments.read_state(trajectory.folder, index)
        if index.steps:
            segments.read_snapshots(trajectory.folder, index)
    except DamagedError as error:
        yield str(error)
        return
    if len(losses) != index.end - index.start:
        yield (
            f"segment {index.end:09d} holds {len(losses)} losses of {index.end - index.start}"
            " updates"
        )
