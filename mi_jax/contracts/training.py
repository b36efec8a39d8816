"""Losses and optimizers, as training and measures know them."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mi_jax.basics.dims import Count
from mi_jax.basics.fields import Numbers
from mi_jax.contracts.task import Batch


@dataclass(frozen=True)
class Loss(ABC):
    """A loss by position: the mean over weights is what is trained."""

    units: ClassVar[str] = ""
    """What its values are in, for readings and figures."""

    @abstractmethod
    def __call__(
        self,
        outputs: Float[Array, "batch position class"],
        targets: Int[Array | np.ndarray, "batch position"],
    ) -> Float[Array, "batch position"]:
        """The loss of every answer that is read."""


def mean_loss(
    each: Float[Array, "batch position"], weights: Float[Array | np.ndarray, "batch position"]
) -> Float[Array, ""]:
    """The weighted mean of a loss by position: sum(weights * loss) / sum(weights). What has no
    weight may be NaN.
    """
    return (jnp.where(weights == 0, 0.0, each) * weights).sum() / weights.sum()


def batch_loss(
    loss: Loss, outputs: Float[Array, "batch position class"], batch: Batch
) -> Float[Array, ""]:
    """The mean loss of a batch, given the model's outputs at the positions that are read."""
    return mean_loss(loss(outputs, batch.targets), batch.weights)


@runtime_checkable
class GradientTransformation(Protocol):
    """optax's pair of functions, named here so that reading needs no optax."""

    @property
    def init(self) -> Callable[..., Any]:
        """params -> optimizer state."""
        ...

    @property
    def update(self) -> Callable[..., Any]:
        """(gradients, state, params) -> (updates, state)."""
        ...


@dataclass(frozen=True)
class Optimizer(ABC):
    """The settings of an optimizer. ``numbers`` holds its sweepable fields, traced."""

    @abstractmethod
    def transform(self, numbers: Numbers, step: Count) -> GradientTransformation:
        """The update rule of step ``step``, built inside the traced function: its state's structure
        depends on no number.
        """
