"""Learning coefficient and sharpness as measures: their values, names, figures and claims."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from jax.flatten_util import ravel_pytree

from mi_jax.basics.errors import ConfigError, MeasureError
from mi_jax.contracts import Reference, Subject
from mi_jax.landscape import (
    RMSProp,
    SGLDSettings,
    learning_coefficient,
    measure_learning_coefficient,
    measure_sharpness,
    restrict,
    split_loss_of,
)
from mi_jax.measures import MEASURES
from mi_jax.measuring.choosing import choose
from mi_jax.measuring.nulls import Nulls
from mi_jax.measuring.program import make_context
from mi_jax.measuring.registry import EXPENSIVE, with_options
from mi_jax.measuring.stored import measure_weights
from mi_jax.models import MLP
from mi_jax.plots import learning_coefficient_curves, sharpness_curves
from mi_jax.report.claims import claims
from mi_jax.report.figures import draw_figures
from mi_jax.report.inputs import ReportInputs
from mi_jax.tasks import ModularArithmetic
from mi_jax.training.losses import CrossEntropy

_TASK = ModularArithmetic(p=5, fraction=0.6)
_MODEL = MLP(width=8).build(_TASK.inputs)
_SUBJECT = Subject(_MODEL, _TASK, CrossEntropy())
_PROTOCOL = {"gamma": 10.0, "epsilon": 1e-3, "burn_in": 5, "draws": 12, "chains": 2}
_WHOLE = measure_learning_coefficient(**_PROTOCOL, name="learning_coefficient")
_PART = measure_learning_coefficient(
    **_PROTOCOL,
    n_beta=3.0,
    parameters=("unembed.*",),
    split="test",
    name="learning_coefficient_unembedding",
)
_SUBSET = with_options(
    "learning_coefficient(gamma=10.0, epsilon=1e-3, burn_in=5, draws=12, chains=2, n_beta=3.0,"
    " parameters='embed_a.W_E', entry=1, where=('a_parity', 0), name='subset')"
)


@pytest.fixture(scope="module")
def params() -> Any:
    return jax.tree.map(np.asarray, _MODEL.init(jax.random.key(1)))


@pytest.fixture(scope="module")
def read(params: Any) -> xr.Dataset:
    measures = [_WHOLE, _PART, _SUBSET, measure_sharpness(order=24), MEASURES["train_loss"]]
    return measure_weights(params, _SUBJECT, measures, {"experiment": {}, "hash": ""}).isel(
        seed=0, step=0
    )


def _loss(split: str) -> tuple[Any, Any]:
    context = make_context(_SUBJECT, 0, Reference(), [])
    return split_loss_of(context), context.batches[split]


def test_both_are_read_only_when_named() -> None:
    assert {"learning_coefficient", "sharpness"} <= set(EXPENSIVE)
    default = {measure.name for measure in choose(None, _SUBJECT)[0]}
    assert not default & {"learning_coefficient", "sharpness"}


def test_the_reading_is_the_estimate_of_the_runs_own_loss_over_the_split(
    params: Any, read: xr.Dataset
) -> None:
    loss, examples = _loss("train")
    alone = learning_coefficient(
        loss,
        params,
        n=15,
        settings=SGLDSettings(**_PROTOCOL),
        key=jax.random.key(0),
        data=examples._replace(info={}),
    )
    assert float(read["learning_coefficient"]) == pytest.approx(
        float(alone.learning_coefficient), rel=1e-3
    )
    assert float(read["learning_coefficient_se"]) == pytest.approx(
        float(alone.standard_error), rel=1e-2
    )
    trace = read["learning_coefficient_loss_trace"]
    assert trace.dims == ("chain", "draw")
    assert trace["draw"].values.tolist() == list(range(-5, 12))
    np.testing.assert_allclose(trace.sel(draw=slice(0, None)), alone.loss_trace, rtol=1e-4)
    np.testing.assert_allclose(
        trace.sel(draw=-5), float(read["learning_coefficient_baseline_loss"]), rtol=1e-5
    )
    assert float(read["learning_coefficient_baseline_loss"]) == pytest.approx(
        float(read["train_loss"]), rel=1e-6
    )
    assert float(read["learning_coefficient_share_below_start"]) == float(alone.share_below_start)
    for flag, up in alone.flags._asdict().items():
        assert bool(read[f"learning_coefficient_{flag}"]) == bool(up), flag


def test_the_whole_protocol_is_stored(read: xr.Dataset) -> None:
    provenance = json.loads(read["learning_coefficient"].attrs["provenance"])
    assert {name: provenance["options"][name] for name in _PROTOCOL} == _PROTOCOL
    prepared = {name: by_seed["0"] for name, by_seed in provenance["prepared"].items()}
    assert prepared["learning_coefficient_n"] == 15
    assert prepared["learning_coefficient_n_beta"] == pytest.approx(15 / np.log(15))
    assert prepared["learning_coefficient_beta"] == pytest.approx(1 / np.log(15))


def test_settings_and_options_one_by_one_make_the_same_measure() -> None:
    whole = measure_learning_coefficient(
        settings=SGLDSettings(gamma=10.0, batch_size=4, preconditioner=RMSProp())
    )
    by_option = with_options(
        "learning_coefficient(gamma=10.0, minibatch=4, preconditioner='rmsprop')"
    )
    assert (whole.name, whole.options) == (by_option.name, by_option.options)
    assert "_gamma_10.0_minibatch_4_" in whole.name
    changed = measure_learning_coefficient(settings=SGLDSettings(gamma=10.0, draws=9), gamma=7.0)
    assert (changed.options["gamma"], changed.options["draws"]) == (7.0, 9)
    with pytest.raises(ConfigError, match="no setting 'epsilom'; did you mean epsilon"):
        measure_learning_coefficient(epsilom=1e-3)


@pytest.mark.slow
def test_another_set_of_parameters_and_another_split_have_a_name_of_their_own(
    params: Any, read: xr.Dataset
) -> None:
    loss, examples = _loss("test")
    alone = learning_coefficient(
        loss,
        params,
        n=10,
        settings=SGLDSettings(n_beta=3.0, **_PROTOCOL),
        key=jax.random.key(0),
        data=examples._replace(info={}),
        mask="unembed.*",
    )
    assert float(read["learning_coefficient_unembedding"]) == pytest.approx(
        float(alone.learning_coefficient), rel=1e-3
    )
    assert float(read["learning_coefficient_unembedding_distance"]) < float(
        read["learning_coefficient_distance"]
    )


def test_a_part_of_the_parameters_on_a_part_of_the_examples_is_the_estimate_of_both(
    params: Any, read: xr.Dataset
) -> None:
    loss, examples = _loss("train")
    even = np.asarray(examples.inputs)[:, 0] % 2 == 0
    alone = learning_coefficient(
        loss,
        params,
        n=int(even.sum()),
        settings=SGLDSettings(n_beta=3.0, **_PROTOCOL),
        key=jax.random.key(0),
        data=examples._replace(info={}),
        mask=restrict(params, "embed_a.W_E", entry=1),
        examples=even,
    )
    assert float(read["subset"]) == pytest.approx(float(alone.learning_coefficient), rel=1e-3)
    prepared = json.loads(read["subset"].attrs["provenance"])["prepared"]
    assert prepared["subset_n"]["0"] == even.sum()
    assert prepared["subset_examples"]["0"] == np.flatnonzero(even).tolist()


def test_sharpness_is_the_largest_eigenvalue_of_the_whole_hessian(
    params: Any, read: xr.Dataset
) -> None:
    loss, examples = _loss("train")
    flat, unravel = ravel_pytree(jax.tree.map(jnp.asarray, params))
    product = jax.jit(
        jax.vmap(
            lambda v: jax.jvp(jax.grad(lambda w: loss(unravel(w), examples)), (flat,), (v,))[1]
        )
    )
    H = np.asarray(product(jnp.eye(flat.size)), np.float64)
    assert float(read["sharpness_order_24"]) == pytest.approx(
        np.linalg.eigvalsh((H + H.T) / 2)[-1], rel=1e-4
    )


def test_invalid_options_are_refused() -> None:
    with pytest.raises(MeasureError, match="needs the task's split 'cascade'"):
        choose([measure_learning_coefficient(split="cascade")], _SUBJECT)
    for name, value in (("epsilon", -1.0), ("n_beta", 0.0), ("minibatch", 0)):
        with pytest.raises(ConfigError, match=f"{name}={value}"):
            measure_learning_coefficient(**{name: value})
    nowhere = measure_learning_coefficient(parameters=("nowhere.*",))
    with pytest.raises(
        ConfigError, match=r"The pattern 'nowhere\.\*' matches none of the parameters"
    ):
        measure_weights(
            _MODEL.init(jax.random.key(0)), _SUBJECT, [nowhere], {"experiment": {}, "hash": ""}
        )


# --- Figures and claims ---


def _curves() -> xr.Dataset:
    step = np.array([0, 10, 100, 1000])
    scalar = lambda *values: (("seed", "step"), np.array([values], float))  # noqa: E731
    flags = {
        f"learning_coefficient_{flag}": scalar(0, 0, 0, 0)
        for flag in ("diverged", "epsilon_too_large", "unmixed")
    }
    return xr.Dataset(
        {
            "train_loss": scalar(4, 1, 1e-3, 1e-6),
            "test_loss": scalar(4, 5, 6, 1e-5),
            "learning_coefficient": scalar(-2, 10, 40, 20),
            "learning_coefficient_se": scalar(1, 1, 2, 1),
            "learning_coefficient_negative": scalar(1, 0, 0, 0),
            **flags,
            "sharpness": scalar(1, 50, 700, 300),
        },
        {"seed": [0], "step": step},
        attrs={"provenance": json.dumps({"experiment": {"optimizer": {"learning_rate": 4e-3}}})},
    )


def test_the_learning_coefficient_stands_under_the_loss_with_its_errors_flags_and_null() -> None:
    null = xr.DataArray([3.0, 5.0], dims="draw")
    above, below = learning_coefficient_curves(_curves(), null=null).axes
    assert [line.get_label() for line in above.lines] == ["train", "test"]
    full, hollow = (line for line in below.lines if line.get_marker() == "o")
    np.testing.assert_array_equal(full.get_ydata(), [10, 40, 20])
    np.testing.assert_array_equal(hollow.get_ydata(), [-2])
    assert hollow.get_markerfacecolor() == "white"
    bars = below.collections[0].get_segments()
    np.testing.assert_allclose([bar[1, 1] - bar[0, 1] for bar in bars], [2, 2, 4, 2])
    (edges,) = (band.get_paths()[0].vertices[:, 1] for band in below.collections[1:])
    assert (edges.min(), edges.max()) == (3, 5)


def test_where_no_loss_was_read_the_sampled_one_stands_above() -> None:
    alone = _curves().rename(train_loss="learning_coefficient_baseline_loss").drop_vars("test_loss")
    (line,) = learning_coefficient_curves(alone).axes[0].lines
    np.testing.assert_array_equal(line.get_ydata(), [4, 1, 1e-3, 1e-6])


def test_sharpness_stands_against_two_over_eta() -> None:
    axes = sharpness_curves(_curves(), threshold=500.0)
    assert [line.get_ydata()[0] for line in axes.lines if line.get_label() == r"$2/\eta$"] == [500]
    assert axes.get_yscale() == "log"


def test_the_caption_counts_the_estimates_that_are_more_gammas_than_the_losss(
    tmp_path: Path,
) -> None:
    dataset = _curves()
    dataset["learning_coefficient_localisation"] = dataset["learning_coefficient"].copy(
        data=[[0.9, np.nan, 0.4, 0.6]]
    )
    figures = draw_figures(tmp_path, ReportInputs(dataset))
    (caption,) = (
        figure.caption
        for figure in figures
        if figure.title == "The learning coefficient beside the loss"
    )
    assert (
        "In 2 of 3 estimates the localisation gamma confines the chains more than the loss does"
        in caption
    )


def test_an_estimate_whose_steps_are_too_large_backs_no_claim() -> None:
    flagged = _curves()
    last = float(flagged["learning_coefficient"].isel(step=-1).item())
    flagged["learning_coefficient_epsilon_too_large"] = flagged["learning_coefficient"] == last
    nothing = xr.Dataset()
    null = xr.Dataset({"learning_coefficient": ("draw", np.array([*[1.0] * 18, last - 1]))})
    assert claims(ReportInputs(flagged, Nulls(nothing, nothing, null)))[0].level == 0
    flagged["learning_coefficient_epsilon_too_large"][:] = False
    for draws, level in (([*[1.0] * 19, last - 1], 1), ([*[1.0] * 19, last + 1], 0)):
        null = xr.Dataset({"learning_coefficient": ("draw", np.array(draws))})
        (claim,) = claims(ReportInputs(flagged, Nulls(nothing, nothing, null)))
        assert claim.level == level
    # Nor one of an untrained network.
    null["learning_coefficient_epsilon_too_large"] = ("draw", [*[False] * 19, True])
    assert claims(ReportInputs(flagged, Nulls(nothing, nothing, null)))[0].level == 1
    null["learning_coefficient_epsilon_too_large"] = ("draw", [True] * 20)
    (claim,) = claims(ReportInputs(flagged, Nulls(nothing, nothing, null)))
    assert (claim.level, claim.p) == (0, None)


def test_the_last_learning_coefficient_of_a_run_is_judged_by_untrained_networks() -> None:
    nothing = xr.Dataset()
    last = float(_curves()["learning_coefficient"].isel(step=-1).item())
    for draws, level in (([*[1.0] * 18, last - 1], 1), ([*[1.0] * 18, last + 1], 0)):
        null = xr.Dataset({"learning_coefficient": ("draw", np.array(draws))})
        (claim,) = claims(ReportInputs(_curves(), Nulls(nothing, nothing, null)))
        assert (claim.level, "learning_coefficient" in claim.text) == (level, True)


def test_the_last_sharpness_of_a_run_is_judged_by_untrained_networks() -> None:
    nothing = xr.Dataset()
    last = float(_curves()["sharpness"].isel(step=-1).item())
    for draws, level in (([*[1.0] * 18, last - 1], 1), ([*[1.0] * 18, last + 1], 0)):
        null = xr.Dataset({"sharpness": ("draw", np.array(draws))})
        (claim,) = claims(ReportInputs(_curves(), Nulls(nothing, nothing, null)))
        assert (claim.level, "sharpness" in claim.text) == (level, True)


def test_the_report_shows_both_and_repeats_no_diagnostic_elsewhere(tmp_path: Any) -> None:
    nothing = xr.Dataset()
    null = xr.Dataset(
        {
            name: ("draw", np.array([1.0, 2.0]))
            for name in ("learning_coefficient", "learning_coefficient_se")
        }
    )
    figures = draw_figures(tmp_path, ReportInputs(_curves(), Nulls(nothing, nothing, null)))
    by_title = {figure.title: figure for figure in figures}
    assert "2/eta = 500" in by_title["Sharpness"].caption
    assert "The learning coefficient beside the loss" in by_title
    assert "Every other reading beside its null" not in by_title
