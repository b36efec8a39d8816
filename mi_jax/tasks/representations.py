"""Real irreducible representations of finite groups, their characters, and the basis they make.

A representation is a homomorphism, rho(x y) = rho(x) rho(y), with x y as in ``Group.table``. A real
irrep of dimension d has one of three types, by the dimension c of the space of matrices that
commute with it. Real: c = 1. Complex: c = 2, the sum of a complex irrep and its conjugate.
Quaternionic: c = 4, twice a complex irrep. c is the mean of chi(x)^2 over the group. The d^2 matrix
elements span d^2 / c functions on the group, and the sum of d^2 / c over all irreps is |G|.
"""

from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mi_jax.tasks.groups import (
    group,
    left_multiplication,
    parse_group_name,
    permutations,
    quaternion_units,
    signs,
)

Matrices = Float[np.ndarray, "element d d"]
"""A representation as one matrix per element."""
IrrepType = Literal["real", "complex", "quaternionic"]
"""Types of a real irrep: see the module."""

_COMMUTANT: dict[int, IrrepType] = {1: "real", 2: "complex", 4: "quaternionic"}


def irreps(name: str) -> list[tuple[str, Matrices]]:
    """List the real irreps of a group, the trivial one first.

    C_n: labelled by frequency k = 0, ..., n // 2. Rotations by 2 pi k x / n, of complex type; of
        dimension 1 for k = 0 and k = n / 2.
    D_n: "trivial"; "sign", which is -1 for reflections; for even n also "alternating", which is
        (-1)^k for r^k and r^k s, and "alternating sign". Then, labelled by frequency k < n / 2, the
        rotations by 2 pi k / n, with s as the reflection diag(1, -1). All are of real type.
    S_n: labelled by partition, such as ``4+1``, in descending order: Young's orthogonal form. All
        are of real type.
    A_n: labelled by the partition of the irrep of S_n that is restricted. ``2+2`` of A4 is of
        complex type. ``3+1+1`` of A5 splits into two irreps of dimension 3: ``(3+1+1)+``, whose
        character at the cycle i -> i + 1 is (1 + sqrt(5)) / 2, and ``(3+1+1)-``.
        Each matrix is exact to rounding: rho(x y) - rho(x) rho(y) is below 1e-12 for all 3,600
        products of A5, and so is rho rho^T - 1. The matrices of its two irreps of dimension 3 in
        the code published with arXiv 2302.03025 are not: readings by them differ by up to 5 %.
    Q8: "trivial"; "i", "j" and "k", which are 1 at that unit and -1 at the two others; and
        "quaternion", left multiplication of quaternions, of dimension 4 and quaternionic type.

    Args:
        name: name of the group, see ``groups.group``.

    Returns:
        Pairs (label, orthogonal matrices [element d d]).

    Raises:
        ConfigError: if no group has this name.
    """
    return list(_irreps(name))


def characters(name: str) -> list[tuple[str, Float[np.ndarray, " element"]]]:
    """List the characters tr rho(x) of the real irreps, as pairs (label, values [element])."""
    return [(label, rho.trace(axis1=1, axis2=2)) for label, rho in _irreps(name)]


def irrep_type(rho: Matrices) -> IrrepType:
    """Type of a real irrep, from the mean of its squared character: 1, 2 or 4.

    Args:
        rho: matrices of the irrep, [element d d].
    """
    return _COMMUTANT[round(float((rho.trace(axis1=1, axis2=2) ** 2).mean()))]


class IrrepBasis(NamedTuple):
    """Orthonormal basis of the functions on a group, made of matrix elements of its real irreps.

    Attributes:
        basis: columns sqrt(d / |G|) rho_ij(x), [element mode]. An irrep whose commuting matrices
            have dimension c contributes its first d / c columns j.
        irrep: index in ``irreps`` of the irrep that each column belongs to, [mode].
    """

    basis: Float[np.ndarray, "element mode"]
    irrep: Int[np.ndarray, " mode"]


