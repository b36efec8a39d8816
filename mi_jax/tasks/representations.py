"""Real irreducible representations of the groups: orthogonal matrices, characters, and the basis of
functions they make.

Homomorphism: rho(x y) = rho(x) rho(y), x y as in ``Group.table``. A real irrep of dimension d is of
    one of three types, by the
dimension c of the space of matrices that commute with it: real (c = 1), complex (c = 2: the sum of
    a complex irrep and its
conjugate) or quaternionic (c = 4: twice a complex irrep). c is the mean of chi(x)^2. The d^2 matrix
elements span d^2 / c functions on the group, and sum d^2 / c = |G|.
"""

from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mi_jax.tasks.groups import (
    group,
    left_multiplication,
    parse,
    permutations,
    quaternion_units,
    signs,
)

Matrices = Float[np.ndarray, "element d d"]
IrrepType = Literal["real", "complex", "quaternionic"]

_COMMUTANT: dict[int, IrrepType] = {1: "real", 2: "complex", 4: "quaternionic"}


def irreps(name: str) -> list[tuple[str, Matrices]]:
    """The real irreps of a group as (label, orthogonal matrices [element d d]); the first is the
    trivial one.

    C_n, labelled by frequency k = 0 ... n // 2: rotations by 2 pi k x / n, of complex type;
    1-dimensional for 0 and n / 2.
    D_n: "trivial", "sign" (-1 for reflections), for even n "alternating" ((-1)^k for r^k and r^k s)
        and "alternating sign", then by frequency k < n / 2 the rotations by 2 pi k / n, s the
        reflection diag(1, -1). All of real type.
    S_n, labelled by partition, ``4+1``: Young's orthogonal form, partitions falling. All of real
    type. A_n, by the partition of S_n that they are restricted from. A4's ``2+2`` is of complex
    type; A5's ``3+1+1`` falls into two of
        dimension 3, ``(3+1+1)+`` the one with character (1 + sqrt(5)) / 2 at the cycle i -> i + 1,
        and ``(3+1+1)-``.
    Q8: "trivial", "i", "j" and "k" (1 at that unit, -1 at the other two), and "quaternion", left
        multiplication of quaternions: 4 dimensions, of quaternionic type.

    Raises:
        ConfigError: for a name that is no group's.
    """
    return list(_irreps(name))


def characters(name: str) -> list[tuple[str, Float[np.ndarray, " element"]]]:
    """The real irreps' characters tr rho(x) as (label, [element])."""
    return [(label, rho.trace(axis1=1, axis2=2)) for label, rho in _irreps(name)]


def irrep_type(rho: Matrices) -> IrrepType:
    """Whether a real irrep is of real, complex or quaternionic type: by the mean of its character
    squared, 1, 2 or 4.
    """
    return _COMMUTANT[round(float((rho.trace(axis1=1, axis2=2) ** 2).mean()))]


class IrrepBasis(NamedTuple):
    """An orthonormal basis of the functions on a group, made of matrix elements of its real irreps."""

    basis: Float[np.ndarray, "element mode"]
    """Columns sqrt(d / |G|) rho_ij(x); of an irrep whose commuting matrices have dimension c the
    first d / c columns j.
    """
    irrep: Int[np.ndarray, " mode"]
    """The place in ``irreps`` of the irrep that each column is of."""


