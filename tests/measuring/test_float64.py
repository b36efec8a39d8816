"""All measures in float64: the types that they trace to, and a run that is read in float64."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tiny_mlp_experiment

from mi_jax.basics.precision import cast, computing_in
from mi_jax.contracts import Architecture, Measure, Reference, Shared, Subject, Task
from mi_jax.measuring.choosing import choose
from mi_jax.measuring.program import make_context
from mi_jax.measuring.registry import EXPENSIVE, READINGS
from mi_jax.models import MLP, Transformer
from mi_jax.runs.across import mode_lines, weight_path
from mi_jax.runs.run import Run
from mi_jax.runs.train import train
from mi_jax.tasks import GroupComposition, ModularArithmetic
from mi_jax.training import every
from mi_jax.training.losses import CrossEntropy

_RESIDUES = ModularArithmetic(p=7, fraction=0.6)
_LAYERS = Transformer(layers=2, d_model=8, heads=2, d_mlp=8)
_GROUP = GroupComposition(group="S3", fraction=0.6)


def _taken(task: Task, model: Architecture, among: Any) -> tuple[Subject, list[Measure]]:
    subject = Subject(model.build(task.inputs), task, CrossEntropy(), precision="float64")
    return subject, choose(None, subject, among=among)[0]


@pytest.mark.parametrize(
    ("task", "model", "among", "least"),
    [
        pytest.param(
            _RESIDUES,
            _LAYERS,
            EXPENSIVE,
            35,
            id="probes, spectra, circuits, landscape",
            marks=pytest.mark.slow,
        ),
        pytest.param(_GROUP, MLP(width=8), READINGS, 25, id="groups"),
    ],
)
def test_every_reading_of_a_float64_network_traces_to_float64(
    task: Task, model: Architecture, among: Any, least: int
) -> None:
    """Nothing is compiled: tracing already refuses a carry of another precision."""
    subject, measures = _taken(task, model, among)
    assert len(measures) >= least
    drawn = subject.model.init(jax.random.key(0))
    with computing_in("float64"):
        params = cast(drawn, "float64")
        context = make_context(subject, 0, Reference(params, params, params), measures)
        for measure in measures:
            seen = dataclasses.replace(context, shared=Shared())
            read = jax.eval_shape(lambda p, c, m=measure: m.read(p, c), params, seen)
            numbers = {
                name: value.dtype
                for name, value in read.items()
                if jnp.issubdtype(value.dtype, jnp.floating)
            }
            assert set(numbers.values()) <= {jnp.dtype("float64")}, (measure.name, numbers)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    model = Transformer(d_model=8, heads=2, d_mlp=8)
    experiment = tiny_mlp_experiment(
        task=_RESIDUES, model=model, steps=4, schedule=every(1), seeds=(0,), precision="float64"
    )
    return train(experiment, tmp_path_factory.mktemp("runs") / "wide")


def test_a_float64_run_is_read_to_float64s_accuracy(run: Run) -> None:
    read = run.measure(
        ["stable_rank", "learning_coefficient(burn_in=1, draws=8, chains=2, name='coefficient')"]
    )
    assert {
        str(read[name].dtype) for name in ("stable_rank", "coefficient", "coefficient_loss_trace")
    } == {"float64"}
    W = np.asarray(run.params(4, seed=0)["unembed"]["W_U"])
    rank = np.square(W).sum() / np.linalg.norm(W, 2) ** 2
    assert float(
        read["stable_rank"].sel(parameter="unembed.W_U").isel(step=-1, seed=0)
    ) == pytest.approx(rank, rel=1e-13)
    # The first draw is the loss before any step.
    baseline, trace = read["coefficient_baseline_loss"], read["coefficient_loss_trace"]
    np.testing.assert_allclose(trace.sel(draw=-1).isel(chain=0), baseline, rtol=1e-13)
    assert json.loads(read["coefficient"].attrs["provenance"])["options"]["draws"] == 8
    assert not jax.config.jax_enable_x64


def test_results_across_checkpoints_of_a_float64_run_work(run: Run) -> None:
    lines, path = mode_lines(run), weight_path(run)
    assert np.isfinite(lines["mode_value"].isel(step=-1)).any()
    assert float(path["share"].sum()) == pytest.approx(1, abs=1e-6)
