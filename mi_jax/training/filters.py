"""Gradient filters: what happens to a gradient before the optimizer sees it. They join with ``|``,
the left one first.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from mi_jax.basics.dims import Params
from mi_jax.basics.errors import nearest, require
from mi_jax.basics.fields import Numbers, numbers_of, sweepable


@dataclass(frozen=True)
class GradientFilter(ABC):
    """A change to the gradient; its sweepable numbers are traced, by the dotted name of the field
    that holds it.
    """

    @abstractmethod
    def transform(self, numbers: Numbers) -> optax.GradientTransformation:
        """Built inside the traced function: its state's structure depends on no number."""

    def __or__(self, other: "GradientFilter") -> "InTurn":
        return InTurn(self, other)


@dataclass(frozen=True)
class InTurn(GradientFilter):
    """Two filters, one after the other."""

    first: GradientFilter
    second: GradientFilter

    def transform(self, numbers: Numbers) -> optax.GradientTransformation:
        """Both, chained."""
        first, second = numbers_of("first", numbers), numbers_of("second", numbers)
        return optax.chain(self.first.transform(first), self.second.transform(second))


class EMAState(NamedTuple):
    """The gradient's average, and how many gradients are in it."""

    seen: Int[Array, ""]
    average: Params


def _check_lamb(lamb: float) -> None:
    require(0 <= lamb < math.inf, f"lamb={lamb}: must be a finite number of at least 0")


@dataclass(frozen=True)
class GrokfastEMA(GradientFilter):
    """Amplifies slow gradients: a <- alpha a + (1 - alpha) g, a = g at first; g <- g + lamb a
    (arXiv 2405.20233).

    Attributes:
        alpha: of the moving average. lamb: how much of the average is added.
    """

    alpha: float = sweepable(0.98)
    lamb: float = sweepable(2.0)

    def __post_init__(self) -> None:
        require(0 <= self.alpha < 1, f"alpha={self.alpha}: must be at least 0 and less than 1")
        _check_lamb(self.lamb)

    def transform(self, numbers: Numbers) -> optax.GradientTransformation:
        """The filter with its average as state."""
        alpha, lamb = numbers["alpha"], numbers["lamb"]

        def init(params: Params) -> EMAState:
            return EMAState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

        def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, EMAState]:
            kept = jnp.where(state.seen == 0, 0.0, alpha)
            average = jax.tree.map(lambda a, g: kept * a + (1 - kept) * g, state.average, updates)
            return jax.tree.map(lambda g, a: g + lamb * a, updates, average), EMAState(
                state.seen + 1, average
            )

        return optax.GradientTransformation(init, update)


Begin = Literal["full", "at_once"]
Statistic = Literal["mean", "sum"]


class WindowState(NamedTuple):
    """The last gradients, in a ring, and how many there have been."""

    seen: Int[Array, ""]
    window: Params


@dataclass(frozen=True)
class GrokfastMA(GradientFilter):
    """Amplifies slow gradients: g <- g + lamb mean of the last ``window`` gradients, g among them
    (arXiv 2405.20233).

    The state holds the whole window: ``window`` times the size of the parameters.

    Attributes:
        window: how many gradients are averaged.
        lamb: how much of the average is added.
        begin: "full", nothing is added before the window is full, as the published code does by
            default; "at_once", the gradients there are from the first update on (its
            ``warmup=False``).
        statistic: "mean", or "sum" of the gradients, as in the published code.
    """

    window: int = 100
    lamb: float = sweepable(5.0)
    begin: Begin = "full"
    statistic: Statistic = "mean"

    def __post_init__(self) -> None:
        require(self.window >= 1, f"window={self.window}: must be at least 1")
        _check_lamb(self.lamb)
        for name, known in (("begin", get_args(Begin)), ("statistic", get_args(Statistic))):
            value = getattr(self, name)
            require(value in known, f"{name}={value!r} is unknown; {nearest(str(value), known)}")

    def transform(self, numbers: Numbers) -> optax.GradientTransformation:
        """The filter with its window as state."""
        lamb, size = numbers["lamb"], self.window

        def init(params: Params) -> WindowState:
            empty = jax.tree.map(lambda x: jnp.zeros((size, *x.shape), x.dtype), params)
            return WindowState(jnp.zeros((), jnp.int32), empty)

        def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, WindowState]:
            window = jax.tree.map(
                lambda w, g: w.at[state.seen % size].set(g), state.window, updates
            )
            held = jnp.minimum(state.seen + 1, size)
            weight = lamb / held if self.statistic == "mean" else lamb
            weight = jnp.where((held < size) & (self.begin == "full"), 0.0, weight)
            return jax.tree.map(
                lambda g, w: g + weight * w.sum(axis=0), updates, window
            ), WindowState(state.seen + 1, window)

        return optax.GradientTransformation(init, update)


@dataclass(frozen=True)
class OrthogonalGradient(GradientFilter):
    """Takes the part along the weights out of each array's gradient: g - (w.g) / (w.w + 1e-30) w
    (arXiv 2501.04697).

    Attributes:
        rescaled: whether what is left gets the gradient's own norm, as published.
    """

    rescaled: bool = True

    def transform(self, numbers: Numbers) -> optax.GradientTransformation:
        """The filter; it has no state."""

        def orthogonal(g: Array, w: Array) -> Array:
            left = g - (w * g).sum() / ((w * w).sum() + 1e-30) * w
            scale = jnp.linalg.norm(g.ravel()) / (jnp.linalg.norm(left.ravel()) + 1e-30)
            return left * scale if self.rescaled else left

        def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
            return jax.tree.map(orthogonal, updates, params), state

        return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


FILTERS = {
    "grokfast_ema": GrokfastEMA,
    "grokfast_ma": GrokfastMA,
    "orthogonal_gradient": OrthogonalGradient,
    "in_turn": InTurn,
}
"""Every gradient filter by registry name."""
