"""Functions of signs in the basis of parities, and the Fourier gap (arXiv 2207.08799).

The parity of a set T is chi_T(x) = prod_{i in T} x_i, for x in {-1, +1}^n. The coefficient of a
function f is f^(T) = E[f chi_T], where all 2^n inputs are equally likely. The Fourier gap is the
margin by which the first gradient of a network tells the relevant coordinates S from the others.
"""

from collections.abc import Iterable
from math import comb

import numpy as np
from jaxtyping import Float

from mi_jax.basics.errors import ConfigError


def cube(n: int) -> Float[np.ndarray, "input feature"]:
    """All 2^n inputs, [2^n n]: coordinate i of row r is -1 where bit i of r is set."""
    return 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)


def parity_coefficients(values: Float[np.ndarray, " input"]) -> Float[np.ndarray, " subset"]:
    """Coefficients f^(T) of a function for every set T, in n 2^n additions.

    Args:
        values: f on the rows of ``cube(n)``, [2^n].

    Returns:
        The coefficients, [2^n]. Entry t belongs to the set of bits of t.

    Raises:
        ConfigError: if the number of values is not a power of 2.
    """
    values = np.asarray(values, np.float64)
    n = values.size.bit_length() - 1
    if values.shape != (2**n,):
        raise ConfigError(
            f"values has the shape {values.shape}. It must be [2^n], one value for each input."
        )
    for i in range(n):
        pairs = values.reshape(-1, 2, 2**i)
        values = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1)
    return values.ravel() / 2**n


def fourier_gap(values: Float[np.ndarray, " input"], subset: Iterable[int]) -> float:
    """Fourier gap min_{i in S} |f^(S - i)| - max_{j not in S} |f^(S + j)|.

    It is positive where a gradient tells which coordinates matter.

    Args:
        values: f on the rows of ``cube(n)``, [2^n].
        subset: the coordinates S, some of 0 to n - 1 but not all.

    Raises:
        ConfigError: if S is empty, holds all coordinates, or holds anything else.
    """
    chosen, coefficients = set(subset), np.abs(parity_coefficients(values))
    n = coefficients.size.bit_length() - 1
    if not (0 < len(chosen) < n and chosen <= set(range(n))):
        raise ConfigError(
            f"S={sorted(chosen)}: must hold some, and not all, of the coordinates 0 to {n - 1}."
        )
    whole = sum(1 << i for i in chosen)
    inside = [coefficients[whole ^ (1 << i)] for i in chosen]
    outside = [coefficients[whole ^ (1 << j)] for j in range(n) if j not in chosen]
    return float(min(inside) - max(outside))


def majority_coefficient(n: int, m: int) -> float:
    """Coefficient xi_m = Maj^(T) of the majority of n signs, n odd, at any set T of size m.

    xi_m = (-1)^((m-1)/2) C((n-1)/2, (m-1)/2) / C(n-1, m-1) 2^(1-n) C(n-1, (n-1)/2) for odd m;
    xi_m = 0 for even m.

    Args:
        n: number of signs, odd.
        m: size of the set, 0 to n.

    Raises:
        ConfigError: if n is even, or m lies outside 0 to n.

    Example:
        >>> [round(majority_coefficient(9, m), 4) for m in (1, 3, 5)]
        [0.2734, -0.0391, 0.0234]
    """
    if n < 1 or n % 2 == 0:
        raise ConfigError(f"n={n}: must be odd, for signs to have a majority.")
    if not 0 <= m <= n:
        raise ConfigError(f"m={m}: must lie between 0 and {n}, the number of signs.")
    if m % 2 == 0:
        return 0.0
    half, j = (n - 1) // 2, (m - 1) // 2
    # Integers up to the last division, since the binomials overflow a float from n = 1030 on.
    return (-1) ** j * (comb(half, j) * comb(n - 1, half) / (comb(n - 1, m - 1) << (n - 1)))


def majority_gap(n: int, k: int) -> float:
    """Fourier gap |xi_{k-1}| - |xi_{k+1}| of the majority of n signs, at any S of even size k < n.

    It is at least 0.03 (n - 1)^(-(k-1)/2) for n >= 2 (k + 1)^2 (arXiv 2207.08799), and negative
    if k is more than half of n.

    Args:
        n: number of signs, odd.
        k: size of S, even, 2 to n - 1.

    Raises:
        ConfigError: if n is even, or k is odd or out of range.

    Example:
        >>> round(majority_gap(51, 2), 6), round(majority_gap(51, 4), 6)
        (0.109984, 0.002145)
    """
    if k % 2 or not 0 < k < n:
        raise ConfigError(
            f"k={k}: must be even and lie between 2 and {n - 1}. At odd k the gap is 0."
        )
    return abs(majority_coefficient(n, k - 1)) - abs(majority_coefficient(n, k + 1))


def sign_neuron_gradient(
    weights: Float[np.ndarray, " feature"], subset: Iterable[int]
) -> Float[np.ndarray, " feature"]:
    """Population gradient of a ReLU neuron with sign weights w under a correlation loss.

    The loss is -E[chi_S(x) relu(w.x)]. With k = |S| >= 2 and n odd, the gradient is
    -1/2 xi_{k-1} chi_{S-i}(w) at i in S, and -1/2 xi_{k+1} chi_{S+j}(w) at j not in S. The first
    step of gradient descent sees it, times the neuron's output weight.

    Args:
        weights: the signs w, [feature]; their number n is odd.
        subset: the coordinates S, at least 2 of 0 to n - 1.

    Returns:
        The gradient, [feature].

    Raises:
        ConfigError: if a weight is not -1 or 1, n is even, or S is invalid.
    """
    w, chosen = np.asarray(weights, np.float64), set(subset)
    n, k = w.size, len(chosen)
    if not (np.abs(w) == 1).all():
        i = int((np.abs(w) != 1).argmax())
        raise ConfigError(f"weights must all be -1 or 1; entry {i} is {w.flat[i]:g}.")
    if k < 2 or not chosen <= set(range(n)):
        raise ConfigError(
            f"S={sorted(chosen)}: must hold at least 2 of the coordinates 0 to {n - 1}."
        )
    inside = np.isin(np.arange(n), list(chosen))
    # chi_{S-i}(w) and chi_{S+j}(w) are both chi_S(w) times the weight, since w_i^2 = 1.
    parities = w[inside].prod() * w
    outer = majority_coefficient(n, k + 1) if k < n else 0.0
    return -0.5 * np.where(inside, majority_coefficient(n, k - 1), outer) * parities
