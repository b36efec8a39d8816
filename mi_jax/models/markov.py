"""The smallest network that learns Markov chains in context (arXiv 2402.11004).

Its first layer averages over distances, its second matches tokens.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mi_jax.basics.dims import Params, PRNGKey
from mi_jax.basics.errors import ConfigError
from mi_jax.contracts import (
    PAIR_INPUTS,
    Architecture,
    DocumentedSites,
    Inputs,
    Model,
    Roles,
    Site,
    Taps,
)
from mi_jax.models.checks import check_init_scale
from mi_jax.models.initial import normal_parameters
from mi_jax.models.positions import causal_mask, distance_rows, positions_read
from mi_jax.models.products import lookup, spread
from mi_jax.models.site_dims import LOGIT_DIMS
from mi_jax.models.taps import Tapped


@dataclass(frozen=True)
class MarkovAttention(Architecture):
    """Two layers of attention that hold one vector v and one matrix W (arXiv 2402.11004).

    With e_i the one-hot token at position i, layer 0 looks back by learned distances,

        y_j = sum over s <= j of softmax_s(v[j - s]) e_s,

    and layer 1 matches the present token against what layer 0 found,

        logits_i = sum over j <= i of (e_i W . y_j) e_j.

    When v has learned to look one position back and W to match, the sum counts the tokens that
    have followed the present one: the statistical induction head.

    Attributes:
        init_scale: W starts as N(0, init_scale^2). v starts at 0, so that layer 0 averages over
            all tokens up to j.
    """

    init_scale: float = 0.01

    def __post_init__(self) -> None:
        check_init_scale(self.init_scale)

    @classmethod
    def documented_sites(cls) -> DocumentedSites:
        """The sites of both layers."""
        return (("One head per layer; tokens are one-hot.", cls().build(PAIR_INPUTS).sites),)

    def build(self, inputs: Inputs) -> Model:
        """Builds the model for a task whose classes are its tokens.

        Raises:
            ConfigError: if the task gives floats, or has more classes than tokens.
        """
        k = inputs.vocabulary
        if inputs.kind != "tokens" or k < inputs.classes:
            raise ConfigError(
                f"This model answers with one of its {k} tokens. The task has {inputs.classes}"
                f" classes of {inputs.kind}. Choose a task whose answers are tokens."
            )
        shapes = self.shapes(inputs)
        sites = markov_sites()

        def init(key: PRNGKey) -> Params:
            return normal_parameters(key, shapes, {"blocks.1.attn.W_QK": self.init_scale})

        def apply(
            params: Any,
            inputs: Int[Array, "batch position"],
            *,
            taps: Taps | None = None,
            positions: Any = None,
        ) -> Float[Array, "batch read class"]:
            tapped, length = Tapped(taps, sites), inputs.shape[1]
            everywhere, read = tuple(range(length)), positions_read(positions, length)
            first, second = (params["blocks"][i]["attn"] for i in ("0", "1"))
            e = lookup(inputs, jnp.eye(k))
            distances = distance_rows(everywhere, length, inputs.shape[1], causal=True)
            scores = tapped.product("blocks.0.attn.W_rel", distances, first["W_rel"], lookup)
            scores = jnp.where(causal_mask(everywhere, length), scores, -jnp.inf)
            pattern = tapped.at("blocks.0.attn.pattern", jax.nn.softmax(scores, axis=-1))
            y = tapped.at("blocks.0.attn.z", jnp.einsum("qk,bkv->bqv", pattern, e))
            q = tapped.product(
                "blocks.1.attn.W_QK", inputs[:, jnp.array(read)], second["W_QK"], lookup
            )
            match = jnp.einsum("bqv,bkv->bqk", q, y)
            match = jnp.where(spread(causal_mask(read, length), match), match, 0.0)
            match = tapped.at("blocks.1.attn.attn_scores", match)
            return tapped.at("logits", jnp.einsum("bqk,bkv->bqv", match, e))

        return Model(init, apply, Roles(), sites)

    def shapes(self, inputs: Inputs) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter, by dotted name."""
        k = inputs.vocabulary
        return {"blocks.0.attn.W_rel": (inputs.positions,), "blocks.1.attn.W_QK": (k, k)}


def markov_sites() -> tuple[Site, ...]:
    """The sites of a Markov attention network, in the order of the forward pass."""
    one_hots, a, b = ("batch", "position", "token"), "blocks.0.attn", "blocks.1.attn"
    return (
        Site(f"{a}.W_rel", "W_rel[max(query - key, 0)]", ("query", "key"), "product"),
        Site(f"{a}.pattern", "softmax over keys <= query of W_rel[query - key]", ("query", "key")),
        Site(f"{a}.z", "sum over keys of pattern onehot(token)", one_hots),
        Site(f"{b}.W_QK", "W_QK[tokens]", one_hots, "product"),
        Site(
            f"{b}.attn_scores",
            "W_QK[token] . blocks.0.attn.z, 0 where key > query",
            ("batch", "query", "key"),
        ),
        Site("logits", "sum over keys of attn_scores onehot(token)", LOGIT_DIMS),
    )
