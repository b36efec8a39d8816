"""What of a network lies along each irrep of the group that it composes in (arXiv 2302.03025).

The real irreps' matrix elements make an orthonormal basis of the functions on a group
(``irrep_basis``), of a cyclic group the Fourier basis; what a table over elements holds of an irrep
is its projection on that irrep's basis functions. A table over pairs (x, y) has three such
projections, along functions of x, of y and of the answer.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mi_jax.basics.dims import Params, Scalar
from mi_jax.contracts import Context, Measure, Reference
from mi_jax.measures.evaluation import (
    shared,
    table_answers,
    table_logits,
    table_neurons,
    table_split,
)
from mi_jax.measures.fourier import TABLES, unembedding_table
from mi_jax.measures.neurons import centred, read_out

SOURCE = "arXiv 2302.03025"
KEY_SIMILARITY = 0.005
"""Logit similarity above which an irrep is key."""

_BASIS = ("irrep_basis", "irrep_of_mode", "characters")
_PAIRS = (*_BASIS, "table", "answer")
_LOGITS = (*_PAIRS, "product", "inverse")


def by_irrep(power: Float[Array, "mode *rest"], context: Context) -> Float[Array, "irrep *rest"]:
    """Sums over the basis functions of each irrep."""
    return jax.ops.segment_sum(
        power, context.ground_truth["irrep_of_mode"], context.ground_truth["characters"].shape[0]
    )


def components(table: Float[Array, "element unit"], context: Context) -> Float[Array, "mode unit"]:
    """What each column holds of each basis function."""
    return context.ground_truth["irrep_basis"].T @ table


def power_by_irrep(table: Float[Array, "element unit"], context: Context) -> Float[Array, " irrep"]:
    """||Q_rho^T table||^2, Q_rho an orthonormal basis of the span of rho's matrix elements. Over
    all irreps: ||table||^2.
    """
    return by_irrep(jnp.square(components(table, context)).sum(axis=1), context)


# --- Logits
# -----------------------------------------------------------------------------------------------------------------


@shared
def logit_similarities(params: Params, context: Context) -> Float[Array, " irrep"]:
    """See ``logit_similarity``."""
    logits, characters = table_logits(params, context), context.ground_truth["characters"]
    n, product, inverse = (
        logits.shape[0],
        context.ground_truth["product"],
        context.ground_truth["inverse"],
    )
    around = logits - logits.mean(axis=2, keepdims=True)
    by_answer = jnp.zeros((n, n)).at[table_answers(context).ravel()].add(around.reshape(n * n, n))
    by_quotient = jnp.zeros(n).at[product[:, inverse].ravel()].add(by_answer.ravel())
    return (
        characters
        @ by_quotient
        / (n * jnp.linalg.norm(characters, axis=1) * jnp.linalg.norm(around.ravel()))
    )


def logit_similarity() -> Measure:
    """Cosine of the logits L[x, y, z], centred over the classes z, with chi_rho(x y z^-1), for each
    irrep rho.

    1 where the network computes by that irrep alone. For another form of composition x y is the
    answer. The characters aren't
    centred: of the trivial irrep it is 0.
    """
    return Measure(
        "logit_similarity",
        logit_similarities,
        ("irrep",),
        ground_truth=_LOGITS,
        source=SOURCE,
    )


def logits_explained() -> Measure:
    """sum over irreps of logit similarity squared: the share of the centred logits that characters
    explain.
    """

    def function(params: Params, context: Context) -> Scalar:
        return jnp.square(logit_similarities(params, context)).sum()

    return Measure("logits_explained", function, ground_truth=_LOGITS, source=SOURCE)


def key_irreps() -> Measure:
    """Irreps whose logit similarity exceeds .005, read afresh at each checkpoint."""

    def function(params: Params, context: Context) -> Bool[Array, " irrep"]:
        return logit_similarities(params, context) > KEY_SIMILARITY

    return Measure(
        "key_irreps",
        function,
        ("irrep",),
        ground_truth=_LOGITS,
        options={"threshold": KEY_SIMILARITY, "read": "online"},
        source=SOURCE,
    )


def _final_key_irreps(reference: Reference, context: Context) -> Bool[Array, " irrep"]:
    return logit_similarities(reference.final, context) > KEY_SIMILARITY


FINAL_KEY_IRREPS = {"final_key_irreps": _final_key_irreps}
"""The preparation that measures frozen to the final model's key irreps declare."""


