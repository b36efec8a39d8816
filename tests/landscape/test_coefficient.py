"""Learning coefficient: against closed forms, its protocol, its flags, and its errors."""

import functools
import itertools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import compilations
from unchecked import unchecked

from mi_jax.basics.errors import ConfigError
from mi_jax.landscape import (
    RMSProp,
    SGLDSettings,
    calibrate,
    diagnose,
    exact,
    learning_coefficient,
    sgld,
)
from mi_jax.landscape.coefficient import LearningCoefficient, estimate

_BOWL = {"a": jnp.zeros(6), "b": jnp.zeros(4)}


def _bowl(w: Any) -> jax.Array:
    return 0.5 * (w["a"] ** 2).sum() + 0.5 * (w["b"] ** 2).sum()


_OF_CALL = ("loss", "params", "n", "key", "mask", "data", "examples")
"""Arguments of ``learning_coefficient``; the others are fields of its settings."""


def _of_bowl(**changes: Any) -> LearningCoefficient:
    """Estimate for the bowl. Few shapes, so that most tests share a compiled program."""
    options = {
        "loss": _bowl,
        "params": _BOWL,
        "n": 1000,
        "n_beta": 100.0,
        "gamma": 0.0,
        "epsilon": 1e-3,
        "burn_in": 500,
        "draws": 1000,
        "chains": 64,
        "key": jax.random.key(0),
        **changes,
    }
    arguments = {name: options.pop(name) for name in _OF_CALL if name in options}
    return learning_coefficient(**arguments, settings=SGLDSettings(**options))


# --- Closed forms ---


@pytest.mark.parametrize(("gamma", "epsilon"), [(0.0, 1e-3), (1.0, 1e-2), (30.0, 3e-3)])
def test_the_estimate_is_the_closed_form_of_the_discretised_localised_quadratic(
    gamma: float, epsilon: float
) -> None:
    found = _of_bowl(gamma=gamma, epsilon=epsilon)
    expected = exact.quadratic(
        [1.0] * 10, n_beta=100.0, gamma=gamma, epsilon=epsilon, burn_in=500, draws=1000
    )
    assert float(found.learning_coefficient) == pytest.approx(expected, rel=0.03)


def test_burn_in_is_really_left_out() -> None:
    """Short of stationary: only then does an estimate with burn-in lie above one without, by what
    the closed form says.
    """
    expected = [
        exact.quadratic([1.0] * 10, n_beta=100.0, epsilon=1e-3, burn_in=burn_in, draws=draws)
        for burn_in, draws in ((0, 30), (20, 10))
    ]
    whole = _of_bowl(burn_in=0, draws=30, chains=1000)
    assert float(whole.learning_coefficient) == pytest.approx(expected[0], rel=0.03)
    cut = _of_bowl(burn_in=20, draws=10, chains=1000)
    assert float(cut.learning_coefficient) == pytest.approx(expected[1], rel=0.03)
    assert expected[1] > 1.3 * expected[0]
    # The same chains: the second is the first's last ten draws.
    np.testing.assert_allclose(cut.loss_trace, whole.loss_trace[:, 20:], rtol=1e-4)
    np.testing.assert_allclose(cut.burn_in_trace, whole.loss_trace[:, :20], rtol=1e-4)


def test_the_first_draw_is_the_loss_before_the_first_step() -> None:
    """Without burn-in that is the loss at w* itself."""
    found = _of_bowl(burn_in=0, draws=30, chains=1000)
    np.testing.assert_array_equal(found.loss_trace[:, 0], 0)
    assert (np.asarray(found.loss_trace[:, 1]) > 0).all()
    np.testing.assert_allclose(
        found.by_chain, 100 * np.asarray(found.loss_trace).mean(axis=1), rtol=1e-4
    )
    assert float(found.learning_coefficient) == pytest.approx(
        float(np.mean(found.by_chain)), rel=1e-5
    )
    assert float(found.standard_error) == pytest.approx(
        100 * float(diagnose(found.loss_trace).standard_error), rel=1e-3
    )
    assert float(found.learning_coefficient) == pytest.approx(
        float(found.by_chain.mean()), rel=1e-5
    )


