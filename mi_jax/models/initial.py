"""Drawing initial parameters: one draw for all arrays of a kind, cut and scaled, so that
initialising compiles in one piece.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mi_jax.basics.dims import Params, PRNGKey
from mi_jax.basics.pytrees import nested

Shapes = Mapping[str, tuple[int, ...]]


def normal_parameters(key: PRNGKey, shapes: Shapes, scales: Mapping[str, float]) -> Params:
    """Arrays of N(0, scale^2) by dotted name; those without a scale are zero, and norms' weights
    ``*.w`` are one.

    Args:
        shapes: by dotted name. scales: standard deviations by dotted name.
    """
    return nested(
        {**_constant(shapes), **_drawn(shapes, scales, lambda n: jax.random.normal(key, (n,)))}
    )


def torch_parameters(
    key: PRNGKey, shapes: Shapes, scales: Mapping[str, float], bounds: Mapping[str, float]
) -> Params:
    """PyTorch's default spreads: N(0, scale^2) for embeddings, U(-bound, bound) for linear layers
    and their biases.

    Args:
        shapes: by dotted name. scales: standard deviations. bounds: half-widths, 1/sqrt(rows) in
            PyTorch. What has neither is constant (see ``normal_parameters``).
    """
    normal, uniform = jax.random.split(key)
    return nested(
        {
            **_constant(shapes),
            **_drawn(shapes, scales, lambda n: jax.random.normal(normal, (n,))),
            **_drawn(shapes, bounds, lambda n: jax.random.uniform(uniform, (n,), minval=-1.0)),
        }
    )


def _drawn(
    shapes: Shapes, scales: Mapping[str, float], draw: Callable[[int], Float[Array, " n"]]
) -> dict[str, Array]:
    """One draw, cut into the arrays that have a scale."""
    names = sorted(scales)
    sizes = [int(np.prod(shapes[name])) for name in names]
    ends, values = np.cumsum(sizes, dtype=int), draw(sum(sizes))
    return {
        name: scales[name] * values[end - size : end].reshape(shapes[name])
        for name, size, end in zip(names, sizes, ends, strict=True)
    }


def _constant(shapes: Shapes) -> dict[str, Array]:
    return {
        name: jnp.ones(shape) if name.endswith(".w") else jnp.zeros(shape)
        for name, shape in shapes.items()
    }
