"""Subgroups of a finite group, and their cosets."""

from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Int

from mi_jax.tasks.groups import conjugacy_classes, group

Members = Bool[np.ndarray, "subgroup element"]
"""Subgroups as masks over the elements."""


@lru_cache(maxsize=8)
def subgroups(name: str) -> Members:
    """List the proper, nontrivial subgroups that two elements generate, by ascending order.

    In the groups of ``groups.group`` these are all proper, nontrivial subgroups, except in S6,
    where some need three generators.

    Args:
        name: name of the group, see ``groups.group``.

    Returns:
        Masks over the elements, [subgroup element].

    Example:
        >>> [int(members.sum()) for members in subgroups("S3")]
        [2, 2, 2, 3]

    Raises:
        ConfigError: if no group has this name.
    """
    _, table, inverse = group(name)
    n = len(table)
    cyclic: dict[bytes, int] = {}
    masks: dict[bytes, np.ndarray] = {}
    for x in range(n):
        cyclic.setdefault(_generated(table, (x,)).tobytes(), x)
    # Up to conjugation, the first generator may be any one element of its conjugacy class.
    for x in np.unique(conjugacy_classes(name), return_index=True)[1]:
        for y in cyclic.values():
            members = _generated(table, (int(x), y))
            if members.tobytes() not in masks:
                masks |= {mask.tobytes(): mask for mask in _conjugates(table, inverse, members)}
    proper = [members for members in masks.values() if 1 < members.sum() < n]
    proper.sort(key=lambda members: (members.sum(), tuple(np.flatnonzero(members))))
    listed = np.array(proper, bool).reshape(-1, n)
    listed.setflags(write=False)  # the cache gives the same array to every caller
    return listed


def _generated(
    table: Int[np.ndarray, "element element"], generators: tuple[int, ...]
) -> Bool[np.ndarray, " element"]:
    """Mask of the subgroup that some elements generate: products until no new element comes."""
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
    """Masks of the conjugate subgroups g H g^-1, one per element g."""
    moved = table[table[:, np.flatnonzero(members)], inverse[:, None]]
    masks = np.zeros(table.shape, bool)
    np.put_along_axis(masks, moved, True, axis=1)
    return masks


@lru_cache(maxsize=8)
def cosets(name: str) -> Int[np.ndarray, "subgroup side element"]:
    """Cosets of each subgroup, named by their smallest element.

    Args:
        name: name of the group, see ``groups.group``.

    Returns:
        Coset of each element, [subgroup side element], for subgroups in the order of ``subgroups``.
        Side 0 holds the left cosets x H, side 1 the right cosets H x.
    """
    table = group(name).table
    smallest = [
        [table[:, members].min(axis=1), table[members].min(axis=0)]
        for members in map(np.flatnonzero, subgroups(name))
    ]
    by_side = np.array(smallest, np.int32).reshape(-1, 2, len(table))
    by_side.setflags(write=False)  # the cache gives the same array to every caller
    return by_side
