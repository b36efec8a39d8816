"""Exact train states of any step of a stored run: read from disk, or replayed from the last one
stored.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mi_jax.basics.dims import Params
from mi_jax.basics.errors import RunError
from mi_jax.basics.pytrees import take
from mi_jax.contracts import PLAIN
from mi_jax.interventions.places import LoadParams
from mi_jax.runs.experiment import Experiment
from mi_jax.training import loop, machine
from mi_jax.training.program_schedule import ProgramSchedule
from mi_jax.training.state import Mode, Parts, TrainState
from mi_jax.training.trajectory import Trajectory


def programs_of(trajectory: Trajectory, parts: Parts) -> ProgramSchedule:
    """The programs of a run on disk, which keeps there what its interventions prepare."""
    parent = None if trajectory.parent is None else trajectory.parent[0]
    initial = None if parent is None else trajectory.initial
    where = load_params_of(parent, trajectory.seeds)
    return ProgramSchedule(
        parts,
        origin=trajectory.origin,
        store=trajectory.prepared,
        load_params=where,
        initial=initial,
    )


def load_params_of(parent: Path | None, seeds: tuple[int, ...]) -> LoadParams:
    """Where interventions find parameters of other runs, of these seeds."""

    def params(path: str | None, step: int) -> Params:
        if path is None and parent is None:
            raise RunError(
                "an intervention names no run, which would be the one that was forked, and this one"
                " was not: give run="
            )
        trajectory = Trajectory(Path(path) if path is not None else parent)  # pyright: ignore[reportArgumentType]
        missing = sorted(set(seeds) - set(trajectory.seeds))
        if missing:
            raise RunError(
                f"{trajectory.path} has the seeds {list(trajectory.seeds)}, an intervention needs"
                f" its seeds {missing}"
            )
        kept = step in trajectory.steps
        stacked = take(trajectory.stack([step]), 0) if kept else state_at(trajectory, step).params
        places = np.array([trajectory.seeds.index(seed) for seed in seeds])
        return jax.tree.map(lambda x: x[places], stacked)

    return params


def state_at(trajectory: Trajectory, step: int, *, allow_other_machine: bool = False) -> TrainState:
    """The exact train state after ``step`` updates, leading axis seed: stored, or replayed from the
    last stored one.

    Raises:
        RunError: for a step that the run has not reached, a run without train states, or a replay
            on a machine whose bits may differ.
    """
    if not trajectory.origin <= step <= trajectory.done:
        raise RunError(
            f"step {step} can't be reached: the run at {trajectory.path} holds steps"
            f" {trajectory.origin} to {trajectory.done}"
        )
    if not trajectory.has_states:
        raise RunError(
            f"{trajectory.path} holds snapshots alone, no train states: .params gives them"
        )
    settings = {**trajectory.record["experiment"], "seeds": list(trajectory.seeds)}
    programs = programs_of(
        trajectory, Experiment.from_json(settings).parts(*mode_of(trajectory.record))
    )
    start, state = loop.stored_state(programs, trajectory, step)
    if start != step or start == 0:
        check_machine(trajectory, machine.machine(), allow_other_machine)
    return loop.replay(programs, state, start, step)


def mode_of(record: Mapping[str, Any]) -> Mode:
    """How a run was begun; the first runs knew one way only."""
    return Mode(record["mode"].get("route", PLAIN), record["mode"]["seeds"])


def check_machine(trajectory: Trajectory, here: dict[str, Any], allow: bool) -> None:
    """Refuses to compute a run's bits where they may come out otherwise. Raises RunError, unless
    that is allowed.
    """
    different = machine.bit_differences(trajectory.record["machine"], here)
    if different and not allow and (trajectory.done or trajectory.indexes):
        raise RunError(
            f"{trajectory.path} was begun elsewhere, its bits can't be continued:"
            f" {'; '.join(different)}. --allow-other-machine (allow_other_machine=True) goes on all"
            " the same"
        )
