"""Finite groups as multiplication tables: cyclic, dihedral, symmetric, alternating, and Q8."""

import itertools
import math
import re
from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from mi_jax.basics.errors import ConfigError

_SPELLINGS = "C2, C3, ... (cyclic), D3, D4, ... (dihedral, 2n elements), S3, S4, S5, S6, A4, A5, Q8"
_FIXED = ("S3", "S4", "S5", "S6", "A4", "A5", "Q8")


class Group(NamedTuple):
    """A group as arrays. Elements are denoted by their index; 0 is the identity.

    Attributes:
        elements: the elements. C_n: 0 to n - 1. D_n: the rotations r^k as (k, 0), then the
            reflections r^k s as (k, 1). S_n and A_n: permutations as tuples of images, in
            lexicographic order. Q8: the strings 1, -1, i, -i, j, -j, k, -k.
        table: products, [element element]: table[x, y] is x y. For permutations that is first x,
            then y: i -> y[x[i]].
        inverse: inverse of each element, [element].
    """

    elements: tuple[Hashable, ...]
    table: Int[np.ndarray, "element element"]
    inverse: Int[np.ndarray, " element"]


@lru_cache(maxsize=32)
def group(name: str) -> Group:
    """Build a group from its name: ``C113``, ``D59``, ``S5``, ``A5`` or ``Q8``.

    Products follow the code of arXiv 2302.03025.

    Example:
        >>> s3 = group("S3")
        >>> s3.elements[1], s3.elements[2], s3.elements[s3.table[1, 2]]
        ((0, 2, 1), (1, 0, 2), (1, 2, 0))

    Raises:
        ConfigError: if no group has this name.
    """
    family, order = parse_group_name(name)
    table = _TABLES[family](order)
    inverse = np.nonzero(table == 0)[1].astype(np.int32)
    for array in (table, inverse):
        array.setflags(write=False)  # the cache gives the same arrays to every caller
    return Group(_ELEMENTS[family](order), table, inverse)


def parse_group_name(name: str) -> tuple[str, int]:
    """Split a group's name into its family and number.

    Returns:
        The family, a letter such as "S", and the number.

    Raises:
        ConfigError: if no group has this name.
    """
    spelled = re.fullmatch(r"([CD])([1-9]\d{0,8})", name)
    valid = name in _FIXED or (
        spelled is not None and int(spelled[2]) >= {"C": 2, "D": 3}[spelled[1]]
    )
    if not valid:
        # difflib finds nothing near a name of two letters, so list the family with that letter.
        near = ", ".join(fixed for fixed in _FIXED if fixed[0] == name[:1].upper())
        suggestion = f"did you mean {near}? " if near else ""
        raise ConfigError(
            f"group={name!r} is unknown; {suggestion}Groups are spelled {_SPELLINGS}."
        )
    return name[0], int(name[1:])


def group_order(name: str) -> int:
    """Number of elements of a group, without making its table.

    Example:
        >>> [group_order(name) for name in ("C113", "D59", "S5", "A5", "Q8")]
        [113, 118, 120, 60, 8]

    Raises:
        ConfigError: if no group has this name.
    """
    family, n = parse_group_name(name)
    match family:
        case "D":
            return 2 * n
        case "S":
            return math.factorial(n)
        case "A":
            return math.factorial(n) // 2
        case _:
            return n


def conjugacy_classes(name: str) -> Int[np.ndarray, " element"]:
    """Conjugacy class of each element: x and y x y^-1 are in the same class.

    Args:
        name: name of the group, see ``group``.

    Returns:
        The classes, [element], numbered from 0 in the order of their first elements.
    """
    table, inverse = group(name).table, group(name).inverse
    first = table[table, inverse[:, None]].min(axis=0)  # [y, x]: y x y^-1
    return np.unique(first, return_inverse=True)[1].astype(np.int32)


def permutations(n: int, even: bool = False) -> Int[np.ndarray, "element image"]:
    """All permutations of n points as rows of images, in lexicographic order.

    Args:
        n: number of points.
        even: whether to return only even permutations, the elements of A_n.
    """
    rows = np.array(list(itertools.permutations(range(n))))
    return rows[signs(rows) > 0] if even else rows


def signs(rows: Int[np.ndarray, "element image"]) -> Int[np.ndarray, " element"]:
    """Sign of each permutation, (-1)^inversions."""
    inversions = sum(
        (rows[:, i] > rows[:, j]).astype(int)
        for i, j in itertools.combinations(range(rows.shape[1]), 2)
    )
    return np.where(np.asarray(inversions) % 2, -1, 1)


def _composed(rows: Int[np.ndarray, "element image"]) -> Int[np.ndarray, "element element"]:
    """Table of a group of permutations, given in lexicographic order: first x, then y."""
    weights = rows.shape[1] ** np.arange(rows.shape[1])[::-1]
    products = rows[:, rows].transpose(1, 0, 2)  # [x, y, i]: y[x[i]]
    # Lexicographic order is the order of the images read as digits of a number.
    return np.searchsorted(rows @ weights, products @ weights).astype(np.int32)


def _dihedral(n: int) -> Int[np.ndarray, "element element"]:
    """Table of D_n: r^j s^a r^k s^b is r^(j + k) s^b for a = 0, r^(j - k) s^(1 + b) for a = 1."""
    k, reflected = np.arange(2 * n) % n, np.arange(2 * n) // n
    turned = k[:, None] + np.where(reflected[:, None] == 1, -1, 1) * k[None, :]
    return (turned % n + n * ((reflected[:, None] + reflected[None, :]) % 2)).astype(np.int32)


_QUATERNIONS = ("1", "-1", "i", "-i", "j", "-j", "k", "-k")


def quaternion_units() -> Int[np.ndarray, "element part"]:
    """Elements of Q8 by their parts along 1, i, j, k, [element part]."""
    return np.stack([sign * np.eye(4, dtype=int)[axis] for axis in range(4) for sign in (1, -1)])


def left_multiplication(q: Int[np.ndarray, " part"]) -> Int[np.ndarray, "part part_other"]:
    """Matrix of x -> q x on the parts of quaternions, [part part_other]."""
    w, x, y, z = q
    return np.array([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]])


def _quaternion(_: int) -> Int[np.ndarray, "element element"]:
    """Table of Q8."""
    units = quaternion_units()
    products = np.stack([units @ left_multiplication(q).T for q in units])
    return (products[:, :, None] == units[None, None]).all(axis=-1).argmax(axis=-1).astype(np.int32)


_TABLES: dict[str, Callable[[int], Int[np.ndarray, "element element"]]] = {
    "C": lambda n: ((np.arange(n)[:, None] + np.arange(n)) % n).astype(np.int32),
    "D": _dihedral,
    "S": lambda n: _composed(permutations(n)),
    "A": lambda n: _composed(permutations(n, even=True)),
    "Q": _quaternion,
}

_ELEMENTS: dict[str, Callable[[int], tuple[Hashable, ...]]] = {
    "C": lambda n: tuple(range(n)),
    "D": lambda n: tuple((k, reflected) for reflected in (0, 1) for k in range(n)),
    "S": lambda n: tuple(tuple(row) for row in permutations(n).tolist()),
    "A": lambda n: tuple(tuple(row) for row in permutations(n, even=True).tolist()),
    "Q": lambda _: _QUATERNIONS,
}
