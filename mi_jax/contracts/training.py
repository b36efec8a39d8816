"""Losses and optimizers, in the form that training and measures share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mi_jax.basics.dims import Count, Params
from mi_jax.basics.fields import Numbers
from mi_jax.contracts.task import Batch


@dataclass(frozen=True)
class Loss(ABC):
    """Loss of each answer. Training minimises its weighted mean, see ``mean_loss``.

    A subclass is a frozen dataclass. Its fields are its settings, and calling it computes the loss.

    Example:
        >>> @dataclass(frozen=True)
        ... class Squared(Loss):
        ...     def __call__(self, outputs, targets):
        ...         right = jnp.eye(outputs.shape[-1])[targets]
        ...         return ((outputs - right) ** 2).sum(axis=-1)
        >>> Squared()(jnp.array([[[1.0, 2.0]]]), jnp.array([[0]])).tolist()
        [[4.0]]
    """

    units: ClassVar[str] = ""
    """Unit of the loss (``"nats"``), shown with readings and on the axes of figures."""

    @abstractmethod
    def __call__(
        self,
        outputs: Float[Array, "batch position class"],
        targets: Int[Array | np.ndarray, "batch position"],
    ) -> Float[Array, "batch position"]:
        """Compute the loss of each answer.

        Args:
            outputs: the model's outputs at the positions that are read, [batch position class].
            targets: right class of each answer, [batch position].

        Returns:
            The losses, [batch position].
        """

    def takes(self, outputs: int, classes: int) -> bool:
        """Whether every class has a finite loss under this many outputs.

        Training refuses a loss that does not take the model's outputs. A loss of a user's own takes
        all, unless it overrides this.

        Args:
            outputs: number of outputs of the model at a position.
            classes: number of answers of the task.
        """
        return True


def mean_loss(
    each: Float[Array, "batch position"], weights: Float[Array | np.ndarray, "batch position"]
) -> Float[Array, ""]:
    """Weighted mean of the losses of single answers: sum(weights * each) / sum(weights).

    Args:
        each: loss of each answer, [batch position]. It may be NaN where the weight is 0.
        weights: weight of each answer, [batch position].

    Returns:
        The mean, a scalar.
    """
    # NaN * 0 is NaN, so losses without weight are replaced before the product.
    return (jnp.where(weights == 0, 0.0, each) * weights).sum() / weights.sum()


def batch_loss(
    loss: Loss, outputs: Float[Array, "batch position class"], batch: Batch
) -> Float[Array, ""]:
    """Mean loss of a batch.

    Args:
        loss: the loss of each answer.
        outputs: the model's outputs at the positions that are read, [batch position class].
        batch: the examples, with their targets and weights.

    Returns:
        The mean, a scalar, in the units of ``loss``.
    """
    return mean_loss(loss(outputs, batch.targets), batch.weights)


@runtime_checkable
class GradientTransformation(Protocol):
    """Type of optax's pair of functions. It stands here so that readings need no optax."""

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
    """Settings of an optimizer.

    A subclass is a frozen dataclass. Its numbers are ``sweepable`` fields, which the compiled step
    takes as arguments, so that other values compile nothing.
    """

    @abstractmethod
    def transform(self, numbers: Numbers, step: Count) -> GradientTransformation:
        """Build the update rule of one step, inside the traced function.

        The structure of the optimizer's state must not depend on any number.

        Args:
            numbers: values of the sweepable fields by dotted name, traced.
            step: the update that is made, from 0, traced.

        Returns:
            The rule, from gradients to what is added to the parameters.
        """

    def constrain(
        self, params: Params, state: Any, numbers: Numbers, fixed: Collection[str]
    ) -> Params:
        """Restore what the optimizer holds, after interventions have changed the parameters.

        Called inside the traced function, in updates with interventions on parameters alone. By
        default nothing is held.

        Args:
            params: the parameters after the interventions.
            state: the optimizer's state after the update.
            numbers: values of the sweepable fields by dotted name, traced.
            fixed: dotted names of the parameters whose values must stay.

        Returns:
            The parameters that training continues with.
        """
        return params

    def unholdable(
        self, params: Params, state: Any, numbers: Numbers, fixed: Collection[str]
    ) -> str | None:
        """The reason why ``constrain`` cannot hold what the optimizer holds; None where it can.

        Called between compiled calls, with arrays whose leading axis is the seed.

        Args:
            params: the parameters.
            state: the optimizer's state.
            numbers: values of the sweepable fields by dotted name.
            fixed: dotted names of the parameters that interventions keep.
        """
        return None
