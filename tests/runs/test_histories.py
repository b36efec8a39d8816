"""One step, one reading: whatever is read of a network at a step is the same in every history that
reaches it.
"""

import dataclasses
import importlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from conftest import tiny_experiment, tiny_mlp_experiment

from mi_jax import across, compare, dynamics
from mi_jax.basics.errors import MeasureError, RunError
from mi_jax.cli.main import main
from mi_jax.contracts import Context, Measure
from mi_jax.interventions import Freeze
from mi_jax.measuring.registry import READINGS
from mi_jax.report.inputs import read_inputs
from mi_jax.report.study import report
from mi_jax.runs.dates import run_dates
from mi_jax.runs.fork import fork, zoom
from mi_jax.runs.run import Run, open_run
from mi_jax.runs.train import train
from mi_jax.training import Storage, every
from mi_jax.training.loop import Progress

PARENT = tiny_mlp_experiment(
    seeds=(0, 3), steps=40, schedule=every(4), storage=Storage(states=2, snapshots=5)
)
FORK, ZOOM = 16, 22
"""Where the fork begins, and where the zoom is centred."""

NAMES = ["test_loss", "restricted_loss", "excluded_loss", "key_frequencies_final"]


class _StopError(Exception):
    pass


def _histories(experiment: Any, folder: Path) -> dict[str, Run]:
    """A run, a fork, a fork of the fork, a zoom, and the run resumed."""
    parent = train(experiment, folder / "parent")
    forked = fork(parent, step=FORK, steps=48, out=folder / "fork")

    def watch(progress: Progress) -> None:
        if progress.step >= 20:
            raise _StopError

    with pytest.raises(_StopError):
        train(experiment, folder / "resumed", watch=watch)
    return {
        "parent": parent,
        "fork": forked,
        "fork of a fork": fork(forked, step=24, steps=36, out=folder / "fork_of_fork"),
        "zoom": zoom(parent, around=ZOOM, every=1, width=6, out=folder / "zoom"),
        "resumed": train(experiment, folder / "resumed"),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("histories")
    _histories(PARENT, folder)
    return folder


@pytest.fixture
def histories(folder: Path, tmp_path: Path) -> dict[str, Run]:
    """Copies without readings, moved together from where they were trained."""
    shutil.copytree(folder, tmp_path / "moved", ignore=shutil.ignore_patterns("measures"))
    names = ("parent", "fork", "fork of a fork", "zoom", "resumed")
    return {name: open_run(tmp_path / "moved" / name.replace(" of a ", "_of_")) for name in names}


def _wandered(params: Any, context: Context) -> jax.Array:
    moved = jax.tree.map(lambda x, y: jnp.square(x - y).sum(), params, context.reference.previous)
    return jnp.stack(jax.tree.leaves(moved)).sum()


def _left(params: Any, context: Context) -> jax.Array:
    moved = jax.tree.map(lambda x, y: jnp.square(x - y).sum(), params, context.reference.final)
    return jnp.stack(jax.tree.leaves(moved)).sum()


_LEFT = Measure("left", _left, uses=frozenset({"final"}))
"""The distance from the final model, which any other final model changes."""

_WANDERED = Measure("wandered", _wandered, uses=frozenset({"previous"}))


def _check_same_bits(whole: xr.Dataset, part: xr.Dataset, names: list[str]) -> int:
    """Compare the readings at common steps; return how many were compared."""
    common = np.intersect1d(whole["step"], part["step"])
    assert len(common) > 0
    count = 0
    for name in names:
        for step in common:
            ours, theirs = (readings[name].sel(step=step) for readings in (whole, part))
            previous = "previous_step" in ours.coords and name == "wandered"
            if previous and float(ours["previous_step"]) != float(theirs["previous_step"]):
                continue
            assert ours.values.tobytes() == theirs.values.tobytes(), (name, int(step))
            count += 1
    return count


@pytest.mark.parametrize("name", ["fork", "fork of a fork", "zoom", "resumed"])
def test_a_reading_is_the_same_in_every_history_that_reaches_its_step(
    histories: dict[str, Run], name: str
) -> None:
    measures = [*NAMES, _WANDERED, _LEFT]
    whole, part = (histories[label].measure(measures) for label in ("parent", name))
    assert _check_same_bits(whole, part, [*NAMES, "wandered", "left"]) > 5
    attrs = [read["restricted_loss"].attrs for read in (whole, part)]
    for key in ("reference_run", "reference_step", "reference_hash"):
        assert attrs[0][key] == attrs[1][key], key
    assert attrs[1]["reference_step"] == 40
    assert attrs[1]["reference_run"] == histories["parent"].record["hash"]
    assert "reference_run" not in part["test_loss"].attrs


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(tiny_mlp_experiment, marks=pytest.mark.slow),
        pytest.param(tiny_experiment, marks=pytest.mark.long),
    ],
)
def test_every_measure_is_the_same_in_every_history(tmp_path: Path, make: Any) -> None:
    experiment = make(seeds=(0, 3), steps=40, schedule=every(4), storage=Storage(states=2))
    histories = _histories(experiment, tmp_path)
    chosen, _ = histories["parent"].choose([name for name in READINGS if _allowed(histories, name)])
    whole = histories["parent"].measure(chosen)
    names = [name for measure in chosen for name in measure.variables]
    uses_previous = {
        name for measure in chosen if "previous" in measure.uses for name in measure.variables
    }
    for label, run in histories.items():
        part = run.measure(chosen)
        _check_same_bits(whole, part, [name for name in names if name not in uses_previous])
        assert set(run.measures.data_vars) == set(names), label