@pytest.mark.parametrize("gamma", [0.0, 1.0, 10.0, 100.0])
def test_monomials_have_their_localised_values(gamma: float) -> None:
    """Eight of them at a time; K = 4 w^4."""
    found = learning_coefficient(
        _monomial,
        jnp.zeros(8),
        n=1000,
        settings=SGLDSettings(gamma=gamma, epsilon=2e-4, burn_in=500, draws=2000, chains=32),
        key=jax.random.key(1),
    )
    expected = 8 * exact.monomial(4, scale=4.0, n_beta=found.protocol.n_beta, gamma=gamma)
    assert (
        abs(float(found.learning_coefficient) - expected)
        < 3 * float(found.standard_error)
        < 0.1 * expected
    )


def _monomial(w: jax.Array) -> jax.Array:
    return 4 * (w**4).sum()


@pytest.mark.parametrize("gamma", [0.0, 10.0, 100.0, 1000.0])
def test_localisation_is_by_how_much_a_larger_gamma_lowers_the_estimate(gamma: float) -> None:
    """-d ln estimate / d ln gamma, by differences of the closed form."""
    curvatures = [0.1, 0.3, 1.0, 3.0] * 2
    found = learning_coefficient(
        lambda w: 0.5 * (jnp.array(curvatures) * w**2).sum(),
        jnp.zeros(8),
        n=1000,
        settings=SGLDSettings(
            n_beta=100.0, gamma=gamma, epsilon=3e-4, burn_in=1000, draws=2000, chains=64
        ),
        key=jax.random.key(2),
    )
    low, high = (
        exact.quadratic(curvatures, n_beta=100.0, gamma=gamma * factor) for factor in (0.99, 1.01)
    )
    assert float(found.localisation) == pytest.approx(
        np.log(low / high) / np.log(1.01 / 0.99), abs=0.05
    )


def test_nothing_but_the_loss_holds_a_chain_without_localisation_whatever_its_singularity() -> None:
    found = learning_coefficient(
        _monomial,
        jnp.zeros(8),
        n=1000,
        settings=SGLDSettings(gamma=0.0, epsilon=2e-4, burn_in=500, draws=2000, chains=32),
        key=jax.random.key(1),
    )
    assert abs(float(found.localisation)) < 0.1


def test_the_bias_of_finite_steps_is_estimated() -> None:
    """Exactly, in the mean, on a quadratic."""
    for epsilon in (1e-3, 1e-2):
        found = _of_bowl(epsilon=epsilon)
        stationary = exact.quadratic([1.0] * 10, n_beta=100.0, epsilon=epsilon)
        assert float(found.discretisation_bias) == pytest.approx(stationary - 5, rel=0.05)


@pytest.mark.slow
def test_preconditioned_chains_sample_the_same_quadratic() -> None:
    """With gradients far below eps, G = 1 / eps = 10: plain dynamics, ten times the step size."""
    eps = 0.1
    found = learning_coefficient(
        _small_bowl,
        jnp.zeros(10),
        n=1000,
        settings=SGLDSettings(
            n_beta=100.0,
            gamma=0.0,
            epsilon=1e-2,
            burn_in=200,
            draws=500,
            chains=64,
            preconditioner=RMSProp(eps=eps),
        ),
        key=jax.random.key(0),
    )
    expected = exact.quadratic(
        [0.01] * 10, n_beta=100.0, epsilon=1e-2 / eps, burn_in=200, draws=500
    )
    assert float(found.learning_coefficient) == pytest.approx(expected, rel=0.03)
    assert np.isnan(found.acceptance).all()


def _small_bowl(w: jax.Array) -> jax.Array:
    return 0.005 * (w**2).sum()


