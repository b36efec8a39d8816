"""Finite sets of examples: drawing distinct examples once, and minibatches by (key, step)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from mi_jax.basics.dims import Count, PRNGKey
from mi_jax.basics.errors import ConfigError
from mi_jax.contracts import Batch, Feed, Inputs
from mi_jax.contracts.task import LONGEST_CHUNK

LARGEST_INDEX = 2**31 - 1
"""Largest token, and largest length of an array's axis: JAX counts them in 32 bits."""

LONGEST_INPUT = 2**12
"""The most positions of an input of the tasks here."""


def minibatches(
    key: PRNGKey, size: int, batch: int, start: Count, n: Count
) -> Callable[[Count], Int[Array, " batch"]]:
    """Choose the examples of steps ``start`` to ``start + n - 1``.

    Epoch e is ``permutation(fold_in(key, e), size)``, cut into size // batch batches; the remainder
    of the permutation is dropped. A step therefore sees the same examples however training is cut
    into chunks. Only the epochs that the chunk touches are drawn, in a loop of traced length.

    Args:
        key: key of the random stream "data".
        size: number of examples in the set.
        batch: number of examples per step.
        start: first step, traced.
        n: number of steps, traced; at most ``LONGEST_CHUNK``.

    Returns:
        The function i -> indices of the examples of step ``start + i``, [batch].
    """
    per_epoch = size // batch
    first = start // per_epoch
    touched = (start + n - 1) // per_epoch - first + 1
    # Static bound on ``touched``, since the array of orders needs a static shape.
    most = _epochs(per_epoch)

    def _draw(e: Count, orders: Int[Array, "epoch size"]) -> Int[Array, "epoch size"]:
        order = jax.random.permutation(jax.random.fold_in(key, first + e), size)
        return orders.at[e].set(order.astype(jnp.int32))

    orders = jax.lax.fori_loop(0, touched, _draw, jnp.zeros((most, size), jnp.int32))

    def indices(i: Count) -> Int[Array, " batch"]:
        epoch, number = (start + i) // per_epoch - first, (start + i) % per_epoch
        return jax.lax.dynamic_slice(orders, (epoch, number * batch), (1, batch))[0]

    return indices


def orders_bytes(size: int, batch_size: int | None) -> int:
    """Bytes that ``finite_feed`` holds to draw the minibatches of a chunk.

    Args:
        size: number of examples in the set.
        batch_size: number of examples per step; None for all of them.
    """
    return 0 if batch_size is None else 4 * size * _epochs(size // batch_size)


def _epochs(per_epoch: int) -> int:
    """The most epochs that a chunk can touch."""
    return min(LONGEST_CHUNK, -(-LONGEST_CHUNK // per_epoch) + 1)


def example_bytes(inputs: Inputs, answers: int) -> int:
    """Bytes of one example of a ``Batch``: its input, targets and weights.

    Args:
        inputs: description of the task's inputs.
        answers: number of positions that are read.
    """
    return 4 * inputs.positions * max(inputs.features, 1) + 8 * answers


def finite_feed(data: Batch, batch_size: int | None, key: PRNGKey, start: Count, n: Count) -> Feed:
    """Feed a finite set of examples: all of them in every step, or in minibatches.

    Args:
        data: all examples.
        batch_size: number of examples per step; None for all of them.
        key: key of the random stream "data".
        start: first step, traced.
        n: number of steps, traced; at most ``LONGEST_CHUNK``.

    Returns:
        The function i -> batch of step ``start + i``.
    """
    if batch_size is None:
        return lambda i: data
    indices = minibatches(key, len(data.targets), batch_size, start, n)

    def feed(i: Count) -> Batch:
        rows = indices(i)
        info = {name: values[rows] for name, values in data.info.items()}
        return Batch(data.inputs[rows], data.targets[rows], data.weights[rows], info)

    return feed


def check_sizes(examples: int | None, batch_size: int | None) -> None:
    """Refuse an invalid size of the training set, or of its batches.

    Args:
        examples: number of examples in a finite set; None if every step draws fresh ones.
        batch_size: number of examples per step; None for the whole finite set.

    Raises:
        ConfigError: if a size is not a whole number of at least 1, the batch is larger than the
            finite set, or fresh examples come without a batch size.
    """
    if examples is not None and not (isinstance(examples, int) and examples >= 1):
        raise ConfigError(
            f"examples={examples}: must be a whole number of at least 1, or None for fresh examples"
            " in every step."
        )
    if batch_size is None:
        if examples is None:
            raise ConfigError(
                "batch_size=None: fresh examples (examples=None) need a number. Set batch_size."
            )
        return
    if not (isinstance(batch_size, int) and 1 <= batch_size <= (examples or batch_size)):
        limit = f" to the {examples} trained examples, or None for all of them" if examples else ""
        raise ConfigError(f"batch_size={batch_size}: must be a whole number from 1{limit}.")


def check_at_least(settings: object, **least: int) -> None:
    """Refuse fields that are not whole numbers, or are too small.

    Args:
        settings: the dataclass.
        least: smallest value allowed of each field, by its name.

    Raises:
        ConfigError: if a field is not a whole number of at least that value.
    """
    for name, minimum in least.items():
        value = getattr(settings, name)
        if not (isinstance(value, int) and value >= minimum):
            raise ConfigError(f"{name}={value}: must be a whole number of at least {minimum}.")


def distinct(
    draw: Callable[[int], Int[np.ndarray, "n ..."]],
    count: int,
    apart_from: Int[np.ndarray, "m ..."] | None = None,
) -> Int[np.ndarray, "count ..."]:
    """Draw distinct examples: the first ``count`` different ones among repeated draws.

    Args:
        draw: function n -> n examples, drawn with replacement. At least count + m different
            examples must exist, or the loop never ends.
        count: number of examples.
        apart_from: m different examples that must not occur among the result.

    Returns:
        The examples, in the order in which they were first drawn.
    """
    rows = draw(count) if apart_from is None else np.concatenate([apart_from, draw(count)])
    taken = len(rows) - count
    while True:
        first = np.sort(np.unique(rows, axis=0, return_index=True)[1])[taken:]
        if len(first) >= count:
            return rows[first[:count]]
        rows = np.concatenate([rows, draw(count)])
