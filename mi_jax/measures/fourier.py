"""The Fourier basis of Z_p, and what of the weights lies along each frequency (arXiv 2301.05217, section 4).

F has orthonormal rows: 1/sqrt(p), then cos(2 pi k x / p) and sin(2 pi k x / p) for k = 1 ... p // 2, each divided by its norm;
for even p the last frequency has a cosine only. Tables are found by role, so that these measures need no particular model.
"""

from functools import lru_cache

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mi_jax.arrays import Params, Scalar
from mi_jax.contracts import Context, Measure, Reference

SOURCE = "arXiv 2301.05217"
KEY_THRESHOLD = 0.25
"""Share of the largest component above which a frequency is key."""


@lru_cache(maxsize=8)
def fourier_basis(p: int) -> Float[np.ndarray, "component token"]:
    """F [p p]: rows 1/sqrt(p), cos 1, sin 1, cos 2, sin 2, ... (for even p the last row is the alternating one).

    Example:
        >>> bool(np.allclose(fourier_basis(5) @ fourier_basis(5).T, np.eye(5), atol=1e-6))
        True
    """
    x = np.arange(p)
    rows = [np.ones(p)]
    for k in range(1, p // 2 + 1):
        angle = 2 * np.pi * k * x / p
        rows += [np.cos(angle), np.sin(angle)] if 2 * k != p else [np.cos(angle)]
    basis = np.stack(rows)
    return (basis / np.linalg.norm(basis, axis=1, keepdims=True)).astype(np.float32)


def frequencies(p: int) -> int:
    """How many frequencies there are: p // 2."""
    return p // 2


def component_norms(table: Float[Array, "token d"]) -> Float[Array, " component"]:
    """Norms of the rows of F @ table, without the constant: cos 1, sin 1, cos 2, sin 2, ..."""
    return jnp.linalg.norm(fourier_basis(table.shape[0]) @ table, axis=1)[1:]


def by_frequency(components: Float[Array, " component"], frequency_count: int) -> Float[Array, "frequency part"]:
    """Components as [cos, sin] of each frequency; 0 where an even p has no sine."""
    padding = 2 * frequency_count - components.shape[0]
    return jnp.pad(components, (0, padding)).reshape(frequency_count, 2)


def embedding_table(params: Params, context: Context) -> Float[Array, "token d"]:
    """The embedding of the task's tokens; several tables side by side along the columns."""
    return jnp.concatenate([jnp.asarray(table(params)) for table in context.model.roles.embedding], axis=1)


def unembedding_table(params: Params, context: Context) -> Float[Array, "class neuron"]:
    """W_L^T = (W_out W_U)^T, the task's classes only: what neurons add to each logit."""
    assert context.model.roles.output_map is not None
    return jnp.asarray(context.model.roles.output_map(params)).T


TABLES = {"embedding": (embedding_table, "embedding"), "unembedding": (unembedding_table, "output_map")}
"""By place, the table of residues that is read and the role that it needs."""


def fourier_power(place: str) -> Measure:
    """||F_k table||^2 over the sum of all non-constant ones: the share of each frequency (cosine and sine together)."""
    table, role = TABLES[place]

    def function(params: Params, context: Context) -> Float[Array, " frequency"]:
        norms = component_norms(table(params, context))
        power = (by_frequency(norms, frequencies(context.inputs.classes)) ** 2).sum(axis=1)
        return power / power.sum()

    return Measure(f"fourier_power_{place}", function, ("frequency",), roles=(role,), concepts=("cyclic_answer",), source=SOURCE)


def gini(x: Float[Array, " n"]) -> Scalar:
    """Gini coefficient 2 sum_i i x_(i) / (n sum x) - (n + 1) / n, x ascending: 0 where all are equal, 1 - 1/n for one alone."""
    n = x.shape[0]
    return 2 * (jnp.arange(1, n + 1) * jnp.sort(x)).sum() / (n * x.sum()) - (n + 1) / n


def fourier_gini(place: str) -> Measure:
    """Gini coefficient of the norms of the Fourier components, cos and sin apart, without the constant."""
    table, role = TABLES[place]

    def function(params: Params, context: Context) -> Scalar:
        return gini(component_norms(table(params, context)))

    return Measure(f"gini_{place}", function, roles=(role,), concepts=("cyclic_answer",), source=SOURCE)


def key_mask(params: Params, context: Context) -> Bool[Array, " frequency"]:
    """Frequencies whose cosine or sine component of W_L exceeds a quarter of the largest non-constant one."""
    norms = component_norms(unembedding_table(params, context))
    best = by_frequency(norms, frequencies(context.inputs.classes)).max(axis=1)
    return best > KEY_THRESHOLD * best.max()


def key_frequencies() -> Measure:
    """Which frequencies the unembedding uses, read afresh at each checkpoint (online): see ``key_mask``."""
    options = {"table": "W_L", "threshold": KEY_THRESHOLD}
    return Measure(
        "key_frequencies",
        key_mask,
        ("frequency",),
        roles=("output_map",),
        concepts=("cyclic_answer",),
        options=options,
        source=SOURCE,
    )


def final_keys(reference: Reference, context: Context) -> Bool[Array, " frequency"]:
    """The key frequencies of the final model: what restricted and excluded loss are frozen to."""
    return key_mask(reference.final, context)


FINAL_KEYS = {"final_key_frequencies": final_keys}
"""The preparation that measures frozen to the final model's key frequencies declare."""
