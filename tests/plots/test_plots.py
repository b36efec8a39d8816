"""Figures, checked by their artists: the drawn values are the data, and matplotlib's global
settings stay as they are.
"""

from pathlib import Path

import matplotlib as mpl
import matplotlib.figure
import numpy as np
import pytest
import xarray as xr
from matplotlib import style as sheets
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from PIL import Image, ImageSequence

from mi_jax import plots
from mi_jax.dynamics import probe_readings
from mi_jax.plots.dates import PHASES
from mi_jax.plots.style import COLOURS, COLUMN, SEED_STYLES

_STEPS = np.array([0, 1, 5, 20, 100, 1000])
_SEEDS, _P, _KEYS = (3, 8), 11, (2, 5)
_OKABE_ITO = {
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
    "#999999",
    "#555555",
}


@pytest.fixture(scope="module")
def dataset() -> xr.Dataset:
    rng = np.random.default_rng(0)
    shape = (len(_SEEDS), len(_STEPS))
    coords = {
        "seed": list(_SEEDS),
        "step": _STEPS,
        "frequency": np.arange(1, 6),
        "parameter": [f"blocks.0.attn.W_{x}" for x in "QKVO"] + ["unembed.W_U"],
    }
    scalars = (
        "train_loss",
        "test_loss",
        "train_accuracy",
        "test_accuracy",
        "restricted_loss",
        "excluded_loss",
    )
    scalars += ("gini_embedding", "gini_unembedding")
    by_frequency = (
        "fourier_power_embedding",
        "fourier_power_unembedding",
        "excluded_loss_by_frequency",
        "cluster_sizes",
    )
    keys = np.zeros((*shape, 5), bool)
    keys[..., [k - 1 for k in _KEYS]] = True
    variables = {name: (("seed", "step"), rng.uniform(0.1, 1, shape)) for name in scalars}
    variables |= {
        name: (("seed", "step", "frequency"), rng.uniform(0.1, 1, (*shape, 5)))
        for name in by_frequency
    }
    variables |= {
        "key_frequencies": (("seed", "step", "frequency"), keys),
        "neuron_fve": (("seed", "step", "neuron"), rng.uniform(size=(*shape, 9))),
        "sum_squared_weights_by_parameter": (
            ("seed", "step", "parameter"),
            rng.uniform(1, 9, (*shape, 5)),
        ),
        "singular_values_unembedding": (("seed", "step", "mode"), rng.uniform(1, 9, (*shape, 4))),
        "attention_pattern": (
            ("seed", "step", "layer", "head", "key"),
            rng.uniform(size=(*shape, 1, 2, 3)),
        ),
    }
    return xr.Dataset(variables, coords)


@pytest.fixture(scope="module")
def pictures() -> xr.Dataset:
    rng = np.random.default_rng(1)
    coords = {"seed": list(_SEEDS), "step": _STEPS[[0, 3, 5]], "frequency": np.arange(1, 6)}
    trained = np.zeros((2, 3, _P, _P))
    trained[:, :, 1, 2] = 1
    return xr.Dataset(
        {
            "answer_surface": (
                ("seed", "step", "token", "token_other"),
                rng.normal(size=(2, 3, _P, _P)),
            ),
            "trained_pairs": (("seed", "step", "token", "token_other"), trained),
            "circle_coordinates": (
                ("seed", "step", "frequency", "token", "direction"),
                rng.normal(size=(2, 3, 5, _P, 2)),
            ),
        },
        coords,
    )


def _pairs(*pairs: tuple[float, float]) -> xr.DataArray:
    return xr.DataArray(
        np.array(pairs), {"seed": list(_SEEDS), "bound": ["lower", "upper"]}, ("seed", "bound")
    )


@pytest.fixture
def dates() -> xr.Dataset:
    """The second seed has not generalised by the last snapshot."""
    return xr.Dataset(
        {
            "memorised": _pairs((1, 5), (5, 20)),
            "circuit_formation_end": _pairs((20, 100), (20, np.inf)),
            "cleanup_end": _pairs((100, 1000), (1000, np.inf)),
            "generalised": _pairs((100, 1000), (1000, np.inf)),
            "verdict": ("seed", ["grokked", "did not grok"]),
        }
    )