@lru_cache(maxsize=8)
def irrep_basis(name: str) -> IrrepBasis:
    """The group's Fourier basis: of C_n the cosines and sines of Z_n, in general [element mode], as
    many modes as elements.

    Example:
        >>> basis, irrep = irrep_basis("C5")
        >>> bool(np.allclose(basis.T @ basis, np.eye(5))), irrep.tolist()
        (True, [0, 1, 1, 2, 2])
    """
    columns: list[np.ndarray] = []
    for _, rho in _irreps(name):
        d, commuting = rho.shape[1], {kind: c for c, kind in _COMMUTANT.items()}[irrep_type(rho)]
        columns.append(np.sqrt(d / len(rho)) * rho[:, :, : d // commuting].reshape(len(rho), -1))
    made = IrrepBasis(
        np.concatenate(columns, axis=1),
        np.repeat(np.arange(len(columns)), [one.shape[1] for one in columns]).astype(np.int32),
    )
    for array in made:
        array.setflags(write=False)  # it is kept for the next caller
    return made


@lru_cache(maxsize=8)
def _irreps(name: str) -> tuple[tuple[str, Matrices], ...]:
    family, n = parse(name)
    made = {"C": _cyclic, "D": _dihedral, "S": _symmetric, "A": _alternating, "Q": _quaternion}[
        family
    ](n)
    for _, rho in made:
        rho.setflags(write=False)  # it is kept for the next caller
    return tuple(made)


def _rotations(k: int, n: int) -> Matrices:
    """Rotations by 2 pi k x / n for x = 0 ... n - 1."""
    # Reduced first, so that large angles cost no digits.
    angle = 2 * np.pi * (k * np.arange(n) % n) / n
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([cos, -sin], axis=-1), np.stack([sin, cos], axis=-1)], axis=1)


def _line(values: Float[np.ndarray, " element"] | Int[np.ndarray, " element"]) -> Matrices:
    """A 1-dimensional representation by its values."""
    return np.asarray(values, float)[:, None, None]


