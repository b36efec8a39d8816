"""Weight views: the products of parameters that are a circuit's own quantities, as explicit functions."""

from collections.abc import Callable

from jaxtyping import Array, Float

from mi_jax.arrays import Params


def neuron_output_map(layer: int, classes: int) -> Callable[[Params], Float[Array, "neuron class"]]:
    """W_L = W_out W_U: what a unit of a neuron of ``layer`` adds to the logit of each of the first ``classes`` classes."""

    def output_map(params: Params) -> Float[Array, "neuron class"]:
        return params["blocks"][str(layer)]["mlp"]["W_out"] @ params["unembed"]["W_U"][:, :classes]

    return output_map
