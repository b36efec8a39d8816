"""Float32 or float64 for one run: a context around what it computes, never JAX's global switch."""

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

Precision = Literal["float32", "float64"]
"""What parameters, optimizer state, losses and readings are computed and stored in."""


@contextlib.contextmanager
def computing_in(precision: Precision) -> Iterator[None]:
    """Inside, JAX computes in this precision, in this thread; what was in force before holds again
    afterwards.

    Draws differ between the two: ``jax.random`` makes other numbers in float64. So data and initial
        parameters are drawn in
    float32 and cast.
    """
    with jax.enable_x64(precision == "float64"):
        yield


def cast(tree: Any, precision: Precision) -> Any:
    """The same pytree with its floats in this precision, everything else as it is. To be called
    inside ``computing_in``.

    Example:
        >>> with computing_in("float64"):
        ...     cast({"x": jnp.ones(2, jnp.float32), "n": jnp.int32(3)}, "float64")
        {'n': Array(3, dtype=int32...), 'x': Array([1., 1.], dtype=float64)}
    """
    return jax.tree.map(lambda x: jnp.asarray(x, precision) if _is_float(x) else x, tree)


def precision_of(tree: Any) -> Precision:
    """The precision of a pytree's arrays: float64 where any of them is."""
    return (
        "float64" if any(leaf.dtype == np.float64 for leaf in jax.tree.leaves(tree)) else "float32"
    )


def _is_float(x: Any) -> bool:
    # Not jnp.issubdtype of a key's own dtype, which is no NumPy type.
    return isinstance(x.dtype, np.dtype) and np.issubdtype(x.dtype, np.floating)
