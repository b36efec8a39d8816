"""Progress of training and measuring on stderr: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mi_jax.basics.streams import stream
from mi_jax.measures.behaviour import accuracy
from mi_jax.measuring.program import Watch as MeasureWatch
from mi_jax.runs.experiment import Experiment
from mi_jax.training import loop
from mi_jax.training.state import TrainState

_LINE_SECONDS = 5.0
"""Seconds between two lines where stderr is not a terminal."""
_ACCURACY_SECONDS = 2.0
"""Seconds between two evaluations of the test accuracy, so that they take little of training."""


class _TestAccuracy:
    """The test accuracy of every seed, evaluated at most every ``_ACCURACY_SECONDS``.

    NaN for a task without a test split.
    """

    def __init__(self, experiment: Experiment):
        self._experiment = experiment
        self._prepared = False
        self._values = np.full(len(experiment.seeds), np.nan)
        self._time = -np.inf

    def _prepare(self) -> None:
        """Make the test examples: not before training has begun, which refuses too many."""
        experiment, self._prepared = self._experiment, True
        task, model = experiment.task, experiment.build()
        seed = experiment.seeds[0]
        evaluation = task.evaluation(task.data(seed), stream(seed, "measure"))
        self._batch = evaluation.batches.get("test")
        self._program = jax.jit(
            lambda params, batch: jax.lax.map(
                lambda p: accuracy(model.apply(p, batch.inputs, positions=task.read), batch), params
            )
        )

    def __call__(self, state: TrainState) -> np.ndarray:
        if not self._prepared:
            self._prepare()
        if self._batch is not None and time.monotonic() - self._time > _ACCURACY_SECONDS:
            self._values = np.asarray(self._program(state.params, self._batch))
            self._time = time.monotonic()
        return self._values


def _status(progress: loop.Progress, accuracies: np.ndarray) -> str:
    losses = " ".join(f"{loss:.1e}" for loss in progress.losses)
    shown = " ".join(f"{value:.2f}" for value in accuracies)
    rate = ""
    if np.isfinite(progress.steps_per_second):
        rate = f"   {progress.steps_per_second:.0f} steps/s"
    return f"loss {losses}   test accuracy {shown}{rate}"


@contextmanager
def training_progress(experiment: Experiment, quiet: bool) -> Iterator[loop.Watch]:
    """Show loss, test accuracy, steps per second and the remaining time while ``train`` works.

    Args:
        experiment: the experiment that is trained.
        quiet: show nothing.

    Yields:
        The function to pass to ``train`` as ``watch``.
    """
    if quiet:
        yield lambda progress: None
        return
    accuracies = _TestAccuracy(experiment)
    if not sys.stderr.isatty():
        yield _TrainingLines(accuracies)
        return
    with _bar("training") as bar:
        task = bar.add_task("training", total=experiment.steps, status="compiling")

        def watch(progress: loop.Progress) -> None:
            status = _status(progress, accuracies(progress.state))
            bar.update(task, completed=progress.step, status=status)

        yield watch


class _TrainingLines:
    """Lines for a log: one every few seconds, and one at the end."""

    def __init__(self, accuracies: _TestAccuracy):
        self._accuracies = accuracies
        self._time = time.monotonic()

    def __call__(self, progress: loop.Progress) -> None:
        finished = progress.step >= progress.steps
        if time.monotonic() - self._time < _LINE_SECONDS and not finished:
            return
        self._time = time.monotonic()
        seconds = (progress.steps - progress.step) / progress.steps_per_second
        left = f"   {seconds:.0f} s left" if np.isfinite(seconds) and not finished else ""
        status = _status(progress, self._accuracies(progress.state))
        line = f"step {progress.step:,}/{progress.steps:,}   {status}{left}"
        print(line, file=sys.stderr, flush=True)


@contextmanager
def measuring_progress(quiet: bool) -> Iterator[MeasureWatch]:
    """Show the number of snapshots read while ``measure`` works.

    Args:
        quiet: show nothing.

    Yields:
        The function to pass to ``measure`` as ``watch``.
    """
    if quiet:
        yield lambda done, total: None
    elif not sys.stderr.isatty():
        last_time = time.monotonic()

        def print_line(done: int, total: int) -> None:
            nonlocal last_time
            if time.monotonic() - last_time > _LINE_SECONDS or done == total:
                last_time = time.monotonic()
                print(f"measured {done}/{total} snapshots", file=sys.stderr, flush=True)

        yield print_line
    else:
        with _bar("measuring") as bar:
            task = bar.add_task("measuring", total=None, status="")
            yield lambda done, total: bar.update(task, completed=done, total=total)


def _bar(name: str) -> Progress:
    return Progress(
        TextColumn(name),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
        console=Console(stderr=True),
    )
