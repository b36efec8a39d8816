"""Binary operations on residues mod p, from arXiv 2201.02177 (Power et al.)."""

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
from jaxtyping import Int

Operation = Literal[
    "add",
    "subtract",
    "multiply",
    "divide",
    "x^2+y^2",
    "x^2+xy+y^2",
    "x^2+xy+y^2+x",
    "x^3+xy",
    "x^3+xy^2+y",
    "divide_or_subtract",
    "add_or_multiply",
    "add_or_subtract",
    "random",
]
"""Names of the operations: see ``operate``. "random" is a random table, without a formula."""

DIVIDING = ("divide", "divide_or_subtract")
"""Operations that need an inverse of every residue but 0, so that p must be prime."""

_Residues = Int[np.ndarray, "..."]

_FORMULAS: Mapping[str, Callable[[_Residues, _Residues, int], _Residues]] = {
    "add": lambda x, y, p: x + y,
    "subtract": lambda x, y, p: x - y,
    "multiply": lambda x, y, p: x * y,
    "divide": lambda x, y, p: x * inverses(p)[y],
    "x^2+y^2": lambda x, y, p: x * x + y * y,
    "x^2+xy+y^2": lambda x, y, p: x * x + x * y + y * y,
    "x^2+xy+y^2+x": lambda x, y, p: x * x + x * y + y * y + x,
    "x^3+xy": lambda x, y, p: x**3 + x * y,
    "x^3+xy^2+y": lambda x, y, p: x**3 + x * y * y + y,
    "divide_or_subtract": lambda x, y, p: np.where(y % 2 == 1, x * inverses(p)[y], x - y),
    "add_or_multiply": lambda x, y, p: np.where(x % 2 == 0, x + y, x * y),
    "add_or_subtract": lambda x, y, p: np.where(x % 2 == 0, x + y, x - y),
}


def operate(operation: str, x: _Residues, y: _Residues, p: int) -> _Residues:
    """Compute x o y mod p.

    "divide_or_subtract" is x / y if y is odd and x - y if y is even, as in the paper.
    "add_or_multiply" and "add_or_subtract" are x + y if x is even, and x y or x - y if x is
    odd, as in the paper's code. Parities are those of the residues 0 to p - 1.

    Args:
        operation: name of the operation; all but "random", which has no formula.
        x: residues.
        y: residues, of the shape of x.
        p: the modulus.

    Example:
        >>> operate("divide", np.array([3]), np.array([4]), 7).tolist()
        [6]
    """
    return _FORMULAS[operation](x.astype(np.int64), y.astype(np.int64), p) % p


def inverses(p: int) -> Int[np.ndarray, " residue"]:
    """Inverses 1 / x mod a prime p, by residue x; 0 for the residue 0, which has none."""
    return np.array([0, *(pow(x, -1, p) for x in range(1, p))])


def is_prime(p: int) -> bool:
    """Whether p is a prime number."""
    return p >= 2 and all(p % d for d in range(2, int(p**0.5) + 1))


def logarithms(p: int) -> Int[np.ndarray, " residue"]:
    """Discrete logarithms mod a prime p: the k with g^k = x, by residue x; -1 for the residue 0.

    g is the smallest primitive root: the smallest number whose powers are all residues but 0.

    Example:
        >>> logarithms(5).tolist()
        [-1, 0, 1, 3, 2]
    """
    powers = next(
        row for g in range(1, p) if len(set(row := [pow(g, k, p) for k in range(p - 1)])) == p - 1
    )
    exponents = np.full(p, -1)
    exponents[powers] = np.arange(p - 1)
    return exponents
