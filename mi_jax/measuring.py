"""Running measures over a trajectory: one compiled program for all of them, called seed by seed, written with provenance.

The program maps a batch of snapshots of one seed; its length is traced, so that it is compiled once and a short batch costs no
more than it holds. A reading doesn't depend, by a single bit, on what was read with it.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

from mi_jax.arrays import Params, check_dims
from mi_jax.contracts import Context, Holders, Loss, Measure, Model, Reference, Shared, Task
from mi_jax.errors import MeasureError, RunError, nearest
from mi_jax.joining import joined
from mi_jax.precision import Precision, cast, computing_in
from mi_jax.pytrees import dotted, nested, take
from mi_jax.readings import EXPENSIVE, READINGS, with_options
from mi_jax.results import cached, content_key, load_dataset, provenance_of, write_dataset
from mi_jax.streams import stream
from mi_jax.training.trajectory import Trajectory

BATCH = 16
"""Snapshots that one call of the compiled program reads at most."""

ALL_REFERENCES = frozenset({"initial", "previous", "final"})


class Subject(NamedTuple):
    """What is read: the model, and the task and loss it was trained with."""

    model: Model
    task: Task
    loss: Loss
    holders: Holders = lambda kind, name: ""
    """What to say of the models and tasks that have what this one lacks."""
    precision: Precision = "float32"
    """What it is read in: that of the run."""


class Skipped(NamedTuple):
    """A measure that can't be taken here, and why."""

    name: str
    reason: str


Chosen = str | Measure | Callable[..., Any]
Watch = Callable[[int, int], None]


def choose(
    chosen: Sequence[Chosen] | None,
    subject: Subject,
    references: frozenset[str] = ALL_REFERENCES,
    *,
    among: Mapping[str, Measure] = READINGS,
) -> tuple[list[Measure], list[Skipped]]:
    """The measures to take: those named, or all that the model's roles, the task's concepts and splits, and the references allow.

    A name is one of READINGS or EXPENSIVE (never taken unless named), or a variable of one (two of one measure name it once), or
    a call with options (``readings.with_options``). A Measure is itself; a plain function ``(params, context) -> scalar`` is a
    measure of its own name. Roles and concepts are looked at here, before anything is built or traced.

    Raises:
        MeasureError: for an unknown name, two measures of one name, or a named one that can't be taken.
    """
    concepts, splits, _ = _known(subject.task)
    measures = list(among.values()) if chosen is None else [_as_measure(one) for one in _distinct(chosen)]
    names = [name for one in measures for name in one.variables]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise MeasureError(f"more than one measure is named {twice}; give each a name of its own")
    roles = subject.model.roles
    lacking = {one.name: one.missing(roles, concepts, references, splits=splits, holders=subject.holders) for one in measures}
    skipped = [Skipped(name, reason) for name, reason in lacking.items() if reason]
    if chosen is not None and skipped:
        raise MeasureError("; ".join(f"{name} can't be read here: it {reason}" for name, reason in skipped))
    for one in measures:
        for name, dims in one.variables.items():
            check_dims(name, dims)
    return [one for one in measures if not lacking[one.name]], skipped


def measure_trajectory(
    trajectory: Trajectory,
    subject: Subject,
    measures: Sequence[Measure],
    provenance: Mapping[str, Any],
    watch: Watch = lambda done, total: None,
) -> xr.Dataset:
    """Reads every stored snapshot; writes one netCDF a measure into the run, and reuses those whose content is the same.

    Args:
        provenance: what to store with each result: the experiment, its hash, the machine.

    Returns:
        The measures' variables, dims (seed, step, ...).
    """
    if not len(trajectory.steps):
        raise RunError(f"{trajectory.path} holds no snapshot yet; train it first")
    keys = {one.name: content_key(trajectory, one, provenance) for one in measures}
    found = {one.name: cached(_file(trajectory, one.name), keys[one.name]) for one in measures}
    held = {name: dataset for name, dataset in found.items() if dataset is not None}
    todo = [one for one in measures if one.name not in held]
    fresh = read_trajectory(trajectory, subject, todo, watch) if todo else {}
    for one in todo:
        dataset = labelled(fresh[one.name].values, one, subject, trajectory.seeds, trajectory.steps)
        prepared = fresh[one.name].prepared
        held[one.name] = dataset.assign_attrs(provenance=provenance_of(one, provenance, prepared), key=keys[one.name] or "")
        write_dataset(_file(trajectory, one.name), held[one.name])
    return joined([held[one.name] for one in measures], provenance)


