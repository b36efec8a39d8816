"""Loss and accuracy of the digits of a sum, by how a carry enters the digit (arXiv 2310.13121)."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from mi_jax.basics.dims import Params
from mi_jax.contracts import Context, Measure, mean_loss
from mi_jax.measures.evaluation import batch, outputs, split_truth

CASES = ("no carry", "carry", "cascade")
"""Values of the fact ``carry_case``: no carry enters the digit; the neighbouring digits make the
carry; the carry comes through a neighbour whose digits sum to nine.
"""


def by_carry(split: str = "test") -> Measure:
    """Loss and accuracy of a split's digits, averaged within each carry case.

    Low accuracy for "cascade" alone means that the model adds single carries and does not pass them
    on. Needs the fact ``carry_case`` of the addition task (arXiv 2310.13121).

    Args:
        split: name of a split of the task.

    Returns:
        A Measure with ``loss_by_carry`` (in the units of the run's loss) and ``accuracy_by_carry``
        (shares from 0 to 1), both of dims (condition) with the coordinate ``CASES``; NaN for a case
        that no digit has.
    """
    names = ("loss_by_carry", "accuracy_by_carry")

    def _by_carry(params: Params, context: Context) -> dict[str, Float[Array, " condition"]]:
        examples, out = batch(context, split), outputs(params, context, split)
        cases, weights = split_truth(context, "carry_case", split), jnp.asarray(examples.weights)
        right = (out.argmax(axis=-1) == examples.targets).astype(jnp.float32)
        right = jnp.where(jnp.isfinite(out).all(axis=-1), right, jnp.nan)
        quantities = (context.loss(out, examples.targets), right)
        means = [
            jnp.stack([mean_loss(x, weights * (cases == case)) for case in range(len(CASES))])
            for x in quantities
        ]
        return dict(zip(names, means, strict=True))

    return Measure(
        "by_carry",
        _by_carry,
        dict.fromkeys(names, ("condition",)),
        ground_truth=("carry_case",),
        splits=(split,),
        options={"split": split},
        coordinates={"condition": CASES},
        source="arXiv 2310.13121",
    )
