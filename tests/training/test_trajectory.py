"""Reading a run: parameters, losses, exact states and status, by step and seed."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tiny_experiment, tiny_mlp_experiment
from hypothesis import given, settings
from hypothesis import strategies as st
from unchecked import unchecked

from mi_jax.basics.errors import ConfigError, DamagedError, RunError, WeightsError
from mi_jax.basics.pytrees import dotted, take
from mi_jax.contracts import Batch, Evaluation, Feed
from mi_jax.interventions import Change
from mi_jax.runs.experiment import Experiment
from mi_jax.runs.run import Run, open_run
from mi_jax.runs.train import train
from mi_jax.runs.weights import load_weights
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import AdamW, Storage, at, every, machine
from mi_jax.training import trajectory as trajectories
from mi_jax.training.loop import Progress
from mi_jax.training.record import FORMAT
from mi_jax.training.state import Program, TrainState
from mi_jax.training.trajectory import Trajectory, segment_ends


def _same(tree: Any, other: Any) -> bool:
    ours, theirs = dotted(tree), dotted(other)
    assert list(ours) == list(theirs)
    return all(
        np.asarray(ours[name]).tobytes() == np.asarray(theirs[name]).tobytes() for name in ours
    )


class Undisturbed:
    """States and losses of an experiment, trained one step at a time, with nothing stored."""

    def __init__(self, experiment: Experiment):
        program = Program(experiment.parts())
        self.states: list[TrainState] = [program.init()]
        losses: list[np.ndarray] = []
        for _ in range(experiment.steps):
            state, buffer = program.advance(self.states[-1], program.parts.numbers, 1)
            self.states.append(state)
            losses.append(np.asarray(buffer[:, 0]))
        self.losses = np.stack(losses, axis=1)


@pytest.fixture(scope="module")
def undisturbed() -> Undisturbed:
    return Undisturbed(tiny_experiment())


SPARSE = tiny_mlp_experiment(schedule=at(7, 31), storage=Storage(states=3))


@pytest.fixture(scope="module")
def sparse_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """States are stored at 20, 40 and 60, snapshots at 0, 7, 31 and 60."""
    return train(SPARSE, tmp_path_factory.mktemp("runs") / "sparse")


@pytest.fixture(scope="module")
def sparse_undisturbed() -> Undisturbed:
    return Undisturbed(SPARSE)


def test_a_run_has_its_steps_seeds_and_experiment(tiny_run: Run) -> None:
    assert tiny_run.steps.tolist() == tiny_experiment().snapshots().tolist()
    assert len(tiny_run.steps) == 12
    assert tiny_run.seeds == (0, 1, 2)
    assert tiny_run.experiment == tiny_experiment()


def test_every_snapshot_of_every_seed_is_that_of_an_undisturbed_run(
    tiny_run: Run, undisturbed: Undisturbed
) -> None:
    for step in tiny_run.steps.tolist():
        expected = undisturbed.states[step].params
        assert _same(tiny_run.params(step), expected)
        for seed_index, seed in enumerate(tiny_run.seeds):
            assert _same(tiny_run.params(step, seed=seed), take(expected, seed_index))


def test_losses_of_every_step_are_those_of_an_undisturbed_run(
    tiny_run: Run, undisturbed: Undisturbed
) -> None:
    losses = tiny_run.losses
    assert losses.dims == ("seed", "step")
    assert losses["seed"].values.tolist() == [0, 1, 2]
    assert losses["step"].values.tolist() == list(range(60))
    assert losses.dtype == np.float32
    assert losses.values.tobytes() == undisturbed.losses.tobytes()


def test_parameters_are_nested_dicts_of_numpy_arrays(tiny_run: Run) -> None:
    params = tiny_run.params(60, seed=1)
    assert all(
        type(leaf) is np.ndarray and leaf.dtype == np.float32 for leaf in jax.tree.leaves(params)
    )
    assert params["blocks"]["0"]["attn"]["W_Q"].shape == (2, 16, 8)
    assert tiny_run.params(60)["blocks"]["0"]["attn"]["W_Q"].shape == (3, 2, 16, 8)


def test_the_seed_may_be_left_out_where_there_is_one_only(tmp_path: Path) -> None:
    run = train(tiny_mlp_experiment(seeds=(2,), steps=5), tmp_path / "run")
    assert run.params(5)["unembed"]["W_U"].shape == (24, 11)
    assert _same(run.params(5), run.params(5, seed=2))
    assert run.losses.sizes == {"seed": 1, "step": 5}


def test_a_stack_holds_the_steps_in_the_order_asked(
    tiny_run: Run, undisturbed: Undisturbed
) -> None:
    chosen = [60, 0, int(tiny_run.steps[4]), 60]
    stack = tiny_run.stack(chosen)
    for row, step in enumerate(chosen):
        assert _same(take(stack, row), undisturbed.states[step].params)
    everything = tiny_run.stack()
    assert jax.tree.leaves(everything)[0].shape[:2] == (12, 3)
    assert _same(take(everything, 4), undisturbed.states[int(tiny_run.steps[4])].params)


def test_a_step_that_is_no_snapshot_is_refused_with_the_nearest_ones(sparse_run: Run) -> None:
    for step, near in (
        (9, r"\[0, 7\]"),
        (30, r"\[7, 31\]"),
        (61, r"\[31, 60\]"),
        (-1, r"\[0, 7\]"),
    ):
        with pytest.raises(
            RunError,
            match=rf"Step {step} is no snapshot of .* nearest are {near}; all are in \.steps",
        ):
            sparse_run.params(step)
        with pytest.raises(RunError, match="no snapshot"):
            sparse_run.stack([0, step])


def test_an_unknown_seed_is_refused_with_those_there_are(tiny_run: Run) -> None:
    with pytest.raises(RunError, match=r"no seed 7; its seeds are \[0, 1, 2\]"):
        tiny_run.params(60, seed=7)


@pytest.mark.parametrize("step", [0, 1, 19, 20, 21, 39, 40, 59, 60])
def test_the_state_at_any_step_is_that_of_an_undisturbed_run(
    sparse_run: Run, sparse_undisturbed: Undisturbed, step: int
) -> None:
    state = sparse_run.state_at(step)
    assert _same(state, sparse_undisturbed.states[step])
    assert jax.tree.structure(state) == jax.tree.structure(sparse_undisturbed.states[step])


@pytest.mark.parametrize("step", [3, 57])
def test_the_state_of_a_transformer_at_any_step_is_exact(
    tiny_run: Run, undisturbed: Undisturbed, step: int
) -> None:
    assert _same(tiny_run.state_at(step), undisturbed.states[step])


def test_states_are_stored_where_storage_says(sparse_run: Run) -> None:
    assert [path.name for path in sorted((sparse_run.path / "segments").iterdir())] == [
        "000000020",
        "000000040",
        "000000060",
    ]
    stored = [sparse_run.trajectories[0].stored_state(step) for step in (19, 20, 39, 40, 60)]
    assert [None if state is None else state[0] for state in stored] == [None, 20, 20, 40, 60]


@pytest.mark.parametrize("step", [-1, 61])
def test_a_state_beyond_the_run_is_refused(sparse_run: Run, step: int) -> None:
    with pytest.raises(RunError, match=f"no step {step} in .* holds the steps 0 to 60"):
        sparse_run.state_at(step)


def test_a_finished_run_says_so_by_seed(tiny_run: Run) -> None:
    assert {seed: tuple(status) for seed, status in tiny_run.status.items()} == dict.fromkeys(
        (0, 1, 2), ("finished", 60)
    )


class _StopError(Exception):
    pass


def _stopped(experiment: Experiment, path: Path, after: int) -> Run:
    """A run that was left as soon as the trainer had passed a step."""

    def watch(progress: Progress) -> None:
        if progress.step >= after:
            raise _StopError

    with pytest.raises(_StopError):
        train(experiment, path, watch=watch)
    return open_run(path)


def test_an_unfinished_run_is_read_as_far_as_it_goes(
    tmp_path: Path, sparse_undisturbed: Undisturbed
) -> None:
    run = _stopped(SPARSE, tmp_path / "run", 40)
    assert run.steps.tolist() == [0, 7, 31]
    assert run.losses.values.tobytes() == sparse_undisturbed.losses[:, :40].tobytes()
    assert {tuple(status) for status in run.status.values()} == {("unfinished", 40)}
    assert _same(run.state_at(33), sparse_undisturbed.states[33])
    with pytest.raises(RunError, match=r"no step 41 in .* holds the steps 0 to 40"):
        run.state_at(41)


def test_an_unfinished_run_resumes_to_the_same_bits(tmp_path: Path, sparse_run: Run) -> None:
    _stopped(SPARSE, tmp_path / "run", 40)
    run = train(SPARSE, tmp_path / "run")
    assert _same(run.stack(), sparse_run.stack())
    assert run.losses.equals(sparse_run.losses)
    assert _same(run.state_at(60), sparse_run.state_at(60))


def test_a_run_without_a_segment_has_steps_and_losses_of_length_0(tmp_path: Path) -> None:
    run = _stopped(SPARSE, tmp_path / "run", 0)
    assert (run.steps.tolist(), run.losses.sizes) == ([], {"seed": 3, "step": 0})
    assert {tuple(status) for status in run.status.values()} == {("unfinished", 0)}
    for read in (lambda: run.params(0), run.stack, lambda: run.measure(["train_loss"])):
        with pytest.raises(RunError, match=r"holds no snapshot yet\. Train it first"):
            read()
    assert run.state_at(0).step.tolist() == [0, 0, 0]


@settings(max_examples=200, deadline=None)
@given(
    last=st.integers(1, 400),
    chosen=st.sets(st.integers(0, 400)),
    most=st.integers(1, 40),
    snapshot_bytes=st.integers(1, 2**22),
    states=st.integers(1, 20),
)
def test_segments_end_after_so_many_snapshots_megabytes_or_parts_of_the_run(
    last: int, chosen: set[int], most: int, snapshot_bytes: int, states: int
) -> None:
    storage = Storage(snapshots=most, megabytes=8.0, states=states)
    snapshots = np.array(sorted({0, last} | {step for step in chosen if step <= last}))
    ends = segment_ends(snapshots, last, snapshot_bytes, storage)
    assert ends == sorted(set(ends))
    assert ends[-1] == last
    assert ends[0] > 0
    fits = max(1, min(most, int(8 * 2**20 / snapshot_bytes)))
    counts = [
        int(((snapshots > start) & (snapshots <= end)).sum())
        for start, end in zip([-1, *ends], ends, strict=False)
    ]
    assert sum(counts) == len(snapshots)
    assert all(count <= fits for count in counts[1:])
    assert counts[0] <= max(
        fits, 2
    )  # nothing can be written at step 0: its snapshot waits for the next
    assert np.diff([0, *ends]).max() <= -(-last // states)
    parts = {-(-last * part // states) for part in range(1, states + 1)}
    assert all(
        count == max(fits, 1) or end in parts or end == ends[0]
        for count, end in zip(counts, ends, strict=True)
    )


@pytest.mark.parametrize(
    ("storage", "size", "ends"),
    [
        (Storage(snapshots=4, states=1), 1, [30, 70, 100]),
        (Storage(snapshots=100, states=4), 1, [25, 50, 75, 100]),
        (Storage(snapshots=100, states=1), 1, [100]),
        (Storage(snapshots=100, megabytes=3.0, states=1), 2**20, [20, 50, 80, 100]),
        (
            Storage(snapshots=100, megabytes=0.5, states=1),
            2**20,
            [10, 20, 30, 40, 50, 60, 70, 80, 90, 100],
        ),
    ],
    ids=str,
)
def test_segment_ends_by_hand(storage: Storage, size: int, ends: list[int]) -> None:
    assert segment_ends(np.arange(0, 101, 10), 100, size, storage) == ends


def test_a_trajectory_streams_a_segment_at_a_time(
    sparse_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, original = [], trajectories.segments.read_snapshots

    def spy(folder: Path, index: Any, *rest: Any) -> Any:
        read.append(index.end)
        return original(folder, index, *rest)

    monkeypatch.setattr(trajectories.segments, "read_snapshots", spy)
    trajectory = Trajectory(sparse_run.path)
    seen: list[tuple[int, ...]] = []
    for part in trajectory.stream():
        seen.append(part.steps)
        assert len(read) == len(seen)  # no segment is read before its turn
        assert {stack.shape[:2] for stack in part.parameters.values()} == {(len(part.steps), 3)}
    assert seen == [(0, 7), (31,), (60,)]
    read.clear()
    assert [part.steps for part in trajectory.stream([60, 7])] == [(7,), (60,)]
    assert read == [20, 60]


def test_exported_weights_read_back_as_they_were(tiny_run: Run, tmp_path: Path) -> None:
    file = tiny_run.export(60, tmp_path / "weights.npz", seed=2)
    params, ignored = load_weights(file, tiny_run.subject.model)
    assert _same(params, tiny_run.params(60, seed=2))
    assert ignored == []
    assert [path.name for path in tmp_path.iterdir()] == ["weights.npz"]
    with np.load(file) as archive:
        assert set(archive.files) == set(dotted(params))


def test_an_export_needs_to_know_which_seed(tiny_run: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"seeds \[0, 1, 2\], .* Say which .* seed="):
        tiny_run.export(60, tmp_path / "weights.npz")
    with pytest.raises(RunError, match="cannot be written"):
        tiny_run.export(60, tmp_path / "nowhere" / "weights.npz", seed=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays.pop("unembed.W_U"), r"missing unembed.W_U \[24, 11\]"),
        (
            lambda arrays: arrays.update({"unembed.W_U": np.zeros((11, 24), np.float32)}),
            r"has the shape \[11, 24\], that of the model is",
        ),
        (
            lambda arrays: arrays.update({"unembed.b_U": np.zeros(11, np.float32)}),
            r"unembed.b_U \[11\] is not a parameter",
        ),
        (
            lambda arrays: arrays.update({"unembed.W_U": np.zeros((24, 11), np.int32)}),
            "has the type int32",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    sparse_run: Run, tmp_path: Path, change: Any, message: str
) -> None:
    arrays = dict(dotted(sparse_run.params(60, seed=0)))
    change(arrays)
    np.savez(tmp_path / "weights.npz", **arrays)
    with pytest.raises(WeightsError, match=message):
        load_weights(tmp_path / "weights.npz", sparse_run.subject.model)


def test_arrays_of_other_names_beside_the_weights_are_listed_and_ignored(
    sparse_run: Run, tmp_path: Path
) -> None:
    arrays = {**dotted(sparse_run.params(60, seed=0)), "split": np.arange(3), "p": np.array(11)}
    np.savez(tmp_path / "weights.npz", **arrays)
    params, ignored = load_weights(tmp_path / "weights.npz", sparse_run.subject.model)
    assert ignored == ["p", "split"]
    assert _same(params, sparse_run.params(60, seed=0))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_run_applies_its_model_to_numpy_arrays_at_all_positions_or_those_given(
    tiny_run: Run, dtype: type
) -> None:
    params = jax.tree.map(lambda x: x.astype(dtype), tiny_run.params(60, seed=0))
    inputs = np.array([[0, 1, 11], [5, 7, 11]])
    out = tiny_run.apply(params, inputs)
    assert out.shape == (2, 3, 12)
    np.testing.assert_allclose(
        tiny_run.apply(params, jnp.asarray(inputs), positions=[2]), out[:, 2:], rtol=1e-5, atol=1e-6
    )


def _rewritten(run: Run, path: Path, **changes: Any) -> Path:
    """A directory with the run's record, changed."""
    path.mkdir()
    record = json.loads((run.path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**record, **changes}))
    return path


