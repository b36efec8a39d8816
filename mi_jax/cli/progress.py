"""What the command line shows while it works: a progress bar on a terminal, plain lines elsewhere."""

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

_PLAIN_SECONDS = 5.0
_ACCURACY_SECONDS = 2.0


class _Accuracy:
    """The test accuracy of every seed of a state, looked at no more often than it pays; NaN for a
    task without a test split.
    """

    def __init__(self, experiment: Experiment):
        task, model = experiment.task, experiment.build()
        evaluation = task.evaluation(
            task.data(experiment.seeds[0]), stream(experiment.seeds[0], "measure")
        )
        self._batch = evaluation.batches.get("test")
        self._program = jax.jit(
            lambda params, batch: jax.lax.map(
                lambda p: accuracy(model.apply(p, batch.inputs, positions=task.read), batch), params
            )
        )
        self._last, self._when = np.full(len(experiment.seeds), np.nan), -np.inf

    def __call__(self, state: TrainState) -> np.ndarray:
        if self._batch is not None and time.monotonic() - self._when > _ACCURACY_SECONDS:
            self._last = np.asarray(self._program(state.params, self._batch))
            self._when = time.monotonic()
        return self._last


def _told(progress: loop.Progress, accuracies: np.ndarray) -> str:
    losses = " ".join(f"{loss:.1e}" for loss in progress.losses)
    shown = " ".join(f"{value:.2f}" for value in accuracies)
    rate = (
        f"   {progress.steps_per_second:.0f} steps/s"
        if np.isfinite(progress.steps_per_second)
        else ""
    )
    return f"loss {losses}   test accuracy {shown}{rate}"


@contextmanager
def training_progress(experiment: Experiment, quiet: bool) -> Iterator[loop.Watch]:
    """A watcher for ``train``: loss, test accuracy, steps/s and the time that is left, on stderr."""
    if quiet:
        yield lambda progress: None
        return
    look = _Accuracy(experiment)
    if not sys.stderr.isatty():
        yield _PlainTraining(look)
        return
    with _bar("training") as bar:
        task = bar.add_task("training", total=experiment.steps, told="compiling")
        yield lambda progress: bar.update(
            task, completed=progress.step, told=_told(progress, look(progress.state))
        )


class _PlainTraining:
    """Lines for a log: one every few seconds, and the last."""

    def __init__(self, look: _Accuracy):
        self._look, self._when = look, time.monotonic()

    def __call__(self, progress: loop.Progress) -> None:
        if time.monotonic() - self._when < _PLAIN_SECONDS and progress.step < progress.steps:
            return
        self._when = time.monotonic()
        left = (progress.steps - progress.step) / progress.steps_per_second
        ending = (
            f"   {left:.0f} s left" if np.isfinite(left) and progress.step < progress.steps else ""
        )
        line = (
            f"step {progress.step:,}/{progress.steps:,}  "
            f" {_told(progress, self._look(progress.state))}{ending}"
        )
        print(line, file=sys.stderr, flush=True)


@contextmanager
def measuring_progress(quiet: bool) -> Iterator[MeasureWatch]:
    """A watcher for ``measure``: snapshots read, on stderr."""
    if quiet:
        yield lambda done, total: None
    elif not sys.stderr.isatty():
        last = [time.monotonic()]

        def line(done: int, total: int) -> None:
            if time.monotonic() - last[0] > _PLAIN_SECONDS or done == total:
                last[0] = time.monotonic()
                print(f"measured {done}/{total} snapshots", file=sys.stderr, flush=True)

        yield line
    else:
        with _bar("measuring") as bar:
            task = bar.add_task("measuring", total=None, told="")
            yield lambda done, total: bar.update(task, completed=done, total=total)


def _bar(name: str) -> Progress:
    return Progress(
        TextColumn(name),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[told]}"),
        console=Console(stderr=True),
    )
