"""An experiment (task + model + optimizer + schedule + seeds), training it, and opening the run it leaves."""

import contextlib
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import numpy as np
import xarray as xr
from jaxtyping import Int

from mi_jax import measuring, nulls
from mi_jax.arrays import Params
from mi_jax.contracts import (
    PLAIN,
    Architecture,
    Evaluation,
    Inputs,
    Intervention,
    Loss,
    Model,
    Optimizer,
    Roles,
    Taps,
    Task,
    numbers_of,
    with_numbers,
)
from mi_jax.errors import ConfigError, RunError, WeightsError, nearest, require
from mi_jax.models import MODELS, Transformer
from mi_jax.pytrees import dotted, nested, take
from mi_jax.records import decode, differences, digest, encode
from mi_jax.streams import stream
from mi_jax.tasks import TASKS, ModularArithmetic
from mi_jax.training import FILTERS, INTERVENTIONS, LOSSES, OPTIMIZERS, RATES, SCHEDULES
from mi_jax.training.interventions import boundaries, numbers_in_force
from mi_jax.training.loop import Watch, check_resumable, replay, train_to_end
from mi_jax.training.losses import CrossEntropy
from mi_jax.training.machine import bit_differences, machine
from mi_jax.training.optimizers import AdamW
from mi_jax.training.schedules import LogSpaced, Schedule
from mi_jax.training.state import Mode, Parts, Program, SeedMode, TrainState, fastest, state_from_flat
from mi_jax.training.trajectory import FORMAT, Status, Storage, Trajectory, lock, read_record, write_record

Step = int | np.integer
Steps = Sequence[Step] | Int[np.ndarray, " step"]

_OUTSIDE_IDENTITY = ("name", "seeds", "storage")


@dataclass(frozen=True)
class Experiment:
    """Everything that decides what a run computes.

    Attributes:
        task, model, optimizer, loss: what is trained on what.
        steps: optimizer updates.
        schedule: when to keep a snapshot; the first and the last step always are.
        seeds: labels; a seed varies initialisation and batch order, the split belongs to the task.
        interventions: changes to training, each for a range of steps.
        name: of the run's folder, where none is given.
        storage: when segments are written.
    """

    task: Task = field(default_factory=ModularArithmetic)
    model: Architecture = field(default_factory=Transformer)
    optimizer: Optimizer = field(default_factory=AdamW)
    loss: Loss = field(default_factory=CrossEntropy)
    steps: int = 10_000
    schedule: Schedule = field(default_factory=lambda: LogSpaced(200))
    seeds: tuple[int, ...] = (0,)
    interventions: tuple[Intervention, ...] = ()
    name: str = "experiment"
    storage: Storage = field(default_factory=Storage)

    def __post_init__(self) -> None:
        require(isinstance(self.steps, int) and self.steps >= 1, f"steps={self.steps}: must be a whole number of at least 1")
        require(len(self.seeds) > 0, "seeds is empty; give at least one")
        require(len(set(self.seeds)) == len(self.seeds), f"seeds={self.seeds}: each must appear once")
        require(
            all(isinstance(seed, int) and 0 <= seed < 2**31 for seed in self.seeds),
            f"seeds={self.seeds}: must be whole numbers from 0 to 2^31 - 1",
        )
        require(bool(self.name) and "/" not in self.name, f"name={self.name!r}: must be a folder's name")
        self.snapshots()
        late = [i for i in self.interventions if i.start >= self.steps]
        require(not late, f"{late} would begin after the last update of {self.steps}")

    def snapshots(self) -> Int[np.ndarray, " step"]:
        """The steps that are kept, sorted."""
        return self.schedule.steps(self.steps)

    def build(self) -> Model:
        """The model for the task's inputs."""
        return self.model.build(self.task.inputs)

    def parts(self, route: str | None = None, seed_mode: SeedMode | None = None) -> Parts:
        """What training is made of; computed in the fastest way, unless another is named."""
        model = self.build()
        mode = fastest(self.task, model, self.seeds)
        mode = Mode(route or mode.route, seed_mode or mode.seed_mode)
        model.along(mode.route)
        known = get_args(SeedMode)
        require(mode.seed_mode in known, f"seed_mode={mode.seed_mode!r} is unknown; {nearest(mode.seed_mode, known)}")
        parts = Parts(self.task, model, self.loss, self.optimizer, self.seeds, self.steps, self.interventions, mode)
        for start in (0, *sorted(boundaries(self.interventions))):
            numbers = numbers_in_force(parts.numbers, self.interventions, start)
            # The optimizer itself says which numbers it takes.
            with_numbers(self.optimizer, numbers_of("optimizer", numbers))
        return parts

    def subject(self) -> measuring.Subject:
        """What measures read."""
        return measuring.Subject(self.build(), self.task, self.loss, _holders)

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON, every nested one with its registry name."""
        return encode(self, REGISTRY)

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> "Experiment":
        """The experiment of ``to_json``. Raises ConfigError for an unknown key or a class that can't be imported."""
        return decode(dict(record), REGISTRY)

    @property
    def hash(self) -> str:
        """Identity: the same for runs of one experiment with other seeds, names or storage."""
        return _identity(self.to_json())


