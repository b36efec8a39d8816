"""A transformer as a model: parameters under TransformerLens's names, its forward pass by either
route, its roles and sites.
"""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Array, Float, Int

from mi_jax.basics.dims import Params, PRNGKey
from mi_jax.basics.errors import require
from mi_jax.contracts import PLAIN, Inputs, Model, Roles, Taps
from mi_jax.models.initial import normal_parameters
from mi_jax.models.taps import Tapped
from mi_jax.models.transformer.forward import forward
from mi_jax.models.transformer.settings import TABLE, TransformerSettings
from mi_jax.models.transformer.sites import transformer_sites
from mi_jax.models.transformer.views import added_by_neurons, attention_heads, neuron_output_map


@dataclass(frozen=True)
class Transformer(TransformerSettings):
    """Pre-norm transformer of 1 to n layers. The defaults are the network of arXiv 2301.05217
    (Nanda et al.).

    Attributes:
        layers, d_model, heads: sizes.
        d_head: size of a head; None is d_model / heads, which must then be whole.
        d_mlp: hidden width of the MLPs; None is 4 d_model, 0 leaves them out (attention-only).
        activation: of the MLPs.
        normalization: before attention, MLP and unembedding; eps 1e-5.
        positions: "learned" vectors added to the embedding, "rotary" (halves, base 10,000), "none",
            or "relative": each layer has a vector for every distance query - key and head, W_rel_K
            added to keys and W_rel_V to values (arXiv 1803.02155, as in 2402.11004, Edelman et
            al.); "relative_keys" has those of the keys alone. Their rows [head distance d_head]
            begin at distance 0 where attention is causal, else at 1 - the task's positions.
        attention: which positions a query sees.
        attention_scale: scores are q.k / attention_scale; None is sqrt(d_head).
        attention_rate: the pattern is attention_rate softmax + (1 - attention_rate) ones, over the
            positions that are seen: from uniform sums (0) to attention (1), as in arXiv 2306.17844.
        attention_bias, mlp_bias, unembed_bias: which biases there are; they start at 0.
        output_vocabulary: logits a position has; None is the task's vocabulary, special tokens
            included.
        logit_scale: multiplies the logits.
        initialization: "nanda_2023": every matrix N(0, 1/d_model), W_U N(0, 1/output_vocabulary);
            "zhong_2023": the same, W_in N(0, 1/d_mlp); "edelman_2024": N(0, .02^2), W_O N(0,
            .01^2); "fan_in": N(0, 1/rows), W_E and W_pos N(0, 1/d_model), W_rel_K and W_rel_V N(0,
            1/d_head).
        init_scale: multiplies every initial matrix.
    """

    def build(self, inputs: Inputs) -> Model:
        """The model for these inputs."""
        task_inputs = inputs
        require(
            inputs.kind == "tokens",
            f"a transformer reads tokens, the task gives {inputs.kind}; use an mlp",
        )
        require(
            not inputs.causal or self.attention == "causal",
            f"attention={self.attention!r} would see the answers, which stand in this task's input;"
            " use 'causal'",
        )
        shapes = self.shapes(inputs)
        scales = {
            name: self._scale(name, shape)
            for name, shape in shapes.items()
            if name.split(".")[-1].startswith("W_")
        }
        sites = transformer_sites(self)

        def init(key: PRNGKey) -> Params:
            return normal_parameters(key, shapes, scales)

        def along(route: str | None) -> Callable[..., Float[Array, "batch read class"]]:
            def apply(
                params: Params,
                inputs: Int[Array, "batch position"],
                *,
                taps: Taps | None = None,
                positions: tuple[int, ...] | None = None,
            ) -> Float[Array, "batch read class"]:
                chosen = route or self.cheapest_route(task_inputs, inputs.shape, positions)
                return forward(
                    self,
                    params,
                    inputs,
                    Tapped(taps, sites),
                    positions,
                    task_inputs if chosen == TABLE else None,
                )

            return apply

        last = f"blocks.{self.layers - 1}"
        roles = Roles(
            embedding=(lambda params: params["embed"]["W_E"][: inputs.tokens],),
            output_map=(
                neuron_output_map(self.layers - 1, inputs.classes) if self.mlp_size else None
            ),
            neurons=f"{last}.mlp.post" if self.mlp_size else None,
            neurons_added=(
                added_by_neurons(self.layers - 1, inputs.classes) if self.mlp_size else None
            ),
            embedded="embed",
            unembedding=lambda params: params["unembed"]["W_U"][:, : inputs.classes],
            heads=attention_heads(self.layers),
            attention=tuple(f"blocks.{i}.attn.attn_scores" for i in range(self.layers)),
            patterns=tuple(f"blocks.{i}.attn.pattern" for i in range(self.layers)),
            linear_readout=self.normalization == "none" and self.logit_scale == 1.0,
            writers=self._writers(),
            readers=self._readers(),
        )
        return Model(
            init,
            along(None),
            roles,
            sites,
            {route: along(route) for route in (PLAIN, TABLE)},
            self.cheapest_route,
        )
