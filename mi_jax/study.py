"""The main job on one page: train, measure, date, plot, report."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import xarray as xr

from mi_jax import measuring, plots
from mi_jax.dynamics import Transitions, transitions
from mi_jax.experiment import Experiment, Run, train
from mi_jax.pytrees import byte_count, parameter_count
from mi_jax.report import Figure, Page, render
from mi_jax.training.loop import Watch
from mi_jax.training.state import Program
from mi_jax.training.trajectory import replace_file

_TIMED_STEPS = 20


@dataclass(frozen=True)
class Study:
    """What the main job leaves: the run, its readings, its dates, and where its report is."""

    run: Run
    dataset: xr.Dataset
    dates: Transitions | None
    report: Path


def study(
    experiment: Experiment,
    out: str | os.PathLike[str] | None = None,
    *,
    watch: Watch = lambda progress: None,
    watch_measures: measuring.Watch = lambda done, total: None,
    allow_other_machine: bool = False,
) -> Study:
    """Trains (or resumes) an experiment, takes every reading it allows, dates the transitions, draws figures and a report."""
    run = train(experiment, out, watch=watch, allow_other_machine=allow_other_machine)
    run.measure(watch=watch_measures)
    return report(run)


def report(run: Run) -> Study:
    """Figures and ``report.html`` of the readings that a run holds."""
    dataset = run.measures
    dates = transitions(dataset) if {"train_accuracy", "test_accuracy"} <= set(dataset) else None
    folder = run.path / "figures"
    figures = [
        Figure(title, caption, plots.save(draw().figure, folder, name)["png"], str(alt))
        for name, title, caption, alt, needs, draw in _figures(dataset, dates)
        if needs <= set(dataset)
    ]
    page = Page(
        title=run.experiment.name,
        figures=figures,
        numbers=numbers_table(dataset, dates),
        status={str(seed): f"{status.state}, finite to step {status.last_finite_step}" for seed, status in run.status.items()},
        how=how_measured(dataset),
        manifest=run.record,
        command=f"mi-jax run {run.path.name} --out {run.path.name}-again",
    )
    path = run.path / "report.html"
    replace_file(path, render(page).encode())
    return Study(run, dataset, dates, path)


def _figures(dataset: xr.Dataset, dates: Transitions | None) -> list[tuple[str, str, str, str, set[str], Callable[[], Any]]]:
    seed = int(dataset["seed"].values[0])
    seeds = "Lines of one colour are seeds." if dataset.sizes["seed"] > 1 else ""
    dated = "Triangles at the top: the steps at which a seed first reached .99 training (blue) and test (orange) accuracy."
    return [
        (
            "loss",
            "Loss",
            f"Training and test loss by step. {seeds} {dated}",
            "Training loss falls early, test loss rises and then falls late.",
            {"train_loss", "test_loss"},
            lambda: plots.loss_curves(dataset, dates=dates),
        ),
        (
            "accuracy",
            "Accuracy",
            f"Training and test accuracy by step. {seeds} {dated}",
            "Training accuracy reaches one early, test accuracy late.",
            {"train_accuracy", "test_accuracy"},
            lambda: plots.accuracy_curves(dataset, dates=dates),
        ),
        (
            "progress",
            "The circuit under the loss",
            "Restricted loss: the logits' key frequencies and class means alone, all pairs. Excluded loss: everything but the key"
            f" frequencies, training pairs. Key frequencies are those of the final model (retrospective). {seeds}",
            "Restricted loss falls before test loss does, excluded loss rises.",
            {"restricted_loss", "excluded_loss", "test_loss"},
            lambda: plots.progress_curves(dataset, dates=dates),
        ),
        (
            "frequencies",
            f"The mechanism being born (seed {seed})",
            "Share of each Fourier frequency in the map from neurons to logits, by step; the final key frequencies at the right.",
            "Power gathers in a few frequencies as training goes on.",
            {"fourier_power_unembedding"},
            lambda: plots.frequency_map(dataset, seed=seed),
        ),
        (
            "spectra",
            f"Final spectra (seed {seed})",
            "Share of each Fourier frequency in the embedding and in the map from neurons to logits, at the last step.",
            "A few frequencies hold almost all power.",
            {"fourier_power_embedding", "fourier_power_unembedding"},
            lambda: plots.spectra(dataset, seed=seed),
        ),
    ]


def numbers_table(dataset: xr.Dataset, dates: Transitions | None) -> list[tuple[str, list[str]]]:
    """Rows of the numbers table: a label, and a cell a seed. Scalars and key frequencies of the last step, and the dates."""
    rows: list[tuple[str, list[str]]] = [("seed", [str(seed) for seed in dataset["seed"].values])]
    if dates is not None:
        for label, when in (
            ("memorised at step", dates.memorised),
            ("grokked at step", dates.grokked),
            ("delay, steps", dates.delay),
        ):
            rows.append((label, ["never" if value != value else f"{value:,.0f}" for value in when.values]))
    by_seed = [readings for _, readings in measuring.last_step(dataset)]
    for name, variable in dataset.data_vars.items():
        if variable.dims == ("seed", "step"):
            units = f", {variable.attrs['units']}" if "units" in variable.attrs else ""
            rows.append((f"{name}{units}", [_number(readings[str(name)]) for readings in by_seed]))
        elif name == "key_frequencies":
            rows.append((str(name), [_listed(readings[str(name)]) for readings in by_seed]))
    return rows


def _number(value: float | None) -> str:
    if value is None:
        return "not finite"
    return f"{value:.4g}"


def _listed(ks: list[int]) -> str:
    return ", ".join(map(str, ks)) if len(ks) <= 12 else f"{len(ks)} frequencies"


def how_measured(dataset: xr.Dataset) -> list[tuple[str, str]]:
    """By variable, what it is: options, source, and whether it knows the end of training."""
    rows: list[tuple[str, str]] = []
    for name, variable in dataset.data_vars.items():
        told = json.loads(variable.attrs["provenance"])
        options = ", ".join(f"{key}: {value}" for key, value in told["options"].items())
        kind = "retrospective (uses the final model)" if told["retrospective"] else "online"
        rows.append((str(name), "; ".join(part for part in (kind, options, told["source"]) if part)))
    return rows


def cost(experiment: Experiment) -> dict[str, int | float]:
    """What training would take: parameters, steps, snapshots, disk, and minutes by the time of 20 steps. Writes nothing."""
    program = Program(experiment.parts())
    numbers = program.parts.numbers
    seeds, snapshots = len(experiment.seeds), len(experiment.snapshots())
    state, _ = program.advance(program.init(), numbers, 1)
    jax.block_until_ready(state)
    begin = time.perf_counter()
    jax.block_until_ready(program.advance(state, numbers, _TIMED_STEPS))
    seconds = (time.perf_counter() - begin) / _TIMED_STEPS * experiment.steps
    states = byte_count(program.template) * experiment.storage.states
    return {
        "parameters": parameter_count(program.template.params) // seeds,
        "seeds": seeds,
        "steps": experiment.steps,
        "snapshots": snapshots,
        "megabytes": (snapshots * byte_count(program.template.params) + states) / 2**20,
        "minutes_of_training": seconds / 60,
    }
