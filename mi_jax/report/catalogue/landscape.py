"""The loss landscape around the checkpoints: learning coefficients and sharpness."""

import json
import re

import numpy as np
import xarray as xr

from mi_jax import plots
from mi_jax.report.catalogue.plan import FigurePlan, seed_note
from mi_jax.report.inputs import ReportInputs

_ALT = "Loss above, learning coefficient below, over the same steps."
_BAND = " Band: untrained networks (range over random draws)."


def learning_coefficient(inputs: ReportInputs) -> list[FigurePlan]:
    """The learning coefficient of the training loss, with the default options."""
    name, dataset, null = "learning_coefficient", inputs.dataset, inputs.nulls.expensive
    band = _BAND if name in null else ""
    return [
        FigurePlan(
            name,
            "The learning coefficient beside the loss",
            "Local learning coefficient of the training loss, estimated by localised SGLD"
            f"{_protocol(dataset, name)}, with one standard error. Hollow: flagged (the steps of"
            " the sampler are too large, its chains disagree or diverged, or the estimate is"
            f" negative).{_confined(dataset, name)}{band}{seed_note(inputs)}",
            _ALT,
            {name, f"{name}_se"},
            lambda: plots.learning_coefficient_curves(dataset, null=null.get(name)),
            shows=_variants(dataset),
        )
    ]


def sharpness(inputs: ReportInputs) -> list[FigurePlan]:
    """The largest eigenvalue of the Hessian."""
    dataset, null = inputs.dataset, inputs.nulls.expensive
    threshold = _edge_of_stability(dataset)
    edge = ""
    if threshold is not None:
        edge = (
            f" Dashed: 2/eta = {threshold:.3g}, above which plain gradient descent with learning"
            " rate eta diverges on a quadratic."
        )
    band = _BAND if "sharpness" in null else ""
    return [
        FigurePlan(
            "sharpness",
            "Sharpness",
            "Largest eigenvalue of the Hessian of the training loss (by the Lanczos method)."
            f"{edge}{band}{seed_note(inputs)}",
            "The largest Hessian eigenvalue over training.",
            {"sharpness"},
            lambda: plots.sharpness_curves(
                dataset, threshold=threshold, null=null.get("sharpness")
            ),
        )
    ]


def learning_coefficient_variants(inputs: ReportInputs) -> list[FigurePlan]:
    """Learning coefficients with other options, each in a figure of its own: of some parameters or
    examples, or with another protocol.
    """
    dataset = inputs.dataset
    return [
        _variant(inputs, name)
        for name in _variants(dataset)
        if f"{name}_se" in dataset and f"{name}_loss_trace" in dataset
    ]


def _variants(dataset: xr.Dataset) -> tuple[str, ...]:
    """Learning coefficients with options, and the diagnostics of all."""
    names = (str(name) for name in dataset.data_vars)
    return tuple(name for name in names if name.startswith("learning_coefficient_"))


def _variant(inputs: ReportInputs, name: str) -> FigurePlan:
    """The figure of a learning coefficient whose name states its options."""
    dataset = inputs.dataset
    return FigurePlan(
        # The name of a reading may hold characters that file names may not, such as "*".
        re.sub(r"[^\w.+=-]", "_", name),
        f"{name} beside the loss",
        "Local learning coefficient with other options than the default ones"
        f"{_protocol(dataset, name)}. Hollow: flagged.{_confined(dataset, name)}"
        f"{seed_note(inputs)}",
        _ALT,
        {name, f"{name}_se"},
        lambda: plots.learning_coefficient_curves(dataset, name=name),
    )


def _confined(dataset: xr.Dataset, name: str) -> str:
    """The sentence that counts the estimates that depend more on gamma than on the loss."""
    if f"{name}_localisation" not in dataset:
        return ""
    shares = dataset[f"{name}_localisation"].values
    count, total = int((shares > 0.5).sum()), int(np.isfinite(shares).sum())
    if not count:
        return ""
    return (
        f" In {count} of {total} estimates the localisation gamma confines the chains more than the"
        f" loss does ({name}_localisation above .5)."
    )


def _protocol(dataset: xr.Dataset, name: str) -> str:
    """The options of an estimate, in brackets: its value depends on them."""
    provenance = dataset[name].attrs.get("provenance") if name in dataset else None
    if not provenance:
        return ""
    record = json.loads(provenance)
    options = {key: value for key, value in record["options"].items() if value not in (None, [])}
    temperatures = list(record.get("prepared", {}).get(f"{name}_n_beta", {}).values())
    if temperatures:
        options["n_beta"] = f"{temperatures[0]:.4g}"
    if not options:
        return ""
    return f" ({', '.join(f'{key} {value}' for key, value in options.items())})"


def _edge_of_stability(dataset: xr.Dataset) -> float | None:
    """2 / eta of the experiment that was measured; None if its optimizer has no single positive
    learning rate.
    """
    provenance = json.loads(dataset.attrs.get("provenance", "{}"))
    rate = provenance.get("experiment", {}).get("optimizer", {}).get("learning_rate")
    return 2 / rate if isinstance(rate, (int, float)) and rate > 0 else None
