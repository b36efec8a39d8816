"""Cost of the parts of a step of the quadratic MLP: matrix products, loss, and tables."""

import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.timing import PAIRS, seconds
from mi_jax.models.products import lookup, matmul
from mi_jax.training.losses import exact_cross_entropy

_CALLS = 100


def _milliseconds(step: Callable[..., tuple[jax.Array, ...]], *arrays: jax.Array) -> float:
    """Milliseconds per call of ``step``.

    The step returns its arguments changed, so that the compiler cannot remove any of the _CALLS
    calls in a row.
    """
    program = jax.jit(
        lambda *arrays: jax.lax.fori_loop(0, _CALLS, lambda _, carry: step(*carry), arrays)
    )
    jax.block_until_ready(program(*arrays))
    times = [seconds(lambda: jax.block_until_ready(program(*arrays))) for _ in range(PAIRS)]
    return 1e3 / _CALLS * statistics.median(times)


def profile(inputs: Any, targets: Any, tokens: int, width: int, classes: int) -> dict[str, float]:
    """Milliseconds of each part of a step alone, forward and backward."""
    a, b, y = jnp.asarray(inputs[:, 0]), jnp.asarray(inputs[:, 1]), jnp.asarray(targets[:, 0])
    shapes = (
        (tokens, width),
        (tokens, width),
        (width, classes),
        (len(y), width),
        (len(y), classes),
    )
    keys = jax.random.split(jax.random.key(0), len(shapes))
    A, B, U, H, Z = (
        0.1 * jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)
    )

    def loss(A: jax.Array, B: jax.Array, U: jax.Array) -> jax.Array:
        return exact_cross_entropy(matmul((lookup(a, A) + lookup(b, B)) ** 2, U), y).mean()

    def products(U: jax.Array, H: jax.Array, Z: jax.Array) -> tuple[jax.Array, ...]:
        (out, dH), dU = (matmul(H, U), Z @ U.T), jax.vjp(lambda U: matmul(H, U), U)[1](Z)[0]
        return U + 1e-9 * (dU + dH[:width, :classes]), H, Z + 1e-9 * out

    def tables(A: jax.Array, B: jax.Array, H: jax.Array) -> tuple[jax.Array, ...]:
        dA, dB = jax.grad(lambda A, B: ((lookup(a, A) + lookup(b, B)) ** 2 * H).sum(), (0, 1))(A, B)
        return A + 1e-9 * dA, B + 1e-9 * dB, H

    return {
        "all of it, without the optimizer": _milliseconds(
            lambda *w: tuple(
                x - 1e-3 * g for x, g in zip(w, jax.grad(loss, (0, 1, 2))(*w), strict=True)
            ),
            A,
            B,
            U,
        ),
        "three products": _milliseconds(products, U, H, Z),
        "cross-entropy": _milliseconds(
            lambda Z: (Z - 1e-3 * jax.grad(lambda Z: exact_cross_entropy(Z, y).mean())(Z),), Z
        ),
        "rows looked up, squared, gradients added up": _milliseconds(tables, A, B, H),
    }
