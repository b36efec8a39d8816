"""The compiled program of a set of measures, and the snapshots of a trajectory streamed through it.

The program maps a batch of snapshots of one seed; its length is traced, so that it is compiled once
and a short batch costs no more than it holds. A reading doesn't depend, by a single bit, on what
was read with it.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from threadpoolctl import threadpool_limits

from mi_jax.basics.dims import Params
from mi_jax.basics.errors import MeasureError
from mi_jax.basics.precision import Precision, cast, computing_in
from mi_jax.basics.pytrees import nested, take
from mi_jax.basics.streams import stream
from mi_jax.contracts import Context, Measure, Reference, Shared
from mi_jax.contracts.measure import Subject
from mi_jax.training.trajectory import Trajectory

BATCH = 16
"""Snapshots that one call of the compiled program reads at most."""


Watch = Callable[[int, int], None]


class Read(NamedTuple):
    """What was read by a measure."""

    values: dict[str, np.ndarray]
    """[seed step ...] by variable."""
    prepared: dict[int, dict[str, Any]]
    """By seed, what was frozen."""


class Reader:
    """The compiled program of a set of measures."""

    def __init__(self, measures: Sequence[Measure], precision: Precision = "float32"):
        self._measures = tuple(measures)
        self._precision: Precision = precision
        self._program = jax.jit(self._batch)

    def read(
        self, stack: Params, previous: Params | None, context: Context
    ) -> dict[str, np.ndarray]:
        """The readings [snapshot ...] of a stack of snapshots of one seed; ``previous`` are those
        before each.
        """
        length = len(jax.tree.leaves(stack)[0])
        parts: list[dict[str, np.ndarray]] = []
        # LAPACK calls inside the program would start a thread a core each, beside XLA's own, and
        # take 8 times as long.
        with threadpool_limits(1, user_api="blas"), computing_in(self._precision):
            for i in range(0, length, BATCH):
                before = None if previous is None else _padded(previous, i)
                read = self._program(_padded(stack, i), before, context, min(BATCH, length - i))
                parts.append({name: np.asarray(values) for name, values in read.items()})
        return {name: np.concatenate([part[name] for part in parts])[:length] for name in parts[0]}

    def _batch(
        self, stack: Params, previous: Params | None, context: Context, n: jax.Array
    ) -> dict[str, jax.Array]:
        def one(i: Any) -> dict[str, jax.Array]:
            reference = context.reference._replace(
                previous=None if previous is None else take(previous, i)
            )
            seen, params = (
                dataclasses.replace(context, reference=reference, shared=Shared()),
                take(stack, i),
            )
            return {
                name: value
                for one in self._measures
                for name, value in one.read(params, seen).items()
            }

        shapes = jax.eval_shape(one, 0)
        empty = {
            name: jnp.zeros((BATCH, *shape.shape), shape.dtype) for name, shape in shapes.items()
        }

        def _step(i: Any, buffers: dict[str, jax.Array]) -> dict[str, jax.Array]:
            return {name: buffers[name].at[i].set(value) for name, value in one(i).items()}

        return jax.lax.fori_loop(0, n, _step, empty)


def _padded(stack: Params, start: int) -> Params:
    """BATCH snapshots from ``start`` on, the last repeated where there are fewer."""

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
) -> dict[str, Read]:
    """Streams the snapshots (all, or those chosen) through the program, a segment at a time, every
    seed of it.
    """
    reader = reader or Reader(measures, subject.precision)
    steps = trajectory.steps if chosen is None else np.asarray(chosen)
    initial, final = trajectory.initial(), take(trajectory.stack([int(trajectory.steps[-1])]), 0)
    contexts = [
        change(
            make_context(
                subject,
                seed,
                Reference(initial=_at(initial, place), final=_at(final, place)),
                measures,
            )
        )
        for place, seed in enumerate(trajectory.seeds)
    ]
    wants_previous = any("previous" in one.uses for one in measures)
    read: list[list[dict[str, np.ndarray]]] = [[] for _ in trajectory.seeds]
    done, before = 0, None
    for part in trajectory.stream(chosen):
        for place in range(len(trajectory.seeds)):
            stack = nested({name: value[:, place] for name, value in part.parameters.items()})
            previous = (
                _shifted(stack, None if before is None else before[place])
                if wants_previous
                else None
            )
            read[place].append(reader.read(stack, previous, contexts[place]))
        before = [
            nested({name: v[-1, place] for name, v in part.parameters.items()})
            for place in range(len(trajectory.seeds))
        ]
        done += len(part.steps)
        watch(done, len(steps))
    values = {
        name: np.stack([np.concatenate([p[name] for p in parts]) for parts in read])
        for name in read[0][0]
    }
    prepared = {
        seed: dict(context.prepared)
        for seed, context in zip(trajectory.seeds, contexts, strict=True)
    }
    return {
        one.name: Read({name: values[name] for name in one.variables}, prepared) for one in measures
    }


def _at(params: Params, place: int) -> Params:
    return jax.tree.map(lambda x: x[place], params)


def _shifted(stack: Params, before: Params | None) -> Params:
    """Each snapshot's predecessor; NaN where there is none."""
    if before is None:
        before = jax.tree.map(lambda x: np.full_like(x[0], np.nan), stack)
    return jax.tree.map(lambda x, first: np.concatenate([first[None], x[:-1]]), stack, before)


def make_context(
    subject: Subject, seed: int, reference: Reference, measures: Sequence[Measure]
) -> Context:
    """What a seed is read with, in the subject's precision; what measures freeze is made once,
    here.
    """
    task = subject.task
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
    """The context with what the measures freeze. Raises MeasureError where two would freeze
    different things under one name.
    """
    recipes: dict[str, Callable[[Reference, Context], Any]] = {}
    for one in measures:
        for name, recipe in one.prepare.items():
            if recipes.setdefault(name, recipe) != recipe:
                raise MeasureError(
                    f"{one.name} prepares '{name}' by another function than a measure that is read"
                    " with it; give it another name"
                )
    made = {name: prepare(context.reference, context) for name, prepare in recipes.items()}
    return dataclasses.replace(context, prepared=made)
