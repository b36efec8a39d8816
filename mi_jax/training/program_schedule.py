"""The programs of a run: the program, numbers and arrays of each update, as interventions change
them.
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
from mi_jax.basics.errors import ConfigError, DamagedError, RunError
from mi_jax.basics.fields import Numbers
from mi_jax.basics.precision import computing_in
from mi_jax.basics.pytrees import dotted
from mi_jax.contracts import Loss
from mi_jax.interventions import (
    AtParams,
    AtSettings,
    CheckContext,
    InProgram,
    Intervention,
    PrepareContext,
    Settings,
)
from mi_jax.interventions.places import CHANGES, KEEPS, LoadParams
from mi_jax.training.losses import LOSSES
from mi_jax.training.optimizers import OPTIMIZERS
from mi_jax.training.segments import Flat
from mi_jax.training.state import Parts, Program, TrainState, batch_shapes


@runtime_checkable
class Store(Protocol):
    """Store of the arrays that a run's interventions prepared, by the intervention's index."""

    def read(self, index: int) -> Flat | None:
        """The arrays of the run's intervention ``index``; None if none are stored."""
        ...

    def write(self, index: int, arrays: Flat) -> None:
        """Store the arrays of the run's intervention ``index``."""
        ...


class Memory:
    """A ``Store`` in memory, which lasts as long as the process."""

    def __init__(self) -> None:
        self._arrays: dict[int, Flat] = {}

    def read(self, index: int) -> Flat | None:
        """The arrays of the run's intervention ``index``; None if none are stored."""
        return self._arrays.get(index)

    def write(self, index: int, arrays: Flat) -> None:
        """Store the arrays of the run's intervention ``index``."""
        self._arrays[index] = arrays


def no_other_runs(path: str | None, step: int) -> Params:
    """The ``LoadParams`` of a schedule that has no access to other runs. Raises RunError."""
    raise RunError(
        f"An intervention names the run {path} at step {step}, which cannot be read here. Pass"
        " load_params= to ProgramSchedule."
    )


class ActiveProgram(NamedTuple):
    """The program that makes one update, with its arguments.

    Attributes:
        program: the compiled program.
        numbers: its traced numbers, by dotted name.
        indices: indices, among the run's interventions, of those that are part of the program.
    """

    program: Program
    numbers: Numbers
    indices: tuple[int, ...]


