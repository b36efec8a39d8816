"""Exact train states of a stored run at any step: read from disk, or replayed."""

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
from mi_jax.runs.experiment import stored_experiment
from mi_jax.training import loop, machine
from mi_jax.training.program_schedule import ProgramSchedule
from mi_jax.training.state import Mode, Parts, TrainState
from mi_jax.training.trajectory import Trajectory


def programs_of(trajectory: Trajectory, parts: Parts) -> ProgramSchedule:
    """The program schedule of a stored run. It keeps in the run what interventions prepare."""
    parent = None if trajectory.parent is None else trajectory.parent[0]
    return ProgramSchedule(
        parts,
        origin=trajectory.origin,
        store=trajectory.prepared,
        load_params=load_params_of(parent, trajectory.seeds),
        initial=None if parent is None else trajectory.initial,
    )


def load_params_of(parent: Path | None, seeds: tuple[int, ...]) -> LoadParams:
    """The function by which interventions read parameters of other runs.

    Args:
        parent: the run that is read if an intervention names none; None for a run that is no
            fork.
        seeds: the seeds whose parameters are read, in this order.
    """

    def load(path: str | None, step: int) -> Params:
        source = parent if path is None else Path(path)
        if source is None:
            raise RunError(
                "This intervention copies weights from another run, but `run=` is unset and this"
                " run is not a fork. Pass run='path/to/run'."
            )
        trajectory = Trajectory(source)
        missing = sorted(set(seeds) - set(trajectory.seeds))
        if missing:
            raise RunError(
                f"An intervention copies weights of the seeds {missing} from {trajectory.path},"
                f" which has the seeds {list(trajectory.seeds)}. Name a run that has them."
            )
        stored = step in trajectory.steps
        params = take(trajectory.stack([step]), 0) if stored else state_at(trajectory, step).params
        rows = np.array([trajectory.seeds.index(seed) for seed in seeds])
        return jax.tree.map(lambda leaf: leaf[rows], params)

    return load


def state_at(trajectory: Trajectory, step: int, *, allow_other_machine: bool = False) -> TrainState:
    """The exact train state after ``step`` updates: stored, or replayed from the last stored one.

    Args:
        trajectory: the run.
        step: optimizer updates done.
        allow_other_machine: replay even if versions, cores or flags differ from the run's.

    Returns:
        The state, leading axis seed.

    Raises:
        RunError: the run has not reached the step, it holds no train states, or a replay here could
            give other bits.
    """
    if not trajectory.origin <= step <= trajectory.done:
        raise RunError(
            f"There is no step {step} in {trajectory.path}, which holds the steps"
            f" {trajectory.origin} to {trajectory.done}. Use one of them."
        )
    if not trajectory.has_states:
        raise RunError(
            f"{trajectory.path} holds snapshots but no train states. Use `.params` for the"
            " parameters of a snapshot."
        )
    parts = stored_experiment(trajectory.record).parts(*mode_of(trajectory.record))
    programs = programs_of(trajectory, parts)
    start, state = loop.stored_state(programs, trajectory, step)
    # Step 0 is not stored but computed, so its bits depend on the machine too.
    if start != step or start == 0:
        check_machine(trajectory, machine.machine(), allow_other_machine)
    return loop.replay(programs, state, start, step)


def mode_of(record: Mapping[str, Any]) -> Mode:
    """How a run is computed. Records of the first version say nothing of routes."""
    return Mode(record["mode"].get("route", PLAIN), record["mode"]["seeds"])


def check_machine(trajectory: Trajectory, here: dict[str, Any], allow: bool) -> None:
    """Refuses to continue a run if its bits could come out differently.

    Args:
        trajectory: the run.
        here: this machine (see ``training.machine``).
        allow: continue all the same, as the run's own experiment may allow too.

    Raises:
        RunError: naming what differs, unless that is allowed or nothing was trained yet.
    """
    different = machine.bit_differences(trajectory.record["machine"], here)
    allow = allow or trajectory.record["experiment"].get("accept_machine") == "any"
    if different and not allow and (trajectory.done or trajectory.indexes):
        raise RunError(
            f"{trajectory.path} was trained on another machine or with other versions, so"
            f" continuing it here could change its bits: {'; '.join(different)}. To continue all"
            " the same, pass --allow-other-machine (allow_other_machine=True). An experiment with"
            " accept_machine='any' (--accept-machine any) may be continued on any machine."
        )