def key_irreps_final() -> Measure:
    """The final model's key irreps, the same at every step: what retrospective measures are frozen
    to.
    """

    def function(params: Params, context: Context) -> Bool[Array, " irrep"]:
        return context.prepared["final_key_irreps"]

    return Measure(
        "key_irreps_final",
        function,
        ("irrep",),
        ground_truth=_LOGITS,
        uses=frozenset({"final"}),
        prepare=FINAL_KEY_IRREPS,
        options={"threshold": KEY_SIMILARITY, "read": "final"},
        source=SOURCE,
    )


# --- Weights
# ----------------------------------------------------------------------------------------------------------------


def group_fourier_power(place: str) -> Measure:
    """d_rho tr(f^(rho)^T f^(rho)) / |G|^2 of a table's columns f, f^(rho) = sum_g f(g) rho(g), over
    that of nontrivial irreps.

    As ``fourier_power`` the share of each irrep in what isn't constant; 0 for the trivial one. Of a
    real irrep whose commuting matrices have dimension c the power is d / c tr(...): so Parseval
    holds.
    """
    table, role = TABLES[place]

    def function(params: Params, context: Context) -> Float[Array, " irrep"]:
        power = power_by_irrep(table(params, context), context).at[0].set(0)
        return power / power.sum()

    return Measure(
        f"group_fourier_power_{place}",
        function,
        ("irrep",),
        roles=(role,),
        ground_truth=_BASIS,
        source="arXiv 2312.06581",
    )


def irrep_divergence(place: str) -> Measure:
    """sum_rho p log2(p / q) in bits, p a table's ``group_fourier_power`` and q that of a random
    one, modes of rho / (|G| - 1).
    """
    table, role = TABLES[place]

    def function(params: Params, context: Context) -> Scalar:
        power = power_by_irrep(table(params, context), context)[1:]
        p, q = (
            power / power.sum(),
            by_irrep(jnp.ones(len(context.ground_truth["irrep_of_mode"])), context)[1:],
        )
        return jnp.where(p == 0, 0, p * jnp.log2(p / (q / q.sum()))).sum()

    return Measure(
        f"irrep_divergence_{place}", function, roles=(role,), ground_truth=_BASIS, units="bits"
    )


def operand_tables(
    params: Params, context: Context
) -> tuple[Float[Array, "element unit"], Float[Array, "element unit"]]:
    """What the left and the right element enter by: what each adds to the neurons where weights say
    it, else the embeddings.
    """
    roles = context.model.roles
    tables = [jnp.asarray(table(params)) for table in roles.neuron_inputs or roles.embedding]
    return tables[0], tables[-1]


def irrep_fve_embedding() -> Measure:
    """||Q_rho^T W||^2 / ||W||^2 of the table W by which the left and the right element enter,
    embedding times layer 0.

    Where the weights don't say what an element adds to each neuron (attention stands between), W is
    the embedding itself.
    """

    def function(params: Params, context: Context) -> dict[str, Array]:
        both = zip(_SIDES, operand_tables(params, context), strict=True)
        return {
            name: power_by_irrep(table, context) / jnp.square(table).sum() for name, table in both
        }

    return Measure(
        "irrep_fve_embedding",
        function,
        dict.fromkeys(_SIDES, ("irrep",)),
        roles=("embedding",),
        ground_truth=_BASIS,
        source=SOURCE,
    )


_SIDES = ("irrep_fve_left", "irrep_fve_right")


def irrep_fve_unembedding() -> Measure:
    """||Q_rho^T W||^2 / ||W||^2, W = W_L^T what the neurons add to each class."""

    def function(params: Params, context: Context) -> Float[Array, " irrep"]:
        table = unembedding_table(params, context)
        return power_by_irrep(table, context) / jnp.square(table).sum()

    return Measure(
        "irrep_fve_unembedding",
        function,
        ("irrep",),
        roles=("output_map",),
        ground_truth=_BASIS,
        source=SOURCE,
    )


