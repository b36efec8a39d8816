"""Weight views: the products of parameters that are a circuit's own quantities, as explicit
functions.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from mi_jax.basics.dims import Params
from mi_jax.contracts import Heads
from mi_jax.models.products import spread


def neuron_output_map(layer: int, classes: int) -> Callable[[Params], Float[Array, "neuron class"]]:
    """W_L = W_out W_U: what a unit of a neuron of ``layer`` adds to the logit of each of the first
    ``classes`` classes.
    """

    def output_map(params: Params) -> Float[Array, "neuron class"]:
        return params["blocks"][str(layer)]["mlp"]["W_out"] @ params["unembed"]["W_U"][:, :classes]

    return output_map


def added_by_neurons(
    layer: int, classes: int
) -> tuple[str, Callable[[Params, Float[Array, "*b d"]], Float[Array, "*b class"]]]:
    """The site of what the neurons of ``layer`` add to the residual stream, and the map that makes
    A W_L of it.
    """

    def read(params: Params, added: Float[Array, "*b d"]) -> Float[Array, "*b class"]:
        mlp = params["blocks"][str(layer)]["mlp"]
        own = added - spread(jnp.asarray(mlp["b_out"]), added) if "b_out" in mlp else added
        return own @ jnp.asarray(params["unembed"]["W_U"])[:, :classes]

    return f"blocks.{layer}.mlp_out", read


def attention_heads(layers: int) -> Callable[[Params], Heads]:
    """The four matrices of every head of blocks 0 to layers - 1."""

    def heads(params: Params) -> Heads:
        attention = [params["blocks"][str(layer)]["attn"] for layer in range(layers)]
        return Heads(
            *(jnp.stack([jnp.asarray(one[name]) for one in attention]) for name in Heads._fields)
        )

    return heads
