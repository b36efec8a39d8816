"""Draws the figures of a report, each with a file of the data behind it."""

from pathlib import Path

import xarray as xr
from matplotlib.figure import Figure as Drawing

from mi_jax import plots
from mi_jax.dynamics import DATES
from mi_jax.measuring.merging import united
from mi_jax.report.catalogue import FigurePlan, plans
from mi_jax.report.inputs import ReportInputs, as_stored
from mi_jax.report.page import Figure


def draw_figures(folder: Path, inputs: ReportInputs) -> list[Figure]:
    """Draws every figure of the catalogue whose readings there are, as PNG and SVG, and stores the
    data behind each as NetCDF.

    Args:
        folder: where the files go; it is created if there is a figure to draw.
        inputs: readings, nulls and dates.

    Returns:
        The figures in the order of the report.
    """
    readings = set(inputs.dataset).union(inputs.pictures, inputs.mode_lines, inputs.weight_path)
    empty = _empty(inputs.dataset) | _empty(inputs.mode_lines)
    marks = _marks(inputs)
    figures = [
        _draw(plan, folder, inputs, marks)
        for plan in plans(inputs)
        if plan.needs <= readings and not plan.needs & empty
    ]
    animation = _draw_animation(folder, inputs)
    if animation is not None:
        figures.append(animation)
    return figures


def _draw(
    plan: FigurePlan, folder: Path, inputs: ReportInputs, marks: dict[str, xr.DataArray]
) -> Figure:
    """Draws a figure and stores its data: its readings, their nulls, and what is marked on it."""
    drawn = plan.draw()
    drawing = drawn if isinstance(drawn, Drawing) else drawn.figure
    files = plots.save(drawing, folder, plan.name)
    apart = (inputs.pictures, inputs.mode_lines, inputs.weight_path)
    source = next((other for other in apart if plan.needs & set(other)), inputs.dataset)
    shown = {
        name: values
        for name, values in marks.items()
        if name.removeprefix("null_") in plan.needs or name in plan.marks
    }
    # A reading and its null may differ in the length of a dim: beside another array's singular
    # values, a reading has more modes than its null. ``united`` fills up with NaN.
    readings, marked = united([source[sorted(plan.needs & set(source))], xr.Dataset(shown)])
    data = folder / f"{plan.name}.nc"
    _write(readings.assign(marked.data_vars), data)
    return Figure(plan.title, plan.caption, files["png"], plan.alt, data.name)


def _draw_animation(folder: Path, inputs: ReportInputs) -> Figure | None:
    """Draws the animation of tokens in the planes of the key frequencies; None if there are
    no frames or no key frequencies.
    """
    frames, dataset = inputs.frames, inputs.dataset
    if "circle_coordinates" not in frames or "key_frequencies" not in dataset:
        return None
    seed = inputs.first_seed
    file = plots.circle_animation(frames, dataset, folder / "circles.gif", seed=seed)
    if file is None:
        return None
    data = folder / "circles_film.nc"
    _write(frames, data)
    return Figure(
        f"The circles forming over training (seed {seed})",
        "Embedded tokens in the planes of the final key frequencies, over training; the colour is"
        " the token's angle.",
        file,
        "An animation of tokens in planes.",
        data.name,
    )


def _empty(dataset: xr.Dataset) -> set[str]:
    """Readings whose figure would be empty or misleading: clusters where no neuron is in one, and
    modes of a network with a single output.
    """
    names = set()
    if "cluster_sizes" in dataset and not (dataset["cluster_sizes"] > 0).any():
        names.add("cluster_sizes")
    for name in ("singular_values_unembedding", "mode_value"):
        if name in dataset and dataset[name].sizes["mode"] < 2:
            names.add(name)
    return names


def _marks(inputs: ReportInputs) -> dict[str, xr.DataArray]:
    """Everything that figures draw beside readings, by name: dates, births, final key frequencies,
    and the draws of the nulls.
    """
    marks: dict[str, xr.DataArray] = {}
    for kind, draws in inputs.nulls.bands.items():
        # Nulls of different kinds have different numbers of draws and other steps than readings.
        renamed = {dim: f"{dim}_{kind}" for dim in ("draw", "step") if dim in draws.dims}
        for name, values in draws.rename(renamed).data_vars.items():
            marks[f"null_{name}"] = values
    marks |= {name: inputs.dates[name] for name in DATES if name in inputs.dates}
    if inputs.births is not None:
        marks["births"] = inputs.births
    if "key_frequencies" in inputs.dataset:
        marks["final_keys"] = inputs.dataset["key_frequencies"].isel(step=-1, drop=True)
    return marks


def _write(dataset: xr.Dataset, file: Path) -> None:
    """Stores the data of a figure under the names of the stored readings, without attributes: the
    provenance is long, and the run's own files hold it.
    """
    stored = as_stored(dataset)
    names = dict(zip(map(str, dataset), map(str, stored), strict=True))
    nulls = {
        name: f"null_{names[name.removeprefix('null_')]}"
        for name in names
        if name.startswith("null_") and name.removeprefix("null_") in names
    }
    stored.rename(nulls).drop_attrs().to_netcdf(file, engine="h5netcdf")