# --- Neurons
# ----------------------------------------------------------------------------------------------------------------

_FVE_X, _FVE_Y, _FVE_XY = _NEURON_FVES = (
    "irrep_fve_neurons_x",
    "irrep_fve_neurons_y",
    "irrep_fve_neurons_xy",
)


def answer_components(
    table: Float[Array, "pair unit"], context: Context
) -> Float[Array, "mode unit"]:
    """Q_xy^T table: what it holds along each basis function of the answer, normalised over the
    pairs.
    """
    n = len(context.ground_truth["irrep_basis"])
    by_answer = jnp.zeros((n, table.shape[1])).at[table_answers(context).ravel()].add(table)
    return components(by_answer, context) / jnp.sqrt(n)


def irrep_fve_neurons() -> Measure:
    """Of the neurons' variance over all pairs (each centred), the share along rho(x), rho(y) and
    rho(xy).

    Summed over the three it is the published MLP FVE of rho.
    """

    def function(params: Params, context: Context) -> dict[str, Array]:
        around, power = centred(table_neurons(params, context))
        n, total = around.shape[0], power.sum()
        parts = {_FVE_X: around.sum(axis=1), _FVE_Y: around.sum(axis=0)}
        shares = {name: power_by_irrep(part, context) / n / total for name, part in parts.items()}
        along = jnp.square(answer_components(around.reshape(n * n, -1), context)).sum(axis=1)
        return {**shares, _FVE_XY: by_irrep(along, context) / total}

    return Measure(
        "irrep_fve_neurons",
        function,
        dict.fromkeys(_NEURON_FVES, ("irrep",)),
        roles=("neurons",),
        ground_truth=_PAIRS,
        source=SOURCE,
    )


@shared
def key_read_out(params: Params, context: Context) -> Float[Array, "pair class"]:
    """H_r W_L, H_r = sum over key irreps of Q_xy Q_xy^T H: what the neurons' key parts send to each
    logit.
    """
    n, kept = (
        len(context.ground_truth["irrep_basis"]),
        context.prepared["final_key_irreps"][context.ground_truth["irrep_of_mode"]],
    )
    along = jnp.where(kept[:, None], answer_components(read_out(params, context), context), 0)
    return (context.ground_truth["irrep_basis"] @ along / jnp.sqrt(n))[
        table_answers(context).ravel()
    ]


def _hidden_loss(
    name: str, change: Callable[[Params, Context], Float[Array, "pair class"]], split: str | None
) -> Measure:
    def function(params: Params, context: Context) -> Scalar:
        logits = table_logits(params, context).reshape(-1, context.inputs.classes) + change(
            params, context
        )
        losses = context.loss(logits[:, None, :], table_answers(context).reshape(-1, 1))[:, 0]
        return losses.mean() if split is None else losses[table_split(context, split)].mean()

    return Measure(
        name,
        function,
        roles=("neurons", "output_map", "linear_readout"),
        ground_truth=_LOGITS,
        uses=frozenset({"final"}),
        prepare=FINAL_KEY_IRREPS,
        null="other_frequencies",
        options={"keys": "final", "threshold": KEY_SIMILARITY},
        units="loss",
        source=SOURCE,
    )


def hidden_restricted_loss() -> Measure:
    """Loss over all pairs with the neurons' activations H replaced by H_r, their part along rho(xy)
    of the final key irreps.

    H_r = sum_rho Q_xy Q_xy^T H, of H as it is, not centred. What reaches the logits past the
    neurons, biases too, stays.
    """
    return _hidden_loss(
        "hidden_restricted_loss",
        lambda params, context: key_read_out(params, context) - read_out(params, context),
        None,
    )


def hidden_excluded_loss() -> Measure:
    """Loss on the training pairs with H replaced by H - H_r: see ``hidden_restricted_loss``."""
    return _hidden_loss(
        "hidden_excluded_loss", lambda params, context: -key_read_out(params, context), "train"
    )
