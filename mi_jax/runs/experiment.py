"""An experiment as a value: task, model, optimizer, schedule, seeds; its JSON form, its identity,
and the parts it trains.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Int

from mi_jax.basics.errors import ConfigError, nearest, require
from mi_jax.basics.fields import added
from mi_jax.basics.precision import Precision
from mi_jax.basics.records import decode, digest, encode
from mi_jax.basics.streams import stream
from mi_jax.contracts import Architecture, Inputs, Loss, Model, Optimizer, Roles, Subject, Task
from mi_jax.interventions import INTERVENTIONS, Intervention
from mi_jax.models import MODELS, Transformer
from mi_jax.tasks import TASKS, ModularArithmetic
from mi_jax.training import FILTERS, LOSSES, OPTIMIZERS, RATES, SCHEDULES
from mi_jax.training.losses import CrossEntropy
from mi_jax.training.optimizers import AdamW
from mi_jax.training.planting import PlantContext, PlantedTrajectory
from mi_jax.training.program_schedule import ProgramSchedule
from mi_jax.training.schedules import LogSpaced, Schedule
from mi_jax.training.state import Mode, Parts, SeedMode, fastest
from mi_jax.training.trajectory import Storage

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
        path: a known trajectory that is followed in place of training (see ``mi_jax.planted``); its
            forks are trained.
        precision: "float32", or "float64" for parameters, optimizer state, losses and readings of
            this run alone. Data and initial parameters are drawn in float32 and cast, so that both
            start at the same weights and see the same batches.
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

    def __post_init__(self) -> None:
        require(
            isinstance(self.steps, int) and self.steps >= 1,
            f"steps={self.steps}: must be a whole number of at least 1",
        )
        require(len(self.seeds) > 0, "seeds is empty; give at least one")
        require(
            len(set(self.seeds)) == len(self.seeds), f"seeds={self.seeds}: each must appear once"
        )
        require(
            all(isinstance(seed, int) and 0 <= seed < 2**31 for seed in self.seeds),
            f"seeds={self.seeds}: must be whole numbers from 0 to 2^31 - 1",
        )
        require(
            bool(self.name) and "/" not in self.name, f"name={self.name!r}: must be a folder's name"
        )
        known = get_args(Precision)
        require(
            self.precision in known,
            f"precision={self.precision!r} is unknown; {nearest(str(self.precision), known)}",
        )
        self.snapshots()
        late = [i for i in self.interventions if i.start >= self.steps]
        require(not late, f"{late} would begin after the last update of {self.steps}")
        if self.path is not None:
            require(
                not self.interventions,
                "interventions change training, and a planted path isn't trained: fork it with"
                " them",
            )
            told = f"precision={self.precision!r}: a planted path is written in float32"
            require(self.precision == "float32", told)
            self.path.check(self.plant_context)

    def snapshots(self) -> Int[np.ndarray, " step"]:
        """The steps that are kept, sorted."""
        return self.schedule.steps(self.steps)

    @property
    def plant_context(self) -> PlantContext:
        """The task, model and number of steps in which a trajectory is planted."""
        return PlantContext(self.task, self.model, self.steps)

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
        require(
            mode.seed_mode in known,
            f"seed_mode={mode.seed_mode!r} is unknown; {nearest(mode.seed_mode, known)}",
        )
        parts = Parts(
            self.task,
            model,
            self.loss,
            self.optimizer,
            self.seeds,
            self.steps,
            self.interventions,
            mode,
            self.precision,
        )
        # What is changed says itself which settings it takes.
        programs = ProgramSchedule(parts)
        for step in {0, *(i.start for i in self.interventions)}:
            programs.active(step)
        return parts

    def subject(self) -> Subject:
        """What measures read."""
        return Subject(self.build(), self.task, self.loss, _holders, self.precision)

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON, every nested one with its registry name."""
        return encode(self, REGISTRY)

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> "Experiment":
        """The experiment of ``to_json``. Raises ConfigError for an unknown key or a class that
        can't be imported.
        """
        return decode(dict(record), REGISTRY)

    @property
    def hash(self) -> str:
        """Identity: the same for runs of one experiment with other seeds, names or storage."""
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
"""Everything an experiment may be made of, by the name it is stored under."""


@lru_cache
def _holders(kind: Literal["role", "ground truth"], name: str) -> str:
    """Which models (tasks) have a role (a ground truth) with their default settings."""
    tasks = {known: make() for known, make in TASKS.items()}
    if kind == "role":
        held = [
            known
            for known, model in MODELS.items()
            if any(getattr(roles, name) for roles in _roles(model()))
        ]
    else:
        held = [
            known
            for known, one in tasks.items()
            if name in one.evaluation(one.data(0), stream(0, "measure")).ground_truth
        ]
    return f" (which {', '.join(held)} has by default)" if held else ""


def _roles(model: Architecture) -> list[Roles]:
    """The roles that a model has for pairs of tokens and for a vector of floats, where it reads
    them.
    """
    pair = ModularArithmetic(p=5).inputs
    vector = Inputs("floats", vocabulary=0, positions=1, classes=2, alphabet=(), features=4)
    roles = []
    for inputs in (pair, vector):
        with contextlib.suppress(ConfigError):
            roles.append(model.build(inputs).roles)
    return roles


def identity(record: Mapping[str, Any]) -> dict[str, Any]:
    """What of an experiment's JSON form decides what it is: without seeds, name and storage."""
    return {key: value for key, value in record.items() if key not in _OUTSIDE_IDENTITY}
