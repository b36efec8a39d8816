"""The training loop: chunks of updates by one compiled program, which end at snapshots, at the ends
of segments and at interventions.
"""

import contextlib
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from mi_jax.basics.errors import DamagedError, Interrupted, RunError
from mi_jax.basics.pytrees import byte_count, dotted
from mi_jax.contracts import LONGEST_CHUNK
from mi_jax.training import segments
from mi_jax.training.program_schedule import ProgramSchedule
from mi_jax.training.record import upgrade_record
from mi_jax.training.state import TrainState, flat_state, state_from_flat
from mi_jax.training.trajectory import Storage, Trajectory, segment_ends

CHUNK_SECONDS = 0.7
"""Approximate duration of a chunk. A signal is answered after one chunk at most."""

HOLD_SECONDS = 25.0
"""Time after which the unfinished segment is saved, so that a killed process loses little more."""

HELD = "held"
"""Folder, beside the segments, of the unfinished segment of a run that is being trained.

It follows the clock, so that it is no segment: it is removed when the segment is finished, and no
reader looks there.
"""


class Progress(NamedTuple):
    """Progress of training, given to a watcher after each chunk.

    Attributes:
        step: number of updates made.
        steps: number of updates of the whole run.
        losses: the last training loss of each seed.
        steps_per_second: updates per second, for all seeds together; NaN before it is known.
        state: the train state, leading axis seed.
    """

    step: int
    steps: int
    losses: Float[np.ndarray, " seed"]
    steps_per_second: float
    state: TrainState


Watch = Callable[[Progress], None]
"""A function that is called with the progress after each chunk."""


def train_to_end(
    trajectory: Trajectory,
    programs: ProgramSchedule,
    snapshots: Int[np.ndarray, " step"],
    storage: Storage,
    watch: Watch,
) -> None:
    """Trains a run from its last segment to its last step. The caller must hold the writer's lock.

    Args:
        trajectory: the run on disk.
        programs: the programs of its updates.
        snapshots: the steps of the snapshots.
        storage: the rules for when a segment is written.
        watch: called after each chunk.

    Raises:
        Interrupted: after SIGINT or SIGTERM, with everything done so far saved.
        RunError: if a segment cannot be written.
    """
    with signals() as stopped:
        upgrade_record(trajectory.path, trajectory.record)
        segments.remove_unfinished(trajectory.folder)
        segments.remove_unfinished(trajectory.path / HELD)
        _, state = stored_state(programs, trajectory, trajectory.done)
        template = programs.template(trajectory.done)
        ends = segment_ends(
            snapshots, programs.parts.steps, byte_count(template.params), storage, programs.origin
        )
        _run(programs, trajectory, state, snapshots, ends, watch, stopped)


def stored_state(
    programs: ProgramSchedule, trajectory: Trajectory, step: int
) -> tuple[int, TrainState]:
    """The last stored state at or before ``step``; the initial state if none is stored.

    Args:
        programs: the programs of the run.
        trajectory: the run on disk.
        step: the latest step.

    Returns:
        The state's step, and the state.
    """
    stored = trajectory.stored_state(step)
    if stored is None:
        return 0, programs.init()
    return stored[0], state_from_flat(programs.template(stored[0]), stored[1])


def replay(programs: ProgramSchedule, state: TrainState, start: int, step: int) -> TrainState:
    """Replays a run's updates: the exact state at ``step``, bit for bit.

    Args:
        programs: the programs of the run.
        state: the state at ``start``.
        start: the step of ``state``.
        step: the step that is wanted, at least ``start``.
    """
    while start < step:
        n = _next_stop(start, [step], programs, LONGEST_CHUNK) - start
        state, _ = programs.advance(state, start, n)
        start += n
    return state


def _run(
    programs: ProgramSchedule,
    trajectory: Trajectory,
    state: TrainState,
    snapshots: Int[np.ndarray, " step"],
    ends: list[int],
    watch: Watch,
    stopped: threading.Event,
) -> None:
    """Trains chunk by chunk from the end of the trajectory, and writes segments.

    Args:
        programs: the programs of the run.
        trajectory: the run on disk.
        state: the state at the end of the trajectory.
        snapshots: the steps of the snapshots.
        ends: the steps at which segments end.
        watch: called after each chunk.
        stopped: set by a signal.
    """
    parts, clock, done = programs.parts, _Clock(), trajectory.done
    recorder = _Recorder(trajectory, set(snapshots.tolist()))
    held = recorder.restore()
    if held is not None:
        done, state = held.end, state_from_flat(programs.template(held.end), held.state)
    elif done == programs.origin:
        recorder.snapshot(done, state)
    while done < parts.steps:
        stop = _next_stop(done, [*recorder.after(done), *ends], programs, clock.chunk)
        with clock.timing(stop - done):
            state, buffer = jax.block_until_ready(programs.advance(state, done, stop - done))
        recorder.losses.append(np.asarray(buffer)[:, : stop - done].T)
        done = stop
        recorder.snapshot(done, state)
        # Read the flag once: a signal after this line is answered after the next chunk, so that
        # everything up to the step named in the error has been written.
        interrupted = stopped.is_set()
        if done in ends or interrupted:
            recorder.write(done, state)
        elif recorder.seconds >= HOLD_SECONDS:
            recorder.hold(done, state)
        watch(Progress(done, parts.steps, recorder.last_losses, clock.steps_per_second, state))
        if interrupted and done < parts.steps:
            raise Interrupted(
                f"Stopped at step {done} of {parts.steps}. Everything up to there is saved"
            )


