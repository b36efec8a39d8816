"""Gradient filters: changes to a gradient before the optimizer sees it.

Filters join with ``|``; the left one comes first.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from mi_jax.basics.dims import Params
from mi_jax.basics.errors import check_choice, require
from mi_jax.basics.fields import Numbers, check_bounds, numbers_of, sweepable


@dataclass(frozen=True)
class GradientFilter(ABC):
    """Base of the gradient filters. Their sweepable fields are traced, as an optimizer's are."""

    @abstractmethod
    def transform(self, numbers: Numbers) -> optax.GradientTransformation:
        """The filter as an optax transformation, built inside the traced function.

        The structure of its state must not depend on the numbers.

        Args:
            numbers: the sweepable fields, traced, by the dotted name within this filter.
        """

    def __or__(self, other: "GradientFilter") -> "InTurn":
        return InTurn(self, other)


@dataclass(frozen=True)
class InTurn(GradientFilter):
    """Two filters, one after the other.

    Attributes:
        first: the filter that sees the gradient.
        second: the filter that sees what the first one gives.
    """

    first: GradientFilter
    second: GradientFilter

    def transform(self, numbers: Numbers) -> optax.GradientTransformation:
        """Both filters, chained."""
        first, second = numbers_of("first", numbers), numbers_of("second", numbers)
        return optax.chain(self.first.transform(first), self.second.transform(second))


class EMAState(NamedTuple):
    """State of ``GrokfastEMA``.

    Attributes:
        seen: number of gradients in the average.
        average: the moving average a of the gradients.
    """

    seen: Int[Array, ""]
    average: Params


@dataclass(frozen=True)
class GrokfastEMA(GradientFilter):
    """Amplifies slow gradients: g <- g + lamb a, where a <- alpha a + (1 - alpha) g is a moving
    average that starts at the first gradient (arXiv 2405.20233).

    Attributes:
        alpha: weight of the past in the moving average.
        lamb: factor of the average that is added.
    """

    alpha: float = sweepable(0.98, minimum=0, below=1)
    lamb: float = sweepable(2.0, minimum=0)

    def __post_init__(self) -> None:
        check_bounds(self)

    def transform(self, numbers: Numbers) -> optax.GradientTransformation:
        """The filter, with the average as state."""
        alpha, lamb = numbers["alpha"], numbers["lamb"]

        def init(params: Params) -> EMAState:
            return EMAState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

        def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, EMAState]:
            past = jnp.where(state.seen == 0, 0.0, alpha)
            average = jax.tree.map(lambda a, g: past * a + (1 - past) * g, state.average, updates)
            amplified = jax.tree.map(lambda g, a: g + lamb * a, updates, average)
            return amplified, EMAState(state.seen + 1, average)

        return optax.GradientTransformation(init, update)


Begin = Literal["full", "at_once"]
Statistic = Literal["mean", "sum"]


class WindowState(NamedTuple):
    """State of ``GrokfastMA``.

    Attributes:
        seen: number of gradients so far.
        window: the last gradients, in a ring: leading axis ``window``.
    """

    seen: Int[Array, ""]
    window: Params


@dataclass(frozen=True)
class GrokfastMA(GradientFilter):
    """Amplifies slow gradients: g <- g + lamb mean(the last ``window`` gradients, g included)
    (arXiv 2405.20233).

    The state holds the whole window: ``window`` times the size of the parameters.

    Attributes:
        window: number of gradients that are averaged.
        lamb: factor of the average that is added.
        begin: "full" adds nothing before the window is full, as the published code does by default;
            "at_once" averages the gradients so far from the first update on (``warmup=False`` in
            the published code).
        statistic: "mean" or "sum" of the gradients, as in the published code.
    """

    window: int = 100
    lamb: float = sweepable(5.0, minimum=0)
    begin: Begin = "full"
    statistic: Statistic = "mean"

    def __post_init__(self) -> None:
        require(self.window >= 1, f"window={self.window}: must be at least 1.")
        check_bounds(self)
        check_choice("begin", self.begin, get_args(Begin))
        check_choice("statistic", self.statistic, get_args(Statistic))

    def transform(self, numbers: Numbers) -> optax.GradientTransformation:
        """The filter, with the window as state."""
        lamb, size = numbers["lamb"], self.window

        def init(params: Params) -> WindowState:
            empty = jax.tree.map(lambda x: jnp.zeros((size, *x.shape), x.dtype), params)
            return WindowState(jnp.zeros((), jnp.int32), empty)

        def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, WindowState]:
            window = jax.tree.map(
                lambda w, g: w.at[state.seen % size].set(g), state.window, updates
            )
            count = jnp.minimum(state.seen + 1, size)
            weight = lamb / count if self.statistic == "mean" else lamb
            weight = jnp.where((count < size) & (self.begin == "full"), 0.0, weight)
            amplified = jax.tree.map(lambda g, w: g + weight * w.sum(axis=0), updates, window)
            return amplified, WindowState(state.seen + 1, window)

        return optax.GradientTransformation(init, update)


@dataclass(frozen=True)
class OrthogonalGradient(GradientFilter):
    """Removes from each array's gradient the part along the array: g - (w.g) / (w.w + 1e-30) w
    (arXiv 2501.04697).

    Attributes:
        rescaled: whether the rest is rescaled to the norm of the gradient, as published.
    """

    rescaled: bool = True

    def transform(self, numbers: Numbers) -> optax.GradientTransformation:
        """The filter, without a state."""

        def orthogonal(g: Array, w: Array) -> Array:
            # 1e-30, as published: no division by zero for an array of zeros.
            rest = g - (w * g).sum() / ((w * w).sum() + 1e-30) * w
            scale = jnp.linalg.norm(g.ravel()) / (jnp.linalg.norm(rest.ravel()) + 1e-30)
            return rest * scale if self.rescaled else rest

        def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
            return jax.tree.map(orthogonal, updates, params), state

        return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


FILTERS = {
    "grokfast_ema": GrokfastEMA,
    "grokfast_ma": GrokfastMA,
    "orthogonal_gradient": OrthogonalGradient,
    "in_turn": InTurn,
}
"""The gradient filters by registry name."""
