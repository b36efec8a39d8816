"""Effects of probed subspaces: whether the model's answers use what a probe reads.

The subspace that a probe reads is erased, steered or swapped at its site, and the distribution of
the answers is compared with the unedited one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mi_jax.basics.dims import Params, Scalar
from mi_jax.basics.errors import ConfigError, check_choice
from mi_jax.contracts import Context, Measure, mean_loss, option_suffix
from mi_jax.measures.activations import (
    centred_rows,
    positions_of,
    row_functions,
    site_vectors,
)
from mi_jax.measures.behaviour import class_outputs
from mi_jax.measures.erasure import (
    How,
    class_means,
    displace,
    displacement,
    probed_subspace,
    random_subspaces,
    steering,
    whiten,
    whitening,
)
from mi_jax.measures.evaluation import all_inputs
from mi_jax.measures.linear_probes import one_hot_rows
from mi_jax.measures.probes import Probe, concept_labels, measure_of, probe_of, row_values

SOURCE = "arXiv 2306.03819"

RANK = 4
"""Most directions of a subspace."""

EXAMPLES = 512
"""Number of vectors (examples times positions) that are edited."""

DRAWS = 20
"""Random subspaces of the null. A subspace like them exceeds all of them once in 21 times."""

_SEED = 2
"""Seed of the edited examples and of the random subspaces."""


@dataclass(frozen=True)
class _Edits:
    """The options of ``probe_effect``.

    Attributes:
        probe: sites, concepts, position and ridge.
        how: name of the edit.
        rank: most directions of a subspace.
        examples: number of vectors (examples times positions) that are edited.
        draws: random subspaces of the null.
    """

    probe: Probe
    how: How
    rank: int
    examples: int
    draws: int

    def __post_init__(self) -> None:
        check_choice("how", self.how, get_args(How))
        for name in ("rank", "examples", "draws"):
            value = getattr(self, name)
            if not value >= 1:
                raise ConfigError(f"{name}={value} is invalid. It must be at least 1.")
        if self.probe.kind != "ridge" or self.probe.held_out is not None:
            raise ConfigError(
                f"kind={self.probe.kind!r}, held_out={self.probe.held_out!r} are invalid here. The"
                " subspace is what a ridge probe reads of all examples. Please leave kind and"
                " held_out out."
            )

    def suffix(self) -> str:
        """The suffix of the measure's name: options other than the published ones."""
        published = {"how": "erase", "rank": RANK, "examples": EXAMPLES, "draws": DRAWS}
        chosen = {name: getattr(self, name) for name in published}
        return option_suffix(chosen, published, bare=("how",)) + self.probe.suffix()


def total_variation(
    before: Float[Array, "b position output"],
    after: Float[Array, "b position output"],
    weights: Float[Array, "b position"],
) -> Scalar:
    """Mean total variation distance of the answers' distributions: sum_c |p_c - p'_c| / 2.

    Args:
        before: outputs of the model.
        after: outputs after an edit.
        weights: of each answer in the mean; 0 leaves an answer out.

    Returns:
        0 if no distribution moved, 1 if all probability went to other classes.
    """
    p, q = (jax.nn.softmax(class_outputs(out), axis=-1) for out in (before, after))
    return mean_loss(jnp.abs(p - q).sum(axis=-1) / 2, weights)


def probe_effect(
    how: How = "erase",
    *,
    rank: int = RANK,
    examples: int = EXAMPLES,
    draws: int = DRAWS,
    **options: Any,
) -> Measure:
    """How far the answers' distribution moves when a concept's probed subspace is edited.

    The effect is the mean total variation distance (``total_variation``) between the outputs
    before and after the edit. The subspace is spanned by the class means of the whitened vectors
    of all examples (see ``erasure``): it is what ridge regression reads, leading directions first.
    A concept is used at a site where its effect exceeds those of all random subspaces. Where the
    last direction of the subspace and the next one are nearly equal, rounding decides between them.

    Args:
        how: "erase" removes a vector's part in the subspace. "steer" moves each vector within the
            subspace from its class's mean to another example's. "swap" puts another example's part
            in its place. The other example is the next one in the order in which they are drawn.
        rank: most directions of the subspace. There are at most classes - 1, and at most half of
            the site's dimensions: with all directions erased, a subspace could not be told from a
            random one.
        examples: number of vectors (examples times positions) that are edited; drawn once.
        draws: number of random subspaces of the null.
        options: fields of ``Probe``; the kind stays "ridge" and ``held_out`` unset.

    Returns:
        A measure with two variables: ``probe_effect``, dims (site, concept), between 0 and 1; and
        ``probe_effect_null``, dims (site, concept, draw), the same edits of random subspaces of
        the same rank in the same whitened space. Options are a suffix after ``probe_effect``.
        Source: arXiv 2306.03819.

    Raises:
        ConfigError: for an option that does not exist or is invalid.
    """
    edits = _Edits(probe_of(options), how, rank, examples, draws)
    name = f"probe_effect{edits.suffix()}"

    def _probe_effect(params: Params, context: Context) -> dict[str, Array]:
        edits.probe.check(context)
        sites = edits.probe.site_names(context.model)
        effects = jnp.stack([_site_effects(params, context, site, edits) for site in sites])
        return {name: effects[:, :, 0], f"{name}_null": effects[:, :, 1:]}

    return measure_of(
        name,
        _probe_effect,
        {name: ("site", "concept"), f"{name}_null": ("site", "concept", "draw")},
        edits.probe,
        source=SOURCE,
        options={
            "how": how,
            "rank": rank,
            "examples": examples,
            "draws": draws,
            "effect": "total variation",
        },
        coordinates={"draw": tuple(range(draws))},
    )


