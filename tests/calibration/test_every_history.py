"""One step, one reading, for every measure of the registry: the same bits in a run, its forks, a
zoom, the run resumed, and runs of one seed each opened as one.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import xarray as xr
from recording import record

from mi_jax.basics.streams import stream
from mi_jax.contracts import Architecture, Measure, Task
from mi_jax.measuring.choosing import choose
from mi_jax.measuring.registry import EXPENSIVE, READINGS
from mi_jax.models import MLP, Bilinear, Transformer
from mi_jax.runs.experiment import Experiment
from mi_jax.runs.fork import fork, zoom
from mi_jax.runs.run import Run, open_run
from mi_jax.runs.train import train
from mi_jax.tasks import (
    GroupComposition,
    ModularArithmetic,
    MultiDigitAddition,
    RepeatedSequences,
    SparseParity,
)
from mi_jax.training import AdamW, Storage, every
from mi_jax.training.loop import Progress

EVERY = {**READINGS, **EXPENSIVE}
ADDITION = ModularArithmetic(p=11, fraction=0.6, label_noise=0.1)
GROUP = GroupComposition(group="S3", fraction=0.8)
TRANSFORMER = Transformer(d_model=16, heads=2, d_mlp=32)


class _Organism(NamedTuple):
    task: Task
    model: Architecture

    @property
    def experiment(self) -> Experiment:
        return Experiment(
            task=self.task,
            model=self.model,
            optimizer=AdamW(learning_rate=1e-2),
            steps=24,
            schedule=every(8),
            storage=Storage(states=2, snapshots=5),
            seeds=(0, 3),
        )


ORGANISMS = {
    "addition, transformer": _Organism(ADDITION, TRANSFORMER),
    "addition, MLP": _Organism(ADDITION, MLP(width=16)),
    "group, transformer": _Organism(GROUP, TRANSFORMER),
    "group, MLP": _Organism(GROUP, MLP(width=16)),
    "group, bilinear": _Organism(GROUP, Bilinear.smallest()),
    "parity, MLP": _Organism(SparseParity.smallest(), MLP(width=16)),
    "digits, transformer": _Organism(MultiDigitAddition.smallest(), TRANSFORMER),
    "sequences, transformer": _Organism(
        RepeatedSequences.smallest(), Transformer(d_model=16, heads=2, d_mlp=32, layers=2)
    ),
}
"""Pairs of a task and a model, to at least one of which every measure applies."""


class _StopError(Exception):
    pass


def _stop(progress: Progress) -> None:
    if progress.step >= 12:
        raise _StopError


def _resumed(experiment: Experiment, parent: Run, folder: Path) -> Run:
    with pytest.raises(_StopError):
        train(experiment, folder, watch=_stop)
    return train(experiment, folder)


def _joined(experiment: Experiment, parent: Run, folder: Path) -> Run:
    for seed in experiment.seeds:
        train(dataclasses.replace(experiment, seeds=(seed,)), folder / str(seed))
    return open_run([folder / str(seed) for seed in experiment.seeds])


def _forked_twice(experiment: Experiment, parent: Run, folder: Path) -> Run:
    once = fork(parent, step=8, steps=24, out=folder / "once")
    return fork(once, step=16, steps=24, out=folder / "twice")


HISTORIES: dict[str, Callable[[Experiment, Run, Path], Run]] = {
    "fork": lambda _, parent, folder: fork(parent, step=8, steps=24, out=folder),
    "fork of a fork": _forked_twice,
    "zoom": lambda experiment, parent, folder: zoom(
        parent, around=15, every=1, width=2, out=folder
    ),
    "resumed": _resumed,
    "joined": _joined,
}
"""By name, how another run that passes through the parent's steps is made."""


def _compare(whole: xr.Dataset, part: xr.Dataset, paired: set[str]) -> tuple[int, list[str]]:
    """Compare the readings of the steps that two histories share.

    Args:
        whole: readings of the run.
        part: readings of another history.
        paired: variables that compare a snapshot with the one before it, which has to be the same.

    Returns:
        How many readings were compared, and the names of those that differ.
    """
    common, count, different = np.intersect1d(whole["step"], part["step"]), 0, []
    for name in map(str, whole.data_vars):
        for step in common:
            ours, theirs = (readings[name].sel(step=step) for readings in (whole, part))
            if name in paired:
                before = [float(x["previous_step"]) for x in (ours, theirs)]
                if not np.array_equal(*before, equal_nan=True):
                    continue
            count += 1
            if ours.values.tobytes() != theirs.values.tobytes():
                different.append(f"{name} at step {step}")
    return count, different


def test_every_measure_applies_to_one_of_the_organisms() -> None:
    references = frozenset({"initial", "previous", "final"})
    applies = {
        measure.name
        for organism in ORGANISMS.values()
        for measure in choose(None, organism.experiment.subject(), references, among=EVERY)[0]
    }
    assert applies == set(EVERY)


def _applicable(experiment: Experiment, parent: Run) -> list[Measure]:
    """The measures of the registry that apply: probes that hold out a concept need its labels."""
    task = experiment.task
    known = task.labels(task.evaluation(task.data(0), stream(0, "measure")))
    measures, _ = parent.choose(among=EVERY)
    return [m for m in measures if m.options.get("held_out") in (None, *known)]


@pytest.mark.long
@pytest.mark.parametrize("name", ORGANISMS)
def test_a_step_has_one_reading_in_every_history(name: str, tmp_path: Path) -> None:
    experiment = ORGANISMS[name].experiment
    parent = train(experiment, tmp_path / "parent")
    measures = _applicable(experiment, parent)
    whole, counts = parent.measure(measures), {}
    paired = {
        name for measure in measures if "previous" in measure.uses for name in measure.variables
    }
    for label, make in HISTORIES.items():
        part = make(experiment, parent, tmp_path / label.replace(" ", "_")).measure(measures)
        assert set(part.data_vars) == set(whole.data_vars), label
        counts[label], different = _compare(whole, part, paired)
        assert not different, (label, different)
        assert counts[label] >= len(whole.data_vars) - len(paired), label
    record("histories", {"organism": name, "measures": len(measures), **counts})
