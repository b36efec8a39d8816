"""Learning coefficients in closed form, to test estimators with.

There are two kinds. For localised quadratics and monomials, the expected estimate itself, including
the finite steps of SGLD. For deep linear networks (Aoyagi) and reduced rank regression (Aoyagi and
Watanabe 2005), the true coefficient, which an estimate at finite n_beta only approaches: a
multiplicity m lowers the estimate by about (m - 1) / ln(n_beta).
"""

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mi_jax.basics.errors import require, whole

Real = float | int


class Coefficient(NamedTuple):
    """Learning coefficient and multiplicity.

    The free energy is n L + lambda ln n - (m - 1) ln ln n.

    Attributes:
        learning_coefficient: lambda.
        multiplicity: m.
    """

    learning_coefficient: Fraction
    multiplicity: int


def quadratic(
    curvatures: Sequence[float] | Float[np.ndarray, " parameter"],
    *,
    n_beta: Real,
    gamma: Real = 0.0,
    epsilon: Real = 0.0,
    burn_in: int | None = None,
    draws: int = 1,
) -> float:
    """Expected estimate for the loss L = sum h w^2 / 2, full batch, started at w* = 0.

    With a = n_beta h + gamma and rho = 1 - epsilon a / 2, the stationary expectation is

        sum n_beta h / (2 a (1 - epsilon a / 4))

    and that of draws after a start at w* is the sum of n_beta h / 2 times the mean of

        Var_t = epsilon (1 - rho^(2t)) / (1 - rho^2)

    over t = burn_in ... burn_in + draws - 1.

    Args:
        curvatures: h of each dimension.
        n_beta: number of examples times the inverse temperature.
        gamma: strength of the localisation.
        epsilon: step size; 0: the exact posterior.
        burn_in: steps before the first draw; None: the stationary expectation.
        draws: draws that the mean is over.

    Returns:
        The expectation; infinite if epsilon a >= 4 for some h, because the chain then diverges.

    Example:
        >>> round(quadratic([1.0] * 10, n_beta=100, epsilon=1e-3), 4)
        5.1282
    """
    h = np.asarray(curvatures, np.float64)
    a = n_beta * h + gamma
    if (epsilon * a >= 4).any():
        return math.inf
    if burn_in is None or epsilon == 0:
        return float((n_beta * h / (2 * a * (1 - epsilon * a / 4))).sum())
    rho_squared, t = (1 - epsilon * a / 2) ** 2, np.arange(burn_in, burn_in + draws)
    moved = 1 - rho_squared[:, None] ** t[None]
    variance = (epsilon * moved / (1 - rho_squared)[:, None]).mean(axis=1)
    return float((n_beta * h * variance).sum() / 2)


def monomial(power: int, *, scale: Real = 1.0, n_beta: Real, gamma: Real = 0.0) -> float:
    """E[n_beta K] for K = scale w^power under exp(-n_beta K - gamma w^2 / 2). It is 1 / power
    without localisation.

    Args:
        power: positive even exponent.
        scale: factor of K.
        n_beta: number of examples times the inverse temperature.
        gamma: strength of the localisation.

    Raises:
        ConfigError: if the power is not positive and even.

    Example:
        >>> monomial(4, n_beta=100.0)
        0.25
    """
    require(power > 0 and power % 2 == 0, f"power={power}: must be a positive even number.")
    if gamma == 0:
        return 1 / power
    from scipy.integrate import quad  # here: the import takes 0.3 s, and few commands need it

    # Integrate in units of the narrower of the two widths: beyond 40 widths nothing is left.
    width = min((n_beta * scale) ** (-1 / power), gamma**-0.5)

    def moment(order: int) -> float:
        def integrand(x: float) -> float:
            energy = n_beta * scale * (width * x) ** power
            return energy**order * math.exp(-energy - gamma * (width * x) ** 2 / 2)

        return quad(integrand, 0, 40, limit=200, epsabs=0, epsrel=1e-10)[0]

    return moment(1) / moment(0)


def normal_crossing(powers: Sequence[int]) -> Coefficient:
    """Coefficient of K = prod w_i^(2 k_i): lambda = min_i 1 / (2 k_i), and m is the number of
    dimensions that attain the minimum.

    Args:
        powers: k_i of each dimension, 0 or more, at least one positive.

    Raises:
        ConfigError: if a power is negative or none is positive.

    Example:
        >>> normal_crossing([1, 1])
        Coefficient(learning_coefficient=Fraction(1, 2), multiplicity=2)
    """
    require(
        len(powers) > 0 and min(powers) >= 0 and max(powers) > 0,
        f"powers={list(powers)}: some must be positive, and none negative.",
    )
    most = max(powers)
    return Coefficient(Fraction(1, 2 * most), sum(k == most for k in powers))