def _site_effects(
    params: Params, context: Context, site: str, edits: _Edits
) -> Float[Array, "concept draw"]:
    """The effects of one site's edits per concept: of the probed subspace, then of the null's."""
    position = edits.probe.position
    positions = positions_of(context, position)
    take, put = row_functions(context, site, positions)
    X = site_vectors(params, context, edits.probe.site_names(context.model), positions)[site]
    inputs, count = all_inputs(context), len(positions)
    order = np.random.default_rng(_SEED).permutation(len(inputs))
    chosen = order[: max(edits.examples // count, 1)]
    edited_inputs, by = inputs[chosen], whitening(X, edits.probe.ridge)
    weights = jnp.concatenate(
        [jnp.asarray(context.batches[split].weights) for split in sorted(context.batches)]
    )[chosen]
    rows = (chosen[:, None] * count + np.arange(count)).ravel()
    subspaces, displacements, indices = _subspaces(whiten(X, by), rows, context, edits)

    def answers(
        displaced: Float[Array, "row rank"], Q: Float[Array, "d rank"]
    ) -> Float[Array, "b position output"]:
        taps = {site: lambda value: put(value, displace(take(value), displaced, Q, by))}
        if position is None:
            return context.model.apply(params, edited_inputs, taps=taps, positions=context.read)
        # The edited position need not be read, so all positions are computed.
        out = context.model.apply(params, edited_inputs, taps=taps)
        return out[:, np.array(context.read)] if out.shape[1] == context.inputs.positions else out

    def effects() -> Float[Array, " subspace"]:
        # The unedited answers come from an edit by 0: the two passes differ in nothing else.
        before = answers(0 * displacements(0, subspaces[0]), subspaces[0])

        def effect(i: Int[Array, ""]) -> Scalar:
            after = answers(displacements(i, subspaces[i]), subspaces[i])
            return total_variation(before, after, weights)

        return jax.lax.map(effect, jnp.arange(len(subspaces)))

    # A site that never varies has nothing to erase.
    constant = (centred_rows(X, len(X))[0] == 0).all()
    values = jax.lax.cond(constant, lambda: jnp.zeros(len(subspaces)), effects)
    return jnp.where(jnp.isfinite(X).all(), values, jnp.nan)[indices]


class _Subspaces(NamedTuple):
    """All subspaces of a site, padded with zero columns to equal rank.

    Attributes:
        subspaces: those of the concepts, then the random ones.
        displacements: (index, subspace) -> how far the edited vectors move along its columns.
        indices: by concept, the index of its own subspace and of its random ones.
    """

    subspaces: Float[Array, "subspace d rank"]
    displacements: Callable[..., Float[Array, "row rank"]]
    indices: Int[np.ndarray, "concept draw"]


def _subspaces(
    Z: Float[Array, "all d"], edited: Int[np.ndarray, " row"], context: Context, edits: _Edits
) -> _Subspaces:
    """The probed and the random subspaces of a site.

    Subspaces have zero columns up to the largest rank, so that one program serves all of them.
    Erasing or swapping a random subspace does not depend on the concept, so concepts of equal rank
    share the random ones. Steering follows the concept's own means, so that each concept needs its
    own.

    Args:
        Z: all whitened vectors.
        edited: indices of the vectors that are edited.
        context: of the reading.
        edits: the options.
    """
    position, draws = edits.probe.position, edits.draws
    labels = concept_labels(edits.probe, context)
    d, n, ahead = Z.shape[1], len(labels), len(positions_of(context, position))
    ranks = [max(1, min(edits.rank, concept.classes - 1, d // 2)) for concept in labels]
    Y = [
        one_hot_rows([row_values(concept, context, position)], (concept.classes,))
        for concept in labels
    ]

    def padded(Q: Float[Array, "*draw d r"]) -> Float[Array, "*draw d rank"]:
        return jnp.pad(Q, [(0, 0)] * (Q.ndim - 1) + [(0, max(ranks) - Q.shape[-1])])

    probed = jnp.stack(
        [padded(probed_subspace(Z, y, rank)) for y, rank in zip(Y, ranks, strict=True)]
    )
    steers = edits.how == "steer"
    null_ranks = ranks if steers else sorted(set(ranks))
    random = [padded(random_subspaces(Z, rank, draws, _SEED)) for rank in null_ranks]
    null_of_concept = list(range(n)) if steers else [null_ranks.index(rank) for rank in ranks]
    indices = np.array(
        [
            [concept, *(n + draws * null + np.arange(draws))]
            for concept, null in enumerate(null_of_concept)
        ]
    )
    subspaces = jnp.concatenate([probed, *random])
    if not steers:
        return _Subspaces(
            subspaces, lambda i, Q: displacement(edits.how, Z[edited], Q, ahead), indices
        )
    steps = jnp.stack(
        [
            steering(class_means(Z, y), y[:, edited], Q, ahead)
            for y, Q in zip(Y, probed, strict=True)
        ]
    )
    concept_of_subspace = jnp.asarray(
        np.concatenate([np.arange(n), np.repeat(np.arange(n), draws)])
    )
    return _Subspaces(subspaces, lambda i, Q: steps[concept_of_subspace[i]], indices)
