"""Nulls: readings of untrained networks, and with other frequencies in place of the key ones."""

import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from conftest import tiny_mlp_experiment

from mi_jax.basics.streams import stream
from mi_jax.contracts import Context, Measure
from mi_jax.landscape import measure_sharpness
from mi_jax.measures import MEASURES
from mi_jax.measures.norms import sum_squared_weights
from mi_jax.measuring import nulls
from mi_jax.measuring.nulls import Draws, Nulls, read_nulls
from mi_jax.measuring.program import Reader
from mi_jax.measuring.stored import measure_weights
from mi_jax.runs.run import Run, open_run
from mi_jax.runs.train import train

pytestmark = pytest.mark.slow  # over half a minute in all

_KEYS = {"few": (1, 3), "most": (1, 2, 4, 5)}
"""Key frequencies, among the five of p = 11."""


def _prepared(keys: tuple[int, ...]) -> Any:
    mask = np.isin(np.arange(1, 6), keys)
    return {"final_key_frequencies": lambda reference, context: jnp.asarray(mask)}


def _mask(params: Any, context: Context) -> jax.Array:
    """The key frequencies that the measure was given."""
    return context.prepared["final_key_frequencies"].astype(jnp.float32)


def _is_final(params: Any, context: Context) -> jax.Array:
    """Whether the checkpoint is its own final model."""
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(context.reference.final), strict=True)
    return jnp.stack([(x == y).all() for x, y in pairs]).all().astype(jnp.float32)


