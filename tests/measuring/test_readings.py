"""Every default measure of one small network: invariance to the order of heads and neurons, and
weights that are not finite.
"""

from typing import Any

import jax
import numpy as np
import pytest

from mi_jax.basics.pytrees import stacked
from mi_jax.contracts import Reference, Subject
from mi_jax.measuring.choosing import choose
from mi_jax.measuring.program import Reader, make_context
from mi_jax.models import Transformer
from mi_jax.tasks import ModularArithmetic
from mi_jax.training.losses import CrossEntropy

_HEADS, _NEURONS = np.array([2, 0, 3, 1]), np.random.default_rng(0).permutation(16)
_TASK = ModularArithmetic(p=13, fraction=0.4, label_noise=0.3)
_MODEL = Transformer(d_model=16, heads=4, d_mlp=16).build(_TASK.inputs)
_MEASURES = choose(None, Subject(_MODEL, _TASK, CrossEntropy()))[0]
_VARIABLES = {
    variable: dims for measure in _MEASURES for variable, dims in measure.variables.items()
}
_PLAIN, _PERMUTED, _NAN = range(3)


def _permuted(params: Any) -> Any:
    """The same network with its heads and neurons in another order."""
    block = params["blocks"]["0"]
    mlp = {
        "W_in": block["mlp"]["W_in"][:, _NEURONS],
        "b_in": block["mlp"]["b_in"][_NEURONS],
        "W_out": block["mlp"]["W_out"][_NEURONS],
        "b_out": block["mlp"]["b_out"],
    }
    return {
        **params,
        "blocks": {
            "0": {"attn": {name: x[_HEADS] for name, x in block["attn"].items()}, "mlp": mlp}
        },
    }


@pytest.fixture(scope="module")
def readings() -> dict[str, np.ndarray]:
    """All readings [snapshot ...] of a network, the same network permuted, and NaN weights."""
    # Large weights keep readings away from the level of chance, where the rounding of another order
    # would show.
    params = jax.tree.map(lambda x: 2 * np.asarray(x) + 0.1, _MODEL.init(jax.random.key(3)))
    snapshots = [params, _permuted(params), jax.tree.map(lambda x: np.full_like(x, np.nan), params)]
    reference = Reference(final=jax.tree.map(jax.numpy.asarray, params))
    context = make_context(Subject(_MODEL, _TASK, CrossEntropy()), 0, reference, _MEASURES)
    return Reader(_MEASURES).read(stacked(snapshots), None, context)


@pytest.mark.slow
@pytest.mark.parametrize("variable", _VARIABLES)
def test_the_order_of_heads_and_neurons_changes_no_reading_but_its_own_order(
    readings: dict[str, np.ndarray], variable: str
) -> None:
    plain, dims = readings[variable][_PLAIN], _VARIABLES[variable]
    for dim, order in (("head", _HEADS), ("neuron", _NEURONS)):
        plain = np.take(plain, order, axis=dims.index(dim)) if dim in dims else plain
    np.testing.assert_allclose(readings[variable][_PERMUTED], plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variable", _VARIABLES)
def test_no_reading_of_nan_weights_is_a_number(
    readings: dict[str, np.ndarray], variable: str
) -> None:
    """Numbers are NaN, masks and counts are empty. Readings of the final model are unchanged."""
    values = readings[variable][_NAN]
    if variable == "key_frequencies_final":
        np.testing.assert_array_equal(values, readings[variable][_PLAIN])
    elif np.issubdtype(values.dtype, np.floating):
        assert np.isnan(values).all()
    else:
        assert not values.any()


def test_every_reading_of_the_network_is_informative(readings: dict[str, np.ndarray]) -> None:
    """Otherwise the other tests would prove nothing."""
    silent = [
        name
        for name, values in readings.items()
        if not np.isfinite(values[_PLAIN]).any() or not values[_PLAIN].any()
    ]
    assert set(silent) <= {
        "softmax_collapse",
        "exact_loss_collapse",
        "cluster_sizes",
        "key_frequencies_neurons",
    }