def measure_weights(params: Params, subject: Subject, measures: Sequence[Measure], provenance: Mapping[str, Any]) -> xr.Dataset:
    """Reads one set of weights, which is its own final reference: dims (seed, step, ...) of length 1, labelled 0."""
    reader = Reader(measures, subject.precision)
    context = make_context(subject, 0, Reference(final=params), measures)
    stack = jax.tree.map(lambda x: np.asarray(x)[None], params)
    values = reader.read(stack, stack, context)
    datasets = [
        labelled({name: values[name][None] for name in one.variables}, one, subject, (0,), np.array([0])).assign_attrs(
            provenance=provenance_of(one, provenance, {0: context.prepared})
        )
        for one in measures
    ]
    return joined(datasets, provenance)


def read_steps(trajectory: Trajectory, subject: Subject, measures: Sequence[Measure], steps: Sequence[int]) -> xr.Dataset:
    """Readings at chosen snapshots, dims (seed, step, ...); nothing is written or reused."""
    # What looks at the snapshot before needs them all.
    whole = any("previous" in one.uses for one in measures)
    chosen = trajectory.steps.tolist() if whole else sorted({int(step) for step in steps})
    read = read_trajectory(trajectory, subject, measures, chosen=chosen)
    datasets = [labelled(read[one.name].values, one, subject, trajectory.seeds, np.asarray(chosen)) for one in measures]
    return joined(datasets, trajectory.record).sel(step=[int(step) for step in steps])


def stored_measures(trajectory: Trajectory) -> xr.Dataset:
    """All readings that the run holds of its present snapshots, merged; those of fewer snapshots are left out."""
    datasets = [load_dataset(file) for file in sorted((trajectory.path / "measures").glob("*.nc"))]
    return joined([one for one in datasets if np.array_equal(one["step"], trajectory.steps)], trajectory.record)


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

    def read(self, stack: Params, previous: Params | None, context: Context) -> dict[str, np.ndarray]:
        """The readings [snapshot ...] of a stack of snapshots of one seed; ``previous`` are those before each."""
        length = len(jax.tree.leaves(stack)[0])
        parts: list[dict[str, np.ndarray]] = []
        # LAPACK calls inside the program would start a thread a core each, beside XLA's own, and take 8 times as long.
        with threadpool_limits(1, user_api="blas"), computing_in(self._precision):
            for i in range(0, length, BATCH):
                before = None if previous is None else _padded(previous, i)
                read = self._program(_padded(stack, i), before, context, min(BATCH, length - i))
                parts.append({name: np.asarray(values) for name, values in read.items()})
        return {name: np.concatenate([part[name] for part in parts])[:length] for name in parts[0]}

    def _batch(self, stack: Params, previous: Params | None, context: Context, n: jax.Array) -> dict[str, jax.Array]:
        def one(i: Any) -> dict[str, jax.Array]:
            reference = context.reference._replace(previous=None if previous is None else take(previous, i))
            seen, params = dataclasses.replace(context, reference=reference, shared=Shared()), take(stack, i)
            return {name: value for one in self._measures for name, value in one.read(params, seen).items()}

        shapes = jax.eval_shape(one, 0)
        empty = {name: jnp.zeros((BATCH, *shape.shape), shape.dtype) for name, shape in shapes.items()}

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
    """Streams the snapshots (all, or those chosen) through the program, a segment at a time, every seed of it."""
    reader = reader or Reader(measures, subject.precision)
    steps = trajectory.steps if chosen is None else np.asarray(chosen)
    initial, final = trajectory.initial(), take(trajectory.stack([int(trajectory.steps[-1])]), 0)
    contexts = [
        change(make_context(subject, seed, Reference(initial=_at(initial, place), final=_at(final, place)), measures))
        for place, seed in enumerate(trajectory.seeds)
    ]
    wants_previous = any("previous" in one.uses for one in measures)
    read: list[list[dict[str, np.ndarray]]] = [[] for _ in trajectory.seeds]
    done, before = 0, None
    for part in trajectory.stream(chosen):
        for place in range(len(trajectory.seeds)):
            stack = nested({name: value[:, place] for name, value in part.parameters.items()})
            previous = _shifted(stack, None if before is None else before[place]) if wants_previous else None
            read[place].append(reader.read(stack, previous, contexts[place]))
        before = [nested({name: v[-1, place] for name, v in part.parameters.items()}) for place in range(len(trajectory.seeds))]
        done += len(part.steps)
        watch(done, len(steps))
    values = {name: np.stack([np.concatenate([p[name] for p in parts]) for parts in read]) for name in read[0][0]}
    prepared = {seed: dict(context.prepared) for seed, context in zip(trajectory.seeds, contexts, strict=True)}
    return {one.name: Read({name: values[name] for name in one.variables}, prepared) for one in measures}