def deep_linear(widths: Sequence[int], rank: int) -> Coefficient:
    """Global coefficient of a deep linear network whose true product has a given rank (Aoyagi
    2024).

    With M_i = H_i - r, there is exactly one set Sigma of l + 1 layers with max_Sigma M < min_other
    M, S = sum_Sigma M >= l max_Sigma M, and S < l min_other M (if there are other layers). With
    a = S - (ceil(S / l) - 1) l,

        lambda = (r (H_0 + H_L) - r^2) / 2 + a (l - a) / (4 l) - l (l - 1) / 4 (S / l)^2
                 + sum_{i<j in Sigma} M_i M_j / 2
        m = a (l - a) + 1

    The global value is the smallest over all factorisations of the truth. It is attained if
    every factor has rank r.

    Args:
        widths: H_0 (inputs) to H_L (outputs).
        rank: rank r of the product.

    Raises:
        ConfigError: if there are fewer than two widths, or no product of that rank.

    Example:
        >>> deep_linear((4, 4, 4, 4), 2)
        Coefficient(learning_coefficient=Fraction(15, 2), multiplicity=3)
    """
    widths, rank = [whole("widths", width) for width in widths], whole("rank", rank)
    require(
        len(widths) >= 2 and min(widths) >= 1,
        f"widths={widths}: must hold at least inputs and outputs, each at least 1.",
    )
    require(
        0 <= rank <= min(widths),
        f"rank={rank} must lie between 0 and {min(widths)}, the smallest of widths={widths}.",
    )
    chosen = _layers(sorted(width - rank for width in widths))
    length, total = len(chosen) - 1, sum(chosen)
    a = total - (-(-total // length) - 1) * length
    pairs = sum(x * y for x, y in itertools.combinations(chosen, 2))
    value = Fraction(rank * (widths[0] + widths[-1]) - rank**2, 2)
    value += Fraction(a * (length - a), 4 * length)
    value += Fraction(pairs, 2) - Fraction((length - 1) * total**2, 4 * length)
    return Coefficient(value, a * (length - a) + 1)


def _layers(excess: list[int]) -> list[int]:
    """M of the layers in Sigma: the shortest sorted prefix that meets the conditions."""
    for length in range(1, len(excess)):
        inside, outside = excess[: length + 1], excess[length + 1 :]
        total = sum(inside)
        if total < length * inside[-1]:
            continue
        if not outside or (inside[-1] < outside[0] and total < length * outside[0]):
            return inside
    # The conditions always have one solution.
    raise AssertionError(f"no set of layers for {excess}")


def reduced_rank(m: int, n: int, h: int, r: int) -> Coefficient:
    """Global coefficient of reduced rank regression y = B A x (Aoyagi and Watanabe 2005).

    Args:
        m: number of inputs.
        n: number of outputs.
        h: number of hidden units.
        r: rank of the true product.

    Raises:
        ConfigError: if a size is below 1, or there is no product of that rank.

    Example:
        >>> reduced_rank(2, 2, 2, 1)
        Coefficient(learning_coefficient=Fraction(2, 1), multiplicity=2)
    """
    m, n, h, r = (whole(name, value) for name, value in (("m", m), ("n", n), ("h", h), ("r", r)))
    require(min(m, n, h) >= 1, f"m={m}, n={n}, h={h}: each must be at least 1.")
    require(
        0 <= r <= min(m, n, h),
        f"r={r} must lie between 0 and {min(m, n, h)}, the smallest of m={m}, n={n}, h={h}.",
    )
    if m + h < n + r:
        return Coefficient(Fraction(h * m - h * r + n * r, 2), 1)
    if n + h < m + r:
        return Coefficient(Fraction(h * n - h * r + m * r, 2), 1)
    if m + n < h + r:
        return Coefficient(Fraction(m * n, 2), 1)
    odd = (m + n + h + r) % 2
    bracket = -((h + r) ** 2) - m**2 - n**2 + 2 * (h + r) * (m + n) + 2 * m * n + odd
    return Coefficient(Fraction(bracket, 8), 1 + odd)


def reduced_rank_at(m: int, n: int, h: int, rank_a: int, rank_b: int, r: int) -> Coefficient:
    """Local coefficient of reduced rank regression y = B A x at factors of given ranks.

    With a, b the ranks of A [h m] and B [n h], and

        q = n a + m b - a b,  p = n - b,  o = m - a,  k = h - a - b + r
        c_t = k o + t (p - k - o) + t^2

    the coefficient is lambda = (q + min c_t) / 2 over 0 <= t <= min(k, o), and its multiplicity is
    the number of t that attain the minimum. The formula (2026) is not published. Its smallest value
    is at a = b = r, and equals that of ``reduced_rank`` for all sizes up to 6.

    Args:
        m: number of inputs.
        n: number of outputs.
        h: number of hidden units.
        rank_a: rank of A.
        rank_b: rank of B.
        r: rank of the product B A.

    Raises:
        ConfigError: if no factors of these ranks have a product of rank r.

    Example:
        >>> [reduced_rank_at(2, 2, 2, a, 0, 0).learning_coefficient for a in (0, 2)]
        [Fraction(3, 2), Fraction(2, 1)]
    """
    p, o, k = n - rank_b, m - rank_a, h - rank_a - rank_b + r
    require(
        r <= min(rank_a, rank_b) and rank_a <= min(m, h) and rank_b <= min(n, h) and k >= 0,
        f"rank_a={rank_a}, rank_b={rank_b}, r={r} are impossible for m={m}, n={n}, h={h}. rank_a"
        f" must be at most {min(m, h)}, rank_b at most {min(n, h)}, and r must lie between"
        f" max(0, rank_a + rank_b - h) and min(rank_a, rank_b).",
    )
    values = [k * o + t * (p - k - o) + t**2 for t in range(min(k, o) + 1)]
    fixed = n * rank_a + m * rank_b - rank_a * rank_b
    return Coefficient(Fraction(fixed + min(values), 2), values.count(min(values)))
