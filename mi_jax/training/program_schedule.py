"""The programs of a run: which program, which numbers and which arrays each update is made with, as
interventions leave them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mi_jax.basics.dims import Params
from mi_jax.basics.errors import DamagedError, RunError
from mi_jax.basics.fields import Numbers
from mi_jax.basics.precision import computing_in
from mi_jax.basics.pytrees import dotted
from mi_jax.interventions import (
    AtSettings,
    CheckContext,
    InProgram,
    Intervention,
    PrepareContext,
    Settings,
)
from mi_jax.interventions.places import LoadParams
from mi_jax.training.losses import LOSSES
from mi_jax.training.optimizers import OPTIMIZERS
from mi_jax.training.segments import Flat
from mi_jax.training.state import Parts, Program, TrainState, batch_shapes


@runtime_checkable
class Store(Protocol):
    """Where what interventions prepared is kept, by their place among the run's."""

    def read(self, place: int) -> Flat | None:
        """The arrays; None where nothing was kept."""
        ...

    def write(self, place: int, arrays: Flat) -> None:
        """Keeps them."""
        ...


class Memory:
    """A store that lasts as long as the process."""

    def __init__(self) -> None:
        self._kept: dict[int, Flat] = {}

    def read(self, place: int) -> Flat | None:
        """See ``Store``."""
        return self._kept.get(place)

    def write(self, place: int, arrays: Flat) -> None:
        """See ``Store``."""
        self._kept[place] = arrays


def nowhere(path: str | None, step: int) -> Params:
    """Where a run names no other: refuses."""
    raise RunError(f"an intervention names the run {path} at step {step}, which can't be read here")


class ActiveProgram(NamedTuple):
    """What an update is made by."""

    program: Program
    numbers: Numbers
    places: tuple[int, ...]
    """Of the interventions that are part of the program, among the run's."""


