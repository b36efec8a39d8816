"""Sweeps: one experiment over a grid of settings, as a folder of runs, a summary dataset and a
figure.

Each point is a run of its own with all seeds, trained and read by a process that has one core: no
    point waits for another.
A sweep that is stopped or killed goes on where it was.
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
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from mi_jax import plots
from mi_jax.basics.errors import Interrupted, MiJaxError, RunError, require
from mi_jax.basics.fields import with_setting
from mi_jax.basics.files import replace_file
from mi_jax.dynamics import GAP, LEVEL, regimes, transitions
from mi_jax.measuring.choosing import choose
from mi_jax.measuring.files import write_dataset
from mi_jax.runs.experiment import Experiment
from mi_jax.runs.library import find
from mi_jax.runs.run import open_run
from mi_jax.runs.train import train
from mi_jax.training.loop import signals
from mi_jax.training.machine import use_compile_cache

READ = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
"""What is read of every run, where it can be."""

_POLL_SECONDS, _PATIENCE_SECONDS = 0.5, 5.0

Axes = Mapping[str, Sequence[Any]]
"""Dotted names of settings (``optimizer.weight_decay``) and the values to give them."""
Watch = Callable[[int, int, str], None]
"""Told after each finished run: how many are, of how many, and which."""


class Job(NamedTuple):
    """One point of the grid, as a process is told of it."""

    name: str
    record: dict[str, Any]
    folder: Path
    source: str | None


def sweep(
    experiment: Experiment,
    axes: Axes,
    out: str | os.PathLike[str] | None = None,
    *,
    processes: int | None = None,
    gap: int = GAP,
    level: float = LEVEL,
    watch: Watch = lambda done, total, name: None,
    source: str | None = None,
    compile_cache: str | None = None,
) -> xr.Dataset:
    """Trains an experiment at every point of a grid, reads losses and accuracies, and returns what
    came of each.

    Writes ``out/runs/<point>`` (runs like any other, finished ones are kept), ``out/sweep.json``,
    ``out/summary.nc`` and a figure in ``out/figures``: dates against the setting where one is
    swept, the phase diagram where two are.

    Args:
        axes: ``{"optimizer.learning_rate": (1e-3, 1e-2), "optimizer.weight_decay": (0.1, 1.0)}``.
        out: the folder; ``checkpoints/<name>-sweep`` by default.
        processes: how many runs at a time, each on a core of its own; by default as many as there
            are cores. 1 trains them here, one after the other, with all cores: other bits, as
            ``run.json`` says.
        gap, level: of the regimes (see ``dynamics.regimes``), in steps and accuracy; dates are
            those of this level too.
        source: the .py file whose classes the experiment is made of, for the processes to import.
        compile_cache: a folder for compiled programs that the processes share.

    Returns:
        Dims (*axes, seed): memorised, grokked, delay [steps; NaN is never], regime, and
        final_<reading> for each reading.

    Raises:
        ConfigError: for a setting or a value that can't be, before anything is written.
        RunError: where runs failed; the others are kept.
        Interrupted: after SIGINT or SIGTERM; what is done is kept.
    """
    folder = Path(
        out if out is not None else Path("checkpoints") / f"{experiment.name}-sweep"
    ).resolve()
    points = grid(experiment, axes)
    require(processes is None or processes >= 1, f"processes={processes}: must be at least 1")
    _claim(folder, experiment, axes)
    jobs = [
        Job(name, point.to_json(), folder / "runs" / name, source) for name, point in points.items()
    ]
    cores = sorted(os.sched_getaffinity(0))
    at_once = min(processes or (len(cores) if jax.default_backend() == "cpu" else 1), len(jobs))
    if at_once == 1:
        _one_by_one(jobs, watch)
    else:
        _in_processes(jobs, cores, at_once, watch, compile_cache)
    summary = summarised(experiment, axes, folder, gap, level)
    write_dataset(folder / "summary.nc", summary)
    _draw(summary, list(axes), folder / "figures")
    return summary


def grid(experiment: Experiment, axes: Axes) -> dict[str, Experiment]:
    """The experiment at every point, by the point's name. Raises ConfigError for a setting or a
    value that can't be.
    """
    require(
        len(axes) > 0,
        "nothing is swept; give a setting several values, such as --optimizer.weight-decay 0.1,1",
    )
    for name, values in axes.items():
        require(
            len(values) > 0 and len(set(values)) == len(values),
            f"{name}={list(values)}: must be values, each once",
        )
    points: dict[str, Experiment] = {}
    for values in itertools.product(*axes.values()):
        point = experiment
        for name, value in zip(axes, values, strict=True):
            point = with_setting(point, name, value)
        points[",".join(f"{name}={value}" for name, value in zip(axes, values, strict=True))] = (
            point
        )
    return points


def summarised(
    experiment: Experiment, axes: Axes, folder: Path, gap: int = GAP, level: float = LEVEL
) -> xr.Dataset:
    """What came of every point, from the readings that its run holds."""
    each = [_outcome(folder / "runs" / name, gap, level) for name in grid(experiment, axes)]
    shape = [len(values) for values in axes.values()]
    coords: dict[str, Any] = {name: list(values) for name, values in axes.items()} | {
        "seed": list(experiment.seeds)
    }
    variables = {
        name: (
            (*axes, "seed"),
            np.stack([one[name].values for one in each]).reshape(*shape, -1),
            each[0][name].attrs,
        )
        for name in each[0].data_vars
    }
    told = {
        "level": level,
        "gap": gap,
        "steps": experiment.steps,
        "experiment": json.dumps(experiment.to_json()),
    }
    return xr.Dataset(variables, coords, told)


def _outcome(path: Path, gap: int, level: float) -> xr.Dataset:
    dataset = open_run(path).measures
    found: dict[str, xr.DataArray] = {}
    if {"train_accuracy", "test_accuracy"} <= set(dataset):
        dates = transitions(dataset, train=level, test=level)
        found = {**dates._asdict(), "regime": regimes(dataset, gap=gap, level=level)}
    last = dataset[[name for name in READ if name in dataset]].isel(step=-1, drop=True)
    return xr.Dataset({**found, **{f"final_{name}": one for name, one in last.data_vars.items()}})


def _claim(folder: Path, experiment: Experiment, axes: Axes) -> None:
    """Marks the folder as this experiment's sweep; other values of its settings may be added later."""
    told = {
        "experiment": experiment.hash,
        "name": experiment.name,
        "axes": {name: list(values) for name, values in axes.items()},
    }
    file = folder / "sweep.json"
    if file.exists():
        there = json.loads(file.read_text())
        if there["experiment"] != told["experiment"] or list(there["axes"]) != list(axes):
            raise RunError(
                f"{folder} holds another sweep, of {there['name']} over {list(there['axes'])}; give"
                " another --out"
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise RunError(f"{folder} isn't empty and holds no sweep.json; give another --out")
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(file, json.dumps(told, indent=2).encode())


_stop: Any = None
"""In a process of the pool, the event that says that the sweep is being stopped."""


def _work(job: Job) -> str:
    """Trains and reads one point, or what is left of it."""
    if _stop is not None and _stop.is_set():
        raise Interrupted("not begun")
    if job.source is not None:
        find(job.source)
    run = train(Experiment.from_json(job.record), job.folder)
    chosen, _ = choose(None, run.subject)
    run.measure([one for one in chosen if one.name in READ])
    return job.name


def _one_by_one(jobs: Sequence[Job], watch: Watch) -> None:
    for done, job in enumerate(jobs, 1):
        try:
            _work(job)
        except Interrupted as error:
            raise _stopped(done - 1, len(jobs)) from error
        watch(done, len(jobs), job.name)


def _in_processes(
    jobs: Sequence[Job], cores: list[int], at_once: int, watch: Watch, compile_cache: str | None
) -> None:
    context = multiprocessing.get_context("spawn")
    own, stop = context.Queue(), context.Event()
    for i in range(at_once):
        own.put(cores[i % len(cores)])
    pool = ProcessPoolExecutor(at_once, context, _begin, (own, stop, os.getpid(), compile_cache))
    failed: list[str] = []
    done = 0
    with signals() as asked, pool:
        waiting: dict[Future[str], Job] = {pool.submit(_work, job): job for job in jobs}
        while waiting and not asked.is_set():
            for future in wait(waiting, _POLL_SECONDS, FIRST_COMPLETED).done:
                job = waiting.pop(future)
                try:
                    future.result()
                except (MiJaxError, BrokenProcessPool) as error:
                    failed.append(f"{job.name}: {error or 'its process died'}")
                else:
                    done += 1
                    watch(done, len(jobs), job.name)
        if waiting:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise _stopped(done, len(jobs))
    if failed:
        raise RunError(
            f"{len(failed)} of {len(jobs)} runs failed, the others are kept: {'; '.join(failed)}"
        )


def _stopped(done: int, total: int) -> Interrupted:
    return Interrupted(
        f"stopped with {done} of {total} runs finished; those, and what was trained of the others,"
        " are kept"
    )


def _begin(own: Any, stop: Any, parent: int, compile_cache: str | None) -> None:
    """A process of the pool: one core, the shared compile cache, and an end when the sweep's own
    process ends.
    """
    global _stop
    _stop = stop
    os.sched_setaffinity(0, {own.get()})
    # While a run is trained it answers SIGTERM by saving; a process that dies at another moment
    # could hold the pool's locks.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if compile_cache is not None:
        use_compile_cache(compile_cache)

    def guard() -> None:
        while os.getppid() == parent:
            if stop.wait(_POLL_SECONDS):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(_PATIENCE_SECONDS)
        # Killed at any instant, a run goes on from its last segment.
        os._exit(1)

    threading.Thread(target=guard, daemon=True).start()


def _draw(summary: xr.Dataset, axes: list[str], folder: Path) -> None:
    if "grokked" not in summary:
        return
    if len(axes) == 1:
        plots.save(plots.dates_against(summary, axes[0]).figure, folder, "dates")  # pyright: ignore[reportArgumentType]
    elif len(axes) == 2:
        plots.save(plots.phase_diagram(summary, *axes), folder, "phase_diagram")