def _lines(axes: Axes) -> list[tuple[str, str, np.ndarray]]:
    """The colour, style and values of each curve."""
    lines = [line for line in axes.get_lines() if len(np.asarray(line.get_xdata())) == len(_STEPS)]
    assert all(np.array_equal(np.asarray(line.get_xdata()), _STEPS) for line in lines)
    return [
        (to_hex(line.get_color()).upper(), line.get_linestyle(), np.asarray(line.get_ydata()))
        for line in lines
    ]


@pytest.mark.parametrize(
    ("draw", "shown"),
    [
        (plots.loss_curves, {"train_loss": "train", "test_loss": "test"}),
        (plots.accuracy_curves, {"train_accuracy": "train", "test_accuracy": "test"}),
        (
            plots.progress_curves,
            {"test_loss": "test", "restricted_loss": "restricted", "excluded_loss": "excluded"},
        ),
        (plots.gini_curves, {"gini_embedding": "embedding", "gini_unembedding": "unembedding"}),
    ],
)
def test_a_curve_is_its_variable_in_its_colour_with_a_style_per_seed(
    draw: object, shown: dict[str, str], dataset: xr.Dataset
) -> None:
    axes = draw(dataset)  # pyright: ignore[reportCallIssue]
    expected = [
        (COLOURS[meaning], SEED_STYLES[row], dataset[name].values[row])
        for name, meaning in shown.items()
        for row in range(len(_SEEDS))
    ]
    for (colour, style, values), (expected_colour, expected_style, expected_values) in zip(
        _lines(axes), expected, strict=True
    ):
        assert (colour, style) == (expected_colour, expected_style)
        np.testing.assert_array_equal(values, expected_values)
    legend = axes.get_legend()
    assert legend is not None
    assert len(legend.get_texts()) == len(shown)
    assert axes.get_ylabel()
    assert "step" in axes.get_xlabel()


def test_losses_are_on_log_axes_and_step_zero_has_its_place(dataset: xr.Dataset) -> None:
    axes = plots.loss_curves(dataset)
    assert (axes.get_xscale(), axes.get_yscale()) == ("symlog", "log")
    assert axes.get_xlim() == (0, 1000)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "10", "100", "1,000"]
    assert plots.loss_curves(dataset, scale="linear").get_xscale() == "linear"


def _bars(axes: Axes) -> list[tuple[str, float, float]]:
    """The colour and the two ends of each bar of two points at the height given."""
    return [
        (to_hex(line.get_color()).upper(), *map(float, np.asarray(line.get_xdata())))  # pyright: ignore[reportReturnType]
        for line in axes.get_lines()
        if len(np.asarray(line.get_xdata())) == 2 and line.get_marker() == "|"
    ]


def test_a_date_is_a_bar_between_two_snapshots_and_a_later_one_is_counted(
    dataset: xr.Dataset, dates: xr.Dataset
) -> None:
    axes = plots.loss_curves(dataset, dates=dates)
    blue, orange = COLOURS["train"], COLOURS["test"]
    assert _bars(axes) == [(blue, 1, 5), (blue, 5, 20), (orange, 100, 1000)]
    assert [text.get_text() for text in axes.texts] == ["1 later \N{RIGHTWARDS ARROW}"]
    assert to_hex(axes.texts[0].get_color()).upper() == orange
    begun_late = dates.assign(memorised=_pairs((-np.inf, 1), (-np.inf, 1)))
    notes = [text.get_text() for text in plots.loss_curves(dataset, dates=begun_late).texts]
    assert notes == ["2 by then", "1 later \N{RIGHTWARDS ARROW}"]


def test_phases_are_shaded_between_the_bounds_of_their_median_ends(
    dataset: xr.Dataset, dates: xr.Dataset
) -> None:
    """The seed that has not generalised is part of the medians, of which one is then open above."""
    axes = plots.loss_curves(dataset, dates=dates)
    spans = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches]  # pyright: ignore[reportAttributeAccessIssue]
    # Medians: [3, 12.5], [20, inf), [550, inf): nothing is shaded beyond an open bound.
    assert spans == [(0, 3), (12.5, 20)]
    assert [to_hex(patch.get_facecolor()).upper() for patch in axes.patches] == [
        COLOURS[name] for name in list(PHASES)[:2]
    ]
    grey = [line for line in axes.get_lines() if line.get_color() == COLOURS["date"]]
    ends = [np.asarray(line.get_xdata()).tolist() for line in grey]
    assert ends == [[1, 20], [20, 1000], [100, 1000]]


