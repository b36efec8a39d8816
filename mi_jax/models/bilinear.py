"""The bilinear network on a pair of tokens: a neuron is a product of one number per token."""

import math
from dataclasses import dataclass
from typing import Any

from jaxtyping import Array, Float, Int

from mi_jax.basics.dims import Params, PRNGKey
from mi_jax.contracts import Architecture, Inputs, Model, Roles, Site, Taps
from mi_jax.models.checks import check_at_least_one, check_init_scale
from mi_jax.models.entries import pair_positions, table
from mi_jax.models.initial import normal_parameters
from mi_jax.models.products import lookup, matmul
from mi_jax.models.site_dims import LOGIT_DIMS, NEURON_DIMS
from mi_jax.models.taps import Tapped


@dataclass(frozen=True)
class Bilinear(Architecture):
    """A bilinear network, the smallest that composes group elements (code of arXiv 2302.03025).

    logits = (W_a[a] * W_b[b]) W_U, where * is elementwise.

    Attributes:
        width: number of columns N of both tables W_a and W_b.
        init_scale: all three matrices start as N(0, init_scale^2 / N).
    """

    width: int = 256
    init_scale: float = 1.0

    def __post_init__(self) -> None:
        check_at_least_one(self, "width")
        check_init_scale(self.init_scale)

    @classmethod
    def smallest(cls) -> "Bilinear":
        """Sixteen neurons."""
        return cls(width=16)

    def build(self, inputs: Inputs) -> Model:
        """Builds the model for a task with two varying tokens.

        Raises:
            ConfigError: if the task's inputs are not a pair of tokens.
        """
        N = self.width
        position_a, position_b = pair_positions(inputs, "A bilinear network")
        sites = bilinear_sites()
        shapes = self.shapes(inputs)

        def init(key: PRNGKey) -> Params:
            return normal_parameters(
                key, shapes, dict.fromkeys(shapes, self.init_scale / math.sqrt(N))
            )

        def apply(
            params: Any,
            inputs: Int[Array, "batch position"],
            *,
            taps: Taps | None = None,
            positions: Any = None,
        ) -> Float[Array, "batch 1 class"]:
            tapped = Tapped(taps, sites)
            first, second = (
                tapped.product(
                    f"{name}.W_E", inputs[:, position, None], params[name]["W_E"], lookup
                )
                for name, position in (("embed_a", position_a), ("embed_b", position_b))
            )
            post = tapped.at("hidden.0.post", first * second)
            return tapped.at(
                "logits", tapped.product("unembed.W_U", post, params["unembed"]["W_U"], matmul)
            )

        roles = Roles(
            embedding=(table("embed_a"), table("embed_b")),
            output_map=lambda params: params["unembed"]["W_U"],
            neurons="hidden.0.post",
            linear_readout=True,
        )
        return Model(init, apply, roles, sites)

    def shapes(self, inputs: Inputs) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter, by dotted name."""
        n, N = inputs.tokens, self.width
        return {"embed_a.W_E": (n, N), "embed_b.W_E": (n, N), "unembed.W_U": (N, inputs.classes)}


def bilinear_sites() -> tuple[Site, ...]:
    """The sites of a bilinear network, in the order of the forward pass."""
    return (
        *(Site(f"embed_{x}.W_E", f"embed_{x}.W_E[{x}]", NEURON_DIMS, "product") for x in "ab"),
        Site("hidden.0.post", "embed_a.W_E[a] embed_b.W_E[b]", NEURON_DIMS),
        Site("unembed.W_U", "hidden.0.post W_U", LOGIT_DIMS, "product"),
        Site("logits", "hidden.0.post W_U", LOGIT_DIMS),
    )
