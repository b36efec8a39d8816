"""Precision of one run, float32 or float64: a context manager, never JAX's global switch."""

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

Precision = Literal["float32", "float64"]
"""Precision in which parameters, optimizer state, losses and readings are computed and stored."""


@contextlib.contextmanager
def computing_in(precision: Precision) -> Iterator[None]:
    """Context manager inside which JAX computes in one precision, in this thread.

    ``jax.random`` draws other numbers in float64 than in float32. Data and initial parameters are
    therefore drawn in float32 and then cast, see ``cast``.
    """
    with jax.enable_x64(precision == "float64"):
        yield


def cast(tree: Any, precision: Precision) -> Any:
    """Convert the float arrays of a pytree to a precision. Call it inside ``computing_in``.

    Args:
        tree: the pytree. Arrays of other dtypes stay as they are.
        precision: the precision.

    Example:
        >>> with computing_in("float64"):
        ...     cast({"x": jnp.ones(2, jnp.float32), "n": jnp.int32(3)}, "float64")
        {'n': Array(3, dtype=int32...), 'x': Array([1., 1.], dtype=float64)}
    """
    return jax.tree.map(lambda x: jnp.asarray(x, precision) if _is_float(x) else x, tree)


def precision_of(tree: Any) -> Precision:
    """Precision of a pytree: float64 if any of its arrays is."""
    wide = any(leaf.dtype == np.float64 for leaf in jax.tree.leaves(tree))
    return "float64" if wide else "float32"


def _is_float(x: Any) -> bool:
    # The dtype of a random key is no NumPy dtype, and np.issubdtype would refuse it.
    return isinstance(x.dtype, np.dtype) and np.issubdtype(x.dtype, np.floating)
