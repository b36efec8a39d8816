"""SIGKILL at random instants of every verb that writes: the same bits, and no file left over."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
import xarray as xr

from mi_jax.training.trajectory import Trajectory

_FILE = '''"""A small run of many segments, to be killed."""

from mi_jax import Experiment
from mi_jax.models import MLP
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import AdamW, Storage, log_spaced

experiment = Experiment(
    task=ModularArithmetic(p=7, fraction=0.5, batch_size=10),
    model=MLP(width=16),
    optimizer=AdamW(learning_rate=1e-3),
    steps=400,
    schedule=log_spaced(10),
    seeds=(0, 1),
    storage=Storage(states=16),
    name="killed",
)
'''
_MEASURES = ("--measures", "train_loss,test_accuracy")
_VERBS = ("train", "measure", "fork", "zoom", "report", "compare", "sweep")


def _command(verb: str, folder: Path) -> list[str]:
    """The command line of a verb, whose input lies in ``folder``."""
    run, other, out = str(folder / "run"), str(folder / "other"), str(folder / "out")
    words = {
        "train": [str(folder / "killed.py"), "--out", out],
        "measure": [run, *_MEASURES],
        "fork": [run, "--step", "200", "--steps", "300", "--out", out],
        "zoom": [run, "--around", "200", "--every", "2", "--width", "40", "--out", out],
        "report": [run],
        "compare": [run, other, "--out", out],
        "sweep": [
            str(folder / "killed.py"),
            "--optimizer.learning-rate",
            "1e-3,2e-3",
            "--out",
            out,
        ],
    }[verb]
    return [sys.executable, "-m", "mi_jax.cli", verb, *words]


def _start(verb: str, folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        _command(verb, folder),
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def _finish(verb: str, folder: Path) -> float:
    """Run a verb to its end. Returns its seconds."""
    begin = time.monotonic()
    child = _start(verb, folder)
    _, errors = child.communicate(timeout=300)
    assert child.returncode == 0, f"{verb}: {errors.decode()[-600:]}"
    return time.monotonic() - begin


def _contents(folder: Path) -> tuple[set[str], dict[str, str]]:
    """The names of all files outside segments, and hashes of what they hold: of the stored arrays
    of a run by its ``run.json``, of the readings of a netCDF file without its attributes, which
    name folders.
    """
    names = {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and "segments" not in path.parts and "__pycache__" not in path.parts
    }
    bits: dict[str, str] = {}
    for file in folder.rglob("run.json"):
        run = Trajectory(file.parent)
        arrays = [*sorted(run.hashes().items()), run.losses().tobytes()]
        bits[str(file.relative_to(folder))] = hashlib.sha256(repr(arrays).encode()).hexdigest()
        assert {path.name for path in run.folder.iterdir()} == {
            f"{index.end:09d}" for index in run.indexes
        }
    for file in folder.rglob("*.nc"):
        with xr.open_dataset(file, engine="h5netcdf") as stored:
            values = [(name, stored[name].values.tobytes()) for name in sorted(map(str, stored))]
        bits[str(file.relative_to(folder))] = hashlib.sha256(repr(values).encode()).hexdigest()
    return names, bits


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs and the experiment file, none of the verbs' results in it."""
    folder = tmp_path_factory.mktemp("kills") / "before"
    folder.mkdir()
    (folder / "killed.py").write_text(_FILE)
    _finish("train", folder)
    (folder / "out").rename(folder / "run")
    _finish("fork", folder)
    (folder / "out").rename(folder / "other")
    return folder


def _kill(verb: str, before: Path, kills: int) -> int:
    """Kill a verb at random instants, then finish it, and begin again once it has ended before it
    was killed. Returns how many kills met it running.
    """
    whole = shutil.copytree(before, before.with_name(f"{verb}-whole"))
    expected_seconds, random, met = _finish(verb, whole), Random(verb), 0
    expected, cut = _contents(whole), before.with_name(f"{verb}-cut")
    for left in reversed(range(kills)):
        if not cut.exists():
            shutil.copytree(before, cut)
        child = _start(verb, cut)
        time.sleep(random.uniform(0, expected_seconds))
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        was_met = child.returncode == -signal.SIGKILL
        met += was_met
        if left and was_met:
            continue
        _finish(verb, cut)
        assert _contents(cut) == expected
        shutil.rmtree(cut)
    return met


@pytest.mark.slow
def test_a_training_killed_anywhere_leaves_the_same_files(before: Path) -> None:
    assert _kill("train", before, 3) >= 1


@pytest.mark.long
@pytest.mark.parametrize("verb", _VERBS)
def test_verbs_killed_at_200_random_instants_in_all_leave_the_same_files(
    before: Path, verb: str
) -> None:
    assert _kill(verb, before, 29) >= 10
