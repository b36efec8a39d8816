"""Activation functions by name, spelled as TransformerLens spells them."""

from collections.abc import Callable
from typing import Literal

import jax
from jaxtyping import Array, Float

Activation = Literal["relu", "gelu", "gelu_new", "silu", "tanh", "quadratic", "identity"]

ACTIVATIONS: dict[Activation, Callable[[Float[Array, "..."]], Float[Array, "..."]]] = {
    "relu": jax.nn.relu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
    "silu": jax.nn.silu,
    "tanh": jax.numpy.tanh,
    "quadratic": lambda x: x * x,
    "identity": lambda x: x,
}
"""Elementwise functions x -> f(x), by name.

"gelu" is exact, x Phi(x) with Phi the normal distribution function; "gelu_new" is its tanh
approximation.
"""
