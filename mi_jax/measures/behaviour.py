"""Behaviour of the model: loss, accuracy and margins of its answers, by split."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mi_jax.basics.dims import Params, Scalar
from mi_jax.contracts import Batch, Context, Measure, batch_loss, mean_loss
from mi_jax.measures.evaluation import batch, outputs, right_and_wrong

_COLLAPSE_SOURCE = "arXiv 2501.04697"


def split_loss(split: str) -> Measure:
    """Loss that the run minimises, averaged over a split.

    sum_i w_i loss_i / sum_i w_i over the answers i of the split, w_i their weights. Low values mean
    that the model gives its answers a high probability.

    Args:
        split: name of a split of the task, such as "train" or "test".

    Returns:
        A Measure with the scalar ``{split}_loss``, in the units of the run's loss (nats for
        cross-entropy).
    """

    def _split_loss(params: Params, context: Context) -> Scalar:
        examples = batch(context, split)
        return batch_loss(context.loss, outputs(params, context, split), examples)

    return Measure(f"{split}_loss", _split_loss, splits=(split,), units="loss")


def class_outputs(
    out: Float[Array, "batch position output"],
) -> Float[Array, "batch position class"]:
    """Outputs with one entry per class.

    A single output, whose sign separates two classes, becomes the output of class 1 beside a 0 for
    class 0. Other outputs are returned as they are.
    """
    if out.shape[-1] != 1:
        return out
    return jnp.concatenate([jnp.zeros_like(out), out], axis=-1)


def accuracy(out: Float[Array, "batch position class"], examples: Batch) -> Scalar:
    """Share of answers whose largest output is the right class, weighted by the batch's weights.

    With a single output, a positive value answers class 1. Of equal outputs the first counts.

    Args:
        out: outputs of the model at the read positions.
        examples: batch with the targets and weights of these answers.

    Returns:
        A share from 0 to 1; NaN if an output of a weighted answer is not finite.
    """
    out, targets = class_outputs(out), jnp.asarray(examples.targets)[..., None]
    correct = jnp.take_along_axis(out, targets, axis=-1)
    classes = jax.lax.broadcasted_iota(jnp.int32, out.shape, out.ndim - 1)
    # This is argmax == target, written as two maxima (before and after the target, so that ties go
    # to the first class): XLA's argmax takes ten times as long on a CPU.
    before = jnp.where(classes < targets, out, -jnp.inf).max(axis=-1)
    after = jnp.where(classes > targets, out, -jnp.inf).max(axis=-1)
    right = ((correct[..., 0] > before) & (correct[..., 0] >= after)).astype(jnp.float32)
    return mean_loss(jnp.where(jnp.isfinite(out).all(axis=-1), right, jnp.nan), examples.weights)


def split_accuracy(split: str) -> Measure:
    """Share of the answers of a split whose largest output is the right class.

    1 if every answer is right; 1 / classes is the level of chance for balanced classes.

    Args:
        split: name of a split of the task, such as "train" or "test".

    Returns:
        A Measure with the scalar ``{split}_accuracy``, a share from 0 to 1; NaN if an output is
        not finite.
    """

    def _split_accuracy(params: Params, context: Context) -> Scalar:
        return accuracy(outputs(params, context, split), batch(context, split))

    return Measure(f"{split}_accuracy", _split_accuracy, splits=(split,))


def margin(split: str) -> Measure:
    """Margin of the right answer: its output minus the largest output of the other classes.

    z_y - max_{c != y} z_c, averaged over the answers of a split with their weights, and its minimum
    over the answers of positive weight. A margin is positive where the answer is right; a minimum
    above 0 means that every answer is.

    Args:
        split: name of a split of the task, such as "train" or "test".

    Returns:
        A Measure with the scalars ``{split}_margin`` and ``{split}_margin_minimum``, in the units
        of the outputs.
    """
    names = (f"{split}_margin", f"{split}_margin_minimum")

    def _margin(params: Params, context: Context) -> dict[str, Array]:
        examples = batch(context, split)
        right, wrong = right_and_wrong(
            class_outputs(outputs(params, context, split)), examples.targets
        )
        margins = right - wrong
        least = jnp.where(examples.weights > 0, margins, jnp.inf).min()
        return dict(zip(names, (mean_loss(margins, examples.weights), least), strict=True))

    return Measure(f"{split}_margin", _margin, dict.fromkeys(names, ()), splits=(split,))


def label_noise_accuracy() -> Measure:
    """Accuracies on training examples with label noise, for clean and for corrupted examples.

    A network that memorises the noise has a high ``memorised_accuracy``; one that corrects it has a
    high ``corrected_accuracy``. An example whose drawn label is the right one counts for both.
    Needs a task with corrupted labels (arXiv 2310.13061).

    Returns:
        A Measure with three scalars, shares from 0 to 1: ``clean_accuracy``, the share of examples
        with their right label that are answered with it; ``memorised_accuracy``, the share of
        corrupted examples that are answered with the drawn label; ``corrected_accuracy``, the share
        of corrupted examples that are answered with the right one. NaN if there is no such
        example or an output is not finite.
    """
    names = ("clean_accuracy", "memorised_accuracy", "corrected_accuracy")

    def _label_noise_accuracy(params: Params, context: Context) -> dict[str, Array]:
        examples, out = batch(context, "train"), outputs(params, context, "train")
        corrupted = context.ground_truth["corrupted"][:, None]
        right = examples._replace(targets=context.ground_truth["right_answer"][:, None])
        kinds = ((examples, ~corrupted), (examples, corrupted), (right, corrupted))
        return {
            name: accuracy(out, labelled._replace(weights=labelled.weights * chosen))
            for name, (labelled, chosen) in zip(names, kinds, strict=True)
        }

    return Measure(
        "label_noise_accuracy",
        _label_noise_accuracy,
        dict.fromkeys(names, ()),
        ground_truth=("corrupted", "right_answer"),
        source="arXiv 2310.13061",
    )


def softmax_collapse() -> Measure:
    """Share of training answers whose softmax is exactly one-hot in the precision of the run.

    An answer counts if sum_c exp(z_c - max z) == 1. There the usual cross-entropy is 0 and so is
    its gradient (arXiv 2501.04697): near 1, training without weight decay has stalled.

    Returns:
        A Measure with the scalar ``softmax_collapse``, a share from 0 to 1; NaN if an output is
        not finite.
    """

    def _softmax_collapse(params: Params, context: Context) -> Scalar:
        examples, out = batch(context, "train"), class_outputs(outputs(params, context, "train"))
        total = jnp.exp(out - out.max(axis=-1, keepdims=True)).sum(axis=-1)
        return mean_loss(_share(total == 1.0, total), examples.weights)

    return Measure(
        "softmax_collapse", _softmax_collapse, splits=("train",), source=_COLLAPSE_SOURCE
    )


def exact_loss_collapse() -> Measure:
    """Share of training answers whose loss, as the run computes it, is exactly 0.

    Such answers contribute no gradient (arXiv 2501.04697): near 1, training without weight decay
    has stalled.

    Returns:
        A Measure with the scalar ``exact_loss_collapse``, a share from 0 to 1; NaN if a loss is
        not finite.
    """

    def _exact_loss_collapse(params: Params, context: Context) -> Scalar:
        examples = batch(context, "train")
        losses = context.loss(outputs(params, context, "train"), examples.targets)
        return mean_loss(_share(losses == 0.0, losses), examples.weights)

    return Measure(
        "exact_loss_collapse", _exact_loss_collapse, splits=("train",), source=_COLLAPSE_SOURCE
    )


def _share(holds: Bool[Array, "*b"], values: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """1 where ``holds``, 0 where not, NaN where the tested value is not finite."""
    return jnp.where(jnp.isfinite(values), holds.astype(jnp.float32), jnp.nan)
