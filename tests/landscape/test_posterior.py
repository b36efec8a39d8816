"""SGLD against NUTS of blackjax, a sampler of the local posterior without bias of finite steps."""

import types
import warnings

import jax
import jax.numpy as jnp
import pytest

from mi_jax.landscape import SGLDSettings, diagnose, exact, learning_coefficient

pytestmark = pytest.mark.slow  # a compilation of NUTS

_N_BETA, _GAMMA = 40.0, 5.0


def _blackjax() -> types.ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(
            "blackjax", reason="blackjax, an oracle of the extra `dev`, is not installed here"
        )


def _loss(w: jax.Array) -> jax.Array:
    """A valley that is flat along a curve, and so singular: lambda = 1/2 + 1/4."""
    return (w[1] - w[0] ** 2) ** 2 + w[2] ** 4


def test_sgld_samples_what_nuts_samples() -> None:
    blackjax = _blackjax()
    found = learning_coefficient(
        _loss,
        jnp.zeros(3),
        n=1000,
        settings=SGLDSettings(
            n_beta=_N_BETA, gamma=_GAMMA, epsilon=1e-3, burn_in=1000, draws=4000, chains=64
        ),
        key=jax.random.key(0),
    )

    def log_density(w: jax.Array) -> jax.Array:
        return -_N_BETA * _loss(w) - _GAMMA / 2 * (w**2).sum()

    nuts = blackjax.nuts(log_density, step_size=0.15, inverse_mass_matrix=jnp.ones(3))

    def chain(key: jax.Array) -> jax.Array:
        def _step(state: object, key: jax.Array) -> tuple[object, jax.Array]:
            state, _ = nuts.step(key, state)
            return state, _loss(state.position)

        return jax.lax.scan(_step, nuts.init(jnp.zeros(3)), jax.random.split(key, 2100))[1][100:]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        losses = jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(1), 8))
    theirs, error = _N_BETA * float(losses.mean()), _N_BETA * float(diagnose(losses).standard_error)
    ours = float(found.learning_coefficient)
    assert abs(ours - theirs) < 3 * (float(found.standard_error) ** 2 + error**2) ** 0.5 + float(
        found.discretisation_bias
    )
    assert error < 0.02
    # Neither is what it would be without localisation.
    assert theirs < 0.5 + exact.monomial(4, n_beta=_N_BETA) - 3 * error
