"""Measuring: one program for all measures, readings that depend only on their snapshot, and storage
with provenance.
"""

import importlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from compiling import compilations
from conftest import tiny_experiment, tiny_mlp_experiment

from mi_jax.basics.errors import MeasureError, RunError
from mi_jax.basics.pytrees import dotted
from mi_jax.contracts import Context, Loss, Measure, Subject
from mi_jax.measuring.choosing import choose
from mi_jax.measuring.labelling import labelled
from mi_jax.measuring.merging import joined, last_step, united
from mi_jax.measuring.program import BATCH, Reader
from mi_jax.measuring.registry import EXPENSIVE, READINGS
from mi_jax.measuring.sources import code_digest
from mi_jax.measuring.stored import measure_weights
from mi_jax.models import Transformer
from mi_jax.runs.run import Run, measure, open_run
from mi_jax.runs.train import train
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import MSE, CrossEntropy, Hinge, Storage, every, log_spaced
from mi_jax.training.loop import Progress

EXPERIMENT = tiny_mlp_experiment(
    schedule=every(2), storage=Storage(snapshots=7, states=3), seeds=(0, 1)
)
"""31 snapshots in segments of 4, 7 and, twice, 3 and 7."""

NAMES = (
    "train_loss",
    "test_loss",
    "test_accuracy",
    "restricted_loss",
    "excluded_loss",
    "key_frequencies",
    "gini_unembedding",
    "neuron_fve",
    "neuron_frequency",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(EXPERIMENT, tmp_path_factory.mktemp("runs") / "made").path


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Run:
    """A run without readings."""
    shutil.copytree(made, tmp_path / "run", ignore=shutil.ignore_patterns("measures"))
    return open_run(tmp_path / "run")


def _size(params: Any) -> jax.Array:
    return jnp.stack([jnp.square(leaf).sum() for leaf in jax.tree.leaves(params)]).sum()


def _distance(params: Any, other: Any) -> jax.Array:
    return _size(jax.tree.map(lambda x, y: x - y, params, other))


def size(params: Any, context: Context) -> jax.Array:
    return _size(params)


def _moved(reference: str) -> Measure:
    def moved(params: Any, context: Context) -> jax.Array:
        return _distance(params, getattr(context.reference, reference))

    return Measure(f"moved_from_{reference}", moved, uses=frozenset({reference}))


def _from_previous(params: Any, context: Context) -> jax.Array:
    return _distance(params, context.reference.previous)


_WANDERED = Measure("wandered", _from_previous, uses=frozenset({"previous"}))
"""A measure without a closure, so that its readings can be reused."""


def _numpy_distance(run: Run, seed: int, step: int, other: int) -> float:
    pairs = zip(
        jax.tree.leaves(run.params(step, seed)),
        jax.tree.leaves(run.params(other, seed)),
        strict=True,
    )
    return sum(float(((x.astype(np.float64) - y) ** 2).sum()) for x, y in pairs)


def _same_bits(one: xr.DataArray, other: xr.DataArray) -> bool:
    return (
        one.dims == other.dims
        and one.dtype == other.dtype
        and one.values.tobytes() == other.values.tobytes()
    )


def test_readings_are_those_of_their_own_snapshot(run: Run) -> None:
    dataset = run.measure(["test_loss", "train_accuracy", "sum_squared_weights"])
    assert dataset["test_loss"].dims == ("seed", "step")
    assert dataset["step"].values.tolist() == list(range(0, 61, 2))
    task = run.experiment.task
    for seed in (0, 1):
        evaluation = task.evaluation(task.data(seed), jax.random.key(0))
        for step in (0, 8, 10, 40, 60):
            params, here = run.params(step, seed), dataset.sel(seed=seed, step=step)
            for split, name in (("test", "test_loss"), ("train", "train_accuracy")):
                batch = evaluation.batches[split]
                logits = np.asarray(run.apply(params, batch.inputs), np.float64)[:, 0]
                answers = np.asarray(batch.targets)[:, 0]
                losses = (
                    np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(answers)), answers]
                )
                expected = (
                    losses.mean()
                    if name == "test_loss"
                    else (logits.argmax(axis=1) == answers).mean()
                )
                np.testing.assert_allclose(here[name], expected, rtol=1e-5)
            flat = [leaf.astype(np.float64) for leaf in jax.tree.leaves(params)]
            np.testing.assert_allclose(
                here["sum_squared_weights"], sum((x**2).sum() for x in flat), rtol=1e-5
            )


