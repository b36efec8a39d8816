"""Nulls: readings of untrained networks, and readings with other frequencies in place of the key
ones.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from mi_jax.basics.precision import cast, computing_in
from mi_jax.basics.records import digest
from mi_jax.basics.streams import stream
from mi_jax.contracts import Context, Measure, Reference, Subject
from mi_jax.measuring.files import cached, write_dataset
from mi_jax.measuring.history import History
from mi_jax.measuring.labelling import labelled
from mi_jax.measuring.merging import united
from mi_jax.measuring.program import Reader, make_context, prepared_context, read_trajectory
from mi_jax.measuring.sources import code_digest
from mi_jax.training.trajectory import Trajectory

KEYS = ("final_key_frequencies", "final_key_irreps")
"""Prepared masks of the final model's key frequencies (irreps), which other ones replace."""
_FRESH = ("untrained", "untrained_pair")
"""Kinds of null that freshly initialised networks give."""
DRAWS = 20
"""Default number of untrained networks."""
SNAPSHOTS = 12
"""Default number of snapshots that are read with other frequencies."""


class Nulls(NamedTuple):
    """Readings under the nulls of the measures.

    Attributes:
        untrained: readings of freshly initialised networks, each compared with itself as the final
            model ("untrained") or with another one ("untrained_pair"); dims (draw, ...).
        frequencies: readings of some snapshots with as many other frequencies (irreps) in place of
            the final model's key ones; dims (seed, step, draw, ...).
        expensive: readings, by measures that are taken only when named, of fewer freshly
            initialised networks; dims (draw, ...).
    """

    untrained: xr.Dataset
    frequencies: xr.Dataset
    expensive: xr.Dataset = xr.Dataset()


