"""The main job on one page: train, measure, date, plot, report."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import xarray as xr

from mi_jax.basics.errors import RunError
from mi_jax.basics.files import replace_file
from mi_jax.basics.pytrees import byte_count, parameter_count
from mi_jax.dynamics import ACCURACY, Dates, Phases, births, crossings, phases, transitions
from mi_jax.measures import PICTURES
from mi_jax.measuring.choosing import choose
from mi_jax.measuring.nulls import Nulls
from mi_jax.measuring.program import Watch as MeasureWatch
from mi_jax.report import Page, render
from mi_jax.report.figures import draw_figures
from mi_jax.report.findings import claims, how_measured, numbers_table, summary
from mi_jax.runs.across import mode_lines, weight_path
from mi_jax.runs.experiment import Experiment
from mi_jax.runs.run import Run
from mi_jax.runs.train import check, train
from mi_jax.training.loop import Watch
from mi_jax.training.state import Program

_TIMED_STEPS = 20
_FRAMES = 40
_CHOSEN = 5
_PLANTED = (
    "A planted run: its parameters were put where they are at every step, nothing was trained. "
)
_FOLLOWED = 4
"""Snapshots from which on a trajectory is one."""


@dataclass(frozen=True)
class Study:
    """What the main job leaves: the run, its readings, nulls and dates, and where its report is."""

    run: Run
    dataset: xr.Dataset
    nulls: Nulls
    dates: Dates | None
    phases: Phases | None
    report: Path


def study(
    experiment: Experiment,
    out: str | os.PathLike[str] | None = None,
    *,
    watch: Watch = lambda progress: None,
    watch_measures: MeasureWatch = lambda done, total: None,
    allow_other_machine: bool = False,
) -> Study:
    """Trains (or resumes) an experiment, takes every reading it allows, dates the transitions,
    draws figures and a report.
    """
    run = train(experiment, out, watch=watch, allow_other_machine=allow_other_machine)
    run.measure(watch=watch_measures)
    return report(run)


def report(run: Run) -> Study:
    """Figures and ``report.html`` of the readings that a run holds."""
    dataset = run.measures
    if not dataset:
        raise RunError(
            f"{run.path} holds no readings of its snapshots yet; `mi-jax measure {run.path}` makes"
            " them"
        )
    nulls = run.nulls()
    dates = transitions(dataset) if {"train_accuracy", "test_accuracy"} <= set(dataset) else None
    found = (
        phases(dataset)
        if {"train_accuracy", "test_accuracy", "test_loss"} <= set(dataset)
        else None
    )
    learned = (
        crossings(dataset["test_accuracy"], ACCURACY)
        if "test_accuracy" in dataset and dates is None
        else None
    )
    pictures, frames = _pictures(run)
    born = None
    if {"fourier_power_unembedding", "key_frequencies"} <= set(dataset):
        born = births(
            dataset["fourier_power_unembedding"],
            dataset["key_frequencies"].isel(step=-1, drop=True),
        )
    figures = draw_figures(
        run.path / "figures", dataset, nulls, dates, found, born, pictures, frames, *_followed(run)
    )
    page = Page(
        title=run.experiment.name,
        summary=f"{_PLANTED if run.experiment.path else ''}{summary(dates, found, learned)}",
        figures=figures,
        numbers=numbers_table(dataset, dates, found),
        claims=claims(dataset, nulls, dates, found),
        status={
            str(seed): f"{one.state}, finite to step {one.last_finite_step:,}"
            for seed, one in run.status.items()
        },
        how=how_measured(dataset),
        manifest=run.record,
        command=f"mi-jax reproduce {run.path.name}",
    )
    path = run.path / "report.html"
    replace_file(path, render(page).encode())
    return Study(run, dataset, nulls, dates, found, path)


def _pictures(run: Run) -> tuple[xr.Dataset, xr.Dataset]:
    """What is read of chosen snapshots only: a few for figures, more for the animation; empty where
    it can't be.
    """
    steps = run.steps
    chosen, _ = choose(None, run.subject, among=PICTURES)
    if not chosen:
        return xr.Dataset(), xr.Dataset()
    few = steps[[round(i * (len(steps) - 1) / (_CHOSEN - 1)) for i in range(_CHOSEN)]]
    many = steps[sorted({round(i * (len(steps) - 1) / (_FRAMES - 1)) for i in range(_FRAMES)})]
    moving = [one for one in chosen if one.name == "circle_coordinates"]
    distinct = sorted({int(step) for step in few})
    return run.read(chosen, distinct), (
        run.read(moving, [int(step) for step in many]) if moving else xr.Dataset()
    )


def _followed(run: Run) -> tuple[xr.Dataset, xr.Dataset]:
    """The unembedding's modes as lines, and the path of the weights; empty where there is none, or
    too little to follow.
    """
    if len(run.steps) < _FOLLOWED:
        return xr.Dataset(), xr.Dataset()
    return mode_lines(run) if run.subject.model.roles.output_map else xr.Dataset(), weight_path(run)


def cost(experiment: Experiment) -> dict[str, int | float]:
    """What training would take: parameters, steps, snapshots, disk, and minutes by the time of 20
    steps. Writes nothing.

    A planted path isn't trained, and has no train states.

    Raises:
        ConfigError, RunError: for what training would refuse.
    """
    parts, trained = experiment.parts(), experiment.path is None
    check(parts)
    program = Program(parts)
    seeds, snapshots = len(experiment.seeds), len(experiment.snapshots())
    seconds = _seconds_per_step(program) * experiment.steps if trained else 0.0
    states = byte_count(program.template) * experiment.storage.states if trained else 0
    return {
        "parameters": parameter_count(program.template.params) // seeds,
        "seeds": seeds,
        "steps": experiment.steps,
        "snapshots": snapshots,
        "megabytes": (snapshots * byte_count(program.template.params) + states) / 2**20,
        "minutes_of_training": seconds / 60,
    }


def _seconds_per_step(program: Program) -> float:
    numbers = program.parts.numbers
    state, _ = program.advance(program.init(), numbers, 1)
    jax.block_until_ready(state)
    begin = time.perf_counter()
    jax.block_until_ready(program.advance(state, numbers, _TIMED_STEPS))
    return (time.perf_counter() - begin) / _TIMED_STEPS