def test_phases_are_shaded_over_the_seeds_that_have_them(
    dataset: xr.Dataset, dates: xr.Dataset
) -> None:
    """Medians of each end over other seeds could be out of order."""
    absent = _pairs((20, 100), (np.nan, np.nan))
    mixed = dates.assign(
        memorised=_pairs((1, 5), (100, 1000)), circuit_formation_end=absent, cleanup_end=absent
    )
    axes = plots.loss_curves(dataset, dates=mixed)
    spans = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches]  # pyright: ignore[reportAttributeAccessIssue]
    assert spans == [(0, 1), (5, 20)]
    none = dates.assign(circuit_formation_end=_pairs(*[(np.nan, np.nan)] * 2))
    assert not plots.loss_curves(dataset, dates=none).patches
    assert not plots.loss_curves(dataset, dates=dates.drop_vars("cleanup_end")).patches


def test_a_null_is_a_band_over_its_draws(dataset: xr.Dataset) -> None:
    null = xr.Dataset({"gini_embedding": (("draw",), np.array([0.2, 0.1, 0.4]))})
    (band,) = plots.gini_curves(dataset, null=null).collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (0.1, 0.4)


def test_a_null_by_step_is_a_band_that_moves(dataset: xr.Dataset) -> None:
    draws = np.array([[[0.2, 0.3], [0.5, 0.9]], [[0.1, 0.3], [0.6, 0.7]]])  # seed, step, draw
    null = xr.Dataset({"excluded_loss": (("seed", "step", "draw"), draws)}, {"step": [1, 100]})
    (band,) = plots.progress_curves(dataset, null=null).collections
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices}
    assert {(1.0, 0.1), (1.0, 0.3), (100.0, 0.5), (100.0, 0.9)} <= corners


def test_the_frequency_map_is_the_shares_with_keys_and_births_marked(
    dataset: xr.Dataset,
) -> None:
    upper = np.array([np.nan, 20, np.inf, 0, 100])
    lower = np.array([np.nan, 5, 100, -np.inf, 20])
    births = xr.DataArray(
        np.stack([lower, upper], axis=-1)[None],
        {"seed": [8], "frequency": np.arange(1, 6), "bound": ["lower", "upper"]},
        ("seed", "frequency", "bound"),
    )
    axes = plots.frequency_map(dataset, seed=8, births=births)
    mesh = axes.collections[0]
    np.testing.assert_array_equal(
        mesh.get_array(), dataset["fourier_power_unembedding"].sel(seed=8).T.values
    )
    drawn = [(line.get_xdata()[0], line.get_ydata()[0], line.get_marker()) for line in axes.lines]
    assert drawn == [(20, 2, ">"), (0, 4, "<"), (100, 5, ">")]
    assert [text.get_text() for text in axes.texts] == ["2", "5"]
    assert (mesh.norm.vmin, mesh.norm.vmax) == (
        0,
        pytest.approx(float(dataset["fourier_power_unembedding"].sel(seed=8).max())),
    )
    edges = mesh.get_coordinates()[0, :, 0]
    assert np.all(np.diff(edges) > 0)
    assert np.all((edges[:-1] <= _STEPS) & (edges[1:] >= _STEPS))


def test_where_most_frequencies_are_key_none_is_marked(dataset: xr.Dataset) -> None:
    every = dataset.assign(key_frequencies=xr.ones_like(dataset["key_frequencies"]))
    assert len(plots.frequency_map(every, seed=3).texts) == 0


def test_spectra_are_bars_of_the_last_step(dataset: xr.Dataset) -> None:
    axes = plots.spectra(dataset, seed=3)
    heights = [bar.get_height() for bar in axes.patches]  # pyright: ignore[reportAttributeAccessIssue]
    last = dataset.sel(seed=3).isel(step=-1)
    np.testing.assert_array_equal(
        heights,
        [*last["fourier_power_embedding"].values, *last["fourier_power_unembedding"].values],
    )


def test_clusters_are_bars_of_the_last_step_and_the_rest_is_counted(dataset: xr.Dataset) -> None:
    sized = dataset.assign(
        cluster_sizes=dataset["cluster_sizes"].copy(
            data=np.ones(dataset["cluster_sizes"].shape, int)
        )
    )
    axes = plots.neuron_clusters(sized, seed=3)
    assert [bar.get_height() for bar in axes.patches] == [1] * 5  # pyright: ignore[reportAttributeAccessIssue]
    assert axes.get_title(loc="right") == "4 neurons in no cluster"


