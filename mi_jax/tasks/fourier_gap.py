"""Functions of signs in the basis of parities, and the gap by which a gradient at a network of
signs tells S (arXiv 2207.08799).

chi_T(x) = prod_{i in T} x_i over x in {-1, +1}^n; f^(T) = E[f chi_T] over all x, all 2^n equally
likely.
"""

from collections.abc import Iterable
from math import comb

import numpy as np
from jaxtyping import Float

from mi_jax.basics.errors import require


def cube(n: int) -> Float[np.ndarray, "input feature"]:
    """All 2^n inputs: coordinate i of row r is -1 where bit i of r is set."""
    return 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)


def parity_coefficients(values: Float[np.ndarray, " input"]) -> Float[np.ndarray, " subset"]:
    """f^(T) for every T, from f on the rows of ``cube(n)``: T is the set of bits of the index. n
    2^n adds.
    """
    values = np.asarray(values, np.float64)
    n = values.size.bit_length() - 1
    require(
        values.shape == (2**n,),
        f"values has the shape {values.shape}; one for each of the 2^n inputs is needed",
    )
    for i in range(n):
        pairs = values.reshape(-1, 2, 2**i)
        values = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1)
    return values.ravel() / 2**n


def fourier_gap(values: Float[np.ndarray, " input"], subset: Iterable[int]) -> float:
    """min_{i in S} |f^(S - i)| - max_{j not in S} |f^(S + j)|: positive where a gradient tells
    which coordinates matter.

    Args:
        values: f on the rows of ``cube(n)``. subset: S, not empty and not all coordinates.

    Raises:
        ConfigError: where S doesn't fit.
    """
    chosen, coefficients = set(subset), np.abs(parity_coefficients(values))
    n = coefficients.size.bit_length() - 1
    require(
        0 < len(chosen) < n and chosen <= set(range(n)),
        f"S={sorted(chosen)}: must hold some, and not all, of the coordinates 0 to {n - 1}",
    )
    whole = sum(1 << i for i in chosen)
    inside = [coefficients[whole ^ (1 << i)] for i in chosen]
    outside = [coefficients[whole ^ (1 << j)] for j in range(n) if j not in chosen]
    return float(min(inside) - max(outside))


def majority_coefficient(n: int, m: int) -> float:
    """xi_m = Maj^(T) for |T| = m: the majority of n signs, n odd; 0 for even m.

    xi_m = (-1)^((m-1)/2) C((n-1)/2, (m-1)/2) / C(n-1, m-1) 2^(1-n) C(n-1, (n-1)/2) for odd m.

    Raises:
        ConfigError: for an even n, or an m outside 0 to n.

    Example:
        >>> [round(majority_coefficient(9, m), 4) for m in (1, 3, 5)]
        [0.2734, -0.0391, 0.0234]
    """
    require(n >= 1 and n % 2 == 1, f"n={n}: a majority needs an odd number of signs")
    require(0 <= m <= n, f"m={m}: a set of the {n} signs has 0 to {n} of them")
    if m % 2 == 0:
        return 0.0
    half, j = (n - 1) // 2, (m - 1) // 2
    # Whole numbers up to the last division: the binomials leave a float's range from n = 1030 on.
    return (-1) ** j * (comb(half, j) * comb(n - 1, half) / (comb(n - 1, m - 1) << (n - 1)))


def majority_gap(n: int, k: int) -> float:
    """|xi_{k-1}| - |xi_{k+1}|: the Fourier gap of the majority of n signs, n odd, at any S of even
    size k < n.

    At least .03 (n - 1)^(-(k-1)/2) for n >= 2 (k + 1)^2 (arXiv 2207.08799); negative where k is
    more than half of n.

    Raises:
        ConfigError: for an even n or odd k.

    Example:
        >>> round(majority_gap(51, 2), 6), round(majority_gap(51, 4), 6)
        (0.109984, 0.002145)
    """
    require(
        k % 2 == 0 and 0 < k < n,
        f"k={k}: the gap of a majority is that of an even k from 2 to {n - 1}; at odd k it is 0",
    )
    return abs(majority_coefficient(n, k - 1)) - abs(majority_coefficient(n, k + 1))


def sign_neuron_gradient(
    weights: Float[np.ndarray, " feature"], subset: Iterable[int]
) -> Float[np.ndarray, " feature"]:
    """The population gradient of a ReLU neuron under the correlation loss -E[chi_S(x) relu(w.x)],
    at signs w and n odd.

    -1/2 xi_{k-1} chi_{S-i}(w) at i in S, -1/2 xi_{k+1} chi_{S+j}(w) at j not in S, for k = |S| >=
    2: what a first step of gradient descent sees, times the neuron's output weight.

    Raises:
        ConfigError: where w holds anything but -1 and 1, their number is even, or S doesn't fit.
    """
    w, chosen = np.asarray(weights, np.float64), set(subset)
    n, k = w.size, len(chosen)
    require(bool((np.abs(w) == 1).all()), "weights: every one must be -1 or 1")
    require(
        k >= 2 and chosen <= set(range(n)),
        f"S={sorted(chosen)}: must hold at least 2 of the coordinates 0 to {n - 1}",
    )
    inside = np.isin(np.arange(n), list(chosen))
    # chi of S with or without i is chi_S(w) w_i.
    parities = w[inside].prod() * w
    outer = majority_coefficient(n, k + 1) if k < n else 0.0
    return -0.5 * np.where(inside, majority_coefficient(n, k - 1), outer) * parities
