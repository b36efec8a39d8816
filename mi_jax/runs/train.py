"""Training an experiment, opening the run it leaves, and measuring that."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mi_jax.basics.errors import RunError
from mi_jax.basics.records import differences, digest
from mi_jax.interventions import InProgram
from mi_jax.runs.experiment import Experiment
from mi_jax.runs.replay import check_machine, elsewhere, mode_of, programs_of
from mi_jax.runs.run import Run, open_run
from mi_jax.training import machine
from mi_jax.training.loop import Watch, check_resumable, train_to_end
from mi_jax.training.planting import follow
from mi_jax.training.program_schedule import ProgramSchedule
from mi_jax.training.record import FORMAT, lock, read_record, write_record
from mi_jax.training.state import Mode, Parts, SeedMode
from mi_jax.training.trajectory import Storage, Trajectory


def train(
    experiment: Experiment,
    out: str | os.PathLike[str] | None = None,
    *,
    watch: Watch = lambda progress: None,
    allow_other_machine: bool = False,
    route: str | None = None,
    seed_mode: SeedMode | None = None,
) -> Run:
    """Trains an experiment, or goes on with the run that ``out`` holds of it, and returns the run.

    Args:
        out: the run's directory; ``checkpoints/<name>`` by default.
        watch: called after each chunk of training with a Progress.
        route: which of the model's ways of computing to train through; the cheapest by default, and
            a resumed run keeps its own.
        seed_mode: "mapped", one seed after the other with the bits it has alone, or "vmapped", all
            at once; by default the latter on accelerators. A resumed run keeps its own.
        allow_other_machine: go on where versions, cores or flags differ from those the run began
            with: its bits will too.

    Raises:
        ConfigError, RunError: before anything is written where the experiment or the directory
            can't be.
        Interrupted: after SIGINT or SIGTERM, with everything done so far saved.
    """
    folder = Path(out if out is not None else Path("checkpoints") / experiment.name).resolve()
    record, here = experiment.to_json(), machine.machine()
    check_resumable(folder)
    if (folder / "run.json").exists():
        check_same(folder, record)
        route, seed_mode = _check_mode(folder, route, seed_mode)
    parts = experiment.parts(route, seed_mode)
    if not (folder / "run.json").exists():
        check(parts)
    with lock(folder):
        if not (folder / "run.json").exists():
            write_record(folder, run_record(experiment, here, parts))
        trajectory = Trajectory(folder)
        if experiment.path is None:
            finish(trajectory, parts, watch=watch, allow_other_machine=allow_other_machine)
        elif trajectory.done < parts.steps:
            check_machine(trajectory, here, allow_other_machine)
            follow(
                trajectory,
                experiment.path,
                parts,
                experiment.plant_context,
                experiment.snapshots(),
                _storage(trajectory),
                watch,
            )
    return open_run(folder)


def check(parts: Parts) -> None:
    """Refuses what can't be trained, before training. Raises ConfigError, RunError."""
    ProgramSchedule(parts, elsewhere=elsewhere(None, parts.seeds)).check()


def finish(
    trajectory: Trajectory, parts: Parts, *, watch: Watch, allow_other_machine: bool
) -> None:
    """Trains the run of a directory to its end. The caller holds the writer's lock."""
    if trajectory.done >= parts.steps:
        return
    check_machine(trajectory, machine.machine(), allow_other_machine)
    programs = programs_of(trajectory, parts)
    programs.prepare()
    train_to_end(
        trajectory, programs, np.array(trajectory.record["snapshots"]), _storage(trajectory), watch
    )


def _storage(trajectory: Trajectory) -> Storage:
    """The run's own storage settings."""
    return Storage(
        **{
            key: value
            for key, value in trajectory.record["experiment"]["storage"].items()
            if key != "type"
        }
    )


def _check_mode(folder: Path, route: str | None, seed_mode: SeedMode | None) -> Mode:
    """The mode of the run that is there. Raises RunError where another is asked for."""
    own = mode_of(read_record(folder))
    if route not in (None, own.route):
        raise RunError(
            f"{folder} was begun on the route '{own.route}', not '{route}': its bits can't be"
            " continued. Give another --out"
        )
    if seed_mode not in (None, own.seed_mode):
        raise RunError(
            f"{folder} was begun with seeds {own.seed_mode}, not {seed_mode}: its bits can't be"
            " continued. Give another --out"
        )
    return own


def run_record(
    experiment: Experiment,
    here: dict[str, Any],
    parts: Parts,
    parent: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What ``run.json`` says of a run; of a fork also what ``parent`` says of the run that it is
    of.
    """
    forked = {} if parent is None else {"parent": dict(parent)}
    truth = (
        {}
        if experiment.path is None
        else {"truth": experiment.path.truth(experiment.plant_context, experiment.seeds)}
    )
    prepares = any(isinstance(i, InProgram) for i in experiment.interventions)
    own = {"hash": parent["hash"], "step": parent["step"]} if parent else None
    return {
        "format": FORMAT if forked or prepares else 1,
        **forked,
        "experiment": experiment.to_json(),
        "hash": (
            experiment.hash
            if own is None
            else digest({"experiment": experiment.hash, "parent": own})
        ),
        "seeds": list(experiment.seeds),
        "steps": experiment.steps,
        "snapshots": experiment.snapshots().tolist(),
        "numbers": dict(parts.numbers),
        "machine": here,
        "mode": {"seeds": parts.mode.seed_mode, "route": parts.mode.route},
        **truth,
    }


def check_same(path: Path, record: dict[str, Any]) -> None:
    """Refuses to go on with a run of another experiment, or of this one with other seeds."""
    there = Experiment.from_json(read_record(path)["experiment"]).to_json()
    different = differences(
        {k: v for k, v in there.items() if k not in ("name", "storage")},
        {k: v for k, v in record.items() if k not in ("name", "storage")},
    )
    if different:
        only = {line.split(":")[0] for line in different}
        advice = (
            "a directory's seeds and steps are fixed: train other seeds into another --out and open"
            " both together,"
            if only <= {"seeds", "steps"}
            else "give another --out,"
        )
        raise RunError(
            f"{path} holds another run: {'; '.join(different)}. {advice} or run with the settings"
            " it has"
        )
