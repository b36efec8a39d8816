"""Claims of a report: the level of evidence that its readings beside their nulls allow."""

from typing import Literal, NamedTuple

import numpy as np
import xarray as xr

from mi_jax.dynamics import Claim, judge, probe_claims, rule_of
from mi_jax.measuring.nulls import Nulls
from mi_jax.report.inputs import ReportInputs


class _Finding(NamedTuple):
    """A claim that a reading makes by lying beyond its null at the end of training.

    Attributes:
        name: of the reading.
        text: the claim.
        direction: the side of the null on which the reading must lie.
        null: which null: untrained networks, or other frequencies in place of the key ones.
    """

    name: str
    text: str
    direction: Literal["above", "below"]
    null: Literal["untrained", "frequencies"]


_FINDINGS = (
    _Finding(
        "gini_unembedding",
        "The unembedding is sparse in the Fourier basis",
        "above",
        "untrained",
    ),
    _Finding(
        "gini_embedding",
        "The embedding is sparse in the Fourier basis",
        "above",
        "untrained",
    ),
    _Finding(
        "logit_fve",
        "Cosines of a o b - c at the key frequencies explain the logits",
        "above",
        "frequencies",
    ),
    _Finding(
        "restricted_loss",
        "The key frequencies alone solve the task",
        "below",
        "frequencies",
    ),
    _Finding(
        "excluded_loss",
        "Without the key frequencies the network fails on the training set",
        "above",
        "frequencies",
    ),
    _Finding(
        "key_mode_share_unembedding",
        "The leading singular modes of the unembedding are waves of the key frequencies",
        "above",
        "frequencies",
    ),
    _Finding(
        "logits_explained",
        "Characters of irreps explain the logits",
        "above",
        "untrained",
    ),
    _Finding(
        "hidden_restricted_loss",
        "The key irreps of the neurons alone solve the task",
        "below",
        "frequencies",
    ),
    _Finding(
        "hidden_excluded_loss",
        "Without the key irreps of the neurons the network fails on the training set",
        "above",
        "frequencies",
    ),
    _Finding(
        "ablation_loss_null_space",
        "Neurons matter along the output directions of the key frequencies",
        "above",
        "frequencies",
    ),
)
_PROBES = {"probe_accuracy", "probe_accuracy_control", "probe_effect", "probe_effect_null"}


def claims(inputs: ReportInputs) -> list[Claim]:
    """The claims that the readings allow, each with its level of evidence.

    Args:
        inputs: readings, nulls and dates.
    """
    dataset, nulls = inputs.dataset, inputs.nulls
    stated: list[Claim] = []
    if "verdict" in inputs.dates:
        stated.append(_grokking_claim(inputs.dates))
    for finding in _FINDINGS:
        null = getattr(nulls, finding.null)
        if finding.name in dataset and finding.name in null:
            draws = null[finding.name]
            last = draws.isel(step=-1) if "step" in draws.dims else draws
            values = dataset[finding.name].isel(step=-1).values
            text = f"{finding.text} ({finding.name})"
            without = _seeds_without_null(last)
            if without:
                stated.append(Claim(text, 0, f"there is no null for the seeds {without}: {_MANY}"))
            else:
                stated.append(judge(text, values, last.values.ravel(), finding.direction))
    stated += _landscape_claims(dataset, nulls)
    if set(dataset) >= _PROBES:
        stated += probe_claims(dataset)
    return stated


_MANY = "more than half of the frequencies are key, so there are not as many others"


def _seeds_without_null(draws: xr.DataArray) -> list[int]:
    """Labels of the seeds of which a null by seed has no draw."""
    if "seed" not in draws.dims:
        return []
    empty = draws.isnull().all([dim for dim in draws.dims if dim != "seed"])
    return (
        [int(seed) for seed in empty["seed"].values[empty.values]] if "seed" in draws.coords else []
    )


def _grokking_claim(dates: xr.Dataset) -> Claim:
    """The claim that seeds grokked, with the number of those that did."""
    grokked, rule = int((dates["verdict"] == "grokked").sum()), rule_of(dates.attrs)
    distance = "times the step of" if rule.unit == "ratio" else "steps after"
    return Claim(
        f"The network groks: test accuracy reaches {rule.level:g} at {rule.gap:,g} {distance}"
        " training accuracy or later",
        0,
        f"observed in {grokked} of {dates.sizes['seed']} seeds; there is no null to compare a date"
        " with",
    )


def _landscape_claims(dataset: xr.Dataset, nulls: Nulls) -> list[Claim]:
    """Claims that the learning coefficient and the sharpness at the end exceed those of untrained
    networks.

    The last snapshot is judged, not the largest of all: a maximum over many snapshots exceeds a
    few single draws of the same distribution almost always.
    """
    stated: list[Claim] = []
    null = nulls.expensive
    if "learning_coefficient" in dataset and "learning_coefficient" in null:
        text = (
            "The learning coefficient ends above that of untrained networks (learning_coefficient;"
            " an estimate whose steps are too large counts for nothing)"
        )
        estimates = dataset["learning_coefficient"].where(~_overestimated(dataset))
        values = estimates.isel(step=-1).values
        draws = null["learning_coefficient"].where(~_overestimated(null)).values
        if np.isfinite(draws).any():
            stated.append(judge(text, values, draws[np.isfinite(draws)], "above"))
    if "sharpness" in dataset and "sharpness" in null:
        text = "Sharpness ends above that of untrained networks (sharpness)"
        values = dataset["sharpness"].isel(step=-1).values
        stated.append(judge(text, values, null["sharpness"].values, "above"))
    return stated


def _overestimated(dataset: xr.Dataset) -> xr.DataArray:
    """If a learning coefficient is estimated too large: the steps of the sampler are too large,
    or its chains diverged.
    """
    flags = ("learning_coefficient_diverged", "learning_coefficient_epsilon_too_large")
    none = xr.zeros_like(dataset["learning_coefficient"], bool)
    return sum((dataset[name].astype(bool) for name in flags if name in dataset), none)
