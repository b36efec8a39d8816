"""Readings of a trajectory, stored in the run with their provenance, and reused until something
that they depend on changes.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from mi_jax.basics.dims import Params
from mi_jax.basics.errors import MeasureError, RunError
from mi_jax.basics.modules import not_imported
from mi_jax.contracts import Measure, Reference
from mi_jax.contracts.measure import Subject
from mi_jax.measuring.files import (
    SOURCE_GONE,
    Recipe,
    cached,
    content_key,
    is_followed,
    load_dataset,
    provenance_of,
    recipe_of,
    stale,
    weights_digest,
    write_dataset,
)
from mi_jax.measuring.history import OWN_SUFFIX, History, ReferenceChoice
from mi_jax.measuring.labelling import labelled
from mi_jax.measuring.merging import joined
from mi_jax.measuring.program import Reader, Watch, make_context, read_trajectory
from mi_jax.measuring.sources import still_defined
from mi_jax.training.trajectory import Trajectory

LEFT_OUT = "left_out"
"""Attr of a dataset of stored readings: sentences about those that were left out, one a line."""

EARLIER = "earlier_version"
"""Attr of a dataset whose readings an earlier version stored: a sentence that says so."""

_SAID: set[str] = set()
"""Sentences that the log has already."""

log = logging.getLogger(__name__)


def measure_trajectory(
    trajectory: Trajectory,
    subject: Subject,
    measures: Sequence[Measure],
    provenance: Mapping[str, Any],
    watch: Watch = lambda done, total: None,
    reference: ReferenceChoice = "root",
) -> xr.Dataset:
    """Reads every stored snapshot, and writes one netCDF file per measure into the run.

    A measure whose file was written under the same key (``files.content_key``) is not read again.

    Args:
        trajectory: the stored snapshots.
        subject: the model, task and loss that are measured.
        measures: the measures to read.
        provenance: stored with each result: the experiment, its hash, the machine.
        watch: called after each segment.
        reference: whose end is the final model of retrospective measures. With "own" their
            variables have the suffix "_own".

    Returns:
        Variables of all measures, dims (seed, step, ...). The attrs of a retrospective one are
        ``reference_run``, ``reference_step`` and ``reference_hash``; where a measure uses the
        snapshot before, the coordinate ``previous_step`` holds its step.

    Raises:
        RunError: if the run has no snapshot yet, the history has no final model that a measure
            needs, or a file cannot be written.
        MeasureError: if the readings cannot be merged, or another function of the user has stored
            readings under a measure's name.
    """
    if not len(trajectory.steps):
        raise RunError(f"{trajectory.path} holds no snapshot yet. Train it first.")
    history, weights = History(trajectory), weights_digest(trajectory)
    recipes: dict[str, Recipe] = {}
    datasets: dict[str, xr.Dataset] = {}
    for measure in measures:
        choice = reference if measure.retrospective else "root"
        recipe = recipe_of(measure, subject, history, provenance, choice)
        recipes[measure.name] = recipe
        file = _file(trajectory, _stored_name(measure.name, recipe))
        _check_source(file, measure.name, recipe)
        dataset = cached(file, content_key(weights, recipe)) if recipe.reusable else None
        if dataset is not None:
            datasets[measure.name] = dataset
    todo = [measure for measure in measures if measure.name not in datasets]
    fresh = read_trajectory(trajectory, subject, todo, watch, reference=reference) if todo else {}
    for measure in todo:
        values, prepared = fresh[measure.name]
        recipe = recipes[measure.name]
        dataset = labelled(values, measure, subject, trajectory.seeds, trajectory.steps)
        dataset = _with_references(dataset, measure, recipe, trajectory.steps).assign_attrs(
            provenance=provenance_of(measure, provenance, prepared),
            key=content_key(weights, recipe) or "",
            recipe=recipe.to_json(),
        )
        datasets[measure.name] = dataset
        write_dataset(_file(trajectory, _stored_name(measure.name, recipe)), dataset)
    return joined([datasets[measure.name] for measure in measures], provenance)


def _stored_name(name: str, recipe: Recipe) -> str:
    """Name of a measure's file: readings with the run's own end stand beside the others."""
    return f"{name}{OWN_SUFFIX}" if recipe.choice == "own" else name


def _with_references(
    dataset: xr.Dataset, measure: Measure, recipe: Recipe, steps: np.ndarray
) -> xr.Dataset:
    """A reading that says which snapshots it was compared with."""
    if recipe.final is not None:
        dataset = dataset.assign_attrs(recipe.final)
    if recipe.choice == "own":
        dataset = dataset.rename({name: f"{name}{OWN_SUFFIX}" for name in measure.variables})
    if "previous" in measure.uses:
        before = np.nan if recipe.previous is None else recipe.previous["reference_step"]
        previous = np.array([before, *steps[:-1]], float)
        dataset = dataset.assign_coords(previous_step=("step", previous))
    return dataset


def _check_source(file: Path, name: str, recipe: Recipe) -> None:
    """Refuses a name under which another function of the user has stored readings.

    Raises:
        MeasureError: naming both functions. A function that was edited, or whose file does not
            define it any more, is no other one.
    """
    if recipe.shipped or not file.exists():
        return
    try:
        stored = Recipe.from_json(load_dataset(file).attrs["recipe"]).source
    except (RunError, KeyError, ValueError, TypeError):
        return
    here = recipe.source
    same_place = (stored.file, stored.name) == (here.file, here.name)
    # In a text that did not change, another line is another function of that name.
    if same_place and (stored.line == here.line or not here.text or stored.text != here.text):
        return
    if same_place or still_defined(stored):
        raise MeasureError(
            f"Two functions have the name {name}. {file} was read by"
            f" {stored.file}:{stored.line} ({stored.name}), and you gave"
            f" {here.file}:{here.line} ({here.name}). Give yours another name, or remove the file."
        )


def measure_weights(
    params: Params, subject: Subject, measures: Sequence[Measure], provenance: Mapping[str, Any]
) -> xr.Dataset:
    """Reads one set of weights, which serves as its own previous and final reference.

    Args:
        params: the weights.
        subject: the model, task and loss that are measured.
        measures: the measures to read.
        provenance: stored with each result: the experiment, its hash, the machine.

    Returns:
        Variables of all measures, dims (seed, step, ...), with one seed and one step, both
        labelled 0.
    """
    reader = Reader(measures, subject.precision)
    context = make_context(subject, 0, Reference(final=params), measures)
    stack = jax.tree.map(lambda x: np.asarray(x)[None], params)
    values = reader.read(stack, stack, context)
    datasets: list[xr.Dataset] = []
    for measure in measures:
        own = {name: values[name][None] for name in measure.variables}
        dataset = labelled(own, measure, subject, (0,), np.array([0]))
        source = provenance_of(measure, provenance, {0: context.prepared})
        datasets.append(dataset.assign_attrs(provenance=source))
    return joined(datasets, provenance)


def read_steps(
    trajectory: Trajectory,
    subject: Subject,
    measures: Sequence[Measure],
    steps: Sequence[int],
    reference: ReferenceChoice = "root",
) -> xr.Dataset:
    """Reads chosen snapshots; nothing is written or reused.

    Args:
        trajectory: the stored snapshots.
        subject: the model, task and loss that are measured.
        measures: the measures to read.
        steps: steps of the snapshots, in the order of the result.
        reference: whose end is the final model; see ``measure_trajectory``.

    Returns:
        Variables of all measures, dims (seed, step, ...).
    """
    # "previous" is the stored snapshot before, so that all snapshots must be read.
    whole = any("previous" in measure.uses for measure in measures)
    chosen = trajectory.steps.tolist() if whole else sorted({int(step) for step in steps})
    read = read_trajectory(trajectory, subject, measures, chosen=chosen, reference=reference)
    history = History(trajectory)
    datasets: list[xr.Dataset] = []
    for measure in measures:
        choice = reference if measure.retrospective else "root"
        recipe = recipe_of(measure, subject, history, trajectory.record, choice)
        dataset = labelled(
            read[measure.name].values, measure, subject, trajectory.seeds, np.asarray(chosen)
        )
        datasets.append(_with_references(dataset, measure, recipe, np.asarray(chosen)))
    return joined(datasets, trajectory.record).sel(step=[int(step) for step in steps])


def stored_measures(trajectory: Trajectory, *, earlier: bool = True) -> xr.Dataset:
    """Merged readings that are stored in a run and belong to the code and the weights there are.

    Others are left out: readings of other weights, and readings by code that has changed since. The
    attr ``left_out`` holds a sentence about each of these, one a line, and the log warns of them.

    Readings of a version of mi_jax that did not store what they depend on cannot be checked. They
    never stand beside others: where a run holds nothing else, they are returned with the attr
    ``earlier_version``, a sentence, and everywhere else they are left out.

    Where the run names modules of a user that are not imported, readings whose code cannot be
    followed from source text here are returned too; their variables have the attr ``checked``,
    which is False.

    Args:
        trajectory: the run.
        earlier: whether readings of an earlier version may be returned.
    """
    files = sorted((trajectory.path / "measures").glob("*.nc"))
    stored = [load_dataset(file) for file in files]
    # The references of an earlier version's fork were its own.
    alone = earlier and trajectory.parent is None and not any("recipe" in d.attrs for d in stored)
    if stored and alone:
        same = [d for d in stored if np.array_equal(d["step"], trajectory.steps)]
        if same:
            sentence = (
                f"The readings of {trajectory.path} are of an earlier version of mi_jax. Measure"
                " the run again to have those of this one."
            )
            _say([sentence])
            return joined(same, trajectory.record).assign_attrs({EARLIER: sentence})
    history, weights = History(trajectory), weights_digest(trajectory)
    datasets: list[xr.Dataset] = []
    sentences: list[str] = []
    foreign = bool(not_imported(trajectory.record["experiment"]))
    for dataset in stored:
        reason = stale(dataset, weights, history)
        if foreign and (reason == SOURCE_GONE or (not reason and not is_followed(dataset))):
            datasets.append(_unchecked(dataset))
        elif reason:
            names = ", ".join(str(name) for name in dataset.data_vars)
            sentences.append(
                f"{names} of {trajectory.path} is left out. {reason} Measure it again."
            )
        else:
            datasets.append(dataset)
    merged = joined(datasets, trajectory.record)
    if sentences:
        merged.attrs[LEFT_OUT] = "\n".join(sentences)
    _say(sentences)
    return merged


def _unchecked(dataset: xr.Dataset) -> xr.Dataset:
    """A reading whose variables say that nobody compared its code with the code that is here."""
    dataset = dataset.copy()
    for name in dataset.data_vars:
        dataset[name].attrs["checked"] = False
    return dataset


def _say(sentences: Sequence[str]) -> None:
    """Warns in the log, once of each sentence."""
    for sentence in sentences:
        if sentence not in _SAID:
            _SAID.add(sentence)
            log.warning("%s", sentence)


def _file(trajectory: Trajectory, name: str) -> Path:
    """File of a measure's readings."""
    return trajectory.path / "measures" / f"{name}.nc"
