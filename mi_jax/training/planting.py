"""Runs that follow a planted trajectory: its snapshots and losses, written as training writes its
own.

Such a run has no train state, because nothing was trained.
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
from mi_jax.training.record import upgrade_record
from mi_jax.training.segments import Flat
from mi_jax.training.state import Parts, TrainState
from mi_jax.training.trajectory import Storage, Trajectory, segment_ends

_CHUNK = 64
"""Number of steps whose parameters are in memory at once."""


class PlantContext(NamedTuple):
    """The run in which a trajectory is planted.

    Attributes:
        task: the task.
        model: the model's settings.
        steps: the last step of the run.
    """

    task: Task
    model: Architecture
    steps: int


@dataclass(frozen=True)
class PlantedTrajectory(ABC):
    """Base of known trajectories, which a run follows instead of training: every weight at every
    step is given.
    """

    @abstractmethod
    def check(self, context: PlantContext, /) -> None:
        """Raises ConfigError if this trajectory does not fit the run."""

    @abstractmethod
    def parameters(
        self, context: PlantContext, /, seed: int, steps: Int[np.ndarray, " step"]
    ) -> Flat:
        """The parameters (step, ...) at some steps, by dotted name, in float32.

        The bits at a step must not depend on the other steps that are asked for.

        Args:
            context: the run.
            seed: the seed.
            steps: the steps.
        """

    @abstractmethod
    def truth(self, context: PlantContext, /, seeds: tuple[int, ...]) -> dict[str, Any]:
        """The known facts about the trajectory, as JSON values, stored in ``run.json``.

        The docstring of the trajectory's class defines each entry.

        Args:
            context: the run.
            seeds: the seeds.
        """


def follow(
    trajectory: Trajectory,
    planted: PlantedTrajectory,
    parts: Parts,
    context: PlantContext,
    snapshots: Int[np.ndarray, " step"],
    storage: Storage,
    watch: Watch,
) -> None:
    """Writes a planted trajectory from the run's last segment to its last step.

    The caller must hold the writer's lock.

    Args:
        trajectory: the run on disk.
        planted: the trajectory to follow.
        parts: the parts of the run, for its losses.
        context: the run, for the trajectory.
        snapshots: the steps of the snapshots.
        storage: the rules for when a segment is written.
        watch: called after each segment.

    Raises:
        Interrupted: after SIGINT or SIGTERM, with everything done so far saved.
        RunError: if a segment cannot be written.
    """
    upgrade_record(trajectory.path, trajectory.record)
    segments.remove_unfinished(trajectory.folder)
    loss = _loss(parts)
    first = planted.parameters(context, parts.seeds[0], np.array([0]))
    size = len(parts.seeds) * sum(value.nbytes for value in first.values())
    start = trajectory.done
    with signals() as stopped:
        for end in segment_ends(snapshots, parts.steps, size, storage):
            if end <= start:
                continue
            segment = _segment(planted, parts, context, snapshots, start, end, loss)
            segments.write(trajectory.folder, segment, parts.seeds, trajectory.record["hash"])
            params = _parameters_at(planted, parts, context, end)
            state = TrainState(params, (), jnp.full(len(parts.seeds), end, jnp.int32))
            watch(Progress(end, parts.steps, segment.losses[-1], float("nan"), state))
            if stopped.is_set() and end < parts.steps:
                raise Interrupted(
                    f"Stopped at step {end} of {parts.steps}. Everything up to there is saved"
                )
            start = end


def _segment(
    planted: PlantedTrajectory,
    parts: Parts,
    context: PlantContext,
    snapshots: Int[np.ndarray, " step"],
    start: int,
    end: int,
    loss: "_Loss",
) -> segments.Segment:
    """The segment from ``start`` to ``end``: snapshots after ``start``, losses from ``start`` on.

    The first segment has the snapshot of step 0 too.
    """
    wanted = [int(step) for step in snapshots if start < step <= end or step == start == 0]
    chunks, losses = list[Flat](), list[np.ndarray]()
    for steps in _chunks(start, end):
        by_seed = [planted.parameters(context, seed, steps) for seed in parts.seeds]
        # The parameters of step ``end`` belong to the next segment's first update.
        updates = min(len(steps), end - int(steps[0]))
        losses_by_seed = [
            loss(seed_index, params, int(steps[0]))[:updates]
            for seed_index, params in enumerate(by_seed)
        ]
        losses.append(np.stack(losses_by_seed, axis=1))
        rows = np.flatnonzero(np.isin(steps, wanted))
        chunks.append(
            {
                name: np.stack([params[name][rows] for params in by_seed], axis=1)
                for name in by_seed[0]
            }
        )
    stacks: Flat = {}
    if wanted:
        stacks = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
    return segments.Segment(start, end, tuple(wanted), stacks, {}, np.concatenate(losses))


def _chunks(start: int, end: int) -> Iterator[Int[np.ndarray, " step"]]:
    """Steps ``start`` to ``end``, both included, in chunks."""
    steps = np.arange(start, end + 1)
    for i in range(0, len(steps), _CHUNK):
        yield steps[i : i + _CHUNK]


def _parameters_at(
    planted: PlantedTrajectory, parts: Parts, context: PlantContext, step: int
) -> Any:
    """The parameters of a step, leading axis seed."""
    steps = np.array([step])
    return stacked(
        [take(nested(planted.parameters(context, seed, steps)), 0) for seed in parts.seeds]
    )


_Loss = Callable[[int, Flat, int], Float[np.ndarray, " step"]]
"""(index of the seed, parameters (step, ...), their first step) -> the training loss of the
parameters of each step, on the batch of that step.
"""


def _loss(parts: Parts) -> _Loss:
    """The training loss along a trajectory; one compiled program serves all seeds and chunks."""
    task, apply = parts.task, parts.model.along(parts.mode.route)

    @jax.jit
    def losses(
        params: Any, data: Any, key: PRNGKey, start: Int[Array, ""]
    ) -> Float[Array, " step"]:
        feed = task.batches(data, key, start, _CHUNK)

        def loss_at(i: Int[Array, ""]) -> Float[Array, ""]:
            batch = feed(i)
            out = apply(take(params, i), batch.inputs, positions=task.read)
            return batch_loss(parts.loss, out, batch)

        return jax.lax.map(loss_at, jnp.arange(_CHUNK))

    data = {seed: task.data(seed) for seed in (parts.seeds if task.per_seed else parts.seeds[:1])}

    def loss(seed_index: int, params: Flat, start: int) -> Float[np.ndarray, " step"]:
        seed = parts.seeds[seed_index]
        # Padded to one length, so that one program serves all chunks.
        padded = {
            name: np.concatenate([x, np.repeat(x[-1:], _CHUNK - len(x), axis=0)])
            for name, x in params.items()
        }
        seed_data = data[seed if task.per_seed else parts.seeds[0]]
        key = stream(seed, "data")
        return np.asarray(losses(nested(padded), seed_data, key, jnp.int32(start)))

    return loss
