"""Every task with every model that can read it: trained, interrupted, resumed, forked, measured,
each on its smallest setting.
"""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from mi_jax import fork
from mi_jax.basics.errors import ConfigError, Interrupted
from mi_jax.contracts import Architecture, Batch
from mi_jax.measuring.choosing import choose
from mi_jax.models import MODELS
from mi_jax.runs.experiment import Experiment
from mi_jax.runs.library import find
from mi_jax.runs.run import Run, open_run
from mi_jax.runs.train import train
from mi_jax.tasks import TASKS
from mi_jax.training import AdamW, Storage, at
from mi_jax.training.loop import Progress
from mi_jax.training.verifying import problems

SMALLEST: dict[str, Architecture] = {name: model.smallest() for name, model in MODELS.items()}
IN_EVERY_RUN = {
    "modular_arithmetic": "transformer",
    "group": "bilinear",
    "sparse_parity": "mlp",
}
"""By task, the model of the fast tests; all other pairs are slow."""
CHEAP = {
    "train_loss",
    "train_accuracy",
    "test_loss",
    "test_accuracy",
    "cascade_accuracy",
    "sum_squared_weights",
    "sum_squared_weights_by_parameter",
    "softmax_collapse",
}


def _readable() -> list[tuple[str, str]]:
    """The pairs of task and model that can be built; the others are refused."""
    pairs = []
    for task, settings in TASKS.items():
        for model in MODELS:
            try:
                SMALLEST[model].build(settings.smallest().inputs)
            except ConfigError:
                continue
            pairs.append((task, model))
    return pairs


PAIRS = _readable()


def _experiment(task: str, model: str) -> Experiment:
    return Experiment(
        TASKS[task].smallest(),
        SMALLEST[model],
        AdamW(learning_rate=3e-3, weight_decay=0.1),
        steps=24,
        schedule=at(5, 13),
        seeds=(0, 1),
        name=f"{task}_{model}",
        storage=Storage(states=3),
    )


def _bits(tree: Any) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def _assert_same(run: Run, other: Run) -> None:
    assert run.steps.tolist() == other.steps.tolist() == [0, 5, 13, 24]
    assert _bits(run.stack()) == _bits(other.stack())
    assert run.losses.values.tobytes() == other.losses.values.tobytes()
    assert _bits(run.trajectories[0].stored_state(24)) == _bits(
        other.trajectories[0].stored_state(24)
    )


def _cut(experiment: Experiment, path: Path) -> int:
    """Train until a signal comes at step 9 or later; return the step that is saved."""
    stop = [signal.SIGTERM]

    def watch(progress: Progress) -> None:
        while stop and progress.step >= 9:
            signal.raise_signal(stop.pop())

    with pytest.raises(Interrupted):
        train(experiment, path, watch=watch)
    return open_run(path).losses.sizes["step"]


def _check_readings(run: Run) -> None:
    """Check that losses and accuracies of every split are read, and the training loss of a run on
    one whole batch.
    """
    fitting = [one.name for one in choose(None, run.subject)[0] if one.name in CHEAP]
    splits = set(run.evaluation().batches)
    assert {f"{split}_accuracy" for split in splits} | {
        f"{split}_loss" for split in splits - {"cascade"}
    } <= set(fitting)
    read = run.measure(fitting)
    assert all(np.isfinite(values).all() for values in read.values())
    assert read.sizes["seed"] == 2
    np.testing.assert_array_equal(read["step"], run.steps)
    if "train" in splits and run.experiment.task == TASKS["modular_arithmetic"].smallest():
        before = run.steps[:-1].tolist()
        np.testing.assert_allclose(
            read["train_loss"].sel(step=before), run.losses.sel(step=before), rtol=1e-5
        )


def _each(in_every_run: bool) -> list[tuple[str, str]]:
    return [
        (task, model) for task, model in PAIRS if (IN_EVERY_RUN.get(task) == model) is in_every_run
    ]


@pytest.mark.parametrize(
    ("task", "model"),
    [*_each(True), *(pytest.param(*pair, marks=pytest.mark.slow) for pair in _each(False))],
)
def test_it_is_trained_interrupted_resumed_measured_and_forked(
    task: str, model: str, tmp_path: Path
) -> None:
    experiment = _experiment(task, model)
    whole = train(experiment, tmp_path / "whole")
    assert np.isfinite(whole.losses).all()
    assert not np.array_equal(whole.losses[:, 0], whole.losses[:, -1])
    assert 9 <= _cut(experiment, tmp_path / "cut") < 24
    _assert_same(train(experiment, tmp_path / "cut"), whole)
    assert not list(problems(open_run(tmp_path / "cut").trajectories[0]))
    _check_readings(whole)
    forked = fork(whole, step=8, out=tmp_path / "fork")
    assert forked.steps.tolist() == [8, 13, 24]
    assert _bits(forked.stack([13, 24])) == _bits(whole.stack([13, 24]))
    assert _bits(forked.trajectories[0].stored_state(24)) == _bits(
        whole.trajectories[0].stored_state(24)
    )


def test_every_task_and_model_is_in_some_pair() -> None:
    assert {task for task, _ in PAIRS} == set(TASKS)
    assert {model for _, model in PAIRS} == set(MODELS) == set(SMALLEST)
    assert set(IN_EVERY_RUN.items()) <= set(PAIRS)


@pytest.mark.parametrize("task", TASKS)
def test_a_task_names_its_paper_and_its_smallest_setting_is_small(task: str) -> None:
    smallest = TASKS[task].smallest()
    assert "arXiv" in smallest.paper or task == "from_arrays"
    evaluation = smallest.evaluation(smallest.data(0), jax.random.key(0))
    assert evaluation.ground_truth, "nothing is known of it"
    assert all(
        isinstance(batch, Batch) and len(batch.inputs) <= 1024
        for batch in evaluation.batches.values()
    )


@pytest.mark.slow
def test_a_killed_run_is_resumed_to_the_same_bits(tmp_path: Path) -> None:
    file, path = tmp_path / "killed.py", tmp_path / "run"
    lines = [
        "from mi_jax import Experiment",
        "from mi_jax.models import MLP",
        "from mi_jax.tasks import GroupComposition",
        "from mi_jax.training import AdamW, Storage, at",
        (
            "experiment = Experiment(GroupComposition.smallest(), MLP(width=8),"
            " AdamW(learning_rate=1e-3), steps=4_000,"
        ),
        "    schedule=at(5, 2_500), seeds=(0, 1), storage=Storage(states=40))",
    ]
    file.write_text("\n".join(lines) + "\n")
    command = [
        sys.executable,
        "-m",
        "mi_jax.cli",
        "train",
        str(file),
        "--out",
        str(path),
        "--no-compile-cache",
        "--quiet",
    ]
    with subprocess.Popen(command) as child:
        end = time.monotonic() + 120
        while len(list((path / "segments").glob("[0-9]" * 9))) < 2:
            assert child.poll() is None, "it ended by itself"
            assert time.monotonic() < end, "nothing was saved"
            time.sleep(0.001)
        child.kill()
    assert child.returncode == -signal.SIGKILL, "it ended before it was killed"
    assert open_run(path).losses.sizes["step"] < 4_000
    experiment = find(str(file))
    again, whole = train(experiment, path), train(experiment, tmp_path / "whole")
    assert _bits(again.stack()) == _bits(whole.stack())
    assert again.losses.values.tobytes() == whole.losses.values.tobytes()
    assert _bits(again.state_at(4_000)) == _bits(whole.state_at(4_000))