REGISTRY: Mapping[str, type] = {
    "experiment": Experiment,
    "storage": Storage,
    **TASKS,
    **MODELS,
    **OPTIMIZERS,
    **RATES,
    **FILTERS,
    **LOSSES,
    **SCHEDULES,
    **INTERVENTIONS,
}
"""Everything an experiment may be made of, by the name it is stored under."""


@lru_cache
def _holders(kind: Literal["role", "concept"], name: str) -> str:
    """Which models (tasks) have a role (a concept) with their default settings."""
    tasks = {known: make() for known, make in TASKS.items()}
    if kind == "role":
        held = [known for known, model in MODELS.items() if any(getattr(roles, name) for roles in _roles(model()))]
    else:
        held = [known for known, one in tasks.items() if name in one.evaluation(one.data(0), stream(0, "measure")).concepts]
    return f" (which {', '.join(held)} has by default)" if held else ""


def _roles(model: Architecture) -> list[Roles]:
    """The roles that a model has for pairs of tokens and for a vector of floats, where it reads them."""
    pair = ModularArithmetic(p=5).inputs
    vector = Inputs("floats", vocabulary=0, positions=1, classes=2, alphabet=(), features=4)
    roles = []
    for inputs in (pair, vector):
        with contextlib.suppress(ConfigError):
            roles.append(model.build(inputs).roles)
    return roles


def _identity(record: Mapping[str, Any]) -> str:
    return digest({key: value for key, value in record.items() if key not in _OUTSIDE_IDENTITY})


def train(
    experiment: Experiment,
    out: str | os.PathLike[str] | None = None,
    *,
    watch: Watch = lambda progress: None,
    allow_other_machine: bool = False,
    route: str | None = None,
    seed_mode: SeedMode | None = None,
) -> "Run":
    """Trains an experiment, or goes on with the run that ``out`` holds of it, and returns the run.

    Args:
        out: the run's directory; ``checkpoints/<name>`` by default.
        watch: called after each chunk of training with a Progress.
        route: which of the model's ways of computing to train through; the cheapest by default, and a resumed run keeps its own.
        seed_mode: "mapped", one seed after the other with the bits it has alone, or "vmapped", all at once; by default the latter
            on accelerators. A resumed run keeps its own.
        allow_other_machine: go on where versions, cores or flags differ from those the run began with: its bits will too.

    Raises:
        ConfigError, RunError: before anything is written where the experiment or the directory can't be.
        Interrupted: after SIGINT or SIGTERM, with everything done so far saved.
    """
    folder = Path(out if out is not None else Path("checkpoints") / experiment.name).resolve()
    record, here = experiment.to_json(), machine()
    check_resumable(folder)
    if (folder / "run.json").exists():
        _check_same(folder, record)
        route, seed_mode = _check_mode(folder, route, seed_mode)
    program = Program(experiment.parts(route, seed_mode))
    _ = program.template
    with lock(folder):
        if not (folder / "run.json").exists():
            write_record(folder, _run_record(experiment, record, here, program.parts))
        trajectory = Trajectory(folder)
        if trajectory.done < experiment.steps:
            _check_machine(trajectory, here, allow_other_machine)
            train_to_end(trajectory, program, experiment.snapshots(), Storage(**_settings(trajectory.record, "storage")), watch)
    return open_run(folder)


