"""Dates of the published loss curves of Nanda et al. 2023 (arXiv 2301.05217), weight decay .1."""

import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from mi_jax.dynamics import crossings, grokking_dates

_PAGE = Path(__file__).parents[2] / "docs" / "dates.md"


@pytest.fixture(scope="module")
def curves(published: Path) -> xr.Dataset:
    """Training and test loss at the epochs at which test loss is stored, every tenth."""
    with np.load(published / "nanda_mod_add_wd0.1.npz") as stored:
        epochs, losses = stored["test_epochs"], stored["test_losses"]
        train = stored["train_losses"][epochs]
    return xr.Dataset(
        {
            "train_loss": (("seed", "step"), train[None]),
            "test_loss": (("seed", "step"), losses[None]),
        },
        {"seed": [0], "step": epochs},
    )


def _dates(curves: xr.Dataset, level: float) -> xr.Dataset:
    """Dates with losses that fall to a level in place of accuracies, of which none are stored."""
    fallen = {
        f"{split}_accuracy": (curves[f"{split}_loss"] <= level).astype(float)
        for split in ("train", "test")
    }
    return grokking_dates(curves.assign(fallen))


def test_the_dates_of_the_published_curves_are_those_of_the_docs(curves: xr.Dataset) -> None:
    dates = _dates(curves, 0.01)
    assert dates["memorised"].values.tolist() == [[170, 180]]
    assert dates["circuit_formation_end"].values.tolist() == [[3070, 3080]]
    assert dates["generalised"].values.tolist() == [[98_720, 98_730]]
    assert dates["verdict"].values.tolist() == ["grokked"]
    (row,) = re.findall(r"^\| ours, on the stored curves.*$", _PAGE.read_text(), re.MULTILINE)
    found = [
        [float(bound.replace(",", "")) for bound in pair]
        for pair in re.findall(r"between ([\d,]+) and ([\d,]+)", row)
    ]
    stated = [
        dates[name].values[0].tolist()
        for name in ("memorised", "circuit_formation_end", "cleanup_end")
    ]
    assert found == stated


def test_each_date_is_where_the_curves_say(curves: xr.Dataset) -> None:
    """By hand: the stored numbers on both sides of each date."""
    loss = curves["test_loss"].isel(seed=0)
    assert float(loss.sel(step=98_720)) > 0.01 >= float(loss.sel(step=98_730))
    since = loss.sel(step=slice(180, 98_720))
    largest = float(since.max())
    assert int(since.idxmax()) == 1550
    assert float(loss.sel(step=3070)) >= 0.95 * largest > float(loss.sel(step=3080))
    assert (loss.sel(step=slice(3080, 98_720)) < 0.95 * largest).all()


def test_no_published_date_moves_with_the_budget(curves: xr.Dataset) -> None:
    whole = _dates(curves, 0.01)
    for last in (98_730, 100_000, 104_000):
        shorter = _dates(curves.sel(step=slice(None, last)), 0.01)
        xr.testing.assert_identical(shorter.drop_vars("verdict"), whole.drop_vars("verdict"))
    open_still = _dates(curves.sel(step=slice(None, 98_720)), 0.01)
    assert open_still["generalised"].values.tolist() == [[98_720, np.inf]]


def test_the_level_of_the_loss_moves_the_date_little(curves: xr.Dataset) -> None:
    """Two orders of magnitude of test loss lie within 5 % of the step."""
    steps = [float(crossings(curves["test_loss"], level, "down")[0, 1]) for level in (0.1, 0.001)]
    assert steps == [95_520, 100_920]