@pytest.mark.parametrize("preconditioner", [None, RMSProp(alpha=0.9, eps=0.05)])
def test_a_step_is_the_published_one_digit_by_digit(preconditioner: RMSProp | None) -> None:
    """Two steps in NumPy, float64, with the same noise: a change of any constant by 1 % shows."""
    n_beta, gamma, epsilon, h = 30.0, 4.0, 1e-3, np.array([1.0, 2.0, 0.5])
    start = jnp.array([0.3, -0.2, 0.1])
    settings = SGLDSettings(
        n_beta=n_beta, gamma=gamma, epsilon=epsilon, burn_in=0, preconditioner=preconditioner
    )
    sampler = sgld(
        lambda w, batch: 0.5 * (jnp.asarray(h, jnp.float32) * w**2).sum(), start, settings
    )
    state, w, V = sampler.init(jax.random.key(0), start), np.asarray(start, np.float64), np.zeros(3)
    for i in range(2):
        key = jax.random.key(i + 7)
        state, info = sampler.step(key, state, None)
        slope, away, G = h * w, w - np.asarray(start, np.float64), np.ones(3)
        if preconditioner:
            V = 0.9 * V + 0.1 * slope**2
            G = 1 / (np.sqrt(V) + 0.05)
        force = n_beta * slope + gamma * away
        assert float(info.discretisation_bias) == pytest.approx(
            epsilon / 8 * n_beta * (G * slope * force).sum(), rel=1e-5
        )
        assert float(info.distance) == pytest.approx(np.sqrt((away**2).sum()), rel=1e-4)
        w = (
            w
            - epsilon / 2 * G * force
            + np.sqrt(epsilon * G) * np.asarray(jax.random.normal(key, (3,)), np.float64)
        )
        np.testing.assert_allclose(state.position, w, rtol=1e-5)


# --- Which parameters and examples are sampled ---


def test_a_restricted_estimate_counts_the_sampled_directions() -> None:
    for mask, expected in (("a", 3), (("b",), 2), ({"a": jnp.arange(6) < 2, "b": False}, 1)):
        found = _of_bowl(mask=mask)
        assert float(found.learning_coefficient) == pytest.approx(expected, rel=0.06)


def test_masked_parameters_keep_their_bits() -> None:
    start = {"a": jnp.array([0.1, -0.0, 1e-40]), "b": jnp.array([jnp.inf, 2.0])}
    mask = jnp.array([False, False, True, False, True])
    sampler = sgld(
        lambda w, batch: (w["a"] ** 2).sum() + w["b"][1] ** 2,
        start,
        SGLDSettings(n_beta=10.0, gamma=1.0, epsilon=1e-2, burn_in=0),
        mask=mask,
    )
    state = sampler.init(jax.random.key(0), start)
    for i in range(5):
        state, _ = jax.jit(sampler.step)(jax.random.key(i), state, None)
    before, after = (np.asarray(w).view(np.uint32) for w in (state.start, state.position))
    np.testing.assert_array_equal(before != after, np.asarray(mask))


@pytest.mark.slow
def test_minibatches_of_a_mean_sample_the_same_posterior_with_the_noise_that_they_add() -> None:
    """L = mean of (w - x)^2 / 2: a batch of m adds (epsilon n_beta / 2)^2 s^2 / m to epsilon."""
    x, m, epsilon = jax.random.normal(jax.random.key(5), (200,)), 10, 2e-3
    x = x - x.mean()
    found = learning_coefficient(
        _mean_loss,
        jnp.zeros(1),
        n=200,
        settings=SGLDSettings(
            n_beta=100.0,
            gamma=0.0,
            epsilon=epsilon,
            burn_in=200,
            draws=1000,
            chains=64,
            batch_size=m,
        ),
        key=jax.random.key(0),
        data=x,
    )
    added = 1 + epsilon * 100.0**2 * float(x.var()) / (4 * m)
    spread = np.asarray(found.distance_trace) ** 2
    assert spread.mean() == pytest.approx(added / 100.0 / (1 - epsilon * 100 / 4), rel=0.05)
    assert float(found.baseline_loss) == pytest.approx(float(x.var()) / 2, rel=1e-5)


def _mean_loss(w: jax.Array, x: jax.Array) -> jax.Array:
    return 0.5 * ((w - x) ** 2).mean()


# --- Flags and diagnostics ---