class ProgramSchedule:
    """The programs of a run and their order. Building it compiles nothing.

    Args:
        parts: what is trained, with the run's interventions.
        origin: the step that the run begins at: 0, or where it was forked.
        store: where what interventions prepare is kept.
        load_params: parameters of other runs.
        initial: the parameters of step 0, where they aren't those that the model begins with.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        origin: int = 0,
        store: Store | None = None,
        load_params: LoadParams = nowhere,
        initial: Callable[[], Params] | None = None,
    ):
        self.parts, self.origin = parts, origin
        self._store: Store = Memory() if store is None else store
        self._load_params, self._initial = load_params, initial
        self._programs: dict[Any, Program] = {}
        self._arrays: dict[int, Mapping[str, Any]] = {}
        self.active = lru_cache(maxsize=64)(self._active)

    @cached_property
    def base(self) -> Program:
        """The program without interventions."""
        return self._program(
            Settings(self.parts.task, self.parts.loss, self.parts.optimizer, {}, {}), ()
        )

    def next_change(self, step: int) -> int | None:
        """The first step after ``step`` at which another program or other numbers are in force."""
        changes = [i.next_change(step) for i in self.parts.interventions]
        return min((change for change in changes if change is not None), default=None)

    def template(self, step: int) -> TrainState:
        """Shapes and structure of the state that is stored at a step: of the optimizer in force at
        the update before.
        """
        return self.active(max(step - 1, self.origin)).program.template

    def init(self) -> TrainState:
        """The state at step 0."""
        return self.active(0).program.init()

    def begin(self, state: TrainState) -> TrainState:
        """The state that a fork begins with, given its parent's there."""
        program, before = (
            self.active(self.origin).program,
            self.active(max(self.origin - 1, 0)).program,
        )
        return self._carried(state, before, program, self.origin)

    def fresh(self, params: Params) -> TrainState:
        """The state that it begins with where parameters alone are known."""
        return self.active(self.origin).program.fresh(params, self.origin, self._first)

    def advance(
        self, state: TrainState, step: int, n: int
    ) -> tuple[TrainState, Float[Array, "seed step"]]:
        """``n`` updates from ``step`` on, of one regime, and a buffer whose first n losses are
        theirs.
        """
        regime = self.active(step)
        if step > self.origin:
            before = self.active(step - 1).program
            state = self._carried(state, before, regime.program, step)
        arrays = tuple(self._prepared(place, state, step) for place in regime.places)
        return regime.program.advance(state, regime.numbers, n, arrays)

    def check(self, interventions: Sequence[Intervention] | None = None) -> None:
        """Refuses what can't be trained, the interventions (all by default) among it. Makes and
        writes nothing.

        Raises:
            ConfigError, RunError: naming what is wrong.
        """
        starts = {max(i.start, self.origin) for i in self.parts.interventions}
        for step in {self.origin, *(start for start in starts if start < self.parts.steps)}:
            _ = self.active(step).program.template
        interventions = self.parts.interventions if interventions is None else interventions
        if not interventions:
            return
        shapes = {name: tuple(x.shape[1:]) for name, x in dotted(self.base.template.params).items()}
        batch = batch_shapes(self.parts.task, self.parts.seeds[0])
        trained = CheckContext(self.parts.task, self.parts.model, shapes, batch, self._load_params)
        for intervention in interventions:
            intervention.check(trained)

    def prepare(self) -> None:
        """Makes and keeps the arrays of interventions that read no weights of this run, so that it
        needs no other again.
        """
        for place, intervention in enumerate(self.parts.interventions):
            if (
                isinstance(intervention, InProgram)
                and not intervention.reads_weights
                and self._store.read(place) is None
            ):
                self._make(place, self.base.template.params)

    def _carried(
        self, state: TrainState, before: Program, program: Program, step: int
    ) -> TrainState:
        """The state as the next program takes it: another optimizer begins with a state of its own."""
        same = type(before.parts.optimizer) is type(program.parts.optimizer)
        return (
            state
            if same and _continues(state, program.template)
            else program.fresh(state.params, step, self._first)
        )

    def _prepared(self, place: int, state: TrainState, step: int) -> Mapping[str, Any]:
        """The arrays of an intervention: kept ones, or made now where its range begins here."""
        if place not in self._arrays:
            kept = self._store.read(place)
            if kept is None:
                begins = max(self.parts.interventions[place].start, self.origin)
                if self.parts.interventions[place].reads_weights and step != begins:
                    raise DamagedError(
                        f"what {self.parts.interventions[place]} prepared at step {begins} is"
                        " missing from the run"
                    )
                kept = self._make(place, state.params)
            with computing_in(self.parts.precision):
                self._arrays[place] = {name: jnp.asarray(value) for name, value in kept.items()}
        return self._arrays[place]

    def _make(self, place: int, params: Any) -> Flat:
        inputs, seeds = self.parts.task.inputs, self.parts.seeds
        moment = PrepareContext(
            seeds, params, self._first, self.parts.model, inputs, self._load_params
        )
        with computing_in(self.parts.precision):
            made = self.parts.interventions[place].prepare(moment)
        kept = {name: np.asarray(jax.device_get(value)) for name, value in made.items()}
        self._store.write(place, kept)
        return kept

    def _first(self) -> Params:
        return self.base.init().params if self._initial is None else self._initial()

    def _active(self, step: int) -> ActiveProgram:
        known = {"optimizer": OPTIMIZERS, "loss": LOSSES}
        settings = Settings(self.parts.task, self.parts.loss, self.parts.optimizer, {}, known)
        places = []
        for place, intervention in enumerate(self.parts.interventions):
            if not intervention.in_force(step):
                continue
            if isinstance(intervention, AtSettings):
                settings = intervention.changed(settings)
            else:
                places.append(place)
        program = self._program(
            settings, tuple(self.parts.interventions[place].compile_key() for place in places)
        )
        return ActiveProgram(program, {**program.parts.numbers, **settings.numbers}, tuple(places))

    def _program(self, settings: Settings, forms: tuple[InProgram, ...]) -> Program:
        key = (settings.task, settings.loss, settings.optimizer, forms)
        if key not in self._programs:
            parts = replace(
                self.parts, task=settings.task, loss=settings.loss, optimizer=settings.optimizer
            )
            self._programs[key] = Program(parts, forms)
        return self._programs[key]


def _continues(state: TrainState, template: TrainState) -> bool:
    """Whether a state has the structure and the shapes that a program takes."""
    if jax.tree.structure(state) != jax.tree.structure(template):
        return False
    pairs = zip(jax.tree.leaves(state), jax.tree.leaves(template), strict=True)
    return all(x.shape == y.shape and x.dtype == y.dtype for x, y in pairs)
