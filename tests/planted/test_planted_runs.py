"""Tests of planted trajectories: they are runs like any other, with events dated as planted."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from mi_jax import planted
from mi_jax.basics.errors import ConfigError, RunError
from mi_jax.basics.pytrees import dotted
from mi_jax.basics.records import digest
from mi_jax.cli.main import main
from mi_jax.cli.overrides import with_overrides
from mi_jax.contracts import mean_loss
from mi_jax.dynamics import births, crossings, grokking_dates, segment
from mi_jax.interventions import Change
from mi_jax.models import MLP, Transformer
from mi_jax.planted import RandomWalk, ScaledInduction, TwoCircuits
from mi_jax.planted.induction import induction_parts
from mi_jax.runs.cost import cost
from mi_jax.runs.experiment import Experiment
from mi_jax.runs.library import find
from mi_jax.runs.run import Run, open_run
from mi_jax.runs.train import train
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import every
from mi_jax.training.planting import PlantContext
from mi_jax.training.trajectory import Storage
from mi_jax.training.verifying import problems

_CURVES = (
    "train_accuracy",
    "test_accuracy",
    "train_loss",
    "test_loss",
    "gini_unembedding",
    "sum_squared_weights",
)
_CIRCUITS = ("fourier_power_unembedding", "key_frequencies")


@pytest.fixture(scope="module")
def circuits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, xr.Dataset]:
    """A run of two circuits over three seeds, and its readings."""
    run = planted.two_circuits(tmp_path_factory.mktemp("runs") / "two")
    return run, run.measure([*_CURVES, *_CIRCUITS])


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, xr.Dataset]:
    """A run of a random walk over three seeds, and its readings."""
    run = planted.random_walk(tmp_path_factory.mktemp("runs") / "walk")
    return run, run.measure(_CURVES)


# --- Two circuits


@pytest.mark.slow
def test_the_circuits_are_born_where_and_in_the_order_that_they_were_planted(
    circuits: tuple[Run, xr.Dataset],
) -> None:
    run, dataset = circuits
    truth, gap = run.record["truth"], 1
    keys = dataset["key_frequencies"].isel(step=-1, drop=True)
    born = births(dataset["fourier_power_unembedding"], keys)
    for seed in run.seeds:
        births_of_seed = born.sel(seed=seed, bound="upper").dropna("frequency")
        assert births_of_seed["frequency"].values.tolist() == sorted(truth["order"])
        dates = dict(
            zip(
                births_of_seed["frequency"].values.tolist(),
                births_of_seed.values.tolist(),
                strict=True,
            )
        )
        assert sorted(dates, key=dates.__getitem__) == truth["order"]
        for k, date in dates.items():
            assert abs(date - truth["births"][str(seed)][str(k)]) <= gap
            assert truth["onsets"][str(k)] < date <= truth["formed"][str(k)]


def test_each_circuit_and_their_sum_have_the_stated_logits(
    circuits: tuple[Run, xr.Dataset],
) -> None:
    run, dataset = circuits
    a, b = np.divmod(np.arange(23 * 23), 23)
    waves = sum(
        np.cos(2 * np.pi * k * (a[:, None] + b[:, None] - np.arange(23)) / 23) for k in (3, 7)
    )
    logits = run.apply(run.params(200, seed=1), np.stack([a, b], axis=1))[:, 0]
    np.testing.assert_allclose(logits, 20 * waves, atol=2e-4)
    assert (dataset["test_accuracy"].isel(step=-1) == 1).all()
    dates = grokking_dates(dataset)
    lower, upper = dates["generalised"].values.T
    assert ((lower >= 40) & (upper <= 140)).all()
    assert set(dates["verdict"].values) == {"generalised at once"}


def test_before_the_onsets_nothing_has_moved_and_after_the_end_nothing_moves(
    circuits: tuple[Run, xr.Dataset],
) -> None:
    run, _ = circuits
    stack = dotted(run.stack([0, 39, 40, 140, 200]))
    initial = dotted(run.experiment.build().init(jax.random.fold_in(jax.random.key(2), 0)))
    for name, values in stack.items():
        np.testing.assert_array_equal(values[0, 2], initial[name])
        np.testing.assert_array_equal(values[0], values[2])
        np.testing.assert_array_equal(values[3], values[4])
        assert (values[2] != values[3]).any()


@pytest.mark.parametrize("p", [5, 7, 9, 11, 13])
def test_a_circuit_that_never_holds_twice_an_even_share_is_never_born(p: int) -> None:
    path = TwoCircuits(frequencies=(1, 2), width=20)
    context = PlantContext(ModularArithmetic(p=p, fraction=0.5, format="a b"), MLP(width=18), 200)
    truth = path.truth(context, (0, 1, 2))
    # At the end each circuit holds half of the power, and 2 of p // 2 even shares are needed.
    ever = 2 / (p // 2) < 1 / 2
    assert ever == (p > 9)
    for births_of_seed in truth["births"].values():
        for k, onset in truth["onsets"].items():
            birth = births_of_seed[k]
            assert (birth is not None) == ever
            assert birth is None or onset < birth <= truth["formed"][k]
    json.dumps(truth, allow_nan=False)


# --- Induction that grows


@pytest.mark.slow
def test_each_position_crosses_one_half_at_its_logarithm(tmp_path: Path) -> None:
    run = planted.scaled_induction(tmp_path / "run", beta=6.0, steps=60)
    dataset = run.measure(["previous_token_attention", "induction_score", "in_context"])
    seen = dataset["previous_token_attention"].isel(layer=0, head=0)
    beta = 6.0 * dataset["step"].values / 60
    half = run.record["truth"]["half"]
    assert sorted(map(int, half)) == list(range(1, 17))
    for i in range(1, 16):
        curve = seen.isel(query=i)
        np.testing.assert_allclose(curve[0], np.exp(beta) / (np.exp(beta) + i), rtol=2e-5)
        crossed = int(dataset["step"].values[int((curve.values[0] >= 0.5 - 1e-6).argmax())])
        assert 0 <= crossed - half[str(i)] < 1
        assert half[str(i)] * 6.0 / 60 == pytest.approx(math.log(i))
        # Rounding may put a level that is met at a snapshot just below it.
        ((lower, upper),) = crossings(curve, 0.5 - 1e-6).values
        assert lower <= half[str(i)] <= upper
    induction = dataset["induction_score"].isel(layer=1, head=0).values[0]
    assert (np.diff(induction) >= -1e-6).all()
    assert induction[0] < 0.35
    assert dataset["repeated_loss"].values[0, -1] < 1e-3 < 1 < dataset["repeated_loss"].values[0, 0]


@pytest.mark.parametrize(("symbols", "length", "beta"), [(8, None, 8.0), (5, 3, 1.5), (4, 2, 0.5)])
def test_the_truth_has_every_position_that_reaches_one_half(
    symbols: int, length: int | None, beta: float
) -> None:
    path, task = ScaledInduction(beta=beta), planted.induction(symbols, length).task
    truth = path.truth(PlantContext(task, planted_settings(task), 100), (0,))
    # By hand: e^beta / (e^beta + i) is at least one half from beta = log i on.
    positions = range(1, task.inputs.positions)
    reached = {i: 100 * math.log(i) / beta for i in positions if math.log(i) <= beta}
    assert {int(i): step for i, step in truth["half"].items()} == pytest.approx(reached)


# --- The null


@pytest.mark.slow
def test_a_random_walk_has_no_transition(walk: tuple[Run, xr.Dataset]) -> None:
    run, dataset = walk
    assert run.record["truth"]["transitions"] == []
    dates = grokking_dates(dataset)
    for name in ("memorised", "generalised"):
        assert np.isinf(dates[name].sel(bound="upper")).all()
    assert set(dates["verdict"].values) == {"did not memorise"}
    for name in _CURVES:
        for row in _curve(dataset, name):
            assert segment(dataset["step"].values, row).transitions == (), name


def test_the_same_curve_of_two_circuits_has_its_transition_where_the_second_one_forms(
    circuits: tuple[Run, xr.Dataset],
) -> None:
    run, dataset = circuits
    onset, formed = run.record["truth"]["onsets"]["7"], run.record["truth"]["formed"]["7"]
    for row in _curve(dataset, "test_loss"):
        (transition,) = segment(dataset["step"].values, row).transitions
        # The grid of dates has 128 points from step 0 to 200, 4 % of the step apart.
        assert onset <= transition.begin < transition.end <= 1.05 * formed
        assert transition.change < -7


def _curve(dataset: xr.Dataset, name: str) -> np.ndarray:
    """The curve of each seed as change points are sought in it: losses as their logarithms."""
    values = dataset[name].values.astype(np.float64)
    return np.log(values) if name.endswith("loss") else values


def test_a_walks_moves_are_alike_at_every_step_and_differ_by_seed(
    walk: tuple[Run, xr.Dataset],
) -> None:
    run, _ = walk
    stack = dotted(run.stack())
    for values in stack.values():
        moves = np.diff(values.astype(np.float64), axis=0)
        size = np.sqrt((values[0, 0] ** 2).mean() / 200)
        early, late = moves[:100, 0].std(), moves[100:, 0].std()
        assert early == pytest.approx(size, rel=0.03)
        assert late == pytest.approx(size, rel=0.03)
        flat = moves.reshape(len(moves), 3, -1)
        lagged = (flat[1:] * flat[:-1]).mean() / (flat**2).mean()
        assert abs(lagged) < 5 / np.sqrt(flat[1:].size)
        assert abs(np.corrcoef(flat[:, 0].ravel(), flat[:, 1].ravel())[0, 1]) < 5 / np.sqrt(
            flat[:, 0].size
        )


# --- Runs like any other


def test_a_planted_run_is_a_run_marked_as_planted(
    circuits: tuple[Run, xr.Dataset], capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = circuits
    again = open_run(run.path)
    assert again.experiment.path == TwoCircuits()
    assert again.steps.tolist() == list(range(201))
    assert all(
        status.state == "finished" and status.last_finite_step == 200
        for status in again.status.values()
    )
    assert list(problems(again.trajectories[0])) == []
    assert main(["info", str(run.path), "--json", "--no-compile-cache"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["experiment"]["path"]["type"] == "mi_jax.planted.paths:TwoCircuits"
    assert main(["verify", str(run.path), "--no-compile-cache"]) == 0
    assert (
        main(["measure", str(run.path), "--measures", "test_loss", "--json", "--no-compile-cache"])
        == 0
    )


def test_the_losses_are_those_that_training_would_have_seen(
    circuits: tuple[Run, xr.Dataset],
) -> None:
    run, dataset = circuits
    np.testing.assert_allclose(
        run.losses.values, dataset["train_loss"].values[:, :-1], rtol=1e-5, atol=1e-9
    )


def planted_settings(task: Any) -> Any:
    """The model that a scaled induction needs."""
    return induction_parts(task)[0]


def _path(**changes: Any) -> Experiment:
    settings: dict[str, Any] = {
        "task": ModularArithmetic(p=7, fraction=0.5, format="a b", batch_size=5),
        "model": MLP(width=6),
        "steps": 90,
        "schedule": every(10),
        "seeds": (0, 4),
        "name": "walk",
        "path": RandomWalk(),
    }
    return Experiment(**{**settings, **changes})


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run of ``_path``."""
    return train(_path(), tmp_path_factory.mktemp("runs") / "small")


