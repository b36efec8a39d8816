"""The readings that no other figure shows."""

import xarray as xr

from mi_jax import plots
from mi_jax.report.catalogue.plan import FigurePlan
from mi_jax.report.inputs import ReportInputs

_COMPARED = {
    "cka_final",
    "procrustes_final",
    "loss_barrier_train_final",
    "loss_barrier_test_final",
    "subspace_angle_embedding_final",
    "subspace_angle_unembedding_final",
}
"""Comparisons with the final model, whose null compares two untrained networks."""


def parts(inputs: ReportInputs, shown: set[str]) -> list[FigurePlan]:
    """Readings of heads, matrices and concepts.

    Args:
        inputs: of the report.
        shown: the variables that other figures show.
    """
    dataset, seed = inputs.dataset, inputs.first_seed
    names = []
    for name, values in dataset.data_vars.items():
        dims = {str(dim) for dim in values.dims} - {"seed", "step"}
        # A number by mode alone is a spectrum, of which ``part_panels`` would show one value.
        drawable = values.dtype.kind == "f" and bool(dims - {"mode"}) and dims <= plots.PARTS
        if drawable and str(name) not in shown:
            names.append(str(name))
    if not names:
        return []
    nulls = _nulls_by_name(inputs).items()
    null = {
        name: draws for name, draws in nulls if "draw" in draws.dims and "step" not in draws.dims
    }
    return [
        FigurePlan(
            "parts",
            f"Readings by head, matrix and concept (seed {seed})",
            "The parts with the largest values at the end are in colour, all others in grey. Only"
            " the last site before the outputs is shown, and only the largest singular value."
            " Bands, where there is such a null: untrained networks (range over random draws and"
            " all parts).",
            "One panel per reading against the step, one line per part.",
            set(names),
            lambda: plots.part_panels(dataset, names, seed=seed, null=null),
        )
    ]


def readings(inputs: ReportInputs, shown: set[str]) -> list[FigurePlan]:
    """Scalar readings beside their nulls.

    Args:
        inputs: of the report.
        shown: the variables that other figures show.
    """
    dataset = inputs.dataset
    null = _nulls_by_name(inputs)
    scalars = [
        str(name) for name, values in dataset.data_vars.items() if values.dims == ("seed", "step")
    ]
    names = [name for name in scalars if name not in shown and name in null]
    if not names:
        return []
    other = ""
    if set(names) & _COMPARED:
        other += "; for comparisons with the final model, between two untrained networks"
    if set(names) & set(inputs.nulls.frequencies):
        other += ", or with other frequencies in place of the key ones"
    return [
        FigurePlan(
            "readings",
            "Every other reading beside its null",
            f"Line styles are seeds. Bands: the same reading of untrained networks{other} (range"
            " over random draws).",
            "One small panel per reading against the step.",
            set(names),
            lambda: plots.reading_panels(dataset, names, null=null),
        )
    ]


def _nulls_by_name(inputs: ReportInputs) -> dict[str, xr.DataArray]:
    """The nulls that figures draw, by reading."""
    return {
        str(name): draws
        for kind in inputs.nulls.bands.values()
        for name, draws in kind.data_vars.items()
    }
