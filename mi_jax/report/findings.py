"""Results of a report in words and numbers: the summary, the table of numbers, and how each reading
was measured.
"""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from mi_jax.dynamics import AT_ONCE, RULE, Dates, Phases, interval
from mi_jax.measuring.merging import last_step

Row = tuple[str, list[str]]
"""A row of the table: its label, and a cell per column."""


def summary(
    dates: Dates | None, phases: Phases | None = None, learned: xr.DataArray | None = None
) -> str:
    """The story of a run in a sentence: how many seeds memorised, grokked, learned both sets at
    once or the test set alone, and when.

    Args:
        dates: the steps at which each seed memorised and grokked.
        phases: tells seeds that learned both sets at once from those that grokked.
        learned: of a run without a training set, the step at which each seed reached .99 test
            accuracy, dims (seed).
    """
    if dates is None and learned is not None:
        outcome = _outcome(
            "reached .99 test accuracy",
            "did not reach .99 test accuracy",
            learned.values,
            len(learned),
        )
        return f"This run, which has no training set to memorise, {outcome}."
    if dates is None:
        return "Readings of every snapshot of this run: what formed, and when."
    together = at_once(dates, phases)
    alone = np.isnan(dates.memorised.values) & np.isfinite(dates.grokked.values)
    # Each story with the dates that it reads and the seeds that it is about.
    stories = (
        ("memorised", "did not memorise", dates.memorised.values, ~together),
        ("learned the training and the test set at once", "", dates.grokked.values, together),
        ("reached .99 test accuracy without memorising", "", dates.grokked.values, alone),
        ("grokked", "did not grok", dates.grokked.values, ~together & ~alone),
    )
    outcomes = [
        _outcome(did, did_not, steps[seeds], len(together))
        for did, did_not, steps, seeds in stories
        if seeds.any()
    ]
    *first, last = outcomes
    return f"This run {', '.join(first)} and {last}." if first else f"This run {last}."


def _outcome(did: str, did_not: str, steps: np.ndarray, seeds: int) -> str:
    """``did`` with the number of seeds and the median step; ``did_not`` if no seed has one."""
    over = interval(steps)
    if not over.found:
        return did_not
    if seeds == 1:
        return f"{did} at step {over.middle:,.0f}"
    ends = "" if over.kind == "none" else f" [{over.low:,.0f}, {over.high:,.0f}; {over.label}]"
    return f"{did} in {over.found} of {seeds} seeds (median step {over.middle:,.0f}{ends})"


def at_once(dates: Dates, phases: Phases | None) -> np.ndarray:
    """Whether a seed memorised and generalised with no snapshot in between, shape (seed,)."""
    if phases is None:
        return np.zeros(len(dates.memorised), bool)
    return phases.verdict.values == AT_ONCE


def numbers_table(dataset: xr.Dataset, dates: Dates | None, phases: Phases | None) -> list[Row]:
    """The table of numbers: dates, and the scalars and key frequencies of the last snapshot.

    Args:
        dataset: the readings, dims (seed, step, ...).
        dates: the steps at which each seed memorised and grokked.
        phases: the ends of the phases of each seed.

    Returns:
        The rows. Each is a label and its cells: one per seed, then the median and interval over
        seeds. The first row is the header.
    """
    seeds = [str(seed) for seed in dataset["seed"].values]
    rows: list[Row] = [("seed", [*seeds, "median [interval]"])]
    if dates is not None and at_once(dates, phases).all():
        rows.append(_date_row(".99 training accuracy at step", dates.memorised))
        rows.append(_date_row(".99 test accuracy at step", dates.grokked))
    elif dates is not None:
        rows.append(_date_row("memorised at step", dates.memorised))
        rows.append(_date_row("grokked at step", dates.grokked))
        rows.append(_date_row("delay, steps", dates.delay))
    if phases is not None:
        rows.append(("verdict", [*map(str, phases.verdict.values), ""]))
        rows.append(_date_row("memorisation ends at step", phases.memorisation_end))
        rows.append(_date_row("circuit formation ends at step", phases.circuit_formation_end))
        rows.append(_date_row("clean-up ends at step", phases.cleanup_end))
    by_seed = [readings for _, readings in last_step(dataset)]
    for name, variable in dataset.data_vars.items():
        values: list[Any] = [readings[str(name)] for readings in by_seed]
        if variable.dims == ("seed", "step"):
            rows.append(_scalar_row(str(name), variable, values))
        elif str(name).startswith(("key_frequencies", "key_irreps")):
            plural = "irreps" if "irreps" in str(name) else "frequencies"
            rows.append((str(name), [*(_listed(keys, plural) for keys in values), ""]))
    return rows


def _scalar_row(name: str, variable: xr.DataArray, by_seed: list[Any]) -> Row:
    """A scalar of the last snapshot; None and NaN are "not finite", flags "yes" or "no"."""
    if variable.dtype == bool:
        return name, [*("yes" if value else "no" for value in by_seed), ""]
    label = f"{name}, {variable.attrs['units']}" if "units" in variable.attrs else name
    values = np.array([np.nan if value is None else value for value in by_seed], np.float64)
    return label, _cells(values, lambda value: f"{value:.4g}", "not finite")


def _date_row(label: str, steps: xr.DataArray) -> Row:
    """Steps at which something happened; NaN is "never"."""
    return label, _cells(steps.values, lambda value: f"{value:,.0f}", "never")


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
        Pairs of a measure's variables and the text, after the rule of the phases if they can
        be dated. All variables of a measure stand in one pair.
    """
    dated = {"train_accuracy", "test_accuracy", "test_loss"} <= set(dataset)
    rows: list[tuple[str, str]] = [("phases", RULE)] if dated else []
    groups: dict[tuple[str, str], list[str]] = {}
    for name, variable in dataset.data_vars.items():
        provenance = json.loads(variable.attrs["provenance"])
        key = (provenance.get("measure", str(name)), _description(provenance))
        groups.setdefault(key, []).append(str(name))
    for (_, description), (first, *others) in groups.items():
        # The names of one measure begin alike: learning_coefficient, _se, _by_chain.
        names = ", ".join([first, *(name.removeprefix(first) for name in others)])
        rows.append((names, description))
    return rows


def _description(provenance: dict[str, Any]) -> str:
    """The text of ``how_measured`` for one variable."""
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
    kind = "retrospective (uses the final model)" if provenance["retrospective"] else "online"
    settings = ", ".join(f"{key}: {value}" for key, value in options.items())
    return "; ".join(part for part in (kind, settings, provenance["source"]) if part)
