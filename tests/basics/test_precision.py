"""Float64 as an option of one run: steps by hand, resuming, readings, later runs."""

import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import tiny_mlp_experiment
from unchecked import unchecked

from mi_jax.basics.errors import ConfigError, Interrupted
from mi_jax.basics.precision import Precision, cast, computing_in, precision_of
from mi_jax.contracts import Batch
from mi_jax.models import MLP, DeepLinear
from mi_jax.runs.experiment import Experiment
from mi_jax.runs.run import Run, open_run
from mi_jax.runs.train import train
from mi_jax.runs.weights import load_weights
from mi_jax.tasks import ModularArithmetic, SparseParity
from mi_jax.training import SGD, AdamW, LogSoftmaxCrossEntropy, at, every
from mi_jax.training.loop import Progress
from mi_jax.training.state import Program
from mi_jax.training.verifying import problems

WIDE = tiny_mlp_experiment(precision="float64", seeds=(0, 1), steps=40, schedule=at(13))
NARROW = tiny_mlp_experiment(seeds=(0, 1), steps=40, schedule=at(13))


def _bits(tree: Any) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def _dtypes(tree: Any) -> set[str]:
    return {str(np.asarray(leaf).dtype) for leaf in jax.tree.leaves(tree)}


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A float32 run, trained before any float64 run of this module."""
    return train(NARROW, tmp_path_factory.mktemp("runs") / "narrow")


@pytest.fixture(scope="module")
def run(before: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same run in float64."""
    return train(WIDE, tmp_path_factory.mktemp("runs") / "wide")


def test_three_steps_are_those_computed_by_hand(tmp_path: Path) -> None:
    """One matrix, the gradient x^T (softmax(x W) - one-hot) / batch, and AdamW, all in NumPy's
    float64.
    """
    task = SparseParity(n=6, k=2, examples=32, batch_size=None, test_examples=16)
    optimizer = AdamW(learning_rate=0.1, weight_decay=0.5, b1=0.9, b2=0.98, eps=1e-8)
    experiment = Experiment(
        task, DeepLinear(widths=()), optimizer, steps=3, schedule=every(1), precision="float64"
    )
    trained = train(experiment, tmp_path / "run")
    stack = trained.stack()["layers"]["0"]["W"][:, 0]
    data = task.data(0)
    assert isinstance(data, Batch)
    x, y = np.asarray(data.inputs, np.float64)[:, 0], np.asarray(data.targets)[:, 0]
    W, m, v = stack[0], np.zeros((6, 2)), np.zeros((6, 2))
    for step in (1, 2, 3):
        z = x @ W
        chances = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        loss = -np.log(chances[np.arange(32), y]).mean()
        np.testing.assert_allclose(trained.losses.values[0, step - 1], loss, rtol=1e-14)
        g = x.T @ (chances - np.eye(2)[y]) / 32
        m, v = 0.9 * m + 0.1 * g, 0.98 * v + 0.02 * g**2
        W = W - 0.1 * (m / (1 - 0.9**step) / (np.sqrt(v / (1 - 0.98**step)) + 1e-8) + 0.5 * W)
        np.testing.assert_allclose(stack[step], W, rtol=1e-13, atol=1e-14)


def test_everything_of_the_run_is_float64_and_hashed_as_that(run: Run) -> None:
    assert _dtypes(run.stack()) == {"float64"}
    assert _dtypes(run.state_at(40).params) == {"float64"}
    assert _dtypes(run.state_at(40).opt_state) == {"float64", "int32"}
    assert run.losses.dtype == np.float64
    assert run.record["experiment"]["precision"] == "float64"
    assert not list(problems(run.trajectories[0]))
    assert {status.state for status in run.status.values()} == {"finished"}


def test_it_starts_at_the_weights_of_the_float32_run_and_then_differs(
    run: Run, before: Run
) -> None:
    first, narrow = run.params(0), before.params(0)
    assert _bits(first) == _bits(jax.tree.map(lambda x: x.astype(np.float64), narrow))
    np.testing.assert_allclose(run.losses[:, :5], before.losses[:, :5], rtol=1e-5)
    assert not np.array_equal(run.losses[:, 1:], before.losses[:, 1:])


@pytest.mark.slow
def test_both_precisions_see_the_same_fresh_batches(tmp_path: Path) -> None:
    task = SparseParity(n=6, k=2, examples=None, batch_size=8, test_examples=16)
    still = Experiment(task, DeepLinear(widths=()), SGD(learning_rate=0.0), steps=6, schedule=at(3))
    narrow = train(still, tmp_path / "narrow").losses.values
    wide = train(
        Experiment(**{**vars(still), "precision": "float64"}), tmp_path / "wide"
    ).losses.values
    assert len(set(narrow.ravel().tolist())) == 6, "all batches differ"
    np.testing.assert_allclose(wide, narrow, rtol=1e-6)


