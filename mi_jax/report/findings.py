"""Results of a report in words and numbers: the summary, the table of numbers, and how each reading
was measured.
"""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from mi_jax.dynamics import (
    VERDICTS,
    date_differences,
    date_text,
    difference_text,
    interval,
    median_text,
)
from mi_jax.measuring.merging import last_step

Row = tuple[str, list[str]]
"""A row of the table: its label, and a cell per column."""


def summary(dates: xr.Dataset) -> str:
    """The story of a run in two or three sentences: how many seeds grokked, and when the seeds
    memorised and generalised.

    Seeds that have not got there by the last snapshot are part of the medians.

    Args:
        dates: of ``runs.dates.run_dates``.

    Example:
        >>> bounds = {"memorised": [[78.0, 81.0]], "generalised": [[2676.0, 2757.0]]}
        >>> dates = xr.Dataset(
        ...     {name: (("seed", "bound"), rows) for name, rows in bounds.items()},
        ...     {"seed": [0], "bound": ["lower", "upper"]},
        ... ).assign(verdict=("seed", ["grokked"]))
        >>> summary(dates)
        'This run grokked. It memorised between 78 and 81, and generalised between 2,676 and 2,757.'
    """
    if "generalised" not in dates:
        return "Readings of every snapshot of this run: what formed, and when."
    if "verdict" not in dates:
        reached = f"reached {dates.attrs['level']:g} test accuracy"
        when = _when(dates["generalised"], reached)
        return f"This run, with no training set to memorise, {when}."
    memorised = _when(dates["memorised"], "memorised")
    generalised = _when(dates["generalised"], "generalised")
    seeds = dates.sizes["seed"]
    if seeds == 1:
        did = _DID[str(dates["verdict"].values[0])]
        return f"This run {did}. It {memorised}, and {generalised}."
    return f"{_counted(dates)}. They {memorised}, and {generalised}."


_DID = {
    "grokked": "grokked",
    "generalised at once": "generalised at once",
    "generalised without memorising": "generalised without memorising",
    "did not grok": "memorised without generalising",
    "did not memorise": "did not memorise",
    "diverged": "diverged",
    "undecided": "generalised, whether at once or not is undecided",
}
"""What a seed did, by its verdict."""


def _when(dates: xr.DataArray, did: str) -> str:
    """When the one seed did something, or the median over seeds with its interval."""
    if dates.sizes["seed"] > 1:
        return f"{did} in the median {median_text(dates)}"
    ((lower, upper),) = dates.transpose("seed", "bound").values.tolist()
    if np.isposinf(upper) and np.isfinite(lower):
        return f"had not {did} by step {lower:,.0f}"
    return f"{did} {date_text(lower, upper)}"


def _counted(dates: xr.Dataset) -> str:
    """How many seeds have each verdict, in the order of ``VERDICTS``, as a clause."""
    verdicts = [str(verdict) for verdict in dates["verdict"].values]
    counts = [(verdicts.count(verdict), verdict) for verdict in VERDICTS if verdict in verdicts]
    if len(counts) == 1 and not counts[0][1].startswith("did not memorise"):
        return f"All {len(verdicts)} seeds {_DID[counts[0][1]]}"
    *first, last = [f"{count} {_DID[verdict]}" for count, verdict in counts]
    listed = f"{', '.join(first)} and {last}" if first else last
    return f"Of {len(verdicts)} seeds, {listed}"


def numbers_table(dataset: xr.Dataset, dates: xr.Dataset) -> list[Row]:
    """The table of numbers: dates, and the scalars and key frequencies of the last snapshot.

    Args:
        dataset: the readings, dims (seed, step, ...).
        dates: of ``runs.dates.run_dates``.

    Returns:
        The rows. Each is a label and its cells: one per seed, then the median and interval over
        seeds. The first row is the header.
    """
    seeds = [str(seed) for seed in dataset["seed"].values]
    rows: list[Row] = [("seed", [*seeds, "median [interval]"])]
    if "verdict" in dates:
        rows.append(("verdict", [*map(str, dates["verdict"].values), ""]))
    rows += [_date_row(label, dates[name]) for name, label in _LABELS.items() if name in dates]
    if {"memorised", "generalised"} <= set(dates):
        delay = date_differences(dates["memorised"], dates["generalised"])
        rows.append(_date_row("memorised to generalised, steps", delay, differences=True))
    by_seed = [readings for _, readings in last_step(dataset)]
    for name, variable in dataset.data_vars.items():
        values: list[Any] = [readings[str(name)] for readings in by_seed]
        label = variable.attrs.get("stored_name", str(name))
        if variable.dims == ("seed", "step"):
            rows.append(_scalar_row(label, variable, values))
        elif label.startswith(("key_frequencies", "key_irreps")):
            plural = "irreps" if "irreps" in label else "frequencies"
            rows.append((label, [*(_listed(keys, plural) for keys in values), ""]))
    return rows