def _next_stop(done: int, stops: list[int], programs: ProgramSchedule, most: int) -> int:
    """The step at which the next chunk ends.

    Args:
        done: the step at which it begins.
        stops: steps at which a chunk must end; those up to ``done`` are ignored.
        programs: the programs of the run, whose changes also end a chunk.
        most: largest number of updates in the chunk.
    """
    ends = [done + most, *(stop for stop in stops if stop > done)]
    change = programs.next_change(done)
    if change is not None:
        ends.append(change)
    return min(ends)


class _Recorder:
    """Holds the snapshots and losses since the last segment, and writes the next segment.

    Args:
        trajectory: the run on disk.
        wanted: the steps of the snapshots.
    """

    def __init__(self, trajectory: Trajectory, wanted: set[int]):
        self._folder = trajectory.folder
        self._seeds = trajectory.seeds
        self._run = trajectory.record["hash"]
        self._wanted = wanted
        self._start = trajectory.done
        self._snapshots: dict[int, segments.Flat] = {}
        self._held = trajectory.path / HELD
        self._saved = time.monotonic()
        self.losses: list[Float[np.ndarray, "step seed"]] = []
        self.last_losses: Float[np.ndarray, " seed"] = np.full(len(self._seeds), np.nan, np.float32)

    def after(self, step: int) -> list[int]:
        """The step of the next snapshot after ``step``, in a list; ``step`` if there is none."""
        return [min((wanted for wanted in self._wanted if wanted > step), default=step)]

    def snapshot(self, step: int, state: TrainState) -> None:
        """Holds the parameters if the schedule has a snapshot at this step."""
        if self.losses:
            self.last_losses = self.losses[-1][-1]
        if step in self._wanted:
            self._snapshots[step] = {
                name: np.array(value) for name, value in dotted(state.params).items()
            }

    @property
    def seconds(self) -> float:
        """Seconds since the last save."""
        return time.monotonic() - self._saved

    def restore(self) -> segments.Segment | None:
        """The unfinished segment of a process that was killed; None if there is none that fits.

        One that is damaged or belongs to other segments is ignored, and its steps are trained
        again.
        """
        for end in reversed(segments.finished(self._held)):
            try:
                index = segments.read_index(self._held, end)
                fits = (index.start, index.seeds, index.run)
                if fits != (self._start, self._seeds, self._run):
                    continue
                snapshots = segments.read_snapshots(self._held, index) if index.steps else {}
                state = segments.read_state(self._held, index)
                losses = segments.read_losses(self._held, index)
            except DamagedError:
                continue
            for row, step in enumerate(index.steps):
                self._snapshots[step] = {name: stack[row] for name, stack in snapshots.items()}
            self.losses = [losses]
            self.last_losses = losses[-1]
            return segments.Segment(index.start, end, index.steps, snapshots, state, losses)
        return None

    def hold(self, end: int, state: TrainState) -> None:
        """Saves the unfinished segment as it is at step ``end``, in place of the one before."""
        before = segments.finished(self._held)
        if end not in before:
            segments.write(self._held, self._segment(end, state), self._seeds, self._run)
        for old in before:
            if old != end:
                shutil.rmtree(segments.segment_path(self._held, old), ignore_errors=True)
        self._saved = time.monotonic()

    def write(self, end: int, state: TrainState) -> None:
        """Writes the segment that ends at step ``end``, where training is."""
        if end == self._start:
            return
        segments.write(self._folder, self._segment(end, state), self._seeds, self._run)
        shutil.rmtree(self._held, ignore_errors=True)
        self._snapshots, self.losses, self._start = {}, [], end
        self._saved = time.monotonic()

    def _segment(self, end: int, state: TrainState) -> segments.Segment:
        """The segment from the end of the one before to step ``end``."""
        names = next(iter(self._snapshots.values()), {})
        return segments.Segment(
            start=self._start,
            end=end,
            steps=tuple(self._snapshots),
            snapshots={
                name: np.stack([params[name] for params in self._snapshots.values()])
                for name in names
            },
            state=flat_state(state),
            losses=np.concatenate(self.losses),
        )


class _Clock:
    """Clock of the training loop: measures chunks, and chooses the length of the next one.

    The first chunk, which includes compilation, does not count.
    """

    def __init__(self) -> None:
        self.chunk = 1
        self.steps_per_second = float("nan")
        self._seen = 0

    @contextlib.contextmanager
    def timing(self, n: int) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self._seen += 1
        if self._seen > 1:
            rate = n / max(time.perf_counter() - begin, 1e-9)
            old = self.steps_per_second
            self.steps_per_second = rate if np.isnan(old) else 0.7 * old + 0.3 * rate
            self.chunk = int(np.clip(CHUNK_SECONDS * self.steps_per_second, 1, LONGEST_CHUNK))


@contextlib.contextmanager
def signals() -> Iterator[threading.Event]:
    """Event that SIGINT or SIGTERM sets while the block runs. A second signal stops at once.

    Outside the main thread, where Python allows no handlers, nothing sets it.
    """
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def handle(number: int, frame: Any) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()

    old = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def check_resumable(path: Path) -> None:
    """Raises RunError for a directory that holds something other than a run, or the remains of one
    whose ``run.json`` could not be written.
    """
    if not path.is_dir() or (path / "run.json").exists():
        return
    if not all(_is_remains(file) for file in path.iterdir()):
        raise RunError(f"{path} is not empty and holds no run.json. Give another --out.")


def _is_remains(file: Path) -> bool:
    """Whether a file is made before ``run.json`` is written, and holds nothing."""
    if file.name == "segments" and file.is_dir():
        return not any(file.iterdir())
    return file.name == ".lock" or file.match(".run.json.*.tmp")
