"""Addition mod p solved in closed form by a quadratic MLP (arXiv 2301.02679)."""

import math
from typing import Literal

import numpy as np

from mi_jax.basics.errors import require
from mi_jax.models import MLP
from mi_jax.planted.network import Flat, Planted, parameters
from mi_jax.tasks import ModularArithmetic


def gromov(p: int = 97, width: int = 500, *, sign: Literal[1, -1] = 1, seed: int = 0) -> Planted:
    """Gromov's analytic solution: every neuron a wave of one frequency, with phases that cancel in
    the sum over neurons.

        U_ki = A cos(2 pi s_k i / p + f_k),  V_kj = A cos(2 pi s_k j / p + g_k),  W_qk = A cos(2 pi
        s_k q / p + f_k + g_k)

    logits_q = sum_k W_qk (U_ka + V_kb)^2, A = (2 / N)^(1/3), frequencies s_k = 1, ..., (p - 1) / 2
    in turn, phases uniform. The mean over phases is 1 for the right answer and -1 / (p - 1) for
    every other; what is left is noise of variance 4 / N.

    Args:
        p: odd, so that every frequency has two phases. width: N.
        sign: -1 subtracts the phases in W instead, as some secondary sources print: the answer is
            then chance, 1 / p.
        seed: of the phases.

    Returns:
        truth: ``amplitude`` A; ``frequencies``, ``phases_a`` and ``phases_b`` by neuron;
            ``accuracy``, for sign 1 that of enough
        neurons, about 48 log p, where the noise stays below the margin; for sign 1 alone
        ``mean_squared_error`` against one-hot answers, over all outputs and pairs: its mean over
        phases, 4 / N + 1 / (p (p - 1)), for N a multiple of (p - 1) / 2.
    """
    require(
        isinstance(p, int) and p >= 3 and p % 2 == 1,
        f"p={p}: must be an odd whole number of at least 3",
    )
    require(
        isinstance(width, int) and width >= 1,
        f"width={width}: must be a whole number of at least 1",
    )
    require(sign in (1, -1), f"sign={sign}: must be 1, the solution, or -1, the wrong one")
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
        **({"mean_squared_error": 4 / width + 1 / (p * (p - 1))} if sign == 1 else {}),
    }
    return Planted(MLP(width=width).build(task.inputs), parameters(flat), task, truth)


def quadrature(p: int, width: int, k: int, scale: float) -> Flat:
    """The same at one frequency without noise: phases f, g in thirds of a turn, all nine pairs
    equally often.

    Every term of W (U + V)^2 but cos(2 pi k (a + b - c) / p) then sums to zero: the logits are
    ``scale`` times that, exactly.

    Args:
        width: a multiple of 9.
    """
    place = np.arange(width) % 9
    f, g = 2 * np.pi / 3 * (place // 3), 2 * np.pi / 3 * (place % 3)
    amplitude = math.cbrt(2 * scale / width)
    angle = 2 * np.pi * k * np.arange(p)[:, None] / p
    table = lambda phase: amplitude * np.cos(angle + phase[None])  # noqa: E731
    return {"embed_a.W_E": table(f), "embed_b.W_E": table(g), "unembed.W_U": table(f + g).T}
