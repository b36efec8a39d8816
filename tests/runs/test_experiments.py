"""The experiment files: documents that run. The cheap ones are run here and compared with the
numbers that they state.
"""

import re
import shlex
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import mi_jax
from mi_jax.cli.overrides import with_overrides
from mi_jax.dynamics import GROKKING_RULES, grokking_dates
from mi_jax.runs.experiment import Experiment
from mi_jax.runs.library import find
from mi_jax.runs.train import train
from mi_jax.tasks import ModularArithmetic

_FOLDER = Path(__file__).parents[2] / "experiments"
_FILES = sorted(file.stem for file in _FOLDER.glob("*.py"))
_COMMANDS = {
    "liu_2022": "mi-jax sweep liu_2022",
    "ablate_a_forming_frequency": "python experiments/ablate_a_forming_frequency.py",
}


def _text(name: str) -> str:
    """The docstring of an experiment file, as one line."""
    return " ".join((_FOLDER / f"{name}.py").read_text().split('"""')[1].split())


def _stated(text: str, what: str) -> list[float]:
    """The numbers that follow some words of a text."""
    found = re.search(rf"{what} ((?:[\d.,e-]+,? ?)+)", text)
    assert found, f"{what!r} isn't in: {text}"
    return [
        float(number.rstrip(".").replace(",", ""))
        for number in re.findall(r"[\d,]*\.?\d+(?:e-?\d+)?", found[1])
    ]


@pytest.mark.parametrize("name", _FILES)
def test_a_file_states_its_question_paper_command_and_cost(name: str) -> None:
    text = _text(name)
    command = _COMMANDS.get(name, f"mi-jax run {name}")
    for part in ("Question:", "arXiv", f"Command: {command}", "Minutes:", "Printed"):
        assert part in text, part


@pytest.mark.parametrize("name", _FILES)
def test_a_file_defines_an_experiment_of_its_own_name(name: str) -> None:
    experiment = find(name)
    assert isinstance(experiment, Experiment)
    assert experiment.name == name


_SETTINGS = re.compile(r"""(?:--[\w.-]*\w (?:"[^"]*"|[^\s,;:()"]+) ?)+""")
_VERBS = ("--dry-run", "--out", "--like", "--processes")


@pytest.mark.parametrize(
    "name", [name for name in _FILES if "python" not in _COMMANDS.get(name, "")]
)
def test_the_settings_that_a_file_names_are_settings_of_its_experiment(name: str) -> None:
    experiment = find(name)
    for found in _SETTINGS.findall(_text(name)):
        given = shlex.split(found.strip().rstrip("."))
        if "--rule" in given:
            # An option of the verb, of how its outcome is dated.
            place = given.index("--rule")
            assert given[place + 1] in GROKKING_RULES
            del given[place : place + 2]
        if not set(_VERBS) & set(given):
            with_overrides(experiment, given, name).build()


def _stated_dates(text: str, did: str) -> np.ndarray:
    """The dates that follow a word: "memorised between 78 and 80, 82 and 85"."""
    found = re.search(rf"{did} between ((?:[\d,]+ and [\d,]*\d(?:, )?)+)", text)
    assert found, f"{did!r} isn't in: {text}"
    pairs = re.findall(r"([\d,]+) and ([\d,]*\d)", found[1])
    return np.array([[float(bound.replace(",", "")) for bound in pair] for pair in pairs])


def _meet(dates: xr.DataArray, stated: np.ndarray, atol: float = 0, rtol: float = 0) -> bool:
    """Whether dates overlap the stated ones, which other last bits may have moved so far."""
    low, high = dates.transpose("seed", "bound").values.T
    room = atol + rtol * stated
    return bool(
        (low <= stated[:, 1] + room[:, 1]).all() and (high >= stated[:, 0] - room[:, 0]).all()
    )


def test_stated_dates_are_read_and_compared() -> None:
    stated = _stated_dates("x; memorised between 78 and 80, 1,082 and 1,085; end", "memorised")
    assert stated.tolist() == [[78, 80], [1082, 1085]]
    dates = xr.DataArray(
        [[80.0, 82.0], [1070.0, 1080.0]], {"bound": ["lower", "upper"]}, ("seed", "bound")
    )
    assert not _meet(dates, stated, atol=1.5)
    assert _meet(dates, stated, atol=2)