def test_the_flow_stacks_key_frequencies_and_all_others(dataset: xr.Dataset) -> None:
    axes = plots.neuron_flow(dataset, seed=3)
    sizes = dataset["cluster_sizes"].sel(seed=3).T.values
    tops = [band.get_paths()[0].vertices[:, 1].max() for band in axes.collections]
    layers = np.cumsum([sizes[1], sizes[4], sizes[[0, 2, 3]].sum(axis=0)], axis=0)
    np.testing.assert_allclose(tops, layers.max(axis=1))
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "k = 2",
        "k = 5",
        "other k",
    ]


def test_frequency_lines_colour_the_key_ones(dataset: xr.Dataset) -> None:
    drawn = _lines(
        plots.frequency_lines(dataset, "excluded_loss_by_frequency", "excluded loss", seed=8)
    )
    values = dataset["excluded_loss_by_frequency"].sel(seed=8).T.values
    for (colour, _, line), k in zip(drawn, (1, 3, 4, *_KEYS), strict=True):
        np.testing.assert_array_equal(line, values[k - 1])
        assert (colour == "#BBBBBB") == (k not in _KEYS)


def test_norms_are_a_line_per_array(dataset: xr.Dataset) -> None:
    axes = plots.norm_curves(dataset, seed=3)
    values = dataset["sum_squared_weights_by_parameter"].sel(seed=3).T.values
    np.testing.assert_array_equal([line for _, _, line in _lines(axes)], values)
    assert len({(colour, style) for colour, style, _ in _lines(axes)}) == len(values)
    assert [text.get_text() for text in axes.get_legend().get_texts()][-2:] == [
        "0.attn.W_O",
        "unembed.W_U",
    ]


def test_panels_are_readings_with_their_units_on_the_band_of_their_null(
    dataset: xr.Dataset,
) -> None:
    falling = np.geomspace(1, 1e-6, len(_STEPS))
    wide = dataset["test_loss"].copy(data=np.stack([falling, falling])).assign_attrs(units="nats")
    null = {"gini_embedding": xr.DataArray([0.2, 0.1, 0.4], dims="draw")}
    figure = plots.reading_panels(
        dataset.assign(test_loss=wide), ["gini_embedding", "test_loss"], null=null
    )
    first, second, *rest = figure.axes
    np.testing.assert_array_equal(
        [line for _, _, line in _lines(first)], dataset["gini_embedding"].values
    )
    heights = first.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (0.1, 0.4)
    assert (first.get_title(), second.get_title()) == ("gini_embedding", "test_loss (nats)")
    assert (first.get_yscale(), second.get_yscale(), len(second.collections)) == (
        "linear",
        "log",
        0,
    )
    assert not any(axes.axison for axes in rest)


def test_a_name_too_wide_for_a_panel_is_broken_into_two_lines_of_the_same_size(
    dataset: xr.Dataset,
) -> None:
    name = "subspace_angle_unembedding_previous"
    angle = dataset["test_loss"].assign_attrs(units="radians")
    axes = plots.reading_panels(
        dataset.assign({name: angle}), [name, "gini_embedding"], null={}
    ).axes
    assert [panel.get_title() for panel in axes[:2]] == [
        "subspace_angle_unembedding_\nprevious (radians)",
        "gini_embedding",
    ]
    assert {panel.title.get_fontsize() for panel in axes[:2]} == {7}


def test_the_largest_parts_at_the_end_are_coloured_and_the_band_is_over_all_parts() -> None:
    rng = np.random.default_rng(0)
    bits = xr.DataArray(rng.uniform(size=(1, 3, 2, 6)), dims=("seed", "step", "site", "concept"))
    scores = rng.uniform(size=(1, 3, 2, 2, 1))
    scores[:, :, 1] = np.nan  # no later head
    heads = xr.DataArray(scores, dims=("seed", "step", "head", "head_other", "slot"))
    coords = {
        "seed": [3],
        "step": [0, 10, 100],
        "site": ["stream", "logits"],
        "concept": list("abcdef"),
        "slot": ["key"],
    }
    dataset = xr.Dataset({"probe_mdl": bits, "composition_score": heads}, coords).assign_coords(
        head=[0, 1], head_other=[0, 1]
    )
    null = {
        "probe_mdl": xr.DataArray(
            [[[0.2] * 6, [9.0] * 6], [[0.7] * 6, [9.0] * 6]], dims=("draw", "site", "concept")
        )
    }
    null["probe_mdl"] = null["probe_mdl"].assign_coords(site=["stream", "logits"])
    figure = plots.part_panels(
        dataset, ["probe_mdl", "composition_score"], seed=3, null=null, most=2
    )
    first, second = figure.axes
    values = bits.values[0, :, 0].T
    drawn = {str(line.get_color()): np.asarray(line.get_ydata()) for line in first.lines}
    assert sorted(tuple(np.asarray(line.get_ydata())) for line in first.lines) == sorted(
        map(tuple, values)
    )
    leading = ["abcdef"[i] for i in np.argsort(-values[:, -1])[:2]]
    assert [text.get_text() for text in first.get_legend().get_texts()] == leading
    assert len(drawn) == 3
    assert COLOURS["date"] in drawn
    heights = first.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (0.2, 0.7)
    labels = {text.get_text() for text in second.get_legend().get_texts()}
    assert labels == {"head 0, to head 0, key", "head 0, to head 1, key"}
    assert len(second.lines) == 2
    # Where there is room, no part has the colour that another has in another panel.
    assert not {str(line.get_color()) for line in second.lines} & set(drawn)


