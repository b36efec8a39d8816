"""What a planted truth is: a network whose every weight was put where it is, and what is therefore
true of it.
"""

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
"""Weights by dotted name, while they are put in place."""


class Planted(NamedTuple):
    """A known network."""

    model: Model
    params: Params
    task: Task
    truth: Mapping[str, Any]
    """Numbers, strings, lists and mappings of them, as JSON has them; the function that made the
    network says what they mean.
    """

    def measure(
        self, measures: Sequence[Chosen] | None = None, *, loss: Loss | None = None
    ) -> xr.Dataset:
        """Readings of the network, as ``mi_jax.measure`` gives them of a run: dims (seed, step,
        ...), both of length 1.

        Args:
            measures: names, Measures, or plain functions ``(params, context) -> scalar``; all that
                can be taken by default.
            loss: what measures of the loss read; cross-entropy by default.

        Raises:
            MeasureError: for an unknown measure, or one that needs what this network or task
                doesn't have.
        """
        subject = Subject(self.model, self.task, loss or CrossEntropy())
        chosen, _ = choose(measures, subject, frozenset({"final"}))
        return measure_weights(self.params, subject, chosen, {"experiment": {}, "hash": ""})


def parameters(flat: Flat) -> Params:
    """The nested dict that a model takes."""
    return nested({name: jnp.asarray(value) for name, value in flat.items()})