def _cyclic(n: int) -> list[tuple[str, Matrices]]:
    made = [("0", _line(np.ones(n))), *((str(k), _rotations(k, n)) for k in range(1, (n + 1) // 2))]
    return made if n % 2 else [*made, (str(n // 2), _line((-1.0) ** np.arange(n)))]


def _dihedral(n: int) -> list[tuple[str, Matrices]]:
    reflected = np.repeat([1.0, -1.0], n)
    lines = {"trivial": np.ones(2 * n), "sign": reflected}
    if n % 2 == 0:
        alternating = (-1.0) ** np.tile(np.arange(n), 2)
        lines |= {"alternating": alternating, "alternating sign": alternating * reflected}
    planes: list[tuple[str, Matrices]] = []
    for k in range(1, (n + 1) // 2):
        turns = _rotations(k, n)
        planes.append((str(k), np.concatenate([turns, turns @ np.diag([1.0, -1.0])])))
    return [*((label, _line(values)) for label, values in lines.items()), *planes]


def partitions(n: int, largest: int | None = None) -> list[tuple[int, ...]]:
    """The partitions of n, falling.

    Example:
        >>> partitions(4)
        [(4,), (3, 1), (2, 2), (2, 1, 1), (1, 1, 1, 1)]
    """
    if n == 0:
        return [()]
    first = range(min(n, largest or n), 0, -1)
    return [(part, *rest) for part in first for rest in partitions(n - part, part)]


Tableau = tuple[int, ...]
"""A standard Young tableau by the row in which each number stands."""


def standard_tableaux(shape: tuple[int, ...]) -> list[Tableau]:
    """All standard tableaux of a shape: every number stands right of and below smaller ones."""
    if sum(shape) == 0:
        return [()]
    found: list[Tableau] = []
    for row, length in enumerate(shape):
        if length > 0 and (row + 1 == len(shape) or shape[row + 1] < length):
            smaller = (*shape[:row], length - 1, *shape[row + 1 :])
            found += [(*tableau, row) for tableau in standard_tableaux(smaller)]
    return found


def _cells(tableau: Tableau) -> list[tuple[int, int]]:
    """(row, column) of each number."""
    return [(row, tableau[:i].count(row)) for i, row in enumerate(tableau)]


def _exchanges(tableaux: list[Tableau]) -> list[Float[np.ndarray, "d d"]]:
    """Young's orthogonal form of the exchanges (i i+1): 1 / r on a tableau, sqrt(1 - 1 / r^2)
    between it and its exchange.

    r is the axial distance, the content (column - row) of i + 1 less that of i.
    """
    place = {tableau: j for j, tableau in enumerate(tableaux)}
    made: list[np.ndarray] = []
    for i in range(len(tableaux[0]) - 1):
        matrix = np.zeros((len(tableaux), len(tableaux)))
        for tableau, j in place.items():
            content = [column - row for row, column in _cells(tableau)]
            r = content[i + 1] - content[i]
            matrix[j, j] = 1 / r
            exchanged = (*tableau[:i], tableau[i + 1], tableau[i], *tableau[i + 2 :])
            if (
                abs(r) > 1
            ):  # else i and i + 1 share a row or a column, and their exchange is no tableau of its own
                matrix[place[exchanged], j] = np.sqrt(1 - 1 / r**2)
        made.append(matrix)
    return made


def _generated(
    table: Int[np.ndarray, "element element"], generators: dict[int, Float[np.ndarray, "d d"]]
) -> Matrices:
    """The representation with these matrices at generators: rho(x g) = rho(x) rho(g), outwards from
    the identity.
    """
    d = len(next(iter(generators.values())))
    rho, reached = np.zeros((len(table), d, d)), [0]
    rho[0], seen = np.eye(d), {0}
    for x in reached:  # grows while it is walked
        for g, matrix in generators.items():
            y = int(table[x, g])
            if y not in seen:
                rho[y] = rho[x] @ matrix
                seen.add(y)
                reached.append(y)
    return rho


def _symmetric(n: int) -> list[tuple[str, Matrices]]:
    table, rows = group(f"S{n}").table, permutations(n).tolist()
    exchanges = [rows.index([*range(i), i + 1, i, *range(i + 2, n)]) for i in range(n - 1)]
    return [
        (
            "+".join(map(str, shape)),
            _generated(
                table, dict(zip(exchanges, _exchanges(standard_tableaux(shape)), strict=True))
            ),
        )
        for shape in partitions(n)
    ]


def _alternating(n: int) -> list[tuple[str, Matrices]]:
    even = signs(permutations(n)) > 0
    whole = {shape: rho[even] for shape, (_, rho) in zip(partitions(n), _symmetric(n), strict=True)}
    made: list[tuple[str, Matrices]] = []
    for shape, rho in whole.items():
        label, mirrored = "+".join(map(str, shape)), _mirrored(shape)
        if shape > mirrored:  # the mirrored shape's is the same on even permutations
            made.append((label, rho))
        elif shape == mirrored:
            made += _halves(label, shape, rho)
    return made


def _mirrored(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape with rows and columns exchanged."""
    return tuple(sum(length > column for length in shape) for column in range(shape[0]))


def _halves(
    label: str, shape: tuple[int, ...], rho: Matrices
) -> list[tuple[str, Float[np.ndarray, "element half half"]]]:
    """What the irrep of a shape that is its own mirror image is on even permutations.

    U e_T = sign(T) e_T', T' the mirrored tableau, turns rho into sign rho. Where U^2 = 1 its two
    eigenspaces are invariant; where U^2 = -1 the representation is irreducible over the reals, and
    U is the imaginary unit.
    """
    tableaux = standard_tableaux(shape)
    cells = [tuple(_cells(tableau)) for tableau in tableaux]
    order = signs(np.array([[sorted(one).index(cell) for cell in one] for one in cells]))
    mirror = [cells.index(tuple((column, row) for row, column in one)) for one in cells]
    U = np.zeros((len(cells), len(cells)))
    U[mirror, np.arange(len(cells))] = order
    if not np.array_equal(U, U.T):
        return [(label, rho)]
    values, vectors = np.linalg.eigh(U)
    halves = [vectors[:, values * side > 0] for side in (1, -1)]
    both = [half.T @ rho @ half for half in halves]
    cycle = permutations(sum(shape), even=True).tolist().index([*range(1, sum(shape)), 0])
    both.sort(key=lambda one: -one[cycle].trace())
    return [(f"({label}){side}", one) for side, one in zip("+-", both, strict=True)]


def _quaternion(_: int) -> list[tuple[str, Matrices]]:
    units = quaternion_units()
    axis = np.abs(units).argmax(axis=1)
    lines = [("trivial", _line(np.ones(8)))]
    lines += [
        (name, _line(np.where((axis == 0) | (axis == j), 1, -1)))
        for j, name in zip((1, 2, 3), "ijk", strict=True)
    ]
    return [*lines, ("quaternion", np.stack([left_multiplication(q) for q in units]).astype(float))]
