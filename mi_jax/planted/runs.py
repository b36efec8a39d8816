"""Planted trajectories as runs on disk, to open, measure and report like any other run."""

import os

from mi_jax.contracts import Architecture, Task
from mi_jax.models import MLP
from mi_jax.planted.induction import induction_parts, induction_task
from mi_jax.planted.paths import RandomWalk, ScaledInduction, TwoCircuits
from mi_jax.runs.experiment import Experiment
from mi_jax.runs.run import Run
from mi_jax.runs.train import train
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import every
from mi_jax.training.planting import PlantedTrajectory

Folder = str | os.PathLike[str] | None


def scaled_induction(
    out: Folder = None,
    *,
    symbols: int = 8,
    length: int | None = None,
    beta: float = 8.0,
    steps: int = 100,
) -> Run:
    """Stores a run of induction whose previous-token head grows by a formula.

    See ``ScaledInduction``. Every step has a snapshot.

    Args:
        out: the directory of the run; None for ``checkpoints/scaled_induction``.
        symbols: the number of symbols of the repeated sequences.
        length: tokens per half of a sequence; None for ``symbols``.
        beta: the score of the previous token at the last step.
        steps: the number of steps.

    Returns:
        The run.

    Raises:
        ConfigError: for an invalid setting.
        RunError: if the directory holds another run.

    Example:
        >>> run = scaled_induction("runs/induction", symbols=8)  # doctest: +SKIP
        >>> run.record["truth"]["rate"]  # doctest: +SKIP
        0.08
    """
    task = induction_task(symbols, length)
    settings, _ = induction_parts(task)
    return _planted(
        "scaled_induction", task, settings, ScaledInduction(beta=beta), steps=steps, out=out
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
    """Stores a run of two circuits of modular addition that form one after the other.

    See ``TwoCircuits``. Every step has a snapshot.

    Args:
        out: the directory of the run; None for ``checkpoints/two_circuits``.
        p: the modulus, odd.
        frequencies: the frequencies of the circuits.
        onsets: the step at which each circuit starts to form.
        width: the number of steps that each takes to form.
        steps: the number of steps.
        seeds: the seeds of the initial parameters.

    Returns:
        The run.

    Raises:
        ConfigError: for an invalid setting.
        RunError: if the directory holds another run.

    Example:
        >>> run = two_circuits("runs/two", onsets=(40, 120))  # doctest: +SKIP
        >>> run.record["truth"]["order"]  # doctest: +SKIP
        [3, 7]
    """
    task = ModularArithmetic(p=p, fraction=0.5, format="a b")
    path = TwoCircuits(frequencies, onsets, width)
    return _planted("two_circuits", task, MLP(width=18), path, steps=steps, seeds=seeds, out=out)


def random_walk(
    out: Folder = None,
    *,
    p: int = 23,
    width: int = 18,
    scale: float = 1.0,
    steps: int = 200,
    seeds: tuple[int, ...] = (0, 1, 2),
) -> Run:
    """Stores a run of a network of modular addition that walks at random.

    See ``RandomWalk``. Every step has a snapshot.

    Args:
        out: the directory of the run; None for ``checkpoints/random_walk``.
        p: the modulus of the task.
        width: the number of neurons of the quadratic MLP.
        scale: how far the walk goes, relative to the size of the initial parameters.
        steps: the number of steps.
        seeds: the seeds of the initial parameters.

    Returns:
        The run.

    Raises:
        ConfigError: for an invalid setting, or a walk too large for memory.
        RunError: if the directory holds another run.
    """
    task = ModularArithmetic(p=p, fraction=0.5, format="a b")
    return _planted(
        "random_walk",
        task,
        MLP(width=width),
        RandomWalk(scale),
        steps=steps,
        seeds=seeds,
        out=out,
    )


def _planted(
    name: str,
    task: Task,
    model: Architecture,
    path: PlantedTrajectory,
    *,
    steps: int,
    out: Folder,
    seeds: tuple[int, ...] = (0,),
) -> Run:
    """Stores a run of a planted trajectory with a snapshot at every step."""
    experiment = Experiment(
        task, model, steps=steps, schedule=every(1), seeds=seeds, name=name, path=path
    )
    return train(experiment, out)
