"""p-values against enumeration, and Holm's procedure against the closed testing it abbreviates."""

import itertools
from typing import Any

import numpy as np
import pytest

from mi_jax.dynamics.significance import (
    holm,
    joint_draws_needed,
    joint_draws_p,
    own_draws_needed,
    own_draws_p,
    seed_p_values,
    shared_draws_needed,
    shared_draws_p,
    sign_flip_p_values,
    within_family,
)

NAN = float("nan")


@pytest.mark.parametrize("direction", ["above", "below"])
@pytest.mark.parametrize(("seeds", "draws"), [(1, 4), (2, 3), (3, 3), (4, 2)])
def test_shared_draws_are_every_choice_of_seeds(seeds: int, draws: int, direction: Any) -> None:
    """The share of all choices of n readings out of n + B whose worst is as good."""
    rng = np.random.default_rng(seeds)
    for _ in range(10):
        readings = rng.normal(size=seeds + draws)
        turned = readings if direction == "above" else -readings
        worst = [
            turned[list(chosen)].min()
            for chosen in itertools.combinations(range(len(turned)), seeds)
        ]
        expected = np.mean(np.array(worst) >= turned[:seeds].min())
        found = shared_draws_p(readings[:seeds], readings[seeds:], direction)
        assert found == pytest.approx(expected)


def test_own_draws_raise_the_largest_p_value_to_the_number_of_seeds() -> None:
    values, null = np.array([5.0, 1.5]), np.array([[1.0, 2, 3, 4], [1, 2, 3, NAN]])
    np.testing.assert_allclose(seed_p_values(values, null), [1 / 5, 3 / 4])
    assert own_draws_p(values, null) == pytest.approx((3 / 4) ** 2)
    assert own_draws_p(-values, -null, "below") == pytest.approx((3 / 4) ** 2)


@pytest.mark.parametrize("direction", ["above", "below"])
def test_joint_draws_are_ranked_in_every_seed(direction: Any) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        readings = rng.normal(size=(3, 12)) + rng.normal(size=12)
        turned = readings if direction == "above" else -readings
        ranks = (turned[:, None, :] >= turned[:, :, None]).sum(axis=2)
        worst = ranks.max(axis=0)
        found = joint_draws_p(readings[:, 0], readings[:, 1:], direction)
        assert found == pytest.approx(np.mean(worst <= worst[0]))


def test_one_seed_has_the_same_p_value_by_all_three_rules() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        value, null = rng.normal(size=1), rng.normal(size=19)
        shared = shared_draws_p(value, null)
        assert own_draws_p(value, null[None]) == pytest.approx(shared)
        assert joint_draws_p(value, null[None]) == pytest.approx(shared)


def test_draws_equal_to_a_reading_but_for_rounding_count_against_it() -> None:
    value = np.array([0.3])
    for draw in (0.3, 0.3 * (1 - 1e-7), 0.3 * (1 + 1e-7)):
        null = np.array([0.1, draw, 0.2])
        assert shared_draws_p(value, null) == own_draws_p(value, null[None]) == 0.5
        assert joint_draws_p(value, null[None]) == 0.5


@pytest.mark.parametrize("rule", [shared_draws_p, own_draws_p, joint_draws_p])
def test_a_seed_that_is_not_finite_lies_beyond_nothing(rule: Any) -> None:
    null = np.zeros(19) if rule is shared_draws_p else np.zeros((2, 19))
    assert rule(np.array([1.0, NAN]), null) == 1
    infinite = np.full_like(null, np.inf)
    assert rule(np.array([1.0, 1.0]), infinite) == 1
    assert rule(np.array([1.0, 1.0]), infinite, "below") < 0.05 + (rule is joint_draws_p) * 1e-9


def test_p_values_of_noise_are_uniform_or_larger() -> None:
    """At every level the share of p-values below it is at most the level, within the error."""
    rng, pages = np.random.default_rng(0), 2000
    for seeds in (1, 2, 5):
        p = [
            (
                shared_draws_p(rng.random(seeds), rng.random(19)),
                own_draws_p(rng.random(seeds), rng.random((seeds, 19))),
                joint_draws_p(rng.random(seeds), rng.random((seeds, 39))),
                sign_flip_p_values(rng.normal(size=(seeds, 4))).min(),
            )
            for _ in range(pages)
        ]
        for level in (0.01, 0.05, 0.25):
            share = (np.array(p) <= level + 1e-12).mean(axis=0)
            assert (share <= level + 3 * np.sqrt(level * (1 - level) / pages)).all()


def test_signs_of_whole_seeds_are_flipped_for_all_cells_together() -> None:
    rng = np.random.default_rng(0)
    differences = rng.normal(size=(4, 3)) + 0.5
    least = [
        (np.array(signs)[:, None] * differences).min(axis=0)
        for signs in itertools.product([1, -1], repeat=4)
    ]
    largest = np.max(least, axis=1)
    expected = [np.mean(largest >= column) for column in differences.min(axis=0)]
    np.testing.assert_allclose(sign_flip_p_values(differences), expected)
    differences[0, 1] = NAN
    assert sign_flip_p_values(differences)[1] == 1
    assert sign_flip_p_values(np.ones((20, 1)))[0] <= 2**-11


def _closed(p_values: list[float], alpha: float) -> list[bool]:
    """Closed testing: a claim holds if Bonferroni's test rejects every set that it is in."""
    every = range(len(p_values))
    sets = [s for size in range(1, len(p_values) + 1) for s in itertools.combinations(every, size)]
    rejected = {s: min(p_values[i] for i in s) <= alpha / len(s) for s in sets}
    return [all(rejected[s] for s in sets if i in s) for i in every]


def test_holm_is_closed_testing() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        p_values = (rng.random(5) ** 4).tolist()
        assert [held for (held,) in holm([[p] for p in p_values])] == _closed(p_values, 0.05)


def test_a_family_is_adjusted_for_its_cells_by_holm() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        p_values = (rng.random(4) ** 4).tolist()
        adjusted = within_family(p_values)
        for alpha in (0.01, 0.05, 0.3):
            assert [p <= alpha for p in adjusted] == _closed(p_values, alpha)


def test_a_family_frees_nothing_for_others_before_all_its_claims_hold() -> None:
    assert holm([[0.001, 0.2], [0.03]]) == [[True, False], [False]]
    assert holm([[0.001, 0.02], [0.03]]) == [[True, True], [True]]
    assert holm([]) == []


@pytest.mark.parametrize("seeds", range(1, 9))
@pytest.mark.parametrize("tests", [1, 4, 10, 40])
def test_the_number_of_draws_is_the_smallest_that_suffices(seeds: int, tests: int) -> None:
    beyond, alpha = np.full(seeds, 2.0), 0.05 / tests
    shared = shared_draws_needed(seeds, tests)
    assert shared_draws_p(beyond, np.ones(shared)) <= alpha
    assert shared == 1 or shared_draws_p(beyond, np.ones(shared - 1)) > alpha
    own = own_draws_needed(seeds, tests)
    assert own_draws_p(beyond, np.ones((seeds, own))) <= alpha * (1 + 1e-12)
    assert own == 19 or own_draws_p(beyond, np.ones((seeds, own - 1))) > alpha
    joint = joint_draws_needed(tests)
    assert joint_draws_p(beyond, np.ones((seeds, joint))) <= alpha
