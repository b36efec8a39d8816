"""Weight decay by group of parameters, towards zero or towards where training began; and a weight
norm that is held.
"""

import math
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mi_jax.basics.dims import Number, Params, Scalar
from mi_jax.basics.errors import require
from mi_jax.basics.pytrees import dotted, matching, rebuild

Towards = Literal["zero", "initial"]


class Groups(NamedTuple):
    """Which parameters decay, and how much of the decay each takes."""

    decayed: tuple[str, ...] = ("*",)
    """Patterns of the dotted names that decay."""
    multipliers: tuple[tuple[str, float], ...] = ()
    """Pairs of a pattern and what the decay of its names is multiplied by; the first that matches
    holds, 1 where none does.
    """

    def check(self) -> None:
        """Raises ConfigError for a multiplier that can't be."""
        for pattern, multiplier in self.multipliers:
            told = (
                f"decay_multipliers: {multiplier} for '{pattern}' must be a finite number of at"
                " least 0"
            )
            require(0 <= multiplier < math.inf, told)

    def by_name(self, names: tuple[str, ...]) -> dict[str, float]:
        """The multiplier of every name. Raises ConfigError for a pattern that matches none."""
        chosen = matching(self.decayed, names, "decayed")
        for pattern, _ in self.multipliers:
            matching((pattern,), names, "decay_multipliers")

        def first(name: str) -> float:
            matches = (m for pattern, m in self.multipliers if fnmatchcase(name, pattern))
            return next(matches, 1.0)

        return {name: first(name) if name in chosen else 0.0 for name in names}


def decay_mask(patterns: tuple[str, ...]) -> Callable[[Any], Any]:
    """params -> which arrays decay: those whose dotted name matches one of the patterns. See
    ``matching``.
    """

    def mask(params: Any) -> Any:
        chosen = matching(patterns, tuple(dotted(params)), "decayed")
        return rebuild(params, {name: name in chosen for name in dotted(params)})

    return mask


class InitialState(NamedTuple):
    """What decay towards the initial parameters remembers."""

    initial: Params


def add_decay(weight: Number, groups: Groups, towards: Towards) -> optax.GradientTransformation:
    """Adds weight m (theta - theta*) to what passes, m the multiplier of the parameter's group.

    Args:
        weight: traced. towards: theta* is 0, or the initial parameters, which become part of the
            optimizer's state.
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
    """What a held norm remembers: the initial parameters' own."""

    norm: Scalar


_Remembering = (InitialState, NormState)


def remembers(state: Any) -> bool:
    """Whether an optimizer's state, or its shapes, hold something of the parameters of step 0."""
    return any(map(_is_remembering, jax.tree.leaves(state, is_leaf=_is_remembering)))


def remembering(state: Any, first: Any) -> Any:
    """An optimizer's state with what ``first``, one that was begun at step 0, remembers of the
    parameters there.
    """
    return jax.tree.map(
        lambda own, other: other if _is_remembering(own) else own,
        state,
        first,
        is_leaf=_is_remembering,
    )


def _is_remembering(part: Any) -> bool:
    return isinstance(part, _Remembering)


def hold_norm(scale: Number) -> optax.GradientTransformation:
    """Rescales all parameters after each update: theta <- theta scale ||theta_0|| / ||theta||
    (arXiv 2210.01117).

    The norm is that of all parameters together, biases included.
    """

    def init(params: Params) -> NormState:
        return NormState(optax.tree.norm(params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, NormState]:
        moved = jax.tree.map(jnp.add, params, updates)
        factor = scale * state.norm / optax.tree.norm(moved)
        return jax.tree.map(lambda new, old: factor * new - old, moved, params), state

    return optax.GradientTransformation(init, update)