@lru_cache(maxsize=8)
def irrep_basis(name: str) -> IrrepBasis:
    """Fourier basis of a group, with as many modes as elements. For C_n: cosines and sines.

    Args:
        name: name of the group, see ``groups.group``.

    Example:
        >>> basis, irrep = irrep_basis("C5")
        >>> bool(np.allclose(basis.T @ basis, np.eye(5))), irrep.tolist()
        (True, [0, 1, 1, 2, 2])
    """
    columns: list[np.ndarray] = []
    for _, rho in _irreps(name):
        d, commuting = rho.shape[1], {kind: c for c, kind in _COMMUTANT.items()}[irrep_type(rho)]
        columns.append(np.sqrt(d / len(rho)) * rho[:, :, : d // commuting].reshape(len(rho), -1))
    widths = [block.shape[1] for block in columns]
    result = IrrepBasis(
        np.concatenate(columns, axis=1),
        np.repeat(np.arange(len(columns)), widths).astype(np.int32),
    )
    for array in result:
        array.setflags(write=False)  # the cache gives the same arrays to every caller
    return result


@lru_cache(maxsize=8)
def _irreps(name: str) -> tuple[tuple[str, Matrices], ...]:
    family, n = parse_group_name(name)
    build = {"C": _cyclic, "D": _dihedral, "S": _symmetric, "A": _alternating, "Q": _quaternion}
    labelled = build[family](n)
    for _, rho in labelled:
        rho.setflags(write=False)  # the cache gives the same arrays to every caller
    return tuple(labelled)


def _rotations(k: int, n: int) -> Matrices:
    """Rotations by 2 pi k x / n for x = 0, ..., n - 1."""
    # k x is reduced mod n first, in integers: large angles would lose digits.
    angle = 2 * np.pi * (k * np.arange(n) % n) / n
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([cos, -sin], axis=-1), np.stack([sin, cos], axis=-1)], axis=1)


def _line(values: Float[np.ndarray, " element"] | Int[np.ndarray, " element"]) -> Matrices:
    """Representation of dimension 1 with these values."""
    return np.asarray(values, float)[:, None, None]


