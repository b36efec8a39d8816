"""Estimated cost of a training run, without training it."""

import time

import jax
import jax.numpy as jnp

from mi_jax.runs.experiment import Experiment
from mi_jax.runs.limits import Estimate, estimate, machine_memory

_WIDTH = 1024
"""Rows of the square matrices whose product is timed."""


def cost(experiment: Experiment, needed: Estimate | None = None) -> dict[str, int | float]:
    """Estimates what training an experiment takes, from shapes alone. Writes nothing.

    The minutes are those of its matrix products at the speed of one product that is timed here. For
    the experiments that come with the package, on two cores, they were 0.9 to 1.4 times the real
    ones, and 0.6 times for ``merrill_2023``, whose steps are tiny. A planted path is not trained
    and stores no train states: it takes 0 minutes, and disk for its snapshots alone.

    Args:
        experiment: the settings.
        needed: its memory and disk, where they are known already, see ``limits.estimate``.

    Returns:
        parameters: of one seed.
        seeds: how many.
        steps: optimizer updates.
        snapshots: how many are stored.
        megabytes: of snapshots and train states on disk, in units of 2**20 bytes.
        megabytes_of_memory: about.
        megabytes_of_this_machine: its memory.
        minutes_of_training: without compilation.

    Raises:
        ConfigError: if the model does not accept the task's inputs.
    """
    needed = needed or estimate(experiment)
    planted = experiment.path is not None
    seconds = 0.0 if planted else needed.operations / _operations_per_second()
    return {
        "parameters": needed.parameters,
        "seeds": len(experiment.seeds),
        "steps": experiment.steps,
        "snapshots": len(experiment.snapshots()),
        "megabytes": needed.disk / 2**20,
        "megabytes_of_memory": needed.memory / 2**20,
        "megabytes_of_this_machine": machine_memory() / 2**20,
        "minutes_of_training": seconds * experiment.steps / 60,
    }


def _operations_per_second() -> float:
    """Floating-point operations per second of a matrix product on this device."""
    matrix = jnp.ones((_WIDTH, _WIDTH), jnp.float32)
    # The first product compiles. jax returns before it has computed: hence block_until_ready.
    jax.block_until_ready(matrix @ matrix)
    begin = time.perf_counter()
    jax.block_until_ready(matrix @ matrix)
    return 2 * _WIDTH**3 / (time.perf_counter() - begin)
