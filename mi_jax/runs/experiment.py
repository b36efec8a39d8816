"""Experiments: frozen settings with a JSON form, an identity, and the parts that they train."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Int

from mi_jax.basics import modules
from mi_jax.basics.errors import ConfigError, check_choice
from mi_jax.basics.fields import added
from mi_jax.basics.precision import Precision
from mi_jax.basics.records import decode, digest, encode
from mi_jax.basics.streams import stream
from mi_jax.contracts import Architecture, Inputs, Loss, Model, Optimizer, Roles, Subject, Task
from mi_jax.interventions import INTERVENTIONS, InProgram, Intervention
from mi_jax.models import MODELS, Transformer
from mi_jax.tasks import TASKS, ModularArithmetic
from mi_jax.training import FILTERS, LOSSES, OPTIMIZERS, RATES, SCHEDULES
from mi_jax.training.losses import CrossEntropy
from mi_jax.training.optimizers import AdamW
from mi_jax.training.planting import PlantContext, PlantedTrajectory
from mi_jax.training.program_schedule import ProgramSchedule
from mi_jax.training.record import LARGEST_STEP, forked_hash, identity
from mi_jax.training.schedules import LogSpaced, Schedule
from mi_jax.training.state import Mode, Parts, SeedMode, fastest
from mi_jax.training.trajectory import Storage

AcceptMachine = Literal["same", "any"]
"""Machines on which a run may be continued: see ``Experiment``."""


class Plan(NamedTuple):
    """An experiment made ready for training.

    Attributes:
        experiment: its JSON form.
        hash: its identity (see ``Experiment.hash``).
        parts: the parts that training is made of.
        snapshots: the steps that are kept, sorted.
        planted: the known trajectory that is followed in place of training, and what it is
            planted in; None if the experiment is trained.
    """

    experiment: dict[str, Any]
    hash: str
    parts: Parts
    snapshots: Int[np.ndarray, " step"]
    planted: tuple[PlantedTrajectory, PlantContext] | None

    @property
    def keeps_arrays(self) -> bool:
        """Whether interventions store arrays in the run."""
        return any(isinstance(change, InProgram) for change in self.parts.interventions)

    def forked_hash(self, parent: Mapping[str, Any]) -> str:
        """The identity of this experiment as a fork of a run at a step."""
        return forked_hash(self.hash, parent)


@dataclass(frozen=True)
class Experiment:
    """Everything that decides what a run computes.

    Attributes:
        task: the data, and what is known to be true of it.
        model: the settings of the network.
        optimizer: the settings of the update rule.
        loss: what is minimised.
        steps: optimizer updates.
        schedule: the steps at which a snapshot of the parameters is kept. The first and the last
            step always are.
        seeds: labels of the random seeds. A seed varies the initial parameters and the order of
            batches; the split into training and test data belongs to the task.
        interventions: changes to training, each for a range of steps.
        name: of the run's folder in ``checkpoints/``, unless a folder is given.
        storage: how often segments are written to disk. No result depends on it.
        path: a known trajectory that is followed in place of training (see ``mi_jax.planted``).
            Its forks are trained.
        precision: "float32", or "float64" for parameters, optimizer state, losses and readings of
            this run alone. Data and initial parameters are drawn in float32 and cast, so that both
            precisions start at the same weights and see the same batches.
        accept_machine: "same" refuses to continue a run where its bits could differ: other
            versions, processor model, number of cores or flags. "any" continues it there, as
            ``allow_other_machine`` does for one call: for a cluster of several processor models.

    Raises:
        ConfigError: a setting is invalid, or two settings contradict each other.

    Example:
        >>> from mi_jax.tasks import ModularArithmetic
        >>> Experiment(task=ModularArithmetic(p=59), steps=6_000, seeds=(0, 1, 2)).steps
        6000
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
    path: PlantedTrajectory | None = added(None)
    precision: Precision = added("float32")
    accept_machine: AcceptMachine = added("same")

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int) or not 1 <= self.steps <= LARGEST_STEP:
            raise ConfigError(
                f"steps={self.steps} must be a whole number from 1 to {LARGEST_STEP}."
            )
        self._check_seeds()
        if not self.name or "/" in self.name:
            raise ConfigError(f"name={self.name!r} must be the name of a folder, without '/'.")
        check_choice("precision", self.precision, get_args(Precision))
        check_choice("accept_machine", self.accept_machine, get_args(AcceptMachine))
        self.snapshots()
        late = [change for change in self.interventions if change.start >= self.steps]
        if late:
            raise ConfigError(
                f"{late} would begin after the last of {self.steps} updates. Let it start at step"
                f" {self.steps - 1} or earlier, or train for more steps."
            )
        if self.path is not None:
            self._check_planted(self.path)

    def _check_seeds(self) -> None:
        if not self.seeds:
            raise ConfigError("seeds is empty. Give at least one.")
        if len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"seeds={self.seeds} contains a seed twice. Give each seed once.")
        if not all(isinstance(seed, int) and 0 <= seed < 2**31 for seed in self.seeds):
            raise ConfigError(f"seeds={self.seeds} must be whole numbers from 0 to 2^31 - 1.")

    def _check_planted(self, path: PlantedTrajectory) -> None:
        if self.interventions:
            raise ConfigError(
                "Interventions change training, and a planted trajectory is not trained. You gave"
                f" {list(self.interventions)}. Fork the planted run with them instead."
            )
        if self.precision != "float32":
            raise ConfigError(
                f"precision={self.precision!r} is invalid for a planted trajectory, which is"
                " written in float32. Use precision='float32'."
            )
        path.check(self.plant_context)

    def snapshots(self) -> Int[np.ndarray, " step"]:
        """The steps that are kept, sorted."""
        return self.schedule.steps(self.steps)

    @property
    def plant_context(self) -> PlantContext:
        """The task, model and number of steps in which a trajectory is planted."""
        return PlantContext(self.task, self.model, self.steps)

    def build(self) -> Model:
        """The model for the task's inputs. Raises ConfigError if they do not fit."""
        return self.model.build(self.task.inputs)

    def plan(self, route: str | None = None, seed_mode: SeedMode | None = None) -> Plan:
        """All that a run is made from.

        Args:
            route: how to compute the model, one of ``Model.routes``; the cheapest by default.
            seed_mode: "mapped" or "vmapped"; the faster one on this device by default.
        """
        record = self.to_json()
        planted = None if self.path is None else (self.path, self.plant_context)
        parts = self.parts(route, seed_mode)
        return Plan(record, digest(identity(record)), parts, self.snapshots(), planted)

    def parts(self, route: str | None = None, seed_mode: SeedMode | None = None) -> Parts:
        """The parts that training is made of.

        Args:
            route: how to compute the model, one of ``Model.routes``; the cheapest by default.
            seed_mode: "mapped" or "vmapped"; the faster one on this device by default.
        """
        model = self.build()
        fast = fastest(self.task, model, self.seeds)
        mode = Mode(route or fast.route, seed_mode or fast.seed_mode)
        model.along(mode.route)
        check_choice("seed_mode", mode.seed_mode, get_args(SeedMode))
        parts = Parts(
            task=self.task,
            model=model,
            loss=self.loss,
            optimizer=self.optimizer,
            seeds=self.seeds,
            steps=self.steps,
            interventions=self.interventions,
            mode=mode,
            precision=self.precision,
        )
        # Interventions on settings are refused by the settings that they change.
        programs = ProgramSchedule(parts)
        for step in {0, *(change.start for change in self.interventions)}:
            programs.active(step)
        return parts

    def subject(self) -> Subject:
        """The model, task and loss as measures read them."""
        return Subject(self.build(), self.task, self.loss, _holders, self.precision)

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON, each nested one with its registry name."""
        return encode(self, REGISTRY)

    @staticmethod
    def from_json(
        record: Mapping[str, Any],
        *,
        allow_modules: Sequence[str] = (),
        recorded: Mapping[str, str] | None = None,
    ) -> "Experiment":
        """The experiment whose ``to_json`` is ``record``.

        No code that the record names is imported: a class of the user is found only if its module
        is imported already, or is allowed here by name.

        Args:
            record: as ``run.json`` holds it under ``experiment``.
            allow_modules: modules of the user that may be imported; see ``mi_jax.open_run``.
            recorded: SHA-256 of each module's file, as ``run.json`` holds it under ``modules``.

        Raises:
            NotAllowedError: if a class of a module is named that is neither imported nor allowed.
            ConfigError: a key is unknown, or a value is refused.
        """
        if not isinstance(record, Mapping):
            raise ConfigError(f"{record!r} is no experiment. Give what `to_json` returned.")
        modules.allow(allow_modules)
        missing = modules.not_imported(record)
        if missing:
            raise modules.not_allowed(missing, recorded)
        return decode(dict(record), REGISTRY, Experiment)

    @property
    def hash(self) -> str:
        """The experiment's identity: equal for runs that differ in seeds, name, storage or the
        machines that they accept only.
        """
        return digest(identity(self.to_json()))


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
"""All that an experiment may be made of, by the name under which it is stored."""


@lru_cache
def _holders(kind: Literal["role", "ground truth"], name: str) -> str:
    """A half sentence naming the models (tasks) that have a role (a ground truth) by default."""
    if kind == "role":
        having = [
            model_name
            for model_name, model in MODELS.items()
            if any(getattr(roles, name) for roles in _roles(model()))
        ]
    else:
        tasks = {task_name: task() for task_name, task in TASKS.items()}
        having = [
            task_name
            for task_name, task in tasks.items()
            if name in task.evaluation(task.data(0), stream(0, "measure")).ground_truth
        ]
    return f" (which {', '.join(having)} has by default)" if having else ""


def _roles(model: Architecture) -> list[Roles]:
    """The roles of a model for a pair of tokens and for a vector of floats, if it reads them."""
    pair = ModularArithmetic(p=5).inputs
    vector = Inputs("floats", vocabulary=0, positions=1, classes=2, alphabet=(), features=4)
    roles = []
    for inputs in (pair, vector):
        with contextlib.suppress(ConfigError):
            roles.append(model.build(inputs).roles)
    return roles


def stored_experiment(record: Mapping[str, Any]) -> Experiment:
    """The experiment that the contents of a ``run.json`` describe. Raises as ``from_json``."""
    return Experiment.from_json(record["experiment"], recorded=record.get("modules"))
