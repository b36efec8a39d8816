"""A user's own model of float inputs in two functions: one hidden layer without biases, with the
roles that parities need.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax

from mi_jax.basics.dims import Params, PRNGKey
from mi_jax.contracts import Architecture, Inputs, Model, Roles, Site
from mi_jax.models import Tapped

_SITES = (Site("neurons", "relu(x W)", ("batch", "position", "neuron")),)


@dataclass(frozen=True)
class SignNet(Architecture):
    """relu(x W) U."""

    width: int = 8
    outputs: int = 2

    def build(self, inputs: Inputs) -> Model:
        """The model for n floats."""
        n = inputs.features

        def init(key: PRNGKey) -> Params:
            first, second = jax.random.split(key)
            W = jax.random.normal(first, (n, self.width)) / math.sqrt(n)
            return {
                "W": W,
                "U": jax.random.normal(second, (self.width, self.outputs)) / math.sqrt(self.width),
            }

        def apply(
            params: Any, inputs: Any, *, taps: Any = None, positions: Any = None
        ) -> jax.Array:
            return (
                Tapped(taps, _SITES).at("neurons", jax.nn.relu(inputs @ params["W"])) @ params["U"]
            )

        roles = Roles(
            input_map=lambda params: params["W"],
            output_map=lambda params: params["U"],
            neurons="neurons",
            linear_readout=True,
        )
        return Model(init, apply, roles, _SITES)