def test_a_step_that_is_too_large_is_flagged() -> None:
    """Above epsilon a = 4 a chain diverges; at half of it, half of the estimate is the bias."""
    diverged, biased, good = (_of_bowl(epsilon=epsilon) for epsilon in (0.041, 0.02, 1e-3))
    assert bool(diverged.flags.diverged)
    assert bool(diverged.flags.epsilon_too_large)
    assert not bool(biased.flags.diverged)
    assert bool(biased.flags.epsilon_too_large)
    assert float(biased.learning_coefficient) == pytest.approx(10, rel=0.03)
    assert not any(map(bool, good.flags))


def test_a_point_that_is_no_minimum_is_flagged() -> None:
    found = learning_coefficient(
        lambda w: -0.5 * (w**2).sum(),
        jnp.zeros(4),
        n=1000,
        settings=SGLDSettings(
            n_beta=10.0, gamma=100.0, epsilon=1e-3, burn_in=50, draws=100, chains=8
        ),
        key=jax.random.key(0),
    )
    assert float(found.learning_coefficient) < 0
    assert bool(found.flags.negative)
    assert bool(found.flags.below_start)
    assert float(found.share_below_start) == 1


def test_chains_that_have_not_arrived_are_flagged() -> None:
    assert bool(_of_bowl(epsilon=1e-5, burn_in=0, draws=30, chains=1000).flags.unmixed)


def test_a_chain_past_the_edge_of_stability_has_diverged_while_its_losses_are_finite() -> None:
    """epsilon n_beta h = 4 is the edge: just inside it the chain is only far off."""
    inside, outside = (
        _of_bowl(epsilon=epsilon, burn_in=0, draws=30, chains=1000) for epsilon in (0.0395, 0.0405)
    )
    assert np.isfinite(outside.loss_trace).all()
    assert [bool(chain.flags.diverged) for chain in (inside, outside)] == [False, True]
    assert bool(inside.flags.epsilon_too_large)


def test_a_direction_that_the_loss_ignores_has_a_coefficient_of_zero_and_no_flag() -> None:
    found = learning_coefficient(
        lambda w: 0 * w.sum() + 3.1,
        jnp.zeros(4),
        n=1000,
        settings=SGLDSettings(
            n_beta=10.0, gamma=100.0, epsilon=1e-3, burn_in=5, draws=40, chains=3
        ),
        key=jax.random.key(0),
    )
    assert (float(found.learning_coefficient), float(found.standard_error)) == (0, 0)
    assert not any(map(bool, found.flags))


def test_a_few_draws_have_the_error_of_the_chains_means() -> None:
    first = _of_bowl(burn_in=0, draws=1, chains=3)
    np.testing.assert_array_equal(first.loss_trace, np.full((3, 1), first.baseline_loss))
    few = _of_bowl(burn_in=30, draws=3, chains=50)
    assert float(few.standard_error) == pytest.approx(
        float(np.std(few.by_chain, ddof=1)) / 50**0.5, rel=1e-4
    )
    assert np.isnan(few.r_hat)
    assert bool(few.flags.unmixed)


def test_a_metropolis_step_would_accept_what_a_hand_computation_says() -> None:
    """One chain in one dimension, the textbook ratio of densities and proposals."""
    n_beta, gamma, epsilon = 30.0, 2.0, 0.02
    sampler = sgld(
        lambda w, batch: 0.5 * w[0] ** 2 + w[0] ** 4,
        jnp.zeros(1),
        SGLDSettings(n_beta=n_beta, gamma=gamma, epsilon=epsilon, burn_in=0),
    )
    state, positions, acceptances = sampler.init(jax.random.key(0), jnp.zeros(1)), [], []
    for i in range(12):
        positions.append(float(state.position[0]))
        state, info = sampler.step(jax.random.key(i), state, None)
        acceptances.append(float(info.acceptance))

    def energy(w: float) -> float:
        return n_beta * (0.5 * w**2 + w**4) + gamma / 2 * w**2

    def proposal(a: float, b: float) -> float:
        force = n_beta * (a + 4 * a**3) + gamma * a
        return -((b - a + epsilon / 2 * force) ** 2) / (2 * epsilon)

    hand = [
        min(1.0, np.exp(proposal(b, a) - proposal(a, b) + energy(a) - energy(b)))
        for a, b in itertools.pairwise(positions)
    ]
    assert np.isnan(acceptances[0])
    np.testing.assert_allclose(acceptances[1:], hand, rtol=2e-3)
    assert min(hand) < 0.9


