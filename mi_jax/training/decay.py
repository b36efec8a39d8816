"""Weight decay by groups of parameters, towards zero or towards the initial parameters; and a fixed
weight norm.
"""

import math
from collections.abc import Callable, Collection
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from mi_jax.basics.dims import Number, Params, Scalar
from mi_jax.basics.errors import ConfigError
from mi_jax.basics.pytrees import dotted, matching, rebuild

Towards = Literal["zero", "initial"]


class Groups(NamedTuple):
    """The parameters that decay, and the factor of the decay of each.

    Attributes:
        decayed: patterns of the dotted names that decay.
        multipliers: pairs of a pattern and a factor of the decay of the names that match; the first
            match counts, and the factor is 1 if none matches.
    """

    decayed: tuple[str, ...] = ("*",)
    multipliers: tuple[tuple[str, float], ...] = ()

    def check(self) -> None:
        """Raises ConfigError for a negative or infinite multiplier."""
        for pattern, multiplier in self.multipliers:
            if not 0 <= multiplier < math.inf:
                raise ConfigError(
                    f"decay_multipliers: {multiplier} for '{pattern}' must be a finite number of at"
                    " least 0."
                )

    def by_name(self, names: tuple[str, ...]) -> dict[str, float]:
        """The multiplier of every name. Raises ConfigError for a pattern that matches none."""
        decayed = matching(self.decayed, names, "decayed")
        for pattern, _ in self.multipliers:
            matching((pattern,), names, "decay_multipliers")

        def first(name: str) -> float:
            matches = (m for pattern, m in self.multipliers if fnmatchcase(name, pattern))
            return next(matches, 1.0)

        return {name: first(name) if name in decayed else 0.0 for name in names}


def decay_mask(patterns: tuple[str, ...]) -> Callable[[Any], Any]:
    """Function from parameters to a tree of booleans: True where the dotted name of the array
    matches one of the patterns.
    """

    def mask(params: Any) -> Any:
        decayed = matching(patterns, tuple(dotted(params)), "decayed")
        return rebuild(params, {name: name in decayed for name in dotted(params)})

    return mask


class InitialState(NamedTuple):
    """State of decay towards the initial parameters: the initial parameters."""

    initial: Params


def add_decay(weight: Number, groups: Groups, towards: Towards) -> optax.GradientTransformation:
    """Adds weight m (theta - theta*) to the updates, where m is the multiplier of the parameter's
    group.

    Args:
        weight: factor of the decay; traced.
        groups: the parameters that decay, and their multipliers.
        towards: theta* is 0 ("zero") or the initial parameters ("initial"), which become part of
            the optimizer's state.
    """
    if towards == "zero" and not groups.multipliers:
        return optax.add_decayed_weights(weight, mask=decay_mask(groups.decayed))

    def init(params: Params) -> Any:
        groups.by_name(tuple(dotted(params)))
        return (
            InitialState(jax.tree.map(jnp.asarray, params))
            if towards == "initial"
            else optax.EmptyState()
        )

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        multipliers = rebuild(params, groups.by_name(tuple(dotted(params))))
        away = params if towards == "zero" else jax.tree.map(jnp.subtract, params, state.initial)
        added = jax.tree.map(
            lambda u, m, x: u + weight * m * x if m else u, updates, multipliers, away
        )
        return added, state

    return optax.GradientTransformation(init, update)


class NormState(NamedTuple):
    """State of ``hold_norm``: the norm of the initial parameters."""

    norm: Scalar


def depends_on_initial(state: Any) -> bool:
    """Whether an optimizer's state, or its shapes, depend on the parameters of step 0."""
    return any(map(_is_initial, jax.tree.leaves(state, is_leaf=_is_initial)))


def with_initial(state: Any, first: Any) -> Any:
    """An optimizer's state whose parts about step 0 are those of ``first``.

    Args:
        state: a state that was begun at a later step.
        first: a state of the same structure that was begun at the parameters of step 0.
    """
    return jax.tree.map(
        lambda part, part_of_first: part_of_first if _is_initial(part) else part,
        state,
        first,
        is_leaf=_is_initial,
    )


def _is_initial(part: Any) -> bool:
    return isinstance(part, (InitialState, NormState))


def hold_norm(scale: Number) -> optax.GradientTransformation:
    """Rescales all parameters after each update: theta <- theta scale ||theta_0|| / ||theta||
    (arXiv 2210.01117).

    The norm is that of all parameters together, biases included. Interventions on parameters act
    after this; ``hold_norm_by_others`` then holds the norm again.

    Args:
        scale: the norm that is held, in units of the norm at step 0; traced.
    """

    def init(params: Params) -> NormState:
        return NormState(optax.tree.norm(params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, NormState]:
        moved = jax.tree.map(jnp.add, params, updates)
        factor = scale * state.norm / optax.tree.norm(moved)
        return jax.tree.map(lambda new, old: factor * new - old, moved, params), state

    return optax.GradientTransformation(init, update)


def held_norm(state: Any) -> Float[Array, "*seed"]:
    """The norm of the initial parameters, in the state of a chain that ends with ``hold_norm``."""
    last = state[-1]
    assert isinstance(last, NormState)
    return last.norm


def hold_norm_by_others(params: Params, norm: Scalar, fixed: Collection[str]) -> Params:
    """Rescales the parameters that are not fixed, so that all together have a norm.

    The factor is sqrt(norm^2 - ||fixed||^2) / ||others||. Where there are no others, they are zero,
    or the fixed parameters alone have that norm or more, nothing is rescaled.

    Args:
        params: the parameters, of one seed.
        norm: the norm of all parameters together.
        fixed: dotted names of the parameters that keep their values.

    Returns:
        The parameters.
    """
    arrays = dotted(params)
    others = {name: value for name, value in arrays.items() if name not in fixed}
    if not others:
        return params
    kept = [value for name, value in arrays.items() if name in fixed]
    room = norm**2 - sum((jnp.sum(jnp.square(value)) for value in kept), jnp.zeros_like(norm))
    size = optax.tree.norm(others)
    possible = (room > 0) & (size > 0)
    # Both operands are replaced where they are invalid: no NaN is computed and then discarded.
    factor = jnp.sqrt(jnp.where(possible, room, 1.0)) / jnp.where(possible, size, 1.0)
    factor = jnp.where(possible, factor, 1.0)
    return rebuild(params, {**arrays, **{name: factor * x for name, x in others.items()}})