def read_nulls(
    trajectory: Trajectory,
    subject: Subject,
    measures: Sequence[Measure],
    *,
    expensive: Sequence[Measure] = (),
    draws: int = DRAWS,
    snapshots: int = SNAPSHOTS,
) -> Nulls:
    """Reads each measure under its own ``null``.

    The readings are stored in the run's folder ``nulls``, and read again when weights, measures or
    code change.

    Args:
        trajectory: the stored snapshots.
        subject: the model, task and loss that are measured.
        measures: the measures.
        expensive: measures that are read of a quarter as many untrained networks.
        draws: number of untrained networks; the number of sets of frequencies is a quarter of it.
        snapshots: number of snapshots, evenly along the run, that are read with other frequencies.

    Returns:
        The readings by kind of null.
    """
    untrained = [
        measure
        for measure in measures
        if measure.null in _FRESH and measure.uses <= {"final"} and measure.variables
    ]
    swapped = [measure for measure in measures if measure.null == "other_frequencies"]
    first = _stored(
        trajectory,
        subject,
        "untrained",
        untrained,
        (draws,),
        lambda: _untrained(subject, untrained, draws),
    )
    second = _stored(
        trajectory,
        subject,
        "frequencies",
        swapped,
        (draws, snapshots),
        lambda: _swapped(trajectory, subject, swapped, draws // 4, snapshots),
    )
    costly = [
        measure for measure in expensive if measure.null in _FRESH and measure.uses <= {"final"}
    ]
    few = max(draws // 4, 2)
    third = _stored(
        trajectory, subject, "expensive", costly, (few,), lambda: _untrained(subject, costly, few)
    )
    return Nulls(first, second, third)


def _stored(
    trajectory: Trajectory,
    subject: Subject,
    name: str,
    measures: Sequence[Measure],
    options: tuple[int, ...],
    make: Callable[[], xr.Dataset],
) -> xr.Dataset:
    """Readings of one kind of null, from their file if it has the same key, else made and written.

    Args:
        trajectory: the run.
        subject: the model, task and loss that are measured.
        name: name of the file.
        measures: the measures that are read.
        options: numbers of draws and snapshots, part of the key.
        make: reads the null.
    """
    if not measures:
        return xr.Dataset()
    file = trajectory.path / "nulls" / f"{name}.nc"
    code, final = code_digest(subject, *measures), History(trajectory).final()
    content = [
        trajectory.hashes(),
        trajectory.record["hash"],
        code,
        None if final is None else final.attrs,
        {measure.name: [dict(measure.options), measure.null] for measure in measures},
        list(options),
    ]
    key = None if code is None else digest(content)
    dataset = cached(file, key)
    if dataset is None:
        dataset = make().assign_attrs(key=key or "")
        write_dataset(file, dataset)
    return dataset


def _untrained(subject: Subject, measures: Sequence[Measure], draws: int) -> xr.Dataset:
    """Readings of freshly initialised networks, dims (draw, ...)."""
    datasets: list[xr.Dataset] = []
    for null in _FRESH:
        having = [measure for measure in measures if measure.null == null]
        if having:
            datasets += _read_fresh(subject, having, draws, pairs=null == "untrained_pair")
    merged = xr.merge(united(datasets), join="exact", compat="no_conflicts").isel(seed=0, drop=True)
    # Variables with a dim "draw" of their own (traces of chains, random subspaces) are evidence for
    # a reading, not compared with a null; their dim would clash with that of the networks.
    return merged.drop_dims("draw", errors="ignore").rename(step="draw")


def _read_fresh(
    subject: Subject, measures: Sequence[Measure], draws: int, *, pairs: bool
) -> list[xr.Dataset]:
    """Readings of freshly initialised networks by each measure, with the draw as their step.

    With ``pairs`` the final model of a network is the next one; otherwise it is the network itself.
    """
    reader, base = Reader(measures, subject.precision), make_context(subject, 0, Reference(), [])
    parts: list[dict[str, np.ndarray]] = []
    for draw in range(draws):
        drawn, other = (
            subject.model.init(jax.random.fold_in(stream(0, "null"), draw + i))
            for i in (0, int(pairs))
        )
        with computing_in(subject.precision):
            params, final = cast(drawn, subject.precision), cast(other, subject.precision)
            context = prepared_context(
                dataclasses.replace(base, reference=Reference(final=final)), measures
            )
        parts.append(
            reader.read(jax.tree.map(lambda x: np.asarray(x)[None], params), None, context)
        )
    joined = {name: np.concatenate([part[name] for part in parts])[None] for name in parts[0]}
    return [
        labelled(
            {name: joined[name] for name in measure.variables},
            measure,
            subject,
            (0,),
            np.arange(draws),
        )
        for measure in measures
    ]


def _has_others(keys: np.ndarray) -> bool:
    """Whether as many frequencies are not key as are key."""
    return bool((~keys).sum() >= keys.sum())


def _swapped(
    trajectory: Trajectory,
    subject: Subject,
    measures: Sequence[Measure],
    draws: int,
    snapshots: int,
) -> xr.Dataset:
    """Readings of some snapshots with other frequencies in place of the key ones, dims (seed, step,
    draw, ...).
    """
    indices = np.unique(np.round(np.linspace(0, len(trajectory.steps) - 1, snapshots)).astype(int))
    chosen = [int(step) for step in trajectory.steps[indices]]
    rng, reader = np.random.default_rng(0), Reader(measures, subject.precision)

    def other(keys: np.ndarray) -> jax.Array:
        # Where there are not enough others, the draw is made from all and dropped afterwards.
        others = np.flatnonzero(~keys) if _has_others(keys) else np.arange(len(keys))
        mask = np.zeros(len(keys), bool)
        mask[rng.choice(others, keys.sum(), replace=False)] = True
        return jnp.asarray(mask)

    drawn: list[bool] = []

    def swap(context: Context) -> Context:
        masks = [np.asarray(context.prepared[name]) for name in KEYS if name in context.prepared]
        drawn.append(all(map(_has_others, masks)))
        changed = {
            name: other(np.asarray(context.prepared[name]))
            for name in KEYS
            if name in context.prepared
        }
        return dataclasses.replace(context, prepared={**context.prepared, **changed})

    read = [
        read_trajectory(trajectory, subject, measures, chosen=chosen, change=swap, reader=reader)
        for _ in range(draws)
    ]
    datasets: list[xr.Dataset] = []
    for measure in measures:
        by_draw = [
            labelled(
                readings[measure.name].values,
                measure,
                subject,
                trajectory.seeds,
                np.array(chosen),
            )
            for readings in read
        ]
        datasets.append(xr.concat(by_draw, "draw"))
    # ``swap`` was called once per draw and seed.
    possible = xr.DataArray(
        drawn[: len(trajectory.seeds)], {"seed": list(trajectory.seeds)}, ["seed"]
    )
    datasets = [dataset.where(possible) for dataset in datasets]
    return xr.merge(united(datasets), join="exact", compat="no_conflicts").transpose(
        "seed", "step", "draw", ...
    )
