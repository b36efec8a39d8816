"""Estimated cost of a training run, without training it."""

import time

import jax

from mi_jax.basics.pytrees import byte_count, parameter_count
from mi_jax.runs.experiment import Experiment
from mi_jax.runs.train import check
from mi_jax.training.state import Program

_TIMED_STEPS = 20


def cost(experiment: Experiment) -> dict[str, int | float]:
    """Estimates what training an experiment takes, from the time of 20 steps. Writes nothing.

    A planted path is not trained and stores no train states: it takes 0 minutes, and disk for its
    snapshots alone.

    Args:
        experiment: the settings.

    Returns:
        parameters: of one seed.
        seeds: how many.
        steps: optimizer updates.
        snapshots: how many are stored.
        megabytes: of snapshots and train states on disk, in units of 2**20 bytes.
        minutes_of_training: without compilation.

    Raises:
        ConfigError: if ``train`` would refuse the settings.
        RunError: if ``train`` would refuse to run them here.
    """
    parts = experiment.parts()
    check(parts)
    program = Program(parts)
    seeds, snapshots = len(experiment.seeds), len(experiment.snapshots())
    snapshot_bytes = byte_count(program.template.params)
    if experiment.path is None:
        seconds = _seconds_per_step(program) * experiment.steps
        state_bytes = byte_count(program.template) * experiment.storage.states
    else:
        seconds, state_bytes = 0.0, 0
    return {
        "parameters": parameter_count(program.template.params) // seeds,
        "seeds": seeds,
        "steps": experiment.steps,
        "snapshots": snapshots,
        "megabytes": (snapshots * snapshot_bytes + state_bytes) / 2**20,
        "minutes_of_training": seconds / 60,
    }


def _seconds_per_step(program: Program) -> float:
    """Seconds that one step of all seeds takes, compilation left out."""
    numbers = program.parts.numbers
    # The first call compiles. jax returns before it has computed: hence block_until_ready.
    state, _ = program.advance(program.init(), numbers, 1)
    jax.block_until_ready(state)
    begin = time.perf_counter()
    jax.block_until_ready(program.advance(state, numbers, _TIMED_STEPS))
    return (time.perf_counter() - begin) / _TIMED_STEPS
