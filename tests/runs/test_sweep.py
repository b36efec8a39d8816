"""Sweeps: the grid, its outcome, processes that are killed, and the figures."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import tiny_mlp_experiment
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex

from mi_jax import plots
from mi_jax.basics.errors import ConfigError, RunError
from mi_jax.basics.fields import with_setting
from mi_jax.cli.main import main
from mi_jax.cli.overrides import with_swept
from mi_jax.dynamics import DATES, VERDICTS, grokking_dates
from mi_jax.plots.style import COLOURS
from mi_jax.runs.experiment import Experiment
from mi_jax.runs.run import open_run
from mi_jax.runs.sweep import grid, summarised, sweep
from mi_jax.training import AdamW, every
from mi_jax.training.record import lock

NAN, INF = float("nan"), float("inf")
_AXES = {"optimizer.learning_rate": (1e-3, 1e-2), "optimizer.weight_decay": (0.0, 1.0)}


def _experiment(**settings: Any) -> Experiment:
    return tiny_mlp_experiment(**{"steps": 60, "schedule": every(10), "seeds": (0, 1), **settings})


# --- The grid


def test_a_grid_is_every_combination_of_the_values() -> None:
    points = grid(_experiment(), {"optimizer.weight_decay": (0.0, 1.0), "task.p": (5, 7, 11)})
    assert list(points) == [
        f"optimizer.weight_decay={decay},task.p={p}" for decay in (0.0, 1.0) for p in (5, 7, 11)
    ]
    point = points["optimizer.weight_decay=1.0,task.p=7"]
    optimizer = point.optimizer
    assert isinstance(optimizer, AdamW)
    assert (optimizer.weight_decay, point.task.inputs.classes, point.seeds) == (1.0, 7, (0, 1))


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({}, "Nothing is swept"),
        (
            {"optimizer.weight_decai": (0.0, 1.0)},
            r"no setting 'optimizer.weight_decai'.*did you mean weight_decay",
        ),
        ({"optimizer.weight_decay.x": (0.0, 1.0)}, "no setting"),
        ({"optimizer.weight_decay": (1.0, 1.0)}, "each once"),
        ({"optimizer.weight_decay": (1.0, -1.0)}, "weight_decay=-1.0: must be"),
    ],
)
def test_an_invalid_grid_is_refused_before_anything_is_written(
    axes: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        sweep(_experiment(), axes, tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def test_settings_with_several_values_on_the_command_line_are_swept_and_lists_are_not() -> None:
    words = [
        "--optimizer.weight-decay",
        "0,1e-1,3",
        "--seeds",
        "0-2,7",
        "--task.operation=add,subtract",
        "--steps",
        "70",
    ]
    base, axes = with_swept(_experiment(), words, "test")
    assert (base.seeds, base.steps) == ((0, 1, 2, 7), 70)
    assert axes == {
        "optimizer.weight_decay": (0.0, 0.1, 3.0),
        "task.operation": ("add", "subtract"),
    }


# --- The outcome

_ALONE = """
import os, sys
os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})
import json
from mi_jax import Experiment, train
train(Experiment.from_json(json.loads(sys.argv[1])), sys.argv[2])
"""


def _bits(path: Path) -> bytes:
    return b"".join(
        np.asarray(value).tobytes() for value in open_run(path).losses.values
    ) + b"".join(np.asarray(leaf).tobytes() for leaf in _leaves(open_run(path).stack()))


def _leaves(tree: Any) -> list[Any]:
    return (
        [leaf for value in tree.values() for leaf in _leaves(value)]
        if isinstance(tree, dict)
        else [tree]
    )


def test_points_trained_in_processes_are_what_each_is_alone_and_are_summed_up(
    tmp_path: Path,
) -> None:
    calls: list[tuple[int, int]] = []
    summary = sweep(
        _experiment(),
        _AXES,
        tmp_path / "sweep",
        processes=2,
        watch=lambda i, n, name: calls.append((i, n)),
    )
    assert calls == [(i, 4) for i in (1, 2, 3, 4)]
    assert dict(summary.sizes) == {
        "optimizer.learning_rate": 2,
        "optimizer.weight_decay": 2,
        "seed": 2,
        "bound": 2,
    }
    assert {name: summary.attrs[name] for name in ("level", "gap", "gap_unit")} == {
        "level": 0.99,
        "gap": 2.0,
        "gap_unit": "ratio",
    }
    points = grid(_experiment(), _AXES)
    for name in points:
        run = open_run(tmp_path / "sweep" / "runs" / name)
        assert run.record["machine"]["cores"] == 1
        rate, decay = (float(part.split("=")[1]) for part in name.split(","))
        at = summary.sel({"optimizer.learning_rate": rate, "optimizer.weight_decay": decay})
        np.testing.assert_array_equal(
            at["final_test_loss"], run.measures["test_loss"].isel(step=-1)
        )
        assert {*DATES, "delay", "verdict", "final_train_accuracy"} <= set(at)
        # The same words and dates as anywhere else.
        dates = grokking_dates(run.measures)
        for date in (*DATES, "verdict"):
            np.testing.assert_array_equal(at[date], dates[date])
    name, point = list(points.items())[-1]
    subprocess.run(
        [sys.executable, "-c", _ALONE, json.dumps(point.to_json()), str(tmp_path / "alone")],
        check=True,
        timeout=300,
    )
    assert _bits(tmp_path / "alone") == _bits(tmp_path / "sweep" / "runs" / name)
    stored = xr.load_dataset(tmp_path / "sweep" / "summary.nc", engine="h5netcdf")
    xr.testing.assert_equal(stored, summary)
    assert (tmp_path / "sweep" / "figures" / "phase_diagram.png").stat().st_size > 10_000


@pytest.mark.slow
def test_one_process_trains_here_and_other_values_may_be_added_later(tmp_path: Path) -> None:
    axes = {"optimizer.weight_decay": (0.0, 1.0)}
    sweep(_experiment(), axes, tmp_path / "sweep", processes=1)
    first = tmp_path / "sweep" / "runs" / "optimizer.weight_decay=0.0" / "run.json"
    before = first.stat().st_mtime_ns
    more = sweep(
        _experiment(), {"optimizer.weight_decay": (0.0, 0.5, 1.0)}, tmp_path / "sweep", processes=1
    )
    assert more.sizes["optimizer.weight_decay"] == 3
    assert first.stat().st_mtime_ns == before
    assert (tmp_path / "sweep" / "figures" / "dates.png").exists()
    with pytest.raises(RunError, match="holds another sweep"):
        sweep(_experiment(steps=61), axes, tmp_path / "sweep", processes=1)
    with pytest.raises(RunError, match=r"holds no sweep\.json"):
        sweep(_experiment(), axes, tmp_path / "sweep" / "runs", processes=1)


# --- Points that fail

_LARGE = {"task.p": (11, 1_000_000), "optimizer.weight_decay": (0.0, 1.0)}


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_point_that_fails_is_a_row_with_its_error(tmp_path: Path, processes: int) -> None:
    summary = sweep(_experiment(steps=20), _LARGE, tmp_path / "sweep", processes=processes)
    assert summary["status"].values.tolist() == [["finished"] * 2, ["failed"] * 2]
    assert summary["error"].values[0].tolist() == ["", ""]
    assert all("this machine has" in text for text in summary["error"].values[1])
    assert np.isfinite(summary["final_test_loss"].sel({"task.p": 11})).all()
    lost = summary.sel({"task.p": 1_000_000})
    for name in ("final_test_loss", "final_train_accuracy", *DATES, "delay"):
        assert np.isnan(lost[name]).all(), name
    assert set(lost["verdict"].values.ravel()) == {""}
    stored = xr.load_dataset(tmp_path / "sweep" / "summary.nc", engine="h5netcdf")
    xr.testing.assert_equal(stored, summary)
    assert (tmp_path / "sweep" / "figures" / "phase_diagram.png").stat().st_size > 10_000
    # Where every point fails too.
    axes = {"optimizer.weight_decay": (0.0, 1.0)}
    large = with_setting(_experiment(steps=20), "task.p", 1_000_000)
    summary = sweep(large, axes, tmp_path / "large", processes=1)
    assert summary["status"].values.tolist() == ["failed", "failed"]
    assert set(summary.data_vars) == {"status", "error", "budget"}


def test_the_status_of_a_point_is_what_is_on_disk(tmp_path: Path) -> None:
    axes = {"steps": (30, 20), "optimizer.learning_rate": (1e-2, 1e30)}
    experiment = _experiment(steps=30, schedule=every(10))
    before = summarised(experiment, axes, tmp_path / "sweep")
    assert set(before["status"].values.ravel()) == {"absent"}
    summary = sweep(experiment, axes, tmp_path / "sweep", processes=1)
    assert summary["status"].values.tolist() == [["finished", "diverged"]] * 2
    # The budget is that of each point.
    assert summary["budget"].values.tolist() == [[30, 30], [20, 20]]
    assert "steps" not in summary.attrs
    title = plots.phase_diagram(summary, "steps", "optimizer.learning_rate").get_suptitle()
    assert "budget 20 to 30 steps" in title
    at_rate = summary.isel({"optimizer.learning_rate": 0})
    drawn = plots.dates_against(at_rate, "steps")
    (budgets,) = (part for part in drawn.collections if isinstance(part, LineCollection))
    ends = [np.asarray(segment)[:, 1].tolist() for segment in budgets.get_segments()]
    assert ends == [[30, 30], [20, 20]]
    # One that was stopped, one that is trained at this moment, and one that has not begun.
    runs = tmp_path / "sweep" / "runs"
    first, second, third, _ = (runs / name for name in grid(experiment, axes))
    for run in (first, second):
        shutil.rmtree(sorted((run / "segments").iterdir())[-1])
    for file in list(third.iterdir()):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    with lock(second):
        now = summarised(experiment, axes, tmp_path / "sweep")
    assert now["status"].values.tolist() == [["queued", "running"], ["queued", "diverged"]]


def test_a_failed_point_is_printed_and_gives_the_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "long.py").write_text(_FILE)
    command = ["sweep", "long.py", "--task.p", "11,1000000", "--steps", "20", "--schedule.n", "5"]
    assert main([*command, "--processes", "1", "--json", "--quiet"]) == 1
    output = capsys.readouterr()
    assert [row["status"] for row in json.loads(output.out)] == ["finished", "failed"]
    assert "1 of 2 runs failed" in output.err
    record = json.loads((tmp_path / "checkpoints" / "long-sweep" / "sweep.json").read_text())
    assert list(record["errors"]) == ["task.p=1000000"]


_DYING = """
import os
from dataclasses import dataclass
from mi_jax import Experiment
from mi_jax.models import MLP
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import every

