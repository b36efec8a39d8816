"""Sweeps: one experiment over a grid of settings, as a folder of runs, a summary dataset and a
figure.

Each point is a run of its own with all seeds, trained and read by a process that has one core, so
that no point waits for another. A sweep that was stopped or killed is resumed where it was.
"""

import itertools
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import jax
import numpy as np
import xarray as xr

from mi_jax import plots
from mi_jax.basics import modules
from mi_jax.basics.errors import ConfigError, Interrupted, MiJaxError, RunError, require
from mi_jax.basics.fields import with_setting
from mi_jax.basics.files import replace_file
from mi_jax.dynamics import GROKKING, GrokkingRule, date_differences
from mi_jax.measuring.choosing import choose
from mi_jax.measuring.files import write_dataset
from mi_jax.runs.dates import run_dates
from mi_jax.runs.experiment import Experiment
from mi_jax.runs.library import find
from mi_jax.runs.run import open_run
from mi_jax.runs.train import train
from mi_jax.training.loop import signals
from mi_jax.training.machine import use_compile_cache
from mi_jax.training.record import is_locked

READ = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
"""The measures that are read of every run, if the task has the split."""

Status = Literal["absent", "queued", "running", "failed", "diverged", "finished"]
"""Status of a point. "absent": its folder is not there. "queued": a sweep is to train it, or was
stopped while it did. "running": a process trains it now. "failed": its last training ended with an
error. "diverged": it is finished, and at least one seed became non-finite. "finished": all others.
"""

STATUSES: tuple[Status, ...] = get_args(Status)
"""Every status of a point."""

_POLL_SECONDS = 0.5
"""Seconds between two looks for a signal, for finished runs, or for the end of the parent."""
_PATIENCE_SECONDS = 5.0
"""Seconds between two SIGTERMs to a process that is saving its run."""

Axes = Mapping[str, Sequence[Any]]
"""The values of each swept setting, by dotted name (``optimizer.weight_decay``)."""
Watch = Callable[[int, int, str], None]
"""Called after each finished run with (runs finished, runs in all, name of the point)."""


class Job(NamedTuple):
    """One point of the grid, in a form that can be sent to a process.

    Attributes:
        name: the name of the point, such as ``optimizer.weight_decay=0.1``.
        record: the JSON form of its experiment.
        folder: the directory of its run.
        source: the .py file whose classes the experiment uses; None for classes of the package.
        modules: the user's modules whose classes it uses, each with the folder that holds it.
    """

    name: str
    record: dict[str, Any]
    folder: Path
    source: str | None
    modules: tuple[tuple[str, str], ...]


def sweep(
    experiment: Experiment,
    axes: Axes,
    out: str | os.PathLike[str] | None = None,
    *,
    processes: int | None = None,
    rule: GrokkingRule = GROKKING,
    watch: Watch = lambda done, total, name: None,
    source: str | None = None,
    compile_cache: str | None = None,
) -> xr.Dataset:
    """Train an experiment at every point of a grid, and summarise the outcome of each.

    Writes ``out/runs/<point>`` (runs like any other; finished ones are kept), ``out/sweep.json``,
    ``out/summary.nc`` and a figure in ``out/figures``: dates against the setting if one setting is
    swept, the phase diagram if two are.

    Args:
        experiment: the experiment; settings that are not swept are taken from it.
        axes: the values of each swept setting, by dotted name.
        out: the folder of the sweep; ``checkpoints/<name>-sweep`` by default.
        processes: the number of runs at a time, each on a core of its own; by default the number
            of cores. With 1, runs are trained one after another in this process on all cores,
            which changes the last bits, as ``run.json`` records.
        rule: the accuracy and the gap that date memorising, generalising and grokking;
            ``dynamics.LIU_2022`` for the published regimes.
        watch: called after each finished run with (runs finished, runs in all, name of the point).
        source: the .py file that defines classes of the experiment, for processes to import.
        compile_cache: a folder for compiled programs that the processes share; none by default.

    Returns:
        Dims (*axes): status (one of ``STATUSES``), error (a sentence; empty unless the status is
        failed) and budget (the steps of training). Dims (*axes, seed): verdict, and final_<reading>
        for each reading; with a further dim bound (lower, upper) the dates memorised,
        circuit_formation_end, cleanup_end and generalised, and delay, the steps from memorising to
        generalising. See ``dynamics.grokking_dates``, whose ``level``, ``gap`` and ``gap_unit`` are
        in the attrs. Of a point that failed, numbers are NaN and the verdict is empty; the same
        call trains it again.

    Raises:
        ConfigError: for an unknown setting or an invalid value, before anything is written.
        RunError: if the folder holds something else, or cannot be written.
        Interrupted: after SIGINT or SIGTERM; finished runs and segments are kept.

    Example:
        summary = mi_jax.sweep(
            experiment,
            {"optimizer.learning_rate": (1e-3, 1e-2), "optimizer.weight_decay": (0.1, 1.0)},
        )
        summary["verdict"].sel(seed=0)
    """
    folder = Path(
        out if out is not None else Path("checkpoints") / f"{experiment.name}-sweep"
    ).resolve()
    points = grid(experiment, axes)
    if processes is not None and processes < 1:
        raise ConfigError(f"processes={processes} is too small. Give at least 1.")
    _claim(folder, experiment, axes)
    jobs = [
        Job(name, record, folder / "runs" / name, source, modules.places(record))
        for name, record in ((name, point.to_json()) for name, point in points.items())
    ]
    for job in jobs:
        job.folder.mkdir(parents=True, exist_ok=True)
    outcome = _Outcome(folder, len(jobs), watch)
    cores = _cores()
    at_once = min(processes or (len(cores) if jax.default_backend() == "cpu" else 1), len(jobs))
    if at_once == 1:
        _one_by_one(jobs, outcome)
    else:
        _in_processes(jobs, cores, at_once, outcome, compile_cache)
    summary = summarised(experiment, axes, folder, rule)
    write_dataset(folder / "summary.nc", summary)
    _draw(summary, list(axes), folder / "figures")
    return summary


