"""What a run's readings say in words and numbers: the table, the claims with their evidence, how
each was measured.
"""

import json
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import xarray as xr

from mi_jax.dynamics import AT_ONCE, RULE, Claim, Dates, Phases, interval, judge, probe_claims
from mi_jax.measuring.merging import last_step
from mi_jax.measuring.nulls import Nulls

Row = tuple[str, list[str]]

_CLAIMS: tuple[
    tuple[str, str, Literal["above", "below"], Literal["untrained", "frequencies"]], ...
] = (
    ("gini_unembedding", "The unembedding is sparse in the Fourier basis", "above", "untrained"),
    ("gini_embedding", "The embedding is sparse in the Fourier basis", "above", "untrained"),
    (
        "logit_fve",
        "Cosines of a o b - c at the key frequencies explain the logits",
        "above",
        "frequencies",
    ),
    ("restricted_loss", "The key frequencies alone solve the task", "below", "frequencies"),
    (
        "excluded_loss",
        "Without the key frequencies the training set is lost",
        "above",
        "frequencies",
    ),
    (
        "key_mode_share_unembedding",
        "The leading modes of the unembedding are the key frequencies' waves",
        "above",
        "frequencies",
    ),
    ("logits_explained", "Characters of irreps explain the logits", "above", "untrained"),
    (
        "hidden_restricted_loss",
        "The neurons' key irreps alone solve the task",
        "below",
        "frequencies",
    ),
    (
        "hidden_excluded_loss",
        "Without the neurons' key irreps the training set is lost",
        "above",
        "frequencies",
    ),
    (
        "ablation_loss_null_space",
        "Neurons matter along the key frequencies' output directions",
        "above",
        "frequencies",
    ),
)
"""By measure: the finding, on which side of its null it lies, and which null."""


def claims(
    dataset: xr.Dataset, nulls: Nulls, dates: Dates | None, phases: Phases | None = None
) -> list[Claim]:
    """The findings that the readings allow, each with its level of evidence."""
    found: list[Claim] = []
    if dates is not None:
        grokked = np.isfinite(dates.grokked.values)
        text = "Test accuracy reaches .99 after training accuracy did (grokking)"
        late = grokked & (dates.delay.values > 0) & ~_at_once(dates, phases)
        found.append(
            Claim(
                text,
                0,
                f"{int(late.sum())} of {len(grokked)} seeds; a curve has no null of its own",
            )
        )
    for name, text, direction, kind in _CLAIMS:
        null = getattr(nulls, kind)
        if name in dataset and name in null:
            last = null[name].isel(step=-1) if "step" in null[name].dims else null[name]
            found.append(
                judge(
                    f"{text} ({name})",
                    dataset[name].isel(step=-1).values,
                    last.values.ravel(),
                    direction,
                )
            )
    if "learning_coefficient" in dataset and "learning_coefficient" in nulls.expensive:
        text = (
            "At its most complex the network's loss fixes more directions than an untrained one's"
            " (largest learning_coefficient whose steps weren't too large)"
        )
        most = dataset["learning_coefficient"].where(~_too_large(dataset)).max("step").values
        fresh = nulls.expensive["learning_coefficient"].where(~_too_large(nulls.expensive)).values
        if np.isfinite(fresh).any():
            found.append(judge(text, most, fresh[np.isfinite(fresh)], "above"))
    if "sharpness" in dataset and "sharpness" in nulls.expensive:
        text = (
            "At its sharpest the loss curves more than an untrained network's (largest sharpness)"
        )
        found.append(
            judge(
                text,
                dataset["sharpness"].max("step").values,
                nulls.expensive["sharpness"].values,
                "above",
            )
        )
    if {"probe_accuracy", "probe_accuracy_control", "probe_effect", "probe_effect_null"} <= set(
        dataset
    ):
        found += probe_claims(dataset)
    return found


def _too_large(dataset: xr.Dataset) -> xr.DataArray:
    """Where finite steps or divergence make an estimate larger than it is."""
    flags = ("learning_coefficient_diverged", "learning_coefficient_epsilon_too_large")
    none = xr.zeros_like(dataset["learning_coefficient"], bool)
    return sum((dataset[name].astype(bool) for name in flags if name in dataset), none)


def summary(
    dates: Dates | None, phases: Phases | None = None, learned: xr.DataArray | None = None
) -> str:
    """The story in a sentence: which seeds memorised and grokked, learned both sets at once or the
    test set alone, and when.

    Args:
        learned: by seed, when test accuracy reached .99, of a run without a training set.
    """
    if dates is None and learned is not None:
        told = _told(
            "reached .99 test accuracy",
            "did not reach .99 test accuracy",
            learned.values,
            len(learned),
        )
        return f"This run, which has no training set to memorise, {told}."
    if dates is None:
        return "What formed, and when: readings of every snapshot of this run."
    together = _at_once(dates, phases)
    alone = np.isnan(dates.memorised.values) & np.isfinite(dates.grokked.values)
    stories = (
        ("memorised", "did not memorise", dates.memorised.values, ~together),
        ("learned the training and the test set at once", "", dates.grokked.values, together),
        ("reached .99 test accuracy without it", "", dates.grokked.values, alone),
        ("grokked", "did not grok", dates.grokked.values, ~together & ~alone),
    )
    parts = [
        _told(did, did_not, when[which], len(together))
        for did, did_not, when, which in stories
        if which.any()
    ]
    return f"This run {' and '.join(parts)}."