def _dates(experiment: Experiment, path: Path) -> tuple[xr.Dataset, xr.Dataset]:
    dataset = train(experiment, path).measure(
        [
            "train_accuracy",
            "test_accuracy",
            "test_loss",
            "excluded_loss",
            "restricted_loss",
            "key_frequencies",
        ]
        if "random" not in str(experiment.task)
        else ["train_accuracy", "test_accuracy", "test_loss"]
    )
    return dataset, grokking_dates(dataset)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "begins"),
    [({}, "Printed, by seed"), ({"operation": "random"}, "With --task.operation random")],
    ids=["no decay", "random labels"],
)
def test_a_control_that_never_groks_is_dated_so(
    changes: dict[str, Any], begins: str, tmp_path: Path
) -> None:
    experiment = find("never_groks")
    assert isinstance(experiment.task, ModularArithmetic)
    dataset, dates = _dates(
        replace(experiment, task=replace(experiment.task, **changes)), tmp_path / "run"
    )
    assert dates["verdict"].values.tolist() == ["did not grok"] * 3
    assert np.isposinf(dates["generalised"].sel(bound="upper")).all()
    stated = _text("never_groks").split(begins, 1)[1]
    # Other processors have other last bits, which thousands of steps amplify.
    assert _meet(dates["memorised"], _stated_dates(stated, "memorised"), atol=1.5)
    np.testing.assert_allclose(
        dataset["test_accuracy"][:, -1], _stated(stated, "test accuracy")[:3], atol=0.02
    )


@pytest.mark.slow
def test_the_main_job_groks_as_it_states(tmp_path: Path) -> None:
    dataset, dates = _dates(find("grokking"), tmp_path / "run")
    stated = _text("grokking")
    assert dates["verdict"].values.tolist() == ["grokked"] * 3
    assert _meet(dates["memorised"], _stated_dates(stated, "memorised"), atol=1.5)
    for name, did in (
        ("generalised", "generalised"),
        ("circuit_formation_end", "circuit formation ended"),
    ):
        assert _meet(dates[name], _stated_dates(stated, did), rtol=0.15)
    keys = [
        [int(k) for k in row["frequency"].values[row.values]]
        for row in dataset["key_frequencies"][:, -1]
    ]
    assert all(2 <= len(row) <= 6 for row in keys)
    # Which others are just key beside them depends on the processor's rounding.
    named = {int(k) for k in re.findall(r"key frequencies ([\d ]+),", stated)[0].split()}
    assert named <= set(keys[0])
    assert len(keys[0]) <= len(named) + 1
    # On another processor seed 0 ended at 10.5, since it grew another key frequency.
    excluded = dataset["excluded_loss"][:, -1].values / _stated(stated, "excluded loss")[:3]
    assert (np.abs(np.log(excluded)) < np.log(2)).all()
    assert (dataset["restricted_loss"][:, -1] < 1e-5).all()
    ends = [dates[name] for name in ("memorised", "circuit_formation_end", "cleanup_end")]
    assert all((later > earlier).all() for earlier, later in pairwise(ends))


@pytest.mark.long
def test_a_network_groks_with_other_frequencies_if_the_forming_ones_are_removed(
    tmp_path: Path,
) -> None:
    file, short = (
        _FOLDER / "ablate_a_forming_frequency.py",
        ("--out", str(tmp_path), "--steps", "1200", "--seeds", "1"),
    )
    done = subprocess.run(
        [sys.executable, str(file), *short], capture_output=True, text=True, check=True
    )
    lines = dict(line.rsplit(": ", 1) for line in done.stdout.splitlines())
    kept = {
        rule: float(lines[f"{rule} projected out: kept"].split(";")[0])
        for rule in ("key", "control", "random")
    }
    assert kept["key"] < min(kept["control"], kept["random"])
    folder = tmp_path / "from_300_to_301"
    assert {file.name for file in folder.glob("*.png")} == {"effects.png", "histories.png"}
    assert mi_jax.open_run(folder / "key").parent == (tmp_path / "parent", 300)
