"""No date moves with the budget: networks of every kind and random curves, cut at several steps.

What is dated with a finite upper bound has happened; it is the same for every longer training. An
open date may only narrow, and nothing is dated at the end of training for being the end.
"""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import tiny_mlp_experiment
from hypothesis import given, settings
from hypothesis import strategies as st
from recording import record

from mi_jax.dynamics import (
    DATES,
    GROKKING,
    LIU_2022,
    GrokkingRule,
    date_interval,
    grokking_dates,
)
from mi_jax.models import MLP
from mi_jax.runs.dates import CURVES, run_dates
from mi_jax.runs.experiment import Experiment
from mi_jax.runs.fork import fork
from mi_jax.runs.train import train
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import SGD, AdamW, every

RULES = (GROKKING, LIU_2022, GrokkingRule(level=0.5, gap=3.0))


def _experiment(fraction: float, optimizer: AdamW | SGD, **changes: Any) -> Experiment:
    settings_of_run = {"model": MLP(width=96), "seeds": (0, 3), "schedule": every(20)}
    return tiny_mlp_experiment(
        task=ModularArithmetic(p=23, fraction=fraction),
        optimizer=optimizer,
        **{**settings_of_run, **changes},
    )


KINDS: dict[str, tuple[Experiment, str]] = {
    "groks": (_experiment(0.7, AdamW(learning_rate=1e-2)), "grokked"),
    "generalises at once": (
        _experiment(0.97, AdamW(learning_rate=1e-2, weight_decay=3.0)),
        "generalised at once",
    ),
    "memorises only": (
        _experiment(0.3, AdamW(learning_rate=1e-2, weight_decay=0.0)),
        "did not grok",
    ),
    "never memorises": (_experiment(0.5, AdamW(learning_rate=1e-6)), "did not memorise"),
    "diverges": (_experiment(0.5, SGD(learning_rate=1e6)), "diverged"),
}
"""By kind, a run of it and the verdict on its seeds within 440 steps."""
BUDGETS = (60, 140, 260, 360, 440)


def _moved(budgets: list[xr.Dataset]) -> list[str]:
    """Every date that a longer training changed although it had happened, or widened."""
    moved: list[str] = []
    for i, shorter in enumerate(budgets):
        for longer in budgets[i + 1 :]:
            for name in DATES:
                pairs = zip(shorter[name].values, longer[name].values, strict=True)
                moved += [
                    f"{name}: {before.tolist()} became {after.tolist()}"
                    for before, after in pairs
                    if not _holds(before, after)
                ]
    return moved


