"""Planted trajectories as runs on disk, which are opened, measured and reported like any other."""

import os

from mi_jax.models import MLP
from mi_jax.planted.induction import induction_parts, induction_task
from mi_jax.planted.paths import RandomWalk, ScaledInduction, TwoCircuits
from mi_jax.runs.experiment import Experiment
from mi_jax.runs.run import Run
from mi_jax.runs.train import train
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import every

Folder = str | os.PathLike[str] | None


def scaled_induction(
    out: Folder = None,
    *,
    symbols: int = 8,
    length: int | None = None,
    beta: float = 8.0,
    steps: int = 100,
) -> Run:
    """Induction whose previous-token head grows by a formula: see ``ScaledInduction``. A snapshot
    every step.

    Args:
        out: the run's directory; ``checkpoints/scaled_induction`` by default.
        symbols, length: of the repeated sequences. beta: of the head at the last step.
    """
    task, settings, _ = induction_parts(induction_task(symbols, length))
    path = ScaledInduction(beta=beta)
    return train(
        Experiment(
            task, settings, steps=steps, schedule=every(1), name="scaled_induction", path=path
        ),
        out,
    )


def two_circuits(
    out: Folder = None,
    *,
    p: int = 23,
    frequencies: tuple[int, int] = (3, 7),
    onsets: tuple[int, int] = (40, 120),
    width: int = 20,
    steps: int = 200,
    seeds: tuple[int, ...] = (0, 1, 2),
) -> Run:
    """Two circuits of modular addition that form one after the other: see ``TwoCircuits``. A
    snapshot every step.

    Args:
        out: the run's directory; ``checkpoints/two_circuits`` by default.
        p: odd. frequencies, onsets, width: of the circuits, and the steps that each takes to form.
    """
    task, path = (
        ModularArithmetic(p=p, fraction=0.5, format="a b"),
        TwoCircuits(frequencies, onsets, width),
    )
    experiment = Experiment(
        task,
        MLP(width=18),
        steps=steps,
        schedule=every(1),
        seeds=seeds,
        name="two_circuits",
        path=path,
    )
    return train(experiment, out)


def random_walk(
    out: Folder = None,
    *,
    p: int = 23,
    width: int = 18,
    scale: float = 1.0,
    steps: int = 200,
    seeds: tuple[int, ...] = (0, 1, 2),
) -> Run:
    """A network of modular addition that walks at random: see ``RandomWalk``. A snapshot every
    step.

    Args:
        out: the run's directory; ``checkpoints/random_walk`` by default.
        p, width: of the task and the quadratic MLP. scale: how far the walk goes.
    """
    task, path = ModularArithmetic(p=p, fraction=0.5, format="a b"), RandomWalk(scale)
    experiment = Experiment(
        task,
        MLP(width=width),
        steps=steps,
        schedule=every(1),
        seeds=seeds,
        name="random_walk",
        path=path,
    )
    return train(experiment, out)
