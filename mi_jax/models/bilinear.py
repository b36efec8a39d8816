"""The bilinear network of a pair of tokens: each neuron is a number of the one times a number of
the other.
"""

import math
from dataclasses import dataclass
from typing import Any

from jaxtyping import Array, Float, Int

from mi_jax.basics.dims import Params, PRNGKey
from mi_jax.basics.errors import require
from mi_jax.contracts import Architecture, Inputs, Model, Roles, Site, Taps
from mi_jax.models.entries import pair, table
from mi_jax.models.initial import normal_parameters
from mi_jax.models.products import lookup, matmul
from mi_jax.models.taps import Tapped

_NEURONS = ("batch", "position", "neuron")
_LOGITS = ("batch", "position", "class")


@dataclass(frozen=True)
class Bilinear(Architecture):
    """logits = (W_a[a] * W_b[b]) W_U, * elementwise: the least network that composes group elements
    (arXiv 2302.03025's code).

    Attributes:
        width: columns N of both tables.
        init_scale: initial weights are N(0, init_scale^2 / N), all three.
    """

    width: int = 256
    init_scale: float = 1.0

    def __post_init__(self) -> None:
        require(self.width >= 1, f"width={self.width}: must be at least 1")
        require(
            0 <= self.init_scale < math.inf,
            f"init_scale={self.init_scale}: must be a finite number of at least 0",
        )

    def build(self, inputs: Inputs) -> Model:
        """The model for a task with two varying tokens."""
        n, N, (place_a, place_b), sites = (
            inputs.tokens,
            self.width,
            pair(inputs, "a bilinear network"),
            bilinear_sites(),
        )
        shapes = {"embed_a.W_E": (n, N), "embed_b.W_E": (n, N), "unembed.W_U": (N, inputs.classes)}

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
                tapped.product(f"{name}.W_E", inputs[:, place, None], params[name]["W_E"], lookup)
                for name, place in (("embed_a", place_a), ("embed_b", place_b))
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


def bilinear_sites() -> tuple[Site, ...]:
    """The sites of a bilinear network, in the order of the forward pass."""
    return (
        *(Site(f"embed_{x}.W_E", f"embed_{x}.W_E[{x}]", _NEURONS, "product") for x in "ab"),
        Site("hidden.0.post", "embed_a.W_E[a] embed_b.W_E[b]", _NEURONS),
        Site("unembed.W_U", "hidden.0.post W_U", _LOGITS, "product"),
        Site("logits", "hidden.0.post W_U", _LOGITS),
    )
