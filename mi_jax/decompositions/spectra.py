"""The spectrum of every array of the model: singular values and stable rank, by parameter."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from mi_jax.basics.dims import Params
from mi_jax.basics.pytrees import dotted
from mi_jax.contracts import Context, Measure
from mi_jax.measures.evaluation import shared


def as_matrix(name: str, array: Float[Array, "..."]) -> Float[Array, "row column"]:
    """An array as one linear map: heads side by side, W_Q [d head*d_head] and W_O [head*d_head d];
    a bias as a row.
    """
    if array.ndim < 2:
        return array.reshape(1, -1)
    if array.ndim == 2:
        return array
    first = array if name.endswith("W_O") else jnp.moveaxis(array, -2, 0)
    return (
        first.reshape(-1, array.shape[-1])
        if name.endswith("W_O")
        else first.reshape(first.shape[0], -1)
    )


@shared
def _spectra(params: Params, context: Context) -> Float[Array, "parameter mode"]:
    """Falling singular values of every array; 0 where a smaller one has no more."""
    matrices = [as_matrix(name, jnp.asarray(array)) for name, array in dotted(params).items()]
    most = max(min(one.shape) for one in matrices)
    values = [jnp.linalg.svd(one, compute_uv=False) for one in matrices]
    return jnp.stack([jnp.pad(one, (0, most - len(one))) for one in values])


def singular_values_by_parameter() -> Measure:
    """Falling singular values of every array, heads side by side; as many modes as the largest has,
    0 beyond an array's own.
    """
    return Measure("singular_values", _spectra, ("parameter", "mode"))


def stable_rank() -> Measure:
    """||W||_F^2 / ||W||_2^2 of every array, heads side by side: from 1 to the rank. Of a bias it is
    1, of zeros NaN.
    """

    def function(params: Params, context: Context) -> Float[Array, " parameter"]:
        power = jnp.square(_spectra(params, context))
        return power.sum(axis=1) / power[:, 0]

    return Measure("stable_rank", function, ("parameter",))
