"""Comparison of histories: numbers against hand-computed ones, artists of the figure, and verbs."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import tiny_mlp_experiment

from mi_jax.basics.errors import ConfigError, RunError
from mi_jax.cli.main import main
from mi_jax.dynamics import GrokkingRule
from mi_jax.interventions import Change, Freeze
from mi_jax.models import MLP
from mi_jax.runs.compare import compare, parted_at
from mi_jax.runs.fork import fork, zoom
from mi_jax.runs.run import Run, open_run
from mi_jax.runs.train import train
from mi_jax.training import Storage

PARENT = tiny_mlp_experiment(seeds=(0, 3), steps=40, storage=Storage(states=2))


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(PARENT, tmp_path_factory.mktemp("runs") / "parent")


@pytest.fixture(scope="module")
def forks(parent: Run) -> dict[str, Run]:
    folder, change = parent.path.parent, Change("optimizer.weight_decay", 0.0, start=25)
    return {
        "same": fork(parent, step=13, out=folder / "same"),
        "no decay": fork(parent, step=13, interventions=[change], out=folder / "no_decay"),
    }


def test_a_comparison_holds_losses_measures_and_distances_of_every_history(
    parent: Run, forks: dict[str, Run]
) -> None:
    made = compare(parent, forks)
    dataset = made.dataset
    assert dataset["condition"].values.tolist() == ["parent", "same", "no decay"]
    assert set(dataset.data_vars) == {
        "loss",
        "train_loss",
        "test_loss",
        "train_accuracy",
        "test_accuracy",
        "weight_distance",
    }
    later = [int(step) for step in parent.steps if step > 13]
    for name in ("test_loss", "weight_distance"):
        np.testing.assert_array_equal(
            dataset[name].sel(condition="same", step=later),
            dataset[name].sel(condition="parent", step=later),
        )
        assert np.isnan(
            dataset[name].sel(condition="same").where(dataset["step"] < 13, drop=True)
        ).all()
    np.testing.assert_array_equal(
        dataset["loss"].sel(condition="parent", step=later[0]), parent.losses.sel(step=later[0])
    )
    far = dataset["weight_distance"].sel(condition="no decay")
    for step in later:
        ours, theirs = (
            np.concatenate([x[0, 1].ravel() for x in jax.tree.leaves(run.stack([step]))])
            for run in (forks["no decay"], parent)
        )
        expected = np.linalg.norm(ours.astype(float) - theirs) / np.linalg.norm(
            theirs.astype(float)
        )
        assert far.sel(seed=3, step=step).item() == pytest.approx(expected, rel=1e-6)
        assert (expected > 0) == (step > 25)
    # The first fork changes nothing.
    assert dataset.attrs["parted"] == [13]


def test_runs_part_where_the_first_of_them_leaves_what_they_share(
    parent: Run, forks: dict[str, Run], tmp_path: Path
) -> None:
    folder, change = parent.path.parent, Change("optimizer.weight_decay", 0.0, start=30)
    zoomed = zoom(parent, around=20, every=1, width=6, out=folder / "zoom")
    later = fork(parent, step=16, interventions=[change], out=folder / "later")
    second = fork(later, step=30, interventions=[Freeze("unembed.*")], out=folder / "second")
    of_zoom = fork(zoomed, step=18, interventions=[Freeze("unembed.*")], out=folder / "of_zoom")
    no_decay = forks["no decay"]
    expected = {
        (parent, no_decay): 13,
        (parent, forks["same"]): 40,
        (parent, zoomed): zoomed.steps[-1],
        (parent, second): 16,
        (later, second): 30,
        (no_decay, second): 13,
        (zoomed, no_decay): 13,
        (zoomed, second): 16,
        (of_zoom, parent): 18,
        (of_zoom, no_decay): 13,
        (parent, parent): np.inf,
    }
    for (one, other), step in expected.items():
        assert parted_at(one, other) == parted_at(other, one) == step
    assert parted_at(parent, train(replace(PARENT, steps=1), tmp_path / "other")) is None
    # Moved away from their parents, forks are known by the hash of the run that they left.
    for run in (second, later):
        shutil.copytree(run.path, tmp_path / "alone" / run.path.name)
    alone, first = (open_run(tmp_path / "alone" / name) for name in ("second", "later"))
    assert parted_at(alone, first) == 30
    assert parted_at(alone, no_decay) == parted_at(first, no_decay) == 13
    # Siblings: what they share has no shift, and the later one is drawn as leaving.
    made = compare(no_decay, {"later": later, "zoom": zoomed}, rule=GrokkingRule(level=1e-9))
    assert made.dataset.attrs["parted"] == [13, 13]
    assert (made.dates["generalised_shift"] == 0).all()


def test_the_figure_has_a_panel_per_variable_and_a_line_per_history(
    parent: Run, forks: dict[str, Run]
) -> None:
    figure = compare(parent, forks, measures=["test_loss"]).figure
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == [
        "loss (nats)",
        "test loss (nats)",
        "weight distance",
    ]
    thick = [
        line for line in panels[1].get_lines() if line.get_label() in ("parent", "same", "no decay")
    ]
    assert [line.get_label() for line in thick] == ["parent", "same", "no decay"]
    assert len({line.get_color() for line in thick}) == 3
    assert max(thick[0].get_xdata()) == 40  # pyright: ignore[reportArgumentType]


def test_runs_with_other_seeds_or_parameters_are_refused(parent: Run, tmp_path: Path) -> None:
    other = train(tiny_mlp_experiment(seeds=(0,), steps=1), tmp_path / "other")
    with pytest.raises(RunError, match=r"other has the seeds \[0\], the parent \[0, 3\]"):
        compare(parent, [other])
    wider = train(replace(PARENT, model=MLP(width=20), steps=1), tmp_path / "wider")
    with pytest.raises(RunError, match="wider has other parameters than the parent"):
        compare(parent, [wider])
    with pytest.raises(ConfigError, match="no fork"):
        compare(parent, [])


def _say(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main([*arguments, "--no-compile-cache", "--quiet"])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_verbs_do_the_same_as_the_functions(
    parent: Run, forks: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change = 'Change(field="optimizer.weight_decay", value=0.0, start=25)'
    folder = str(tmp_path / "fork")
    status, out, _ = _say(
        capsys,
        "fork",
        str(parent.path),
        "--step",
        "13",
        "--intervention",
        change,
        "--out",
        folder,
        "--json",
    )
    assert status == 0
    assert json.loads(out)["parent"] == {
        "path": str(parent.path),
        "hash": PARENT.hash,
        "step": 13,
        "state": "exact",
        "departs": True,
    }
    for one, other in zip(
        *(jax.tree.leaves(run.stack()) for run in (open_run(folder), forks["no decay"])),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    status, out, _ = _say(
        capsys,
        "zoom",
        str(parent.path),
        "--around",
        "20",
        "--width",
        "3",
        "--out",
        str(tmp_path / "zoom"),
    )
    assert status == 0
    assert out.startswith("zoomed: 7 snapshots from step 17 to 23")
    status, out, _ = _say(
        capsys, "compare", str(parent.path), folder, "--out", str(tmp_path / "both")
    )
    assert status == 0
    assert out.splitlines()[0].split("\t")[-1] == "weight_distance"
    assert {line.split("\t")[0] for line in out.splitlines()[1:3]} == {"parent", "fork"}
    assert {file.name for file in (tmp_path / "both").iterdir()} == {
        "comparison.nc",
        "comparison.png",
        "comparison.svg",
    }
    status, out, _ = _say(capsys, "reproduce", folder)
    assert (status, out.splitlines()[0]) == (0, "every stored number is the same, bit for bit")
    status, out, _ = _say(capsys, "verify", folder)
    assert status == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--step", "41"], "Cannot fork at step 41: "),
        (["--step", "3", "--intervention", "Freeze('embde.*')"], "no parameter matches 'embde.*'"),
        (["--step", "3", "--intervention", "print('x')"], "There is no intervention 'print'"),
        (["--step", "3", "--task.p", "13"], "fork does not take --task.p 13"),
    ],
)
def test_the_verb_says_what_is_wrong_and_writes_nothing(
    parent: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    status, out, errors = _say(
        capsys, "fork", str(parent.path), *arguments, "--out", str(tmp_path / "fork")
    )
    assert (status, out) == (2, "")
    assert message in errors
    assert list(tmp_path.iterdir()) == []


def test_training_takes_interventions_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = [
        "--task.name",
        "modular_arithmetic",
        "--model.name",
        "mlp",
        "--model.width",
        "8",
        "--steps",
        "3",
        "--seeds",
        "0",
    ]
    freeze = ["--intervention", "Freeze('unembed.*')"]
    status, _, errors = _say(
        capsys, "train", "grokking", *tiny, *freeze, "--out", str(tmp_path / "run")
    )
    assert status == 0, errors
    run = open_run(tmp_path / "run")
    assert run.experiment.interventions == (Freeze("unembed.*"),)
    U = run.stack()["unembed"]["W_U"]
    np.testing.assert_array_equal(U[0], U[-1])
