"""How a network on signs finds a parity: hidden progress and gaps (arXiv 2207.08799), sparsity,
sensitivity (2303.11873).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mi_jax.basics.dims import Params, Scalar
from mi_jax.contracts import Context, Measure, batch_loss
from mi_jax.measures.behaviour import class_outputs
from mi_jax.measures.evaluation import batch, split_neurons

_BARAK = "arXiv 2207.08799"
_MERRILL = "arXiv 2303.11873"


def _input_map(params: Params, context: Context) -> Float[Array, "feature neuron"]:
    read = context.model.roles.input_map
    assert read is not None
    return jnp.asarray(read(params))


def hidden_progress() -> Measure:
    """rho = max_{i, n} |W_t[i, n] - W_0[i, n]|: how far the first layer has moved from its initial
    values; and by neuron.
    """

    def function(params: Params, context: Context) -> dict[str, Array]:
        assert context.reference.initial is not None
        moved = jnp.abs(
            _input_map(params, context) - _input_map(context.reference.initial, context)
        ).max(axis=0)
        return {"hidden_progress": moved.max(), "hidden_progress_by_neuron": moved}

    dims = {"hidden_progress": (), "hidden_progress_by_neuron": ("neuron",)}
    return Measure(
        "hidden_progress",
        function,
        dims,
        roles=("input_map",),
        uses=frozenset({"initial"}),
        source=_BARAK,
    )


def weight_gap() -> Measure:
    """min_{i in S} |w_i| - max_{j not in S} |w_j| of a neuron's input weights: of the neuron where
    it is largest; and by neuron.

    Positive where a neuron sees every coordinate that matters more than any that doesn't. Where all
    matter, nothing is taken off.
    """

    def function(params: Params, context: Context) -> dict[str, Array]:
        size, inside = jnp.abs(_input_map(params, context)), context.ground_truth["subset"][:, None]
        outside = jnp.where(inside, 0.0, size).max(axis=0)
        gap = jnp.where(inside, size, jnp.inf).min(axis=0) - outside
        return {"weight_gap": gap.max(), "weight_gap_by_neuron": gap}

    dims = {"weight_gap": (), "weight_gap_by_neuron": ("neuron",)}
    return Measure(
        "weight_gap", function, dims, roles=("input_map",), ground_truth=("subset",), source=_BARAK
    )


def gradient_gap(split: str = "test") -> Measure:
    """The Fourier gap as training sees it: min_{i in S} g_i - max_{j not in S} g_j, g_i = mean over
    neurons of |dL/dW_in|_i.

    L is the run's loss on a split: with few examples an estimate of the population's. Of a network
    of signs the exact gap is ``tasks.fourier_gap.majority_gap``. Needs an ``input_map`` that is
    linear in the parameters: it reads their gradient.
    """

    def function(params: Params, context: Context) -> Scalar:
        examples, apply = batch(context, split), context.model.apply

        def loss(moved: Params) -> Scalar:
            out = apply(moved, examples.inputs, positions=context.read)
            return batch_loss(context.loss, out, examples)

        value, gradients = jax.value_and_grad(loss)(params)
        size, inside = (
            jnp.abs(_input_map(gradients, context)).mean(axis=1),
            context.ground_truth["subset"],
        )
        gap = jnp.where(inside, size, jnp.inf).min() - jnp.where(inside, 0.0, size).max()
        return jnp.where(jnp.isfinite(value), gap, jnp.nan)

    return Measure(
        "gradient_gap",
        function,
        roles=("input_map",),
        ground_truth=("subset",),
        splits=(split,),
        options={"split": split},
        source=_BARAK,
    )


def effective_sparsity(split: str = "train") -> Measure:
    """How many neurons it takes: the smallest k >= 1 whose k neurons of largest input norm are
    right as often as all of them.

    Neurons are ranked by the Euclidean norm of their input weights; the others' activations are set
    to 0. Every k is tried, and the number of right answers must be the very same. NaN where an
    output is not finite.

    Args:
        split: whose accuracy must be the same; the training set, as published.
    """
    name = "effective_sparsity" if split == "train" else f"effective_sparsity_{split}"

    def function(params: Params, context: Context) -> Scalar:
        examples, neurons = batch(context, split), split_neurons(params, context, split)[:, 0]
        read, site = context.model.roles.output_map, context.model.roles.neurons
        assert read is not None
        assert site is not None
        silent = context.model.apply(
            params, examples.inputs, taps={site: jnp.zeros_like}, positions=context.read
        )
        order = jnp.argsort(-jnp.linalg.norm(_input_map(params, context), axis=0))
        added = neurons[:, order, None] * jnp.asarray(read(params))[order][None]
        # Added up from none on: where all neurons so far are silent, nothing but the bias may tell
        # the answer.
        alone = class_outputs(silent[:, :, : context.inputs.classes] + jnp.cumsum(added, axis=1))
        right: Int[Array, " neuron"] = (alone.argmax(axis=-1) == examples.targets).sum(axis=0)
        fewest = 1 + (right == right[-1]).argmax()
        return jnp.where(jnp.isfinite(alone).all(), fewest.astype(jnp.float32), jnp.nan)

    return Measure(
        name,
        function,
        roles=("input_map", "output_map", "neurons", "linear_readout"),
        splits=(split,),
        options={"split": split},
        units="neurons",
        source=_MERRILL,
    )


def sensitivity(split: str = "test") -> Measure:
    """The mean over a split of how many of the n single sign flips change the answer: k for a
    parity of k, whatever n is.
    """

    def function(params: Params, context: Context) -> Scalar:
        x = jnp.asarray(batch(context, split).inputs)

        def answers(x: Float[Array, "batch position feature"]) -> Float[Array, "batch position"]:
            out = class_outputs(context.model.apply(params, x, positions=context.read))
            return jnp.where(
                jnp.isfinite(out).all(axis=-1), out.argmax(axis=-1).astype(jnp.float32), jnp.nan
            )

        unflipped = answers(x)

        def changed(i: Int[Array, ""]) -> Scalar:
            other = answers(x.at[:, :, i].multiply(-1.0))
            return (jnp.abs(other - unflipped) > 0).mean() + 0 * (other + unflipped).mean()

        return jax.lax.map(changed, jnp.arange(x.shape[-1])).sum()

    return Measure(
        "sensitivity",
        function,
        ground_truth=("subset",),
        splits=(split,),
        options={"split": split},
        source=_MERRILL,
    )
