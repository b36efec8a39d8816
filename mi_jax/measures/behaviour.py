"""What the model does: its loss and accuracy by split, as trained."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mi_jax.basics.dims import Params, Scalar
from mi_jax.contracts import Batch, Context, Measure, batch_loss, mean_loss
from mi_jax.measures.evaluation import batch, outputs


def split_loss(split: str) -> Measure:
    """The run's own loss over all of the model's outputs, mean over a split, in its units (nats for
    cross-entropy).
    """

    def function(params: Params, context: Context) -> Scalar:
        examples = batch(context, split)
        return batch_loss(context.loss, outputs(params, context, split), examples)

    return Measure(f"{split}_loss", function, splits=(split,), units="loss")


def class_outputs(
    out: Float[Array, "batch position output"],
) -> Float[Array, "batch position class"]:
    """An output for each class: one output alone, whose sign tells two classes, is that of class 1
    beside a 0.
    """
    return jnp.concatenate([jnp.zeros_like(out), out], axis=-1) if out.shape[-1] == 1 else out


def accuracy(out: Float[Array, "batch position class"], examples: Batch) -> Scalar:
    """The share of answers whose largest output is the right one, by the batch's weights; NaN where
    an output is not finite.

    Of one output alone, class 1 is what is positive.
    """
    out, targets = class_outputs(out), jnp.asarray(examples.targets)[..., None]
    correct, place = (
        jnp.take_along_axis(out, targets, axis=-1),
        jax.lax.broadcasted_iota(jnp.int32, out.shape, out.ndim - 1),
    )
    # argmax == target, of equal outputs the first, as two maxima: XLA's argmax on CPU takes ten
    # times as long.
    before = jnp.where(place < targets, out, -jnp.inf).max(axis=-1)
    after = jnp.where(place > targets, out, -jnp.inf).max(axis=-1)
    right = ((correct[..., 0] > before) & (correct[..., 0] >= after)).astype(jnp.float32)
    return mean_loss(jnp.where(jnp.isfinite(out).all(axis=-1), right, jnp.nan), examples.weights)


def split_accuracy(split: str) -> Measure:
    """``accuracy`` on a split."""

    def function(params: Params, context: Context) -> Scalar:
        return accuracy(outputs(params, context, split), batch(context, split))

    return Measure(f"{split}_accuracy", function, splits=(split,))


def margin(split: str) -> Measure:
    """The right output minus the largest wrong one: its mean and its minimum over a split, in the
    units of the logits.
    """
    names = (f"{split}_margin", f"{split}_margin_minimum")

    def function(params: Params, context: Context) -> dict[str, Array]:
        examples, out = batch(context, split), class_outputs(outputs(params, context, split))
        chosen = jax.nn.one_hot(examples.targets, out.shape[-1], dtype=bool)
        margins = jnp.where(chosen, out, 0).sum(axis=-1) - jnp.where(chosen, -jnp.inf, out).max(
            axis=-1
        )
        least = jnp.where(examples.weights > 0, margins, jnp.inf).min()
        return dict(zip(names, (mean_loss(margins, examples.weights), least), strict=True))

    return Measure(f"{split}_margin", function, dict.fromkeys(names, ()), splits=(split,))


def label_noise_accuracy() -> Measure:
    """Of training examples under label noise, the share whose largest output is the label or the
    right answer.

    ``clean_accuracy``: examples that kept their right label. ``memorised_accuracy``: corrupted
    ones, answered with the label that was drawn; ``corrected_accuracy``: corrupted ones, answered
    rightly all the same. One may be both, where the right label was drawn. NaN where there is no
    such example or an output is not finite.
    """
    names = ("clean_accuracy", "memorised_accuracy", "corrected_accuracy")

    def function(params: Params, context: Context) -> dict[str, Array]:
        examples, out = batch(context, "train"), outputs(params, context, "train")
        corrupted = context.ground_truth["corrupted"][:, None]
        right = examples._replace(targets=context.ground_truth["right_answer"][:, None])
        kinds = ((examples, ~corrupted), (examples, corrupted), (right, corrupted))
        return {
            name: accuracy(out, one._replace(weights=one.weights * kept))
            for name, (one, kept) in zip(names, kinds, strict=True)
        }

    return Measure(
        "label_noise_accuracy",
        function,
        dict.fromkeys(names, ()),
        ground_truth=("corrupted", "right_answer"),
        source="arXiv 2310.13061",
    )


def softmax_collapse() -> Measure:
    """The share of training answers whose softmax is exactly one-hot in the run's precision: sum_c
    exp(z_c - max z) == 1.

    There the usual cross-entropy is 0 and its gradient with it (arXiv 2501.04697).
    """

    def function(params: Params, context: Context) -> Scalar:
        examples, out = batch(context, "train"), class_outputs(outputs(params, context, "train"))
        total = jnp.exp(out - out.max(axis=-1, keepdims=True)).sum(axis=-1)
        return mean_loss(_share(total == 1.0, total), examples.weights)

    return Measure("softmax_collapse", function, splits=("train",), source="arXiv 2501.04697")


def exact_loss_collapse() -> Measure:
    """The share of training answers whose loss, as this run computes it, is exactly 0: those that
    no longer teach.
    """

    def function(params: Params, context: Context) -> Scalar:
        examples = batch(context, "train")
        losses = context.loss(outputs(params, context, "train"), examples.targets)
        return mean_loss(_share(losses == 0.0, losses), examples.weights)

    return Measure("exact_loss_collapse", function, splits=("train",), source="arXiv 2501.04697")


def _share(holds: Bool[Array, "*b"], of: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """1 where it holds, 0 where not, NaN where what it was asked of is not finite."""
    return jnp.where(jnp.isfinite(of), holds.astype(jnp.float32), jnp.nan)
