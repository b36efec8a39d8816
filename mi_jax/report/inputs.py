"""Inputs of a report: everything that its figures, findings and tables are made from."""

from dataclasses import dataclass, field

import xarray as xr

from mi_jax.basics.errors import RunError
from mi_jax.dynamics import GROKKING, GrokkingRule, births
from mi_jax.measures import PICTURES
from mi_jax.measuring.nulls import Nulls
from mi_jax.measuring.stored import EARLIER
from mi_jax.report.statements import draws_for
from mi_jax.runs.across import mode_lines, weight_path
from mi_jax.runs.dates import run_dates
from mi_jax.runs.run import Run

_PICTURED = 5
"""Snapshots in a figure of pictures."""
_FRAMES = 40
"""Snapshots in an animation."""
_FOLLOWED = 4
"""Snapshots that a run needs for its modes and its path to be followed."""


@dataclass(frozen=True)
class ReportInputs:
    """Readings of a run and what is derived from them. What a run does not allow is None or an
    empty dataset.

    Attributes:
        dataset: the stored readings, dims (seed, step, ...).
        nulls: the readings where there is nothing to find.
        dates: the dates of every seed, dims (seed, bound), and its verdict: of
            ``runs.dates.run_dates``. Empty without test_accuracy; ``generalised`` alone without
            train_accuracy.
        births: the steps from which on final key frequencies lead in the unembedding, dims
            (seed, frequency); None without fourier_power_unembedding or key_frequencies.
        pictures: tables of answers and planes of tokens at five snapshots.
        frames: planes of tokens at up to 40 snapshots, for the animation.
        mode_lines: singular modes of the unembedding followed through training; see
            ``runs.across.mode_lines``.
        weight_path: principal components of the parameters; see ``runs.across.weight_path``.
    """

    dataset: xr.Dataset
    nulls: Nulls = field(default_factory=lambda: Nulls(xr.Dataset(), xr.Dataset()))
    dates: xr.Dataset = field(default_factory=xr.Dataset)
    births: xr.DataArray | None = None
    pictures: xr.Dataset = field(default_factory=xr.Dataset)
    frames: xr.Dataset = field(default_factory=xr.Dataset)
    mode_lines: xr.Dataset = field(default_factory=xr.Dataset)
    weight_path: xr.Dataset = field(default_factory=xr.Dataset)

    @property
    def first_seed(self) -> int:
        """The label of the seed that figures of a single seed show."""
        return int(self.dataset["seed"].values[0])


def read_inputs(run: Run, rule: GrokkingRule = GROKKING) -> ReportInputs:
    """Gathers the inputs of a run's report: the only part of a report that reads the run's arrays.

    Args:
        run: with stored readings (``run.measure()``).
        rule: the rule of the dates.

    Raises:
        RunError: if the run has no readings.
    """
    dataset = run.measures
    if EARLIER in dataset.attrs:
        # Readings of old code must not stand beside nulls of new code.
        run.measure()
        dataset = run.measures
    if not dataset:
        raise RunError(
            f"Cannot report on {run.path}: it has no readings of its snapshots yet. Run `mi-jax"
            f" measure {run.path}` first."
        )
    readings = set(dataset)
    born = None
    if {"fourier_power_unembedding", "key_frequencies"} <= readings:
        keys = dataset["key_frequencies"].isel(step=-1, drop=True)
        born = births(dataset["fourier_power_unembedding"], keys)
    pictures, frames = _read_pictures(run)
    lines, path = _follow(run)
    return ReportInputs(
        dataset=dataset,
        nulls=run.nulls(draws_for(dataset)),
        dates=run_dates(run, rule, readings=dataset),
        births=born,
        pictures=pictures,
        frames=frames,
        mode_lines=lines,
        weight_path=path,
    )


def _read_pictures(run: Run) -> tuple[xr.Dataset, xr.Dataset]:
    """Reads what is drawn as a picture of single snapshots.

    Returns:
        (pictures, frames): every measure of PICTURES that fits the model and the task, at
        ``_PICTURED`` snapshots; and the planes of tokens at ``_FRAMES`` snapshots, for the
        animation.
    """
    measures, _ = run.choose(among=PICTURES)
    if not measures:
        return xr.Dataset(), xr.Dataset()
    pictures = run.read(measures, _spread(run, _PICTURED))
    moving = [measure for measure in measures if measure.name == "circle_coordinates"]
    frames = run.read(moving, _spread(run, _FRAMES)) if moving else xr.Dataset()
    return pictures, frames


def _spread(run: Run, count: int) -> list[int]:
    """The steps of ``count`` snapshots evenly along the stored ones, each once."""
    steps = run.steps
    last = len(steps) - 1
    return [int(steps[i]) for i in sorted({round(i * last / (count - 1)) for i in range(count)})]


def _follow(run: Run) -> tuple[xr.Dataset, xr.Dataset]:
    """Follows the unembedding and the parameters through training.

    Returns:
        (mode lines of the unembedding, path of the parameters). The first is empty if the model has
        no output_map. Both are empty if the run has fewer than ``_FOLLOWED`` snapshots.
    """
    if len(run.steps) < _FOLLOWED:
        return xr.Dataset(), xr.Dataset()
    stack, lines = run.stack(), xr.Dataset()
    if run.subject.model.roles.output_map is not None:
        lines = mode_lines(run, stack=stack)
    return lines, weight_path(run, stack=stack)
