"""Named random streams: every use of randomness in a run has a name, and no two share a key.

The root key of a seed is ``jax.random.key(seed)``; a stream is ``fold_in(root, number of its
name)``. The numbers are fixed here for ever, so that adding a stream changes the bits of no other.
"""

from typing import Literal

import jax
from jaxtyping import Array, Key

from mi_jax.basics.dims import PRNGKey

Stream = Literal["init", "data", "measure", "intervention", "null", "planted"]

_NUMBERS: dict[Stream, int] = {
    "init": 0,
    "data": 1,
    "measure": 2,
    "intervention": 3,
    "null": 4,
    "planted": 5,
}


def stream(seed: int, name: Stream) -> PRNGKey:
    """The key of the stream ``name`` of the seed labelled ``seed``: the same in every process,
    alone or beside others.
    """
    return jax.random.fold_in(jax.random.key(seed), _NUMBERS[name])


def streams(seeds: tuple[int, ...], name: Stream) -> Key[Array, " seed"]:
    """One key a seed, stacked along a leading seed axis."""
    return jax.numpy.stack([stream(seed, name) for seed in seeds])
