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
"""x -> f(x), elementwise. "gelu" is exact (x Phi(x)), "gelu_new" its tanh approximation."""
