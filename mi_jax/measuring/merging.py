"""Merging readings: one dataset of several measures, and its last step as JSON values."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from mi_jax.basics.errors import MeasureError

REFERENCE = ("reference_run", "reference_step", "reference_hash")
"""Attrs of a retrospective reading: the run, step and parameters of its final model."""


def joined(datasets: Sequence[xr.Dataset], provenance: Mapping[str, Any]) -> xr.Dataset:
    """One dataset of the variables of several; each variable keeps its own provenance.

    Args:
        datasets: readings of one measure each, with ``provenance`` in their attributes.
        provenance: the run's; ``experiment`` and ``hash`` are stored with the result.

    Raises:
        MeasureError: if a dim has coordinates that cannot be merged.
    """
    parts = united([dataset.copy() for dataset in datasets])
    for part in parts:
        for name in part.data_vars:
            part[name].attrs["provenance"] = part.attrs.get("provenance", "")
            part[name].attrs |= {key: part.attrs[key] for key in REFERENCE if key in part.attrs}
    merged = xr.Dataset()
    if parts:
        try:
            merged = xr.merge(parts, join="exact", combine_attrs="override", compat="no_conflicts")
        except xr.AlignmentError as error:
            raise MeasureError(
                f"Cannot merge readings: one dim has different coordinates ({error}). Measure them"
                " separately."
            ) from error
    merged.attrs = {
        "provenance": json.dumps({key: provenance[key] for key in ("experiment", "hash")})
    }
    return merged


def united(parts: Sequence[xr.Dataset]) -> list[xr.Dataset]:
    """Readings on common coordinates: along each dim, the union of the coordinates of all readings.
    Entries that a reading lacks become NaN, or False in a mask.

    Entries of a dim are identified by their labels (sites, concepts, draws), or by their index from
    0 if the dim has no labels (modes, heads).

    Raises:
        MeasureError: if the readings differ along a dim that only some of them label.
    """
    aligned = list(parts)
    dims = (str(dim) for part in parts for dim in part.dims if dim not in ("seed", "step"))
    for dim in dict.fromkeys(dims):
        having = [part for part in aligned if dim in part.dims]
        # Longest first: its order of the labels is the order of the union.
        coordinates = sorted((part[dim].values.tolist() for part in having), key=len, reverse=True)
        if all(labels == coordinates[0] for labels in coordinates):
            continue
        if len({dim in part.coords for part in having}) > 1:
            raise MeasureError(
                f"Cannot merge readings along '{dim}': some measures name its entries, others only"
                " number them. Measure them separately."
            )
        union = list(dict.fromkeys(label for labels in coordinates for label in labels))
        if not any(isinstance(label, str) for label in union):
            union = sorted(union)
        aligned = [_on_labels(part, dim, union) if dim in part.dims else part for part in aligned]
    return aligned


def _on_labels(part: xr.Dataset, dim: str, labels: list[Any]) -> xr.Dataset:
    """The readings at these labels of a dim. A dim without labels stays without."""
    if part[dim].values.tolist() == labels:
        return part
    # The default fill value, NaN, would turn a mask into objects.
    fill = {name: False for name, variable in part.data_vars.items() if variable.dtype == bool}
    aligned = part.assign_coords({dim: part[dim].values}).reindex({dim: labels}, fill_value=fill)
    return aligned if dim in part.coords else aligned.drop_vars(dim)


def last_step(dataset: xr.Dataset) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields each seed with its readings at the last step, as JSON values (``as_json``)."""
    for seed in dataset["seed"].values:
        row = dataset.sel(seed=seed).isel(step=-1)
        yield int(seed), {str(name): as_json(row[name]) for name in row.data_vars}


def as_json(value: xr.DataArray) -> Any:
    """A reading as a JSON value.

    A scalar becomes a number, with null for NaN and infinity; a mask the list of its true labels
    (or indices); a labelled dim a dict by label; any other dim a list.
    """
    if value.dtype == bool and value.ndim == 1:
        dim, mask = value.dims[0], value.values
        if dim in value.coords:
            return value[dim].values[mask].tolist()
        return np.flatnonzero(mask).tolist()
    if value.ndim == 0:
        number = value.values[()].item()
        return None if isinstance(number, float) and not np.isfinite(number) else number
    dim = value.dims[0]
    entries = [as_json(value.isel({dim: i})) for i in range(value.sizes[dim])]
    if dim in value.coords:
        return dict(zip(map(str, value[dim].values.tolist()), entries, strict=True))
    return entries
