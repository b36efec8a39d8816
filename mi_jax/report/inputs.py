"""Inputs of a report: everything that its figures, findings and tables are made from."""

import shlex
from dataclasses import dataclass, field

import xarray as xr

from mi_jax.basics.errors import RunError
from mi_jax.contracts import Measure
from mi_jax.dynamics import GROKKING, GrokkingRule, births
from mi_jax.measures import PICTURES
from mi_jax.measuring.history import OWN_SUFFIX, ReferenceChoice
from mi_jax.measuring.nulls import Nulls
from mi_jax.measuring.registry import EXPENSIVE, READINGS
from mi_jax.measuring.stored import EARLIER, LEFT_OUT
from mi_jax.report.statements import draws_for
from mi_jax.runs.across import mode_lines, weight_path
from mi_jax.runs.dates import history_curves, run_dates
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
        births: the dates from which on final key frequencies lead in the unembedding, dims
            (seed, frequency, bound): of ``dynamics.births``, over the whole history of the run.
            None without fourier_power_unembedding or key_frequencies.
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

    A fork that departs from its parent is reported on by what it learned itself: its retrospective
    readings are compared with its own last snapshot. All other runs, zooms included, are compared
    with the last snapshot of the run at the root of their history.

    Args:
        run: with stored readings (``run.measure()``).
        rule: the rule of the dates.

    Raises:
        RunError: if the run has no readings.
    """
    reference: ReferenceChoice = "own" if run.departs else "root"
    dataset = _read_dataset(run, reference)
    pictures, frames = _read_pictures(run, reference)
    lines, path = _follow(run)
    return ReportInputs(
        dataset=dataset,
        nulls=run.nulls(draws_for(dataset), reference=reference),
        dates=run_dates(run, rule, readings=dataset),
        births=_births(run, dataset),
        pictures=pictures,
        frames=frames,
        mode_lines=lines,
        weight_path=path,
    )


def _births(run: Run, dataset: xr.Dataset) -> xr.DataArray | None:
    """The births of the final key frequencies in the unembedding, over the whole history."""
    name = "fourier_power_unembedding"
    if not {name, "key_frequencies"} <= set(dataset):
        return None
    keys = dataset["key_frequencies"].isel(step=-1, drop=True)
    # Each directory by itself: their histories may begin at different steps.
    born = [
        births(curves[name], keys.sel(seed=curves["seed"].values))
        for curves in history_curves(run, dataset, [name])
    ]
    return xr.concat(born, "seed").sel(seed=dataset["seed"].values)


def _read_dataset(run: Run, reference: ReferenceChoice) -> xr.Dataset:
    """The stored readings of a run that its report shows.

    With the reference "own", retrospective readings that compare the run with its own end take the
    place of those that compare it with the root's, and are read first where they are not stored.

    Args:
        run: the run.
        reference: whose end is the final model.

    Raises:
        RunError: if the run has no readings.
    """
    dataset = run.measures
    if EARLIER in dataset.attrs:
        # Readings of old code must not stand beside nulls of new code.
        run.measure()
        dataset = run.measures
    if not dataset:
        why = "it has no readings of its snapshots yet"
        if LEFT_OUT in dataset.attrs:
            why = "all its readings are of other code, other weights or another version of jax"
        raise RunError(
            f"Cannot report on {run.path}: {why}. Run"
            f" `mi-jax measure {shlex.quote(str(run.path))}` first."
        )
    if reference == "root":
        own = [name for name in dataset if str(name).endswith(OWN_SUFFIX)]
        return dataset.drop_vars(own)
    among = {**READINGS, **EXPENSIVE}
    by_root = {measure.name for measure in run.choose(among=among)[0]}
    chosen = [
        measure
        for measure in run.choose(reference="own", among=among)[0]
        if measure.retrospective
        if _is_stored(measure, dataset)
        # Without the end of the root, the run could not be read against it.
        or (measure.name in READINGS and measure.name not in by_root)
    ]
    if chosen:
        run.measure(chosen, reference="own")
        dataset = run.measures
    replaced = [name for measure in chosen for name in measure.variables if name in dataset]
    plain = _plain(dataset.drop_vars(replaced))
    # Readings by functions of the user's, and by measures with options, are not read anew here.
    others = [
        name
        for name, variable in plain.data_vars.items()
        if "reference_run" in variable.attrs and "stored_name" not in variable.attrs
    ]
    if others:
        lines = [plain.attrs[LEFT_OUT]] if LEFT_OUT in plain.attrs else []
        lines.append(
            f"{', '.join(map(str, others))} is left out. It is compared with the end of the run"
            " that this fork descends from; the report compares with the fork's own. Measure it"
            " with reference='own'."
        )
        plain = plain.drop_vars(others).assign_attrs({LEFT_OUT: "\n".join(lines)})
    return plain


def _is_stored(measure: Measure, dataset: xr.Dataset) -> bool:
    """Whether a measure was read, whatever its final model."""
    return any(
        {f"{name}{suffix}" for name in measure.variables} <= set(dataset)
        for suffix in ("", OWN_SUFFIX)
    )


def as_stored(dataset: xr.Dataset) -> xr.Dataset:
    """Readings of a report under the names under which they are stored.

    Args:
        dataset: of ``ReportInputs``.
    """
    return dataset.rename(
        {
            name: variable.attrs["stored_name"]
            for name, variable in dataset.data_vars.items()
            if "stored_name" in variable.attrs
        }
    )


def _plain(dataset: xr.Dataset) -> xr.Dataset:
    """Readings against the run's own end under the names that they have against the root's.

    The attribute ``stored_name`` holds the name under which each is stored.
    """
    own = [str(name) for name in dataset if str(name).endswith(OWN_SUFFIX)]
    renamed = dataset.rename({name: name.removesuffix(OWN_SUFFIX) for name in own})
    for name in own:
        renamed[name.removesuffix(OWN_SUFFIX)].attrs["stored_name"] = name
    return renamed


def _read_pictures(run: Run, reference: ReferenceChoice) -> tuple[xr.Dataset, xr.Dataset]:
    """Reads what is drawn as a picture of single snapshots.

    Returns:
        (pictures, frames): every measure of PICTURES that fits the model and the task, at
        ``_PICTURED`` snapshots; and the planes of tokens at ``_FRAMES`` snapshots, for the
        animation.
    """
    measures, _ = run.choose(reference=reference, among=PICTURES)
    if not measures:
        return xr.Dataset(), xr.Dataset()
    pictures = _plain(run.read(measures, _spread(run, _PICTURED), reference=reference))
    moving = [measure for measure in measures if measure.name == "circle_coordinates"]
    if not moving:
        return pictures, xr.Dataset()
    return pictures, _plain(run.read(moving, _spread(run, _FRAMES), reference=reference))


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
