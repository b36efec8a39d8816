"""Finite groups as multiplication tables: cyclic, dihedral, symmetric, alternating, and the
quaternions' eight units.
"""

import itertools
import re
from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from mi_jax.basics.errors import require

_SPELLINGS = "C2, C3, ... (cyclic), D3, D4, ... (dihedral, 2n elements), S3, S4, S5, S6, A4, A5, Q8"
_FIXED = ("S3", "S4", "S5", "S6", "A4", "A5", "Q8")


class Group(NamedTuple):
    """A group as arrays: elements go by their index, 0 is the identity."""

    elements: tuple[Hashable, ...]
    """C_n: 0 to n - 1. D_n: (k, 0), the rotations r^k, then (k, 1), the reflections r^k s. S_n and
    A_n: permutations as tuples of images, lexicographic. Q8: 1, -1, i, -i, j, -j, k, -k as strings.
    """
    table: Int[np.ndarray, "element element"]
    """table[x, y] is x y; of permutations: first x, then y, i -> y[x[i]]."""
    inverse: Int[np.ndarray, " element"]


@lru_cache(maxsize=32)
def group(name: str) -> Group:
    """The group spelled ``C113``, ``D59``, ``S5``, ``A5`` or ``Q8``. Products are those of the code
    of arXiv 2302.03025.

    Example:
        >>> s3 = group("S3")
        >>> s3.elements[1], s3.elements[2], s3.elements[s3.table[1, 2]]
        ((0, 2, 1), (1, 0, 2), (1, 2, 0))

    Raises:
        ConfigError: for a name that is no group's.
    """
    family, order = parse(name)
    table = _TABLES[family](order)
    inverse = np.nonzero(table == 0)[1].astype(np.int32)
    for array in (table, inverse):
        array.setflags(write=False)  # it is kept for the next caller
    return Group(_ELEMENTS[family](order), table, inverse)


def parse(name: str) -> tuple[str, int]:
    """Family and number of a group's name. Raises ConfigError for one that is no group's."""
    spelled = re.fullmatch(r"([CD])([1-9]\d*)", name)
    known = name in _FIXED or (
        spelled is not None and int(spelled[2]) >= {"C": 2, "D": 3}[spelled[1]]
    )
    # Two letters are never near by difflib's measure, so those of the family are named.
    near = ", ".join(one for one in _FIXED if one[0] == name[:1].upper())
    require(
        known,
        f"group={name!r} is unknown; {f'did you mean {near}? ' if near else ''}Groups are spelled"
        f" {_SPELLINGS}",
    )
    return name[0], int(name[1:])


def conjugacy_classes(name: str) -> Int[np.ndarray, " element"]:
    """The class of each element, counted from 0 in the order of their first elements: x and y x
    y^-1 are in one.
    """
    table, inverse = group(name).table, group(name).inverse
    first = table[table, inverse[:, None]].min(axis=0)  # [y, x]: y x y^-1
    return np.unique(first, return_inverse=True)[1].astype(np.int32)


def permutations(n: int, even: bool = False) -> Int[np.ndarray, "element image"]:
    """All permutations of n points as rows of images, lexicographic; the even ones alone for A_n."""
    rows = np.array(list(itertools.permutations(range(n))))
    return rows[signs(rows) > 0] if even else rows


def signs(rows: Int[np.ndarray, "element image"]) -> Int[np.ndarray, " element"]:
    """(-1)^inversions of each permutation."""
    inversions = sum(
        (rows[:, i] > rows[:, j]).astype(int)
        for i, j in itertools.combinations(range(rows.shape[1]), 2)
    )
    return np.where(np.asarray(inversions) % 2, -1, 1)


def _composed(rows: Int[np.ndarray, "element image"]) -> Int[np.ndarray, "element element"]:
    """The table of a closed set of permutations in lexicographic order: first x, then y."""
    weights = rows.shape[1] ** np.arange(rows.shape[1])[::-1]
    products = rows[:, rows].transpose(1, 0, 2)  # [x, y, i]: y[x[i]]
    # Lexicographic order is that of the images read as digits.
    return np.searchsorted(rows @ weights, products @ weights).astype(np.int32)


def _dihedral(n: int) -> Int[np.ndarray, "element element"]:
    """r^j s^a r^k s^b = r^(j + k) s^(a + b), or r^(j - k) s^(a + b) past a reflection."""
    k, reflected = np.arange(2 * n) % n, np.arange(2 * n) // n
    turned = k[:, None] + np.where(reflected[:, None] == 1, -1, 1) * k[None, :]
    return (turned % n + n * ((reflected[:, None] + reflected[None, :]) % 2)).astype(np.int32)


_QUATERNIONS = ("1", "-1", "i", "-i", "j", "-j", "k", "-k")


def quaternion_units() -> Int[np.ndarray, "element part"]:
    """The units of Q8 by their parts along 1, i, j, k."""
    return np.stack([sign * np.eye(4, dtype=int)[axis] for axis in range(4) for sign in (1, -1)])


def left_multiplication(q: Int[np.ndarray, " part"]) -> Int[np.ndarray, "part part_other"]:
    """The matrix of x -> q x over the parts of quaternions."""
    w, x, y, z = q
    return np.array([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]])


def _quaternion(_: int) -> Int[np.ndarray, "element element"]:
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
