"""The spectrum of every array of the model: singular values and stable rank, by parameter."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from mi_jax.basics.dims import Params
from mi_jax.basics.pytrees import dotted
from mi_jax.contracts import Context, Measure
from mi_jax.measures.evaluation import shared


def as_matrix(name: str, array: Float[Array, "..."]) -> Float[Array, "row column"]:
    """An array as one linear map.

    Heads stand side by side: W_Q [head d d_head] becomes [d head*d_head], and W_O [head d_head d]
    becomes [head*d_head d]. A bias becomes a row, as does the bias b_Q [head d_head] of all heads.

    Args:
        name: dotted name of the parameter. Its last part tells biases (``b``, ``b_...``) from
            matrices, and W_O from the other matrices of a head.
        array: the parameter.

    Returns:
        A matrix of the same numbers.
    """
    last = name.split(".")[-1]
    if array.ndim < 2 or last == "b" or last.startswith("b_"):
        return array.reshape(1, -1)
    if array.ndim == 2:
        return array
    if name.endswith("W_O"):
        return array.reshape(-1, array.shape[-1])
    inputs_first = jnp.moveaxis(array, -2, 0)
    return inputs_first.reshape(inputs_first.shape[0], -1)


@shared
def _spectra(params: Params, context: Context) -> Float[Array, "parameter mode"]:
    """Singular values of every array in falling order; 0 where a smaller array has no more."""
    matrices = [as_matrix(name, jnp.asarray(array)) for name, array in dotted(params).items()]
    most = max(min(matrix.shape) for matrix in matrices)
    spectra = [jnp.linalg.svd(matrix, compute_uv=False) for matrix in matrices]
    return jnp.stack([jnp.pad(values, (0, most - len(values))) for values in spectra])


def singular_values_by_parameter() -> Measure:
    """Singular values of every array of the model, with the heads of a layer side by side.

    Returns:
        A measure ``singular_values`` with dims (parameter, mode), in falling order. There are as
        many modes as the largest array has; beyond an array's own modes the values are 0.
    """
    return Measure("singular_values", _spectra, ("parameter", "mode"))


def stable_rank() -> Measure:
    """Stable rank ||W||_F^2 / ||W||_2^2 of every array, with the heads of a layer side by side.

    It lies between 1 (one direction carries everything) and the rank (all directions are equally
    strong). A bias has stable rank 1, an array of zeros NaN.

    Returns:
        A measure ``stable_rank`` with dims (parameter,).
    """

    def _stable_rank(params: Params, context: Context) -> Float[Array, " parameter"]:
        power = jnp.square(_spectra(params, context))
        return power.sum(axis=1) / power[:, 0]

    return Measure("stable_rank", _stable_rank, ("parameter",))
