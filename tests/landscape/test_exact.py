"""Learning coefficients in closed form, against published tables, each other, quadrature and a
simulated recursion.
"""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from unchecked import unchecked

from mi_jax.basics.errors import ConfigError
from mi_jax.landscape import exact

_SIZES = [
    (m, n, h, r)
    for m, n, h in itertools.product(range(1, 7), repeat=3)
    for r in range(min(m, n, h) + 1)
]


@pytest.mark.parametrize(
    ("widths", "rank", "value", "multiplicity"),
    [
        ((1, 1, 1, 1), 0, "1/2", 3),
        ((4, 4, 4, 4), 2, "15/2", 3),
        ((5, 4, 3, 4, 5), 2, "9", 2),
        ((3, 2), 0, "3", 1),
    ],
)
def test_deep_linear_networks_have_aoyagis_coefficients(
    widths: tuple[int, ...], rank: int, value: str, multiplicity: int
) -> None:
    assert exact.deep_linear(widths, rank) == (Fraction(value), multiplicity)


@pytest.mark.parametrize(
    ("sizes", "value", "multiplicity"),
    [((2, 2, 2, 0), "3/2", 1), ((2, 2, 2, 1), "2", 2), ((4, 8, 3, 0), "6", 1)],
)
def test_reduced_rank_regression_has_the_published_coefficients(
    sizes: tuple[int, int, int, int], value: str, multiplicity: int
) -> None:
    assert exact.reduced_rank(*sizes) == (Fraction(value), multiplicity)


def test_both_formulas_agree_on_every_network_of_two_layers_up_to_six_wide() -> None:
    assert len(_SIZES) == 657
    for m, n, h, r in _SIZES:
        assert exact.deep_linear((m, h, n), r) == exact.reduced_rank(m, n, h, r), (m, n, h, r)


def test_the_local_coefficient_is_smallest_and_global_at_factors_of_the_true_rank() -> None:
    for m, n, h, r in _SIZES:
        ranks = itertools.product(range(r, min(m, h) + 1), range(r, min(n, h) + 1))
        local = {
            (a, b): exact.reduced_rank_at(m, n, h, a, b, r) for a, b in ranks if a + b <= h + r
        }
        assert (
            min(coefficient.learning_coefficient for coefficient in local.values())
            == exact.reduced_rank(m, n, h, r).learning_coefficient
        )
        assert local[r, r] == exact.reduced_rank(m, n, h, r)


def test_a_point_elsewhere_on_the_fibre_has_a_larger_coefficient() -> None:
    assert [
        exact.reduced_rank_at(3, 3, 3, *ranks, 1).learning_coefficient for ranks in ((2, 2), (1, 3))
    ] == [4, Fraction(9, 2)]


def test_the_order_of_hidden_layers_and_the_direction_of_the_network_do_not_matter() -> None:
    assert (
        exact.deep_linear((5, 2, 7, 4), 1)
        == exact.deep_linear((4, 7, 2, 5), 1)
        == exact.deep_linear((5, 7, 2, 4), 1)
    )


@pytest.mark.parametrize(
    ("gamma", "value"), [(0.0, 0.25), (1.0, 0.2465), (10.0, 0.2177), (100.0, 0.0745)]
)
def test_localised_monomials_have_the_tabulated_values(gamma: float, value: float) -> None:
    assert exact.monomial(4, scale=4.0, n_beta=1000 / math.log(1000), gamma=gamma) == pytest.approx(
        value, abs=6e-5
    )


def test_a_localised_square_is_the_localised_quadratic() -> None:
    """K = w^2 has the curvature 2."""
    for gamma in (0.0, 0.5, 30.0):
        assert exact.monomial(2, n_beta=50.0, gamma=gamma) == pytest.approx(
            exact.quadratic([2.0], n_beta=50.0, gamma=gamma)
        )


def test_the_quadratic_is_the_mean_of_the_samplers_own_recursion() -> None:
    """Var <- rho^2 Var + epsilon from 0, summed by hand, for other numbers than those tabulated."""
    h, n_beta, gamma, epsilon, burn_in, draws = np.array([0.3, 2.0]), 40.0, 3.0, 0.01, 7, 25
    variances, variance = [], np.zeros(2)
    for _ in range(burn_in + draws):
        variances.append(variance)
        variance = (1 - epsilon * (n_beta * h + gamma) / 2) ** 2 * variance + epsilon
    expected = (n_beta * h / 2 * np.mean(variances[burn_in:], axis=0)).sum()
    options = {"n_beta": n_beta, "gamma": gamma, "epsilon": epsilon}
    assert exact.quadratic(h, **options, burn_in=burn_in, draws=draws) == pytest.approx(
        expected, rel=1e-12
    )
    assert exact.quadratic(h, **options, burn_in=10**5, draws=1) == pytest.approx(
        exact.quadratic(h, **options), rel=1e-12
    )


def test_tabulated_quadratics() -> None:
    assert exact.quadratic(
        [1.0] * 10, n_beta=100, epsilon=1e-3, burn_in=500, draws=1000
    ) == pytest.approx(5.1282, abs=1e-4)
    far = exact.quadratic([1.0] * 10, n_beta=100, gamma=1.0, epsilon=1e-2, burn_in=100, draws=1000)
    assert far == pytest.approx(6.6227, abs=1e-4)
    assert exact.quadratic([1.0], n_beta=100, epsilon=0.04) == math.inf


def test_invalid_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match="rank=3 must lie between 0 and 2"):
        exact.deep_linear((4, 2, 4), 3)
    with pytest.raises(ConfigError, match="r=5 must lie between 0 and 3"):
        exact.reduced_rank(8, 8, 3, 5)
    with pytest.raises(ConfigError, match="rank_a=2, rank_b=2, r="):
        exact.reduced_rank_at(2, 2, 2, 2, 2, 0)
    with unchecked(), pytest.raises(ConfigError, match=r"widths=4\.0: must be a whole number"):
        exact.deep_linear((4.0, 2.0), 1)  # pyright: ignore[reportArgumentType]
    with unchecked(), pytest.raises(ConfigError, match=r"m=2\.5: must be a whole number"):
        exact.reduced_rank(2.5, 2, 2, 1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="power=3"):
        exact.monomial(3, n_beta=1.0)
