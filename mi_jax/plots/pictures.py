"""Pictures of a few snapshots: the table of all answers, and the embedding on its circles."""

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
    """Draws the p x p table of answers at each step: the logit of the right answer minus the
    largest other logit, blue where the answer is right, red where it is wrong.

    Args:
        pictures: answer_surface and trained_pairs, dims (seed, step, token, token_other). Pairs of
            the training set (trained_pairs > 0) are framed in black.
        seed: the label of the seed to draw.

    Returns:
        The Figure, a panel per step.

    Example::

        measures = [PICTURES["answer_surface"], PICTURES["trained_pairs"]]  # of mi_jax.measures
        pictures = run.read(measures, run.steps[[0, -1]])
        plots.answer_surface(pictures, seed=0)
    """
    surfaces = pictures["answer_surface"].sel(seed=seed)
    trained = pictures["trained_pairs"].sel(seed=seed).isel(step=0).values
    steps = surfaces["step"].values
    figure = Figure(figsize=(WIDE, WIDE / len(steps) + 1.0), layout="constrained")
    row = figure.subplots(1, len(steps), squeeze=False)[0]
    # A few extreme logits would make all other cells pale: hence not the maximum.
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
        label="right logit - largest other logit",
        location="bottom",
        fraction=0.06,
        aspect=40,
    )
    return figure


def _frame(axes: Axes, cells: np.ndarray) -> None:
    """Outlines the marked cells, shape (row, column); a border between two is drawn once."""
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
    """Draws the tokens in the plane of each final key frequency k, a row per frequency and a
    column per step; the colour is the token's angle, k t mod p for token t.

    Args:
        pictures: circle_coordinates, dims (seed, step, frequency, token, direction).
        dataset: key_frequencies, bool, dims (seed, step, frequency); the last step counts.
        seed: the label of the seed to draw.
        most: how many key frequencies to draw.

    Returns:
        The Figure.
    """
    keys = key_labels(dataset, seed)[:most]
    tokens = pictures["circle_coordinates"].sel(seed=seed)
    steps, p = tokens["step"].values, tokens.sizes["token"]
    rows = max(len(keys), 1)
    figure = Figure(figsize=(WIDE, WIDE / len(steps) * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, len(steps), squeeze=False)
    for index, (row, k) in enumerate(zip(grid, keys, strict=False)):
        reach = _reach(tokens, int(k))
        for axes, step in zip(row, steps, strict=True):
            _draw_tokens(axes, tokens.sel(frequency=k, step=step), int(k), p, reach)
            if index == 0:
                axes.set_title(f"step {int(step):,}")
        row[0].set_ylabel(f"k = {k}")
    return figure


def _reach(tokens: xr.DataArray, k: int) -> float:
    """Half the width of the panels of a frequency: the same at all steps."""
    return 1.1 * float(np.abs(tokens.sel(frequency=k).values).max())


def _draw_tokens(axes: Axes, tokens: xr.DataArray, k: int, p: int, reach: float) -> None:
    """Draws p tokens, dims (token, direction), in the plane of frequency k."""
    xy = tokens.transpose("token", "direction").values
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
    """Writes ``embedding_circles`` as an animated GIF, one frame per step.

    Args:
        pictures: circle_coordinates, dims (seed, step, frequency, token, direction).
        dataset: key_frequencies, bool, dims (seed, step, frequency); the last step counts.
        file: the GIF to write; its folder must exist.
        seed: the label of the seed to draw.
        most: how many key frequencies to draw.

    Returns:
        The file, or None if the seed has no key frequency: then nothing is written.
    """
    keys = key_labels(dataset, seed)[:most]
    if not len(keys):
        return None
    tokens = pictures["circle_coordinates"].sel(seed=seed)
    p = tokens.sizes["token"]
    figure = Figure(figsize=(2.2 * len(keys), 2.5), layout="constrained")
    row = figure.subplots(1, len(keys), squeeze=False)[0]
    reaches = [_reach(tokens, int(k)) for k in keys]

    def draw_frame(step: int) -> list[Axes]:
        for axes, k, reach in zip(row, keys, reaches, strict=True):
            axes.clear()
            _draw_tokens(axes, tokens.sel(frequency=k, step=step), int(k), p, reach)
            axes.set_title(f"k = {k}, step {int(step):,}", fontsize=9)
        return list(row)

    animation = FuncAnimation(figure, draw_frame, frames=tokens["step"].values.tolist(), blit=False)
    animation.save(file, writer=PillowWriter(fps=8), dpi=80)
    return file
