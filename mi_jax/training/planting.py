"""Runs that follow a known path: the snapshots and losses of a planted trajectory, written as
training writes its own.

There is no train state in them: nothing was trained.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mi_jax.basics.dims import PRNGKey
from mi_jax.basics.errors import Interrupted
from mi_jax.basics.pytrees import nested, stacked, take
from mi_jax.basics.streams import stream
from mi_jax.contracts import Architecture, Task, batch_loss
from mi_jax.training import segments
from mi_jax.training.loop import Progress, Watch, signals
from mi_jax.training.segments import Flat
from mi_jax.training.state import Parts, TrainState
from mi_jax.training.trajectory import Storage, Trajectory, segment_ends

_CHUNK = 64


class PlantContext(NamedTuple):
    """What a path is planted in."""

    task: Task
    model: Architecture
    steps: int


@dataclass(frozen=True)
class PlantedTrajectory(ABC):
    """A known trajectory, followed in place of training: every weight of every step is put where it
    is.
    """

    @abstractmethod
    def check(self, context: PlantContext) -> None:
        """Raises ConfigError where this path can't be planted here."""

    @abstractmethod
    def parameters(self, context: PlantContext, seed: int, steps: Int[np.ndarray, " step"]) -> Flat:
        """The parameters [step ...] at these steps, by dotted name, in float32: however the steps
        are cut, the same bits.
        """

    @abstractmethod
    def truth(self, context: PlantContext, seeds: tuple[int, ...]) -> dict[str, Any]:
        """What is known of it, as JSON has it; the path's docstring says what each entry means.
        Stored in ``run.json``.
        """


def follow(
    trajectory: Trajectory,
    path: PlantedTrajectory,
    parts: Parts,
    context: PlantContext,
    snapshots: Int[np.ndarray, " step"],
    storage: Storage,
    watch: Watch,
) -> None:
    """Writes a path from the run's last segment to its last step. The caller holds the writer's
    lock.

    Raises:
        Interrupted: after SIGINT or SIGTERM, with everything done so far saved.
        RunError: where a segment can't be written.
    """
    segments.remove_unfinished(trajectory.folder)
    loss = _loss(parts)
    first = path.parameters(context, parts.seeds[0], np.array([0]))
    size = len(parts.seeds) * sum(value.nbytes for value in first.values())
    start = trajectory.done
    with signals() as stopped:
        for end in segment_ends(snapshots, parts.steps, size, storage):
            if end <= start:
                continue
            segment = _segment(path, parts, context, snapshots, start, end, loss)
            segments.write(trajectory.folder, segment, parts.seeds, trajectory.record["hash"])
            state = TrainState(
                _at(path, parts, context, end), (), jnp.full(len(parts.seeds), end, jnp.int32)
            )
            watch(Progress(end, parts.steps, segment.losses[-1], float("nan"), state))
            if stopped.is_set() and end < parts.steps:
                raise Interrupted(
                    f"stopped at step {end} of {parts.steps}; everything up to there is saved"
                )
            start = end


def _segment(
    path: PlantedTrajectory,
    parts: Parts,
    context: PlantContext,
    snapshots: Int[np.ndarray, " step"],
    start: int,
    end: int,
    loss: "_Loss",
) -> segments.Segment:
    """The snapshots after ``start`` (those of step 0 too in the first segment), and the losses from
    ``start`` on.
    """
    kept = [int(step) for step in snapshots if start < step <= end or step == start == 0]
    held, losses = list[Flat](), list[np.ndarray]()
    for steps in _chunks(start, end):
        stacks = [path.parameters(context, seed, steps) for seed in parts.seeds]
        updates = min(len(steps), end - int(steps[0]))
        losses.append(
            np.stack(
                [loss(place, stack, int(steps[0]))[:updates] for place, stack in enumerate(stacks)],
                axis=1,
            )
        )
        rows = np.flatnonzero(np.isin(steps, kept))
        held.append(
            {name: np.stack([stack[name][rows] for stack in stacks], axis=1) for name in stacks[0]}
        )
    flat = {name: np.concatenate([part[name] for part in held]) for name in held[0]} if kept else {}
    return segments.Segment(start, end, tuple(kept), flat, {}, np.concatenate(losses))


def _chunks(start: int, end: int) -> Iterator[Int[np.ndarray, " step"]]:
    """Steps start to end, a chunk at a time."""
    steps = np.arange(start, end + 1)
    for i in range(0, len(steps), _CHUNK):
        yield steps[i : i + _CHUNK]


def _at(path: PlantedTrajectory, parts: Parts, context: PlantContext, step: int) -> Any:
    """The parameters of a step, leading axis seed."""
    return stacked(
        [take(nested(path.parameters(context, seed, np.array([step]))), 0) for seed in parts.seeds]
    )


_Loss = Callable[[int, Flat, int], Float[np.ndarray, " step"]]
"""(place of the seed, parameters [step ...], their first step) -> the training loss of each on the
batch of its step.
"""


def _loss(parts: Parts) -> _Loss:
    task, apply = parts.task, parts.model.along(parts.mode.route)

    @jax.jit
    def losses(
        params: Any, data: Any, key: PRNGKey, start: Int[Array, ""]
    ) -> Float[Array, " step"]:
        feed = task.batches(data, key, start, _CHUNK)

        def one(i: Int[Array, ""]) -> Float[Array, ""]:
            batch = feed(i)
            out = apply(take(params, i), batch.inputs, positions=task.read)
            return batch_loss(parts.loss, out, batch)

        return jax.lax.map(one, jnp.arange(_CHUNK))

    data = {seed: task.data(seed) for seed in (parts.seeds if task.per_seed else parts.seeds[:1])}

    def of(place: int, stack: Flat, start: int) -> Float[np.ndarray, " step"]:
        seed = parts.seeds[place]
        # Padded to one length, so that one program serves all chunks.
        filled = {
            name: np.concatenate([x, np.repeat(x[-1:], _CHUNK - len(x), axis=0)])
            for name, x in stack.items()
        }
        own = data[seed if task.per_seed else parts.seeds[0]]
        return np.asarray(losses(nested(filled), own, stream(seed, "data"), jnp.int32(start)))

    return of
