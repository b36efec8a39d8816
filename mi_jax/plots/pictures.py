"""Pictures of chosen snapshots: the answer surface, and the embedding on its circles."""

from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from mi_jax.plots.maps import key_labels
from mi_jax.plots.style import WIDE, styled


@styled
def answer_surface(pictures: xr.Dataset, *, seed: int) -> Figure:
    """The p x p table of answers at chosen steps: right in blue, wrong in red by margin, trained
    pairs framed in black.
    """
    surfaces = pictures["answer_surface"].sel(seed=seed)
    trained = pictures["trained_pairs"].sel(seed=seed).isel(step=0).values
    steps = surfaces["step"].values
    figure = Figure(figsize=(WIDE, WIDE / len(steps) + 1.0), layout="constrained")
    row = figure.subplots(1, len(steps), squeeze=False)[0]
    top = float(np.nanquantile(np.abs(surfaces.values), 0.99))
    for axes, step in zip(row, steps, strict=True):
        axes.imshow(
            surfaces.sel(step=step).values,
            cmap="RdBu",
            vmin=-top,
            vmax=top,
            interpolation="nearest",
            rasterized=True,
        )
        _frame(axes, trained > 0)
        axes.set_title(f"step {int(step):,}")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel("b")
    row[0].set_ylabel("a")
    figure.colorbar(
        row[0].images[0],
        ax=row,
        label="right - best wrong logit",
        location="bottom",
        fraction=0.06,
        aspect=40,
    )
    return figure


def _frame(axes: Axes, cells: np.ndarray) -> None:
    """Outlines of the marked cells, each border drawn once."""
    padded = np.pad(cells, 1)
    rows, columns = np.nonzero(padded[1:, 1:-1] != padded[:-1, 1:-1])
    level = [[(c - 0.5, r - 0.5), (c + 0.5, r - 0.5)] for r, c in zip(rows, columns, strict=True)]
    rows, columns = np.nonzero(padded[1:-1, 1:] != padded[1:-1, :-1])
    upright = [[(c - 0.5, r - 0.5), (c - 0.5, r + 0.5)] for r, c in zip(rows, columns, strict=True)]
    axes.add_collection(LineCollection([*level, *upright], colors="black", linewidths=0.15))


@styled
def embedding_circles(
    pictures: xr.Dataset, dataset: xr.Dataset, *, seed: int, most: int = 3
) -> Figure:
    """Tokens in the planes of the final key frequencies (a row each) at chosen steps; colour is the
    token's angle k t / p.
    """
    keys = key_labels(dataset, seed)[:most]
    places = pictures["circle_coordinates"].sel(seed=seed)
    steps, p = places["step"].values, places.sizes["token"]
    figure = Figure(
        figsize=(WIDE, WIDE / len(steps) * max(len(keys), 1) + 0.3), layout="constrained"
    )
    grid = figure.subplots(max(len(keys), 1), len(steps), squeeze=False)
    for number, (row, k) in enumerate(zip(grid, keys, strict=False)):
        reach = 1.1 * float(np.abs(places.sel(frequency=k).values).max())
        for axes, step in zip(row, steps, strict=True):
            _scatter(axes, places.sel(frequency=k, step=step), int(k), p, reach)
            if number == 0:
                axes.set_title(f"step {int(step):,}")
        row[0].set_ylabel(f"k = {k}")
    return figure


def _scatter(axes: Axes, places: xr.DataArray, k: int, p: int, reach: float) -> None:
    xy = places.transpose("token", "direction").values
    axes.scatter(
        xy[:, 0],
        xy[:, 1],
        c=np.arange(p) * k % p,
        cmap="twilight",
        s=7,
        lw=0.2,
        edgecolors="#777777",
    )
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-reach, reach)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])


def circle_animation(
    pictures: xr.Dataset, dataset: xr.Dataset, file: Path, *, seed: int, most: int = 3
) -> Path | None:
    """An animated GIF of ``embedding_circles``, a frame a snapshot; nothing (None) where no
    frequency is key.
    """
    keys = key_labels(dataset, seed)[:most]
    if not len(keys):
        return None
    places = pictures["circle_coordinates"].sel(seed=seed)
    p = places.sizes["token"]
    figure = Figure(figsize=(2.2 * len(keys), 2.5), layout="constrained")
    row = figure.subplots(1, len(keys), squeeze=False)[0]
    reach = [1.1 * float(np.abs(places.sel(frequency=k).values).max()) for k in keys]

    def frame(step: int) -> list[Axes]:
        for axes, k, far in zip(row, keys, reach, strict=True):
            axes.clear()
            _scatter(axes, places.sel(frequency=k, step=step), int(k), p, far)
            axes.set_title(f"k = {k}, step {int(step):,}", fontsize=9)
        return list(row)

    animation = FuncAnimation(figure, frame, frames=places["step"].values.tolist(), blit=False)
    animation.save(file, writer=PillowWriter(fps=8), dpi=80)
    return file