def open_run(path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> "Run":
    """Opens a run directory, or several of one experiment with different seeds as one.

    Raises:
        RunError: where there is no run, its format is newer, or the runs are not of one experiment.
    """
    paths = [path] if isinstance(path, (str, os.PathLike)) else list(path)
    require(len(paths) > 0, "open_run was given no path")
    return Run(tuple(Trajectory(Path(p)) for p in paths))


class Run:
    """A trained (or partly trained) experiment: parameters by step and seed, losses, exact states, readings."""

    def __init__(self, trajectories: tuple[Trajectory, ...]):
        self.trajectories = trajectories
        first, *others = trajectories
        for other in others:
            different = differences(_shared(first), _shared(other))
            if different:
                raise RunError(f"{first.path} and {other.path} are not of one experiment: {'; '.join(different)}")
            if first.done != other.done or not np.array_equal(first.steps, other.steps):
                raise RunError(f"{first.path} and {other.path} hold different steps; train both to their end")
        twice = [seed for seed in self.seeds if self.seeds.count(seed) > 1]
        if twice:
            raise RunError(f"seeds {sorted(set(twice))} are in more than one of the runs")

    @property
    def path(self) -> Path:
        """The (first) run directory."""
        return self.trajectories[0].path

    @property
    def record(self) -> dict[str, Any]:
        """The (first) ``run.json``."""
        return self.trajectories[0].record

    @property
    def seeds(self) -> tuple[int, ...]:
        """The labels of the seeds."""
        return tuple(seed for trajectory in self.trajectories for seed in trajectory.seeds)

    @property
    def steps(self) -> Int[np.ndarray, " step"]:
        """The steps of the stored snapshots."""
        return self.trajectories[0].steps

    @cached_property
    def experiment(self) -> Experiment:
        """The settings. Raises ConfigError where a user's class can't be imported here; arrays are readable all the same."""
        return Experiment.from_json(self.record["experiment"])

    @cached_property
    def subject(self) -> measuring.Subject:
        """What measures read."""
        return self.experiment.subject()

    def params(self, step: Step, seed: int | None = None) -> Params:
        """The parameters after ``step`` updates as a nested dict of NumPy arrays.

        Args:
            seed: a label; without it every leaf has a leading seed axis, unless the run has one seed only.

        Raises:
            RunError: for a step that is no snapshot (the nearest are named; ``state_at`` gives any step) or an unknown seed.
        """
        if seed is None and len(self.seeds) == 1:
            seed = self.seeds[0]
        if seed is None:
            return take(self.stack([step]), 0)
        trajectory, place = self._find(seed)
        return jax.tree.map(lambda x: x[0, place], trajectory.stack([int(step)]))

    def stack(self, steps: Steps | None = None) -> Params:
        """Parameters at several snapshots (all by default), leading axes (step, seed)."""
        chosen = None if steps is None else [int(step) for step in steps]
        stacks = [trajectory.stack(chosen) for trajectory in self.trajectories]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *stacks)

    @cached_property
    def losses(self) -> xr.DataArray:
        """The training loss of every step, dims (seed, step): entry s is that of the parameters after s updates, in nats."""
        values = np.concatenate([trajectory.losses() for trajectory in self.trajectories], axis=1).T
        coords = {"seed": list(self.seeds), "step": np.arange(values.shape[1])}
        return xr.DataArray(values, coords, ("seed", "step"), name="loss", attrs={"units": "nats"})

    @property
    def status(self) -> dict[int, Status]:
        """How each seed stands: finished, unfinished, or non-finite since a step."""
        return {seed: status for trajectory in self.trajectories for seed, status in trajectory.status().items()}

    def state_at(self, step: Step, *, allow_other_machine: bool = False) -> TrainState:
        """The exact train state after ``step`` updates, leading axis seed: stored, or replayed from the last stored one.

        Raises:
            RunError: for a step that the run has not reached, or a replay on a machine whose bits may differ.
        """
        done = min(trajectory.done for trajectory in self.trajectories)
        if not 0 <= step <= done:
            raise RunError(f"step {step} can't be reached: the run at {self.path} holds steps 0 to {done}")
        states = [self._state_at(trajectory, int(step), allow_other_machine) for trajectory in self.trajectories]
        return states[0] if len(states) == 1 else jax.tree.map(lambda *leaves: jax.numpy.concatenate(leaves), *states)

    def _state_at(self, trajectory: Trajectory, step: int, allow_other_machine: bool) -> TrainState:
        settings = {**trajectory.record["experiment"], "seeds": list(trajectory.seeds)}
        program = Program(Experiment.from_json(settings).parts(*_mode(trajectory.record)))
        stored = trajectory.stored_state(step)
        start, state = (0, program.init()) if stored is None else (stored[0], state_from_flat(program.template, stored[1]))
        if start != step or stored is None:
            _check_machine(trajectory, machine(), allow_other_machine)
        return replay(program, state, start, step)

    def apply(
        self, params: Params, inputs: Any, *, taps: Taps | None = None, positions: Sequence[int] | None = None
    ) -> jax.Array:
        """The model's outputs [batch position class]; all positions by default, or those given."""
        as_arrays = jax.tree.map(jax.numpy.asarray, params)
        read = None if positions is None else tuple(int(position) for position in positions)
        return self.subject.model.along(PLAIN)(as_arrays, jax.numpy.asarray(inputs), taps=taps, positions=read)

    def evaluation(self, seed: int | None = None) -> Evaluation:
        """The fixed examples by split, and the concepts, that the run's measures read; of the first seed by default."""
        seed, task = self.seeds[0] if seed is None else seed, self.experiment.task
        self._find(seed)
        return task.evaluation(task.data(seed), stream(seed, "measure"))

    def export(self, step: Step, path: str | os.PathLike[str], seed: int | None = None) -> Path:
        """Writes one seed's parameters at a snapshot as an npz of dotted names, which ``mi-jax measure`` reads back.

        Raises:
            RunError: where the run has several seeds and none is given, or the file can't be written.
        """
        if seed is None and len(self.seeds) > 1:
            raise RunError(f"the run has the seeds {list(self.seeds)}; say which to export with seed=")
        params, file = self.params(step, seed), Path(path)
        temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp.npz")
        try:
            np.savez(temporary, **dotted(params))
            temporary.replace(file)
        except OSError as error:
            raise RunError(f"{file} can't be written ({error.strerror})") from error
        finally:
            temporary.unlink(missing_ok=True)
        return file

    @property
    def measures(self) -> xr.Dataset:
        """All stored readings of the run's snapshots as one dataset, dims (seed, step, ...)."""
        return _by_seed([measuring.stored_measures(trajectory) for trajectory in self.trajectories])

    def measure(
        self, measures: Sequence[measuring.Chosen] | None = None, *, watch: measuring.Watch = lambda done, total: None
    ) -> xr.Dataset:
        """See ``mi_jax.measure``."""
        chosen, _ = measuring.choose(measures, self.subject)
        return _by_seed(
            [
                measuring.measure_trajectory(trajectory, self.subject, chosen, provenance(trajectory.record), watch)
                for trajectory in self.trajectories
            ]
        )

    def read(self, measures: Sequence[measuring.Chosen], steps: Steps) -> xr.Dataset:
        """Readings at chosen snapshots, which are neither stored nor reused."""
        steps = [int(step) for step in steps]
        chosen, _ = measuring.choose(measures, self.subject)
        return _by_seed([measuring.read_steps(trajectory, self.subject, chosen, steps) for trajectory in self.trajectories])

    def nulls(self) -> nulls.Nulls:
        """What every measure says where there is nothing to find: see ``nulls.read_nulls``. Of several runs, the first's."""
        chosen, _ = measuring.choose(None, self.subject)
        return nulls.read_nulls(self.trajectories[0], self.subject, chosen)

    @property
    def mode(self) -> Mode:
        """How the run was computed, where there is a choice that changes bits."""
        return _mode(self.record)

    def _find(self, seed: int) -> tuple[Trajectory, int]:
        for trajectory in self.trajectories:
            if seed in trajectory.seeds:
                return trajectory, trajectory.seeds.index(seed)
        raise RunError(f"the run has no seed {seed}; its seeds are {list(self.seeds)}")