_LABELS = {
    "memorised": "memorised, step",
    "circuit_formation_end": "circuit formation ended, step",
    "cleanup_end": "clean-up ended, step",
    "generalised": "generalised, step",
}
"""Labels of the dates in the table, in its order."""


def _scalar_row(name: str, variable: xr.DataArray, by_seed: list[Any]) -> Row:
    """A scalar of the last snapshot; None and NaN are "not finite", flags "yes" or "no"."""
    if variable.dtype == bool:
        return name, [*("yes" if value else "no" for value in by_seed), ""]
    label = f"{name}, {variable.attrs['units']}" if "units" in variable.attrs else name
    values = np.array([np.nan if value is None else value for value in by_seed], np.float64)
    return label, _cells(values, lambda value: f"{value:.4g}", "not finite")


def _date_row(label: str, dates: xr.DataArray, *, differences: bool = False) -> Row:
    """Dates in words, or numbers of steps between two dates."""
    text = difference_text if differences else date_text
    cells = [text(*row) for row in dates.transpose("seed", "bound").values.tolist()]
    return label, [*cells, median_text(dates, differences=differences) if len(cells) > 1 else ""]


def _cells(values: np.ndarray, text: Callable[[float], str], none: str) -> list[str]:
    """One cell per seed, and one with the median and the interval over seeds, if there are
    several.

    Args:
        values: shape (seed,).
        text: formats a number.
        none: stands for NaN.
    """
    cells = [none if np.isnan(value) else text(value) for value in values]
    if len(values) < 2:
        return [*cells, ""]
    over = interval(values)
    if not over.found:
        return [*cells, none]
    parts = [f"{over.found} of {over.total}"] if over.found < over.total else []
    if over.kind != "none":
        parts.insert(0, f"{text(over.low)}, {text(over.high)}; {over.label}")
    return [*cells, f"{text(over.middle)} [{'; '.join(parts)}]"]


def _listed(keys: list[Any], plural: str) -> str:
    """The keys, or their number if they are many."""
    return ", ".join(map(str, keys)) if len(keys) <= 12 else f"{len(keys)} {plural}"


def how_measured(dataset: xr.Dataset) -> list[tuple[str, str]]:
    """How each measure was taken: whether it uses the final model, its options and its source.

    Args:
        dataset: the readings, each with the attribute ``provenance``.

    Returns:
        Pairs of a measure's variables and the text. All variables of a measure stand in one pair.
    """
    rows: list[tuple[str, str]] = []
    groups: dict[tuple[str, str], list[str]] = {}
    for name, variable in dataset.data_vars.items():
        provenance = json.loads(variable.attrs["provenance"])
        key = (provenance.get("measure", str(name)), _description(provenance, variable.attrs))
        groups.setdefault(key, []).append(variable.attrs.get("stored_name", str(name)))
    for (_, description), (first, *others) in groups.items():
        # The names of one measure begin alike: learning_coefficient, _se, _by_chain.
        names = ", ".join([first, *(name.removeprefix(first) for name in others)])
        rows.append((names, description))
    return rows


def _description(provenance: dict[str, Any], attrs: dict[str, Any]) -> str:
    """The text of ``how_measured`` for one variable.

    Args:
        provenance: how it was read.
        attrs: of the variable, with the snapshot that a retrospective one is compared with.
    """
    options = {
        key: value
        for key, value in provenance["options"].items()
        if value is not None and value != []
    }
    for name, by_seed in provenance.get("prepared", {}).items():
        values = list(by_seed.values())
        # Numbers that are the same for all seeds, such as n and n_beta; not keys or examples.
        if len(set(map(str, values))) == 1 and isinstance(values[0], (int, float)):
            options[name.removeprefix(f"{provenance['measure']}_")] = f"{values[0]:.4g}"
    kind = "online"
    if provenance["retrospective"]:
        kind = "retrospective (uses the final model)"
        if "reference_step" in attrs:
            own = attrs["reference_run"] == provenance["hash"]
            whose = "this run" if own else "the run at the root of its history"
            kind = (
                f"retrospective (the final model is that of {whose} at step"
                f" {int(attrs['reference_step']):,})"
            )
    settings = ", ".join(f"{key}: {value}" for key, value in options.items())
    return "; ".join(part for part in (kind, settings, provenance["source"]) if part)
