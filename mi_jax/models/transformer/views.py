"""Weight views: functions of the parameters that give the matrices of circuits."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from mi_jax.basics.dims import Params
from mi_jax.contracts import Heads
from mi_jax.models.products import spread


def neuron_output_map(layer: int, classes: int) -> Callable[[Params], Float[Array, "neuron class"]]:
    """The function params -> W_L = W_out W_U.

    W_L[n, c] is what one unit of neuron n of ``layer`` adds to the logit of class c.

    Args:
        layer: the layer of the neurons.
        classes: the number of classes, the first columns of W_U.
    """

    def output_map(params: Params) -> Float[Array, "neuron class"]:
        return params["blocks"][str(layer)]["mlp"]["W_out"] @ params["unembed"]["W_U"][:, :classes]

    return output_map


def added_by_neurons(
    layer: int, classes: int
) -> tuple[str, Callable[[Params, Float[Array, "*b d"]], Float[Array, "*b class"]]]:
    """The role ``neurons_added`` of a layer.

    Args:
        layer: the layer of the neurons.
        classes: the number of classes.

    Returns:
        The site at which the neurons A of ``layer`` add A W_out + b_out to the residual stream, and
        a function (params, value at the site) -> A W_L.
    """

    def read(params: Params, added: Float[Array, "*b d"]) -> Float[Array, "*b class"]:
        mlp = params["blocks"][str(layer)]["mlp"]
        if "b_out" in mlp:
            added = added - spread(jnp.asarray(mlp["b_out"]), added)
        return added @ jnp.asarray(params["unembed"]["W_U"])[:, :classes]

    return f"blocks.{layer}.mlp_out", read


def attention_heads(layers: int) -> Callable[[Params], Heads]:
    """The function params -> matrices of all heads, for a transformer of that many layers."""

    def heads(params: Params) -> Heads:
        blocks = [params["blocks"][str(layer)]["attn"] for layer in range(layers)]
        return Heads(
            *(jnp.stack([jnp.asarray(block[name]) for block in blocks]) for name in Heads._fields)
        )

    return heads