def measure(
    run: Run, measures: Sequence[measuring.Chosen] | None = None, *, watch: measuring.Watch = lambda done, total: None
) -> xr.Dataset:
    """Reads measures over every snapshot of a run in one compiled program, stores them in the run, returns the dataset.

    Args:
        measures: names, Measures, or plain functions ``(params, context) -> scalar``; all that can be taken by default.
        watch: called with (snapshots done, snapshots in all).

    Raises:
        MeasureError: for an unknown measure, or one that needs what this model or task doesn't have.
    """
    return run.measure(measures, watch=watch)


def provenance(record: Mapping[str, Any]) -> dict[str, Any]:
    """What every result says of the run it was read from."""
    return {key: record[key] for key in ("experiment", "hash", "machine")}


def load_weights(file: str | os.PathLike[str], model: Model) -> tuple[Params, list[str]]:
    """The parameters of an npz under the model's dotted names, and the names of arrays that are no parameters.

    Raises:
        WeightsError: for a file that can't be read, missing names, wrong shapes, or parameter-like (dotted) extra names.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            stored = [entry for entry in archive.namelist() if entry.endswith(".npy")]
            arrays = {entry.removesuffix(".npy"): _stored_array(archive, entry) for entry in stored}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise WeightsError(f"{file} can't be read as an npz of arrays ({error})") from error
    wanted = dotted(jax.eval_shape(model.init, jax.random.key(0)))
    problems = [f"missing {name} {list(shape.shape)}" for name, shape in wanted.items() if name not in arrays]
    problems += [
        f"{name} has the shape {list(arrays[name].shape)}, the model's is {list(shape.shape)}"
        for name, shape in wanted.items()
        if name in arrays and arrays[name].shape != shape.shape
    ]
    problems += [
        f"{name} is of type {arrays[name].dtype}, a parameter is floating point"
        for name in wanted
        if name in arrays and not np.issubdtype(arrays[name].dtype, np.floating)
    ]
    extra = sorted(set(arrays) - set(wanted))
    problems += [f"{name} {list(arrays[name].shape)} is no parameter of this model" for name in extra if "." in name]
    if problems:
        raise WeightsError(f"{file} doesn't fit the model: {'; '.join(problems)}. Change --like or the model's settings")
    params = nested({name: arrays[name].astype(np.float32) for name in wanted})
    return params, [name for name in extra if "." not in name]


def _stored_array(archive: zipfile.ZipFile, entry: str) -> np.ndarray:
    with archive.open(entry) as opened:
        return np.lib.format.read_array(opened, allow_pickle=False)


def _by_seed(datasets: list[xr.Dataset]) -> xr.Dataset:
    return datasets[0] if len(datasets) == 1 else xr.concat(datasets, "seed", join="exact", combine_attrs="override")


def _shared(trajectory: Trajectory) -> dict[str, Any]:
    """The settings that runs of one experiment share, with what an older version left unsaid at its default."""
    settings = Experiment.from_json(trajectory.record["experiment"]).to_json()
    return {key: value for key, value in settings.items() if key not in _OUTSIDE_IDENTITY}


def _settings(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in record["experiment"][name].items() if key != "type"}


def _mode(record: Mapping[str, Any]) -> Mode:
    """How a run was begun; the first runs knew one way only."""
    return Mode(record["mode"].get("route", PLAIN), record["mode"]["seeds"])


def _check_mode(folder: Path, route: str | None, seed_mode: SeedMode | None) -> Mode:
    """The mode of the run that is there. Raises RunError where another is asked for."""
    own = _mode(read_record(folder))
    if route not in (None, own.route):
        raise RunError(
            f"{folder} was begun on the route '{own.route}', not '{route}': its bits can't be continued. Give another --out"
        )
    if seed_mode not in (None, own.seed_mode):
        raise RunError(
            f"{folder} was begun with seeds {own.seed_mode}, not {seed_mode}: its bits can't be continued. Give another --out"
        )
    return own


def _run_record(experiment: Experiment, record: dict[str, Any], here: dict[str, Any], parts: Parts) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "experiment": record,
        "hash": experiment.hash,
        "seeds": list(experiment.seeds),
        "steps": experiment.steps,
        "snapshots": experiment.snapshots().tolist(),
        "numbers": dict(parts.numbers),
        "machine": here,
        "mode": {"seeds": parts.mode.seed_mode, "route": parts.mode.route},
    }


def _check_same(path: Path, record: dict[str, Any]) -> None:
    """Refuses to go on with a run of another experiment, or of this one with other seeds."""
    there = Experiment.from_json(read_record(path)["experiment"]).to_json()
    different = differences(
        {k: v for k, v in there.items() if k not in ("name", "storage")},
        {k: v for k, v in record.items() if k not in ("name", "storage")},
    )
    if different:
        only = {line.split(":")[0] for line in different}
        advice = (
            "a directory's seeds and steps are fixed: train other seeds into another --out and open both together,"
            if only <= {"seeds", "steps"}
            else "give another --out,"
        )
        raise RunError(f"{path} holds another run: {'; '.join(different)}. {advice} or run with the settings it has")


def _check_machine(trajectory: Trajectory, here: dict[str, Any], allow: bool) -> None:
    different = bit_differences(trajectory.record["machine"], here)
    if different and not allow and (trajectory.done or trajectory.indexes):
        raise RunError(
            f"{trajectory.path} was begun elsewhere, its bits can't be continued: {'; '.join(different)}."
            " --allow-other-machine (allow_other_machine=True) goes on all the same"
        )
