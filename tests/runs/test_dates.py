"""Dates of runs, forks and zooms: those of the history, whatever folder they are read of."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from conftest import tiny_mlp_experiment

from mi_jax.dynamics import DATES, date_differences, grokking_dates
from mi_jax.interventions import Change
from mi_jax.models import MLP
from mi_jax.runs.compare import compare, shifts_json
from mi_jax.runs.dates import CURVES, dates_json, run_dates, verdicts_json
from mi_jax.runs.fork import fork, zoom
from mi_jax.runs.run import Run, open_run
from mi_jax.runs.train import train
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import Storage, every

PARENT = tiny_mlp_experiment(
    task=ModularArithmetic(p=23, fraction=0.7),
    model=MLP(width=96),
    seeds=(0, 3),
    steps=500,
    schedule=every(20),
    storage=Storage(states=4),
)
"""Memorises between steps 20 and 40, and generalises between 320 and 360."""


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = train(PARENT, tmp_path_factory.mktemp("runs") / "parent")
    run.measure(CURVES)
    return run


@pytest.fixture(scope="module")
def forked(parent: Run) -> Run:
    """A fork, without decay, after memorising and before generalising."""
    change = Change("optimizer.weight_decay", 0.0, start=120)
    run = fork(parent, step=84, interventions=[change], out=parent.path.parent / "fork")
    run.measure(CURVES)
    return run


def _equal(dates: xr.Dataset, others: xr.Dataset, names: tuple[str, ...] = DATES) -> None:
    for name in names:
        np.testing.assert_array_equal(dates[name], others[name], err_msg=name)


def test_a_fork_has_the_dates_of_its_parent_for_what_happened_before_it(
    parent: Run, forked: Run
) -> None:
    ours, theirs = (run_dates(run) for run in (forked, parent))
    assert (theirs["memorised"].sel(bound="upper") < 84).all()
    _equal(ours, theirs, ("memorised",))
    alone = grokking_dates(forked.measures)
    assert np.isneginf(alone["memorised"].sel(bound="lower")).all()


def test_a_fork_that_repeats_its_parent_has_all_of_its_dates_and_so_has_a_fork_of_it(
    parent: Run, tmp_path: Path
) -> None:
    same = fork(parent, step=84, out=tmp_path / "same")
    again = fork(same, step=210, out=tmp_path / "again")
    # Ancestors need not have been measured, and nothing is written into them.
    for run in (same, again):
        read = run.read(CURVES, run.steps)
        dates, theirs = run_dates(run, readings=read), run_dates(parent)
        late = grokking_dates(read)["generalised"]
        _equal(dates, theirs, ("memorised",))
        # A snapshot at the step of the fork narrows dates around it, and moves none.
        for name in DATES:
            low, high = dates[name].values.T
            low_before, high_before = theirs[name].values.T
            assert ((low >= low_before) | np.isnan(low)).all()
            assert ((high <= high_before) | np.isnan(high)).all()
        assert late.dims == dates["generalised"].dims
    assert not (same.path / "measures").exists()


def test_a_zoom_has_the_dates_of_its_history(parent: Run, tmp_path: Path) -> None:
    upper = int(run_dates(parent)["generalised"].values[0, 1])
    zoomed = zoom(parent, around=upper - 10, every=1, width=10, out=tmp_path / "zoom")
    zoomed.measure(CURVES)
    dates, theirs = run_dates(zoomed), run_dates(parent)
    _equal(dates, theirs, ("memorised",))
    low, high = dates["generalised"].values[0]
    assert high - low == 1
    assert theirs["generalised"].values[0, 0] <= low < high <= upper


def test_without_its_parent_what_happened_before_a_fork_is_open_below(
    parent: Run, tmp_path: Path
) -> None:
    moved = open_run(shutil.copytree(parent.path, tmp_path / "parent"))
    alone = fork(moved, step=84, steps=120, out=tmp_path / "fork")
    shutil.rmtree(moved.path)
    readings = alone.read(CURVES, alone.steps)
    memorised = dates_json(run_dates(alone, readings=readings))["memorised"]
    assert memorised["seeds"] == {"0": [None, 84], "3": [None, 84]}
    assert memorised["interval"] == [None, 84]
    # It is known to be a fork that goes its own way, although its parent is not there.
    assert alone.parent is not None
    assert alone.record["parent"]["departs"] is alone.departs is False
    changed = Change("optimizer.weight_decay", 0.0, start=120)
    moved = open_run(shutil.copytree(parent.path, tmp_path / "again"))
    other = fork(moved, step=84, steps=130, interventions=[changed], out=tmp_path / "changed")
    shutil.rmtree(moved.path)
    assert open_run(other.path).departs


def test_runs_opened_as_one_have_the_dates_of_each_though_one_lacks_its_parent(
    tmp_path: Path,
) -> None:
    forks: list[Run] = []
    for seed in PARENT.seeds:
        run = train(dataclasses.replace(PARENT, seeds=(seed,), steps=140), tmp_path / f"p{seed}")
        forks.append(fork(run, step=84, steps=120, out=tmp_path / f"f{seed}"))
        forks[-1].measure(CURVES)
    alone = [run_dates(run) for run in forks]
    shutil.rmtree(tmp_path / "p3")
    joined = run_dates(open_run([run.path for run in forks]))
    _equal(joined.sel(seed=[0]), alone[0])
    assert joined["memorised"].sel(seed=3).values.tolist() == [-np.inf, 84]


def test_a_comparison_has_the_dates_of_all_histories_and_their_shifts(
    parent: Run, forked: Run
) -> None:
    comparison = compare(parent, {"no decay": forked})
    dates = comparison.dates
    assert dates.attrs == {"level": 0.99, "gap": 2.0, "gap_unit": "ratio"}
    assert dates["condition"].values.tolist() == ["parent", "no decay"]
    for label, run in (("parent", parent), ("no decay", forked)):
        _equal(dates.sel(condition=label), run_dates(run))
        verdicts = dates["verdict"].sel(condition=label)
        np.testing.assert_array_equal(verdicts, run_dates(run)["verdict"])
    for name in DATES:
        shift = date_differences(
            *(dates[name].sel(condition=label) for label in ("parent", "no decay"))
        )
        # Memorising had happened when the histories parted: one event, no shift.
        expected = 0 * shift if name == "memorised" else shift
        np.testing.assert_array_equal(dates[f"{name}_shift"].sel(condition="no decay"), expected)
    shifts = shifts_json(dates)
    assert list(shifts) == ["no decay"]
    assert set(shifts["no decay"]) == set(DATES)
    # A bar for the median of each history in each panel, in the history's colour.
    panel = comparison.figure.axes[0]
    top = (1 - 0.06 / (1 + 0.06 * 2.5),) * 2
    bars = [line for line in panel.get_lines() if tuple(np.asarray(line.get_ydata(), float)) == top]
    assert len(bars) == 1


def test_a_run_without_a_training_set_is_dated_by_its_test_accuracy(parent: Run) -> None:
    readings = parent.measures.drop_vars(["train_accuracy", "train_loss"])
    dates = run_dates(parent, readings=readings)
    assert set(dates) == {"generalised"}
    assert verdicts_json(dates) == {}
    assert set(dates_json(dates)) == {"generalised"}
    nothing = run_dates(parent, readings=readings.drop_vars("test_accuracy"))
    assert not nothing
    assert dates_json(nothing) == {}
