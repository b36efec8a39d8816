"""What measures say where there is nothing to find: of untrained networks, and of frequencies that
aren't key.
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
from mi_jax.measuring.files import cached, code_digest, write_dataset
from mi_jax.measuring.labelling import labelled
from mi_jax.measuring.merging import united
from mi_jax.measuring.program import Reader, make_context, prepared_context, read_trajectory
from mi_jax.training.trajectory import Trajectory

KEYS = ("final_key_frequencies", "final_key_irreps")
"""What measures freeze of the final model, and what other frequencies (irreps) take the place of.
"""
_FRESH = ("untrained", "untrained_pair")
"""The nulls that freshly initialised networks give."""
DRAWS = 20
SNAPSHOTS = 12


class Nulls(NamedTuple):
    """The measures' values under their nulls."""

    untrained: xr.Dataset
    """Of freshly initialised networks, each its own final model, or beside another one; dims (draw,
    ...).
    """
    frequencies: xr.Dataset
    """With as many other frequencies (irreps) in the place of the final model's key ones; (seed,
    step, draw, ...), some steps.
    """
    expensive: xr.Dataset = xr.Dataset()
    """Of fewer freshly initialised networks, what is read only when it is named; dims (draw, ...).
    """


def read_nulls(
    trajectory: Trajectory,
    subject: Subject,
    measures: Sequence[Measure],
    *,
    expensive: Sequence[Measure] = (),
    draws: int = DRAWS,
    snapshots: int = SNAPSHOTS,
) -> Nulls:
    """Each measure under its own ``null``. Kept in the run's folder ``nulls``, made again when
    weights, measures or code change.

    Args:
        expensive: measures that are read of a quarter as many untrained networks.
        draws: untrained networks; a quarter as many sets of frequencies.
        snapshots: how many, evenly along the run's own, are read with other frequencies.
    """
    untrained = [
        one for one in measures if one.null in _FRESH and one.uses <= {"final"} and one.variables
    ]
    swapped = [one for one in measures if one.null == "other_frequencies"]
    first = _kept(
        trajectory, "untrained", untrained, (draws,), lambda: _untrained(subject, untrained, draws)
    )
    second = _kept(
        trajectory,
        "frequencies",
        swapped,
        (draws, snapshots),
        lambda: _swapped(trajectory, subject, swapped, draws // 4, snapshots),
    )
    costly = [one for one in expensive if one.null in _FRESH and one.uses <= {"final"}]
    few = max(draws // 4, 2)
    third = _kept(trajectory, "expensive", costly, (few,), lambda: _untrained(subject, costly, few))
    return Nulls(first, second, third)


def _kept(
    trajectory: Trajectory,
    name: str,
    measures: Sequence[Measure],
    options: tuple[int, ...],
    make: Callable[[], xr.Dataset],
) -> xr.Dataset:
    if not measures:
        return xr.Dataset()
    file = trajectory.path / "nulls" / f"{name}.nc"
    codes = {one.name: code_digest(one.function, *one.prepare.values()) for one in measures}
    content = [
        trajectory.hashes(),
        trajectory.record["hash"],
        codes,
        {one.name: [dict(one.options), one.null] for one in measures},
        list(options),
    ]
    key = None if None in codes.values() else digest(content)
    held = cached(file, key)
    if held is None:
        held = make().assign_attrs(key=key or "")
        write_dataset(file, held)
    return held


def _untrained(subject: Subject, measures: Sequence[Measure], draws: int) -> xr.Dataset:
    datasets = [
        one
        for null in _FRESH
        if (having := [one for one in measures if one.null == null])
        for one in _of_fresh(subject, having, draws, beside=null == "untrained_pair")
    ]
    merged = xr.merge(united(datasets), join="exact", compat="no_conflicts").isel(seed=0, drop=True)
    # What has draws of its own (the traces of chains, random subspaces) is evidence of a reading,
    # not one to be compared.
    return merged.drop_dims("draw", errors="ignore").rename(step="draw")


def _of_fresh(
    subject: Subject, measures: Sequence[Measure], draws: int, *, beside: bool
) -> list[xr.Dataset]:
    """Each measure of that many networks; of what compares two, the next one is the other."""
    reader, base = Reader(measures, subject.precision), make_context(subject, 0, Reference(), [])
    parts: list[dict[str, np.ndarray]] = []
    for draw in range(draws):
        drawn, other = (
            subject.model.init(jax.random.fold_in(stream(0, "null"), draw + i))
            for i in (0, int(beside))
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
            {name: joined[name] for name in one.variables}, one, subject, (0,), np.arange(draws)
        )
        for one in measures
    ]


def _swapped(
    trajectory: Trajectory,
    subject: Subject,
    measures: Sequence[Measure],
    draws: int,
    snapshots: int,
) -> xr.Dataset:
    places = np.unique(np.round(np.linspace(0, len(trajectory.steps) - 1, snapshots)).astype(int))
    chosen = [int(step) for step in trajectory.steps[places]]
    rng, reader = np.random.default_rng(0), Reader(measures, subject.precision)

    def other(keys: np.ndarray) -> jax.Array:
        others = np.flatnonzero(~keys) if (~keys).sum() >= keys.sum() else np.arange(len(keys))
        mask = np.zeros(len(keys), bool)
        mask[rng.choice(others, keys.sum(), replace=False)] = True
        return jnp.asarray(mask)

    def swap(context: Context) -> Context:
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
    datasets = [
        xr.concat(
            [
                labelled(
                    one_draw[one.name].values, one, subject, trajectory.seeds, np.array(chosen)
                )
                for one_draw in read
            ],
            "draw",
        )
        for one in measures
    ]
    return xr.merge(united(datasets), join="exact", compat="no_conflicts").transpose(
        "seed", "step", "draw", ...
    )
