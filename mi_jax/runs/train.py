"""Training an experiment: a new run, or one that is resumed."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mi_jax.basics.errors import RunError
from mi_jax.basics.modules import sources
from mi_jax.basics.records import differences
from mi_jax.runs import replay
from mi_jax.runs.experiment import Experiment, Plan, stored_experiment
from mi_jax.runs.limits import check_fits
from mi_jax.runs.run import Run, open_run
from mi_jax.training import machine
from mi_jax.training.loop import Watch, check_resumable, train_to_end
from mi_jax.training.planting import follow
from mi_jax.training.program_schedule import ProgramSchedule
from mi_jax.training.record import FORMAT, identity, lock, read_record, write_record
from mi_jax.training.state import Mode, Parts, SeedMode
from mi_jax.training.trajectory import Storage, Trajectory


def train(
    experiment: Experiment,
    out: str | os.PathLike[str] | None = None,
    *,
    watch: Watch = lambda progress: None,
    allow_other_machine: bool = False,
    allow_no_lock: bool = False,
    route: str | None = None,
    seed_mode: SeedMode | None = None,
) -> Run:
    """Trains an experiment, or resumes the run of it that ``out`` holds.

    A run that was killed or interrupted resumes from its last segment, to the same bits as one that
    was never stopped.

    Args:
        experiment: what to train.
        out: the run's folder; ``checkpoints/<experiment.name>`` by default.
        watch: called with a ``Progress`` after each chunk of training (about 0.7 s).
        allow_other_machine: resume even if versions, cores or flags differ from those that the
            run began with. Its bits will then differ too.
        allow_no_lock: write the run even if its file system has no locks. No other process may
            then train it.
        route: how to compute the model, one of ``Model.routes``; by default the one with the fewest
            multiply-adds. A resumed run keeps its own.
        seed_mode: "mapped" trains one seed after another, each with the bits it has alone;
            "vmapped" trains all at once, the default on accelerators. A resumed run keeps its own.

    Returns:
        The finished run.

    Raises:
        ConfigError: the experiment is invalid. Nothing was written.
        RunError: the folder holds something else, or cannot be written; or the run takes more
            memory or disk than this machine has. Nothing was lost.
        Interrupted: SIGINT or SIGTERM arrived. Everything up to that step is saved.

    Example:
        >>> from mi_jax import Experiment, train
        >>> run = train(Experiment(steps=500), "my_run")  # doctest: +SKIP
    """
    name = Path("checkpoints") / experiment.name if out is None else out
    folder = Path(name).resolve()
    check_resumable(folder)
    stored = read_record(folder) if (folder / "run.json").exists() else None
    if stored is not None:
        route, seed_mode = _resumed_mode(folder, stored, route, seed_mode)
    check_fits(experiment, folder if stored is None else None, seed_mode)
    plan = experiment.plan(route, seed_mode)
    if stored is None:
        check(plan.parts)
    else:
        check_same(folder, stored, plan.experiment)
    here = machine.machine()
    with lock(folder, allow_no_lock=allow_no_lock):
        if not (folder / "run.json").exists():
            write_record(folder, run_record(plan, here))
        trajectory = Trajectory(folder)
        if plan.planted is None:
            finish(trajectory, plan.parts, watch=watch, allow_other_machine=allow_other_machine)
        elif trajectory.done < plan.parts.steps:
            replay.check_machine(trajectory, here, allow_other_machine)
            storage = storage_of(trajectory)
            path, context = plan.planted
            follow(trajectory, path, plan.parts, context, plan.snapshots, storage, watch)
    return open_run(folder)


def check(parts: Parts) -> None:
    """Refuses, before training, what cannot be trained. Raises ConfigError, RunError."""
    ProgramSchedule(parts, load_params=replay.load_params_of(None, parts.seeds)).check()


def finish(
    trajectory: Trajectory, parts: Parts, *, watch: Watch, allow_other_machine: bool
) -> None:
    """Trains the run in a folder to its end. The caller holds the writer's lock."""
    if trajectory.done >= parts.steps:
        return
    replay.check_machine(trajectory, machine.machine(), allow_other_machine)
    programs = replay.programs_of(trajectory, parts)
    programs.prepare()
    snapshots = np.array(trajectory.record["snapshots"])
    train_to_end(trajectory, programs, snapshots, storage_of(trajectory), watch)


def storage_of(trajectory: Trajectory) -> Storage:
    """The storage settings that the run began with."""
    settings = trajectory.record["experiment"]["storage"]
    return Storage(**{name: value for name, value in settings.items() if name != "type"})


def _resumed_mode(
    folder: Path, record: Mapping[str, Any], route: str | None, seed_mode: SeedMode | None
) -> Mode:
    """The mode of a stored run. Raises RunError if another one is asked for."""
    mode = replay.mode_of(record)
    asked = (("route", mode.route, route), ("seed_mode", mode.seed_mode, seed_mode))
    for option, own, other in asked:
        if other not in (None, own):
            raise RunError(
                f"Cannot resume {folder}: it was trained with {option}='{own}', you asked for"
                f" '{other}', and results would differ. Drop --{option.replace('_', '-')}, or use"
                " a new --out."
            )
    return mode


def run_record(
    plan: Plan, here: Mapping[str, Any], parent: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The content of ``run.json``.

    Args:
        plan: of the experiment.
        here: this machine (see ``training.machine``).
        parent: of a fork, the run and the step that it begins at.
    """
    truth = {}
    if plan.planted is not None:
        path, context = plan.planted
        truth = {"truth": path.truth(context, plan.parts.seeds)}
    own = sources(plan.experiment)
    return {
        "format": FORMAT,
        **({} if parent is None else {"parent": dict(parent)}),
        "experiment": plan.experiment,
        "hash": plan.hash if parent is None else plan.forked_hash(parent),
        "seeds": list(plan.parts.seeds),
        "steps": plan.parts.steps,
        "snapshots": plan.snapshots.tolist(),
        "numbers": dict(plan.parts.numbers),
        "machine": machine.with_packages(here, plan.parts.model.packages),
        "mode": {"seeds": plan.parts.mode.seed_mode, "route": plan.parts.mode.route},
        **({"modules": own} if own else {}),
        **truth,
    }


def check_same(folder: Path, stored: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Refuses to resume another experiment's run, or this experiment's run with other seeds.

    Args:
        folder: of the run.
        stored: its record.
        asked: the JSON form of the experiment.

    Raises:
        RunError: naming each setting that differs.
    """
    # Both in the form of today's version, which older records lack.
    there = stored_experiment(stored).to_json()
    compared, wanted = ({**identity(form), "seeds": form["seeds"]} for form in (there, asked))
    different = differences(compared, wanted)
    if not different:
        return
    only = {line.split(":")[0] for line in different}
    advice = "Use a new --out, or the settings that the run has."
    if only <= {"seeds", "steps"}:
        advice = (
            "The seeds and steps of a run are fixed. Train other seeds into a new --out and open"
            " both runs together; to train longer, fork the run from its last step."
        )
    raise RunError(f"{folder} holds another run: {'; '.join(different)}. {advice}")
