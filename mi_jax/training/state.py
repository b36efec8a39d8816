"""The train state and the two compiled programs of a run: ``init`` and ``advance``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from mi_jax.basics.dims import Count, Params, PRNGKey
from mi_jax.basics.errors import require
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
from mi_jax.training.decay import depends_on_initial, with_initial
from mi_jax.training.optimizers import apply_gradients
from mi_jax.training.segments import Flat

SeedMode = Literal["mapped", "vmapped"]


class Mode(NamedTuple):
    """How a run is computed, where there is a choice: it changes bits, so a run keeps it."""

    route: str = PLAIN
    """Which of the model's ways of computing is trained through."""
    seed_mode: SeedMode = "mapped"
    """One after the other, each with the bits it has alone; or all at once, which is faster on
    accelerators.
    """


def fastest(task: Task, model: Model, seeds: tuple[int, ...]) -> Mode:
    """The mode that takes least time on this device.

    On CPU seeds are mapped: vmapped they gain 7 % at most (``benchmarks.training``:
        parity_vmap_gain), and lose their bits.
    """
    route = model.cheapest(task.inputs, batch_shapes(task, seeds[0]).inputs.shape, task.read)
    at_once = len(seeds) > 1 and jax.default_backend() != "cpu"
    return Mode(route, "vmapped" if at_once else "mapped")


def batch_shapes(task: Task, seed: int) -> Batch:
    """The shapes of the batch that one update sees."""
    key = streams((seed,), "data")[0]
    return jax.eval_shape(lambda: task.batches(task.data(seed), key, jnp.int32(0), jnp.int32(1))(0))


class TrainState(NamedTuple):
    """All that training carries from step to step. Leading axis: seed."""

    params: Params
    opt_state: Any
    step: Int[Array, " seed"]


@dataclass(frozen=True)
class Parts:
    """What training is made of."""

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
        """The traced numbers of the run, before interventions, by dotted name."""
        return {
            f"optimizer.{name}": value for name, value in sweepable_numbers(self.optimizer).items()
        }


Arrays = tuple[Mapping[str, Any], ...]
"""What the interventions in force prepared, in the order of a program's ``forms``. Leading axis:
seed.
"""


class Program:
    """``init`` and ``advance`` of a run, with the arrays they take. Building it compiles nothing.

    The number of steps is traced and the buffer of losses has a fixed length, so that one
    compilation serves every gap of every schedule, and where chunks are cut changes no bit. Data
    and initial parameters are drawn in float32 whatever the precision, so that a float64 run starts
    at the same weights and sees the same batches.

    ``forms`` are the interventions that are part of it; their values are among its arguments.
    """

    def __init__(self, parts: Parts, forms: tuple[InProgram, ...] = ()):
        self.parts = parts
        self.forms = forms
        self._init = jax.jit(jax.vmap(self._init_seed))
        self._advance = jax.jit(self._advance_seeds)

    @cached_property
    def data(self) -> Any:
        """The task's arrays; with a leading seed axis where they differ by seed."""
        task, seeds = self.parts.task, self.parts.seeds
        with computing_in("float32"):
            return jax.device_put(
                stacked([task.data(seed) for seed in seeds])
                if task.per_seed
                else task.data(seeds[0])
            )

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
        """These parameters with an optimizer state that has seen none of the steps.

        Args:
            first: gives the parameters of step 0, which decay towards them and a held norm go by;
                these ones where it is None.
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
        """``n`` updates (at most LONGEST_CHUNK) under these numbers, and a buffer whose first n
        losses are theirs.
        """
        require(1 <= n <= LONGEST_CHUNK, f"{n} updates at once; a chunk has 1 to {LONGEST_CHUNK}")
        with computing_in(self.parts.precision):
            traced = {
                name: jnp.asarray(value, self.parts.precision) for name, value in numbers.items()
            }
            own = cast(arrays, self.parts.precision)
            return self._advance(state, self.data, self._keys, traced, jnp.int32(n), own)

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
        """What interventions at sites make of the forward pass; several at one site act in turn."""
        apply, read = self.parts.model.along(self.parts.mode.route), self.parts.task.read
        forward = Forward(self.parts.model, apply, batch.inputs, read)
        taps: dict[str, Tap] = {}
        for form, own in zip(self.forms, arrays, strict=True):
            if isinstance(form, AtSite):
                taps[form.place] = partial(_through, taps.get(form.place), form, own, forward)
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
        with computing_in("float32"):
            feed = self.parts.task.batches(data, key, state.step, n)

        def _step(
            i: Count, carry: tuple[Params, Any, Float[Array, " step"]]
        ) -> tuple[Params, Any, Float[Array, " step"]]:
            params, opt_state, losses = carry
            with computing_in("float32"):
                batch = feed(i)
            batch, before = cast(batch, self.parts.precision), params
            for form, own in zip(self.forms, arrays, strict=True):
                batch = form.batch(batch, own) if isinstance(form, AtBatch) else batch
            loss, gradients = jax.value_and_grad(self._loss)(params, batch, arrays)
            for form, own in zip(self.forms, arrays, strict=True):
                gradients = (
                    form.gradient(gradients, params, own)
                    if isinstance(form, AtGradient)
                    else gradients
                )
            params, opt_state = apply_gradients(
                self._transform(numbers, state.step + i), params, opt_state, gradients
            )
            for form, own in zip(self.forms, arrays, strict=True):
                params = form.after(params, before, own) if isinstance(form, AtParams) else params
            return params, opt_state, losses.at[i].set(loss)

        losses = jnp.full((LONGEST_CHUNK,), jnp.nan)
        params, opt_state, losses = jax.lax.fori_loop(
            0, n, _step, (state.params, state.opt_state, losses)
        )
        return TrainState(params, opt_state, state.step + n), losses


def _through(
    tap: Tap | None, form: AtSite, arrays: Mapping[str, Any], forward: Forward, value: Array
) -> Array:
    """What an intervention makes of a site's value after those before it."""
    return form.value_at(value if tap is None else tap(value), arrays, forward)


def flat_state(state: TrainState) -> Flat:
    """A state as NumPy arrays by dotted name, as it is stored."""
    return {name: jax.device_get(value) for name, value in dotted(state).items()}


def state_from_flat(template: TrainState, flat: Flat) -> TrainState:
    """The state that was stored: same structure, same bits."""
    with computing_in(precision_of(template)):
        return jax.tree.map(jnp.asarray, rebuild(template, flat))
