"""A run killed or interrupted at any instant resumes to the bits of an undisturbed run."""

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from random import Random
from typing import Any

import jax
import numpy as np
import pytest
from conftest import tiny_mlp_experiment

from mi_jax.basics.errors import Interrupted
from mi_jax.runs.experiment import Experiment
from mi_jax.runs.library import find
from mi_jax.runs.run import Run, open_run
from mi_jax.runs.train import train
from mi_jax.training.loop import Progress

_FILE = '''"""Many cheap steps and many segments, so that kills land inside and saves are met."""

from mi_jax import Experiment
from mi_jax.models import MLP
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import AdamW, Storage, log_spaced

experiment = Experiment(
    task=ModularArithmetic(p=11, fraction=0.5, batch_size=20),
    model=MLP(width=24),
    optimizer=AdamW(learning_rate=1e-3),
    steps=4_000,
    schedule=log_spaced(40),
    seeds=(0, 1),
    storage=Storage(states=SEGMENTS),
    name="killed",
)
'''
_MEASURES = ["train_loss", "test_accuracy", "key_frequencies", "restricted_loss"]


class Killed:
    """An experiment file, an undisturbed run of it, and one that child processes train."""

    def __init__(self, file: Path, undisturbed: Run, path: Path):
        self.file, self.undisturbed, self.path = file, undisturbed, path

    def start(self) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-m",
            "mi_jax.cli",
            "train",
            str(self.file),
            "--out",
            str(self.path),
            "--no-compile-cache",
        ]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finished(self) -> list[str]:
        folder = self.path / "segments"
        return (
            sorted(name for name in os.listdir(folder) if name.isdigit()) if folder.is_dir() else []
        )

    def saving(self) -> bool:
        folder = self.path / "segments"
        return folder.is_dir() and any(
            "orbax-checkpoint-tmp" in name for name in os.listdir(folder)
        )

    def files(self) -> dict[str, tuple[int, int, int]]:
        """Inode, time and size of every file in finished segments."""
        inside = [
            path for name in self.finished() for path in (self.path / "segments" / name).rglob("*")
        ]
        stats = {
            str(path): path.stat()
            for path in (*inside, *(self.path / "segments" / name for name in self.finished()))
        }
        return {path: (stat.st_ino, stat.st_mtime_ns, stat.st_size) for path, stat in stats.items()}


def _killed(folder: Path, segments: int) -> Killed:
    file = folder / "killed.py"
    file.write_text(_FILE.replace("SEGMENTS", str(segments)))
    return Killed(file, train(find(str(file)), folder / "undisturbed"), folder / "run")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    return _killed(tmp_path_factory.mktemp("killed"), segments=32)


@pytest.fixture
def killed(shared: Killed, tmp_path: Path) -> Killed:
    return Killed(shared.file, shared.undisturbed, tmp_path / "run")


def _wait(child: subprocess.Popen[str], happened: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert child.poll() is None, f"the child ended by itself: {child.communicate()}"
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.0005)


def _bits(tree: Any) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def _assert_same(run: Run, undisturbed: Run) -> None:
    assert run.steps.tolist() == undisturbed.steps.tolist()
    assert _bits(run.stack()) == _bits(undisturbed.stack())
    assert run.losses.values.tobytes() == undisturbed.losses.values.tobytes()
    assert _bits(run.state_at(4_000)) == _bits(undisturbed.state_at(4_000))
    assert run.status == undisturbed.status
    ours, theirs = run.measure(_MEASURES), undisturbed.measure(_MEASURES)
    assert all(
        ours[name].values.tobytes() == theirs[name].values.tobytes() for name in theirs.data_vars
    )


def _kill_often(killed: Killed, kills: int, seed: int) -> int:
    """Kill and resume a run; return how many kills left a save unfinished."""
    random, during_saves = Random(seed), 0
    for attempt in range(kills):
        before, files = killed.finished(), killed.files()
        child = killed.start()
        _wait(child, lambda before=before: len(killed.finished()) > len(before))
        if attempt % 2:
            _wait(child, killed.saving)
        time.sleep(random.uniform(0, 0.02 if attempt % 2 else 0.15))
        child.kill()
        child.communicate()
        assert child.returncode == -signal.SIGKILL, (
            "the run ended before it was killed: make it longer"
        )
        during_saves += killed.saving()
        assert len(killed.finished()) > len(before)
        now = killed.files()
        assert {path: now[path] for path in files} == files, "a finished segment was written again"
    return during_saves