@pytest.mark.slow
def test_minibatch_losses_are_of_the_steps_own_batch_and_seed(small: Run) -> None:
    run, experiment = small, small.experiment
    task, model = experiment.task, experiment.build()
    for seed_index, seed in enumerate((0, 4)):
        key = jax.random.fold_in(jax.random.key(seed), 1)
        for step in (0, 70):
            batch = task.batches(task.data(seed), key, jnp.int32(step), jnp.int32(1))(0)
            out = model.apply(
                jax.tree.map(jnp.asarray, run.params(step, seed)), batch.inputs, positions=task.read
            )
            expected = mean_loss(experiment.loss(out, batch.targets), batch.weights)
            assert run.losses.values[seed_index, step] == pytest.approx(float(expected), rel=1e-5)


def test_a_trajectory_is_the_same_however_it_is_cut_and_resumed(small: Run, tmp_path: Path) -> None:
    experiment, whole = small.experiment, small
    cut = train(replace(experiment, storage=Storage(snapshots=1)), tmp_path / "cut")
    assert len(cut.trajectories[0].indexes) > len(whole.trajectories[0].indexes) - 2
    assert whole.trajectories[0].hashes() == cut.trajectories[0].hashes()
    np.testing.assert_array_equal(whole.losses, cut.losses)
    last = cut.trajectories[0].indexes[-1]
    removed = cut.path / "segments" / f"{last.end:09d}"
    for file in sorted(removed.rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    removed.rmdir()
    assert open_run(cut.path).status[0].state == "unfinished"
    again = train(replace(experiment, storage=Storage(snapshots=1)), cut.path)
    assert again.trajectories[0].hashes() == whole.trajectories[0].hashes()


def test_the_path_is_part_of_the_identity_of_a_run(small: Run) -> None:
    walk, other, trained = _path(), _path(path=RandomWalk(2.0)), _path(path=None)
    assert len({walk.hash, other.hash, trained.hash}) == 3
    assert "path" not in trained.to_json()
    assert digest(Experiment.from_json(walk.to_json()).to_json()) == digest(walk.to_json())
    for experiment in (other, trained):
        with pytest.raises(RunError, match="holds another run: path"):
            train(experiment, small.path)


def test_the_command_line_takes_another_path_or_none() -> None:
    experiment = find("planted")
    assert with_overrides(experiment, ["--path.name", "random_walk"], "").path == RandomWalk()
    assert with_overrides(experiment, ["--path.onsets", "100,30"], "").path == replace(
        TwoCircuits(), onsets=(100, 30)
    )
    trained = with_overrides(experiment, ["--path.name", "none"], "")
    assert trained.path is None
    assert trained == replace(experiment, path=None)
    with pytest.raises(ConfigError, match="did you mean random_walk"):
        with_overrides(experiment, ["--path.name", "random_wlak"], "")
    assert cost(experiment)["minutes_of_training"] == 0.0


_MLP = MLP(width=18)
_SUM = ModularArithmetic(p=23, fraction=0.5, format="a b")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TwoCircuits(frequencies=(3, 3)), "must be two different"),
        (lambda: TwoCircuits(onsets=(-1, 3)), "onsets"),
        (lambda: RandomWalk(0.0), "scale=0.0"),
        (
            lambda: _path(path=RandomWalk(), model=MLP(width=1_000_000)),
            "fewer steps or a smaller model",
        ),
        (lambda: ScaledInduction(beta=-1.0), "beta=-1.0"),
        (lambda: _path(path=TwoCircuits()), "with 9 neurons for each"),
        (
            lambda: _path(path=TwoCircuits(), model=_MLP),
            r"frequencies=\(3, 7\): must be from 1 to 3",
        ),
        (lambda: _path(path=TwoCircuits(), model=_MLP, task=_SUM, steps=139), "ends at step 139"),
        (
            lambda: _path(path=TwoCircuits(), model=_MLP, task=replace(_SUM, operation="multiply")),
            "addition mod an odd p",
        ),
        (lambda: _path(path=ScaledInduction()), "needs the task repeated_sequences"),
        (
            lambda: _path(
                path=ScaledInduction(), task=planted.induction(4).task, model=Transformer()
            ),
            "needs the model",
        ),
        (
            lambda: _path(interventions=(Change(field="optimizer.weight_decay", value=0.1),)),
            r"planted trajectory is not trained.*Change\(.*Fork the planted run",
        ),
    ],
)
def test_a_trajectory_that_does_not_fit_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
