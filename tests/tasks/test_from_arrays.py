"""Your own data: the bits of the task that made them, and a sentence for each bad file."""

import re
import shlex
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import tiny_mlp_experiment

from mi_jax.basics.errors import ConfigError, RunError
from mi_jax.basics.pytrees import dotted
from mi_jax.basics.streams import stream
from mi_jax.cli.main import main
from mi_jax.interventions import Freeze
from mi_jax.models import MLP
from mi_jax.report.study import report
from mi_jax.runs.experiment import Experiment
from mi_jax.runs.fork import fork
from mi_jax.runs.run import open_run
from mi_jax.runs.train import train
from mi_jax.tasks import FromArrays, ModularArithmetic, SparseParity
from mi_jax.training import Storage

TASK = ModularArithmetic(p=7, fraction=0.6)
MEASURES = ["test_accuracy", "restricted_loss", "excluded_loss", "gini_embedding", "logit_fve"]


def _written(task: ModularArithmetic, file: Path) -> Path:
    """The task's own data in the order of the pairs, with all its facts."""
    data = task.data(0)
    evaluation = task.evaluation(data, stream(0, "measure"))
    table = np.asarray(evaluation.ground_truth["table"]).ravel()
    facts: dict[str, Any] = {
        f"truth_{name}": np.asarray(fact) for name, fact in evaluation.ground_truth.items()
    }
    facts["truth_table"] = np.arange(task.p**2).reshape(task.p, task.p)
    # Example (a, b) of the file stands at place table[a, b] of the evaluation.
    at = np.argsort(table)
    tested = len(evaluation.batches["test"].inputs)
    np.savez(
        file,
        inputs=evaluation.inputs[table],
        targets=evaluation.targets[table][:, 0],
        train=at[tested:],
        test=at[:tested],
        **facts,
    )
    return file


def _experiment(task: Any, **changes: Any) -> Experiment:
    settings: dict[str, Any] = {"task": task, "seeds": (0, 1), "steps": 40, **changes}
    return tiny_mlp_experiment(**settings)


@pytest.mark.parametrize("batch_size", [None, 8])
def test_the_data_of_a_task_written_out_and_read_back_are_its_own(
    tmp_path: Path, batch_size: int | None
) -> None:
    own = ModularArithmetic(p=7, fraction=0.6, batch_size=batch_size)
    back = FromArrays(str(_written(own, tmp_path / "data.npz")), batch_size=batch_size)
    assert back.inputs == own.inputs
    assert back.read == own.read
    key = stream(0, "measure")
    theirs, ours = (task.evaluation(task.data(0), key) for task in (own, back))
    assert set(theirs.ground_truth) == set(ours.ground_truth)
    for name, fact in theirs.ground_truth.items():
        np.testing.assert_array_equal(fact, ours.ground_truth[name], err_msg=name)
    runs = [train(_experiment(task), tmp_path / type(task).__name__) for task in (own, back)]
    for step in runs[0].steps:
        for a, b in zip(*(jax.tree.leaves(run.params(int(step), 1)) for run in runs), strict=True):
            assert a.tobytes() == b.tobytes()
    read = [run.measure(MEASURES) for run in runs]
    for name in MEASURES:
        assert read[0][name].values.tobytes() == read[1][name].values.tobytes(), name


def test_data_without_a_class_are_trained_forked_measured_and_reported(tmp_path: Path) -> None:
    """Ten lines of NumPy: which of two clusters a point belongs to."""
    rng = np.random.default_rng(0)
    label = rng.integers(2, size=60)
    points = rng.normal(size=(60, 5)) + 2 * label[:, None]
    file = tmp_path / "points.npz"
    np.savez(
        file,
        inputs=points,
        targets=label,
        train=np.arange(40),
        test=np.arange(40, 60),
        truth_cluster=label,
        truth_distance=points.sum(axis=1),
    )
    task = FromArrays(str(file))
    run = train(_experiment(task, model=MLP(width=8)), tmp_path / "run")
    assert run.measure(["test_accuracy"])["test_accuracy"].isel(step=-1).min() > 0.8
    evaluation = task.evaluation(task.data(0), stream(0, "measure"))
    order = [*range(40, 60), *range(40)]
    np.testing.assert_array_equal(task.labels(evaluation)["cluster"].values, label[order])
    np.testing.assert_allclose(
        evaluation.ground_truth["distance"], points.sum(axis=1)[order], rtol=1e-6
    )
    assert "distance" not in task.labels(evaluation)
    held = fork(run, step=0, interventions=[Freeze("layers*")], out=tmp_path / "fork")
    first = held.params(40, 0)["layers"]["0"]["W"]
    np.testing.assert_array_equal(first, run.params(0, 0)["layers"]["0"]["W"])
    assert report(run).report.exists()