def _masks(keys: str) -> Measure:
    return Measure(
        "mask",
        _mask,
        ("frequency",),
        uses=frozenset({"final"}),
        prepare=_prepared(_KEYS[keys]),
        null="other_frequencies",
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(tiny_mlp_experiment(seeds=(0, 1)), tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Run:
    return open_run(shutil.copytree(run.path, tmp_path / "copy"))


def _nulls(run: Run, *measures: Measure, draws: int = 4, snapshots: int = 3) -> Nulls:
    return read_nulls(run.trajectories[0], run.subject, measures, draws=draws, snapshots=snapshots)


# --- Untrained networks ---


def test_untrained_draws_are_the_readings_of_fresh_networks(copy: Run) -> None:
    measures = [
        MEASURES["gini_unembedding"],
        MEASURES["test_loss"],
        MEASURES["fourier_power_embedding"],
    ]
    found = _nulls(copy, *measures, draws=3).untrained
    provenance = {"experiment": {}, "hash": ""}
    for draw in range(3):
        params = copy.subject.model.init(jax.random.fold_in(stream(0, "null"), draw))
        alone = measure_weights(params, copy.subject, measures, provenance)
        for measure in measures:
            np.testing.assert_allclose(
                found[measure.name].isel(draw=draw), alone[measure.name][0, 0], rtol=1e-6
            )
    assert found["gini_unembedding"].dims == ("draw",)
    assert found["fourier_power_embedding"].dims == ("draw", "frequency")
    np.testing.assert_array_equal(found["frequency"], np.arange(1, 6))


def test_expensive_measures_are_read_of_as_many_networks_as_claims_need(copy: Run) -> None:
    sharpness = measure_sharpness(order=3)
    found = read_nulls(
        copy.trajectories[0],
        copy.subject,
        [],
        expensive=[sharpness],
        draws=8,
        claims=Draws(untrained=2),
    ).expensive
    assert dict(found.sizes) == {"draw": 2}
    params = copy.subject.model.init(jax.random.fold_in(stream(0, "null"), 1))
    alone = measure_weights(params, copy.subject, [sharpness], {"experiment": {}, "hash": ""})
    np.testing.assert_allclose(
        found["sharpness_order_3"].isel(draw=1), alone["sharpness_order_3"][0, 0], rtol=1e-5
    )


def test_untrained_draws_differ_from_each_other_and_from_the_runs_own_beginnings(copy: Run) -> None:
    found = _nulls(copy, sum_squared_weights(), draws=6).untrained["sum_squared_weights"].values
    begun = copy.read([sum_squared_weights()], [0])["sum_squared_weights"].values.ravel()
    assert len({*found.tolist(), *begun.tolist()}) == 6 + 2


def test_an_untrained_network_is_its_own_final_model(copy: Run) -> None:
    final = Measure("is_final", _is_final, uses=frozenset({"final"}))
    np.testing.assert_array_equal(_nulls(copy, final).untrained["is_final"], 1)
    assert float(copy.read([final], [0])["is_final"].max()) == 0


def test_a_measure_of_pairs_compares_with_another_untrained_network(
    copy: Run,
) -> None:
    final = Measure("is_final", _is_final, uses=frozenset({"final"}), null="untrained_pair")
    np.testing.assert_array_equal(_nulls(copy, final).untrained["is_final"], 0)
    both = _nulls(copy, final, sum_squared_weights()).untrained
    assert set(both.data_vars) == {"is_final", "sum_squared_weights"}


def test_a_measure_of_the_previous_snapshot_has_no_untrained_null(copy: Run) -> None:
    before = Measure("before", _is_final, uses=frozenset({"previous"}))
    assert set(_nulls(copy, before, sum_squared_weights()).untrained.data_vars) == {
        "sum_squared_weights"
    }


# --- Other frequencies ---


def test_as_many_frequencies_stand_in_for_the_key_ones_and_none_of_them_is_key(copy: Run) -> None:
    masks = _nulls(copy, _masks("few"), draws=80, snapshots=3).frequencies["mask"]
    assert dict(masks.sizes) == {"seed": 2, "step": 3, "draw": 20, "frequency": 5}
    np.testing.assert_array_equal(masks.sum("frequency"), len(_KEYS["few"]))
    np.testing.assert_array_equal(masks.sel(frequency=list(_KEYS["few"])), 0)
    others = masks.sel(frequency=[2, 4, 5])
    assert (others.mean("draw") > 0).all(), "each of the others has its turn"
    assert (others == others.isel(step=0)).all(), (
        "one draw is one set of frequencies, at every step"
    )


def test_where_most_frequencies_are_key_there_is_no_null(copy: Run) -> None:
    masks = _nulls(copy, _masks("most"), draws=80, snapshots=2).frequencies["mask"]
    assert masks.isnull().all()


def test_other_frequencies_are_read_at_evenly_spaced_snapshots_from_first_to_last(
    copy: Run,
) -> None:
    steps = copy.steps
    for snapshots, indices in ((3, [0, 6, 11]), (2, [0, 11]), (50, range(12))):
        found = _nulls(copy, _masks("few"), snapshots=snapshots).frequencies
        np.testing.assert_array_equal(found["step"], steps[list(indices)])
        np.testing.assert_array_equal(found["seed"], [0, 1])


def test_a_measure_under_other_frequencies_is_the_measure_with_those_frequencies(copy: Run) -> None:
    fve, masks = MEASURES["logit_fve"], _masks("few")
    both = _nulls(
        copy, Measure(**{**vars(fve), "prepare": masks.prepare}), masks, draws=8
    ).frequencies
    for draw in range(2):
        for seed in (0, 1):
            chosen = 1 + np.flatnonzero(both["mask"].sel(seed=seed).isel(step=-1, draw=draw))
            own = {"name": "own_fve", "prepare": _prepared(tuple(chosen))}
            alone = Measure(**{**vars(fve), **own})
            expected = copy.read([alone], [60])["own_fve"].sel(seed=seed, step=60)
            np.testing.assert_allclose(
                both["logit_fve"].sel(seed=seed).isel(step=-1, draw=draw), expected, rtol=1e-5
            )


def test_each_measure_has_only_the_null_that_it_names(copy: Run) -> None:
    found = _nulls(copy, sum_squared_weights(), _masks("few"))
    assert set(found.untrained.data_vars) == {"sum_squared_weights"}
    assert set(found.frequencies.data_vars) == {"mask"}
    assert (
        not _nulls(copy, _masks("few")).untrained,
        not _nulls(copy, sum_squared_weights()).frequencies,
    ) == (True, True)


# --- Other names ---

_CLAIMED = ("gini_embedding", "key_mode_share_unembedding", "logit_fve", "excluded_loss")


def _claimed(run: Run, claims: Draws) -> Nulls:
    measures, _ = run.choose(_CLAIMED)
    return read_nulls(run.trajectories[0], run.subject, measures, claims=claims)


def test_each_claim_is_read_under_its_own_renaming_at_the_last_snapshot(copy: Run) -> None:
    found = _claimed(copy, Draws(renamed=7, relabelled=5))
    assert set(found.renamed) == {"gini_embedding", "key_mode_share_unembedding"}
    assert set(found.relabelled) == {"logit_fve", "excluded_loss"}
    assert dict(found.renamed.sizes) == {"seed": 2, "draw": 7}
    assert dict(found.relabelled.sizes) == {"seed": 2, "draw": 5}
    read = copy.read(["gini_embedding"], [60])["gini_embedding"].values.ravel()
    # One permutation, of different networks.
    assert not np.isclose(found.renamed["gini_embedding"], read[:, None]).any()
    columns = found.renamed["gini_embedding"].values
    assert (columns[0] != columns[1]).all()


def test_where_most_frequencies_are_key_only_readings_without_keys_have_a_null(copy: Run) -> None:
    fve = MEASURES["logit_fve"]
    many = Measure(**{**vars(fve), "prepare": _prepared(_KEYS["most"])})
    few = Measure(**{**vars(fve), "prepare": _prepared(_KEYS["few"])})
    for measure, missing in ((many, True), (few, False)):
        found = read_nulls(copy.trajectories[0], copy.subject, [measure]).relabelled
        assert found["logit_fve"].isnull().values.all() == missing


def test_renamed_readings_are_stored_and_read_again_for_other_numbers_of_draws(
    copy: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, more = (_claimed(copy, Draws(renamed=draws, relabelled=3)) for draws in (4, 8))
    xr.testing.assert_allclose(few.renamed, more.renamed.isel(draw=slice(4)))
    monkeypatch.setattr(nulls, "read_renamed", None)
    _same(_claimed(copy, Draws(renamed=8, relabelled=3)), more)


# --- Stored nulls ---

_STORED = (sum_squared_weights(), MEASURES["excluded_loss"])


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of snapshots read, one entry per call of the reader."""
    seen: list[int] = []
    read = Reader.read

    def counted(self: Reader, stack: Any, previous: Any, context: Context) -> Any:
        seen.append(len(jax.tree.leaves(stack)[0]))
        return read(self, stack, previous, context)

    monkeypatch.setattr(Reader, "read", counted)
    return seen


def _same(ours: Nulls, theirs: Nulls) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        xr.testing.assert_identical(mine, other)


def test_a_second_call_reads_nothing_and_returns_the_same(copy: Run, reads: list[int]) -> None:
    first = _nulls(copy, *_STORED)
    assert len(reads) > 0
    reads.clear()
    _same(_nulls(open_run(copy.path), *_STORED), first)
    assert reads == []


def _other_code(copy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nulls, "code_digest", lambda *functions: "other")


def _damaged(copy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in (copy.path / "nulls").glob("*.nc"):
        file.write_bytes(file.read_bytes()[:100])


def _of_another_run(copy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretends that the same files stand beside other weights."""
    hashes = {name: f"other {value}" for name, value in copy.trajectories[0].hashes().items()}
    monkeypatch.setattr(type(copy.trajectories[0]), "hashes", lambda self: hashes)


@pytest.mark.parametrize("change", [_other_code, _damaged, _of_another_run])
def test_nulls_are_read_again_for_other_weights_other_code_and_a_damaged_file(
    copy: Run, reads: list[int], monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    first, once = _nulls(copy, *_STORED), len(reads)
    change(copy, monkeypatch)
    second = _nulls(copy, *_STORED)
    assert len(reads) == 2 * once
    for mine, other in zip(first, second, strict=True):
        xr.testing.assert_equal(mine, other)


def test_other_measures_are_read_again(copy: Run) -> None:
    for names in (
        ("gini_embedding",),
        ("gini_embedding", "gini_unembedding"),
        ("gini_unembedding",),
    ):
        assert set(_nulls(copy, *(MEASURES[name] for name in names)).untrained.data_vars) == set(
            names
        )


def test_more_draws_are_read_again_and_begin_with_the_same_draws(copy: Run) -> None:
    few, more = (_nulls(copy, *_STORED, draws=draws) for draws in (4, 8))
    assert (few.untrained.sizes["draw"], more.untrained.sizes["draw"]) == (4, 8)
    assert (few.frequencies.sizes["draw"], more.frequencies.sizes["draw"]) == (1, 2)
    xr.testing.assert_equal(few.untrained, more.untrained.isel(draw=slice(4)))


def test_a_measure_whose_code_has_no_hash_is_never_reused(copy: Run, reads: list[int]) -> None:
    factor = 2.0
    closure = Measure(
        "closure", lambda params, context: factor * sum_squared_weights().function(params, context)
    )
    for _ in range(2):
        _nulls(copy, closure)
    assert len(reads) == 2 * 4
