"""Readings beside each other: one dataset of several measures, and its last step as JSON values."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from mi_jax.basics.errors import MeasureError


def joined(datasets: Sequence[xr.Dataset], provenance: Mapping[str, Any]) -> xr.Dataset:
    """One dataset of all variables; each keeps its own provenance as an attribute."""
    parts = united([dataset.copy() for dataset in datasets])
    for part in parts:
        for name in part.data_vars:
            part[name].attrs["provenance"] = part.attrs.get("provenance", "")
    try:
        merged = (
            xr.merge(parts, join="exact", combine_attrs="override", compat="no_conflicts")
            if parts
            else xr.Dataset()
        )
    except xr.AlignmentError as error:
        raise MeasureError(
            f"measures give one dim different places, so they fit no common dataset: {error}"
        ) from error
    merged.attrs = {
        "provenance": json.dumps({key: provenance[key] for key in ("experiment", "hash")})
    }
    return merged


def united(parts: Sequence[xr.Dataset]) -> list[xr.Dataset]:
    """Readings that hold other places of a dim, on all the places that any of them holds; NaN
    (False) where one has none.

    Places go by their labels (sites, concepts, draws), or are counted from 0 where a dim has none
    (modes, heads).

    Raises:
        MeasureError: where a dim of different places is labelled by some and counted by others.
    """
    aligned = list(parts)
    for dim in dict.fromkeys(
        str(dim) for part in parts for dim in part.dims if dim not in ("seed", "step")
    ):
        having = [part for part in aligned if dim in part.dims]
        held = sorted((part[dim].values.tolist() for part in having), key=len, reverse=True)
        if all(places == held[0] for places in held):
            continue
        if len({dim in part.coords for part in having}) > 1:
            told = f"{dim} is labelled by some and counted by others"
            raise MeasureError(
                f"measures give one dim different places, so they fit no common dataset: {told}"
            )
        every = list(dict.fromkeys(place for places in held for place in places))
        every = every if any(isinstance(place, str) for place in every) else sorted(every)
        aligned = [_on_places(part, dim, every) if dim in part.dims else part for part in aligned]
    return aligned


def _on_places(part: xr.Dataset, dim: str, places: list[Any]) -> xr.Dataset:
    """The readings on these places of a dim, which keeps its labels, or goes without as before."""
    if part[dim].values.tolist() == places:
        return part
    nothing = {name: False for name, one in part.data_vars.items() if one.dtype == bool}
    placed = part.assign_coords({dim: part[dim].values}).reindex({dim: places}, fill_value=nothing)
    return placed if dim in part.coords else placed.drop_vars(dim)


def last_step(dataset: xr.Dataset) -> Iterator[tuple[int, dict[str, Any]]]:
    """By seed the last step's readings as JSON values: see ``as_json``."""
    for seed in dataset["seed"].values:
        row = dataset.sel(seed=seed).isel(step=-1)
        yield int(seed), {str(name): as_json(row[name]) for name in row.data_vars}


def as_json(value: xr.DataArray) -> Any:
    """A number, a list of what a mask holds, {label: value} for a labelled dim, nested lists
    otherwise; NaN is null.
    """
    if value.dtype == bool and value.ndim == 1:
        held = value.values
        return (
            value[value.dims[0]].values[held].tolist()
            if value.dims[0] in value.coords
            else np.flatnonzero(held).tolist()
        )
    if value.ndim == 0:
        number = value.values[()].item()
        return None if isinstance(number, float) and not np.isfinite(number) else number
    dim = value.dims[0]
    entries = [as_json(value.isel({dim: i})) for i in range(value.sizes[dim])]
    if dim in value.coords:
        return dict(zip(map(str, value[dim].values.tolist()), entries, strict=True))
    return entries
