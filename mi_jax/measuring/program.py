"""Compiled program of a set of measures, and the streaming of a trajectory's snapshots through it.

The program maps over a batch of snapshots of one seed. The number of snapshots is traced, so that
the program is compiled once and a short batch costs only the snapshots it has. A reading does not
depend, in a single bit, on the other measures that are read with it.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from threadpoolctl import threadpool_limits

from mi_jax.basics.dims import Params
from mi_jax.basics.errors import MeasureError, RunError
from mi_jax.basics.precision import Precision, cast, computing_in
from mi_jax.basics.pytrees import nested, take
from mi_jax.basics.streams import stream
from mi_jax.contracts import Context, Measure, Reference, Shared
from mi_jax.contracts.measure import Subject
from mi_jax.measuring.history import History, ReferenceChoice, Snapshot
from mi_jax.training.trajectory import Trajectory

BATCH = 16
"""Maximum number of snapshots per call of the compiled program."""

Watch = Callable[[int, int], None]
"""Callback (snapshots done, snapshots in total)."""


class Read(NamedTuple):
    """Readings of one measure.

    Attributes:
        values: arrays [seed step ...] by variable.
        prepared: values that the measures prepared before the pass, by seed and name.
    """

    values: dict[str, np.ndarray]
    prepared: dict[int, dict[str, Any]]


class Reader:
    """Compiled program of a set of measures.

    Args:
        measures: the measures to read.
        precision: precision that the readings are computed in.
    """

    def __init__(self, measures: Sequence[Measure], precision: Precision = "float32"):
        self._measures = tuple(measures)
        self._precision: Precision = precision
        self._program = jax.jit(self._batch)

    def read(
        self, stack: Params, previous: Params | None, context: Context
    ) -> dict[str, np.ndarray]:
        """Readings of a stack of snapshots of one seed.

        Args:
            stack: parameters [snapshot ...].
            previous: parameters of the snapshot before each [snapshot ...]; None if no measure
                uses them.
            context: context of the seed (``make_context``).

        Returns:
            Arrays [snapshot ...] by variable.
        """
        length = len(jax.tree.leaves(stack)[0])
        parts: list[dict[str, np.ndarray]] = []
        # Otherwise each LAPACK call inside the program starts one thread per core, beside XLA's own
        # threads, and takes 8 times as long.
        with threadpool_limits(1, user_api="blas"), computing_in(self._precision):
            for i in range(0, length, BATCH):
                before = None if previous is None else _padded(previous, i)
                read = self._program(_padded(stack, i), before, context, min(BATCH, length - i))
                parts.append({name: np.asarray(values) for name, values in read.items()})
        return {name: np.concatenate([part[name] for part in parts])[:length] for name in parts[0]}

    def _batch(
        self, stack: Params, previous: Params | None, context: Context, n: jax.Array
    ) -> dict[str, jax.Array]:
        def read_snapshot(i: Any) -> dict[str, jax.Array]:
            reference = context.reference._replace(
                previous=None if previous is None else take(previous, i)
            )
            # A new memory for each snapshot: values are shared between measures, not snapshots.
            seen = dataclasses.replace(context, reference=reference, shared=Shared())
            params = take(stack, i)
            return {
                name: value
                for measure in self._measures
                for name, value in measure.read(params, seen).items()
            }

        shapes = jax.eval_shape(read_snapshot, 0)
        empty = {
            name: jnp.zeros((BATCH, *shape.shape), shape.dtype) for name, shape in shapes.items()
        }

        def _step(i: Any, buffers: dict[str, jax.Array]) -> dict[str, jax.Array]:
            values = read_snapshot(i)
            return {name: buffers[name].at[i].set(value) for name, value in values.items()}

        return jax.lax.fori_loop(0, n, _step, empty)


def _padded(stack: Params, start: int) -> Params:
    """BATCH snapshots from index ``start`` on; the last is repeated if there are fewer."""

    def pad(x: np.ndarray) -> np.ndarray:
        part = x[start : start + BATCH]
        return np.concatenate([part, np.repeat(part[-1:], BATCH - len(part), axis=0)])

    return jax.tree.map(pad, stack)


def read_trajectory(
    trajectory: Trajectory,
    subject: Subject,
    measures: Sequence[Measure],
    watch: Watch = lambda done, total: None,
    chosen: Sequence[int] | None = None,
    change: Callable[[Context], Context] = lambda context: context,
    reader: Reader | None = None,
    reference: ReferenceChoice = "root",
) -> dict[str, Read]:
    """Reads the snapshots of a trajectory, one segment after another, all seeds of each.

    The references belong to the history of the run (``history.History``), so that a reading of a
    fork or zoom is that of its parent at the same step.

    Args:
        trajectory: the stored snapshots.
        subject: the model, task and loss that are measured.
        measures: the measures to read.
        watch: called after each segment.
        chosen: steps to read; None: all.
        change: applied to the context of each seed before reading.
        reader: compiled program to use; None: a new one of the measures.
        reference: whose end is the final model; see ``history.ReferenceChoice``.

    Returns:
        Readings by the name of the measure.

    Raises:
        RunError: if a measure needs the final model and the history has none.
    """
    reader = reader or Reader(measures, subject.precision)
    steps = trajectory.steps if chosen is None else np.asarray(chosen)
    history = History(trajectory)
    contexts = [
        change(context) for context in seed_contexts(trajectory, subject, measures, reference)
    ]
    wants_previous = any("previous" in measure.uses for measure in measures)
    begins = len(steps) > 0 and int(steps[0]) == int(trajectory.steps[0])
    earlier = history.before() if wants_previous and begins else None
    read: list[list[dict[str, np.ndarray]]] = [[] for _ in trajectory.seeds]
    done, before = 0, None if earlier is None else _snapshot(earlier, trajectory.seeds)
    for part in trajectory.stream(chosen):
        for index in range(len(trajectory.seeds)):
            stack = nested({name: value[:, index] for name, value in part.parameters.items()})
            previous = None
            if wants_previous:
                previous = _shifted(stack, None if before is None else before[index])
            read[index].append(reader.read(stack, previous, contexts[index]))
        before = [
            nested({name: value[-1, index] for name, value in part.parameters.items()})
            for index in range(len(trajectory.seeds))
        ]
        done += len(part.steps)
        watch(done, len(steps))
    values = {
        name: np.stack([np.concatenate([part[name] for part in parts]) for parts in read])
        for name in read[0][0]
    }
    prepared = {
        seed: dict(context.prepared)
        for seed, context in zip(trajectory.seeds, contexts, strict=True)
    }
    return {
        measure.name: Read({name: values[name] for name in measure.variables}, prepared)
        for measure in measures
    }


def seed_contexts(
    trajectory: Trajectory,
    subject: Subject,
    measures: Sequence[Measure],
    reference: ReferenceChoice = "root",
) -> list[Context]:
    """Contexts that the seeds of a trajectory are read with, in their order.

    Args:
        trajectory: the stored snapshots.
        subject: the model, task and loss that are measured.
        measures: measures whose ``prepare`` is run.
        reference: whose end is the final model; see ``history.ReferenceChoice``.

    Raises:
        RunError: if a measure needs the final model and the history has none.
    """
    history = History(trajectory)
    end = history.final(reference)
    if end is None and any(measure.retrospective for measure in measures):
        raise RunError(
            f"{history.no_final} Retrospective measures cannot be read without its last snapshot."
            " Pass reference='own' to compare with this run's own end."
        )
    initial = trajectory.initial()
    final = None if end is None else _snapshot(end, trajectory.seeds)
    return [
        make_context(
            subject,
            seed,
            Reference(initial=_at(initial, index), final=None if final is None else final[index]),
            measures,
        )
        for index, seed in enumerate(trajectory.seeds)
    ]


def _snapshot(snapshot: Snapshot, seeds: Sequence[int]) -> list[Params]:
    """Parameters of each seed at a snapshot of the history."""
    stack = take(snapshot.trajectory.stack([snapshot.step]), 0)
    return [_at(stack, snapshot.trajectory.seeds.index(seed)) for seed in seeds]


def _at(params: Params, index: int) -> Params:
    """Parameters of one seed."""
    return jax.tree.map(lambda x: x[index], params)


def _shifted(stack: Params, before: Params | None) -> Params:
    """The snapshot before each of a stack; NaN before the first if ``before`` is None."""
    if before is None:
        before = jax.tree.map(lambda x: np.full_like(x[0], np.nan), stack)
    return jax.tree.map(lambda x, first: np.concatenate([first[None], x[:-1]]), stack, before)


def make_context(
    subject: Subject, seed: int, reference: Reference, measures: Sequence[Measure]
) -> Context:
    """Context that one seed is read with, in the subject's precision.

    Args:
        subject: the model, task and loss that are measured.
        seed: label of the seed.
        reference: initial, previous and final parameters of the seed.
        measures: measures whose ``prepare`` is run, once, here.
    """
    task = subject.task
    # The data of a seed must not depend on the precision that it is read in.
    with computing_in("float32"):
        evaluation = task.evaluation(task.data(seed), stream(seed, "measure"))
    with computing_in(subject.precision):
        context = Context(
            batches=cast(dict(evaluation.batches), subject.precision),
            ground_truth=cast(dict(evaluation.ground_truth), subject.precision),
            reference=jax.tree.map(jnp.asarray, reference),
            prepared={},
            model=subject.model,
            inputs=task.inputs,
            read=task.read,
            loss=subject.loss,
            labels=dict(task.labels(evaluation)),
        )
        return prepared_context(context, measures)


def prepared_context(context: Context, measures: Sequence[Measure]) -> Context:
    """The context with the values that the measures prepare before the pass.

    Raises:
        MeasureError: if two measures prepare one name by different functions.
    """
    recipes: dict[str, Callable[[Reference, Context], Any]] = {}
    for measure in measures:
        for name, recipe in measure.prepare.items():
            if recipes.setdefault(name, recipe) != recipe:
                raise MeasureError(
                    f"{measure.name} prepares '{name}' by another function than a measure that is"
                    " read with it. Give it another name."
                )
    prepared = {name: prepare(context.reference, context) for name, prepare in recipes.items()}
    return dataclasses.replace(context, prepared=prepared)
