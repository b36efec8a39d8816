"""What a planted truth is: a network whose every weight was put where it is, and what is therefore true of it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from mi_jax.arrays import Params
from mi_jax.contracts import Model, Task
from mi_jax.pytrees import nested

Flat = dict[str, np.ndarray]
"""Weights by dotted name, while they are put in place."""


class Planted(NamedTuple):
    """A known network."""

    model: Model
    params: Params
    task: Task
    truth: Mapping[str, Any]
    """Numbers, strings, lists and mappings of them, as JSON has them; the function that made the network says what they mean."""


def parameters(flat: Flat) -> Params:
    """The nested dict that a model takes."""
    return nested({name: jnp.asarray(value) for name, value in flat.items()})