def _allowed(histories: dict[str, Run], name: str) -> bool:
    try:
        histories["parent"].choose([name])
    except MeasureError:
        return False
    return True


# --- The final reference ---


def test_the_runs_own_end_is_an_option_with_names_of_its_own(histories: dict[str, Run]) -> None:
    forked, measures = histories["fork"], ["test_loss", "restricted_loss", _LEFT]
    root, own = forked.measure(measures), forked.measure(measures, reference="own")
    assert set(own.data_vars) == {"test_loss", "restricted_loss_own", "left_own"}
    assert own["left_own"].attrs["reference_step"] == 48
    assert own["left_own"].attrs["reference_run"] == forked.record["hash"]
    assert (own["left_own"].sel(step=48) == 0).all()
    assert (root["left"].sel(step=40) == 0).all()
    assert (root["left"].sel(step=48) > 0).all()
    assert set(forked.measures.data_vars) == set(root.data_vars) | set(own.data_vars)


def test_the_command_line_reads_against_either_end(
    histories: dict[str, Run], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path, names = str(histories["fork"].path), ("--measures", "cka_final", "--quiet")
    root = _json(capsys, "measure", path, *names)
    own = _json(capsys, "measure", path, *names, "--reference", "own")
    assert set(root["0"]) == {"cka_final"}
    assert own["0"] == {"cka_final_own": pytest.approx(1)}
    assert root["0"]["cka_final"] < 0.9999
    weights = histories["fork"].export(48, tmp_path / "w.npz", seed=0)
    assert main(["measure", str(weights), "--like", path, "--reference", "own"]) != 0
    assert "Leave it out" in capsys.readouterr().err


def test_slow_readings_against_the_runs_own_end_have_a_null(histories: dict[str, Run]) -> None:
    forked = histories["fork of a fork"]
    forked.measure(["loss_barrier_train_final"], reference="own")
    assert "loss_barrier_train_final" in forked.nulls(reference="own").expensive
    assert not forked.nulls().expensive


@pytest.mark.slow
def test_a_report_compares_a_fork_with_its_own_end_and_a_zoom_with_the_roots(
    histories: dict[str, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    parent, path = histories["parent"], histories["fork"].path
    changed = fork(parent, step=FORK, interventions=[Freeze("embed*")], out=path / "../changed")
    assert [run.departs for run in (*histories.values(), changed)] == [
        False,
        True,  # it goes on beyond the parent's end
        False,
        False,
        False,
        True,
    ]
    monkeypatch.chdir(path.parent)
    for run, whose in ((histories["zoom"], parent), (changed, changed)):
        run.measure(NAMES)
        if whose is changed:
            run.measure([_LEFT])
        study = report(run)
        read = study.dataset["restricted_loss"].attrs
        assert (read["reference_run"], read["reference_step"]) == (whose.record["hash"], 40)
        assert set(study.dataset) == set(NAMES)
        text = study.report.read_text()
        assert f"mi-jax reproduce {run.path.name}" in text
        if whose is changed:
            own = changed.measures["restricted_loss_own"]
            np.testing.assert_array_equal(study.dataset["restricted_loss"], own)
            assert "A fork of parent at step 16 with Freeze" in text
            assert "restricted_loss_own" in text
            assert "the final model is that of this run at step 40" in text
            assert (changed.path / "nulls" / "frequencies_own.nc").exists()
            assert "left is left out. It is compared with the end of the run that" in text
            data = changed.path / "figures" / "progress.nc"
            with xr.open_dataset(data, engine="h5netcdf") as behind:
                assert {"restricted_loss_own", "null_restricted_loss_own"} <= set(behind)
                assert "restricted_loss" not in behind
        else:
            assert "A part of parent" in text
            assert "_own" not in text


def _remove(parent: Path) -> None:
    shutil.rmtree(parent)


def _cut(parent: Path) -> None:
    """Leave a parent that is not trained to its end."""
    last = sorted((parent / "segments").glob("[0-9]*"))[-1]
    shutil.rmtree(last)


@pytest.mark.parametrize(
    ("harm", "message"),
    [(_remove, "is not there any more or was replaced"), (_cut, "is not trained to its end")],
)
def test_without_the_end_of_the_root_retrospective_readings_are_left_out(
    histories: dict[str, Run], harm: Any, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    histories["fork"].measure(NAMES)
    # The original parent, which the forks name, is hidden too.
    record = json.loads((histories["fork"].path / "run.json").read_text())
    original = Path(record["parent"]["path"])
    hidden = original.with_name("hidden")
    original.rename(hidden)
    try:
        harm(histories["parent"].path)
        forked = open_run(histories["fork"].path)
        with caplog.at_level(logging.WARNING):
            assert set(forked.measures.data_vars) == {"test_loss"}
        assert message in caplog.text
        measures, skipped = forked.choose()
        reasons = {skip.name: skip.reason for skip in skipped}
        assert message in reasons["restricted_loss"]
        assert not [measure.name for measure in measures if measure.retrospective]
        with pytest.raises(MeasureError, match=message):
            forked.measure(["restricted_loss"])
        assert "restricted_loss_own" in forked.measure(["restricted_loss"], reference="own")
    finally:
        hidden.rename(original)


def test_a_root_that_was_trained_again_with_other_seeds_is_not_the_forks_root(
    tmp_path: Path,
) -> None:
    parent = train(PARENT, tmp_path / "parent")
    fork(parent, step=FORK, steps=48, out=tmp_path / "fork")
    shutil.rmtree(parent.path)
    train(dataclasses.replace(PARENT, seeds=(7,)), parent.path)
    forked = open_run(tmp_path / "fork")
    readings = forked.measure(["test_accuracy", "train_accuracy"])
    assert run_dates(forked, readings=readings).sizes["seed"] == len(forked.seeds)
    assert "restricted_loss" not in {measure.name for measure in forked.choose()[0]}


def test_a_fork_whose_root_was_trained_again_otherwise_is_read_again(
    histories: dict[str, Run],
) -> None:
    """The final model is part of the key."""
    forked = histories["fork"]
    forked.measure(["restricted_loss"])
    file = forked.path / "measures" / "restricted_loss.nc"
    with xr.open_dataset(file, engine="h5netcdf") as opened:
        dataset = opened.load()
    recipe = json.loads(dataset.attrs["recipe"])
    recipe["final"]["reference_hash"] = "another"
    assert recipe["final"]["reference_step"] == 40
    dataset.attrs |= {"recipe": json.dumps(recipe), "key": "another"}
    dataset.to_netcdf(file, engine="h5netcdf")
    assert "restricted_loss of " in forked.measures.attrs["left_out"]


def test_a_report_of_readings_that_all_are_stale_says_so(histories: dict[str, Run]) -> None:
    run = histories["parent"]
    with pytest.raises(RunError, match="it has no readings of its snapshots yet"):
        report(run)
    run.measure(["test_loss"])
    file = run.path / "measures" / "test_loss.nc"
    with xr.open_dataset(file, engine="h5netcdf") as opened:
        dataset = opened.load()
    dataset.assign_attrs(key="another").to_netcdf(file, engine="h5netcdf")
    with pytest.raises(RunError, match="all its readings are of other code"):
        report(run)


# --- The snapshot before ---


def test_the_first_snapshot_of_a_fork_has_the_one_before_it_in_its_history(
    histories: dict[str, Run],
) -> None:
    expected = {
        "parent": [np.nan, 0, 4, 8, 12, 16, 20, 24, 28, 32, 36],
        "fork": [12, 16, 20, 24, 28, 32, 36, 40, 44],
        "fork of a fork": [20, 24, 28, 32],
        "zoom": [12, 16, 17, 18],
    }
    for name, steps in expected.items():
        read = histories[name].measure([_WANDERED])["wandered"]
        np.testing.assert_array_equal(read["previous_step"].values[: len(steps)], steps)
        assert np.isfinite(read.values[:, 1 if name == "parent" else 0 :]).all(), name
    zoomed, parent = (histories[name].stack() for name in ("zoom", "parent"))
    first = histories["zoom"].measures["wandered"].values[:, 0]
    before = list(histories["parent"].steps).index(12)
    pairs = zip(jax.tree.leaves(zoomed), jax.tree.leaves(parent), strict=True)
    moved = [np.square(x[0] - y[before]).reshape(2, -1).sum(axis=1) for x, y in pairs]
    np.testing.assert_allclose(first, np.sum(moved, axis=0), rtol=1e-5)


# --- Modes ---


def test_modes_of_a_zoom_are_compared_with_the_untrained_table(histories: dict[str, Run]) -> None:
    whole, part = (across.mode_lines(histories[name]) for name in ("parent", "zoom"))
    common = np.intersect1d(whole["step"], part["step"])
    assert len(common) > 0
    for step in common:
        np.testing.assert_array_equal(
            whole["mode_noise"].sel(step=step), part["mode_noise"].sel(step=step)
        )


@pytest.mark.slow
def test_what_happened_before_a_zoom_is_dated_on_the_snapshots_of_its_parent(
    histories: dict[str, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    # So short a run puts no frequency further ahead than an even share.
    monkeypatch.setattr(importlib.import_module("mi_jax.dynamics.births"), "AHEAD", 1.0)
    parent, zoomed = histories["parent"], histories["zoom"]
    earlier = parent.steps[parent.steps < zoomed.steps[0]]
    steps = np.concatenate([earlier, zoomed.steps])
    # Births, on shares joined by hand.
    shares = "fourier_power_unembedding"
    whole, part = (run.measure([shares, "key_frequencies"]) for run in (parent, zoomed))
    joined = xr.concat([whole[shares].sel(step=earlier), part[shares]], "step")
    winners = part["key_frequencies"].isel(step=-1, drop=True)
    expected = dynamics.births(joined, winners)
    np.testing.assert_array_equal(read_inputs(zoomed).births, expected)
    assert (expected.sel(bound="upper") <= zoomed.steps[0]).any()
    # Modes, on tables joined by hand.
    lines = across.mode_lines(zoomed)
    stacks = parent.stack(earlier), zoomed.stack()
    table = np.concatenate(
        [stack["unembed"]["W_U"][..., : PARENT.task.inputs.classes] for stack in stacks]
    )
    for row, seed in enumerate(zoomed.seeds):
        expected_lines = dynamics.follow_modes(table[:, row], steps, noise="first")
        for name in ("birth", "death", "frozen"):
            found = lines[f"mode_{name}"].sel(seed=seed)
            np.testing.assert_array_equal(found, getattr(expected_lines, name))
            assert found.attrs["reference_step"] == zoomed.steps[-1]
        turn = expected_lines.turn[len(earlier) :]
        np.testing.assert_allclose(lines["mode_turn"].sel(seed=seed), turn, atol=2e-3)


# --- Side by side ---


def _json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    status = main([*arguments, "--json"])
    out, errors = capsys.readouterr()
    assert status == 0, errors
    return json.loads(out)


def test_compare_sets_values_of_one_step_side_by_side_and_says_which(
    histories: dict[str, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    parent, zoomed = histories["parent"], histories["zoom"]
    paths = [str(parent.path), str(zoomed.path)]
    answer = _json(capsys, "compare", *paths, "--quiet", "--measures", "test_loss,restricted_loss")
    assert answer["step"] == 28
    assert answer["ends"]["parent"] == answer["ends"]["zoom"]
    assert answer["ends"]["zoom"]["weight_distance"] == 0
    assert main(["compare", *paths, "--quiet"]) == 0
    assert capsys.readouterr().out.startswith("at step 28, median over seeds\t")


def test_compare_leaves_out_readings_of_other_final_models(histories: dict[str, Run]) -> None:
    other = train(
        tiny_mlp_experiment(seeds=(0, 3), steps=20, schedule=every(4)),
        histories["parent"].path.with_name("other"),
    )
    dataset = compare(
        histories["parent"], [other], measures=["test_loss", "restricted_loss"]
    ).dataset
    assert "restricted_loss" not in dataset
    assert "restricted_loss is left out. The histories compare it" in dataset.attrs["left_out"]
    assert dataset.attrs["common_step"] == 20


@pytest.mark.parametrize(("name", "done"), [("fork", 48), ("zoom", 28), ("parent", 40)])
def test_info_says_to_which_step_a_history_was_trained(
    histories: dict[str, Run], capsys: pytest.CaptureFixture[str], name: str, done: int
) -> None:
    answer = _json(capsys, "info", str(histories[name].path))
    assert (answer["steps"], answer["trained_to"]) == (done, done)


# --- Runs opened as one ---


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pair")
    settings = {"steps": 20, "schedule": every(4)}
    return [
        train(tiny_mlp_experiment(seeds=seeds, **settings), folder / name).path
        for seeds, name in (((0, 3), "a"), ((7,), "b"))
    ]


def test_a_reading_that_one_of_several_runs_lacks_is_left_out_by_name(pair: list[Path]) -> None:
    first, second = (open_run(path) for path in pair)
    first.measure(["test_loss", "key_frequencies", "excluded_loss"])
    second.measure(["test_loss"])
    both = open_run(pair).measures
    assert set(both.data_vars) == {"test_loss"}
    assert both["test_loss"].sizes["seed"] == 3
    left_out = both.attrs["left_out"]
    assert "excluded_loss, key_frequencies is left out" in left_out
    assert str(second.path) in left_out
    assert str(first.path) not in left_out
    second.measure(["key_frequencies"])
    both = open_run(pair).measures
    assert both["key_frequencies"].dtype == bool
    assert both["key_frequencies"].sizes["seed"] == 3


def test_a_joined_reading_is_that_of_each_run(pair: list[Path]) -> None:
    whole = open_run(pair).measure(NAMES)
    for path in pair:
        alone = open_run(path).measure(NAMES)
        for name in NAMES:
            np.testing.assert_array_equal(whole[name].sel(seed=alone["seed"]), alone[name])


@pytest.mark.slow
def test_the_report_of_several_runs_has_a_folder_of_its_own(pair: list[Path]) -> None:
    names = ["train_accuracy", "test_accuracy", "train_loss", "test_loss"]
    both = open_run(pair)
    both.measure(names)
    study = report(both)
    assert study.report == pair[0].parent / "a+b" / "report.html"
    assert not (pair[0] / "report.html").exists()
    text = study.report.read_text()
    assert all(f"mi-jax reproduce {path}" in text for path in pair)
    assert study.nulls.frequencies["seed"].values.tolist() == [0, 3, 7]
    assert study.nulls.renamed["seed"].values.tolist() == [0, 3, 7]
    assert study.nulls.relabelled["seed"].values.tolist() == [0, 3, 7]
