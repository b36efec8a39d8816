"""The unfinished segment that a killed process leaves: resumed from, ignored where damaged, gone at
the end.
"""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import tiny_mlp_experiment

from mi_jax.runs.fork import fork
from mi_jax.runs.run import Run, open_run
from mi_jax.runs.train import train
from mi_jax.training import Storage, at, loop
from mi_jax.training.loop import HELD, Progress

_EXPERIMENT = tiny_mlp_experiment(schedule=at(7, 31), storage=Storage(states=2))
_OLD = Path(__file__).parents[1] / "data" / "run_format_1"


class _KilledError(Exception):
    pass


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(_EXPERIMENT, tmp_path_factory.mktemp("held") / "undisturbed")


@pytest.fixture
def killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was left past step 40, in its second segment, where every chunk was saved."""

    def watch(progress: Progress) -> None:
        if progress.step >= 40:
            raise _KilledError

    with monkeypatch.context() as patched:
        patched.setattr(loop, "HOLD_SECONDS", 0.0)
        patched.setattr(loop, "CHUNK_SECONDS", 0.0)
        with pytest.raises(_KilledError):
            train(_EXPERIMENT, tmp_path / "run", watch=watch)
    return tmp_path / "run"


def _first_step_of_the_rest(path: Path, undisturbed: Run) -> int:
    """Resume a run, hold it against the undisturbed one, and return where it went on."""
    steps: list[int] = []
    run = train(_EXPERIMENT, path, watch=lambda progress: steps.append(progress.step))
    assert jax.tree.all(jax.tree.map(np.array_equal, run.stack(), undisturbed.stack()))
    assert run.losses.equals(undisturbed.losses)
    assert run.trajectories[0].hashes() == undisturbed.trajectories[0].hashes()
    assert [index.end for index in run.trajectories[0].indexes] == [30, 60]
    assert not (path / HELD).exists()
    return steps[0]


def test_training_goes_on_from_the_held_segment(killed: Path, undisturbed: Run) -> None:
    assert [path.name for path in (killed / HELD).iterdir()] == ["000000040"]
    assert open_run(killed).losses.sizes["step"] == 30
    assert _first_step_of_the_rest(killed, undisturbed) > 40


def test_a_damaged_held_segment_is_trained_again(killed: Path, undisturbed: Run) -> None:
    file = killed / HELD / "000000040" / "state" / "0"
    file.write_bytes(file.read_bytes()[:-1])
    assert 30 < _first_step_of_the_rest(killed, undisturbed) <= 40


def test_a_held_segment_whose_start_was_removed_is_trained_again(
    killed: Path, undisturbed: Run
) -> None:
    shutil.rmtree(killed / "segments" / "000000030")
    assert 0 < _first_step_of_the_rest(killed, undisturbed) <= 30


def test_a_run_of_an_earlier_format_that_is_resumed_says_the_newer_one(tmp_path: Path) -> None:
    path = shutil.copytree(_OLD, tmp_path / "run")
    whole = open_run(_OLD)
    shutil.rmtree(path / "segments" / "000000006")
    run = train(whole.experiment, path, allow_other_machine=True)
    assert json.loads((path / "run.json").read_text())["format"] == 3
    assert run.steps.tolist() == whole.steps.tolist()
    assert np.allclose(run.losses, whole.losses, rtol=0, atol=1e-5)


def test_a_run_of_an_earlier_format_is_forked(tmp_path: Path) -> None:
    forked = fork(open_run(_OLD), step=6, steps=9, out=tmp_path / "fork", allow_other_machine=True)
    assert forked.steps.tolist()[-1] == 9
    assert not open_run(_OLD).record.get("parent")