def _told(did: str, did_not: str, when: np.ndarray, seeds: int) -> str:
    over = interval(when)
    if not over.found:
        return did_not
    range_ = f" [{over.low:,.0f}, {over.high:,.0f}; {over.kind}]" if seeds > 1 else ""
    return f"{did} in {over.found} of {seeds} seeds, at step {over.middle:,.0f}{range_}"


def _at_once(dates: Dates, phases: Phases | None) -> np.ndarray:
    """By seed, whether no snapshot lies between memorising and generalising."""
    return (
        np.zeros(len(dates.memorised), bool) if phases is None else phases.verdict.values == AT_ONCE
    )


def numbers_table(dataset: xr.Dataset, dates: Dates | None, phases: Phases | None) -> list[Row]:
    """Rows of a label, a cell a seed, and the interval over seeds: dates, and scalars and key
    frequencies of the last step.
    """
    seeds = [str(seed) for seed in dataset["seed"].values]
    rows: list[Row] = [("seed", [*seeds, "median [interval]"])]
    if dates is not None:
        if _at_once(dates, phases).all():
            rows.append(_dated(".99 training accuracy at step", dates.memorised))
            rows.append(_dated(".99 test accuracy at step", dates.grokked))
        else:
            rows += [
                _dated("memorised at step", dates.memorised),
                _dated("grokked at step", dates.grokked),
            ]
            rows.append(_dated("delay, steps", dates.delay))
    if phases is not None:
        rows.append(("verdict", [*map(str, phases.verdict.values), ""]))
        rows.append(_dated("memorisation ends at step", phases.memorisation_end))
        rows.append(_dated("circuit formation ends at step", phases.circuit_formation_end))
        rows.append(_dated("clean-up ends at step", phases.cleanup_end))
    by_seed = [readings for _, readings in last_step(dataset)]
    for name, variable in dataset.data_vars.items():
        if variable.dims == ("seed", "step"):
            units = f", {variable.attrs['units']}" if "units" in variable.attrs else ""
            values = np.array(
                [np.nan if r[str(name)] is None else r[str(name)] for r in by_seed], np.float64
            )
            if variable.dtype == bool:
                rows.append((str(name), [*("yes" if value else "no" for value in values), ""]))
                continue
            cells = ["not finite" if np.isnan(value) else f"{value:.4g}" for value in values]
            rows.append(
                (
                    f"{name}{units}",
                    [*cells, _interval(values, lambda value: f"{value:.4g}", "not finite")],
                )
            )
        elif str(name).startswith(("key_frequencies", "key_irreps")):
            what = "irreps" if "irreps" in str(name) else "frequencies"
            rows.append(
                (str(name), [*(_listed(readings[str(name)], what) for readings in by_seed), ""])
            )
    return rows


def _dated(label: str, when: xr.DataArray) -> Row:
    cells = ["never" if np.isnan(value) else f"{value:,.0f}" for value in when.values]
    return label, [*cells, _interval(when.values, lambda value: f"{value:,.0f}", "never")]


def _interval(values: np.ndarray, shown: Callable[[float], str], none: str) -> str:
    if len(values) < 2:
        return ""
    over = interval(values)
    if not over.found:
        return none
    missing = f"; {over.found} of {over.total}" if over.found < over.total else ""
    return f"{shown(over.middle)} [{shown(over.low)}, {shown(over.high)}; {over.kind}{missing}]"


def _listed(ks: list[Any], what: str) -> str:
    return ", ".join(map(str, ks)) if len(ks) <= 12 else f"{len(ks)} {what}"


def how_measured(dataset: xr.Dataset) -> list[tuple[str, str]]:
    """By measure, with all its variables, what it is: options, source, and whether it knows the end
    of training; and the rule of the phases.
    """
    dated = {"train_accuracy", "test_accuracy", "test_loss"} <= set(dataset)
    rows: list[tuple[str, str]] = [("phases", RULE)] if dated else []
    alike: dict[tuple[str, str], list[str]] = {}
    for name, variable in dataset.data_vars.items():
        told = json.loads(variable.attrs["provenance"])
        alike.setdefault((told.get("measure", str(name)), _how(told)), []).append(str(name))
    for (_, how), (first, *others) in alike.items():
        # Of one measure the names begin alike: learning_coefficient, _se, _by_chain.
        rows.append((", ".join([first, *(name.removeprefix(first) for name in others)]), how))
    return rows


def _how(told: dict[str, Any]) -> str:
    chosen = {
        key: value for key, value in told["options"].items() if value is not None and value != []
    }
    for name, by_seed in told.get("prepared", {}).items():
        values = set(map(str, by_seed.values()))
        # What is one number for all seeds, as n and n_beta, not keys or examples.
        if len(values) == 1 and isinstance(next(iter(by_seed.values())), (int, float)):
            chosen[name.removeprefix(f"{told['measure']}_")] = f"{next(iter(by_seed.values())):.4g}"
    options = ", ".join(f"{key}: {value}" for key, value in chosen.items())
    kind = "retrospective (uses the final model)" if told["retrospective"] else "online"
    return "; ".join(part for part in (kind, options, told["source"]) if part)
