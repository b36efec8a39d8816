"""The ladder of evidence: observed, beats nulls, replicated."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

from mi_jax.dynamics import (
    LEVELS,
    ClaimTest,
    judge,
    judge_page,
    probe_claims,
    readout_site,
)

NULL = [0.1, 0.3, 0.2, *[0.15] * 16]
"""19 draws, which one seed beats with p = .05."""


def _level(values: list[float], null: Any = NULL, direction: Any = "above") -> int:
    return judge("it", np.array(values), null, direction).level


@pytest.mark.parametrize(("seeds", "level"), [(1, 1), (3, 1), (4, 1), (5, 2), (12, 2)])
def test_five_seeds_beyond_every_draw_are_replicated_and_fewer_beat_their_null(
    seeds: int, level: int
) -> None:
    assert _level([0.4] * seeds) == level
    assert _level([0.05] * seeds, direction="below") == level


@pytest.mark.parametrize(
    ("seeds", "draws", "level"),
    [(1, 18, 0), (1, 19, 1), (2, 4, 0), (2, 5, 1), (5, 1, 0), (5, 2, 2)],
)
def test_a_level_needs_enough_draws_for_its_p_value(seeds: int, draws: int, level: int) -> None:
    assert _level([1.0] * seeds, [0.5] * draws) == level


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("worst", [0.12, 0.0, float("nan")])
def test_one_seed_within_its_null_is_only_observed(seeds: int, worst: float) -> None:
    assert _level([0.4] * (seeds - 1) + [worst]) == 0


def test_the_direction_matters() -> None:
    assert _level([0.4] * 5, direction="below") == 0
    assert _level([0.05] * 5, direction="above") == 0
    assert _level([0.1] * 5, direction="below") == 2
    assert _level([0.15] * 5, direction="below") == 0


def test_the_reason_counts_seeds_and_draws_and_says_what_is_missing() -> None:
    claim = judge("Norms fall", np.array([0.4, 0.12, 0.5]), NULL, "above")
    assert (claim.text, claim.level) == ("Norms fall", 0)
    assert claim.reason == "2 of 3 seeds lie above all 19 draws of the null (0.3)"
    assert judge("it", np.array([0.4] * 3), NULL, "above").reason.endswith(
        "(0.3); 5 seeds are needed to count as replicated"
    )
    assert (
        judge("it", np.array([0.05] * 5), NULL, "below").reason
        == "5 of 5 seeds lie below all 19 draws of the null (0.1)"
    )


def test_nan_draws_are_left_out_of_the_null() -> None:
    nan = float("nan")
    assert _level([0.4] * 5, [nan, *NULL, nan]) == 2
    for nothing in ([], [nan, nan]):
        claim = judge("it", np.array([0.4] * 5), nothing, "above")
        assert (claim.level, claim.p) == (0, None)
        assert claim.reason == "there is no null to compare with"


def test_nothing_lies_above_an_infinite_draw() -> None:
    infinite = [float("inf")] * 19
    assert _level([0.4] * 5, infinite) == 0
    assert _level([0.05] * 5, infinite, "below") == 2


def test_an_intervention_alone_makes_a_claim_causal_and_only_over_five_seeds() -> None:
    assert LEVELS == ("observed", "beats nulls", "replicated over seeds", "causal", "predictive")
    assert _level([1e9] * 100) == 2
    for seeds, causal, level in ((4, True, 1), (5, True, 3), (5, False, 2), (1, True, 1)):
        (claim,) = judge_page([ClaimTest("it", "x", 0.01, seeds, "why", causal=causal)])
        assert claim.level == level


def test_a_claim_that_is_too_small_is_not_supported_whatever_its_p_value() -> None:
    (claim,) = judge_page(
        [ClaimTest("it", "x", 0.0, 5, "why", large_enough=False, contradicted=True)]
    )
    assert (claim.level, claim.supported, claim.contradicted, claim.p) == (0, False, True, 0.0)


def test_a_family_counts_as_one_claim_and_each_of_its_claims_is_judged() -> None:
    family = [ClaimTest(str(p), "x", p, 5, "", family="f") for p in (0.001, 0.2)]
    alone = [ClaimTest("other", "y", 0.03, 5, "")]
    assert [claim.supported for claim in judge_page(family + alone)] == [True, False, False]
    assert [claim.supported for claim in judge_page(family[:1] + alone)] == [True, True]


def _probed(accuracy: list[float], control: float, effect: list[float], null: float) -> xr.Dataset:
    """Readings of one concept by seed, at the last step and the site "stream".

    At the first step and at the outputs all readings say the opposite.
    """
    dims = ("seed", "step", "site", "concept")
    elsewhere = np.zeros((len(accuracy), 2, 3, 1))
    elsewhere[:, :, 2], elsewhere[:, 0] = 1, 1

    def reading(values: Any) -> np.ndarray:
        array = elsewhere.copy()
        array[:, 1, 1, 0] = values
        return array

    draws = np.stack([reading(0), reading(null)], axis=-1)
    variables = {
        "probe_accuracy": accuracy,
        "probe_accuracy_control": control,
        "probe_effect": effect,
    }
    return xr.Dataset(
        {
            **{name: (dims, reading(x)) for name, x in variables.items()},
            "probe_effect_null": ((*dims, "draw"), draws),
        },
        {"site": ["embed", "stream", "logits"], "concept": ["a"]},
    )


@pytest.mark.parametrize(
    ("accuracy", "control", "effect", "null", "used", "decodable"),
    [
        ([1.0] * 5, 0.1, [0.5] * 5, 0.3, 3, 2),
        ([1.0] * 4, 0.1, [0.5] * 4, 0.3, 1, 0),
        ([1.0] * 5, 0.1, [0.5, 0.5, 0.5, 0.5, -1.0], 0.3, 0, 0),
        ([1.0] * 5, 0.1, [0.0] * 5, 0.3, 0, 0),
        ([1.0] * 6, 0.1, [-1.0] * 6, 0.3, 0, 2),
        # What the control task reads as well, tokens may carry.
        ([0.95] * 5, 0.95, [0.5] * 5, 0.3, 0, 0),
        ([0.95] * 5, 0.97, [0.5] * 5, 0.3, 0, 0),
        ([0.5, 0.4, 0.5, 0.5, 0.5], 0.1, [0.5] * 5, 0.3, 3, 2),
        ([1.0], 0.1, [0.5], 0.3, 0, 0),
    ],
)
def test_a_concept_is_used_where_erasing_it_beats_random_subspaces_in_every_seed(
    accuracy: list[float],
    control: float,
    effect: list[float],
    null: float,
    used: int,
    decodable: int,
) -> None:
    first, second = probe_claims(_probed(accuracy, control, effect, null))
    assert first.text == "'a' is decodable and used at stream (probe_effect)"
    assert (first.reading, first.level) == ("probe_effect", used)
    assert second.text == "'a' is decodable at stream beyond the control task (probe_accuracy)"
    assert (second.reading, second.level) == ("probe_accuracy", decodable)


def test_p_values_of_probes_are_those_of_their_formulas() -> None:
    first, second = probe_claims(_probed([1.0] * 5, 0.1, [0.5] * 5, 0.3))
    # The two draws of ``_probed`` are 0 and the null.
    assert first.p == pytest.approx((1 / 3) ** 5)
    assert second.p == pytest.approx(1 / 32)


def test_the_reason_of_a_claim_states_its_numbers() -> None:
    first, second = probe_claims(_probed([1.0, 0.95], 0.15, [0.55, 0.44], 0.33))
    assert (
        first.reason
        == "erasing it moves the answers by 0.44 to 0.55 (total variation), random subspaces by up"
        " to 0.33; probe accuracy 0.95 to 1.00, control task 0.15"
    )
    assert (
        second.reason
        == "probe accuracy 0.95 to 1.00, control task 0.15; 2 seeds allow no p-value below 0.25"
    )


def test_claims_on_a_concept_that_is_not_decodable_are_tested_and_not_supported() -> None:
    dataset = _probed([1.0, 0.8, 0.8, 0.8, 0.8], 0.75, [0.4] * 5, 0.3)
    made = probe_claims(dataset)
    assert [(claim.reading, claim.level, claim.contradicted) for claim in made] == [
        ("probe_effect", 0, True),
        ("probe_accuracy", 0, True),
    ]
    assert readout_site(dataset) == "stream"
    assert readout_site(dataset.sel(site=["logits"])) == "logits"
