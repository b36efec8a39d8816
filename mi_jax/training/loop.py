"""The training loop: chunk after chunk of one compiled program, stopping at snapshots, segment ends
and interventions.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from mi_jax.basics.errors import Interrupted, RunError
from mi_jax.basics.pytrees import byte_count, dotted
from mi_jax.contracts import LONGEST_CHUNK
from mi_jax.training import segments
from mi_jax.training.program_schedule import ProgramSchedule
from mi_jax.training.state import TrainState, flat_state, state_from_flat
from mi_jax.training.trajectory import Storage, Trajectory, segment_ends

CHUNK_SECONDS = 0.7
"""About how long a chunk takes: a signal is answered after at most one."""


class Progress(NamedTuple):
    """What a watcher is told after each chunk."""

    step: int
    steps: int
    losses: Float[np.ndarray, " seed"]
    """The last training loss of each seed."""
    steps_per_second: float
    state: TrainState


Watch = Callable[[Progress], None]


def train_to_end(
    trajectory: Trajectory,
    programs: ProgramSchedule,
    snapshots: Int[np.ndarray, " step"],
    storage: Storage,
    watch: Watch,
) -> None:
    """Trains a run from its last segment to its last step. The caller holds the writer's lock.

    Raises:
        Interrupted: after SIGINT or SIGTERM, with everything done so far saved.
        RunError: where a segment can't be written.
    """
    with signals() as stopped:
        segments.remove_unfinished(trajectory.folder)
        _, state = stored_state(programs, trajectory, trajectory.done)
        template = programs.template(trajectory.done)
        ends = segment_ends(
            snapshots, programs.parts.steps, byte_count(template.params), storage, programs.origin
        )
        _run(programs, trajectory, state, snapshots, ends, watch, stopped)


def stored_state(
    programs: ProgramSchedule, trajectory: Trajectory, step: int
) -> tuple[int, TrainState]:
    """The last state at or before ``step`` that is stored, and its step; or the initial one."""
    stored = trajectory.stored_state(step)
    if stored is None:
        return 0, programs.init()
    return stored[0], state_from_flat(programs.template(stored[0]), stored[1])


def replay(programs: ProgramSchedule, state: TrainState, start: int, step: int) -> TrainState:
    """The exact state at ``step`` from that at ``start``: the run's own programs again."""
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
    """Trains from where the trajectory ends: the state goes in chunks, what is kept of it in
    segments.
    """
    parts, clock, done = programs.parts, _Clock(), trajectory.done
    recorder = _Recorder(trajectory, set(snapshots.tolist()))
    if done == programs.origin:
        recorder.snapshot(done, state)
    while done < parts.steps:
        stop = _next_stop(done, [*recorder.after(done), *ends], programs, clock.chunk)
        with clock.timing(stop - done):
            state, buffer = jax.block_until_ready(programs.advance(state, done, stop - done))
        recorder.losses.append(np.asarray(buffer)[:, : stop - done].T)
        done = stop
        recorder.snapshot(done, state)
        asked = stopped.is_set()
        if done in ends or asked:
            recorder.write(done, state)
        watch(Progress(done, parts.steps, recorder.last_losses, clock.steps_per_second, state))
        # The flag as it was when the segment was written: a signal since then is answered after the
        # next chunk.
        if asked and done < parts.steps:
            raise Interrupted(
                f"stopped at step {done} of {parts.steps}; everything up to there is saved"
            )


def _next_stop(done: int, stops: list[int], programs: ProgramSchedule, most: int) -> int:
    """The next step at which training must look up, at most ``most`` away."""
    change = programs.next_change(done)
    return min(
        [stop for stop in stops if stop > done]
        + [done + most]
        + ([] if change is None else [change])
    )


class _Recorder:
    """Holds snapshots and losses since the last segment, and writes the next."""

    def __init__(self, trajectory: Trajectory, wanted: set[int]):
        self._folder, self._seeds, self._run = (
            trajectory.folder,
            trajectory.seeds,
            trajectory.record["hash"],
        )
        self._wanted, self._start = wanted, trajectory.done
        self._held: dict[int, dict[str, np.ndarray]] = {}
        self.losses: list[Float[np.ndarray, "step seed"]] = []
        self.last_losses: Float[np.ndarray, " seed"] = np.full(len(self._seeds), np.nan, np.float32)

    def after(self, step: int) -> list[int]:
        """The next snapshot's step."""
        return [min((wanted for wanted in self._wanted if wanted > step), default=step)]

    def snapshot(self, step: int, state: TrainState) -> None:
        """Keeps the parameters, where the schedule wants this step."""
        if self.losses:
            self.last_losses = self.losses[-1][-1]
        if step in self._wanted:
            self._held[step] = {
                name: np.array(value) for name, value in dotted(state.params).items()
            }

    def write(self, end: int, state: TrainState) -> None:
        """Writes the segment that ends here."""
        if end == self._start:
            return
        names = next(iter(self._held.values()), {})
        stacks = {name: np.stack([held[name] for held in self._held.values()]) for name in names}
        losses = np.concatenate(self.losses)
        segments.write(
            self._folder,
            segments.Segment(
                self._start, end, tuple(self._held), stacks, flat_state(state), losses
            ),
            self._seeds,
            self._run,
        )
        self._held, self.losses, self._start = {}, [], end


class _Clock:
    """How many steps fit a chunk, by the time of those before; the first chunk, which compiles, is
    left out.
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
    """An event that SIGINT or SIGTERM sets, while the block runs; a second signal stops at once."""
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
    """Refuses a directory that holds something other than a run. Raises RunError."""
    if (
        path.is_dir()
        and not (path / "run.json").exists()
        and any(p.name != ".lock" for p in path.iterdir())
    ):
        raise RunError(f"{path} isn't empty and holds no run.json; give another --out")
