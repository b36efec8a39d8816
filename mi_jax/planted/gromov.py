"""Addition mod p solved in closed form by a quadratic MLP (arXiv 2301.02679)."""

import math
from typing import Literal

import numpy as np

from mi_jax.basics.errors import ConfigError
from mi_jax.models import MLP
from mi_jax.planted.network import Flat, Planted, parameters
from mi_jax.tasks import ModularArithmetic


def gromov(p: int = 97, width: int = 500, *, sign: Literal[1, -1] = 1, seed: int = 0) -> Planted:
    """Plants Gromov's analytic solution of addition mod p in a quadratic MLP.

    Every neuron k is a wave of one frequency, with phases that cancel in the sum over neurons:

        U_ki = A cos(2 pi s_k i / p + f_k)
        V_kj = A cos(2 pi s_k j / p + g_k)
        W_qk = A cos(2 pi s_k q / p + f_k + g_k)
        logits_q = sum_k W_qk (U_ka + V_kb)^2

    with A = (2 / N)^(1/3), frequencies s_k = 1, ..., (p - 1) / 2 in turn, and uniform phases f_k
    and g_k. Averaged over phases, the logit is 1 for the right answer and -1 / (p - 1) for every
    other; around that average there is noise of variance 4 / N.

    Args:
        p: an odd modulus, so that every frequency has two phases.
        width: the number of neurons N.
        sign: 1 for the solution. -1 subtracts the phases in W, as some secondary sources print;
            accuracy is then chance, 1 / p.
        seed: the seed of the phases.

    Returns:
        The network. Its ``truth`` holds:

        - ``amplitude``: A.
        - ``frequencies``, ``phases_a``, ``phases_b``: s_k, f_k and g_k, by neuron.
        - ``accuracy``: for sign 1, the accuracy of about 48 log p neurons or more, whose noise
          stays below the margin.
        - ``mean_squared_error``, for sign 1 only: against one-hot answers, over all outputs and
          pairs. It is the average over phases, 4 / N + 1 / (p (p - 1)), exact if N is a multiple
          of (p - 1) / 2.

    Raises:
        ConfigError: if p is not an odd whole number of at least 3, ``width`` is not a whole
            number of at least 1, or ``sign`` is neither 1 nor -1.

    Example:
        >>> gromov(7, 6).truth["frequencies"]
        [1, 2, 3, 1, 2, 3]
    """
    if not isinstance(p, int) or p < 3 or p % 2 == 0:
        raise ConfigError(f"p={p}: must be an odd whole number of at least 3.")
    if not isinstance(width, int) or width < 1:
        raise ConfigError(f"width={width}: must be a whole number of at least 1.")
    if sign not in (1, -1):
        raise ConfigError(f"sign={sign}: must be 1 for the solution, or -1 for the wrong one.")
    rng = np.random.default_rng(seed)
    frequencies = 1 + np.arange(width) % (p // 2)
    f, g = rng.uniform(0, 2 * np.pi, (2, width))
    amplitude = math.cbrt(2 / width)
    angle = 2 * np.pi * np.arange(p)[:, None] * frequencies / p

    def wave(phase: np.ndarray) -> np.ndarray:
        return (amplitude * np.cos(angle + phase)).astype(np.float32)

    flat = {"embed_a.W_E": wave(f), "embed_b.W_E": wave(g), "unembed.W_U": wave(sign * (f + g)).T}
    task = ModularArithmetic(p=p, fraction=0.5, format="a b")
    truth = {
        "amplitude": amplitude,
        "frequencies": frequencies.tolist(),
        "phases_a": f.tolist(),
        "phases_b": g.tolist(),
        "accuracy": 1.0 if sign == 1 else 1 / p,
    }
    if sign == 1:
        truth["mean_squared_error"] = 4 / width + 1 / (p * (p - 1))
    return Planted(MLP(width=width).build(task.inputs), parameters(flat), task, truth)


def quadrature(p: int, width: int, k: int, scale: float) -> Flat:
    """Weights of Gromov's solution at a single frequency, without noise.

    The phases f and g are thirds of a turn, and all nine pairs are equally frequent. Every term of
    W (U + V)^2 except cos(2 pi k (a + b - c) / p) then sums to zero, so the logits are exactly
    ``scale`` times that cosine.

    Args:
        p: the modulus.
        width: the number of neurons, a multiple of 9.
        k: the frequency.
        scale: the factor on the logits.

    Returns:
        Weights by dotted name, in float64.
    """
    pair = np.arange(width) % 9
    f, g = 2 * np.pi / 3 * (pair // 3), 2 * np.pi / 3 * (pair % 3)
    amplitude = math.cbrt(2 * scale / width)
    angle = 2 * np.pi * k * np.arange(p)[:, None] / p

    def table(phase: np.ndarray) -> np.ndarray:
        return amplitude * np.cos(angle + phase[None])

    return {"embed_a.W_E": table(f), "embed_b.W_E": table(g), "unembed.W_U": table(f + g).T}
