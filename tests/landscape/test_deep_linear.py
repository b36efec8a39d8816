"""The estimator on deep linear networks, whose learning coefficients are known (Aoyagi), and at two
factorisations of one product.
"""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import spearmanr

from mi_jax.landscape import (
    LearningCoefficient,
    SGLDSettings,
    estimate,
    exact,
    learning_coefficient,
)

pytestmark = pytest.mark.slow  # a minute in all

_MOST, _LAYERS = 10, 4
_PROTOCOL = {
    "beta": 1000.0,
    "gamma": 1.0,
    "step": 0.012,
    "burn_in": 4000,
    "draws": 8000,
    "chains": 4,
}


class _Network(NamedTuple):
    widths: tuple[int, ...]
    rank: int
    factors: list[np.ndarray]
    """[in out] of each layer, all of rank ``rank``, as is their product."""


def _networks(seed: int, count: int) -> list[_Network]:
    rng = np.random.default_rng(seed)
    networks: list[_Network] = []
    while len(networks) < count:
        widths = tuple(int(w) for w in rng.integers(1, _MOST + 1, rng.integers(2, _LAYERS + 1) + 1))
        rank = int(rng.integers(0, min(widths) + 1))
        frames = [np.linalg.qr(rng.normal(size=(w, w)))[0][:, :rank] for w in widths]
        factors = [
            a @ np.diag(rng.uniform(0.8, 1.2, rank)) @ b.T for a, b in itertools.pairwise(frames)
        ]
        networks.append(_Network(widths, rank, factors))
    return networks


def _padded(network: _Network) -> tuple[np.ndarray, np.ndarray]:
    """Four layers of 10 x 10: unused rows are 0 and unused layers the identity, and neither is
    sampled.
    """
    W, mask = np.zeros((_LAYERS, _MOST, _MOST), np.float32), np.zeros((_LAYERS, _MOST, _MOST), bool)
    W[len(network.factors) :] = np.eye(_MOST)
    for layer, factor in enumerate(network.factors):
        W[layer, : factor.shape[0], : factor.shape[1]] = factor
        mask[layer, : factor.shape[0], : factor.shape[1]] = True
    return W, mask


def _product(W: jax.Array) -> jax.Array:
    return W[0] @ W[1] @ W[2] @ W[3]


def _loss(W: jax.Array, truth: tuple[jax.Array, jax.Array]) -> jax.Array:
    """|W - W*|^2 / ((d_in + 2) d_out): the population loss for inputs in the unit ball."""
    product, scale = truth
    return ((_product(W) - product) ** 2).sum() / scale


def _estimates(
    networks: list[_Network],
    key: Any,
    *,
    beta: float,
    gamma: float,
    step: float,
    burn_in: int,
    draws: int,
    chains: int,
) -> LearningCoefficient:
    """All networks in one program. n_beta is beta (d_in + 2) d_out, so that every posterior is
    equally narrow.
    """
    padded = [_padded(network) for network in networks]
    W, masks = (
        jnp.asarray(np.stack([w for w, _ in padded])),
        jnp.asarray(np.stack([m for _, m in padded])),
    )
    scales = jnp.asarray(
        [(network.widths[0] + 2) * network.widths[-1] for network in networks], jnp.float32
    )

    def estimated(w: Any, mask: Any, scale: Any, key: Any) -> Any:
        settings = SGLDSettings(
            n_beta=beta * scale,
            gamma=gamma,
            epsilon=step / beta,
            burn_in=burn_in,
            draws=draws,
            chains=chains,
        )
        return estimate(_loss, w, (_product(w), scale), mask.ravel(), key, settings)

    return jax.jit(jax.vmap(estimated))(W, masks, scales, jax.random.split(key, len(networks)))


def test_twenty_random_networks_have_aoyagis_coefficients(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Started where every factor has the product's rank: there the local coefficient is the global
    one.
    """
    networks = _networks(0, 20)
    expected = np.array(
        [
            float(exact.deep_linear(network.widths, network.rank).learning_coefficient)
            for network in networks
        ]
    )
    found = _estimates(networks, jax.random.key(1), **_PROTOCOL)
    errors = np.abs(np.asarray(found.learning_coefficient) - expected) / expected
    worst = int(errors.argmax())
    with capsys.disabled():
        rank = spearmanr(found.learning_coefficient, expected)[0]
        print(
            f"\n20 deep linear networks: Spearman {rank:.3f}, relative error"
            f" {np.median(errors):.3f} in the median, worst"
        )
        print(
            f"  {errors.max():.2f} at widths {networks[worst].widths}, rank {networks[worst].rank}:"
            f" {expected[worst]}"
        )
    assert rank >= 0.95
    assert np.median(errors) <= 0.10


def test_two_factorisations_of_one_truth_have_different_estimates() -> None:
    """2 x 2 x 2 and the zero product: 3/2 where both factors vanish, 2 where one of them has full
    rank.
    """
    scale, beta = (2 + 2) * 2, 1e4
    zero = jnp.zeros((2, 2))
    for rank, A in ((0, zero), (2, jnp.eye(2))):
        found = learning_coefficient(
            _two_layers,
            {"A": A, "B": zero},
            n=1e6,
            settings=SGLDSettings(
                n_beta=beta * scale,
                gamma=3.0,
                epsilon=0.05 / beta,
                burn_in=10_000,
                draws=20_000,
                chains=64,
            ),
            key=jax.random.key(0),
        )
        expected = float(exact.reduced_rank_at(2, 2, 2, rank, 0, 0).learning_coefficient)
        assert float(found.learning_coefficient) == pytest.approx(expected, rel=0.1)
        assert float(found.standard_error) < 0.03


def _two_layers(W: dict[str, jax.Array]) -> jax.Array:
    return ((W["A"] @ W["B"]) ** 2).sum() / 8


def test_the_spread_of_repeats_is_the_error_that_is_reported() -> None:
    """Twenty repeats of each of three networks."""
    networks = _networks(0, 6)[::2]
    protocol = {
        "beta": 300.0,
        "gamma": 3.0,
        "step": 0.012,
        "burn_in": 2000,
        "draws": 4000,
        "chains": 4,
    }
    found = _estimates(networks * 20, jax.random.key(3), **protocol)
    repeats = np.asarray(found.learning_coefficient).reshape(20, 3)
    reported = np.asarray(found.standard_error).reshape(20, 3).mean(axis=0)
    ratio = repeats.std(axis=0, ddof=1) / reported
    assert (ratio < 1.6).all(), ratio
    assert (ratio > 1 / 1.6).all(), ratio