def _finish_and_compare(killed: Killed) -> None:
    files = killed.files()
    child = killed.start()
    _, errors = child.communicate(timeout=120)
    assert child.returncode == 0, errors
    assert not killed.saving()
    now = killed.files()
    assert {path: now[path] for path in files} == files
    assert [int(name) for name in killed.finished()] == [
        int(path.name) for path in sorted((killed.undisturbed.path / "segments").iterdir())
    ]
    _assert_same(open_run(killed.path), killed.undisturbed)


@pytest.mark.slow
def test_five_kills_some_during_a_save_change_no_bit(killed: Killed) -> None:
    assert _kill_often(killed, 5, seed=0) >= 1
    _finish_and_compare(killed)


@pytest.mark.long
def test_twenty_kills_some_during_a_save_change_no_bit(tmp_path: Path) -> None:
    killed = _killed(tmp_path, segments=160)
    assert _kill_often(killed, 20, seed=1) >= 4
    _finish_and_compare(killed)


def test_sigterm_saves_everything_and_says_how_to_resume(killed: Killed, tmp_path: Path) -> None:
    child = killed.start()
    _wait(child, lambda: len(killed.finished()) >= 3)
    begin = time.monotonic()
    child.terminate()
    out, errors = child.communicate(timeout=60)
    assert time.monotonic() - begin < 3
    assert child.returncode == 130
    assert out == ""
    message = re.search(
        r"Stopped at step (\d+) of 4000\. Everything up to there is saved\. To resume:\n  mi-jax"
        r" (.*)\n",
        errors,
    )
    assert message, errors
    assert int(killed.finished()[-1]) == int(message[1]) < 4_000
    assert open_run(killed.path).losses.sizes["step"] == int(message[1])
    files = killed.files()
    command = [sys.executable, "-m", "mi_jax.cli", *shlex.split(message[2])]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    now = killed.files()
    assert {path: now[path] for path in files} == files
    _assert_same(open_run(killed.path), killed.undisturbed)


QUICK = tiny_mlp_experiment(steps=200)


def _interrupted(experiment: Experiment, path: Path, at: int, *numbers: signal.Signals) -> None:
    """Train, and raise signals (SIGTERM by default) between two chunks after a step."""

    left = list(numbers or (signal.SIGTERM,))

    def watch(progress: Progress) -> None:
        while left and progress.step >= at:
            signal.raise_signal(left.pop(0))

    train(experiment, path, watch=watch)


def test_interrupted_again_and_again_a_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    undisturbed = train(QUICK, tmp_path / "undisturbed")
    for at in (1, 17, 18, 60, 150):
        with pytest.raises(Interrupted, match="Everything up to there is saved") as error:
            _interrupted(QUICK, tmp_path / "run", at, signal.SIGINT)
        message = re.match(r"Stopped at step (\d+) of 200", str(error.value))
        assert message
        assert open_run(tmp_path / "run").losses.sizes["step"] == int(message[1]), (
            "the part that was reported as saved is not"
        )
        assert at <= int(message[1]) < 200
    run = train(QUICK, tmp_path / "run")
    assert _bits(run.stack()) == _bits(undisturbed.stack())
    assert run.losses.equals(undisturbed.losses)
    assert _bits(run.state_at(200)) == _bits(undisturbed.state_at(200))
    assert len(run.trajectories[0].indexes) > len(undisturbed.trajectories[0].indexes)


def test_a_signal_in_the_last_chunk_finds_a_finished_run(tmp_path: Path) -> None:
    _interrupted(QUICK, tmp_path / "run", 200)
    assert {status.state for status in open_run(tmp_path / "run").status.values()} == {"finished"}


def test_a_second_signal_stops_at_once_and_the_saved_part_resumes(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _interrupted(QUICK, tmp_path / "run", 60, signal.SIGINT, signal.SIGTERM)
    undisturbed, run = train(QUICK, tmp_path / "undisturbed"), train(QUICK, tmp_path / "run")
    assert _bits(run.stack()) == _bits(undisturbed.stack())


def test_training_leaves_signal_handlers_as_they_were(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    train(QUICK, tmp_path / "run")
    with pytest.raises(Interrupted):
        _interrupted(tiny_mlp_experiment(steps=201), tmp_path / "other", 20)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_run_trains_in_a_thread_that_gets_no_signals(tmp_path: Path) -> None:
    runs: list[Run] = []
    thread = threading.Thread(target=lambda: runs.append(train(QUICK, tmp_path / "run")))
    thread.start()
    thread.join()
    assert runs[0].status[0].state == "finished"
