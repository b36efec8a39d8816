"""An MLP on a pair of one-hot tokens: the smallest network that groks modular addition (arXiv 2301.02679, Gromov)."""

import math
from dataclasses import dataclass
from typing import Any, get_args

from jaxtyping import Array, Float, Int

from mi_jax.arrays import Params, PRNGKey
from mi_jax.contracts import Architecture, Inputs, Model, Roles, Taps
from mi_jax.errors import nearest, require
from mi_jax.models.activations import ACTIVATIONS, Activation
from mi_jax.models.initial import normal_parameters
from mi_jax.models.products import lookup, matmul, spread
from mi_jax.models.sites import mlp_sites
from mi_jax.models.taps import Tapped


@dataclass(frozen=True)
class MLP(Architecture):
    """logits = f(W_a[a] + W_b[b]) W_U: one hidden layer on the two tokens of the input that vary, one-hot.

    Attributes:
        width: hidden neurons N.
        activation: f; quadratic is Gromov's.
        bias: whether the hidden layer and the output have biases (they start at 0).
        init_scale: initial weights are N(0, init_scale^2 / rows), rows being 2 x tokens for the two tables, N for W_U.
    """

    width: int = 256
    activation: Activation = "quadratic"
    bias: bool = False
    init_scale: float = 1.0

    def __post_init__(self) -> None:
        require(self.width >= 1, f"width={self.width}: must be at least 1")
        require(0 <= self.init_scale < math.inf, f"init_scale={self.init_scale}: must be a finite number of at least 0")
        known = get_args(Activation)
        require(self.activation in known, f"activation={self.activation!r} is unknown; {nearest(str(self.activation), known)}")

    def build(self, inputs: Inputs) -> Model:
        """The model for a task with two varying tokens."""
        require(
            inputs.kind == "tokens" and len(inputs.varied) == 2,
            f"an mlp reads a pair of tokens; the task has {len(inputs.varied)} varying positions of {inputs.kind}",
        )
        n, N, outputs = inputs.tokens, self.width, inputs.classes
        shapes: dict[str, tuple[int, ...]] = {"embed_a.W_E": (n, N), "embed_b.W_E": (n, N), "unembed.W_U": (N, outputs)}
        scales = {"embed_a.W_E": 2 * n, "embed_b.W_E": 2 * n, "unembed.W_U": N}
        if self.bias:
            shapes |= {"embed.b": (N,), "unembed.b_U": (outputs,)}
        sites, (place_a, place_b) = mlp_sites(self), inputs.varied

        def init(key: PRNGKey) -> Params:
            return normal_parameters(key, shapes, {name: self.init_scale / math.sqrt(rows) for name, rows in scales.items()})

        def apply(
            params: Any, inputs: Int[Array, "batch position"], *, taps: Taps | None = None, positions: Any = None
        ) -> Float[Array, "batch 1 class"]:
            tapped = Tapped(taps, sites)
            tables = (("embed_a", place_a), ("embed_b", place_b))
            looked_up = [
                tapped.product(f"{name}.W_E", inputs[:, place, None], params[name]["W_E"], lookup) for name, place in tables
            ]
            pre = looked_up[0] + looked_up[1]
            pre = tapped.at("hidden.0.pre", pre + spread(params["embed"]["b"], pre) if self.bias else pre)
            post = tapped.at("hidden.0.post", ACTIVATIONS[self.activation](pre))
            out = tapped.product("unembed.W_U", post, params["unembed"]["W_U"], matmul)
            return tapped.at("logits", out + spread(params["unembed"]["b_U"], out) if self.bias else out)

        tables = (lambda params: params["embed_a"]["W_E"], lambda params: params["embed_b"]["W_E"])
        roles = Roles(
            embedding=tables,
            neuron_inputs=tables,
            output_map=lambda params: params["unembed"]["W_U"],
            neurons="hidden.0.post",
            linear_readout=True,
        )
        return Model(init, apply, roles, sites)