def test_the_estimators_own_result_is_the_mean_of_its_draws() -> None:
    sampler = sgld(
        lambda w, batch: _small_bowl(w),
        jnp.zeros(3),
        SGLDSettings(n_beta=50.0, gamma=1.0, epsilon=0.1, burn_in=4),
    )
    state = sampler.init(jax.random.key(0), jnp.zeros(3))
    assert np.isnan(sampler.result(state).loss)
    infos = []
    for i in range(10):
        state, info = sampler.step(jax.random.key(i), state, None)
        infos.append(info)
    result = sampler.result(state)
    assert int(result.draws) == 6
    for name in ("loss", "distance", "acceptance", "discretisation_bias"):
        expected = np.mean([float(getattr(info, name)) for info in infos[4:]])
        assert float(getattr(result, name)) == pytest.approx(expected, rel=1e-5)


def test_the_protocol_is_kept_and_n_beta_is_by_default_that_of_n() -> None:
    found = _of_bowl(n_beta=None)
    assert found.protocol.n_beta == pytest.approx(1000 / np.log(1000))
    assert found.protocol.beta == pytest.approx(1 / np.log(1000))
    assert found.protocol[3:] == (0.0, 1e-3, 500, 1000, 64)


# --- Compilation, and the chains' mode ---


def test_other_numbers_and_weights_compile_nothing() -> None:
    _of_bowl()
    with compilations() as compiled:
        _of_bowl(
            params={"a": jnp.ones(6), "b": jnp.ones(4)},
            n=77,
            n_beta=3.0,
            gamma=2.0,
            epsilon=1e-5,
            key=jax.random.key(9),
        )
    assert [name for name in compiled if "estimate" in name] == []


@pytest.mark.slow
def test_chains_run_one_after_another_are_the_same_chains() -> None:
    program = functools.partial(
        estimate, lambda w, batch: _bowl(w), _BOWL, None, None, jax.random.key(3)
    )
    settings = SGLDSettings(n_beta=100.0, gamma=1.0, epsilon=1e-3, burn_in=3, draws=20, chains=3)
    batched = jax.jit(program)(settings)
    mapped = jax.jit(program)(replace(settings, chain_mode="mapped"))
    np.testing.assert_allclose(batched.loss_trace, mapped.loss_trace, rtol=1e-5)
    assert len({float(x) for x in mapped.by_chain}) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_beta": 0.0}, "n_beta=0.0: must be a positive number"),
        ({"n_beta": -3.0}, "n_beta=-3.0: must be a positive number"),
        ({"epsilon": 0.0}, "epsilon=0.0: must be a positive number"),
        (
            {"epsilon": float("nan")},
            "epsilon=nan: must be a positive number. NaN is what a sweep without a plateau",
        ),
        ({"gamma": -1.0}, "gamma=-1.0: must be at least 0"),
        ({"n": 1, "n_beta": None}, "n=1: must be more than one example"),
        ({"draws": 0}, "draws=0: must be at least 1"),
        ({"chains": 0}, "chains=0: must be at least 1"),
        ({"burn_in": -1}, "burn_in=-1: must be at least 0"),
        ({"mask": "c"}, "The pattern 'c' matches none of the parameters; known are a, b"),
        ({"mask": {"a": False, "b": False}}, "mask is false everywhere"),
        (
            {"mask": {"a": True}},
            r"structure of the parameters. It has the arrays a, the parameters a, b",
        ),
        (
            {"mask": {"a": np.ones(5), "b": True}},
            r"The mask of a must have the shape \(6,\) of the parameter; it has \(5,\)",
        ),
        ({"batch_size": 4}, "batch_size is given without data"),
        ({"batch_size": 0}, "batch_size=0: must be a positive number of examples"),
    ],
)
def test_invalid_numbers_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _of_bowl(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": "many"}, "n='many': must be a number"),
        ({"epsilon": None}, "epsilon=None: must be a number"),
        ({"draws": 10.0}, "draws=10.0: must be a whole number"),
        ({"chains": 1.5}, "chains=1.5: must be a whole number"),
        ({"key": 0}, r"key=0: must be a random key, such as jax.random.key\(0\)"),
        ({"chain_mode": "parallel"}, "chain_mode='parallel' is unknown; known are mapped, vmapped"),
        ({"preconditioner": "rmsprop"}, "preconditioner='rmsprop': must be None or an RMSProp"),
        ({"params": {}}, "The parameters hold no array"),
        (
            {"params": {"a": np.zeros(3, np.int32)}},
            "The parameter 'a' must be of floating point numbers; it is of int32",
        ),
        ({"loss": lambda w: w["a"] ** 2}, r"must return one number; it returns \(6,\)"),
        (
            {"loss": lambda w, data: (w["a"] ** 2).sum(), "data": np.ones(9), "examples": [0, 1]},
            "n=1000, but examples chooses 2",
        ),
        (
            {"loss": lambda w, data: (w["a"] ** 2).sum(), "data": np.ones(9), "examples": [0.5]},
            "it holds float64",
        ),
    ],
)
def test_invalid_arguments_are_refused(changes: dict[str, Any], message: str) -> None:
    small = {"n_beta": None, "burn_in": 1, "draws": 9, "chains": 2}
    with unchecked(), pytest.raises(ConfigError, match=message):
        _of_bowl(**{**small, **changes})


