"""Named random streams: each use of randomness in a run has a name and a key of its own.

The root key of a seed is ``jax.random.key(seed)``. The key of a stream is ``fold_in(root, number)``
with the stream's number below.
"""

from typing import Literal

import jax
from jaxtyping import Array, Key

from mi_jax.basics.dims import PRNGKey

Stream = Literal["init", "data", "measure", "intervention", "null", "planted"]
"""Names of the streams."""

# These numbers never change: another number would change the bits of every stored run.
_NUMBERS: dict[Stream, int] = {
    "init": 0,
    "data": 1,
    "measure": 2,
    "intervention": 3,
    "null": 4,
    "planted": 5,
}


def stream(seed: int, name: Stream) -> PRNGKey:
    """Key of one stream of one seed.

    It is the same in every process, whether the seed runs alone or beside others.

    Args:
        seed: label of the seed.
        name: name of the stream.
    """
    return jax.random.fold_in(jax.random.key(seed), _NUMBERS[name])


def streams(seeds: tuple[int, ...], name: Stream) -> Key[Array, " seed"]:
    """Keys of one stream, one per seed, stacked along a leading seed axis.

    Args:
        seeds: labels of the seeds.
        name: name of the stream.
    """
    return jax.numpy.stack([stream(seed, name) for seed in seeds])
