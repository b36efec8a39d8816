"""Readings of several checkpoints at once, of a small run: against what its parameters and outputs
say one by one.
"""

import jax
import numpy as np
import pytest
import xarray as xr

from mi_jax.basics.errors import ConfigError, RunError
from mi_jax.basics.pytrees import dotted
from mi_jax.dynamics import principal_path, walk_path
from mi_jax.plots import irrep_curves, mode_curves, path_panels
from mi_jax.runs.across import function_path, likeness_matrix, mode_lines, weight_path
from mi_jax.runs.run import Run


@pytest.mark.slow
def test_lines_are_the_modes_of_the_table(tiny_run: Run) -> None:
    lines = mode_lines(tiny_run, most=6)
    assert lines["mode_value"].dims == ("seed", "step", "mode")
    assert lines["seed"].values.tolist() == [0, 1, 2]
    for seed in (0, 2):
        for step in tiny_run.steps[[0, -1]]:
            params = tiny_run.params(int(step), seed)
            table = params["blocks"]["0"]["mlp"]["W_out"] @ params["unembed"]["W_U"][:, :11]
            expected = np.linalg.svd(table, compute_uv=False)[:6]
            np.testing.assert_allclose(
                np.sort(lines["mode_value"].sel(seed=seed, step=step))[::-1], expected, rtol=1e-4
            )
    assert ((lines["mode_frequency"] >= 1) & (lines["mode_frequency"] <= 5)).all()
    assert ((lines["mode_frequency_share"] > 0.2 - 1e-6) | ~lines["mode_found"]).all()
    assert (mode_lines(tiny_run, "embedding", most=2)["mode_value"] > 0).all()
    with pytest.raises(ConfigError, match="unembedding"):
        mode_lines(tiny_run, "unembeding")


def test_the_paths_are_those_of_the_flattened_rows(tiny_run: Run) -> None:
    params = [
        [tiny_run.params(int(step), seed) for step in tiny_run.steps] for seed in tiny_run.seeds
    ]
    flat = [
        [np.concatenate([leaf.ravel() for leaf in dotted(one).values()]) for one in history]
        for history in params
    ]
    rows = np.array(flat, np.float64)
    path, expected = weight_path(tiny_run, modes=3), principal_path(rows, modes=3)
    np.testing.assert_allclose(path["share"], expected.shares, rtol=1e-6)
    np.testing.assert_allclose(
        path["score"], expected.scores, atol=1e-5 * np.abs(expected.scores).max()
    )
    lengths = np.linalg.norm(np.diff(rows, axis=1), axis=2)
    apart = np.linalg.norm(rows[:, None, 0] - rows[None, :, 0], axis=2)
    np.testing.assert_allclose(path["walk_share"], walk_path(lengths, apart, 3).shares, rtol=1e-5)
    inputs = np.concatenate(
        [batch.inputs[:20] for _, batch in sorted(tiny_run.evaluation().batches.items())]
    )
    apply = jax.jit(lambda one: tiny_run.apply(one, inputs, positions=[2]))
    outputs = np.array(
        [[np.asarray(apply(one)) for one in history] for history in params], np.float64
    )
    outputs -= outputs.mean(axis=-1, keepdims=True)
    drawn = principal_path(outputs.reshape(3, len(tiny_run.steps), -1), modes=3)
    path = function_path(tiny_run, modes=3, examples=40)
    np.testing.assert_allclose(path["share"], drawn.shares, rtol=1e-4)
    np.testing.assert_allclose(path["score"], drawn.scores, atol=1e-4 * np.abs(drawn.scores).max())


@pytest.mark.slow
def test_checkpoints_and_seeds_are_compared(tiny_run: Run) -> None:
    steps = [int(step) for step in tiny_run.steps[[0, 5, -1]]]
    for kind, same in (("cka", 1.0), ("procrustes", 0.0), ("barrier", 0.0)):
        alike = likeness_matrix(tiny_run, kind, steps=steps)
        assert alike.dims == ("step", "step_other")
        np.testing.assert_allclose(np.diag(alike), same, atol=2e-3)
        np.testing.assert_allclose(alike, alike.values.T, atol=1e-4)
        across = likeness_matrix(tiny_run, kind, seed=0, other_seed=1, steps=steps)
        assert abs(across.values[2, 2] - same) > 1e-3
    with pytest.raises(ConfigError, match="cka"):
        likeness_matrix(tiny_run, "ckaa")