def test_singular_values_are_a_line_per_mode(dataset: xr.Dataset) -> None:
    drawn = _lines(plots.singular_value_curves(dataset, seed=3, most=3))
    np.testing.assert_array_equal(
        [line for _, _, line in drawn],
        dataset["singular_values_unembedding"].sel(seed=3).T.values[:3],
    )


def test_attention_is_a_colour_per_head_and_a_style_per_position(dataset: xr.Dataset) -> None:
    drawn = _lines(plots.attention_curves(dataset, seed=3))
    values = dataset["attention_pattern"].sel(seed=3).values[:, 0]
    for (_, style, line), (head, key) in zip(drawn, np.ndindex(2, 3), strict=True):
        np.testing.assert_array_equal(line, values[:, head, key])
        assert style == SEED_STYLES[key]
    assert len({colour for colour, _, _ in drawn}) == 2


def test_without_a_training_split_the_test_curves_stand_alone(dataset: xr.Dataset) -> None:
    fresh = dataset.drop_vars(["train_loss", "train_accuracy"])
    for draw, name in ((plots.loss_curves, "test_loss"), (plots.accuracy_curves, "test_accuracy")):
        drawn = _lines(draw(fresh))
        assert {colour for colour, _, _ in drawn} == {COLOURS["test"]}
        np.testing.assert_array_equal([line for _, _, line in drawn], dataset[name].values)


def test_hidden_progress_is_below_accuracy_and_sparsity_needs_a_training_set(
    dataset: xr.Dataset,
) -> None:
    values = {
        name: dataset["test_loss"] * scale
        for name, scale in (("hidden_progress", 1), ("weight_gap", 2))
    }
    fresh = dataset.drop_vars(["train_accuracy"]).assign(values)
    accuracy, weights = plots.hidden_progress_panels(fresh).axes
    np.testing.assert_array_equal(
        [line for _, _, line in _lines(accuracy)], dataset["test_accuracy"].values
    )
    expected = np.concatenate([values["hidden_progress"].values, values["weight_gap"].values])
    np.testing.assert_array_equal([line for _, _, line in _lines(weights)], expected)
    neurons = plots.hidden_progress_panels(
        fresh.assign(effective_sparsity=dataset["test_loss"])
    ).axes[2]
    assert neurons.get_yscale() == "log"
    np.testing.assert_array_equal(
        [line for _, _, line in _lines(neurons)], dataset["test_loss"].values
    )


def test_label_noise_curves_are_four_accuracies(dataset: xr.Dataset) -> None:
    kinds = ("clean", "memorised", "corrected", "test")
    values = {
        f"{kind}_accuracy": dataset["test_accuracy"] * (1 - 0.2 * i) for i, kind in enumerate(kinds)
    }
    drawn = _lines(plots.label_noise_curves(dataset.assign(values)))
    expected = np.concatenate([values[f"{kind}_accuracy"].values for kind in kinds])
    np.testing.assert_allclose([line for _, _, line in drawn], expected)
    assert len({colour for colour, _, _ in drawn}) == 4


def test_the_label_of_a_loss_axis_has_the_units_of_the_loss(dataset: xr.Dataset) -> None:
    squared = dataset.assign(test_loss=dataset["test_loss"].assign_attrs(units="squared error"))
    assert (
        plots.loss_curves(squared).get_ylabel()
        == plots.progress_curves(squared).get_ylabel()
        == "loss (squared error)"
    )
    assert plots.loss_curves(dataset).get_ylabel() == "loss"


