"""Checking a whole run directory: every array of every segment against its hash, and that nothing
is missing.
"""

from collections.abc import Iterator

import numpy as np

from mi_jax.basics.errors import DamagedError
from mi_jax.training import segments
from mi_jax.training.kept import read_arrays
from mi_jax.training.trajectory import ORIGIN, Trajectory


def problems(trajectory: Trajectory) -> Iterator[str]:
    """One line for each thing that is wrong; none where every stored number is what was written.

    Reads each segment as every other reader does: index, losses, state, snapshots.
    """
    yield from _damaged_kept(trajectory)
    start, found, unknown = trajectory.origin, list[int](), False
    for end in segments.finished(trajectory.folder):
        try:
            index = trajectory.read_index(end)
        except DamagedError as error:
            yield str(error)
            start, unknown = end, True
            continue
        if index.start != start:
            yield (
                f"segment {end:09d} begins at step {index.start}, the one before ends at {start}:"
                " one is missing"
            )
        yield from _damaged_arrays(trajectory, index)
        found += index.steps
        start = end
    missing = np.setdiff1d(
        [step for step in trajectory.record["snapshots"] if step <= start], found
    )
    if len(missing) and start > trajectory.origin and not unknown:
        yield f"snapshots at steps {missing.tolist()} are missing"


def _damaged_kept(trajectory: Trajectory) -> Iterator[str]:
    """The damage in what is kept beside the segments."""
    files = [] if trajectory.parent is None else [trajectory.path / ORIGIN]
    files += [trajectory.prepared.folder / f"{place}.npz" for place in trajectory.prepared.places()]
    for file in files:
        try:
            read_arrays(file, trajectory.record["hash"])
        except DamagedError as error:
            yield str(error)


def _damaged_arrays(trajectory: Trajectory, index: segments.Index) -> Iterator[str]:
    """The first damage in a segment's arrays."""
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
