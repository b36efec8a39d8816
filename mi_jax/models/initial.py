"""Drawing initial parameters: one normal draw for all arrays, cut and scaled, so that initialising compiles in one piece."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from mi_jax.arrays import Params, PRNGKey
from mi_jax.pytrees import nested


def normal_parameters(key: PRNGKey, shapes: Mapping[str, tuple[int, ...]], scales: Mapping[str, float]) -> Params:
    """Arrays of N(0, scale^2) by dotted name; those without a scale are zero, and norms' weights ``*.w`` are one.

    Args:
        shapes: by dotted name. scales: standard deviations by dotted name.
    """
    drawn = sorted(scales)
    ends = np.cumsum([int(np.prod(shapes[name])) for name in drawn])
    values = jax.random.normal(key, (int(ends[-1]),))
    flat = {
        name: scales[name] * values[end - int(np.prod(shapes[name])) : end].reshape(shapes[name])
        for name, end in zip(drawn, ends, strict=True)
    }
    for name, shape in shapes.items():
        if name not in flat:
            flat[name] = jnp.ones(shape) if name.endswith(".w") else jnp.zeros(shape)
    return nested(flat)