def test_sequences_are_read_at_every_position_with_weights(tmp_path: Path) -> None:
    tokens = np.random.default_rng(0).integers(1, 6, size=(12, 5))
    weights = np.ones((12, 4))
    weights[:, 0] = 0
    arrays = {
        "inputs": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "train": np.array([3, 1, 2]),
        "test": np.array([0, 5]),
        "weights": weights,
    }
    np.savez(tmp_path / "s.npz", **arrays)
    task = FromArrays(str(tmp_path / "s.npz"), causal=True)
    assert task.read == (0, 1, 2, 3)
    assert task.inputs.causal
    np.testing.assert_array_equal(task.data(0).inputs, tokens[[3, 1, 2], :-1])
    np.testing.assert_array_equal(task.data(0).weights, weights[[3, 1, 2]])
    arrays["targets"], arrays["weights"] = tokens[:, 1:3], weights[:, :2]
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(ConfigError, match=r"2 targets per example and 4 positions. Say with read"):
        FromArrays(str(tmp_path / "s.npz"))
    assert FromArrays(str(tmp_path / "s.npz"), read_at=(1, 2)).read == (1, 2)


# --- The file and its bytes ---


def test_a_run_is_resumed_with_the_same_bytes_only_wherever_they_lie(tmp_path: Path) -> None:
    file = _written(TASK, tmp_path / "data.npz")
    experiment = _experiment(FromArrays(str(file)), storage=Storage(states=4))
    whole = train(experiment, tmp_path / "whole")
    cut = train(experiment, tmp_path / "cut")
    shutil.rmtree(sorted((cut.path / "segments").glob("[0-9]*"), key=lambda x: int(x.name))[-1])
    moved = file.rename(tmp_path / "moved.npz")
    with pytest.raises(ConfigError, match=r"data\.npz cannot be read: No such file"):
        train(experiment, cut.path)
    again = _experiment(FromArrays(str(moved)), storage=Storage(states=4))
    assert again.hash == experiment.hash
    resumed = train(again, cut.path)
    for a, b in zip(*(jax.tree.leaves(run.params(40, 1)) for run in (whole, resumed)), strict=True):
        assert a.tobytes() == b.tobytes()
    # Opened from anywhere, the run looks where the file was.
    moved.rename(file)
    assert open_run(whole.path).measure(["test_loss"])["test_loss"].notnull().all()
    bytes_ = bytearray(file.read_bytes())
    bytes_[len(bytes_) // 2] ^= 1
    file.write_bytes(bytes_)
    with pytest.raises((ConfigError, RunError), match=r"data\.npz"):
        open_run(whole.path).measure(["test_accuracy"])
    with pytest.raises(ConfigError, match=r"data\.npz"):
        train(experiment, cut.path)


def test_other_data_of_the_same_shape_are_another_experiment(tmp_path: Path) -> None:
    file = _written(TASK, tmp_path / "data.npz")
    experiment = _experiment(FromArrays(str(file)))
    train(experiment, tmp_path / "run")
    arrays = dict(np.load(file))
    arrays["targets"] = (arrays["targets"] + 1) % 7
    np.savez(file, **arrays)
    with pytest.raises(ConfigError, match=r"has other bytes than this experiment was made with"):
        train(experiment, tmp_path / "run")
    with pytest.raises(RunError, match="sha256"):
        train(_experiment(FromArrays(str(file))), tmp_path / "run")


# --- Bad files ---

GOOD = {
    "inputs": np.array([[0, 1], [1, 0], [2, 2], [1, 1]]),
    "targets": np.array([0, 1, 2, 1]),
    "train": np.array([0, 1]),
    "test": np.array([2, 3]),
}


def _without(name: str) -> dict[str, Any]:
    return {key: array for key, array in GOOD.items() if key != name}


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no test": (_without("test"), "lacks test. It has inputs, targets, train"),
    "unknown": ({**GOOD, "labels": np.zeros(4)}, "also holds labels"),
    "objects": ({**GOOD, "truth_x": np.array([{}], object)}, "is no npz of plain arrays"),
    "text": ({**GOOD, "truth_x": np.array(["a"])}, "has truth_x of the type <U1"),
    "negative": ({**GOOD, "targets": np.array([0, -1, 2, 1])}, "out of range: -1 in example 1"),
    "floats": ({**GOOD, "targets": np.ones(4)}, "targets of the type float64"),
    "short": ({**GOOD, "targets": np.array([0, 1])}, r"targets of the shape \(2,\) for 4"),
    "flat": ({**GOOD, "inputs": np.arange(4)}, r"inputs of the type int64 and the shape \(4,\)"),
    "none": ({**GOOD, "inputs": np.zeros((0, 2), int)}, r"inputs of the shape \(0, 2\)"),
    "NaN": (
        {**GOOD, "inputs": np.array([[0.0], [1.0], [np.nan], [2.0]])},
        "1 inputs that are NaN, infinite or too large for float32, the first in example 2",
    ),
    "huge": ({**GOOD, "inputs": np.array([[1e300]] * 4)}, "too large for float32"),
    "token": ({**GOOD, "inputs": GOOD["inputs"] + 2**40}, "inputs out of range"),
    "twice": ({**GOOD, "train": np.array([0, 0])}, "lists the example 0 twice in train"),
    "both": ({**GOOD, "test": np.array([1, 3])}, "1 examples in both train and test"),
    "outside": ({**GOOD, "train": np.array([0, 4])}, "lists the example 4 in train"),
    "empty": ({**GOOD, "train": np.zeros(0, int)}, "at least one, as whole numbers"),
    "weight": ({**GOOD, "weights": np.array([1, 1, -1, 1.0])}, "the weight -1.0 in example 2"),
    "no weight": ({**GOOD, "weights": np.zeros(4)}, "no trained answer of a weight above 0"),
    "table": ({**GOOD, "truth_table": np.array([[9]])}, "examples in truth_table that are in nei"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_with_a_sentence_of_its_own(tmp_path: Path, name: str) -> None:
    arrays, message = BAD[name]
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ConfigError, match=message):
        FromArrays(str(tmp_path / "bad.npz"))


def _claims_two_gigabytes(file: Path) -> None:
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (536870912,), }"
    header = header.ljust(117) + "\n"
    npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("inputs.npy", npy + b"\0" * 512)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_claims_two_gigabytes, "claims 2,147,483,648 bytes and holds"),
        (lambda file: file.write_bytes(b"no zip"), "is no npz of plain arrays"),
        (lambda file: file.mkdir(), "cannot be read"),
        (lambda file: None, "cannot be read: No such file"),
    ],
)
def test_what_is_no_npz_is_refused(
    tmp_path: Path, make: Callable[[Path], Any], message: str
) -> None:
    make(tmp_path / "bad.npz")
    with pytest.raises(ConfigError, match=message):
        FromArrays(str(tmp_path / "bad.npz"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": 2}, "targets out of range: 2 with classes=2, first in example 2"),
        ({"vocabulary": 2}, "the token 2 with vocabulary=2"),
        ({"batch_size": 3}, "2 trained examples, fewer than batch_size=3"),
        ({"batch_size": 0}, "batch_size=0: must be a whole number of at least 1"),
        ({"read_at": (5,)}, r"read_at is \(5,\)"),
    ],
)
def test_settings_that_do_not_fit_the_file_are_refused(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    good: dict[str, Any] = GOOD
    np.savez(tmp_path / "good.npz", **good)
    with pytest.raises(ConfigError, match=message):
        FromArrays(str(tmp_path / "good.npz"), **settings)


def test_floats_of_a_task_of_signs_keep_their_bits(tmp_path: Path) -> None:
    own = SparseParity.smallest()
    evaluation = own.evaluation(own.data(0), stream(0, "measure"))
    x, y = evaluation.inputs, evaluation.targets
    tested = len(evaluation.batches["test"].inputs)
    np.savez(
        tmp_path / "signs.npz",
        inputs=x[:, 0],
        targets=y,
        train=np.arange(tested, len(x)),
        test=np.arange(tested),
    )
    back = FromArrays(str(tmp_path / "signs.npz"), batch_size=8)
    assert back.inputs == own.inputs
    np.testing.assert_array_equal(back.data(0).inputs, evaluation.batches["train"].inputs)


# --- The page ---


def test_the_page_runs_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "own_data.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 3
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block.replace("600", "60"), names)
    assert set(names["table"].columns) == {"train_accuracy", "test_accuracy"}
    assert len(names["table"]) == 3 * len(names["run"].steps)
    for name, array in names["flat"].items():
        np.testing.assert_array_equal(array, dotted(names["weights"])[name])
    (command,) = re.findall(r"^mi-jax (.*)$", page, re.MULTILINE)
    small = ["--steps", "20", "--seeds", "0", "--quiet", "--dry-run"]
    assert main([*shlex.split(command), *small]) == 0


def test_every_reading_becomes_a_data_frame(tmp_path: Path) -> None:
    run = train(_experiment(TASK), tmp_path / "run")
    readings = run.measure()
    for name in readings.data_vars:
        frame = readings[name].to_dataframe()
        assert len(frame) == readings[name].size, name
        np.testing.assert_array_equal(frame[name].to_numpy(), readings[name].values.ravel())
