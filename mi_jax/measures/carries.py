"""What the model does with carries: loss and accuracy of a sum's digits by what they take (arXiv
2310.13121).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from mi_jax.basics.dims import Params
from mi_jax.contracts import Context, Measure, mean_loss
from mi_jax.measures.evaluation import batch, outputs, split_concept

CASES = ("no carry", "carry", "cascade")
"""The values of the concept ``carry_case``: nothing is carried in; the neighbour makes the carry;
it came through a nine.
"""


def by_carry(split: str = "test") -> Measure:
    """Mean loss, and share of right answers, of a split's digits by ``carry_case``; NaN for a case
    that no digit has.
    """
    names = ("loss_by_carry", "accuracy_by_carry")

    def function(params: Params, context: Context) -> dict[str, Float[Array, " condition"]]:
        examples, out = batch(context, split), outputs(params, context, split)
        cases, weights = split_concept(context, "carry_case", split), jnp.asarray(examples.weights)
        right = (out.argmax(axis=-1) == examples.targets).astype(jnp.float32)
        right = jnp.where(jnp.isfinite(out).all(axis=-1), right, jnp.nan)
        each = (context.loss(out, examples.targets), right)
        means = [
            jnp.stack([mean_loss(x, weights * (cases == case)) for case in range(len(CASES))])
            for x in each
        ]
        return dict(zip(names, means, strict=True))

    return Measure(
        "by_carry",
        function,
        dict.fromkeys(names, ("condition",)),
        ground_truth=("carry_case",),
        splits=(split,),
        options={"split": split},
        coordinates={"condition": CASES},
        source="arXiv 2310.13121",
    )
