"""Draws a report's figures (``plans``), each where its readings are there, with the data behind it."""

from pathlib import Path

import xarray as xr
from matplotlib.figure import Figure as Drawing

from mi_jax import plots
from mi_jax.dynamics import Dates, Phases
from mi_jax.measuring.merging import united
from mi_jax.measuring.nulls import Nulls
from mi_jax.report import Figure
from mi_jax.report.catalogue import plans


def draw_figures(
    folder: Path,
    dataset: xr.Dataset,
    nulls: Nulls,
    dates: Dates | None,
    phases: Phases | None,
    born: xr.DataArray | None,
    pictures: xr.Dataset,
    frames: xr.Dataset,
    lines: xr.Dataset | None = None,
    path: xr.Dataset | None = None,
) -> list[Figure]:
    """Draws every figure whose readings are there, as PNG and SVG with the data behind it, and
    returns them for the report.
    """
    followed = xr.Dataset() if lines is None else lines
    walked = xr.Dataset() if path is None else path
    apart = (pictures, followed, walked)
    held = set(dataset).union(*apart)
    empty = _empty(dataset) | _empty(followed)
    figures: list[Figure] = []
    marks = _marks(dataset, nulls, dates, phases, born)
    for plan in plans(dataset, nulls, dates, phases, born, pictures, followed, walked):
        if plan.needs <= held and not plan.needs & empty:
            drawn = plan.draw()
            files = plots.save(
                drawn if isinstance(drawn, Drawing) else drawn.figure, folder, plan.name
            )
            data = folder / f"{plan.name}.nc"
            source = next((one for one in apart if plan.needs & set(one)), dataset)
            shown = {
                name: one
                for name, one in marks.items()
                if name.removeprefix("null_") in plan.needs or name in plan.marks
            }
            # A reading and its null may count a dim differently, such as modes beside another
            # array's, which has more.
            read, marked = united([source[sorted(plan.needs & set(source))], xr.Dataset(shown)])
            _bare(read.assign(marked.data_vars)).to_netcdf(data, engine="h5netcdf")
            figures.append(Figure(plan.title, plan.caption, files["png"], plan.alt, data.name))
    if "circle_coordinates" in frames and "key_frequencies" in dataset:
        seed = int(dataset["seed"].values[0])
        film = plots.circle_animation(frames, dataset, folder / "circles.gif", seed=seed)
        if film is not None:
            _bare(frames).to_netcdf(folder / "circles_film.nc", engine="h5netcdf")
            caption = (
                "Tokens in the planes of the final key frequencies, over training; colour is the"
                " token's angle."
            )
            figures.append(
                Figure(
                    f"From noise to circles (seed {seed})",
                    caption,
                    film,
                    "An animation of tokens in planes.",
                    "circles_film.nc",
                )
            )
    return figures


def _empty(dataset: xr.Dataset) -> set[str]:
    """Readings whose picture would tell less than none: neurons of no frequency, and modes of a
    network with one output.
    """
    none = {
        name for name in ("cluster_sizes",) if name in dataset and not (dataset[name] > 0).any()
    }
    modes = ("singular_values_unembedding", "mode_value")
    return none | {name for name in modes if name in dataset and dataset[name].sizes["mode"] < 2}


def _marks(
    dataset: xr.Dataset,
    nulls: Nulls,
    dates: Dates | None,
    phases: Phases | None,
    born: xr.DataArray | None,
) -> dict[str, xr.DataArray]:
    """What figures show beside readings, by name: dates, phases, births, key frequencies, and nulls
    on dims of their own.
    """
    marks: dict[str, xr.DataArray] = {}
    for kind, draws in nulls._asdict().items():
        own = {dim: f"{dim}_{kind}" for dim in ("draw", "step") if dim in draws.dims}
        marks |= {f"null_{name}": one for name, one in draws.rename(own).data_vars.items()}
    if dates is not None:
        marks |= {"memorised": dates.memorised, "grokked": dates.grokked}
    if phases is not None:
        marks |= {name: one for name, one in phases._asdict().items() if name != "verdict"}
    if born is not None:
        marks["births"] = born
    if "key_frequencies" in dataset:
        marks["final_keys"] = dataset["key_frequencies"].isel(step=-1, drop=True)
    return marks


def _bare(dataset: xr.Dataset) -> xr.Dataset:
    """Without the long provenance, which the run's own files hold."""
    return dataset.copy().drop_attrs()