def test_numbers_may_be_numpys() -> None:
    with unchecked():
        found = _of_bowl(
            n=np.int64(1000), n_beta=np.float32(100), draws=np.int64(1000), chains=np.int32(64)
        )
    np.testing.assert_array_equal(found.loss_trace, _of_bowl().loss_trace)


# --- Options of mi_jax 0.1 ---

_OLD = {"n_beta": 50.0, "gamma": 1.0, "epsilon": 0.1, "burn_in": 4, "draws": 9, "chains": 2}


def test_options_one_by_one_still_work_with_a_warning() -> None:
    key, x, settings = jax.random.key(0), jnp.arange(6.0), SGLDSettings(**_OLD)
    arguments = {"n": 6, "key": key, "data": x}
    new = learning_coefficient(
        _mean_loss, jnp.zeros(1), settings=replace(settings, batch_size=2), **arguments
    )
    with pytest.warns(DeprecationWarning, match=r"is now learning_coefficient\(settings="):
        old = learning_coefficient(_mean_loss, jnp.zeros(1), **arguments, **_OLD, batch=2)
    np.testing.assert_array_equal(old.loss_trace, new.loss_trace)

    grid = {"epsilons": [0.1], "n_betas": [50.0]}
    sweep = calibrate(_mean_loss, jnp.zeros(1), **arguments, **grid, settings=settings)
    options = {name: _OLD[name] for name in ("gamma", "burn_in", "draws", "chains")}
    with pytest.warns(DeprecationWarning, match=r"is now calibrate\(settings="):
        again = calibrate(_mean_loss, jnp.zeros(1), **arguments, **grid, **options)
    assert again.identical(sweep)

    with pytest.warns(DeprecationWarning, match=r"is now sgld\(settings="):
        sampler = sgld(_mean_loss, jnp.zeros(1), n_beta=50.0, gamma=1.0, epsilon=0.1)
    state, _ = sampler.step(key, sampler.init(key, jnp.zeros(1)), x)
    assert int(sampler.result(state).draws) == 1  # no burn-in by default


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "learning_coefficient needs gamma, epsilon, burn_in, draws, chains. Pass settings="),
        ({**_OLD, "epsilom": 1.0}, "has no option 'epsilom'; did you mean epsilon"),
        ({"settings": SGLDSettings(), "gamma": 1.0}, "was given settings= and also gamma"),
    ],
)
def test_settings_are_given_once_and_completely(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        learning_coefficient(_bowl, _BOWL, n=10, key=jax.random.key(0), **options)


def test_a_sampler_needs_a_temperature() -> None:
    with pytest.raises(ConfigError, match="sgld needs n_beta"):
        sgld(_mean_loss, jnp.zeros(1), SGLDSettings())