@dataclass(frozen=True)
class Dying(ModularArithmetic):
    def evaluation(self, data, key):
        if self.p == 7:
            os._exit(1)
        return super().evaluation(data, key)

experiment = Experiment(
    name="dying", task=Dying(p=5), model=MLP(width=8), steps=9, schedule=every(3)
)
"""


@pytest.mark.slow
def test_a_process_that_dies_takes_no_other_point_with_it(tmp_path: Path) -> None:
    (tmp_path / "dying.py").write_text(_DYING)
    command = [sys.executable, "-m", "mi_jax.cli", "sweep", "dying.py", "--task.p", "7,5,11,13,17"]
    done = subprocess.run(
        [*command, "--out", "sweep", "--processes", "2", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1, done.stderr
    status = {row["task.p"]: row["status"] for row in json.loads(done.stdout)}
    assert status == {7: "failed", **dict.fromkeys((5, 11, 13, 17), "finished")}


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"experiment": 1, "name": "x", "axes": {}}', "[" * 10_000]
)
def test_a_sweep_json_that_is_something_else_is_refused(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "sweep"
    folder.mkdir()
    (folder / "sweep.json").write_text(content)
    with pytest.raises(RunError, match=r"sweep\.json cannot be read"):
        sweep(_experiment(), _AXES, folder)
    assert (folder / "sweep.json").read_text() == content


# --- Stopped and killed

_FILE = """
from mi_jax import Experiment
from mi_jax.models import MLP
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import AdamW, every

