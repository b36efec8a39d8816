"""The subgroups of a finite group, and the cosets that each cuts it into."""

from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Int

from mi_jax.tasks.groups import conjugacy_classes, group

Members = Bool[np.ndarray, "subgroup element"]


@lru_cache(maxsize=8)
def subgroups(name: str) -> Members:
    """Every proper, nontrivial subgroup that two elements generate, as masks over the elements, by
    rising order.

    In the groups of ``groups.group`` these are all there are, but for S6, where some need three
    generators.

    Example:
        >>> [int(members.sum()) for members in subgroups("S3")]
        [2, 2, 2, 3]

    Raises:
        ConfigError: for a name that is no group's.
    """
    _, table, inverse = group(name)
    n = len(table)
    cyclic: dict[bytes, int] = {}
    found: dict[bytes, np.ndarray] = {}
    for x in range(n):
        cyclic.setdefault(_generated(table, (x,)).tobytes(), x)
    # Up to conjugation, one of the two generators stands for its class.
    for x in np.unique(conjugacy_classes(name), return_index=True)[1]:
        for y in cyclic.values():
            members = _generated(table, (int(x), y))
            if members.tobytes() not in found:
                found |= {one.tobytes(): one for one in _conjugates(table, inverse, members)}
    proper = [members for members in found.values() if 1 < members.sum() < n]
    proper.sort(key=lambda members: (members.sum(), tuple(np.flatnonzero(members))))
    made = np.array(proper, bool).reshape(-1, n)
    made.setflags(write=False)  # it is kept for the next caller
    return made


def _generated(
    table: Int[np.ndarray, "element element"], generators: tuple[int, ...]
) -> Bool[np.ndarray, " element"]:
    """The members of the subgroup that these elements generate: products until no more come."""
    members, fresh = np.zeros(len(table), bool), np.array([0])
    members[0] = True
    while len(fresh):
        reached = np.zeros_like(members)
        reached[table[fresh][:, list(generators)]] = True
        fresh = np.flatnonzero(reached & ~members)
        members[fresh] = True
    return members


def _conjugates(
    table: Int[np.ndarray, "element element"],
    inverse: Int[np.ndarray, " element"],
    members: Bool[np.ndarray, " element"],
) -> Members:
    """g H g^-1 for every g."""
    moved = table[table[:, np.flatnonzero(members)], inverse[:, None]]
    masks = np.zeros(table.shape, bool)
    np.put_along_axis(masks, moved, True, axis=1)
    return masks


@lru_cache(maxsize=8)
def cosets(name: str) -> Int[np.ndarray, "subgroup side element"]:
    """The coset that each element is in, named by its least element: side 0 the left ones x H, side
    1 the right ones H x.

    Subgroups in the order of ``subgroups``.
    """
    table = group(name).table
    made = [
        [table[:, held].min(axis=1), table[held].min(axis=0)]
        for held in map(np.flatnonzero, subgroups(name))
    ]
    labels = np.array(made, np.int32).reshape(-1, 2, len(table))
    labels.setflags(write=False)  # it is kept for the next caller
    return labels