def test_a_resumed_run_has_the_same_bits_and_any_step_can_be_replayed(
    run: Run, tmp_path: Path
) -> None:
    stop = [signal.SIGTERM]

    def watch(progress: Progress) -> None:
        while stop and progress.step >= 9:
            signal.raise_signal(stop.pop())

    with pytest.raises(Interrupted):
        train(WIDE, tmp_path / "run", watch=watch)
    assert open_run(tmp_path / "run").losses.sizes["step"] < 40
    again = train(WIDE, tmp_path / "run")
    assert _bits(again.stack()) == _bits(run.stack())
    assert again.losses.values.tobytes() == run.losses.values.tobytes()
    assert _bits(again.state_at(40)) == _bits(run.state_at(40))
    replayed = run.state_at(13).params
    assert _bits(replayed) == _bits(run.params(13))


def test_readings_and_outputs_are_computed_in_float64(run: Run, tmp_path: Path) -> None:
    read = run.measure(["train_loss", "sum_squared_weights", "restricted_loss"])
    assert {str(values.dtype) for values in read.values()} == {"float64"}
    steps = [step for step in run.steps.tolist() if step < 40]
    np.testing.assert_allclose(
        read["train_loss"].sel(step=steps), run.losses.sel(step=steps), rtol=1e-12
    )
    squares = sum(
        (leaf**2).reshape(*leaf.shape[:2], -1).sum(axis=-1) for leaf in jax.tree.leaves(run.stack())
    )
    np.testing.assert_allclose(read["sum_squared_weights"], np.asarray(squares).T, rtol=1e-13)
    examples = run.evaluation(0).batches["train"]
    outputs = run.apply(run.params(13, seed=0), examples.inputs)
    assert outputs.dtype == np.float64
    file = run.export(13, tmp_path / "weights.npz", seed=0)
    assert _bits(load_weights(file, run.subject.model, "float64")[0]) == _bits(
        run.params(13, seed=0)
    )


def test_a_float32_run_afterwards_has_the_bits_of_the_one_before(
    before: Run, run: Run, tmp_path: Path
) -> None:
    assert run.losses.dtype == np.float64
    after = train(NARROW, tmp_path / "after")
    assert _bits(after.stack()) == _bits(before.stack())
    assert after.losses.values.tobytes() == before.losses.values.tobytes()
    assert _dtypes(after.stack()) == {"float32"}
    assert not jax.config.read("jax_enable_x64")
    with jax.enable_x64(True):
        state = Program(NARROW.parts()).init()
    assert _bits(state.params) == _bits(before.params(0))


@pytest.mark.slow
def test_softmax_collapses_in_float32_where_float64_still_learns(tmp_path: Path) -> None:
    """Without decay every margin passes 17, where float32's log-softmax is 0: nothing is left to
    learn from there.
    """
    task, model, optimizer = (
        ModularArithmetic(p=7, fraction=0.5),
        MLP(width=64),
        AdamW(learning_rate=0.1, weight_decay=0.0),
    )

    def last(precision: Precision) -> tuple[np.ndarray, float]:
        experiment = Experiment(
            task,
            model,
            optimizer,
            LogSoftmaxCrossEntropy(),
            steps=60,
            schedule=at(30),
            precision=precision,
        )
        trained = train(experiment, tmp_path / precision)
        return trained.losses.values[0, -5:], float(
            trained.measure(["softmax_collapse"])["softmax_collapse"][0, -1]
        )

    losses, collapsed = last("float32")
    assert losses.tolist() == [0.0] * 5
    assert collapsed == 1
    losses, collapsed = last("float64")
    assert (losses > 1e-10).all()
    assert collapsed < 0.7, "float64 ends where a margin passes 36"


def test_an_unknown_precision_is_refused_with_what_is_allowed() -> None:
    with (
        unchecked(),
        pytest.raises(
            ConfigError, match=r"precision='float16' is unknown; did you mean float64, float32"
        ),
    ):
        Experiment(precision="float16")  # pyright: ignore[reportArgumentType]


def test_a_cast_changes_floats_alone() -> None:
    tree = {
        "x": np.ones(2, np.float32),
        "n": np.arange(3),
        "mask": np.array([True]),
        "key": jax.random.key(0),
    }
    with computing_in("float64"):
        wide = cast(tree, "float64")
    assert {name: str(leaf.dtype) for name, leaf in wide.items()} == {
        **{n: str(x.dtype) for n, x in tree.items()},
        "x": "float64",
    }
    assert (precision_of({"x": tree["x"]}), precision_of({"x": wide["x"], "n": tree["n"]})) == (
        "float32",
        "float64",
    )