experiment = Experiment(
    name="long",
    task=ModularArithmetic(p=11),
    model=MLP(width=64),
    steps=20_000,
    schedule=every(200),
)
"""


def _start(folder: Path) -> subprocess.Popen[str]:
    (folder / "long.py").write_text(_FILE)
    command = [
        sys.executable,
        "-m",
        "mi_jax.cli",
        "sweep",
        "long.py",
        "--optimizer.weight-decay",
        "0,0.5,1",
        "--out",
        "sweep",
    ]
    return subprocess.Popen(
        [*command, "--processes", "2"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait(done: Any, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.1)


def _busy(folder: Path) -> list[int]:
    """The processes that work in this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder:
                found.append(int(process.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_sweep_that_is_ended_leaves_no_process_and_is_resumed(
    how: signal.Signals, tmp_path: Path
) -> None:
    process = _start(tmp_path)
    _wait(lambda: any((tmp_path / "sweep" / "runs").glob("*/measures/test_accuracy.nc")))
    finished = next((tmp_path / "sweep" / "runs").glob("*/measures/test_accuracy.nc")).parents[1]
    kept = {
        file: file.stat().st_mtime_ns
        for file in finished.rglob("*")
        if file.is_file() and file.name != ".lock"
    }
    with process:
        process.send_signal(how)
        errors = process.communicate(timeout=60)[1]
    if how is signal.SIGTERM:
        assert process.returncode == 130
        assert "of 3 runs finished" in errors
        assert "mi-jax sweep long.py" in errors
    _wait(lambda: not _busy(tmp_path), 20)
    with _start(tmp_path) as again:
        again.communicate(timeout=200)
    assert again.returncode == 0
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    summary = xr.load_dataset(tmp_path / "sweep" / "summary.nc", engine="h5netcdf")
    assert bool((summary["final_train_accuracy"] == 1).all())


@pytest.mark.slow
def test_the_command_line_prints_one_line_or_object_per_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        (tmp_path / "long.py").write_text(_FILE)
        command = [
            "sweep",
            "long.py",
            "--optimizer.weight-decay=0,1",
            "--seeds",
            "0-1",
            "--steps",
            "20",
            "--schedule.n",
            "10",
        ]
        assert main([*command, "--processes", "1", "--json", "--no-compile-cache", "--quiet"]) == 0
        rows = json.loads(capsys.readouterr().out)
        assert [(row["optimizer.weight_decay"], row["seed"]) for row in rows] == [
            (0.0, 0),
            (0.0, 1),
            (1.0, 0),
            (1.0, 1),
        ]
        assert all(
            row["generalised"][1] is None and row["verdict"] in ("did not memorise", "did not grok")
            for row in rows
        )
        assert main(["sweep", "long.py", "--steps", "20"]) == 2
        assert "Nothing is swept" in capsys.readouterr().err
    finally:
        os.chdir(here)


# --- Figures


def _dated(*pairs: tuple[float, float]) -> np.ndarray:
    return np.array(pairs, float)


_MEMORISED, _LATE, _NEVER = (80, 90), (800, 900), (2500, INF)


def _summary() -> xr.Dataset:
    verdicts = np.array(
        [
            [["grokked", "grokked"], ["did not grok", "grokked"]],
            [["diverged"] * 2, ["did not grok"] * 2],
        ]
    )
    generalised = np.where((verdicts == "grokked")[..., None], _LATE, _NEVER)
    return xr.Dataset(
        {
            "verdict": (("a.x", "b.y", "seed"), verdicts),
            "memorised": (("a.x", "b.y", "seed", "bound"), np.full((2, 2, 2, 2), _MEMORISED)),
            "generalised": (("a.x", "b.y", "seed", "bound"), generalised.astype(float)),
        },
        {"a.x": [0.1, 1.0], "b.y": [3, 30], "seed": [0, 1], "bound": ["lower", "upper"]},
        {"level": 0.99, "gap": 2.0, "gap_unit": "ratio", "steps": 2500},
    )


def test_the_phase_diagram_says_rule_budget_and_where_seeds_disagree() -> None:
    figure = plots.phase_diagram(_summary(), "a.x", "b.y")
    assert figure.get_suptitle() == "accuracy 99%, gap a factor of 2, budget 2,500 steps, 2 seeds"
    published = _summary().assign_attrs(level=0.9, gap=1000.0, gap_unit="steps")
    title = plots.phase_diagram(published, "a.x", "b.y").get_suptitle()
    assert title == "accuracy 90%, gap 1,000 steps, budget 2,500 steps, 2 seeds"
    left, right = figure.axes[:2]
    assert [(text.get_text(), text.xy) for text in left.texts] == [("1/2", (0.5, 1.5))]  # pyright: ignore[reportAttributeAccessIssue]
    values = left.collections[0].get_array()
    assert values is not None
    drawn = [VERDICTS[k] for k in np.asarray(values).ravel()]
    # Diverged is a verdict of its own, not one of those that did not memorise.
    assert drawn == ["grokked", "diverged", "grokked", "did not grok"]
    legend = left.get_legend()
    assert legend is not None
    assert {text.get_text() for text in legend.get_texts()} == set(drawn)
    assert (left.get_xlabel(), left.get_ylabel()) == ("x", "y")
    medians = np.ma.masked_invalid(np.asarray(right.collections[0].get_array())).ravel()
    # Where one of two seeds never generalises, the median is open above.
    np.testing.assert_allclose(medians.filled(-1), [math.sqrt(800 * 900), -1, -1, -1])
    counts = [(text.get_text(), text.xy) for text in right.texts]  # pyright: ignore[reportAttributeAccessIssue]
    assert counts == [("1/2", (0.5, 1.5))]


def test_a_run_that_failed_is_an_empty_cell_on_both_sides() -> None:
    summary = _summary()
    summary["verdict"][0, 0] = ""
    summary["generalised"][0, 0] = NAN
    left, right = plots.phase_diagram(summary, "a.x", "b.y").axes[:2]
    shown = [
        ~np.ma.getmaskarray(np.ma.masked_invalid(mesh.get_array())).ravel()
        for axes in (left, right)
        for mesh in axes.collections
    ]
    assert shown[0].tolist() == [False, True, True, True]
    assert np.any(shown[1:], axis=0).tolist() == [False, True, True, True]
    assert to_hex(right.get_facecolor()) == "#ffffff"


def test_a_setting_at_which_few_seeds_generalise_looks_no_earlier() -> None:
    """One of five seeds does at the first setting, early; all do at the second, later."""
    few = _dated((800, 900), *[_NEVER] * 4)
    all_do = _dated(*[(900.0 + 100 * k, 1000.0 + 100 * k) for k in range(5)])
    dims = ("a.x", "seed", "bound")
    summary = xr.Dataset(
        {
            "memorised": (dims, np.full((2, 5, 2), _MEMORISED)),
            "generalised": (dims, np.stack([few, all_do])),
            "verdict": (("a.x", "seed"), np.full((2, 5), "grokked")),
        },
        {"a.x": [0.1, 1.0], "seed": range(5), "bound": ["lower", "upper"]},
        {"level": 0.99, "gap": 2.0, "gap_unit": "ratio", "steps": 2500},
    )
    axes = plots.dates_against(summary, "a.x")
    orange = COLOURS["test"]
    low, high = (
        np.asarray(line.get_ydata(), float)
        for line in axes.lines
        if line.get_color() == orange and np.array_equal(np.asarray(line.get_xdata()), [0, 1])
    )
    np.testing.assert_array_equal(low, [2500, 1100])
    np.testing.assert_array_equal(high, [NAN, 1200])
    assert axes.get_ylim()[1] > 2500
    arrows = [line for line in axes.lines if line.get_marker() == "^"]
    assert len(arrows) == 4
    right = plots.phase_diagram(summary.expand_dims({"b.y": [3]}), "a.x", "b.y").axes[1]
    medians = np.ma.masked_invalid(np.asarray(right.collections[0].get_array())).ravel()
    np.testing.assert_allclose(medians.filled(-1), [-1, math.sqrt(1100 * 1200)])
    assert [text.get_text() for text in right.texts] == ["1/5"]


def test_dates_against_a_setting_are_bars_between_their_bounds() -> None:
    axes = plots.dates_against(_summary().isel({"b.y": 1}), "a.x")
    bars = [
        np.asarray(line.get_ydata()).tolist()
        for line in axes.lines
        if len(set(np.asarray(line.get_xdata()).tolist())) == 1 and line.get_linestyle() == "-"
    ]
    top = axes.get_ylim()[1]
    assert sorted(map(tuple, bars)) == sorted(
        [*[(80.0, 90.0)] * 4, (800.0, 900.0), *[(2500.0, top)] * 3]
    )
    assert axes.get_yscale() == "log"


def test_a_sweep_runs_where_the_system_does_not_say_which_cores_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.delattr(os, "sched_setaffinity")
    experiment = tiny_mlp_experiment(steps=2, seeds=(0,))
    summary = sweep(experiment, {"steps": (2, 3)}, tmp_path / "sweep", processes=1)
    assert summary.sizes["steps"] == 2
