"""Shares of weights, neurons and logits along each irrep of the group that a network composes in
(arXiv 2302.03025).

The matrix elements of the real irreps make an orthonormal basis of the functions on a group
(``irrep_basis``); for a cyclic group it is the Fourier basis. The part of a table over elements at
an irrep is its projection on the basis functions of that irrep. A table over pairs (x, y) has three
such projections: along functions of x, of y, and of the answer.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mi_jax.basics.dims import Params, Scalar
from mi_jax.contracts import Context, Measure, Reference
from mi_jax.measures.evaluation import (
    pair_logits,
    pair_losses,
    shared,
    table_answers,
    table_labels,
    table_logits,
    table_neurons,
    table_split,
)
from mi_jax.measures.fourier import table_at, unembedding_table
from mi_jax.measures.neurons import centred_units, read_out

SOURCE = "arXiv 2302.03025"
KEY_SIMILARITY = 0.005
"""Logit similarity above which an irrep is key."""

_BASIS = ("irrep_basis", "irrep_of_mode", "characters")
_PAIRS = (*_BASIS, "table", "answer")
_LOGITS = (*_PAIRS, "product", "inverse")


# --- Projections on irreps


def by_irrep(power: Float[Array, "mode *rest"], context: Context) -> Float[Array, "irrep *rest"]:
    """Sums over the basis functions of each irrep.

    Args:
        power: one row per basis function.
        context: of the reading.
    """
    return jax.ops.segment_sum(
        power, context.ground_truth["irrep_of_mode"], context.ground_truth["characters"].shape[0]
    )


def components(table: Float[Array, "element unit"], context: Context) -> Float[Array, "mode unit"]:
    """Components of each column of a table along the basis functions."""
    return context.ground_truth["irrep_basis"].T @ table


def power_by_irrep(table: Float[Array, "element unit"], context: Context) -> Float[Array, " irrep"]:
    """Power of a table along each irrep: ||Q_rho^T T||^2.

    Q_rho is an orthonormal basis of the span of rho's matrix elements. The sum over all irreps is
    ||T||^2.
    """
    return by_irrep(jnp.square(components(table, context)).sum(axis=1), context)


# --- Logits


@shared
def logit_similarities(params: Params, context: Context) -> Float[Array, " irrep"]:
    """Values of the measure ``logit_similarity``."""
    logits, characters = table_logits(params, context), context.ground_truth["characters"]
    product, inverse = context.ground_truth["product"], context.ground_truth["inverse"]
    n = logits.shape[0]
    around = logits - logits.mean(axis=2, keepdims=True)
    # <L, chi(answer z^-1)> needs the logits only summed by answer, and then by answer times z^-1:
    # the cube of traces [irrep x y z] is never formed.
    by_answer = jnp.zeros((n, n)).at[table_answers(context).ravel()].add(around.reshape(n * n, n))
    by_quotient = jnp.zeros(n).at[product[:, inverse].ravel()].add(by_answer.ravel())
    return (
        characters
        @ by_quotient
        / (n * jnp.linalg.norm(characters, axis=1) * jnp.linalg.norm(around.ravel()))
    )


def logit_similarity() -> Measure:
    """Cosine of the logits with the character of each irrep.

    cos(L, chi_rho(x y z^-1)) over all (x, y, z), the logits L[x, y, z] centred over the classes z.
    For another form of composition, x y stands for its answer. The characters are not centred: the
    value of the trivial irrep is 0. 1 means that the network computes by that irrep alone.

    Returns:
        A Measure with ``logit_similarity`` of dims (irrep), from -1 to 1. It needs a task on all
        pairs of a group (arXiv 2302.03025).
    """

    def _logit_similarity(params: Params, context: Context) -> Float[Array, " irrep"]:
        return logit_similarities(params, context)

    return Measure(
        "logit_similarity", _logit_similarity, ("irrep",), ground_truth=_LOGITS, source=SOURCE
    )


def logits_explained() -> Measure:
    """Share of the centred logits that the characters of all irreps explain.

    sum_rho (logit similarity of rho)^2. 1 means that the logits are a sum of characters of
    x y z^-1, as for a network that composes by irreps.

    Returns:
        A Measure with the scalar ``logits_explained``, a share from 0 to 1. It needs a task on all
        pairs of a group (arXiv 2302.03025).
    """

    def _logits_explained(params: Params, context: Context) -> Scalar:
        return jnp.square(logit_similarities(params, context)).sum()

    return Measure("logits_explained", _logits_explained, ground_truth=_LOGITS, source=SOURCE)


def key_irreps() -> Measure:
    """Irreps with a logit similarity above .005, determined anew at each checkpoint.

    True means that the network uses the irrep.

    Returns:
        A Measure with ``key_irreps`` of dims (irrep), booleans. It needs a task on all pairs of a
        group (arXiv 2302.03025).
    """

    def _key_irreps(params: Params, context: Context) -> Bool[Array, " irrep"]:
        return logit_similarities(params, context) > KEY_SIMILARITY

    return Measure(
        "key_irreps",
        _key_irreps,
        ("irrep",),
        ground_truth=_LOGITS,
        options={"threshold": KEY_SIMILARITY, "read": "online"},
        source=SOURCE,
    )


def _final_key_irreps(reference: Reference, context: Context) -> Bool[Array, " irrep"]:
    return logit_similarities(reference.final, context) > KEY_SIMILARITY


FINAL_KEY_IRREPS = {"final_key_irreps": _final_key_irreps}
"""The ``prepare`` of measures that are frozen to the key irreps of the final model."""


def key_irreps_final() -> Measure:
    """Key irreps of the final model, the same at every step.

    Retrospective measures such as ``hidden_excluded_loss`` are frozen to them. True means that the
    final network uses the irrep.

    Returns:
        A Measure with ``key_irreps_final`` of dims (irrep), booleans. It needs the final parameters
        and a task on all pairs of a group (arXiv 2302.03025).
    """

    def _key_irreps_final(params: Params, context: Context) -> Bool[Array, " irrep"]:
        return context.prepared["final_key_irreps"]

    return Measure(
        "key_irreps_final",
        _key_irreps_final,
        ("irrep",),
        ground_truth=_LOGITS,
        uses=frozenset({"final"}),
        prepare=FINAL_KEY_IRREPS,
        options={"threshold": KEY_SIMILARITY, "read": "final"},
        source=SOURCE,
    )


# --- Weights


def group_fourier_power(place: str) -> Measure:
    """Share of each irrep in the non-constant power of a table.

    d_rho tr(f^(rho)^T f^(rho)) / |G|^2 of the table's columns f, f^(rho) = sum_g f(g) rho(g),
    divided by its sum over the nontrivial irreps. For a real irrep whose commuting matrices have
    dimension c, d_rho / c takes the place of d_rho, so that Parseval's identity holds. A share near
    1 means that the table uses this irrep alone; for cyclic groups it is ``fourier_power``.

    Args:
        place: which table, a key of ``TABLES``: "embedding", "unembedding", "readout",
            "neuron_inputs", "queries", "keys" or "values".

    Returns:
        A Measure with ``group_fourier_power_{place}`` of dims (irrep), shares with sum 1; 0 for the
        trivial irrep. It needs the role of the place and a task on a group (arXiv 2312.06581).

    Raises:
        ConfigError: if there is no such place.
    """
    table, role = table_at(place)

    def _group_fourier_power(params: Params, context: Context) -> Float[Array, " irrep"]:
        power = power_by_irrep(table(params, context), context).at[0].set(0)
        return power / power.sum()

    return Measure(
        f"group_fourier_power_{place}",
        _group_fourier_power,
        ("irrep",),
        roles=(role,),
        ground_truth=_BASIS,
        source="arXiv 2312.06581",
    )


def irrep_divergence(place: str) -> Measure:
    """Divergence of a table's power over irreps from that of a random table.

    sum_rho p_rho log2(p_rho / q_rho) over the nontrivial irreps, p the ``group_fourier_power`` of
    the table and q_rho = (basis functions of rho) / (|G| - 1). 0 for a table without preference,
    high for one that uses a few irreps.

    Args:
        place: which table, a key of ``TABLES`` (see ``group_fourier_power``).

    Returns:
        A Measure with the scalar ``irrep_divergence_{place}``, in bits. It needs the role of the
        place and a task on a group.

    Raises:
        ConfigError: if there is no such place.
    """
    table, role = table_at(place)

    def _irrep_divergence(params: Params, context: Context) -> Scalar:
        power = power_by_irrep(table(params, context), context)[1:]
        p = power / power.sum()
        q = by_irrep(jnp.ones(len(context.ground_truth["irrep_of_mode"])), context)[1:]
        return jnp.where(p == 0, 0, p * jnp.log2(p / (q / q.sum()))).sum()

    return Measure(
        f"irrep_divergence_{place}",
        _irrep_divergence,
        roles=(role,),
        ground_truth=_BASIS,
        units="bits",
    )


def operand_tables(
    params: Params, context: Context
) -> tuple[Float[Array, "element unit"], Float[Array, "element unit"]]:
    """Tables by which the left and the right element enter the network.

    What each element adds to the neurons if the weights alone determine it, else the embeddings.

    Returns:
        The left element's table and the right element's table; they may be one table.
    """
    roles = context.model.roles
    tables = [jnp.asarray(table(params)) for table in roles.neuron_inputs or roles.embedding]
    return tables[0], tables[-1]


_SIDES = ("irrep_fve_left", "irrep_fve_right")


def irrep_fve_embedding() -> Measure:
    """Share of each irrep in the tables by which the left and the right element enter.

    ||Q_rho^T W||^2 / ||W||^2, W the embedding times the first layer. If the weights alone do not
    determine what an element adds to each neuron (there is attention in between), W is the
    embedding. A share near 1 means that the table uses this irrep alone.

    Returns:
        A Measure with ``irrep_fve_left`` and ``irrep_fve_right`` of dims (irrep), shares with sum
        1. It needs the role ``embedding`` and a task on a group (arXiv 2302.03025).
    """

    def _irrep_fve_embedding(params: Params, context: Context) -> dict[str, Array]:
        both = zip(_SIDES, operand_tables(params, context), strict=True)
        return {
            name: power_by_irrep(table, context) / jnp.square(table).sum() for name, table in both
        }

    return Measure(
        "irrep_fve_embedding",
        _irrep_fve_embedding,
        dict.fromkeys(_SIDES, ("irrep",)),
        roles=("embedding",),
        ground_truth=_BASIS,
        source=SOURCE,
    )


def irrep_fve_unembedding() -> Measure:
    """Share of each irrep in W_L^T, what the neurons add to each class.

    ||Q_rho^T W||^2 / ||W||^2 with W = W_L^T. A share near 1 means that the readout uses this irrep
    alone.

    Returns:
        A Measure with ``irrep_fve_unembedding`` of dims (irrep), shares with sum 1. It needs the
        role ``output_map`` and a task on a group (arXiv 2302.03025).
    """

    def _irrep_fve_unembedding(params: Params, context: Context) -> Float[Array, " irrep"]:
        table = unembedding_table(params, context)
        return power_by_irrep(table, context) / jnp.square(table).sum()

    return Measure(
        "irrep_fve_unembedding",
        _irrep_fve_unembedding,
        ("irrep",),
        roles=("output_map",),
        ground_truth=_BASIS,
        source=SOURCE,
    )


# --- Neurons

_FVE_X, _FVE_Y, _FVE_XY = _NEURON_FVES = (
    "irrep_fve_neurons_x",
    "irrep_fve_neurons_y",
    "irrep_fve_neurons_xy",
)


def answer_components(
    table: Float[Array, "pair unit"], context: Context
) -> Float[Array, "mode unit"]:
    """Q_xy^T T: components of a table over pairs along each basis function of the answer.

    The basis functions of the answer are normalised over the pairs.

    Args:
        table: one row per pair, in the order x |G| + y.
        context: of the reading.
    """
    n = len(context.ground_truth["irrep_basis"])
    by_answer = jnp.zeros((n, table.shape[1])).at[table_answers(context).ravel()].add(table)
    return components(by_answer, context) / jnp.sqrt(n)


def irrep_fve_neurons() -> Measure:
    """Share of the neurons' variance over all pairs along rho(x), rho(y) and rho(xy).

    ||Q^T A||^2 / ||A||^2, A the activations, each neuron centred over the pairs, Q a basis of the
    irrep's functions of x, of y or of the answer. Summed over the three it is the published MLP FVE
    of rho. A high share along rho(xy) means that the neurons hold the composed element.

    Returns:
        A Measure with ``irrep_fve_neurons_x``, ``irrep_fve_neurons_y`` and
        ``irrep_fve_neurons_xy`` of dims (irrep), shares from 0 to 1. It needs the role ``neurons``
        and a task on all pairs of a group (arXiv 2302.03025).
    """

    def _irrep_fve_neurons(params: Params, context: Context) -> dict[str, Array]:
        around, power = centred_units(table_neurons(params, context))
        n, total = around.shape[0], power.sum()
        parts = {_FVE_X: around.sum(axis=1), _FVE_Y: around.sum(axis=0)}
        shares = {name: power_by_irrep(part, context) / n / total for name, part in parts.items()}
        along = jnp.square(answer_components(around.reshape(n * n, -1), context)).sum(axis=1)
        return {**shares, _FVE_XY: by_irrep(along, context) / total}

    return Measure(
        "irrep_fve_neurons",
        _irrep_fve_neurons,
        dict.fromkeys(_NEURON_FVES, ("irrep",)),
        roles=("neurons",),
        ground_truth=_PAIRS,
        source=SOURCE,
    )


@shared
def key_read_out(params: Params, context: Context) -> Float[Array, "pair class"]:
    """H_r W_L for all pairs: what the key parts of the neurons add to each logit.

    H_r = sum_rho Q_xy Q_xy^T H over the key irreps of the final model, H the activations.
    """
    basis, n = context.ground_truth["irrep_basis"], len(context.ground_truth["irrep_basis"])
    is_key = context.prepared["final_key_irreps"][context.ground_truth["irrep_of_mode"]]
    along = jnp.where(is_key[:, None], answer_components(read_out(params, context), context), 0)
    return (basis @ along / jnp.sqrt(n))[table_answers(context).ravel()]


_HIDDEN_LOSS = {
    "roles": ("neurons", "output_map", "linear_readout"),
    "ground_truth": _LOGITS,
    "uses": frozenset({"final"}),
    "prepare": FINAL_KEY_IRREPS,
    "null": "other_frequencies",
    "options": {"keys": "final", "threshold": KEY_SIMILARITY},
    "units": "loss",
    "source": SOURCE,
}
"""Requirements of the hidden losses."""


def hidden_restricted_loss() -> Measure:
    """Loss over all pairs when the neurons keep only their part along rho(xy) of the key irreps.

    The activations H are replaced by H_r = sum_rho Q_xy Q_xy^T H over the final model's key irreps;
    H is not centred. What reaches the logits past the neurons, biases included, stays. A value near
    the full loss means that the key irreps suffice to explain the network.

    Returns:
        A Measure with the scalar ``hidden_restricted_loss``, in the units of the run's loss. It
        needs the final parameters, a linear readout of the neurons and a task on all pairs of a
        group (arXiv 2302.03025).
    """

    def _hidden_restricted_loss(params: Params, context: Context) -> Scalar:
        logits = pair_logits(params, context)
        change = key_read_out(params, context) - read_out(params, context)
        return pair_losses(logits + change, context).mean()

    return Measure("hidden_restricted_loss", _hidden_restricted_loss, **_HIDDEN_LOSS)


def hidden_excluded_loss() -> Measure:
    """Loss on the training pairs when the neurons lose their part along rho(xy) of the key irreps.

    The activations H are replaced by H - H_r (see ``hidden_restricted_loss``). The labels are those
    of training, label noise included. The loss rises above the training loss as the network comes
    to rely on the key irreps.

    Returns:
        A Measure with the scalar ``hidden_excluded_loss``, in the units of the run's loss. It needs
        the final parameters, a linear readout of the neurons and a task on all pairs of a group
        (arXiv 2302.03025).
    """

    def _hidden_excluded_loss(params: Params, context: Context) -> Scalar:
        logits = pair_logits(params, context)
        without = logits - key_read_out(params, context)
        losses = pair_losses(without, context, table_labels(context))
        return losses[table_split(context, "train")].mean()

    return Measure("hidden_excluded_loss", _hidden_excluded_loss, **_HIDDEN_LOSS)
