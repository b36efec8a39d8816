"""The main job on one page: train, measure, date, plot, report."""

import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from mi_jax.basics import modules
from mi_jax.basics.files import replace_file
from mi_jax.dynamics import GROKKING, PHASE_RULE, Claim, GrokkingRule, rule_of
from mi_jax.measuring.history import History
from mi_jax.measuring.nulls import Nulls
from mi_jax.measuring.program import Watch as MeasureWatch
from mi_jax.measuring.stored import LEFT_OUT
from mi_jax.report.claims import claims
from mi_jax.report.figures import draw_figures
from mi_jax.report.findings import how_measured, numbers_table, summary
from mi_jax.report.inputs import ReportInputs, read_inputs
from mi_jax.report.page import Figure, Page, render
from mi_jax.runs.experiment import Experiment
from mi_jax.runs.run import Run
from mi_jax.runs.train import train
from mi_jax.training.loop import Watch
from mi_jax.training.trajectory import Trajectory


@dataclass(frozen=True)
class Study:
    """Results of the main job.

    Attributes:
        run: the trained run.
        dataset: its readings, dims (seed, step, ...).
        nulls: the readings where there is nothing to find.
        dates: the dates of every seed, dims (seed, bound), and its verdict; see
            ``dynamics.grokking_dates``. A run without training accuracy has ``generalised`` alone,
            and one without test accuracy has none.
        claims: the claims of the report, supported or not, with their levels of evidence.
        report: the path of ``report.html``.
    """

    run: Run
    dataset: xr.Dataset
    nulls: Nulls
    dates: xr.Dataset
    claims: list[Claim]
    report: Path


def study(
    experiment: Experiment,
    out: str | os.PathLike[str] | None = None,
    *,
    rule: GrokkingRule = GROKKING,
    watch: Watch = lambda progress: None,
    watch_measures: MeasureWatch = lambda done, total: None,
    allow_other_machine: bool = False,
) -> Study:
    """Trains (or resumes) an experiment, takes every reading that it allows, dates what happened,
    and writes figures and a report.

    Args:
        experiment: the settings.
        out: the folder of the run; see ``mi_jax.train``.
        rule: the accuracy and the gap that date memorising, generalising and grokking.
        watch: called with the progress of training.
        watch_measures: called with the number of snapshots that are read, and of all.
        allow_other_machine: resumes a run that another machine began, although bits may differ.

    Returns:
        The run, its readings and dates, and the path of its report.

    Example::

        study = mi_jax.study(experiment, "runs/grokking")
        print(study.dates["generalised"].values, study.dates["verdict"].values, study.report)
    """
    run = train(experiment, out, watch=watch, allow_other_machine=allow_other_machine)
    run.measure(watch=watch_measures)
    return report(run, rule=rule)


def report(run: Run, *, rule: GrokkingRule = GROKKING) -> Study:
    """Writes the figures of a run that was measured, and its ``report.html``.

    Both go into ``run.report_path``: the run's directory, or one of their own where the run was
    opened from several directories.

    Args:
        run: with stored readings (``run.measure()``).
        rule: the accuracy and the gap that date memorising, generalising and grokking.

    Returns:
        The run, its readings and dates, and the path of its report.

    Raises:
        RunError: if the run has no readings.
    """
    inputs = read_inputs(run, rule)
    figures = draw_figures(run.report_path / "figures", inputs)
    path, page = run.report_path / "report.html", _page(run, inputs, figures)
    replace_file(path, render(page).encode())
    return Study(run, inputs.dataset, inputs.nulls, inputs.dates, list(page.claims), path)


def _page(run: Run, inputs: ReportInputs, figures: list[Figure]) -> Page:
    """The contents of the report."""
    story = summary(inputs.dates)
    if run.experiment.path is not None:
        story = (
            "A planted run: its parameters were set to known values at every step; nothing was"
            f" trained. {story}"
        )
    if run.parent is not None:
        story = f"{_descent(run)} {story}"
    return Page(
        title=run.experiment.name,
        summary=story,
        figures=figures,
        numbers=numbers_table(inputs.dataset, inputs.dates),
        claims=claims(inputs),
        status={
            str(seed): f"{status.state}, finite to step {status.last_finite_step:,}"
            for seed, status in run.status.items()
        },
        how=[
            *_how_dated(inputs.dates),
            *how_measured(inputs.dataset),
            *(("left out", line) for line in inputs.dataset.attrs.get(LEFT_OUT, "").splitlines()),
        ],
        manifest=run.record,
        command="\n".join(_reproducing(trajectory) for trajectory in run.trajectories),
    )


def _descent(run: Run) -> str:
    """Sentences on the parent of a fork or a zoom, and on the final model of its readings."""
    assert run.parent is not None
    path, step = run.parent
    here = f"of {Path(path).name} at step {step:,}"
    if not run.departs:
        return (
            f"A part {here}, trained again with other snapshots. Retrospective readings are"
            " compared with the last snapshot of the run that it descends from."
        )
    ancestors = History(run.trajectories[0]).ancestors
    inherited = ancestors[0].record["experiment"].get("interventions", []) if ancestors else []
    stored = run.record["experiment"].get("interventions", [])
    own = [
        change
        for change, text in zip(run.experiment.interventions, stored, strict=True)
        if text not in inherited and change.start >= step
    ]
    names = ", ".join(sorted({type(change).__name__ for change in own}))
    return (
        f"A fork {here}{f' with {names}' if names else ', trained further'}. Retrospective readings"
        " are compared with its own last snapshot."
    )


def _reproducing(trajectory: Trajectory) -> str:
    """The command that makes a run again, as it is typed in the current directory."""
    own = modules.named_modules(trajectory.record["experiment"])
    allowed = [word for name in own for word in ("--allow-module", name)]
    words = [*_program(), "reproduce", _from_here(trajectory.path), *allowed]
    return shlex.join(words)


def _program() -> list[str]:
    """The words by which a shell here starts the command line: ``mi-jax`` if it is on the path."""
    beside = Path(sys.executable).with_name("mi-jax")
    if shutil.which("mi-jax") is not None:
        return ["mi-jax"]
    if beside.exists():
        return [_from_here(beside)]
    return [sys.executable, "-P", "-m", "mi_jax.cli"]


def _from_here(path: Path) -> str:
    """A path as it is typed in the current directory."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _how_dated(dates: xr.Dataset) -> list[tuple[str, str]]:
    """The rule of the dates, with its numbers, as a row of the table of how it was measured."""
    if not dates:
        return []
    return [("dates", f"{rule_of(dates.attrs).text} {PHASE_RULE}")]
