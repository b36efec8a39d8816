"""What is used: how the answer's distribution moves when what a probe reads is erased, steered or
swapped.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mi_jax.basics.dims import Params, Scalar
from mi_jax.basics.errors import nearest, require
from mi_jax.contracts import Context, Measure, mean_loss
from mi_jax.measures.activations import all_inputs, centred, positions_of, site_vectors, vectors
from mi_jax.measures.behaviour import class_outputs
from mi_jax.measures.erasure import (
    How,
    class_means,
    coordinates,
    moved,
    probed_subspace,
    random_subspaces,
    steering,
    whiten,
    whitening,
)
from mi_jax.measures.linear_probes import one_hot_rows
from mi_jax.measures.probes import Probe, concept_labels, measure_of, probe_of, row_values

SOURCE = "arXiv 2306.03819"

RANK = 4
EXAMPLES = 512
DRAWS = 20
"""Of the null: one that is no different lies beyond all of them once in 21 times."""
_SEED = 2
"""Of the examples that are edited, and of the random subspaces."""


@dataclass(frozen=True)
class _Edits:
    """The options of ``probe_effect``."""

    probe: Probe
    how: How
    rank: int
    examples: int
    draws: int

    def __post_init__(self) -> None:
        require(
            self.how in get_args(How),
            f"how={self.how!r} is unknown; {nearest(str(self.how), get_args(How))}",
        )
        for name in ("rank", "examples", "draws"):
            require(getattr(self, name) >= 1, f"{name}={getattr(self, name)}: must be at least 1")
        require(
            self.probe.kind == "ridge" and self.probe.held_out is None,
            "the subspace is what ridge reads of all examples: leave kind and held_out out",
        )

    def suffix(self) -> str:
        """What is added to the measure's name; nothing with the published options."""
        parts = [self.how] * (self.how != "erase")
        usual = {"rank": RANK, "examples": EXAMPLES, "draws": DRAWS}
        parts += [
            f"{name}_{getattr(self, name)}"
            for name, value in usual.items()
            if getattr(self, name) != value
        ]
        return "".join(f"_{part}" for part in parts) + self.probe.suffix()


