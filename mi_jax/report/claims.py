"""Claims of a report: the level of evidence that its readings beside their nulls allow."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from mi_jax.dynamics import Claim, ClaimTest, judge_page, probe_tests, rule_of
from mi_jax.dynamics.evidence import opposed, shared_draws_test
from mi_jax.dynamics.significance import (
    joint_draws_p,
    own_draws_p,
    seed_p_values,
    smallest_p,
)
from mi_jax.measuring.nulls import Nulls
from mi_jax.report.inputs import ReportInputs
from mi_jax.report.statements import PROBES, STATEMENTS, Statement


def claims(inputs: ReportInputs) -> list[Claim]:
    """The claims that the readings allow, each with its level of evidence.

    All that are tested are judged together (``dynamics.judge_page``), so that at most one page in
    twenty with nothing to find makes any of these claims.

    Args:
        inputs: readings, nulls and dates.
    """
    stated: list[Claim] = []
    if "verdict" in inputs.dates:
        stated.append(_grokking_claim(inputs.dates))
    return stated + judge_page(claim_tests(inputs.dataset, inputs.nulls))


def findings_json(stated: Sequence[Claim], dataset: xr.Dataset) -> list[dict[str, Any]]:
    """The claims as JSON values, those that are only observed included.

    Args:
        stated: the claims of a report.
        dataset: its readings, which say under which names they are stored.

    Returns:
        For each claim its sentence (``claim``), ``reading``, ``level`` from 0 to 4, ``p`` (None if
        it was not tested) and whether it is ``supported``.
    """
    return [
        {
            "claim": claim.text,
            "reading": _stored_name(claim.reading, dataset),
            "level": claim.level,
            "p": claim.p,
            "supported": claim.supported,
        }
        for claim in stated
    ]


def _stored_name(reading: str, dataset: xr.Dataset) -> str:
    return dataset[reading].attrs.get("stored_name", reading) if reading in dataset else reading


def claim_tests(dataset: xr.Dataset, nulls: Nulls) -> list[ClaimTest]:
    """The tested claims of a run, before they are judged together.

    Args:
        dataset: the readings, dims (seed, step, ...); the last snapshot is judged, never a largest
            value over snapshots, which exceeds single draws of the same distribution by chance.
        nulls: readings where there is nothing to find.
    """
    tested = [
        _test(statement, dataset, getattr(nulls, statement.null)[statement.reading])
        for statement in STATEMENTS
        if statement.null != "expensive"
        if statement.reading in dataset and statement.reading in getattr(nulls, statement.null)
    ]
    tested += _landscape_tests(dataset, nulls)
    if set(dataset) >= PROBES:
        tested += probe_tests(dataset)
    return tested


_MANY = "more than half of the frequencies are key, so that they would explain anything"


def _test(statement: Statement, dataset: xr.Dataset, null: xr.DataArray) -> ClaimTest:
    """The test of a statement whose null has draws of every seed, dims (seed, draw)."""
    reading, direction = statement.reading, statement.direction
    text = f"{statement.text} ({reading})"
    values = dataset[reading].isel(step=-1).values.astype(np.float64)
    draws = null.values.astype(np.float64)
    without = _labels(null, np.isnan(draws).all(axis=1) & ~np.isnan(values))
    if without:
        reason = f"there is no null for the seeds {without}: {_MANY}"
        return ClaimTest(text, reading, None, len(values), reason)
    if statement.size and statement.size not in dataset:
        reason = f"{statement.size} was not read, so that its size is unknown"
        return ClaimTest(text, reading, None, len(values), reason)
    each = seed_p_values(values, draws, direction)
    joint = statement.null == "renamed"
    p = (joint_draws_p if joint else own_draws_p)(values, draws, direction)
    count, beyond = draws.shape[1], int((each <= 1 / (draws.shape[1] + 1) + 1e-12).sum())
    if joint:
        changed, under = f"{count} random orders of the elements", "in random order"
    else:
        changed, under = f"{count} random relabellings of their own answers", "relabelled"
    middle = np.nanmedian(draws)
    reason = (
        f"{beyond} of {len(values)} seeds lie {direction} all {changed}; median"
        f" {np.median(values):.3g}, {under} {middle:.3g}"
    )
    if joint and middle == 0:
        reason = f"{reason} (counted as 0 where more than half of the frequencies are key)"
    small, opposite = _too_small(statement, dataset)
    if small:
        reason = f"{small}; {reason}"
    elif statement.least:
        reason = f"{reason}; {statement.size} is at least {statement.least:g} in every seed"
    return ClaimTest(
        text,
        reading,
        p,
        len(values),
        reason,
        large_enough=not small,
        contradicted=opposite or opposed(values, draws, direction),
        smallest_p=smallest_p(values, draws, joint=joint),
    )


def _labels(null: xr.DataArray, chosen: np.ndarray) -> list[int]:
    """Labels of the chosen seeds."""
    return [int(seed) for seed in null["seed"].values[chosen]]


def _too_small(statement: Statement, dataset: xr.Dataset) -> tuple[str, bool]:
    """Tells where a reading is smaller than the statement.

    Returns:
        A half sentence, empty where the reading is large enough in every seed; and whether some
        seed has a reading that is too small. A reading that is not finite is not large enough, but
        it does not contradict the statement.
    """
    if not statement.size:
        return "", False
    shares = dataset[statement.size].isel(step=-1).values
    small, unknown = int((shares < statement.least).sum()), int(np.isnan(shares).sum())
    if small:
        return (
            f"{statement.size} is below {statement.least:g} in {small} of {len(shares)} seeds"
            f" (least {np.nanmin(shares):.2g}), too little for the sentence"
        ), True
    if unknown:
        return f"{statement.size} is not finite in {unknown} of {len(shares)} seeds", False
    return "", False


def _grokking_claim(dates: xr.Dataset) -> Claim:
    """The claim that seeds grokked, with the number of those that did."""
    grokked, rule = int((dates["verdict"] == "grokked").sum()), rule_of(dates.attrs)
    distance = "times the step of" if rule.unit == "ratio" else "steps after"
    undecided = bool((dates["verdict"] == "undecided").any())
    return Claim(
        f"The network groks: test accuracy reaches {rule.level:g} at {rule.gap:,g} {distance}"
        " training accuracy or later",
        0,
        f"observed in {grokked} of {dates.sizes['seed']} seeds; there is no null to compare a date"
        " with",
        reading="generalised",
        contradicted=not grokked and not undecided,
    )


def _landscape_tests(dataset: xr.Dataset, nulls: Nulls) -> list[ClaimTest]:
    """Tests that the learning coefficient and the sharpness at the end exceed those of untrained
    networks.
    """
    tested: list[ClaimTest] = []
    for statement in STATEMENTS:
        name, null = statement.reading, nulls.expensive
        if statement.null != "expensive" or name not in dataset or name not in null:
            continue
        text, readings, draws = f"{statement.text} ({name})", dataset[name], null[name]
        if name == "learning_coefficient":
            text = f"{text[:-1]}; an estimate whose steps are too large counts for nothing)"
            readings = readings.where(~_overestimated(dataset))
            draws = draws.where(~_overestimated(null))
        values = readings.isel(step=-1).values
        tested.append(shared_draws_test(text, name, values, draws.values, statement.direction))
    return tested


def _overestimated(dataset: xr.Dataset) -> xr.DataArray:
    """If a learning coefficient is estimated too large: the steps of the sampler are too large,
    or its chains diverged.
    """
    flags = ("learning_coefficient_diverged", "learning_coefficient_epsilon_too_large")
    none = xr.zeros_like(dataset["learning_coefficient"], bool)
    return sum((dataset[name].astype(bool) for name in flags if name in dataset), none)
