"""The train state and the two compiled programs of a run: ``init`` and ``advance``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from mi_jax.basics.dims import Count, Params, PRNGKey
from mi_jax.basics.errors import RunError, require
from mi_jax.basics.fields import Numbers, numbers_of, sweepable_numbers
from mi_jax.basics.precision import Precision, cast, computing_in, precision_of
from mi_jax.basics.pytrees import dotted, rebuild, stacked
from mi_jax.basics.streams import streams
from mi_jax.contracts import (
    LONGEST_CHUNK,
    PLAIN,
    Batch,
    Loss,
    Model,
    Optimizer,
    Tap,
    Taps,
    Task,
    batch_loss,
)
from mi_jax.interventions import (
    AtBatch,
    AtGradient,
    AtParams,
    AtSite,
    Forward,
    InProgram,
    Intervention,
)
from mi_jax.interventions.places import KEEPS
from mi_jax.training.decay import depends_on_initial, with_initial
from mi_jax.training.optimizers import apply_gradients
from mi_jax.training.segments import Flat

SeedMode = Literal["mapped", "vmapped"]


class Mode(NamedTuple):
    """Mode of computation. It changes the bits of a run, so a run keeps the one it began with.

    Attributes:
        route: the model's route that is trained through.
        seed_mode: "mapped", seeds one after another, each with the bits that it has alone; or
            "vmapped", all at once, which is faster on accelerators.
    """

    route: str = PLAIN
    seed_mode: SeedMode = "mapped"


def fastest(task: Task, model: Model, seeds: tuple[int, ...]) -> Mode:
    """The fastest mode on this device.

    On CPU, seeds are mapped: vmapping them gains 7 % at most (``benchmarks.training``:
    parity_vmap_gain), and changes their bits.

    Args:
        task: the task.
        model: the model.
        seeds: the seeds.
    """
    route = model.cheapest(task.inputs, batch_shapes(task, seeds[0]).inputs.shape, task.read)
    at_once = len(seeds) > 1 and jax.default_backend() != "cpu"
    return Mode(route, "vmapped" if at_once else "mapped")


def batch_shapes(task: Task, seed: int) -> Batch:
    """Shapes of the batch of one update.

    Args:
        task: the task.
        seed: any seed; the shapes are the same for all.
    """
    key = streams((seed,), "data")[0]
    return jax.eval_shape(lambda: task.batches(task.data(seed), key, jnp.int32(0), jnp.int32(1))(0))


class TrainState(NamedTuple):
    """State that training carries from step to step. Leading axis of every array: seed.

    Attributes:
        params: the parameters.
        opt_state: the optimizer's state.
        step: number of updates made.
    """

    params: Params
    opt_state: Any
    step: Int[Array, " seed"]


@dataclass(frozen=True)
class Parts:
    """Parts of a run: everything that its programs are made from.

    Attributes:
        task: the task.
        model: the model.
        loss: the loss.
        optimizer: the optimizer.
        seeds: the seeds.
        steps: number of updates.
        interventions: the interventions on training.
        mode: the mode of computation.
        precision: the precision of parameters, gradients and activations.
    """

    task: Task
    model: Model
    loss: Loss
    optimizer: Optimizer
    seeds: tuple[int, ...]
    steps: int
    interventions: tuple[Intervention, ...] = ()
    mode: Mode = field(default_factory=Mode)
    precision: Precision = "float32"

    @property
    def numbers(self) -> Numbers:
        """The traced numbers of the run without interventions, by dotted name."""
        return {
            f"optimizer.{name}": value for name, value in sweepable_numbers(self.optimizer).items()
        }


Arrays = tuple[Mapping[str, Any], ...]
"""The arrays that each intervention of a program prepared, in the program's order. Leading axis:
seed.
"""


class Program:
    """The compiled ``init`` and ``advance`` of a run. Building a program compiles nothing.

    The number of steps is traced and the buffer of losses has a fixed length, so that one
    compilation serves every gap of every schedule, and the ends of chunks change no bit. Data and
    initial parameters are drawn in float32 whatever the precision, so that a float64 run starts at
    the same weights and sees the same batches.

    Args:
        parts: the parts of the run.
        interventions: the compile keys of the interventions that are part of the program; their
            values are among its arguments.
    """

    def __init__(self, parts: Parts, interventions: tuple[InProgram, ...] = ()):
        self.parts = parts
        self.interventions = interventions
        self._init = jax.jit(jax.vmap(self._init_seed))
        self._advance = jax.jit(self._advance_seeds)

    @cached_property
    def data(self) -> Any:
        """The task's arrays, with a leading seed axis if they differ by seed."""
        task, seeds = self.parts.task, self.parts.seeds
        with computing_in("float32"):
            if task.per_seed:
                return jax.device_put(stacked([task.data(seed) for seed in seeds]))
            return jax.device_put(task.data(seeds[0]))

    @cached_property
    def _keys(self) -> Key[Array, " seed"]:
        return streams(self.parts.seeds, "data")

    def init(self) -> TrainState:
        """The state at step 0."""
        with computing_in(self.parts.precision):
            return self._init(streams(self.parts.seeds, "init"))

    def fresh(
        self, params: Params, step: int, first: Callable[[], Params] | None = None
    ) -> TrainState:
        """A state with these parameters and a fresh optimizer state.

        Args:
            params: the parameters, leading axis seed.
            step: their step.
            first: gives the parameters of step 0, which decay towards them and a held norm refer
                to; None: ``params`` themselves.
        """
        init = jax.jit(
            jax.vmap(lambda theta: self._transform(self.parts.numbers, step).init(theta))
        )
        with computing_in(self.parts.precision):
            opt_state = init(params)
            if first is not None and depends_on_initial(opt_state):
                opt_state = with_initial(opt_state, init(jax.tree.map(jnp.asarray, first())))
            return TrainState(
                params, opt_state, jnp.full((len(self.parts.seeds),), step, jnp.int32)
            )

    def advance(
        self, state: TrainState, numbers: Numbers, n: int, arrays: Arrays = ()
    ) -> tuple[TrainState, Float[Array, "seed step"]]:
        """Make ``n`` updates.

        Args:
            state: the state before them.
            numbers: the traced numbers, by dotted name.
            n: number of updates, from 1 to LONGEST_CHUNK.
            arrays: the arrays of each intervention of the program, leading axis seed.

        Returns:
            The state after the updates, and a buffer of LONGEST_CHUNK losses whose first n are
            theirs; the others are NaN.
        """
        require(
            1 <= n <= LONGEST_CHUNK,
            f"n={n} must lie between 1 and {LONGEST_CHUNK}, the updates of one chunk.",
        )
        with computing_in(self.parts.precision):
            traced = {
                name: jnp.asarray(value, self.parts.precision) for name, value in numbers.items()
            }
            arrays = cast(arrays, self.parts.precision)
            return self._advance(state, self.data, self._keys, traced, jnp.int32(n), arrays)

    @cached_property
    def template(self) -> TrainState:
        """Shapes and structure of the state."""
        with computing_in(self.parts.precision):
            return jax.eval_shape(self._init, streams(self.parts.seeds, "init"))

    def _transform(self, numbers: Numbers, step: Count) -> Any:
        return self.parts.optimizer.transform(numbers_of("optimizer", numbers), step)

    def _init_seed(self, key: PRNGKey) -> TrainState:
        with computing_in("float32"):
            drawn = self.parts.model.init(key)
        params = cast(drawn, self.parts.precision)
        opt_state = self._transform(self.parts.numbers, 0).init(params)
        return TrainState(params, opt_state, jnp.zeros((), jnp.int32))

    def _loss(self, params: Params, batch: Batch, arrays: Arrays) -> Float[Array, ""]:
        taps, read = self._taps(batch, arrays), self.parts.task.read
        outputs = self.parts.model.along(self.parts.mode.route)(
            params, batch.inputs, taps=taps, positions=read
        )
        return batch_loss(self.parts.loss, outputs, batch)

    def _taps(self, batch: Batch, arrays: Arrays) -> Taps | None:
        """The taps of interventions at sites; several at one site act one after another."""
        apply, read = self.parts.model.along(self.parts.mode.route), self.parts.task.read
        forward = Forward(self.parts.model, apply, batch.inputs, read)
        taps: dict[str, Tap] = {}
        for intervention, prepared in zip(self.interventions, arrays, strict=True):
            if isinstance(intervention, AtSite):
                site = intervention.place
                taps[site] = partial(_tapped, taps.get(site), intervention, prepared, forward)
        return taps or None

    def _advance_seeds(
        self,
        state: TrainState,
        data: Any,
        keys: Key[Array, " seed"],
        numbers: Numbers,
        n: Int[Array, ""],
        arrays: Arrays,
    ) -> tuple[TrainState, Float[Array, "seed step"]]:
        if self.parts.mode.seed_mode == "vmapped":
            per_seed = 0 if self.parts.task.per_seed else None
            return jax.vmap(self._advance_seed, in_axes=(0, per_seed, 0, None, None, 0))(
                state, data, keys, numbers, n, arrays
            )
        if self.parts.task.per_seed:
            return jax.lax.map(
                lambda x: self._advance_seed(x[0], x[1], x[2], numbers, n, x[3]),
                (state, data, keys, arrays),
            )
        return jax.lax.map(
            lambda x: self._advance_seed(x[0], data, x[1], numbers, n, x[2]), (state, keys, arrays)
        )

    def _advance_seed(
        self,
        state: TrainState,
        data: Any,
        key: PRNGKey,
        numbers: Numbers,
        n: Int[Array, ""],
        arrays: Arrays,
    ) -> tuple[TrainState, Float[Array, " step"]]:
        interventions = tuple(zip(self.interventions, arrays, strict=True))
        with computing_in("float32"):
            feed = self.parts.task.batches(data, key, state.step, n)

        def _step(
            i: Count, carry: tuple[Params, Any, Float[Array, " step"]]
        ) -> tuple[Params, Any, Float[Array, " step"]]:
            params, opt_state, losses = carry
            with computing_in("float32"):
                batch = feed(i)
            batch, before = cast(batch, self.parts.precision), params
            for intervention, prepared in interventions:
                if isinstance(intervention, AtBatch):
                    batch = intervention.batch(batch, prepared)
            loss, gradients = jax.value_and_grad(self._loss)(params, batch, arrays)
            for intervention, prepared in interventions:
                if isinstance(intervention, AtGradient):
                    gradients = intervention.gradient(gradients, params, prepared)
            params, opt_state = apply_gradients(
                self._transform(numbers, state.step + i), params, opt_state, gradients
            )
            params = self._after(params, before, opt_state, numbers, arrays)
            return params, opt_state, losses.at[i].set(loss)

        losses = jnp.full((LONGEST_CHUNK,), jnp.nan)
        params, opt_state, losses = jax.lax.fori_loop(
            0, n, _step, (state.params, state.opt_state, losses)
        )
        return TrainState(params, opt_state, state.step + n), losses

    def _after(
        self, params: Params, before: Params, opt_state: Any, numbers: Numbers, arrays: Arrays
    ) -> Params:
        """The parameters after the interventions on them, stage by stage, and with a held norm."""
        pairs = [
            (intervention, prepared)
            for intervention, prepared in zip(self.interventions, arrays, strict=True)
            if isinstance(intervention, AtParams)
        ]
        if not pairs:
            return params
        fixed: set[str] = set()
        # Stable: interventions of one stage act in the order of the list.
        for intervention, prepared in sorted(pairs, key=lambda pair: pair[0].stage):
            params = intervention.after(params, before, prepared)
            fixed |= set(intervention.fixed(params))
        of_optimizer = numbers_of("optimizer", numbers)
        return self.parts.optimizer.constrain(params, opt_state, of_optimizer, fixed)

    def check_held(self, state: TrainState, numbers: Numbers) -> None:
        """Check that what the optimizer holds can be held while interventions keep parameters.

        Args:
            state: the state before the updates.
            numbers: the traced numbers, by dotted name.

        Raises:
            RunError: where it cannot.
        """
        kept = [i for i in self.interventions if isinstance(i, AtParams) and i.stage == KEEPS]
        fixed = {name for intervention in kept for name in intervention.fixed(state.params)}
        if not fixed:
            return
        of_optimizer = numbers_of("optimizer", numbers)
        reason = self.parts.optimizer.unholdable(state.params, state.opt_state, of_optimizer, fixed)
        if reason is not None:
            raise RunError(
                f"At step {int(state.step[0])}, {reason}. Freeze fewer parameters, or ask for a"
                " larger norm."
            )


def _tapped(
    before: Tap | None,
    intervention: AtSite,
    arrays: Mapping[str, Any],
    forward: Forward,
    value: Array,
) -> Array:
    """The value at a site after an intervention, which acts after the tap ``before`` it."""
    return intervention.value_at(value if before is None else before(value), arrays, forward)


def flat_state(state: TrainState) -> Flat:
    """A state as NumPy arrays by dotted name, for storage."""
    return {name: jax.device_get(value) for name, value in dotted(state).items()}


def state_from_flat(template: TrainState, flat: Flat) -> TrainState:
    """A stored state with the structure of a template, bit for bit.

    Args:
        template: shapes and structure.
        flat: the stored arrays, by dotted name.
    """
    with computing_in(precision_of(template)):
        return jax.tree.map(jnp.asarray, rebuild(template, flat))