def _cyclic(n: int) -> list[tuple[str, Matrices]]:
    rotations = [(str(k), _rotations(k, n)) for k in range(1, (n + 1) // 2)]
    labelled = [("0", _line(np.ones(n))), *rotations]
    if n % 2 == 0:
        labelled.append((str(n // 2), _line((-1.0) ** np.arange(n))))
    return labelled


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
    """List the partitions of n, in descending order.

    Args:
        n: the number.
        largest: largest part allowed; None for n.

    Example:
        >>> partitions(4)
        [(4,), (3, 1), (2, 2), (2, 1, 1), (1, 1, 1, 1)]
    """
    if n == 0:
        return [()]
    first = range(min(n, largest or n), 0, -1)
    return [(part, *rest) for part in first for rest in partitions(n - part, part)]


Tableau = tuple[int, ...]
"""A standard Young tableau, given by the row that each number is in."""


def standard_tableaux(shape: tuple[int, ...]) -> list[Tableau]:
    """List the standard tableaux of a shape: numbers increase to the right and downwards."""
    if sum(shape) == 0:
        return [()]
    tableaux: list[Tableau] = []
    for row, length in enumerate(shape):
        if length > 0 and (row + 1 == len(shape) or shape[row + 1] < length):
            smaller = (*shape[:row], length - 1, *shape[row + 1 :])
            tableaux += [(*tableau, row) for tableau in standard_tableaux(smaller)]
    return tableaux


def _cells(tableau: Tableau) -> list[tuple[int, int]]:
    """Cell (row, column) of each number of a tableau."""
    return [(row, tableau[:i].count(row)) for i, row in enumerate(tableau)]


def _exchanges(tableaux: list[Tableau]) -> list[Float[np.ndarray, "d d"]]:
    """Young's orthogonal form of the exchanges (i i+1), one matrix per i.

    The entry on a tableau is 1 / r; between a tableau and its exchange it is sqrt(1 - 1 / r^2). The
    axial distance r is the content (column - row) of i + 1 minus the content of i.
    """
    index = {tableau: j for j, tableau in enumerate(tableaux)}
    matrices: list[np.ndarray] = []
    for i in range(len(tableaux[0]) - 1):
        matrix = np.zeros((len(tableaux), len(tableaux)))
        for tableau, j in index.items():
            content = [column - row for row, column in _cells(tableau)]
            r = content[i + 1] - content[i]
            matrix[j, j] = 1 / r
            exchanged = (*tableau[:i], tableau[i + 1], tableau[i], *tableau[i + 2 :])
            # If |r| = 1, i and i + 1 share a row or a column, and no exchanged tableau exists.
            if abs(r) > 1:
                matrix[index[exchanged], j] = np.sqrt(1 - 1 / r**2)
        matrices.append(matrix)
    return matrices


def _generated(
    table: Int[np.ndarray, "element element"], generators: dict[int, Float[np.ndarray, "d d"]]
) -> Matrices:
    """Extend matrices at generators to a representation, outwards from the identity.

    It uses rho(x g) = rho(x) rho(g).
    """
    d = len(next(iter(generators.values())))
    rho, reached = np.zeros((len(table), d, d)), [0]
    rho[0], seen = np.eye(d), {0}
    for x in reached:  # the list grows during the loop
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
    labelled: list[tuple[str, Matrices]] = []
    for shape in partitions(n):
        matrices = _exchanges(standard_tableaux(shape))
        rho = _generated(table, dict(zip(exchanges, matrices, strict=True)))
        labelled.append(("+".join(map(str, shape)), rho))
    return labelled


def _alternating(n: int) -> list[tuple[str, Matrices]]:
    even = signs(permutations(n)) > 0
    symmetric = zip(partitions(n), _symmetric(n), strict=True)
    restricted = {shape: rho[even] for shape, (_, rho) in symmetric}
    labelled: list[tuple[str, Matrices]] = []
    for shape, rho in restricted.items():
        label, mirrored = "+".join(map(str, shape)), _mirrored(shape)
        if shape > mirrored:  # on even permutations, the irrep of the mirrored shape is the same
            labelled.append((label, rho))
        elif shape == mirrored:
            labelled += _halves(label, shape, rho)
    return labelled


def _mirrored(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape with rows and columns exchanged."""
    return tuple(sum(length > column for length in shape) for column in range(shape[0]))


def _halves(
    label: str, shape: tuple[int, ...], rho: Matrices
) -> list[tuple[str, Float[np.ndarray, "element half half"]]]:
    """Split the irrep of a shape that is its own mirror image on even permutations.

    The map U e_T = sign(T) e_T', with T' the mirrored tableau, turns rho into sign rho. If U^2 = 1,
    its two eigenspaces are invariant. If U^2 = -1, the representation is irreducible over the reals
    and U is its imaginary unit.
    """
    tableaux = standard_tableaux(shape)
    cells = [tuple(_cells(tableau)) for tableau in tableaux]
    order = signs(np.array([[sorted(listed).index(cell) for cell in listed] for listed in cells]))
    mirror = [cells.index(tuple((column, row) for row, column in listed)) for listed in cells]
    U = np.zeros((len(cells), len(cells)))
    U[mirror, np.arange(len(cells))] = order
    if not np.array_equal(U, U.T):
        return [(label, rho)]
    values, vectors = np.linalg.eigh(U)
    halves = [vectors[:, values * side > 0] for side in (1, -1)]
    both = [half.T @ rho @ half for half in halves]
    cycle = permutations(sum(shape), even=True).tolist().index([*range(1, sum(shape)), 0])
    # "+" is the half with the larger character at the cycle.
    both.sort(key=lambda half: -half[cycle].trace())
    return [(f"({label}){side}", half) for side, half in zip("+-", both, strict=True)]


def _quaternion(_: int) -> list[tuple[str, Matrices]]:
    units = quaternion_units()
    axis = np.abs(units).argmax(axis=1)
    lines = [("trivial", _line(np.ones(8)))]
    lines += [
        (name, _line(np.where((axis == 0) | (axis == j), 1, -1)))
        for j, name in zip((1, 2, 3), "ijk", strict=True)
    ]
    return [*lines, ("quaternion", np.stack([left_multiplication(q) for q in units]).astype(float))]