def test_positions_are_a_line_for_each_answer_that_is_read(dataset: xr.Dataset) -> None:
    losses = np.random.default_rng(2).uniform(0.1, 2, (len(_SEEDS), len(_STEPS), 5))
    losses[..., :2] = np.nan
    axes = plots.position_curves(
        dataset.assign(test_loss_by_position=(("seed", "step", "position"), losses)), seed=8
    )
    np.testing.assert_array_equal([line for _, _, line in _lines(axes)], losses[1].T[2:])
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "position 2",
        "position 3",
        "position 4",
    ]


def test_effects_are_a_line_per_seed_with_medians_and_their_intervals() -> None:
    values, dims = np.array([[1.0, 2.0, 9.0], [0.0, np.nan, -1.0]]), ("condition", "seed")
    delay = xr.DataArray(values, dims=dims, attrs={"long_name": "delay", "units": "steps"})
    effects = xr.Dataset(
        {"delay": delay, "kept": (dims, 0.1 * values)}, {"condition": ["key", "control"]}
    )
    axes, other = plots.paired_effects(effects).axes
    zero, *seeds = axes.get_lines()[:4]
    np.testing.assert_array_equal(np.asarray(zero.get_ydata(), float), 0)
    np.testing.assert_array_equal([line.get_ydata() for line in seeds], values.T)
    bars, medians = axes.get_lines()[4::2], axes.get_lines()[5::2]
    np.testing.assert_array_equal([line.get_ydata() for line in bars], [[1, 9], [-1, 0]])
    np.testing.assert_array_equal([line.get_ydata() for line in medians], [[2], [-0.5]])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["key", "control"]
    assert (axes.get_ylabel(), other.get_ylabel()) == ("delay (steps)", "kept")


def test_an_effect_on_a_date_keeps_the_seeds_that_have_not_got_there() -> None:
    shifts = np.array([[[100.0, 200], [300, np.inf], [400, np.inf]], [[-50, 50]] * 3])
    coords = {"condition": ["removed", "kept"], "seed": [0, 1, 2], "bound": ["lower", "upper"]}
    delay = xr.DataArray(shifts, coords, ("condition", "seed", "bound"))
    (axes,) = plots.paired_effects(xr.Dataset({"delay": delay})).axes
    top = axes.get_ylim()[1]
    seeds = [
        tuple(np.asarray(line.get_ydata()))
        for line in axes.get_lines()
        if line.get_linewidth() == 1.6
    ]
    assert sorted(seeds) == sorted([(100, 200), (300, top), (400, top), *[(-50.0, 50.0)] * 3])
    medians = [
        tuple(np.asarray(line.get_ydata()))
        for line in axes.get_lines()
        if line.get_linewidth() == 5.0
    ]
    assert medians == [(300, top), (-50, 50)]
    arrows = [line for line in axes.get_lines() if line.get_marker() == "^"]
    assert all(np.asarray(line.get_ydata()) == top for line in arrows)
    # Two seeds, the median, and its interval.
    assert len(arrows) == 4


def test_shares_stay_linear_and_losses_of_many_decades_do_not() -> None:
    values, dims = np.geomspace(1e-4, 1, 4).reshape(1, 1, 4), ("condition", "seed", "step")
    loss = xr.DataArray(values, dims=dims, attrs={"units": "nats"})
    dataset = xr.Dataset(
        {"test_loss": loss, "test_accuracy": (dims, values)},
        {"condition": ["parent"], "step": [0, 1, 2, 3]},
    )
    assert [axes.get_yscale() for axes in plots.diverging_histories(dataset).axes] == [
        "log",
        "linear",
    ]


def test_aligned_seeds_meet_at_one_and_others_are_grey(
    dataset: xr.Dataset, dates: xr.Dataset
) -> None:
    early = dates.assign(generalised=_pairs((20, 100), (1000, np.inf)))
    axes = plots.aligned_seeds(dataset, early)
    first, second, *_ = axes.get_lines()
    np.testing.assert_allclose(np.asarray(first.get_xdata()), _STEPS / 100)
    np.testing.assert_allclose(np.asarray(second.get_xdata()), _STEPS / 1000)
    assert (to_hex(first.get_color()).upper(), to_hex(second.get_color())) == (
        COLOURS["test"],
        "#999999",
    )
    np.testing.assert_array_equal(second.get_ydata(), dataset["test_accuracy"].sel(seed=8).values)
    (strip,) = axes.patches
    assert strip.get_x() == 0.2  # pyright: ignore[reportAttributeAccessIssue]
    assert axes.get_xlim() == (0.01, 10)


