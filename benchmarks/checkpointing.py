"""Storing a trajectory: segments against one Orbax save or one npz per snapshot, and the cost of
snapshots to a run.

Keys of ``--json``:
    ms_per_snapshot: milliseconds per snapshot of 227k parameters, with a share of the train state.
    vs_orbax: time of one Orbax save per snapshot, relative to ours.
    vs_npz: time of one npz per snapshot, relative to ours.
    overhead: share by which a snapshot every 100 steps slows the p = 113 run.
"""

import dataclasses
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from benchmarks.timing import PAIRS, compared, report, trained_seconds, use_compile_cache
from mi_jax.basics.pytrees import dotted
from mi_jax.runs.library import find
from mi_jax.training import at, every
from mi_jax.training.segments import Segment, write
from mi_jax.training.state import Program, TrainState, flat_state

_SNAPSHOTS = 64
_RIVAL_SNAPSHOTS = 8
_STEPS = 400


def segment(state: TrainState, folder: Path) -> None:
    """Stores 64 snapshots as a run does: each is copied from the device, and all are written as one
    segment with the state.
    """
    snapshots = [
        {name: np.array(value) for name, value in dotted(state.params).items()}
        for _ in range(_SNAPSHOTS)
    ]
    stacks = {name: np.stack([snapshot[name] for snapshot in snapshots]) for name in snapshots[0]}
    losses = np.zeros((_SNAPSHOTS, 1), np.float32)
    write(
        folder,
        Segment(0, _SNAPSHOTS, tuple(range(1, _SNAPSHOTS + 1)), stacks, flat_state(state), losses),
        (0,),
        "benchmark",
    )


def orbax(state: TrainState, folder: Path) -> None:
    """Saves parameters and state once per snapshot, synchronously, in the usual way."""
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        for i in range(_RIVAL_SNAPSHOTS):
            checkpointer.save(folder / str(i), args=ocp.args.StandardSave(flat_state(state)))


def npz(state: TrainState, folder: Path) -> None:
    """Writes one NumPy archive of parameters and state per snapshot."""
    for i in range(_RIVAL_SNAPSHOTS):
        np.savez(folder / f"{i}.npz", **flat_state(state))


def in_fresh_folder(
    save: Callable[[TrainState, Path], None], state: TrainState
) -> Callable[[], object]:
    """A function that saves the state into a new, empty folder at each call."""

    def run() -> None:
        folder = Path(tempfile.mkdtemp())
        try:
            save(state, folder)
        finally:
            shutil.rmtree(folder)

    return run


def measure(say: Callable[[str], None]) -> Mapping[str, float | None]:
    """Results by their keys."""
    use_compile_cache()
    base = find("nanda_2023")
    program = Program(base.parts())
    state = jax.block_until_ready(program.advance(program.init(), program.parts.numbers, 1)[0])
    ours = in_fresh_folder(segment, state)
    share = _RIVAL_SNAPSHOTS / _SNAPSHOTS
    against_orbax, against_npz = (
        compared(ours, in_fresh_folder(rival, state)) for rival in (orbax, npz)
    )
    milliseconds = 1000 * against_orbax.ours / _SNAPSHOTS
    say(
        f"a snapshot, with its share of the state: {milliseconds:.2f} ms ({_SNAPSHOTS} per segment)"
    )
    for name, ratio in (("Orbax save", against_orbax), ("npz (no hashes)", against_npz)):
        each = 1000 * ratio.theirs / _RIVAL_SNAPSHOTS
        say(f"one {name} per snapshot: {each:.1f} ms, {ratio.median / share:.1f} times as long")
    often = dataclasses.replace(base, steps=_STEPS, schedule=every(100))
    seldom = dataclasses.replace(often, schedule=at(0, _STEPS))
    trained_seconds(seldom)
    pairs = [(trained_seconds(seldom), trained_seconds(often)) for _ in range(PAIRS)]
    overhead = statistics.median(b / a for a, b in pairs) - 1
    say(
        f"p = 113, {_STEPS} steps: {statistics.median(a for a, _ in pairs):.2f} s; a snapshot every"
        f" 100 steps adds {overhead:.1%}"
    )
    return {
        "ms_per_snapshot": milliseconds,
        "vs_orbax": against_orbax.median / share,
        "vs_npz": against_npz.median / share,
        "overhead": overhead,
    }


if __name__ == "__main__":
    sys.exit(report("checkpointing", measure, __doc__ or ""))