class ProgramSchedule:
    """The programs of a run, in the order of its updates, as its interventions change them.

    Building a schedule compiles nothing; a program is compiled when it first runs.

    Args:
        parts: the parts of the run, with its interventions.
        origin: the step at which the run begins: 0, or where it was forked.
        store: the store for the arrays that interventions prepare; in memory by default.
        load_params: loads the parameters of other runs; by default there are none.
        initial: gives the parameters of step 0; by default the model's initial parameters.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        origin: int = 0,
        store: Store | None = None,
        load_params: LoadParams = no_other_runs,
        initial: Callable[[], Params] | None = None,
    ):
        self.parts = parts
        self.origin = origin
        self._store: Store = Memory() if store is None else store
        self._load_params = load_params
        self._initial = initial
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
        """The first step after ``step`` at which another program or other numbers are in force.

        None if there is no such step.
        """
        changes = [i.next_change(step) for i in self.parts.interventions]
        return min((change for change in changes if change is not None), default=None)

    def template(self, step: int) -> TrainState:
        """Shapes and structure of the state that is stored at a step.

        It is the state of the optimizer in force at the update before.
        """
        return self.active(max(step - 1, self.origin)).program.template

    def init(self) -> TrainState:
        """The state at step 0."""
        return self.active(0).program.init()

    def begin(self, state: TrainState) -> TrainState:
        """The state with which a fork begins, given its parent's state at that step."""
        before = self.active(max(self.origin - 1, 0)).program
        return self._carried(state, before, self.active(self.origin).program, self.origin)

    def fresh(self, params: Params) -> TrainState:
        """The state with which a fork begins if its parent has parameters alone."""
        return self.active(self.origin).program.fresh(params, self.origin, self._first)

    def advance(
        self, state: TrainState, step: int, n: int
    ) -> tuple[TrainState, Float[Array, "seed step"]]:
        """Make ``n`` updates from ``step`` on, all with the program in force at ``step``.

        Args:
            state: the state at ``step``.
            step: the step, at most ``n`` updates before the next change.
            n: number of updates, at most LONGEST_CHUNK.

        Returns:
            The state after the updates, and a buffer whose first n losses are theirs.

        Raises:
            RunError: where frozen parameters alone exceed a norm that the optimizer holds.
        """
        active = self.active(step)
        if step > self.origin:
            before = self.active(step - 1).program
            state = self._carried(state, before, active.program, step)
        active.program.check_held(state, active.numbers)
        arrays = tuple(self._prepared(index, state, step) for index in active.indices)
        return active.program.advance(state, active.numbers, n, arrays)

    def check(self, interventions: Sequence[Intervention] | None = None) -> None:
        """Check, before training, that the run and its interventions can be trained.

        Args:
            interventions: the interventions that are checked; all by default.

        Raises:
            ConfigError: if a part or an intervention does not fit the others.
            RunError: if another run that an intervention needs cannot be read.
        """
        starts = {max(i.start, self.origin) for i in self.parts.interventions}
        for step in {self.origin, *(start for start in starts if start < self.parts.steps)}:
            # Tracing the shapes of the state checks the optimizer in force against the parameters.
            program = self.active(step).program
            _ = program.template
            self._check_loss(program.parts.loss)
        interventions = self.parts.interventions if interventions is None else interventions
        if not interventions:
            return
        shapes = {name: tuple(x.shape[1:]) for name, x in dotted(self.base.template.params).items()}
        batch = batch_shapes(self.parts.task, self.parts.seeds[0])
        context = CheckContext(self.parts.task, self.parts.model, shapes, batch, self._load_params)
        for intervention in interventions:
            intervention.check(context)
        self._check_effects(interventions, tuple(shapes))
        self._check_held_norm(interventions)

    def _check_loss(self, loss: Loss) -> None:
        """Refuse a loss that cannot take the model's outputs. Raises ConfigError."""
        outputs, classes = self._outputs, self.parts.task.inputs.classes
        if loss.takes(outputs, classes):
            return
        fitting = [name for name, make in LOSSES.items() if make().takes(outputs, classes)]
        choice = f"Choose one of {', '.join(fitting)}, or a" if fitting else "Choose a"
        raise ConfigError(
            f"{loss} cannot take {outputs} output{'s' if outputs > 1 else ''} for {classes}"
            f" classes: its losses would not be finite. {choice} model with an output for each"
            " class."
        )

    @cached_property
    def _outputs(self) -> int:
        """The number of the model's outputs at a position."""
        parts = self.parts
        with computing_in(parts.precision):
            params = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), self.base.template.params
            )
            inputs = batch_shapes(parts.task, parts.seeds[0]).inputs
            apply = parts.model.along(parts.mode.route)
            outputs = jax.eval_shape(
                lambda params, inputs: apply(params, inputs, positions=parts.task.read),
                params,
                inputs,
            )
        return outputs.shape[-1]

    def _check_effects(self, interventions: Sequence[Intervention], names: tuple[str, ...]) -> None:
        """Refuse an intervention that later ones undo, one or another at each of its updates.

        Raises:
            ConfigError: where there is one.
        """
        # Sorting is stable: those of one stage act in the order of the list.
        in_order = sorted(interventions, key=lambda i: i.stage if isinstance(i, AtParams) else 0)
        for place, earlier in enumerate(in_order):
            undoing = [i for i in in_order[place + 1 :] if i.overwrites(earlier, names)]
            if not undoing:
                continue
            acts = self._updates_of(earlier)
            if acts and all(any(i.in_force(step) for i in undoing) for step in acts):
                meeting = [i for i in undoing if any(map(i.in_force, acts))]
                raise ConfigError(
                    f"{earlier} would have no effect: all that it sets is replaced by"
                    f" {' and '.join(map(str, meeting))}, at the same updates. Remove one of them,"
                    " or give them different ranges."
                )

    def _check_held_norm(self, interventions: Sequence[Intervention]) -> None:
        """Refuse to hold a norm where everything is frozen and yet changed.

        Raises:
            ConfigError: at the first such update.
        """
        on_params = [i for i in interventions if isinstance(i, AtParams)]
        keeping = [i for i in on_params if i.stage == KEEPS]
        template = self.base.template.params
        fixed: list[set[str]] = []
        for one in keeping:
            jax.eval_shape(lambda params, one=one: fixed.append(set(one.fixed(params))), template)
        names = set(dotted(template))
        if set[str]().union(*fixed) < names:
            return
        for changing in (i for i in on_params if i.stage == CHANGES):
            for step in self._updates_of(changing):
                held = {i: of for i, of in zip(keeping, fixed, strict=True) if i.in_force(step)}
                if set[str]().union(*held.values()) < names:
                    continue
                optimizer = self.active(step).program.parts.optimizer
                if getattr(optimizer, "weight_norm", None) is not None:
                    raise ConfigError(
                        f"{changing} changes the norm of the parameters at update {step}, where"
                        f" {' and '.join(map(str, held))} holds all of them, so that weight_norm"
                        " cannot be held by the others. Freeze fewer parameters, or set"
                        " optimizer.weight_norm=None."
                    )

    def _updates_of(self, intervention: Intervention) -> list[int]:
        """The updates of this run at which an intervention is in force."""
        begin, end = max(intervention.start, self.origin), intervention.stop
        end = self.parts.steps if end is None else min(end, self.parts.steps)
        return [step for step in range(begin, end) if intervention.in_force(step)]

    def prepare(self) -> None:
        """Make and store the arrays of interventions that do not read this run's weights.

        After this the run no longer needs any other run.
        """
        for index, intervention in enumerate(self.parts.interventions):
            if (
                isinstance(intervention, InProgram)
                and not intervention.reads_weights
                and self._store.read(index) is None
            ):
                self._make(index, self.base.template.params)

    def _carried(
        self, state: TrainState, before: Program, program: Program, step: int
    ) -> TrainState:
        """The state for the next program: with a fresh optimizer state if the optimizer changes."""
        same = type(before.parts.optimizer) is type(program.parts.optimizer)
        if same and _fits(state, program.template):
            return state
        return program.fresh(state.params, step, self._first)

    def _prepared(self, index: int, state: TrainState, step: int) -> Mapping[str, Any]:
        """The arrays of an intervention: the stored ones, or new ones if its range begins."""
        if index not in self._arrays:
            arrays = self._store.read(index)
            if arrays is None:
                intervention = self.parts.interventions[index]
                begins = max(intervention.start, self.origin)
                # Later weights would give other arrays, and so another trajectory.
                if intervention.reads_weights and step != begins:
                    raise DamagedError(
                        f"The arrays that {intervention} prepared at step {begins} are missing from"
                        f" the run. Restore prepared/{index}.npz from a copy of it."
                    )
                arrays = self._make(index, state.params)
            with computing_in(self.parts.precision):
                self._arrays[index] = {name: jnp.asarray(value) for name, value in arrays.items()}
        return self._arrays[index]

    def _make(self, index: int, params: Any) -> Flat:
        """Make and store the arrays of an intervention."""
        inputs, seeds = self.parts.task.inputs, self.parts.seeds
        context = PrepareContext(
            seeds, params, self._first, self.parts.model, inputs, self._load_params
        )
        with computing_in(self.parts.precision):
            prepared = self.parts.interventions[index].prepare(context)
        arrays = {name: np.asarray(jax.device_get(value)) for name, value in prepared.items()}
        self._store.write(index, arrays)
        return arrays

    def _first(self) -> Params:
        """The parameters of step 0."""
        return self.base.init().params if self._initial is None else self._initial()

    def _active(self, step: int) -> ActiveProgram:
        registered = {"optimizer": OPTIMIZERS, "loss": LOSSES}
        settings = Settings(self.parts.task, self.parts.loss, self.parts.optimizer, {}, registered)
        indices, keys = list[int](), list[InProgram]()
        for index, intervention in enumerate(self.parts.interventions):
            if not intervention.in_force(step):
                continue
            if isinstance(intervention, AtSettings):
                settings = intervention.changed(settings)
            else:
                indices.append(index)
                keys.append(intervention.compile_key())  # pyright: ignore
        program = self._program(settings, tuple(keys))
        return ActiveProgram(program, {**program.parts.numbers, **settings.numbers}, tuple(indices))

    def _program(self, settings: Settings, keys: tuple[InProgram, ...]) -> Program:
        """The program of these settings and compile keys; equal ones share a program."""
        key = (settings.task, settings.loss, settings.optimizer, keys)
        if key not in self._programs:
            parts = replace(
                self.parts, task=settings.task, loss=settings.loss, optimizer=settings.optimizer
            )
            self._programs[key] = Program(parts, keys)
        return self._programs[key]


def _fits(state: TrainState, template: TrainState) -> bool:
    """Whether a state has the structure and the shapes that a program takes."""
    if jax.tree.structure(state) != jax.tree.structure(template):
        return False
    pairs = zip(jax.tree.leaves(state), jax.tree.leaves(template), strict=True)
    return all(x.shape == y.shape and x.dtype == y.dtype for x, y in pairs)