def test_the_answer_surface_is_the_margins_with_trained_pairs_framed(pictures: xr.Dataset) -> None:
    figure = plots.answer_surface(pictures, seed=8)
    for i, axes in enumerate(figure.axes[:3]):
        np.testing.assert_array_equal(
            axes.images[0].get_array(), pictures["answer_surface"].sel(seed=8).values[i]
        )
        (frame,) = (lines for lines in axes.collections if isinstance(lines, LineCollection))
        ends = {frozenset(map(tuple, segment)) for segment in frame.get_segments()}
        corners = [
            (1.5, 0.5),
            (2.5, 0.5),
            (2.5, 1.5),
            (1.5, 1.5),
        ]  # of the cell in row 1, column 2, as (x, y)
        assert ends == {
            frozenset((a, b)) for a, b in zip(corners, corners[1:] + corners[:1], strict=True)
        }
    assert [axes.get_title() for axes in figure.axes[:3]] == ["step 0", "step 20", "step 1,000"]


def test_circles_are_tokens_in_the_planes_of_the_key_frequencies(
    pictures: xr.Dataset, dataset: xr.Dataset
) -> None:
    figure = plots.embedding_circles(pictures, dataset, seed=3)
    places = pictures["circle_coordinates"].sel(seed=3)
    for axes, (k, step) in zip(
        figure.axes, [(k, step) for k in _KEYS for step in places["step"].values], strict=True
    ):
        (points,) = axes.collections
        np.testing.assert_array_equal(
            points.get_offsets(), places.sel(frequency=k, step=step).values
        )
        np.testing.assert_array_equal(points.get_array(), np.arange(_P) * k % _P)


def test_the_film_moves(pictures: xr.Dataset, dataset: xr.Dataset, tmp_path: Path) -> None:
    file = plots.circle_animation(pictures, dataset, tmp_path / "film.gif", seed=3)
    assert file is not None
    with Image.open(file) as film:
        frames = [np.asarray(frame.convert("L")) for frame in ImageSequence.Iterator(film)]
    assert len(frames) == pictures.sizes["step"]
    assert all((frame != frames[0]).mean() > 0.001 for frame in frames[1:])


def test_without_key_frequencies_there_is_no_film(
    pictures: xr.Dataset, dataset: xr.Dataset, tmp_path: Path
) -> None:
    none = dataset.assign(key_frequencies=xr.zeros_like(dataset["key_frequencies"]))
    assert plots.circle_animation(pictures, none, tmp_path / "film.gif", seed=3) is None
    assert list(tmp_path.iterdir()) == []


# --- For all of them


def test_given_axes_are_drawn_on(dataset: xr.Dataset) -> None:
    axes = plots.new_axes()
    assert plots.loss_curves(dataset, ax=axes) is axes
    assert axes.figure.get_figwidth() == COLUMN  # pyright: ignore[reportAttributeAccessIssue]


def test_drawing_leaves_global_settings_and_pyplot_alone(
    dataset: xr.Dataset, tmp_path: Path
) -> None:
    before = dict(mpl.rcParams)
    plots.save(plots.loss_curves(dataset).figure, tmp_path, "loss")  # pyright: ignore[reportArgumentType]
    assert dict(mpl.rcParams) == before
    assert {file.name for file in tmp_path.iterdir()} == {"loss.png", "loss.svg"}


