"""A planted network: a model with known weights, and the facts that follow from them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import xarray as xr

from mi_jax.basics.dims import Params
from mi_jax.basics.pytrees import nested
from mi_jax.contracts import Loss, Model, Subject, Task
from mi_jax.measuring.choosing import Chosen, choose
from mi_jax.measuring.stored import measure_weights
from mi_jax.training import CrossEntropy

Flat = dict[str, np.ndarray]
"""Weights by dotted name, while a network is being put together."""


class Planted(NamedTuple):
    """A network whose every weight is known.

    Attributes:
        model: the model.
        params: its parameters.
        task: the task that it solves.
        truth: facts that follow from the weights, in JSON's types. The function that made the
            network documents them.
    """

    model: Model
    params: Params
    task: Task
    truth: Mapping[str, Any]

    def measure(
        self, measures: Sequence[Chosen] | None = None, *, loss: Loss | None = None
    ) -> xr.Dataset:
        """Measures the network, as ``mi_jax.measure`` measures a run.

        Args:
            measures: names, Measures, or plain functions ``(params, context) -> scalar``; None for
                every measure that applies.
            loss: the loss that measures of the loss read; None for cross-entropy.

        Returns:
            A dataset with the dims (seed, step, ...), seed and step of length 1.

        Raises:
            MeasureError: for an unknown measure, or one that needs something that this network or
                task does not have.

        Example:
            >>> from mi_jax.planted import induction
            >>> induction(symbols=4).measure(["test_loss"])["test_loss"].sizes  # doctest: +SKIP
            Frozen({'seed': 1, 'step': 1})
        """
        subject = Subject(self.model, self.task, loss or CrossEntropy())
        chosen, _ = choose(measures, subject, frozenset({"final"}))
        return measure_weights(self.params, subject, chosen, {"experiment": {}, "hash": ""})


def parameters(flat: Flat) -> Params:
    """The parameters of a model, as a nested dict, from weights by dotted name."""
    return nested({name: jnp.asarray(value) for name, value in flat.items()})