def _at(params: Params, place: int) -> Params:
    return jax.tree.map(lambda x: x[place], params)


def _shifted(stack: Params, before: Params | None) -> Params:
    """Each snapshot's predecessor; NaN where there is none."""
    if before is None:
        before = jax.tree.map(lambda x: np.full_like(x[0], np.nan), stack)
    return jax.tree.map(lambda x, first: np.concatenate([first[None], x[:-1]]), stack, before)


def make_context(subject: Subject, seed: int, reference: Reference, measures: Sequence[Measure]) -> Context:
    """What a seed is read with, in the subject's precision; what measures freeze is made once, here."""
    task = subject.task
    with computing_in("float32"):
        evaluation = task.evaluation(task.data(seed), stream(seed, "measure"))
    with computing_in(subject.precision):
        context = Context(
            batches=cast(dict(evaluation.batches), subject.precision),
            concepts=cast(dict(evaluation.concepts), subject.precision),
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
    """The context with what the measures freeze. Raises MeasureError where two would freeze different things under one name."""
    recipes: dict[str, Callable[[Reference, Context], Any]] = {}
    for one in measures:
        for name, recipe in one.prepare.items():
            if recipes.setdefault(name, recipe) != recipe:
                raise MeasureError(
                    f"{one.name} prepares '{name}' by another function than a measure that is read with it; give it another name"
                )
    made = {name: prepare(context.reference, context) for name, prepare in recipes.items()}
    return dataclasses.replace(context, prepared=made)


class _Known(NamedTuple):
    """The names of a task's concepts, splits, and labels for probes."""

    concepts: frozenset[str]
    splits: frozenset[str]
    labels: tuple[str, ...]


@lru_cache(maxsize=8)
def _known(task: Task) -> _Known:
    evaluation = task.evaluation(task.data(0), stream(0, "measure"))
    return _Known(frozenset(evaluation.concepts), frozenset(evaluation.batches), tuple(sorted(task.labels(evaluation))))


def _registered() -> dict[str, Measure]:
    """Every registered reading under its own name and those of its variables."""
    return {name: one for one in (*READINGS.values(), *EXPENSIVE.values()) for name in (one.name, *one.variables)}


def _distinct(chosen: Sequence[Chosen]) -> list[Chosen]:
    """Without other variables of a measure that is named already; the same name twice is kept, to be refused."""
    by_variable, named = _registered(), dict[str, str]()
    return [
        one
        for one in chosen
        if not (isinstance(one, str) and one in by_variable) or named.setdefault(by_variable[one].name, one) == one
    ]


def _as_measure(chosen: Chosen) -> Measure:
    if isinstance(chosen, Measure):
        return chosen
    if isinstance(chosen, str) and "(" in chosen:
        return with_options(chosen)
    if isinstance(chosen, str):
        by_variable = _registered()
        if chosen not in by_variable:
            raise MeasureError(f"there is no measure '{chosen}'; {nearest(chosen, by_variable)}")
        return by_variable[chosen]
    return Measure(chosen.__name__, chosen)


def labels(dim: str, one: Measure, subject: Subject) -> np.ndarray | None:
    """The coordinate of a labelled dim; None where places are just counted from 0."""
    given = one.labels.get(dim, subject.task.dim_names.get(dim))
    if given is not None:
        return np.array(given(subject.model, _known(subject.task).labels) if callable(given) else given)
    if dim == "frequency":
        return np.arange(1, subject.task.inputs.classes // 2 + 1)
    if dim == "parameter":
        return np.array(list(dotted(jax.eval_shape(subject.model.init, jax.random.key(0)))))
    return None


def labelled(
    values: Mapping[str, np.ndarray], one: Measure, subject: Subject, seeds: Sequence[int], steps: np.ndarray
) -> xr.Dataset:
    """A measure's values as a dataset with its dims and coordinates."""
    coords: dict[str, Any] = {"seed": np.asarray(seeds), "step": np.asarray(steps)}
    variables: dict[str, Any] = {}
    units = subject.loss.units if one.units == "loss" else one.units
    for name, dims in one.variables.items():
        variables[name] = (("seed", "step", *dims), values[name], {"units": units} if units else {})
        coords |= {dim: label for dim in dims if (label := labels(dim, one, subject)) is not None}
    return xr.Dataset(variables, coords=coords)


def _file(trajectory: Trajectory, name: str) -> Path:
    return trajectory.path / "measures" / f"{name}.nc"