def total_variation(
    before: Float[Array, "b position output"],
    after: Float[Array, "b position output"],
    weights: Float[Array, "b position"],
) -> Scalar:
    """Mean over the answers that count of sum_c |p_c - p'_c| / 2: 0 where none moved, 1 where every
    one went elsewhere.
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
    """How far the answers' distribution moves, by site and concept, when the probed subspace at the
    position is changed.

    The total variation distance (``total_variation``) between the outputs before and after. The
    subspace is that of the class means of whitened vectors over all examples (see ``erasure``):
    what ridge regression reads, its leading directions first. "erase" takes it away; "steer" moves
    each example from its class's mean to another example's along it; "swap" puts another example's
    part in its place. ``_null``, by draw: the same to a random subspace of the same rank, in the
    same whitened space.

    Args:
        rank: directions, at most: no more than classes - 1, and half of the site's dimensions (of a
            site with all directions gone nothing could be told from a random choice of them).
        examples: how many rows (examples times positions), drawn once, are edited. draws: of the
            null.
        options: see ``Probe``; the kind is ridge and nothing is held out.

    Raises:
        ConfigError: for options that can't be.
    """
    edits = _Edits(probe_of(options), how, rank, examples, draws)
    name = f"probe_effect{edits.suffix()}"

    def function(params: Params, context: Context) -> dict[str, Array]:
        edits.probe.check(context)
        sites = edits.probe.site_names(context.model)
        both = jnp.stack([_site_effects(params, context, site, edits) for site in sites])
        return {name: both[:, :, 0], f"{name}_null": both[:, :, 1:]}

    dims = {name: ("site", "concept"), f"{name}_null": ("site", "concept", "draw")}
    told = {
        "how": how,
        "rank": rank,
        "examples": examples,
        "draws": draws,
        "effect": "total variation",
    }
    return measure_of(
        name,
        function,
        dims,
        edits.probe,
        source=SOURCE,
        options=told,
        coordinates={"draw": tuple(range(draws))},
    )


def _site_effects(
    params: Params, context: Context, site: str, edits: _Edits
) -> Float[Array, "concept draw"]:
    """Effects of one site's edits by concept, the probed subspace's first, then those of the null."""
    positions = positions_of(context, edits.probe.position)
    take, put = vectors(context, site, positions)
    X = site_vectors(params, context, edits.probe.site_names(context.model), positions)[site]
    inputs, count = all_inputs(context), len(positions)
    chosen = np.random.default_rng(_SEED).permutation(len(inputs))[
        : max(edits.examples // count, 1)
    ]
    few, by = inputs[chosen], whitening(X, edits.probe.ridge)
    weights = jnp.concatenate(
        [jnp.asarray(context.batches[split].weights) for split in sorted(context.batches)]
    )[chosen]
    rows = (chosen[:, None] * count + np.arange(count)).ravel()
    frames, moves, places = _frames(whiten(X, by), rows, context, edits)

    def answers(
        along: Float[Array, "row rank"], Q: Float[Array, "d rank"]
    ) -> Float[Array, "b position output"]:
        taps = {site: lambda value: put(value, moved(take(value), along, Q, by))}
        if edits.probe.position is None:
            return context.model.apply(params, few, taps=taps, positions=context.read)
        # What is edited need not be what is read.
        out = context.model.apply(params, few, taps=taps)
        return out[:, np.array(context.read)] if out.shape[1] == context.inputs.positions else out

    def effects() -> Float[Array, " frame"]:
        # Not moved, on the same route: nothing else may differ.
        before = answers(0 * moves(0, frames[0]), frames[0])
        each = lambda i: total_variation(before, answers(moves(i, frames[i]), frames[i]), weights)  # noqa: E731
        return jax.lax.map(each, jnp.arange(len(frames)))

    constant = (centred(X, len(X))[0] == 0).all()
    found = jax.lax.cond(constant, lambda: jnp.zeros(len(frames)), effects)
    return jnp.where(jnp.isfinite(X).all(), found, jnp.nan)[places]


def _frames(
    Z: Float[Array, "all d"], edited: Int[np.ndarray, " row"], context: Context, edits: _Edits
) -> tuple[
    Float[Array, "frame d rank"],
    Callable[..., Float[Array, "row rank"]],
    Int[np.ndarray, "concept draw"],
]:
    """All subspaces, each concept's first; how far the edited rows are moved along the i-th of
    them; and which are whose.

    Subspaces have zero columns up to the largest rank, so that one program serves all. What a
    random one of a rank does is the same for every concept, unless examples are steered by the
    concept's own means.
    """
    probe, held = edits.probe, concept_labels(edits.probe, context)
    d, draws, n, ahead = (
        Z.shape[1],
        edits.draws,
        len(held),
        len(positions_of(context, probe.position)),
    )
    ranks = [max(1, min(edits.rank, one.classes - 1, d // 2)) for one in held]
    Y = [one_hot_rows([row_values(one, context, probe.position)], (one.classes,)) for one in held]
    wide = lambda Q: jnp.pad(Q, [(0, 0)] * (Q.ndim - 1) + [(0, max(ranks) - Q.shape[-1])])  # noqa: E731
    probed = jnp.stack([wide(probed_subspace(Z, one, r)) for one, r in zip(Y, ranks, strict=True)])
    shared_by = (
        list(range(n)) if edits.how == "steer" else [sorted(set(ranks)).index(r) for r in ranks]
    )
    nulls = ranks if edits.how == "steer" else sorted(set(ranks))
    random = [wide(random_subspaces(Z, r, draws, _SEED)) for r in nulls]
    places = np.array(
        [[c, *(n + draws * own + np.arange(draws))] for c, own in enumerate(shared_by)]
    )
    if edits.how == "steer":
        steps = jnp.stack(
            [
                steering(class_means(Z, one), one[:, edited], Q, ahead)
                for one, Q in zip(Y, probed, strict=True)
            ]
        )
        owner = jnp.asarray(np.concatenate([np.arange(n), np.repeat(np.arange(n), draws)]))
        return jnp.concatenate([probed, *random]), lambda i, Q: steps[owner[i]], places
    return (
        jnp.concatenate([probed, *random]),
        lambda i, Q: coordinates(edits.how, Z[edited], Q, ahead),
        places,
    )