def test_a_newer_format_is_refused_and_says_to_upgrade(sparse_run: Run, tmp_path: Path) -> None:
    path = _rewritten(sparse_run, tmp_path / "run", format=FORMAT + 1)
    for read in (lambda: open_run(path), lambda: train(SPARSE, path)):
        with pytest.raises(
            RunError,
            match=rf"format {FORMAT + 1}, but this version of mi_jax reads up to {FORMAT}\. Up",
        ):
            read()


def test_a_changed_record_is_refused(sparse_run: Run, tmp_path: Path) -> None:
    with pytest.raises(DamagedError, match="was changed since the run began"):
        open_run(_rewritten(sparse_run, tmp_path / "run", steps=61))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": null}', '{"format": "1"}'])
def test_an_invalid_record_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunError, match=r"run\.json"):
        open_run(tmp_path)


def test_a_path_without_a_run_says_how_to_make_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path, message in (
        (tmp_path, "mi-jax run EXPERIMENT --out"),
        (tmp_path / "no", "is no run"),
        (tmp_path / "file", "is a file"),
    ):
        with pytest.raises(RunError, match=message):
            open_run(path)


@pytest.fixture
def another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend to be another machine, by its description."""
    here = machine.machine()
    monkeypatch.setattr(machine, "machine", lambda: {**here, "cores": 96, "python": "3.99"})


@pytest.mark.usefixtures("another_machine")
def test_another_machine_reads_everything_stored_and_replays_only_when_allowed(
    sparse_run: Run,
) -> None:
    run = open_run(sparse_run.path)
    assert run.params(31)["unembed"]["W_U"].shape == (3, 24, 11)
    assert run.state_at(40).step.tolist() == [40, 40, 40]
    with pytest.raises(
        RunError,
        match=r"could change its bits: cores: \d+ there, 96 here\. .*--allow-other-machine",
    ):
        run.state_at(41)
    assert run.state_at(41, allow_other_machine=True).step.tolist() == [41, 41, 41]


def test_an_experiment_may_say_beforehand_that_it_accepts_any_machine(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    accepting = replace(SPARSE, accept_machine="any")
    # Nothing that is computed depends on it.
    assert accepting.hash == SPARSE.hash
    assert "accept_machine" not in SPARSE.to_json()
    for experiment, name in ((SPARSE, "same"), (accepting, "any")):
        _stopped(experiment, tmp_path / name, 25)
    request.getfixturevalue("another_machine")
    with pytest.raises(RunError, match=r"cores: \d+ there, 96 here.*accept_machine='any'"):
        train(SPARSE, tmp_path / "same")
    # Beforehand, and not when it is refused.
    with pytest.raises(RunError, match="accept_machine"):
        train(accepting, tmp_path / "same")
    run = train(accepting, tmp_path / "any")
    assert run.record["experiment"]["accept_machine"] == "any"
    assert run.trajectories[0].done == SPARSE.steps
    assert run.state_at(41).step.tolist() == [41, 41, 41]
    with unchecked(), pytest.raises(ConfigError, match="accept_machine='some' is unknown"):
        replace(SPARSE, accept_machine="some")  # pyright: ignore[reportArgumentType]


def test_another_machine_resumes_a_run_only_when_allowed(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    _stopped(SPARSE, tmp_path / "run", 25)
    request.getfixturevalue("another_machine")
    with pytest.raises(RunError, match="cores"):
        train(SPARSE, tmp_path / "run")
    assert open_run(tmp_path / "run").losses.sizes["step"] == 20
    run = train(SPARSE, tmp_path / "run", allow_other_machine=True)
    assert run.status[0].state == "finished"
    assert train(SPARSE, tmp_path / "run").steps.tolist() == [
        0,
        7,
        31,
        60,
    ]  # nothing is left to go on with


@dataclass(frozen=True)
class Poisoned(ModularArithmetic):
    """Addition whose seed 1 meets a NaN at update 20."""

    split_per_seed: bool = True

    def data(self, seed: int) -> Any:
        return super().data(seed), jnp.int32(20 if seed == 1 else 10**6)

    def batches(self, data: Any, key: Any, start: Any, n: Any) -> Feed:
        batch, bad = data
        return lambda i: Batch(
            batch.inputs, batch.targets, jnp.where(start + i >= bad, jnp.nan, batch.weights)
        )

    def evaluation(self, data: Any, key: Any) -> Evaluation:
        return super().evaluation(data[0], key)


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    experiment = tiny_mlp_experiment(task=Poisoned(p=11, fraction=0.5), schedule=every(10))
    folder = tmp_path_factory.mktemp("poisoned")
    return {
        "all": train(experiment, folder / "all"),
        "others": train(replace(experiment, seeds=(0, 2)), folder / "others"),
    }


def test_a_seed_that_turns_non_finite_has_a_status_and_its_last_finite_step(
    poisoned: dict[str, Run],
) -> None:
    status = poisoned["all"].status
    assert {seed: tuple(of_seed) for seed, of_seed in status.items()} == {
        0: ("finished", 60),
        1: ("non-finite", 19),  # losses[20] is the first NaN
        2: ("finished", 60),
    }


def test_the_other_seeds_go_on_as_if_nothing_had_happened(poisoned: dict[str, Run]) -> None:
    ours, alone = poisoned["all"], poisoned["others"]
    for seed in (0, 2):
        for step in (0, 20, 30, 60):
            assert _same(ours.params(step, seed), alone.params(step, seed))
        assert ours.losses.sel(seed=seed).equals(alone.losses.sel(seed=seed))


def test_nothing_of_a_non_finite_seed_is_dropped(poisoned: dict[str, Run]) -> None:
    run = poisoned["all"]
    finite = np.isfinite(run.losses.sel(seed=1).values)
    assert finite[:20].all()
    assert not finite[20:].any()
    assert run.losses.sizes == {"seed": 3, "step": 60}
    for step, expected in ((20, True), (30, False), (60, False)):
        assert np.isfinite(run.params(step, seed=1)["unembed"]["W_U"]).all() == expected


def test_measures_of_a_non_finite_seed_are_nan_and_of_the_others_numbers(
    poisoned: dict[str, Run],
) -> None:
    run = poisoned["all"]
    dataset = run.measure(["test_loss", "test_accuracy", "gini_unembedding", "sum_squared_weights"])
    assert dataset.sizes == {"seed": 3, "step": 7}
    for name, values in dataset.data_vars.items():
        finite = np.isfinite(values.transpose("seed", "step").values)
        assert finite.tolist() == [[True] * 7, [True] * 3 + [False] * 4, [True] * 7], name


def test_a_run_that_explodes_at_once_is_finite_at_step_0_only(tmp_path: Path) -> None:
    run = train(
        tiny_mlp_experiment(optimizer=AdamW(learning_rate=1e30), steps=20), tmp_path / "run"
    )
    assert {tuple(status) for status in run.status.values()} == {("non-finite", 0)}
    assert run.losses.sizes == {"seed": 3, "step": 20}
    assert np.isfinite(run.losses.values[:, 0]).all()


def test_parameters_that_explode_in_the_last_update_are_seen(tmp_path: Path) -> None:
    last = (
        Change(field="optimizer.learning_rate", value=3e38, start=19),
        Change(field="optimizer.weight_decay", value=1e3, start=19),
    )
    run = train(tiny_mlp_experiment(steps=20, interventions=last), tmp_path / "run")
    assert np.isfinite(run.losses.values).all()
    assert {tuple(status) for status in run.status.values()} == {("non-finite", 19)}


def test_training_twice_into_one_directory_changes_nothing(tmp_path: Path) -> None:
    experiment = tiny_mlp_experiment(steps=10, seeds=(0,))
    train(experiment, tmp_path / "run")
    before = {
        path: path.stat().st_mtime_ns
        for path in (tmp_path / "run").rglob("*")
        if path.name != ".lock"
    }
    again = train(experiment, tmp_path / "run")
    assert {
        path: path.stat().st_mtime_ns
        for path in (tmp_path / "run").rglob("*")
        if path.name != ".lock"
    } == before
    assert again.status[0].state == "finished"


def test_the_name_and_storage_of_a_run_are_those_it_began_with(tmp_path: Path) -> None:
    _stopped(SPARSE, tmp_path / "run", 25)
    run = train(replace(SPARSE, name="renamed", storage=Storage(states=30)), tmp_path / "run")
    assert run.experiment == SPARSE
    assert [path.name for path in sorted((run.path / "segments").iterdir())] == [
        "000000020",
        "000000040",
        "000000060",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"seeds": (0, 1)},
            r"seeds: \[0, 1, 2\] there, \[0, 1\] here.*Train other seeds into a new --out",
        ),
        ({"steps": 61}, r"steps: 60 there, 61 here.*seeds and steps of a run are fixed"),
        (
            {"optimizer": AdamW(learning_rate=2e-2)},
            r"optimizer\.learning_rate: 0\.01 there, 0\.02 here.*Use a new --out",
        ),
        ({"task": ModularArithmetic(p=13, fraction=0.5)}, r"task\.p: 11 there, 13 here"),
        ({"schedule": at(7)}, "schedule"),
    ],
    ids=str,
)
def test_a_directory_of_another_experiment_is_refused_with_the_differences(
    sparse_run: Run, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RunError, match=message):
        train(replace(SPARSE, **changes), sparse_run.path)


def test_a_path_list_of_one_run_is_that_run(sparse_run: Run) -> None:
    assert _same(open_run([sparse_run.path]).params(31), sparse_run.params(31))
    with pytest.raises(ConfigError):
        open_run(())


@pytest.mark.parametrize("states", [24, 25, 1000, 10**9, 2**62])
def test_more_states_than_steps_are_one_at_each_step(states: int) -> None:
    ends = segment_ends(np.array([0, 24]), 24, 8, Storage(states=states))
    assert ends == list(range(1, 25))
