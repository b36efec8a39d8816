"""How a network on signs learns a parity: hidden progress and gaps (arXiv 2207.08799), sparsity and
sensitivity (arXiv 2303.11873).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mi_jax.basics.dims import Params, Scalar
from mi_jax.contracts import Context, Measure, batch_loss, option_suffix
from mi_jax.measures.behaviour import class_outputs
from mi_jax.measures.evaluation import batch, split_neurons

_BARAK = "arXiv 2207.08799"
_MERRILL = "arXiv 2303.11873"


def _input_map(params: Params, context: Context) -> Float[Array, "feature neuron"]:
    read = context.model.roles.input_map
    assert read is not None
    return jnp.asarray(read(params))


def _gap(size: Float[Array, "feature *rest"], inside: Bool[Array, "feature *one"]) -> Array:
    """Smallest size inside the subset minus the largest outside it (0 if nothing is outside)."""
    outside = jnp.where(inside, 0.0, size).max(axis=0)
    return jnp.where(inside, size, jnp.inf).min(axis=0) - outside


def hidden_progress() -> Measure:
    """Largest movement of the first layer from its initial values.

    rho = max_{i, n} |W_t[i, n] - W_0[i, n]| over the features i and neurons n, and the same by
    neuron. It grows while the loss is still at chance, which shows that training makes progress
    before the loss does (arXiv 2207.08799).

    Returns:
        A Measure with the scalar ``hidden_progress`` and ``hidden_progress_by_neuron`` of dims
        (neuron), in the units of the weights. It needs the initial parameters and the role
        ``input_map``.
    """

    def _hidden_progress(params: Params, context: Context) -> dict[str, Array]:
        assert context.reference.initial is not None
        moved = jnp.abs(
            _input_map(params, context) - _input_map(context.reference.initial, context)
        ).max(axis=0)
        return {"hidden_progress": moved.max(), "hidden_progress_by_neuron": moved}

    return Measure(
        "hidden_progress",
        _hidden_progress,
        {"hidden_progress": (), "hidden_progress_by_neuron": ("neuron",)},
        roles=("input_map",),
        uses=frozenset({"initial"}),
        source=_BARAK,
    )


def weight_gap() -> Measure:
    """Gap between a neuron's input weights inside and outside the parity's subset S.

    min_{i in S} |w_i| - max_{j not in S} |w_j|, by neuron, and the largest gap of all neurons. If
    all features are in S, nothing is subtracted. Positive where the neuron weighs every relevant
    feature more than any irrelevant one (arXiv 2207.08799).

    Returns:
        A Measure with the scalar ``weight_gap`` and ``weight_gap_by_neuron`` of dims (neuron), in
        the units of the weights. It needs the role ``input_map`` and a parity task.
    """

    def _weight_gap(params: Params, context: Context) -> dict[str, Array]:
        inside = context.ground_truth["subset"][:, None]
        gap = _gap(jnp.abs(_input_map(params, context)), inside)
        return {"weight_gap": gap.max(), "weight_gap_by_neuron": gap}

    return Measure(
        "weight_gap",
        _weight_gap,
        {"weight_gap": (), "weight_gap_by_neuron": ("neuron",)},
        roles=("input_map",),
        ground_truth=("subset",),
        source=_BARAK,
    )


def gradient_gap(split: str = "test") -> Measure:
    """Fourier gap as training sees it: the gap of the gradient inside and outside the subset S.

    min_{i in S} g_i - max_{j not in S} g_j, g_i the mean over neurons of |dL / dW_in|_i, L the
    run's loss on a split. With few examples it estimates the gap of the population. For a network
    of signs ``tasks.fourier_gap.majority_gap`` gives the exact gap. Positive where the next step
    raises every relevant feature more than any irrelevant one (arXiv 2207.08799).

    Args:
        split: name of a split of the task, over whose examples the loss is taken.

    Returns:
        A Measure with the scalar ``gradient_gap``, in units of loss per weight; NaN if the loss
        is not finite. It needs a parity task and a role ``input_map`` that is linear in the
        parameters, because it is applied to their gradient.
    """

    def _gradient_gap(params: Params, context: Context) -> Scalar:
        examples, apply = batch(context, split), context.model.apply

        def loss(moved: Params) -> Scalar:
            out = apply(moved, examples.inputs, positions=context.read)
            return batch_loss(context.loss, out, examples)

        value, gradients = jax.value_and_grad(loss)(params)
        size = jnp.abs(_input_map(gradients, context)).mean(axis=1)
        gap = _gap(size, context.ground_truth["subset"])
        return jnp.where(jnp.isfinite(value), gap, jnp.nan)

    return Measure(
        "gradient_gap",
        _gradient_gap,
        roles=("input_map",),
        ground_truth=("subset",),
        splits=(split,),
        options={"split": split},
        source=_BARAK,
    )


def effective_sparsity(split: str = "train") -> Measure:
    """Smallest number of neurons that give as many right answers as all of them.

    Neurons are ranked by the Euclidean norm of their input weights. The result is the smallest
    k >= 1 for which the first k neurons alone, with the activations of the others set to 0, give
    exactly as many right answers as all neurons do. A low value means that a sparse subnetwork
    computes the answer (arXiv 2303.11873).

    Args:
        split: name of a split of the task, whose right answers are counted; "train" as published.

    Returns:
        A Measure with the scalar ``effective_sparsity`` (``effective_sparsity_{split}`` for another
        split), in neurons; NaN if an output is not finite. It needs the role ``input_map`` and a
        linear readout of the neurons.
    """

    def _effective_sparsity(params: Params, context: Context) -> Scalar:
        examples, neurons = batch(context, split), split_neurons(params, context, split)[:, 0]
        read, site = context.model.roles.output_map, context.model.roles.neurons
        assert read is not None
        assert site is not None
        silent = context.model.apply(
            params, examples.inputs, taps={site: jnp.zeros_like}, positions=context.read
        )
        order = jnp.argsort(-jnp.linalg.norm(_input_map(params, context), axis=0))
        added = neurons[:, order, None] * jnp.asarray(read(params))[order][None]
        # The sum starts from the silent network: while all neurons so far are silent, only the bias
        # may decide the answer, and no rounding error of a difference.
        alone = class_outputs(silent[:, :, : context.inputs.classes] + jnp.cumsum(added, axis=1))
        right: Int[Array, " neuron"] = (alone.argmax(axis=-1) == examples.targets).sum(axis=0)
        fewest = 1 + (right == right[-1]).argmax()
        return jnp.where(jnp.isfinite(alone).all(), fewest.astype(jnp.float32), jnp.nan)

    suffix = option_suffix({"split": split}, {"split": "train"}, bare=("split",))
    return Measure(
        f"effective_sparsity{suffix}",
        _effective_sparsity,
        roles=("input_map", "output_map", "neurons", "linear_readout"),
        splits=(split,),
        options={"split": split},
        units="neurons",
        source=_MERRILL,
    )


def sensitivity(split: str = "test") -> Measure:
    """Number of single sign flips of the input that change the answer, averaged over a split.

    The mean over x of the number of features i whose flip x_i -> -x_i changes the model's answer. A
    parity of k features has sensitivity k for any number of features; 0 means that the answer never
    depends on a single feature (arXiv 2303.11873).

    Args:
        split: name of a split of the task.

    Returns:
        A Measure with the scalar ``sensitivity``, in flips, from 0 to the number of features; NaN
        if an output is not finite. It needs a parity task.
    """

    def _sensitivity(params: Params, context: Context) -> Scalar:
        x = jnp.asarray(batch(context, split).inputs)

        def answers(x: Float[Array, "batch position feature"]) -> Float[Array, "batch position"]:
            out = class_outputs(context.model.apply(params, x, positions=context.read))
            return jnp.where(
                jnp.isfinite(out).all(axis=-1), out.argmax(axis=-1).astype(jnp.float32), jnp.nan
            )

        unflipped = answers(x)

        def changed(i: Int[Array, ""]) -> Scalar:
            other = answers(x.at[:, :, i].multiply(-1.0))
            # The term times 0 carries NaN: a comparison alone would count NaN as unchanged.
            return (jnp.abs(other - unflipped) > 0).mean() + 0 * (other + unflipped).mean()

        return jax.lax.map(changed, jnp.arange(x.shape[-1])).sum()

    return Measure(
        "sensitivity",
        _sensitivity,
        ground_truth=("subset",),
        splits=(split,),
        options={"split": split},
        source=_MERRILL,
    )
