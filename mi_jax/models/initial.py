"""Initial parameters.

All arrays of one distribution are cut from a single draw and scaled, so that initialisation
compiles as one piece.
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
    """Draws arrays from N(0, scale^2).

    Arrays without a scale are constant: 1 for weights of norms (names ending in ``.w``), else 0.

    Args:
        key: the random key, which is consumed.
        shapes: by dotted name, the shape of every array.
        scales: by dotted name, the standard deviations of the arrays to draw.

    Returns:
        The nested dict of parameters.
    """
    return nested(
        {**_constant(shapes), **_drawn(shapes, scales, lambda n: jax.random.normal(key, (n,)))}
    )


def torch_parameters(
    key: PRNGKey, shapes: Shapes, scales: Mapping[str, float], bounds: Mapping[str, float]
) -> Params:
    """Draws arrays from PyTorch's default distributions.

    Embeddings are N(0, scale^2); linear layers and their biases are U(-bound, bound), where
    PyTorch's bound is 1 / sqrt(rows). Arrays in neither ``scales`` nor ``bounds`` are constant
    (see ``normal_parameters``).

    Args:
        key: the random key, which is consumed.
        shapes: by dotted name, the shape of every array.
        scales: by dotted name, the standard deviations of the normal arrays.
        bounds: by dotted name, the half-widths of the uniform arrays.

    Returns:
        The nested dict of parameters.
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
    """The arrays that have a scale, cut from one draw."""
    # Sorted by name: this order decides which array gets which part of the draw, in stored runs
    # too.
    names = sorted(scales)
    sizes = [int(np.prod(shapes[name])) for name in names]
    ends, values = np.cumsum(sizes, dtype=int), draw(sum(sizes))
    return {
        name: scales[name] * values[end - size : end].reshape(shapes[name])
        for name, size, end in zip(names, sizes, ends, strict=True)
    }


def _constant(shapes: Shapes) -> dict[str, Array]:
    """Ones for the weights of norms, zeros for every other array."""
    return {
        name: jnp.ones(shape) if name.endswith(".w") else jnp.zeros(shape)
        for name, shape in shapes.items()
    }