def _cores() -> list[int]:
    """The cores that this process may use; all of the machine where the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def grid(experiment: Experiment, axes: Axes) -> dict[str, Experiment]:
    """Make the experiment of every point of a grid.

    Args:
        experiment: the experiment; settings that are not swept are taken from it.
        axes: the values of each swept setting, by dotted name.

    Returns:
        The experiments by the name of the point, such as ``task.p=31,steps=500``.

    Raises:
        ConfigError: for no setting, an unknown setting, or an invalid value.
    """
    require(
        len(axes) > 0,
        "Nothing is swept. Give a setting several values, such as --optimizer.weight-decay 0.1,1.",
    )
    for name, values in axes.items():
        if not values or len(set(values)) < len(values):
            raise ConfigError(f"{name}={list(values)}: give at least one value, and each once.")
    points: dict[str, Experiment] = {}
    for values in itertools.product(*axes.values()):
        point = experiment
        for name, value in zip(axes, values, strict=True):
            point = with_setting(point, name, value)
        point_name = ",".join(f"{name}={value}" for name, value in zip(axes, values, strict=True))
        points[point_name] = point
    return points


def summarised(
    experiment: Experiment, axes: Axes, folder: Path, rule: GrokkingRule = GROKKING
) -> xr.Dataset:
    """Summarise the outcome of every point from the readings that its run holds.

    Args:
        experiment: the experiment of the sweep.
        axes: the values of each swept setting, by dotted name.
        folder: the folder of the sweep.
        rule: the accuracy and the gap that date memorising, generalising and grokking.

    Returns:
        The dataset that ``sweep`` returns, of the points as they are now.
    """
    points = grid(experiment, axes)
    errors = _read(folder)["errors"] if (folder / "sweep.json").exists() else {}
    found = [_point(folder / "runs" / name, errors.get(name, ""), rule) for name in points]
    shape = [len(values) for values in axes.values()]
    coords: dict[str, Any] = {name: list(values) for name, values in axes.items()}
    coords["seed"] = list(experiment.seeds)
    by_point = {
        "status": [point.status for point in found],
        "error": [point.error for point in found],
        "budget": [point.steps for point in points.values()],
    }
    variables: dict[str, Any] = {
        name: (tuple(axes), np.array(values).reshape(shape)) for name, values in by_point.items()
    }
    readings = [point.readings for point in found]
    examples = {name: values for dataset in readings for name, values in dataset.data_vars.items()}
    for name, example in examples.items():
        nothing = np.full(example.shape, "" if example.dtype.kind in "OUT" else np.nan)
        stacked = np.stack(
            [dataset[name].values if name in dataset else nothing for dataset in readings]
        )
        dims = (*axes, *example.dims)
        variables[str(name)] = (dims, stacked.reshape(*shape, *example.shape), example.attrs)
        if "bound" in example.coords:
            coords["bound"] = example["bound"].values
    attrs = {
        "level": rule.level,
        "gap": rule.gap,
        "gap_unit": rule.unit,
        "experiment": json.dumps(experiment.to_json()),
    }
    if "steps" not in axes:
        attrs["steps"] = experiment.steps
    return xr.Dataset(variables, coords, attrs)


class _Point(NamedTuple):
    """One point of the grid as it is on disk: its status, its error, and its readings, if any."""

    status: Status
    error: str = ""
    readings: xr.Dataset = xr.Dataset()


def _point(path: Path, error: str, rule: GrokkingRule) -> _Point:
    """Read one point.

    Args:
        path: the run's directory.
        error: the sentence with which its last training failed; empty if it did not.
        rule: as for ``sweep``.
    """
    if error:
        return _Point("failed", error)
    if not path.is_dir():
        return _Point("absent")
    if not (path / "run.json").exists():
        return _Point("queued")
    try:
        run = open_run(path)
        if run.trajectories[0].done < run.trajectories[0].last:
            return _Point("running" if is_locked(path) else "queued")
        diverged = any(status.state == "non-finite" for status in run.status.values())
        readings = _outcome(path, rule)
    except MiJaxError as failure:
        return _Point("failed", str(failure))
    return _Point("diverged" if diverged else "finished", readings=readings)


def _outcome(path: Path, rule: GrokkingRule) -> xr.Dataset:
    """Summarise one run: its last readings, dims (seed), and its dates and verdict, as far as its
    accuracies allow.

    Args:
        path: the run's directory.
        rule: as for ``sweep``.
    """
    run = open_run(path)
    dataset = run.measures
    dates = run_dates(run, rule, readings=dataset)
    variables = {str(name): dates[name] for name in dates.data_vars}
    if {"memorised", "generalised"} <= set(dates):
        variables["delay"] = date_differences(dates["memorised"], dates["generalised"])
    final = {
        f"final_{name}": dataset[name].isel(step=-1, drop=True) for name in READ if name in dataset
    }
    return xr.Dataset({**variables, **final})


def _claim(folder: Path, experiment: Experiment, axes: Axes) -> None:
    """Mark the folder as the sweep of this experiment over these settings.

    Other values of the same settings may be added later.
    """
    record = {
        "experiment": experiment.hash,
        "name": experiment.name,
        "axes": {name: list(values) for name, values in axes.items()},
        "errors": {},
    }
    file = folder / "sweep.json"
    if file.exists():
        there = _read(folder)
        if there["experiment"] != record["experiment"] or list(there["axes"]) != list(axes):
            raise RunError(
                f"{folder} holds another sweep, of {there['name']} over {list(there['axes'])}. Give"
                " another --out."
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise RunError(f"{folder} is not empty and holds no sweep.json. Give another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, record)


def _read(folder: Path) -> dict[str, Any]:
    """The contents of ``sweep.json``. Raises RunError if it cannot be read or is something else."""
    file = folder / "sweep.json"
    try:
        record = json.loads(file.read_text())
        # Sweeps of mi_jax 0.1 have no errors.
        record = {"errors": {}, **record}
        kinds = {"experiment": str, "name": str, "axes": dict, "errors": dict}
        wrong = [name for name, kind in kinds.items() if not isinstance(record.get(name), kind)]
        texts = [*record["errors"].values()] if not wrong else []
        if wrong or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{', '.join(wrong) or 'errors'} is not what a sweep writes")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise RunError(
            f"{file} cannot be read ({error}). Restore it from a copy; or remove it and its folder,"
            " or give another --out, to train every point again."
        ) from error
    return record


def _write(folder: Path, record: Mapping[str, Any]) -> None:
    replace_file(folder / "sweep.json", json.dumps(record, indent=2).encode())


class _Outcome:
    """The outcome of each point while a sweep works: it counts them, and stores their errors.

    Args:
        folder: the folder of the sweep.
        total: number of points.
        watch: called after each finished run.
    """

    def __init__(self, folder: Path, total: int, watch: Watch):
        self.total = total
        self.done = 0
        self._folder = folder
        self._watch = watch

    def finished(self, job: Job) -> None:
        """Count a point that was trained and read."""
        self.done += 1
        self._watch(self.done, self.total, job.name)

    def failed(self, job: Job, error: BaseException) -> None:
        """Store the sentence with which a point failed."""
        text = str(error) or "its process died"
        if not isinstance(error, (MiJaxError, BrokenProcessPool)):
            text = f"{type(error).__name__}: {text}"
        record = _read(self._folder)
        _write(self._folder, {**record, "errors": {**record["errors"], job.name: text}})

    def stopped(self) -> Interrupted:
        """The error that says how far the sweep is."""
        return Interrupted(
            f"Stopped with {self.done} of {self.total} runs finished. These, and the saved segments"
            " of the others, are kept"
        )


_stop: Any = None
"""In a process of the pool, an event that is set when the sweep is being stopped."""


def _work(job: Job) -> str:
    """Train and read one point, or resume it."""
    if _stop is not None and _stop.is_set():
        raise Interrupted("not begun")
    if job.source is not None:
        # Imports the file, so that its classes are known when the record is read.
        find(job.source)
    modules.import_placed(job.modules)
    run = train(Experiment.from_json(job.record), job.folder)
    chosen, _ = choose(None, run.subject)
    run.measure([measure for measure in chosen if measure.name in READ])
    return job.name


def _one_by_one(jobs: Sequence[Job], outcome: _Outcome) -> None:
    for job in jobs:
        try:
            _work(job)
        except Interrupted as error:
            raise outcome.stopped() from error
        # Whatever one point fails of, the others are trained.
        except Exception as error:
            outcome.failed(job, error)
        else:
            outcome.finished(job)


def _in_processes(
    jobs: Sequence[Job],
    cores: list[int],
    at_once: int,
    outcome: _Outcome,
    compile_cache: str | None,
) -> None:
    """Train and read the points in processes.

    A process that dies takes the pool with it. A new pool trains the points that had not begun; of
    those that had, each is tried again alone, so that only the one that kills its process fails.
    """
    rest, suspects = list(jobs), list[Job]()
    while rest:
        lost = _in_pool(rest, cores, at_once, outcome, compile_cache)
        begun = [job for job in lost if (job.folder / "run.json").exists()] or lost
        suspects += begun
        rest = [job for job in lost if job not in begun]
    for job in suspects:
        if _in_pool([job], cores, 1, outcome, compile_cache):
            outcome.failed(job, BrokenProcessPool())


def _in_pool(
    jobs: Sequence[Job],
    cores: list[int],
    at_once: int,
    outcome: _Outcome,
    compile_cache: str | None,
) -> list[Job]:
    """Train and read points in one pool.

    Returns:
        The points whose processes died, or that waited for them.
    """
    # Not "fork": JAX's threads do not survive it.
    context = multiprocessing.get_context("spawn")
    free_cores, stop = context.Queue(), context.Event()
    for i in range(at_once):
        free_cores.put(cores[i % len(cores)])
    arguments = (free_cores, stop, os.getpid(), compile_cache)
    pool = ProcessPoolExecutor(at_once, context, _begin, arguments)
    lost: list[Job] = []
    with signals() as asked, pool:
        waiting: dict[Future[str], Job] = {pool.submit(_work, job): job for job in jobs}
        while waiting and not asked.is_set():
            for future in wait(waiting, _POLL_SECONDS, FIRST_COMPLETED).done:
                job = waiting.pop(future)
                try:
                    future.result()
                except BrokenProcessPool:
                    lost.append(job)
                # Whatever one point fails of, the others are trained.
                except Exception as error:
                    outcome.failed(job, error)
                else:
                    outcome.finished(job)
        if waiting:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise outcome.stopped()
    return lost


def _begin(free_cores: Any, stop: Any, parent: int, compile_cache: str | None) -> None:
    """Set up a process of the pool: one core, the shared compile cache, and a guard that ends the
    process when the sweep is stopped or its own process ends.
    """
    global _stop
    _stop = stop
    core = free_cores.get()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    # Signals are ignored here: while a run is trained, training itself answers SIGTERM by saving,
    # and a process that died at another moment could hold the pool's locks.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if compile_cache is not None:
        use_compile_cache(compile_cache)

    def guard() -> None:
        while os.getppid() == parent:
            if stop.wait(_POLL_SECONDS):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(_PATIENCE_SECONDS)
        # A run that is killed at any instant is resumed from its last segment.
        os._exit(1)

    threading.Thread(target=guard, daemon=True).start()


def _draw(summary: xr.Dataset, axes: list[str], folder: Path) -> None:
    if "verdict" not in summary:
        return
    if len(axes) == 1:
        figure = plots.dates_against(summary, axes[0]).figure
        plots.save(figure, folder, "dates")  # pyright: ignore[reportArgumentType]
    elif len(axes) == 2:
        plots.save(plots.phase_diagram(summary, *axes), folder, "phase_diagram")