def test_a_likeness_matrix_records_its_seeds(tiny_run: Run) -> None:
    found = likeness_matrix(tiny_run, "cka", seed=1, other_seed=2, steps=[int(tiny_run.steps[0])])
    assert found.attrs == {"seed": 1, "other_seed": 2}


def test_unknown_seeds_no_steps_and_counts_of_zero_are_refused(tiny_run: Run) -> None:
    with pytest.raises(ConfigError, match="The run has no seed 9; its seeds are"):
        likeness_matrix(tiny_run, "cka", other_seed=9)
    with pytest.raises(ConfigError, match="steps is empty"):
        likeness_matrix(tiny_run, "cka", steps=[])
    with pytest.raises(ConfigError, match="most=0"):
        mode_lines(tiny_run, most=0)
    with pytest.raises(ConfigError, match="modes=0"):
        weight_path(tiny_run, modes=0)
    with pytest.raises(ConfigError, match="examples=0"):
        function_path(tiny_run, examples=0)


def test_figures_show_lines_and_paths(tiny_run: Run) -> None:
    lines = mode_lines(tiny_run, most=6)
    axes = mode_curves(lines, seed=1)
    drawn = [np.asarray(line.get_ydata()) for line in axes.lines]
    assert any(np.array_equal(one, lines["mode_noise"].sel(seed=1)) for one in drawn)
    assert all(
        any(np.array_equal(one, lines["mode_value"].sel(seed=1, mode=m)) for one in drawn)
        for m in range(6)
    )
    waves = {"frequency": [5, 2, 5, 3, 1, 4], "frequency_share": 1.0, "found": True}
    changed = {
        f"mode_{name}": lines[f"mode_{name}"].copy(data=np.broadcast_to(value, (3, 6)))
        for name, value in waves.items()
    }
    step = float(lines["step"].values[1])
    births = np.array([[-np.inf, 0]] + [[0, step]] * 5)
    changed["mode_birth"] = lines["mode_birth"].copy(data=np.broadcast_to(births, (3, 6, 2)))
    axes = mode_curves(lines.assign(changed), seed=1)
    marks = {
        (line.get_marker(), line.get_xdata()[0])
        for line in axes.lines
        if len(line.get_xdata()) == 1
    }
    assert marks == {("<", 0), ("^", step)}
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        *(f"k = {k}" for k in range(1, 6)),
        "untrained",
    ]
    path: xr.Dataset = weight_path(tiny_run, modes=3)
    panels = path_panels(path).axes
    np.testing.assert_array_equal(panels[1].lines[2].get_xdata(), path["walk_score"][2, :, 0])
    np.testing.assert_array_equal(panels[2].lines[0].get_ydata(), path["share"])


def test_irreps_that_rise_have_colours_and_the_null_a_band() -> None:
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 0.04, (2, 5, 3))
    values[:, :, 1] = np.linspace(0, 0.9, 5)
    coords = {"seed": [0, 1], "step": [0, 1, 10, 100, 1000], "irrep": ["4", "3+1", "2+2"]}
    dataset = xr.Dataset({"logit_similarity": (("seed", "step", "irrep"), values)}, coords)
    null = xr.DataArray(rng.uniform(-0.1, 0.1, (20, 3)), dims=("draw", "irrep"))
    axes = irrep_curves(dataset, null=null)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "3+1",
        "untrained",
    ]  # pyright: ignore[reportOptionalMemberAccess]
    (band,) = axes.patches
    assert band.get_extents().height > 0
    risen = [line for line in axes.lines if np.max(line.get_ydata()) > 0.5]
    assert [line.get_linestyle() for line in risen] == ["-", "--"]


def test_the_loss_of_a_split_is_the_trained_loss(tiny_run: Run) -> None:
    loss, examples = tiny_run.split_loss()
    for seed in (0, 2):
        step = int(tiny_run.steps[-2])
        expected = float(tiny_run.losses.sel(seed=seed, step=step))
        assert float(loss(tiny_run.params(step, seed), examples)) == pytest.approx(
            expected, rel=1e-5
        )
    assert len(examples.inputs) == tiny_run.experiment.task.trained  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ConfigError, match=r"no split 'tset'.*test"):
        tiny_run.split_loss("tset")
    with pytest.raises(RunError, match="no seed 9"):
        tiny_run.split_loss("test", seed=9)
