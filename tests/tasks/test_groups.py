"""Groups against sympy and tuples, irreps against theory, characters by Murnaghan and Nakayama."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sympy import Quaternion
from sympy.combinatorics import Permutation
from sympy.combinatorics.named_groups import (
    AlternatingGroup,
    CyclicGroup,
    DihedralGroup,
    SymmetricGroup,
)

from mi_jax.basics.errors import ConfigError
from mi_jax.basics.fourier import fourier_basis
from mi_jax.tasks import characters, conjugacy_classes, group, irrep_basis, irrep_type, irreps
from mi_jax.tasks.representations import partitions

_NAMES = ("C2", "C7", "C8", "D3", "D4", "D5", "D6", "D59", "S3", "S4", "S5", "S6", "A4", "A5", "Q8")
_SYMPY: dict[str, Callable[[int], Any]] = {
    "C": CyclicGroup,
    "D": DihedralGroup,
    "S": SymmetricGroup,
    "A": AlternatingGroup,
}
_COMMUTANT = {"real": 1, "complex": 2, "quaternionic": 4}
_SQUARES = {"real": 1, "complex": 0, "quaternionic": -2}
"""Mean of chi(x^2) by type (Frobenius and Schur). A real irrep that is the sum of two complex
irreps has twice their mean.
"""


@pytest.mark.parametrize("name", _NAMES)
def test_a_table_is_a_groups(name: str) -> None:
    elements, table, inverse = group(name)
    n = len(elements)
    assert len(set(elements)) == n
    assert table.shape == (n, n)
    np.testing.assert_array_equal(table[0], np.arange(n))
    np.testing.assert_array_equal(table[:, 0], np.arange(n))
    np.testing.assert_array_equal(np.sort(table, axis=0), np.tile(np.arange(n)[:, None], (1, n)))
    np.testing.assert_array_equal(table[np.arange(n), inverse], 0)
    np.testing.assert_array_equal(table[inverse, np.arange(n)], 0)
    some = np.random.default_rng(0).integers(n, size=40)
    np.testing.assert_array_equal(
        table[table[:, some], :][:, :, some], table[:, table[np.ix_(some, some)]]
    )


@pytest.mark.parametrize("name", ["S3", "S4", "S6", "A4", "A5"])
def test_permutations_are_lexicographic_and_multiply_as_sympys_do(name: str) -> None:
    elements, table, _ = group(name)
    n = int(name[1])
    ours = [Permutation(list(element)) for element in elements]  # pyright: ignore[reportArgumentType]
    assert list(elements) == [
        images
        for images in itertools.permutations(range(n))
        if name[0] == "S" or Permutation(list(images)).is_even
    ]
    assert len(elements) == _SYMPY[name[0]](n).order()
    rng = np.random.default_rng(1)
    for x, y in rng.integers(len(elements), size=(400, 2)):
        first_x_then_y = ours[x] * ours[y]
        assert elements[table[x, y]] == tuple(first_x_then_y.array_form)
        assert first_x_then_y(1) == ours[y](ours[x](1))


@pytest.mark.parametrize("n", [3, 4, 7])
def test_dihedral_elements_are_rotations_then_reflections(n: int) -> None:
    elements, table, _ = group(f"D{n}")
    assert elements == (*((k, 0) for k in range(n)), *((k, 1) for k in range(n)))
    r, s = Permutation([(i + 1) % n for i in range(n)]), Permutation([-i % n for i in range(n)])
    ours = [r**k * s**a for k, a in elements]  # pyright: ignore[reportGeneralTypeIssues]
    assert all(ours[table[x, y]] == ours[x] * ours[y] for x in range(2 * n) for y in range(2 * n))


def test_cyclic_elements_are_residues() -> None:
    elements, table, inverse = group("C113")
    assert elements == tuple(range(113))
    np.testing.assert_array_equal(table, np.add.outer(np.arange(113), np.arange(113)) % 113)
    np.testing.assert_array_equal(inverse, -np.arange(113) % 113)


def test_quaternion_units_multiply_as_sympys_do() -> None:
    elements, table, _ = group("Q8")
    assert elements == ("1", "-1", "i", "-i", "j", "-j", "k", "-k")
    parts = [
        [sign * int(part == axis) for part in range(4)] for axis in range(4) for sign in (1, -1)
    ]
    units = [Quaternion(w, x, y, z) for w, x, y, z in parts]
    assert all(units[table[x, y]] == units[x] * units[y] for x in range(8) for y in range(8))


@pytest.mark.parametrize("name", ["C7", "D4", "D7", "S4", "S5", "A4", "A5"])
def test_conjugacy_classes_are_as_many_and_as_large_as_sympys(name: str) -> None:
    theirs = [len(members) for members in _SYMPY[name[0]](int(name[1:])).conjugacy_classes()]
    assert sorted(np.bincount(conjugacy_classes(name)).tolist()) == sorted(theirs)


@pytest.mark.parametrize("name", _NAMES)
def test_irreps_are_homomorphisms_by_orthogonal_matrices(name: str) -> None:
    elements, table, _ = group(name)
    # Of S6 the exchange (0 1) and the cycle i -> i + 1 on the right of every element: they generate
    # the others.
    right = (
        [elements.index((1, 0, 2, 3, 4, 5)), elements.index((1, 2, 3, 4, 5, 0))]
        if name == "S6"
        else range(len(table))
    )
    for label, rho in irreps(name):
        assert np.abs(rho @ rho.transpose(0, 2, 1) - np.eye(rho.shape[1])).max() < 1e-12, label
        assert max(np.abs(rho[table[:, y]] - rho @ rho[y]).max() for y in right) < 1e-12, label


def _commuting(rho: np.ndarray) -> np.ndarray:
    """Orthonormal basis [c d d] of the matrices that commute with a representation.

    They are those that commute with some random elements, which generate the group.
    """
    d, eye = rho.shape[1], np.eye(rho.shape[1])
    some = rho[np.random.default_rng(2).integers(len(rho), size=8)]
    commutators = [np.kron(matrix, eye) - np.kron(eye, matrix.T) for matrix in some]
    values, vectors = np.linalg.eigh(sum(map_.T @ map_ for map_ in commutators))
    return vectors[:, values < 1e-9].T.reshape(-1, d, d)


@pytest.mark.parametrize("name", [name for name in _NAMES if name != "D59"])
def test_matrix_elements_are_orthogonal_but_for_what_commutes(name: str) -> None:
    """With an orthonormal basis X_a of the commutant, mean_x rho_ij rho_kl = sum_a X_a,ik X_a,jl.

    For matrix elements of two different irreps, the mean is 0.
    """
    all_irreps = irreps(name)
    flat = np.concatenate([rho.reshape(len(rho), -1) for _, rho in all_irreps], axis=1)
    gram, first = flat.T @ flat / len(flat), 0
    for label, rho in all_irreps:
        d = rho.shape[1]
        block = slice(first, first + d * d)
        X = _commuting(rho)
        assert len(X) == _COMMUTANT[irrep_type(rho)], label
        expected = np.einsum("aik,ajl->ijkl", X, X).reshape(d * d, d * d)
        np.testing.assert_allclose(gram[block, block], expected, atol=1e-12, err_msg=label)
        gram[block, block] = 0
        first += d * d
    np.testing.assert_allclose(gram, 0, atol=1e-12)


@pytest.mark.parametrize("name", _NAMES)
def test_irreps_are_all_there_are(name: str) -> None:
    listed, classes, (_, table, inverse) = irreps(name), conjugacy_classes(name), group(name)
    n = len(table)
    assert sum(rho.shape[1] ** 2 / _COMMUTANT[irrep_type(rho)] for _, rho in listed) == n
    # There are as many real irreps as classes, with the classes of x and x^-1 counted as one.
    assert len(listed) == len({frozenset((classes[x], classes[inverse[x]])) for x in range(n)})
    assert len({label for label, _ in listed}) == len(listed)
    np.testing.assert_array_equal(listed[0][1], 1)
    squares = table[np.arange(n), np.arange(n)]
    for (label, chi), (_, rho) in zip(characters(name), listed, strict=True):
        np.testing.assert_allclose(
            chi[squares].mean(), _SQUARES[irrep_type(rho)], atol=1e-12, err_msg=label
        )
        for number in range(classes.max() + 1):
            np.testing.assert_allclose(
                chi[classes == number], chi[classes == number][0], atol=1e-12
            )


def _murnaghan_nakayama(shape: tuple[int, ...], cycles: tuple[int, ...]) -> int:
    """Character of a partition at a cycle type: rim hooks leave the first-column hook lengths."""

    def value(beta: frozenset[int], rest: tuple[int, ...]) -> int:
        if not rest:
            return 1
        total = 0
        for b in beta:
            less = b - rest[0]
            if less >= 0 and less not in beta:
                total += (-1) ** sum(less < other < b for other in beta) * value(
                    beta - {b} | {less}, rest[1:]
                )
        return total

    return value(frozenset(part + len(shape) - 1 - i for i, part in enumerate(shape)), cycles)


@pytest.mark.parametrize("n", [3, 4, 5, 6])
def test_symmetric_characters_are_those_of_murnaghan_and_nakayama(n: int) -> None:
    elements = group(f"S{n}").elements
    types = [Permutation(list(element)).cycle_structure for element in elements]  # pyright: ignore[reportArgumentType]
    cycles = [
        tuple(length for length, count in type_.items() for _ in range(count)) for type_ in types
    ]
    assert [label for label, _ in characters(f"S{n}")] == [
        "+".join(map(str, shape)) for shape in partitions(n)
    ]
    for (_, chi), shape in zip(characters(f"S{n}"), partitions(n), strict=True):
        values = {cycle: _murnaghan_nakayama(shape, cycle) for cycle in set(cycles)}
        np.testing.assert_allclose(chi, [values[cycle] for cycle in cycles], atol=1e-12)


def test_labels_say_what_they_are_of() -> None:
    assert [(label, rho.shape[1]) for label, rho in irreps("S5")] == [
        *(
            ("5", 1),
            ("4+1", 4),
            ("3+2", 5),
            ("3+1+1", 6),
            ("2+2+1", 5),
            ("2+1+1+1", 4),
            ("1+1+1+1+1", 1),
        )
    ]
    assert [(label, rho.shape[1]) for label, rho in irreps("A4")] == [
        ("4", 1),
        ("3+1", 3),
        ("2+2", 2),
    ]
    assert [label for label, _ in irreps("D6")] == [
        "trivial",
        "sign",
        "alternating",
        "alternating sign",
        "1",
        "2",
    ]
    assert {label: irrep_type(rho) for label, rho in irreps("C8")} == {
        "0": "real",
        **dict.fromkeys("123", "complex"),
        "4": "real",
    }
    angle = 2 * np.pi * 3 * 5 / 7
    expected = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    np.testing.assert_allclose(dict(irreps("C7"))["3"][5], expected, atol=1e-12)
    assert irrep_type(dict(irreps("A4"))["2+2"]) == "complex"
    assert irrep_type(dict(irreps("Q8"))["quaternion"]) == "quaternionic"


def test_the_standard_representation_permutes_points() -> None:
    elements = np.array(group("S5").elements)
    np.testing.assert_allclose(
        dict(characters("S5"))["4+1"], (elements == np.arange(5)).sum(axis=1) - 1, atol=1e-12
    )


def test_the_two_halves_of_a5_differ_by_the_golden_ratio_at_five_cycles() -> None:
    elements, table, _ = group("A5")
    cycle = elements.index((1, 2, 3, 4, 0))
    chi, golden = dict(characters("A5")), (1 + np.sqrt(5)) / 2
    for sign, at, at_square in (("+", golden, 1 - golden), ("-", 1 - golden, golden)):
        values = chi[f"(3+1+1){sign}"]
        np.testing.assert_allclose(
            [values[0], values[cycle], values[table[cycle, cycle]]], [3, at, at_square], atol=1e-12
        )


@pytest.mark.parametrize("name", _NAMES)
def test_the_basis_is_orthonormal_and_its_shares_are_by_irrep(name: str) -> None:
    basis, irrep = irrep_basis(name)
    np.testing.assert_allclose(basis.T @ basis, np.eye(len(basis)), atol=1e-12)
    for index, (_, rho) in enumerate(irreps(name)):
        inside = basis[:, irrep == index]
        elements = rho.reshape(len(rho), -1)
        np.testing.assert_allclose(inside @ (inside.T @ elements), elements, atol=1e-12)
        # The projector on an irrep is d / (c |G|) chi(x^-1 y).
        _, table, inverse = group(name)
        chi = rho.trace(axis1=1, axis2=2)[table[inverse]]
        scale = rho.shape[1] / _COMMUTANT[irrep_type(rho)] / len(rho)
        np.testing.assert_allclose(inside @ inside.T, scale * chi, atol=1e-12)


@pytest.mark.parametrize("n", [7, 8, 113])
def test_the_basis_of_a_cyclic_group_is_the_fourier_basis(n: int) -> None:
    np.testing.assert_allclose(irrep_basis(f"C{n}").basis.T, fourier_basis(n), atol=1e-6)


def test_cached_arrays_are_read_only() -> None:
    for array in (
        group("S3").table,
        group("S3").inverse,
        irreps("S3")[1][1],
        irrep_basis("S3").basis,
    ):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    irreps("S3").clear()
    assert len(irreps("S3")) == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("S7", r"group='S7' is unknown; did you mean S3, S4, S5, S6\?"),
        ("Q16", "group='Q16' is unknown"),
        ("Z5", "Groups are spelled C2, C3"),
        ("C1", "group='C1' is unknown"),
        ("D2", "group='D2' is unknown"),
        ("C007", "group='C007' is unknown"),
        ("", "group='' is unknown"),
        ("s5", "did you mean S3, S4, S5, S6"),
    ],
)
def test_an_unknown_group_is_refused_with_the_known_ones(name: str, message: str) -> None:
    for ask in (group, irreps, characters):
        with pytest.raises(ConfigError, match=message):
            ask(name)