def test_the_train_loss_is_the_runs_own(run: Run) -> None:
    read, trained = run.measure(["train_loss"])["train_loss"], run.losses
    np.testing.assert_allclose(read.sel(step=trained["step"][::2]), trained[:, ::2], rtol=2e-6)


@pytest.fixture(scope="module")
def together(made: Path, tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    """Every name of NAMES, read at once."""
    path = tmp_path_factory.mktemp("together") / "run"
    shutil.copytree(made, path, ignore=shutil.ignore_patterns("measures"))
    return open_run(path).measure(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_reading_does_not_depend_on_what_was_read_with_it(
    run: Run, together: xr.Dataset, name: str
) -> None:
    alone = run.measure([name])[name]
    assert _same_bits(alone, together[name]), (
        f"up to {np.nanmax(np.abs(alone * 1.0 - together[name]))} apart"
    )


@pytest.mark.slow
@pytest.mark.parametrize("make", [tiny_experiment, tiny_mlp_experiment])
def test_no_reading_of_the_package_depends_on_what_was_read_with_it(
    tmp_path: Path, make: Callable[..., Any]
) -> None:
    run = train(make(seeds=(0,), schedule=log_spaced(8)), tmp_path / "run")
    chosen, _ = choose(None, run.subject)
    whole = run.measure()
    for chosen_measure in chosen:
        shutil.rmtree(run.path / "measures")
        alone = run.measure([chosen_measure])
        for name in chosen_measure.variables:
            assert _same_bits(alone[name], whole[name]), name


@pytest.mark.slow
@pytest.mark.parametrize(
    "storage", [Storage(snapshots=1), Storage(snapshots=100, states=1)], ids=str
)
def test_a_reading_does_not_depend_on_the_batch_that_it_was_in(
    together: xr.Dataset, tmp_path: Path, storage: Storage
) -> None:
    other = train(replace(EXPERIMENT, storage=storage), tmp_path / "run").measure(NAMES)
    assert all(_same_bits(together[name], other[name]) for name in NAMES)


def test_a_reading_does_not_depend_on_the_seeds_beside_it(
    together: xr.Dataset, tmp_path: Path
) -> None:
    alone = train(replace(EXPERIMENT, seeds=(1,)), tmp_path / "alone").measure(NAMES)
    assert all(_same_bits(together[name].sel(seed=[1]), alone[name]) for name in NAMES)


def test_one_program_is_compiled_for_batches_of_every_length(run: Run) -> None:
    sizes = [len(index.steps) for index in run.trajectories[0].indexes]
    assert len(set(sizes)) > 1
    with compilations("jit(_batch") as compiled:
        run.measure(["train_loss", "gini_embedding", _moved("previous")])
    assert len(compiled) == 1


def test_more_snapshots_than_a_batch_are_all_read(tmp_path: Path) -> None:
    long = train(
        replace(EXPERIMENT, seeds=(0,), schedule=every(1), storage=Storage(states=1)),
        tmp_path / "long",
    )
    assert len(long.steps) == 61 > 3 * BATCH
    values = long.measure([size])["size"].sel(seed=0).values
    expected = [
        sum(float((x.astype(np.float64) ** 2).sum()) for x in jax.tree.leaves(long.params(s)))
        for s in range(61)
    ]
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_previous_is_the_snapshot_before_across_segments_and_nan_at_the_first(run: Run) -> None:
    moved = run.measure([_moved("previous")])["moved_from_previous"]
    assert np.isnan(moved.sel(step=0)).all()
    for seed in (0, 1):
        expected = [_numpy_distance(run, seed, step, step - 2) for step in range(2, 61, 2)]
        np.testing.assert_allclose(moved.sel(seed=seed)[1:], expected, rtol=1e-4)


def test_initial_and_final_are_the_ends_of_the_same_seed(run: Run) -> None:
    dataset = run.measure([_moved("initial"), _moved("final")])
    assert (dataset["moved_from_initial"].sel(step=0) == 0).all()
    assert (dataset["moved_from_final"].sel(step=60) == 0).all()
    for seed in (0, 1):
        for step in (2, 30, 60):
            here = dataset.sel(seed=seed, step=step)
            np.testing.assert_allclose(
                here["moved_from_initial"], _numpy_distance(run, seed, step, 0), rtol=1e-4
            )
            np.testing.assert_allclose(
                here["moved_from_final"], _numpy_distance(run, seed, step, 60), rtol=1e-4
            )


def test_readings_at_chosen_steps_are_those_of_the_whole_run_in_the_order_asked(run: Run) -> None:
    chosen = [60, 4, 30]
    names = [size, _moved("previous"), "test_loss"]
    some = run.read(names, chosen)
    whole = run.measure(names)
    assert some["step"].values.tolist() == chosen
    for name in whole.data_vars:
        assert _same_bits(some[name], whole[name].sel(step=chosen)), name


def test_prepared_values_are_made_once_per_seed_and_stored_with_the_result(run: Run) -> None:
    references: list[Any] = []

    def prepare(reference: Any, context: Context) -> jax.Array:
        references.append(reference)
        return reference.final["unembed"]["W_U"].max()

    def relative_maximum(params: Any, context: Context) -> jax.Array:
        return params["unembed"]["W_U"].max() / context.prepared["final_maximum"]

    relative = Measure(
        "relative_maximum",
        relative_maximum,
        uses=frozenset({"final"}),
        prepare={"final_maximum": prepare},
    )
    values = run.measure([relative])["relative_maximum"]
    assert len(references) == 2
    np.testing.assert_allclose(values.sel(step=60), 1.0, rtol=1e-6)
    prepared = json.loads(values.attrs["provenance"])["prepared"]["final_maximum"]
    for seed in (0, 1):
        assert prepared[str(seed)] == float(run.params(60, seed)["unembed"]["W_U"].max())


def test_two_measures_may_not_prepare_different_values_under_one_name(run: Run) -> None:
    """Otherwise one measure would read the value of the other."""

    def freezing(name: str, prepare: Any) -> Measure:
        return Measure(
            name, lambda params, context: context.prepared["share"], prepare={"share": prepare}
        )

    def half(reference: Any, context: Context) -> jax.Array:
        return jnp.float32(0.5)

    both = run.measure([freezing("one", half), freezing("other", half)])
    assert (both["one"] == 0.5).all()
    with pytest.raises(
        MeasureError,
        match="fourth prepares 'share' by another function than a measure that is read with it",
    ):
        run.measure(
            [
                freezing("third", half),
                freezing("fourth", lambda reference, context: jnp.float32(0.25)),
            ]
        )


def test_every_result_has_its_provenance(run: Run) -> None:
    dataset = run.measure(["restricted_loss", "test_loss"])
    provenance = json.loads(dataset["restricted_loss"].attrs["provenance"])
    assert provenance["measure"] == "restricted_loss"
    assert (provenance["retrospective"], provenance["uses"]) == (True, ["final"])
    assert tuple(provenance[k] for k in ("experiment", "hash", "machine")) == tuple(
        run.record[k] for k in ("experiment", "hash", "machine")
    )
    keys = run.measure(["key_frequencies"])["key_frequencies"]
    for seed in (0, 1):
        frequencies = keys["frequency"].values[keys.sel(seed=seed, step=60).values].tolist()
        assert provenance["prepared"]["final_key_frequencies"][str(seed)] == frequencies
    assert json.loads(dataset["test_loss"].attrs["provenance"])["retrospective"] is False
    assert json.loads(dataset.attrs["provenance"])["hash"] == run.record["hash"]


def test_readings_come_back_from_the_disk_as_they_were(run: Run) -> None:
    several = Measure(
        "several",
        lambda params, context: {
            "bools": jnp.array([True, False]),
            "ints": jnp.array([3, -4]),
            "floats": jnp.array([jnp.nan, 1]),
        },
        {"bools": ("mode",), "ints": ("mode",), "floats": ("mode",)},
    )
    dataset = run.measure([*NAMES, several])
    stored = open_run(run.path).measures
    assert set(stored.data_vars) == set(dataset.data_vars)
    for name in dataset.data_vars:
        assert _same_bits(stored[name], dataset[name]), name
        assert stored[name].attrs == dataset[name].attrs
    assert (stored["bools"].dtype, stored["ints"].dtype) == (bool, np.int32)
    assert stored["key_frequencies"]["frequency"].values.tolist() == [1, 2, 3, 4, 5]
    assert stored["test_loss"].attrs["units"] == "nats"


@pytest.mark.parametrize(
    ("loss", "units"), [(CrossEntropy(), "nats"), (MSE(), "squared error"), (Hinge(), "hinge")]
)
def test_a_reading_of_the_loss_has_the_units_of_the_runs_loss(loss: Loss, units: str) -> None:
    subject = replace(EXPERIMENT, loss=loss).subject()
    named = {"test_loss": units, "restricted_loss": units, "test_accuracy": None}
    for name, expected in named.items():
        read = labelled({name: np.zeros((1, 2))}, READINGS[name], subject, [0], np.array([0, 1]))
        assert read[name].attrs.get("units") == expected


def _forbid_reading(patch: pytest.MonkeyPatch) -> None:
    def read(*arguments: Any) -> Any:
        raise AssertionError("snapshots were read again")

    patch.setattr(Reader, "read", read)


def test_a_second_call_reads_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    measures = ["train_loss", "restricted_loss", size, _WANDERED]
    first = run.measure(measures)
    _forbid_reading(monkeypatch)
    again = measure(open_run(run.path), measures)
    assert all(_same_bits(first[name], again[name]) for name in first.data_vars)
    with pytest.raises(AssertionError, match="read again"):
        run.measure(["train_loss", "test_loss"])


@pytest.mark.parametrize(
    "change",
    [
        lambda own: replace(own, options={"scale": 3}),
        lambda own: replace(own, dims=("neuron",)),
    ],
)
def test_other_options_are_read_again(
    run: Run, monkeypatch: pytest.MonkeyPatch, change: Callable[[Measure], Measure]
) -> None:
    own = Measure("own", size, options={"scale": 2})
    run.measure([own])
    _forbid_reading(monkeypatch)
    run.measure([own])
    with pytest.raises(AssertionError, match="read again"):
        run.measure([change(own)])


def test_changed_code_is_read_again(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    values: list[float] = []
    for factor in (1, 1, 2):
        (tmp_path / "own_measures.py").write_text(
            f"def own(params, context):\n    return {factor} * params['unembed']['W_U'].max()\n"
        )
        importlib.invalidate_caches()
        sys.modules.pop("own_measures", None)
        values.append(
            float(run.measure([importlib.import_module("own_measures").own])["own"][0, 0])
        )
    assert values[1] == values[0]
    assert values[2] == 2 * values[0]


def test_two_functions_under_one_name_are_refused(run: Run) -> None:
    largest = Measure("one_name", lambda params, context: params["unembed"]["W_U"].max())
    smallest = Measure("one_name", lambda params, context: params["unembed"]["W_U"].min())
    values = run.measure([largest])["one_name"]
    for other in (smallest, Measure("one_name", size)):
        with pytest.raises(
            MeasureError, match=r"Two functions have the name one_name\. .* Give yours another name"
        ):
            run.measure([other])
    assert _same_bits(run.measures["one_name"], values)
    assert _same_bits(run.measure([largest])["one_name"], values)


def test_every_reading_of_the_package_can_be_reused() -> None:
    subject = EXPERIMENT.subject()
    for reading in (*READINGS.values(), *EXPENSIVE.values()):
        assert code_digest(subject, reading) is not None, reading.name


def test_a_function_that_carries_values_is_read_again(run: Run) -> None:
    def scaled(factor: float) -> Measure:
        return Measure("own", lambda params, context: factor * _size(params))

    def by_default(factor: float) -> Measure:
        return Measure("other", lambda params, context, by=factor: by * _size(params))

    for make, name in ((scaled, "own"), (by_default, "other")):
        one, two = (run.measure([make(factor)])[name].values for factor in (1.0, 2.0))
        assert np.array_equal(two, 2 * one), name


def test_a_damaged_reading_is_read_again(run: Run) -> None:
    first = run.measure(["test_loss"])
    file = run.path / "measures" / "test_loss.nc"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(
        RunError, match=r"test_loss\.nc cannot be read .*\. Remove it and measure again"
    ):
        _ = run.measures
    assert _same_bits(run.measure(["test_loss"])["test_loss"], first["test_loss"])
    assert "test_loss" in run.measures


class _StopError(Exception):
    pass


def test_a_run_is_measured_while_unfinished_and_again_when_finished(
    run: Run, tmp_path: Path
) -> None:
    def watch(progress: Progress) -> None:
        if progress.step >= 40:
            raise _StopError

    with pytest.raises(_StopError):
        train(EXPERIMENT, tmp_path / "half", watch=watch)
    names = ["test_loss", "restricted_loss", _moved("final"), _moved("previous")]
    half = open_run(tmp_path / "half").measure(names)
    assert half["step"].values.tolist() == list(range(0, 41, 2))
    assert (half["moved_from_final"].sel(step=40) == 0).all()
    finished = train(EXPERIMENT, tmp_path / "half")
    assert set(finished.measures.data_vars) == set()  # those stored have fewer steps
    assert "test_loss of " in finished.measures.attrs["left_out"]
    whole, expected = finished.measure(names), run.measure(names)
    assert all(_same_bits(whole[name], expected[name]) for name in expected.data_vars)
    assert _same_bits(half["test_loss"], whole["test_loss"].sel(step=half["step"]))


def test_a_plain_function_is_a_measure_of_its_own_name(run: Run) -> None:
    values = run.measure([size])["size"]
    assert values.dims == ("seed", "step")
    assert values.dtype == np.float32
    assert (run.path / "measures" / "size.nc").is_file()


def test_a_users_measure_has_its_dims_and_labels(run: Run) -> None:
    by_parameter = Measure(
        "largest",
        lambda params, context: jnp.stack(
            [jnp.abs(leaf).max() for leaf in dotted(params).values()]
        ),
        ("parameter",),
        units="1",
    )
    values = run.measure([by_parameter])["largest"]
    assert values.dims == ("seed", "step", "parameter")
    for name, expected in dotted(run.params(60, 1)).items():
        assert float(values.sel(seed=1, step=60, parameter=name)) == float(np.abs(expected).max())


@pytest.mark.parametrize(
    ("dims", "result", "message"),
    [
        (
            (),
            lambda: jnp.zeros(3),
            r"own: dims \(\) are declared for own, the function returned \(3,\)",
        ),
        (("neuron",), lambda: jnp.zeros(()), r"the function returned \(\)"),
        (
            {"a": ()},
            lambda: {"b": jnp.zeros(())},
            "are declared for a, the function returned nothing",
        ),
        ({"a": ()}, lambda: {"a": jnp.zeros(()), "test_loss": jnp.zeros(())}, "test_loss"),
    ],
)
def test_other_results_than_declared_are_refused(
    run: Run, dims: Any, result: Callable[[], Any], message: str
) -> None:
    with pytest.raises(MeasureError, match=message):
        run.measure([Measure("own", lambda params, context: result(), dims), "test_loss"])
    assert not (run.path / "measures").exists()


def test_a_dim_outside_the_vocabulary_is_refused(run: Run) -> None:
    with pytest.raises(
        ValueError, match=r"own: unknown dims \['neurons'\]; a result's dims are among .*'neuron'"
    ):
        run.measure([Measure("own", lambda params, context: jnp.zeros(2), ("neurons",))])


@pytest.mark.parametrize(
    ("measures", "message"),
    [
        (["tset_loss"], "no measure 'tset_loss'; did you mean test_loss"),
        (["test_loss", "test_loss"], r"More than one measure is named \['test_loss'\]"),
        ([size, Measure("size", lambda params, context: _size(params))], r"named \['size'\]"),
        (
            [Measure("own", size, {"test_loss": ()})],
            "test_loss is a measure of mi_jax.*my_test_loss",
        ),
        (
            [Measure("own", size, roles=("writers",))],
            "own cannot be read here: it needs the model's role 'writers'",
        ),
        (
            [Measure("own", size, ground_truth=("parity",))],
            "needs the task's ground truth 'parity'",
        ),
        (
            [
                Measure("own", size, roles=("writers", "neurons"), ground_truth=("parity",)),
                "test_loss",
            ],
            "needs the model's role 'writers' .*, the task's ground truth 'parity'",
        ),
    ],
)
def test_a_measure_that_cannot_be_taken_is_refused_by_name(
    run: Run, measures: list[Any], message: str
) -> None:
    with compilations("jit(_batch") as compiled, pytest.raises(MeasureError, match=message):
        run.measure(measures)
    assert compiled == []
    assert not (run.path / "measures").exists()


def test_a_measure_that_lacks_its_needs_is_skipped_by_default_and_refused_by_name() -> None:
    experiment = tiny_mlp_experiment(task=ModularArithmetic(p=11, operation="multiply"))
    taken, skipped = choose(None, experiment.subject())
    reasons = {skip.name: skip.reason for skip in skipped}
    assert (
        reasons["restricted_loss"]
        == "needs the task's ground truth 'cyclic_answer' (which modular_arithmetic has by default)"
    )
    assert (
        reasons["attention_pattern"]
        == "needs the model's role 'patterns' (which transformer has by default)"
    )
    assert {"train_loss", "test_accuracy", "sum_squared_weights"} <= {
        measure.name for measure in taken
    }
    assert not {measure.name for measure in taken} & set(reasons)
    with pytest.raises(
        MeasureError,
        match="restricted_loss cannot be read here: it needs the task's ground truth 'cyclic",
    ):
        choose(["restricted_loss"], experiment.subject())


def test_weights_alone_have_only_themselves_to_be_compared_with() -> None:
    subject = tiny_mlp_experiment().subject()
    with pytest.raises(
        MeasureError,
        match="moved_from_previous cannot be read here: it needs the previous parameters",
    ):
        choose([_moved("previous")], subject, frozenset({"final"}))
    with pytest.raises(MeasureError, match="the initial parameters"):
        choose([_moved("initial")], subject, frozenset({"final"}))
    assert choose([_moved("final")], subject, frozenset({"final"}))[1] == []


def test_the_same_measures_read_a_transformer_and_an_mlp_through_their_roles(
    run: Run, tiny_run: Run, tmp_path: Path
) -> None:
    names = [
        "gini_embedding",
        "gini_unembedding",
        "fourier_power_unembedding",
        "restricted_loss",
        "logit_fve",
        "neuron_fve",
    ]
    shutil.copytree(tiny_run.path, tmp_path / "transformer")
    mlp, transformer = run.measure(names), open_run(tmp_path / "transformer").measure(names)
    for dataset, neurons in ((mlp, 24), (transformer, 32)):
        assert dataset.sizes["neuron"] == neurons
        assert dataset["fourier_power_unembedding"].sizes["frequency"] == 5
        np.testing.assert_allclose(
            dataset["fourier_power_unembedding"].sum("frequency"), 1, rtol=1e-5
        )
        assert all(
            np.isfinite(dataset[name]).all()
            for name in ("gini_embedding", "restricted_loss", "logit_fve")
        )


@pytest.mark.slow
def test_a_split_per_seed_is_read_per_seed(tmp_path: Path) -> None:
    task = ModularArithmetic(p=11, fraction=0.5, split_per_seed=True)
    run = train(tiny_mlp_experiment(task=task, schedule=every(20)), tmp_path / "run")
    read = run.measure(["train_loss"])["train_loss"]
    np.testing.assert_allclose(
        read.sel(step=[0, 20, 40]), run.losses.sel(step=[0, 20, 40]), rtol=2e-6
    )


def test_a_watcher_is_called_after_every_segment(run: Run) -> None:
    calls: list[tuple[int, int]] = []
    run.measure(["train_loss"], watch=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (31, 31)
    assert [done for done, _ in calls] == np.cumsum(
        [len(index.steps) for index in run.trajectories[0].indexes]
    ).tolist()


def test_readings_as_json_are_numbers_lists_and_objects_by_label() -> None:
    values = {
        "number": ((), 1.5),
        "count": ((), np.int32(3)),
        "never": ((), np.nan),
        "yes": ((), np.True_),
        "mask": (("frequency",), np.array([True, False, True])),
        "unlabelled_mask": (("neuron",), np.array([False, True])),
        "shares": (("frequency",), np.array([0.5, np.nan, 0.25])),
        "neurons": (("neuron",), np.array([1, 2])),
        "table": (("neuron", "frequency"), np.arange(6).reshape(2, 3)),
    }
    dataset = xr.Dataset(
        {
            name: (("seed", "step", *dims), np.asarray(value)[None, None])
            for name, (dims, value) in values.items()
        },
        {"seed": [4], "step": [10], "frequency": [1, 2, 3]},
    )
    ((seed, readings),) = last_step(dataset)
    assert seed == 4
    assert json.loads(json.dumps(readings)) == {
        "number": 1.5,
        "count": 3,
        "never": None,
        "yes": True,
        "mask": [1, 3],
        "unlabelled_mask": [1],
        "shares": {"1": 0.5, "2": None, "3": 0.25},
        "neurons": [1, 2],
        "table": [{"1": 0, "2": 1, "3": 2}, {"1": 3, "2": 4, "3": 5}],
    }


def test_the_readings_of_weights_are_those_of_the_snapshot(run: Run, together: xr.Dataset) -> None:
    measures, _ = choose(NAMES, run.subject, frozenset({"final"}))
    alone, ours = (
        measure_weights(run.params(60, seed=1), run.subject, measures, run.record),
        together.sel(seed=1, step=60),
    )
    assert all(alone[name].values.tobytes() == ours[name].values.tobytes() for name in NAMES)


# --- Measures that are taken only when named ---


def test_an_expensive_reading_is_taken_only_when_named_and_once_under_any_of_its_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = Measure("slow", lambda params, context: {}, {"slow": (), "slow_error": ()})
    monkeypatch.setitem(EXPENSIVE, "slow", slow)
    subject = tiny_experiment().subject()
    everything, skipped = choose(None, subject)
    assert "slow" not in {measure.name for measure in (*everything, *skipped)}
    for names in (
        ["slow"],
        ["slow_error"],
        ["slow", "slow_error"],
        ["slow_error", "slow", "test_loss"],
    ):
        taken, _ = choose(names, subject)
        expected = ["slow", "test_loss"] if "test_loss" in names else ["slow"]
        assert [measure.name for measure in taken] == expected
    with pytest.raises(MeasureError, match="More than one measure is named"):
        choose(["slow", "slow"], subject)


def test_readings_of_different_sites_are_merged() -> None:
    def reading(name: str, sites: list[str]) -> xr.Dataset:
        values = np.arange(len(sites), dtype=float)[None, None]
        return xr.Dataset(
            {name: (("seed", "step", "site"), values)}, {"seed": [0], "step": [0], "site": sites}
        )

    both = joined(
        [reading("x", ["c"]), reading("y", ["b", "a", "c"])], {"experiment": {}, "hash": ""}
    )
    assert both["site"].values.tolist() == ["b", "a", "c"]
    np.testing.assert_array_equal(both["x"].squeeze(), [np.nan, np.nan, 0])
    np.testing.assert_array_equal(both["y"].squeeze(), [0, 1, 2])


@pytest.mark.slow
def test_readings_of_different_numbers_of_modes_and_heads_are_merged() -> None:
    """Two layers of two heads: composition counts four heads in a row, attention two per layer. The
    largest array has more modes than there are residues.
    """
    task = ModularArithmetic(p=5, fraction=0.6)
    subject = Subject(
        Transformer(layers=2, d_model=8, heads=2, d_mlp=16).build(task.inputs), task, CrossEntropy()
    )
    params = subject.model.init(jax.random.key(0))
    names = [
        "attention_pattern",
        "composition_score",
        "singular_values",
        "singular_values_embedding",
        "attention_frequency",
    ]
    measures, _ = choose(names, subject, frozenset({"final"}))
    provenance = {"experiment": {}, "hash": ""}
    alone = [measure_weights(params, subject, [single], provenance) for single in measures]
    together = measure_weights(params, subject, measures, provenance)
    assert together["composition_score"].dims == ("seed", "step", "head", "head_other", "slot")
    assert (together.sizes["head"], together.sizes["mode"]) == (4, 8)
    assert "head" not in together.coords
    for dataset in alone:
        for name, own in dataset.data_vars.items():
            part = {dim: slice(0, own.sizes[dim]) for dim in ("head", "mode") if dim in own.dims}
            np.testing.assert_array_equal(together[name].isel(part), own)
            assert np.isnan(together[name]).sum() == together[name].size - np.isfinite(own).sum()


def test_a_merged_mask_is_false_where_it_has_no_entry_and_labels_are_not_counts() -> None:
    def reading(name: str, values: Any, **labels: Any) -> xr.Dataset:
        return xr.Dataset(
            {name: (("seed", "step", "mode"), np.asarray(values)[None, None])},
            {"seed": [0], "step": [0], **labels},
        )

    mask, long = united([reading("x", [True, True]), reading("y", [1, 2, 3])])
    assert mask["x"].dtype == bool
    np.testing.assert_array_equal(mask["x"].squeeze(), [True, True, False])
    np.testing.assert_array_equal(long["y"].squeeze(), [1, 2, 3])
    with pytest.raises(MeasureError, match="along 'mode': some measures name its entries"):
        united([reading("x", [1, 2], mode=["a", "b"]), reading("y", [1, 2, 3])])