def test_the_same_figure_is_the_same_file(dataset: xr.Dataset, tmp_path: Path) -> None:
    for name in ("one", "two"):
        plots.save(plots.spectra(dataset, seed=3).figure, tmp_path / name, "spectra")  # pyright: ignore[reportArgumentType]
    for file in ("spectra.png", "spectra.svg"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_colours_are_from_a_palette_for_colour_blind_readers() -> None:
    assert {colour for value in COLOURS.values() for colour in value.split()} <= _OKABE_ITO


# --- Probes


@pytest.fixture
def probed() -> xr.Dataset:
    """Two seeds, three steps, the sites embed, stream, logits, the concepts a and b."""
    dims, rng = ("seed", "step", "site", "concept"), np.random.default_rng(0)
    names = ("probe_accuracy", "probe_accuracy_control", "probe_effect")
    variables = {name: (dims, rng.uniform(size=(2, 3, 3, 2))) for name in names}
    variables["probe_effect_null"] = (
        (*dims, "draw"),
        rng.uniform(size=(2, 3, 3, 2, 5)),
    )  # pyright: ignore[reportArgumentType]
    sites = ["blocks.0.embed", "blocks.0.stream", "logits"]
    return xr.Dataset(
        variables, {"seed": [3, 8], "step": [0, 10, 1000], "site": sites, "concept": ["a", "b"]}
    )


def test_decodable_and_used_has_a_panel_per_concept_at_the_last_site_before_the_outputs(
    probed: xr.Dataset,
) -> None:
    figure = plots.decodable_and_used(probed, columns=3)
    panels = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title() for axes in panels] == ["a", "b"]
    for axes, concept in zip(panels, "ab", strict=True):
        at = probed.sel(site="blocks.0.stream", concept=concept)
        drawn = [line.get_ydata() for line in axes.lines]
        for row in range(2):
            for name, line in zip(
                ("probe_accuracy", "probe_accuracy_control", "probe_effect"),
                drawn[3 * row :],
                strict=False,
            ):
                np.testing.assert_array_equal(line, at[name][row])
        (band,) = axes.collections
        ys = band.get_paths()[0].vertices[:, 1]  # pyright: ignore
        assert (ys.min(), ys.max()) == (
            float(at["probe_effect_null"].min()),
            float(at["probe_effect_null"].max()),
        )


def test_the_probe_map_is_accuracy_and_effect_beyond_their_controls(
    probed: xr.Dataset,
) -> None:
    decodable, selective, used, *_ = plots.probe_map(probed).axes
    last = probed.isel(step=-1).mean("seed")
    np.testing.assert_allclose(decodable.images[0].get_array(), last["probe_accuracy"])
    np.testing.assert_allclose(
        selective.images[0].get_array(),
        (last["probe_accuracy"] - last["probe_accuracy_control"]).clip(0),
    )
    beyond = (last["probe_effect"] - last["probe_effect_null"].max("draw")).clip(0)
    np.testing.assert_allclose(used.images[0].get_array(), beyond)
    assert [label.get_text() for label in decodable.get_yticklabels()] == [
        "0.embed",
        "0.stream",
        "logits",
    ]


def test_probe_figures_find_readings_whose_names_have_suffixes(
    probed: xr.Dataset,
) -> None:
    other = probed.rename(
        probe_accuracy="probe_accuracy_a+b",
        probe_accuracy_control="probe_accuracy_a+b_control",
        probe_effect="probe_effect_draws_5_a+b",
        probe_effect_null="probe_effect_draws_5_a+b_null",
    )
    for draw in (plots.probe_map, plots.decodable_and_used):
        suffixed, plain = draw(other), draw(probed)
        for first, second in zip(suffixed.axes, plain.axes, strict=True):
            for line, same in zip(first.lines, second.lines, strict=True):
                np.testing.assert_array_equal(line.get_ydata(), same.get_ydata())
            for image, same in zip(first.images, second.images, strict=True):
                np.testing.assert_array_equal(image.get_array(), same.get_array())
    # Names without a suffix are preferred.
    both = xr.merge([probed, 0 * other])
    np.testing.assert_array_equal(probe_readings(both)["probe_effect"], probed["probe_effect"])
    logistic = other.rename(
        {
            "probe_accuracy_a+b": "probe_accuracy_c",
            "probe_accuracy_a+b_control": "probe_accuracy_c_control",
        }
    )
    with pytest.raises(
        ValueError,
        match=r"several of probe_accuracy.*probe_accuracy_a\+b.*probe_accuracy_c.*select one",
    ):
        probe_readings(xr.merge([other, logistic]))
    with pytest.raises(ValueError, match="has no probe_effect beside probe_effect_null"):
        probe_readings(probed.drop_vars("probe_effect_null"))


def test_a_figure_on_the_users_axes_leaves_the_users_style_sheet_alone(
    dataset: xr.Dataset,
) -> None:
    with sheets.context("dark_background"):
        figure = mpl.figure.Figure()
        own, other = figure.subplots(1, 2)
        before, face = dict(mpl.rcParams), own.get_facecolor()
        assert plots.loss_curves(dataset, ax=own) is own
        assert plots.gini_curves(dataset, ax=other) is other
        plots.loss_curves(dataset)
        assert dict(mpl.rcParams) == before
        assert own.get_facecolor() == face
