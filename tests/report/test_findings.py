"""Contents of a report: claims with their level of evidence, the table of numbers, how each reading
was measured, and which figures are drawn.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import tiny_mlp_experiment
from PIL import Image

from mi_jax.cli.main import main
from mi_jax.dynamics import DATES, GROKKING, LIU_2022, Claim, GrokkingRule
from mi_jax.dynamics.significance import shared_draws_needed
from mi_jax.measuring.nulls import EXPLANATION, STRUCTURE, Draws, Nulls
from mi_jax.measuring.registry import EXPENSIVE, READINGS
from mi_jax.report import Figure
from mi_jax.report.catalogue import plans
from mi_jax.report.claims import claims, findings_json
from mi_jax.report.figures import draw_figures
from mi_jax.report.findings import how_measured, numbers_table, summary
from mi_jax.report.inputs import ReportInputs
from mi_jax.report.statements import STATEMENTS, draws_for
from mi_jax.runs.run import Run
from mi_jax.runs.train import train

NAN, INF = float("nan"), float("inf")
Pair = tuple[float, float]
STEPS = [0, 10, 1000]


def _readings(**last: Iterable[float]) -> xr.Dataset:
    """Scalars by seed at the last step; earlier steps hold values that must not be used."""
    columns = {name: np.array(list(values), float) for name, values in last.items()}
    seeds = len(next(iter(columns.values())))
    variables = {
        name: (("seed", "step"), np.stack([-999 + 0 * x, 999 + 0 * x, x], axis=1))
        for name, x in columns.items()
    }
    return xr.Dataset(variables, {"seed": np.arange(seeds) + 3, "step": STEPS})


def _by_seed(*values: Any) -> xr.DataArray:
    return xr.DataArray(np.array(values), {"seed": np.arange(len(values)) + 3}, ("seed",))


def _pairs(*pairs: Pair) -> xr.DataArray:
    """Dates by seed."""
    return xr.DataArray(
        np.array(pairs, float),
        {"seed": np.arange(len(pairs)) + 3, "bound": ["lower", "upper"]},
        ("seed", "bound"),
    )


def _dates(
    memorised: list[Pair],
    generalised: list[Pair],
    verdicts: list[str],
    rule: GrokkingRule = GROKKING,
) -> xr.Dataset:
    return xr.Dataset(
        {
            "memorised": _pairs(*memorised),
            "generalised": _pairs(*generalised),
            "verdict": _by_seed(*verdicts),
        },
        attrs={"level": rule.level, "gap": rule.gap, "gap_unit": rule.unit},
    )


def _renamed(**draws: Any) -> Nulls:
    """Draws of readings with the elements renamed, shape (seed, draw)."""
    return Nulls(xr.Dataset(), xr.Dataset(), renamed=_by_draw(draws))


def _relabelled(**draws: Any) -> Nulls:
    """Draws of readings with the answers relabelled, shape (seed, draw)."""
    return Nulls(xr.Dataset(), xr.Dataset(), relabelled=_by_draw(draws))


def _by_draw(draws: dict[str, Any]) -> xr.Dataset:
    arrays = {name: np.asarray(values, float) for name, values in draws.items()}
    seeds = len(next(iter(arrays.values()))) if arrays else 0
    variables = {name: (("seed", "draw"), values) for name, values in arrays.items()}
    return xr.Dataset(variables, {"seed": np.arange(seeds) + 3})


def _draws(seeds: int, low: float, high: float, count: int = 199) -> np.ndarray:
    return np.tile(np.linspace(low, high, count), (seeds, 1))


# --- Claims


def _claims(dataset: xr.Dataset, nulls: Nulls, dates: xr.Dataset | None = None) -> list[Claim]:
    return claims(ReportInputs(dataset, nulls, xr.Dataset() if dates is None else dates))


def _claim(found: list[Claim], name: str) -> Claim:
    (claim,) = [claim for claim in found if claim.reading == name]
    assert f"({name}" in claim.text
    return claim


@pytest.mark.parametrize(("seeds", "level"), [(1, 1), (3, 1), (5, 2)])
@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("gini_unembedding", 0.25),
        ("gini_embedding", 0.25),
        ("key_mode_share_unembedding", 0.5),
        ("irrep_divergence_embedding", 0.25),
        ("irrep_divergence_unembedding", 0.25),
    ],
)
def test_structure_is_claimed_above_other_orders_of_the_residues_where_it_is_large_enough(
    name: str, least: float, seeds: int, level: int
) -> None:
    null = _renamed(**{name: _draws(seeds, least + 0.1, least + 0.2)})
    beyond, within = least + 0.21, least + 0.15
    claim = _claim(_claims(_readings(**{name: [beyond] * seeds}), null), name)
    assert (claim.level, claim.supported, claim.p) == (level, True, 1 / 200)
    claim = _claim(_claims(_readings(**{name: [beyond] * (seeds - 1) + [within]}), null), name)
    assert (claim.level, claim.supported) == (0, False)
    low = _renamed(**{name: _draws(seeds, 0.0, least - 0.02)})
    small = [beyond] * (seeds - 1) + [least - 0.01]
    claim = _claim(_claims(_readings(**{name: small}), low), name)
    assert (claim.p, claim.supported, claim.contradicted) == (1 / 200, False, True)


@pytest.mark.parametrize(
    ("name", "size", "beyond", "within"),
    [
        ("logit_fve", "logit_fve", 0.9, 0.6),
        ("restricted_loss", "logit_fve", 0.1, 0.9),
        ("excluded_loss", "logit_fve", 0.9, 0.1),
        ("logits_explained", "logits_explained", 0.9, 0.6),
        ("hidden_restricted_loss", "logits_explained", 0.1, 0.9),
        ("hidden_excluded_loss", "logits_explained", 0.9, 0.1),
    ],
)
def test_an_explanation_is_claimed_beyond_relabelled_answers_where_its_share_is_large_enough(
    name: str, size: str, beyond: float, within: float
) -> None:
    null = _relabelled(**{name: _draws(3, 0.3, 0.8, 19)})
    shares = {} if name == size else {size: [0.6, 0.5, 0.9]}
    claim = _claim(_claims(_readings(**{name: [beyond] * 3}, **shares), null), name)
    assert (claim.level, claim.p) == (1, pytest.approx(1 / 20**3))
    assert _claim(_claims(_readings(**{name: [within] * 3}, **shares), null), name).level == 0
    if name != size:
        small = {size: [0.6, 0.49, 0.9]}
        claim = _claim(_claims(_readings(**{name: [beyond] * 3}, **small), null), name)
        assert (claim.level, claim.contradicted) == (0, True)
        assert claim.reason.startswith(f"{size} is below 0.5 in 1 of 3 seeds (least 0.49)")
        unknown = _claim(_claims(_readings(**{name: [beyond] * 3}), null), name)
        assert (unknown.level, unknown.p) == (0, None)


def test_a_share_below_one_half_explains_nothing_whatever_its_null() -> None:
    null = _relabelled(logit_fve=_draws(5, 0.0, 0.001, 19))
    claim = _claim(_claims(_readings(logit_fve=[0.4] * 5), null), "logit_fve")
    assert (claim.level, claim.supported, claim.contradicted) == (0, False, True)


def test_the_reason_says_how_many_seeds_lie_beyond_their_own_draws() -> None:
    draws = _draws(3, 0.1, 0.2, 19)
    draws[1, 4] = 0.7
    claim = _claim(
        _claims(_readings(logit_fve=[0.8, 0.6, 0.8]), _relabelled(logit_fve=draws)), "logit_fve"
    )
    assert claim.p == pytest.approx((2 / 20) ** 3)
    assert (
        claim.reason
        == "2 of 3 seeds lie above all 19 random relabellings of their own answers; median 0.8,"
        " relabelled 0.15; logit_fve is at least 0.5 in every seed; 5 seeds are needed to count as"
        " replicated"
    )


def test_the_page_judges_all_its_claims_together() -> None:
    """A p-value of 1 / 21 holds alone, and not beside another claim that does not hold."""
    null = xr.Dataset(
        {name: ("draw", np.arange(20.0)) for name in ("sharpness", "learning_coefficient")}
    )
    nulls = Nulls(xr.Dataset(), xr.Dataset(), null)
    assert _claim(_claims(_readings(sharpness=[30.0]), nulls), "sharpness").level == 1
    both = _claims(_readings(sharpness=[30.0], learning_coefficient=[5.0]), nulls)
    assert _claim(both, "sharpness").level == 0
    assert _claim(both, "sharpness").p == pytest.approx(1 / 21)


@pytest.mark.parametrize("seeds", [1, 3, 5])
def test_noise_over_many_snapshots_makes_no_claim_of_the_landscape(seeds: int) -> None:
    """Readings and nulls of one distribution: at most one page in twenty makes a claim, where the
    largest of 200 snapshots made it on most pages.
    """
    rng, pages, claimed = np.random.default_rng(seeds), 200, 0
    names = ("learning_coefficient", "sharpness")
    count = shared_draws_needed(seeds, len(names))
    for _ in range(pages):
        readings = {name: (("seed", "step"), rng.normal(size=(seeds, 200))) for name in names}
        null = xr.Dataset({name: ("draw", rng.normal(size=count)) for name in names})
        nulls = Nulls(xr.Dataset(), xr.Dataset(), null)
        claimed += any(claim.level > 0 for claim in _claims(xr.Dataset(readings), nulls))
    assert claimed / pages <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / pages)


def test_where_most_frequencies_are_key_there_is_no_null_and_no_claim() -> None:
    null = _relabelled(logit_fve=np.stack([np.full(19, 0.1), np.full(19, NAN)]))
    claim = _claim(_claims(_readings(logit_fve=[0.9, 0.9]), null), "logit_fve")
    assert (claim.level, claim.p, claim.supported) == (0, None, False)
    assert "no null for the seeds [4]" in claim.reason


def test_where_there_are_few_elements_the_reason_says_which_p_is_the_smallest() -> None:
    null = _renamed(gini_embedding=_draws(5, 0.1, 0.2, 5))
    claim = _claim(_claims(_readings(gini_embedding=[0.9] * 5), null), "gini_embedding")
    assert (claim.level, claim.p) == (0, pytest.approx(1 / 6))
    assert claim.reason.startswith("so few elements allow no p-value below 0.17")


def test_draws_that_leave_the_reading_as_it_is_bound_the_smallest_p() -> None:
    """Of the 120 permutations of five residues, 20 map waves to waves."""
    draws = np.tile([0.1] * 166 + [0.9] * 33, (3, 1))
    claim = _claim(
        _claims(_readings(gini_embedding=[0.9] * 3), _renamed(gini_embedding=draws)),
        "gini_embedding",
    )
    assert (claim.level, claim.p) == (0, pytest.approx(34 / 200))
    assert claim.reason.startswith("so few elements allow no p-value below 0.17, and the best")


def test_the_smallest_p_is_held_against_what_the_best_claim_of_the_page_needs() -> None:
    """19 joint draws are enough for one claim, and too few for two."""
    nulls = _renamed(gini_embedding=np.tile(np.linspace(0.1, 0.2, 19), (3, 1)))
    alone = _claim(_claims(_readings(gini_embedding=[0.9] * 3), nulls), "gini_embedding")
    assert (alone.p, alone.level) == (0.05, 1)
    assert "so few elements" not in alone.reason
    both = _readings(gini_embedding=[0.9] * 3, gini_unembedding=[0.9] * 3)
    # Only the claims that have a null are judged together.
    assert _claim(_claims(both, nulls), "gini_embedding").level == 1
    draws = np.tile(np.linspace(0.1, 0.2, 19), (3, 1))
    nulls = _renamed(gini_embedding=draws, gini_unembedding=draws)
    claim = _claim(_claims(both, nulls), "gini_embedding")
    assert (claim.level, claim.p) == (0, 0.05)
    assert "needs 0.025" in claim.reason


def test_a_size_that_is_not_finite_supports_nothing_and_contradicts_nothing() -> None:
    readings = _readings(restricted_loss=[0.1] * 3, logit_fve=[0.9, NAN, 0.9])
    null = _relabelled(restricted_loss=_draws(3, 3.0, 4.0))
    claim = _claim(_claims(readings, null), "restricted_loss")
    assert (claim.supported, claim.contradicted) == (False, False)
    assert "logit_fve is not finite in 1 of 3 seeds" in claim.reason
    small = _readings(restricted_loss=[0.1] * 3, logit_fve=[0.2, NAN, 0.9])
    assert _claim(_claims(small, null), "restricted_loss").contradicted


def test_readings_on_the_other_side_of_their_null_are_not_supported() -> None:
    null = _renamed(gini_embedding=_draws(3, 0.2, 0.3))
    low = _claim(_claims(_readings(gini_embedding=[0.1] * 3), null), "gini_embedding")
    assert (low.contradicted, low.level) == (True, 0)
    middle = _claim(_claims(_readings(gini_embedding=[0.26] * 3), null), "gini_embedding")
    assert not middle.contradicted


def test_a_null_of_another_kind_backs_no_claim() -> None:
    readings = _readings(logit_fve=[0.9] * 3, gini_embedding=[0.9] * 3)
    untrained = xr.Dataset({"gini_embedding": ("draw", [0.1])})
    null = Nulls(untrained, xr.Dataset(), renamed=_by_draw({"logit_fve": _draws(3, 0.1, 0.2)}))
    assert _claims(readings, null) == []


def test_nothing_is_claimed_without_a_reading() -> None:
    null = _renamed(gini_embedding=_draws(1, 0.1, 0.2))
    assert _claims(_readings(test_loss=[0.1]), null) == []


def test_every_statement_has_a_null_and_a_measure_that_is_read_under_it() -> None:
    by_null = {
        null: {each.reading for each in STATEMENTS if each.null == null}
        for null in ("renamed", "relabelled", "expensive")
    }
    assert by_null["renamed"] == set(STRUCTURE) <= set(READINGS)
    assert by_null["relabelled"] == set(EXPLANATION) <= set(READINGS)
    assert by_null["expensive"] <= {name for each in EXPENSIVE.values() for name in each.variables}


def test_draws_suffice_for_the_claims_of_the_page() -> None:
    many = _readings(**{each.reading: [0.5] for each in STATEMENTS})
    assert draws_for(many) == Draws(renamed=259, relabelled=259, untrained=259)
    five = _readings(**{each.reading: [0.5] * 5 for each in STATEMENTS})
    assert draws_for(five) == Draws(renamed=259, relabelled=19, untrained=6)
    assert draws_for(_readings(test_loss=[0.5] * 5)) == Draws(
        renamed=199, relabelled=19, untrained=5
    )


def test_probes_and_their_effects_make_claims(dataset: xr.Dataset) -> None:
    probed = [name for name in dataset if str(name).startswith("probe")]
    claimed = _claims(_only(dataset, *map(str, probed)), _renamed())
    assert {claim.reading for claim in claimed} == {"probe_effect", "probe_accuracy"}
    assert {claim.text.split("'")[1] for claim in claimed} == {"a", "b"}
    assert _claims(_only(dataset, "probe_accuracy", "probe_effect"), _renamed()) == []


def test_findings_as_json_hold_every_tested_claim() -> None:
    null = _renamed(gini_embedding=_draws(5, 0.2, 0.3), gini_unembedding=_draws(5, 0.2, 0.3))
    readings = _readings(gini_embedding=[0.9] * 5, gini_unembedding=[0.25] * 5)
    made = _claims(readings, null)
    (low, high) = findings_json(made, readings)
    assert (high["reading"], high["level"], high["supported"]) == ("gini_embedding", 2, True)
    assert (low["reading"], low["level"], low["supported"]) == ("gini_unembedding", 0, False)
    assert high["p"] == 1 / 200
    assert high["claim"] == "The embedding is sparse in the Fourier basis (gini_embedding)"
    assert set(high) == {"claim", "reading", "level", "p", "supported"}
    json.dumps(findings_json(made, readings), allow_nan=False)
    readings["gini_embedding"].attrs["stored_name"] = "gini_embedding_own"
    assert findings_json(made, readings)[1]["reading"] == "gini_embedding_own"


_FOUR = _dates(
    [(8, 10), (15, 20), (900, INF), (25, 30)],
    [(8, 10), (800, 900), (60, 70), (900, INF)],
    ["generalised at once", "grokked", "generalised without memorising", "did not grok"],
)


def test_grokking_is_observed_and_counted_by_seed() -> None:
    (claim,) = _claims(_readings(test_loss=[0.1] * 4), _renamed(), _FOUR)
    assert claim.text == (
        "The network groks: test accuracy reaches 0.99 at 2 times the step of training accuracy or"
        " later"
    )
    assert (claim.level, claim.reason) == (
        0,
        "observed in 1 of 4 seeds; there is no null to compare a date with",
    )
    published = _FOUR.assign_attrs(level=0.9, gap=1000.0, gap_unit="steps")
    (claim,) = _claims(_readings(test_loss=[0.1] * 4), _renamed(), published)
    assert "reaches 0.9 at 1,000 steps after training accuracy" in claim.text


def test_grokking_in_no_seed_is_contradicted_unless_a_seed_is_undecided() -> None:
    for verdict, contradicted in (("did not grok", True), ("undecided", False)):
        dates = _dates([(8, 10)], [(900, INF)], [verdict])
        (claim,) = _claims(_readings(test_loss=[0.1]), _renamed(), dates)
        assert (claim.reading, claim.contradicted) == ("generalised", contradicted)


def test_the_summary_counts_seeds_of_each_kind_and_leaves_none_out_of_the_medians() -> None:
    assert summary(_FOUR) == (
        "Of 4 seeds, 1 grokked, 1 generalised at once, 1 generalised without memorising and 1"
        " memorised without generalising. They memorised in the median between 20 and 25 [from 8"
        " on; range, 87.5 %; dated in 3 of 4 seeds], and generalised in the median between 430 and"
        " 485 [from 8 on; range, 87.5 %; dated in 3 of 4 seeds]."
    )
    all_grokked = _dates([(8, 10)] * 2, [(800, 900)] * 2, ["grokked"] * 2)
    assert summary(all_grokked).startswith("All 2 seeds grokked. They memorised in the median")
    none_learned = _dates([(900, INF)] * 2, [(900, INF)] * 2, ["did not memorise"] * 2)
    assert summary(none_learned).startswith("Of 2 seeds, 2 did not memorise. They memorised in the")
    one_of_three = _dates(
        [(8, 10)] * 3, [(800, 900), (6000, INF), (6000, INF)], ["grokked", *["did not grok"] * 2]
    )
    assert "generalised in the median later than 6,000 [from 800 on; " in summary(one_of_three)


def test_the_summary_of_one_seed_has_its_dates_without_a_median() -> None:
    assert summary(_dates([(8, 10)], [(900, INF)], ["did not grok"])) == (
        "This run memorised without generalising. It memorised between 8 and 10, and had not"
        " generalised by step 900."
    )
    assert summary(_dates([(-INF, 10)], [(60, 70)], ["undecided"])) == (
        "This run generalised, whether at once or not is undecided. It memorised by step 10, and"
        " generalised between 60 and 70."
    )


def test_a_run_on_fresh_examples_is_dated_by_its_test_accuracy() -> None:
    start = "This run, with no training set to memorise,"
    dates = xr.Dataset({"generalised": _pairs((90, 100), (900, INF), (200, 300))})
    dates.attrs |= {"level": 0.99, "gap": 2.0, "gap_unit": "ratio"}
    assert summary(dates) == (
        f"{start} reached 0.99 test accuracy in the median between 200 and 300 [from 90 on; range,"
        " 75 %; dated in 2 of 3 seeds]."
    )
    assert (
        summary(dates.isel(seed=[1])) == f"{start} had not reached 0.99 test accuracy by step 900."
    )
    assert summary(xr.Dataset()).startswith("Readings of every snapshot")


# --- Numbers


def _table(*arguments: Any) -> dict[str, list[str]]:
    rows = numbers_table(*arguments)
    assert len({len(cells) for _, cells in rows}) == 1, "one cell per seed, and the interval"
    return dict(rows)


def test_dates_are_between_snapshots_and_open_ones_stay_in_the_medians() -> None:
    dates = _dates(
        [(10, 12), (-INF, 10), (1200, 1234)],
        [(8000, 9000), (10_000, INF), (9000, 10_000)],
        ["grokked", "did not grok", "grokked"],
        LIU_2022,
    )
    dates["circuit_formation_end"] = _pairs((100, 200), (NAN, NAN), (300, 400))
    dates["cleanup_end"] = _pairs((8000, 9000), (NAN, NAN), (9000, 10_000))
    table = _table(_readings(test_loss=[0.1] * 3), dates)
    assert table["seed"] == ["3", "4", "5", "median [interval]"]
    assert table["verdict"] == ["grokked", "did not grok", "grokked", ""]
    assert table["memorised, step"] == [
        "between 10 and 12",
        "by step 10",
        "between 1,200 and 1,234",
        "between 10 and 12 [up to 1,234; range, 75 %]",
    ]
    assert table["circuit formation ended, step"][1:] == [
        "none",
        "between 300 and 400",
        "between 200 and 300 [from 100 to 400; range, 50 %; dated in 2 of 3 seeds]",
    ]
    assert table["generalised, step"] == [
        "between 8,000 and 9,000",
        "later than 10,000",
        "between 9,000 and 10,000",
        "between 9,000 and 10,000 [from 8,000 on; range, 75 %; dated in 2 of 3 seeds]",
    ]
    # The median of the differences by seed, not the difference of the medians.
    assert table["memorised to generalised, steps"] == [
        "between 7,988 and 8,990",
        "more than 9,990",
        "between 7,766 and 8,800",
        "between 7,988 and 8,990 [from 7,766 on; range, 75 %; dated in 2 of 3 seeds]",
    ]


def test_scalars_are_those_of_the_last_step_with_units() -> None:
    dataset = _readings(test_loss=[0.00012346, NAN, 0.5], gini_embedding=[0.25, 0.5, 0.75])
    dataset["test_loss"].attrs["units"] = "nats"
    table = _table(dataset, xr.Dataset())
    assert table["test_loss, nats"] == [
        "0.0001235",
        "not finite",
        "0.5",
        "0.2501 [0.0001235, 0.5; range, 50 %; 2 of 3]",
    ]
    assert table["gini_embedding"] == ["0.25", "0.5", "0.75", "0.5 [0.25, 0.75; range, 75 %]"]


def test_a_flag_is_up_or_not() -> None:
    flag = _readings(diverged=[0, 1]).astype(bool)
    assert numbers_table(flag, xr.Dataset())[1:] == [("diverged", ["no", "yes", ""])]


def test_an_interval_says_what_it_covers_and_one_seed_has_none() -> None:
    table = _table(_readings(x=[1.0, 2, 3, 4, 5, 6, 7, 8, 9]), xr.Dataset())
    assert table["x"][-1] == "5 [2, 8; 96.1 %]"
    assert _table(_readings(x=[1.0, NAN, NAN]), xr.Dataset())["x"][-1] == "1 [1 of 3]"
    assert _table(_readings(x=[1.0]), xr.Dataset())["x"] == ["1", ""]


def test_a_reading_that_no_seed_has_is_not_finite_and_no_date() -> None:
    assert "never" not in _table(_readings(test_loss=[NAN, NAN]), xr.Dataset())["test_loss"]


def test_key_frequencies_are_listed_where_they_are_few() -> None:
    masks = np.zeros((2, 3, 20), bool)
    masks[0, :2], masks[0, 2, [3, 6]], masks[1, 2, :13] = True, True, True
    dataset = _readings(test_loss=[0.1] * 2).assign_coords(frequency=np.arange(1, 21))
    dataset["key_frequencies"] = (("seed", "step", "frequency"), masks)
    dataset["fourier_power_embedding"] = (("seed", "step", "frequency"), masks.astype(float))
    table = _table(dataset, xr.Dataset())
    assert table["key_frequencies"] == ["4, 7", "13 frequencies", ""]
    assert "fourier_power_embedding" not in table


def test_how_it_was_measured_states_options_source_and_use_of_the_final_model() -> None:
    dataset = _readings(a=[1.0], b=[1.0])
    provenance = {
        "options": {"keys": "final", "table": "W_L"},
        "retrospective": True,
        "source": "arXiv 2301.05217",
    }
    dataset["a"].attrs["provenance"] = json.dumps(provenance)
    dataset["b"].attrs["provenance"] = json.dumps(
        {"options": {}, "retrospective": False, "source": ""}
    )
    assert how_measured(dataset) == [
        ("a", "retrospective (uses the final model); keys: final, table: W_L; arXiv 2301.05217"),
        ("b", "online"),
    ]


def test_the_variables_of_one_measure_share_a_row_with_the_numbers_prepared_for_all_seeds() -> None:
    dataset = _readings(x=[1.0], x_se=[1.0], y=[1.0])
    prepared = {
        "x_n_beta": {"0": 66.20507, "1": 66.20507},
        "x_examples": {"0": [1, 2], "1": [1, 2]},
        "x_n": {"0": 3, "1": 4},
    }
    provenance = {
        "measure": "x",
        "options": {"gamma": 2.0, "entry": None, "parameters": []},
        "retrospective": False,
        "source": "",
    }
    for name in ("x", "x_se"):
        dataset[name].attrs["provenance"] = json.dumps({**provenance, "prepared": prepared})
    dataset["y"].attrs["provenance"] = json.dumps({**provenance, "measure": "y"})
    assert how_measured(dataset) == [
        ("x, _se", "online; gamma: 2.0, n_beta: 66.21"),
        ("y", "online; gamma: 2.0"),
    ]


# --- Figures

_P, _KEY = 7, 2


@pytest.fixture(scope="module")
def dataset() -> xr.Dataset:
    rng = np.random.default_rng(0)
    scalars = (
        "train_loss",
        "test_loss",
        "train_accuracy",
        "test_accuracy",
        "restricted_loss",
        "excluded_loss",
    )
    scalars += ("gini_embedding", "gini_unembedding")
    by_frequency = (
        "fourier_power_embedding",
        "fourier_power_unembedding",
        "excluded_loss_by_frequency",
        "cluster_sizes",
    )
    variables: dict[str, Any] = {
        name: (("seed", "step"), rng.uniform(0.1, 1, (2, 3))) for name in scalars
    }
    variables |= {
        name: (("seed", "step", "frequency"), rng.uniform(0.1, 1, (2, 3, 3)))
        for name in by_frequency
    }
    variables |= {
        "key_frequencies": (
            ("seed", "step", "frequency"),
            np.tile(np.arange(1, 4) == _KEY, (2, 3, 1)),
        ),
        "sum_squared_weights_by_parameter": (
            ("seed", "step", "parameter"),
            rng.uniform(1, 9, (2, 3, 2)),
        ),
        "singular_values_unembedding": (("seed", "step", "mode"), rng.uniform(1, 9, (2, 3, 4))),
        "attention_pattern": (
            ("seed", "step", "layer", "head", "key"),
            rng.uniform(size=(2, 3, 1, 2, 3)),
        ),
        "probe_effect_null": (
            ("seed", "step", "site", "concept", "draw"),
            rng.uniform(0.1, 0.2, size=(2, 3, 2, 2, 3)),
        ),
    }
    for name, value in (
        ("probe_accuracy", 1.0),
        ("probe_accuracy_control", 0.5),
        ("probe_effect", 0.9),
    ):
        variables[name] = (("seed", "step", "site", "concept"), np.full((2, 3, 2, 2), value))
    coords = {
        "seed": [3, 4],
        "step": STEPS,
        "frequency": [1, 2, 3],
        "parameter": ["unembed.W_U", "embed.W_E"],
    }
    coords |= {"site": ["stream", "logits"], "concept": ["a", "b"]}
    return xr.Dataset(variables, coords)


@pytest.fixture(scope="module")
def pictures() -> xr.Dataset:
    rng = np.random.default_rng(1)
    pairs = ("seed", "step", "token", "token_other")
    variables: dict[str, Any] = {
        "answer_surface": (pairs, rng.normal(size=(2, 2, _P, _P))),
        "trained_pairs": (pairs, (rng.uniform(size=(2, 2, _P, _P)) < 0.5).astype(float)),
        "circle_coordinates": (
            ("seed", "step", "frequency", "token", "direction"),
            rng.normal(size=(2, 2, 3, _P, 2)),
        ),
    }
    return xr.Dataset(variables, {"seed": [3, 4], "step": [0, 1000], "frequency": [1, 2, 3]})


_TITLES = {
    "progress": "The circuit under the loss",
    "loss": "Loss",
    "accuracy": "Accuracy",
    "seeds": "Seeds aligned at generalising",
    "frequencies": "Frequencies of the unembedding (seed 3)",
    "frequencies_embedding": "Frequencies of the embedding (seed 3)",
    "spectra": "Final Fourier spectra (seed 3)",
    "gini": "Sparsity in the Fourier basis",
    "excluded_by_frequency": "Loss without each frequency (seed 3)",
    "clusters": "Neurons by frequency at the end (seed 3)",
    "neuron_flow": "Neurons by frequency over training (seed 3)",
    "attention": "Attention (seed 3)",
    "norms": "Size of the weights (seed 3)",
    "singular_values": "Singular values of the unembedding (seed 3)",
    "surface": "Right and wrong answers for all pairs (seed 3)",
    "circles": "The embedding on its circles (seed 3)",
    "decodable_and_used": "Concepts decodable and used at stream",
    "probe_map": "Where concepts are decodable, and where they are used",
}
_FILM = "The circles forming over training (seed 3)"


def _only(dataset: xr.Dataset, *names: str) -> xr.Dataset:
    return dataset.drop_vars(set(dataset.data_vars) - set(names))


def _drawn(
    folder: Path,
    dataset: xr.Dataset,
    pictures: xr.Dataset | None = None,
    *,
    frames: bool = False,
    dated: bool = True,
) -> list[Figure]:
    nothing = xr.Dataset()
    seeds = dataset.sizes["seed"]
    dates, born = xr.Dataset(), None
    if dated:
        dates = _dates([(1, 5)] * seeds, [(100, 500)] * seeds, ["grokked"] * seeds)
        dates["circuit_formation_end"] = _pairs(*[(20, 100)] * seeds)
        dates["cleanup_end"] = dates["generalised"]
        if "frequency" in dataset.coords:
            born = _pairs(*[(1, 5)] * seeds).expand_dims(frequency=dataset["frequency"].values)
    shown = nothing if pictures is None else pictures
    inputs = ReportInputs(
        dataset,
        dates=dates,
        births=born,
        pictures=shown,
        frames=shown if frames else nothing,
    )
    return draw_figures(folder, inputs)


@pytest.fixture(scope="module")
def all_drawn(
    dataset: xr.Dataset, pictures: xr.Dataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Figure]]:
    folder = tmp_path_factory.mktemp("figures")
    return folder, _drawn(folder, dataset, pictures, frames=True)


def test_with_every_reading_every_figure_is_drawn_story_first_film_last(
    all_drawn: tuple[Path, list[Figure]],
) -> None:
    folder, figures = all_drawn
    assert [figure.title for figure in figures] == [*_TITLES.values(), _FILM]
    expected = {f"{name}.{kind}" for name in _TITLES for kind in ("png", "svg", "nc")} | {
        "circles.gif",
        "circles_film.nc",
    }
    assert {file.name for file in folder.iterdir()} == expected
    for figure in figures:
        assert figure.alt
        assert figure.caption
        with Image.open(figure.file) as picture:
            picture.load()


_MARKS = {
    **{name: {*DATES} for name in ("progress", "loss", "accuracy")},
    "seeds": {"generalised"},
    "frequencies": {"births", "final_keys"},
    **{
        name: {"final_keys"}
        for name in ("frequencies_embedding", "excluded_by_frequency", "neuron_flow", "circles")
    },
}
"""By figure, the marks on it beside its readings and their nulls."""


def _needs(folder: Path, name: str) -> list[str]:
    with xr.open_dataset(folder / f"{name}.nc", engine="h5netcdf") as data:
        return sorted(
            {str(variable) for variable in data.data_vars if not str(variable).startswith("null_")}
            - _MARKS.get(name, set())
        )


def test_beside_a_figure_is_the_data_in_it(
    all_drawn: tuple[Path, list[Figure]], dataset: xr.Dataset, pictures: xr.Dataset
) -> None:
    folder, figures = all_drawn
    for figure in figures:
        needs = _needs(folder, figure.data.removesuffix(".nc"))
        assert needs
        with xr.open_dataset(folder / figure.data, engine="h5netcdf") as data:
            for name in needs:
                np.testing.assert_array_equal(
                    data[name], dataset[name] if name in dataset else pictures[name]
                )


@pytest.mark.parametrize("name", sorted(_MARKS))
def test_beside_a_figure_is_what_is_marked_on_it(
    all_drawn: tuple[Path, list[Figure]], name: str
) -> None:
    with xr.open_dataset(all_drawn[0] / f"{name}.nc", engine="h5netcdf") as data:
        assert _MARKS[name] <= {str(variable) for variable in data.data_vars}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in _TITLES if name != "circles"])
def test_a_figure_needs_its_data_and_no_more(
    all_drawn: tuple[Path, list[Figure]],
    dataset: xr.Dataset,
    pictures: xr.Dataset,
    name: str,
    tmp_path: Path,
) -> None:
    """A figure is drawn from its own readings alone, and not without any of them."""
    needs = _needs(all_drawn[0], name)
    read, shown = (
        [variable for variable in needs if variable in source] for source in (dataset, pictures)
    )
    alone = _drawn(tmp_path, _only(dataset, *read), _only(pictures, *shown))
    assert _TITLES[name] in [figure.title for figure in alone]
    for missing in needs:
        figures = _drawn(
            tmp_path, _only(dataset, *{*read} - {missing}), _only(pictures, *{*shown} - {missing})
        )
        assert _TITLES[name] not in [figure.title for figure in figures]


def test_circles_need_key_frequencies_to_be_drawn_in(
    dataset: xr.Dataset, pictures: xr.Dataset, tmp_path: Path
) -> None:
    some = _only(dataset, "key_frequencies")
    circles = _only(pictures, "circle_coordinates")
    assert [figure.title for figure in _drawn(tmp_path, some, circles, frames=True)] == [
        _TITLES["circles"],
        _FILM,
    ]
    for without in (_only(dataset), some & False):
        assert _drawn(tmp_path, without, circles, frames=True) == []


def test_one_seed_or_no_dates_leave_no_panel_of_seeds(dataset: xr.Dataset, tmp_path: Path) -> None:
    curve = _only(dataset, "test_accuracy")
    assert [figure.title for figure in _drawn(tmp_path, curve)] == [_TITLES["seeds"]]
    assert _drawn(tmp_path, curve.isel(seed=[0])) == []


def test_where_no_seed_grokked_there_is_no_clock_of_grokking(
    dataset: xr.Dataset, tmp_path: Path
) -> None:
    curve = _only(dataset, "test_accuracy")
    never = _dates([(1, 5)] * 2, [(1000, INF)] * 2, ["did not grok"] * 2)
    assert draw_figures(tmp_path, ReportInputs(curve, dates=never)) == []


def test_a_coefficient_of_some_parameters_has_its_own_figure_and_no_band_without_a_null(
    tmp_path: Path,
) -> None:
    names = ("learning_coefficient", "learning_coefficient_unembed.*")
    ends = (
        "",
        "_se",
        *(f"_{flag}" for flag in ("diverged", "epsilon_too_large", "negative", "unmixed")),
    )
    read = _readings(train_loss=[1.0], **{f"{name}{end}": [1.0] for name in names for end in ends})
    read[f"{names[1]}_loss_trace"] = read["train_loss"]
    read[names[0]].attrs["provenance"] = json.dumps({"options": {"gamma": 7.0, "n_beta": None}})
    whole, part, *_ = draw_figures(tmp_path, ReportInputs(read))
    assert whole.title == "The learning coefficient beside the loss"
    assert "(gamma 7.0)" in whole.caption
    assert "Band" not in whole.caption
    assert part.title == "learning_coefficient_unembed.* beside the loss"
    assert (tmp_path / "learning_coefficient_unembed._.png").is_file()


def test_without_a_training_set_the_test_curves_stand_alone(
    dataset: xr.Dataset, tmp_path: Path
) -> None:
    curves = _only(dataset, "test_accuracy", "test_loss")
    assert [figure.title for figure in _drawn(tmp_path, curves, dated=False)] == [
        "Test loss",
        "Test accuracy",
    ]
    trained = _only(dataset, "test_accuracy", "test_loss", "train_loss")
    assert [figure.title for figure in _drawn(tmp_path, trained, dated=False)] == [_TITLES["loss"]]


def test_neurons_that_belong_to_no_frequency_make_no_empty_picture(
    dataset: xr.Dataset, tmp_path: Path
) -> None:
    clusters = _only(dataset, "cluster_sizes", "key_frequencies")
    drawn = {figure.title for figure in _drawn(tmp_path, clusters)}
    assert {_TITLES["clusters"], _TITLES["neuron_flow"]} <= drawn
    none = clusters.assign(cluster_sizes=0 * clusters["cluster_sizes"])
    assert not {_TITLES["clusters"], _TITLES["neuron_flow"]} & {
        figure.title for figure in _drawn(tmp_path, none)
    }


def test_a_network_with_one_output_has_no_picture_of_its_modes(
    dataset: xr.Dataset, tmp_path: Path
) -> None:
    values = _only(dataset, "singular_values_unembedding")
    assert _TITLES["singular_values"] in [figure.title for figure in _drawn(tmp_path, values)]
    assert _drawn(tmp_path, values.isel(mode=[0])) == []


def test_a_null_with_fewer_modes_than_its_reading_is_beside_it(
    dataset: xr.Dataset, tmp_path: Path
) -> None:
    """A reading has more modes than its null where those of every array were read too: some arrays
    have more.
    """
    null = xr.Dataset({"singular_values_unembedding": (("draw", "mode"), np.ones((5, 3)))})
    values = _only(dataset, "singular_values_unembedding")
    figures = draw_figures(tmp_path, ReportInputs(values, Nulls(null, xr.Dataset())))
    assert [figure.title for figure in figures] == [_TITLES["singular_values"]]
    with xr.open_dataset(tmp_path / "singular_values.nc", engine="h5netcdf") as data:
        assert data.sizes["mode"] == 4
        np.testing.assert_array_equal(
            data["null_singular_values_unembedding"][0], [1, 1, 1, np.nan]
        )


def test_wrong_labels_have_a_figure_of_their_own(dataset: xr.Dataset, tmp_path: Path) -> None:
    curve = dataset["test_accuracy"]
    readings = _only(dataset, "test_accuracy").assign(
        {f"{kind}_accuracy": curve for kind in ("clean", "memorised", "corrected")}
    )
    assert "Accuracy on mislabelled examples" in [
        figure.title for figure in _drawn(tmp_path, readings)
    ]


def test_without_readings_there_is_no_figure(tmp_path: Path, dataset: xr.Dataset) -> None:
    assert _drawn(tmp_path, _only(dataset)) == []
    assert not list(tmp_path.iterdir())


def test_without_readings_report_fails_and_says_how_to_measure(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "nulls", lambda self, claims: Nulls(xr.Dataset(), xr.Dataset()))
    run = train(tiny_mlp_experiment(seeds=(0,), steps=4), tmp_path / "run")
    assert main(["report", str(run.path)]) == 2
    assert "mi-jax measure" in capsys.readouterr().err


def test_every_figure_has_texts_readings_and_a_file_name_of_its_own(dataset: xr.Dataset) -> None:
    every = plans(ReportInputs(dataset))
    assert len({plan.name for plan in every}) == len(every) > 20
    for plan in every:
        assert plan.title, plan.name
        assert plan.caption.endswith("."), plan.name
        assert plan.alt.endswith("."), plan.name
        assert plan.needs, plan.name