def _holds(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether a date of a longer training agrees with that of a shorter one."""
    if np.isnan(before).all() or np.isfinite(before[1]):
        return np.array_equal(before, after, equal_nan=True)
    return bool(np.isnan(after).all() or (before[0] <= after[0] and after[1] <= before[1]))


def _medians_hold(budgets: list[xr.Dataset]) -> None:
    """A median that has happened for good stays, however many seeds are still open."""
    for name in ("memorised", "generalised"):
        middles = [date_interval(dates[name]).middle for dates in budgets]
        for before, after in pairwise(middles):
            assert before[0] <= after[0], name
            assert after[1] <= before[1], name


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["groks", "generalises at once", "memorises only"])
def test_no_date_of_a_run_moves_when_it_is_trained_longer(kind: str, tmp_path: Path) -> None:
    """Each budget is a run of its own, trained from the start to there."""
    experiment, verdict = KINDS[kind]
    curves = [
        train(replace(experiment, steps=budget), tmp_path / str(budget)).measure(CURVES)
        for budget in BUDGETS
    ]
    for rule in RULES:
        budgets = [grokking_dates(dataset, rule) for dataset in curves]
        assert _moved(budgets) == []
        _medians_hold(budgets)
        for budget, dates in zip(BUDGETS, budgets, strict=True):
            at_budget = [name for name in DATES if (dates[name].sel(bound="lower") == budget).any()]
            for name in at_budget:
                open_there = dates[name].sel(bound="lower") == budget
                assert np.isposinf(dates[name].sel(bound="upper").where(open_there, np.inf)).all()
    last = grokking_dates(curves[-1])
    assert set(last["verdict"].values) == {verdict}


def test_no_date_of_a_run_moves_however_it_is_cut(tmp_path: Path) -> None:
    """The short version: one run that groks, cut at every snapshot, and a fork with its history."""
    experiment, verdict = KINDS["groks"]
    run = train(replace(experiment, steps=440), tmp_path / "run")
    dataset = run.measure(CURVES)
    for rule in RULES:
        cut = [
            grokking_dates(dataset.isel(step=slice(None, end)), rule)
            for end in range(1, dataset.sizes["step"] + 1)
        ]
        assert _moved(cut[::3]) == []
        _medians_hold(cut)
    assert set(grokking_dates(dataset)["verdict"].values) == {verdict}
    longer = fork(run, step=440, steps=500, out=tmp_path / "longer")
    readings = longer.read(CURVES, longer.steps)
    assert _moved([grokking_dates(dataset), run_dates(longer, readings=readings)]) == []


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_no_date_of_ten_seeds_moves_up_to_ten_times_the_budget(kind: str, tmp_path: Path) -> None:
    """The whole: every kind with ten seeds; gives the table of docs/calibration.md its rows."""
    experiment, _ = KINDS[kind]
    budgets: list[xr.Dataset] = []
    for budget in (60, 140, 360, 1000, 3600):
        changed = replace(experiment, steps=budget, seeds=tuple(range(10)))
        run = train(changed, tmp_path / str(budget))
        budgets.append(grokking_dates(run.measure(CURVES)))
    happened = sum(
        int(np.isfinite(dates[name].sel(bound="upper")).sum())
        for dates in budgets
        for name in DATES
    )
    moved = len(_moved(budgets))
    record("budgets", {"kind": kind, "dates that had happened": happened, "moved": moved})
    assert moved == 0


_STEPS = np.unique(np.geomspace(1, 10_000, 24).astype(int))


@st.composite
def _curves(draw: st.DrawFn) -> xr.Dataset:
    """Curves as they occur: rising, noisy, spiking, falling back, ending in NaN."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = len(_STEPS)
    names = ("train_accuracy", "test_accuracy")
    curves: dict[str, np.ndarray] = {}
    for name in names:
        middle, width = rng.uniform(0, 1.5 * count), rng.uniform(0.1, 4)
        rise = 1 / (1 + np.exp(-(np.arange(count) - middle) / width))
        noise = draw(st.sampled_from([0.0, 0.02, 0.3])) * rng.standard_normal(count)
        curves[name] = np.clip(rise + noise, 0, 1)
    log_loss = np.cumsum(rng.standard_normal(count)) * draw(st.sampled_from([0.0, 0.5, 3.0]))
    curves["test_loss"] = np.exp(log_loss)
    if draw(st.booleans()):
        for values in curves.values():
            values[int(rng.integers(1, count)) :] = math.nan
    begin = draw(st.sampled_from([0, 0, 5]))
    steps = _STEPS[begin:] - (_STEPS[0] if begin == 0 else 0)
    variables = {name: (("seed", "step"), values[None, begin:]) for name, values in curves.items()}
    return xr.Dataset(variables, {"seed": [0], "step": steps})


@settings(deadline=None, max_examples=40)
@given(_curves(), st.sampled_from(RULES))
def test_no_date_of_random_curves_moves_at_any_cut(curves: xr.Dataset, rule: GrokkingRule) -> None:
    cut = [
        grokking_dates(curves.isel(step=slice(None, end)), rule)
        for end in range(1, curves.sizes["step"] + 1)
    ]
    for shorter, longer in pairwise(cut):
        assert _moved([shorter, longer]) == []
