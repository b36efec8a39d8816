"""The transformer as a model: init, apply by either route, roles and sites."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Array, Float, Int

from mi_jax.basics.dims import Params, PRNGKey
from mi_jax.contracts import (
    PAIR_INPUTS,
    PLAIN,
    DocumentedSites,
    Inputs,
    Model,
    Roles,
    Site,
    Taps,
)
from mi_jax.models.initial import normal_parameters
from mi_jax.models.taps import Tapped
from mi_jax.models.transformer.forward import forward
from mi_jax.models.transformer.settings import TABLE, TransformerSettings
from mi_jax.models.transformer.sites import transformer_sites
from mi_jax.models.transformer.views import added_by_neurons, attention_heads, neuron_output_map


@dataclass(frozen=True)
class Transformer(TransformerSettings):
    """A transformer of one or more layers, with the norm, if any, before each sublayer.

    The defaults are the network of Nanda et al. (arXiv 2301.05217). Parameters are named as in
    TransformerLens and act on row vectors, x W.

    Attributes:
        layers: number of layers.
        d_model: width of the residual stream.
        heads: attention heads per layer.
        d_head: size of a head; None for d_model / heads, which must then be whole.
        d_mlp: hidden width of the MLPs; None for 4 d_model, 0 for attention only.
        activation: the elementwise function of the MLPs.
        normalization: the norm before attention, MLP and unembedding, with eps 1e-5: "none",
            "layer" (LayerNorm) or "rms" (RMSNorm).
        positions: how positions enter.
            "learned": a vector per position, added to the embedding.
            "rotary": queries and keys are turned by their position (base 10,000; see
            ``positions.rotate``).
            "relative": each layer has a vector per head and distance query - key, W_rel_K added to
            keys and W_rel_V to values (arXiv 1803.02155, as in Edelman et al., 2402.11004), each
            [head distance d_head]. The first row is distance 0 if attention is causal, else
            distance 1 - the task's positions.
            "relative_keys": "relative" with W_rel_K alone.
            "none": not at all.
        attention: which positions a query sees: those up to its own ("causal") or all
            ("bidirectional").
        attention_scale: divisor of the scores q . k; None for sqrt(d_head).
        attention_rate: r in pattern = r softmax(scores) + (1 - r) ones, over the positions that are
            seen: from uniform sums (0) to attention (1), as in arXiv 2306.17844.
        attention_bias: whether Q, K, V and O have biases. All biases start at 0.
        mlp_bias: whether the MLPs have biases.
        unembed_bias: whether the unembedding has a bias.
        output_vocabulary: number of logits per position; None for the task's vocabulary, special
            tokens included.
        logit_scale: factor on the logits.
        initialization: distribution of the initial matrices, as N(mean, variance).
            "nanda_2023": N(0, 1/d_model), W_U N(0, 1/output_vocabulary).
            "zhong_2023": as "nanda_2023", with W_in N(0, 1/d_mlp).
            "edelman_2024": N(0, 0.02^2), W_O N(0, 0.01^2).
            "fan_in": N(0, 1/rows), W_E and W_pos N(0, 1/d_model), W_rel_K and W_rel_V
            N(0, 1/d_head).
        init_scale: factor on every initial matrix.

    Example:
        >>> from mi_jax.tasks import ModularArithmetic
        >>> model = Transformer(layers=2, d_head=16).build(ModularArithmetic(p=7).inputs)
        >>> model.sites[0].name
        'embed.W_E'
    """

    @classmethod
    def smallest(cls) -> "Transformer":
        """Two heads in a stream of width 16."""
        return cls(d_model=16, heads=2, d_mlp=32)

    @classmethod
    def documented_sites(cls) -> DocumentedSites:
        """The sites of any layer i, and those that norms, rotary and relative positions add."""
        learned, rotary, relative = (
            _any_layer(settings.build(PAIR_INPUTS).sites)
            for settings in (
                cls(layers=2, attention_bias=True, unembed_bias=True),
                cls(layers=2, positions="rotary", normalization="layer"),
                cls(layers=2, positions="relative"),
            )
        )
        names = {site.name for site in learned}
        return (
            (
                "Learned positions, causal attention, no norm, all biases. With `d_mlp=0` there are"
                " no `mlp` sites; without a bias, its term is absent.",
                learned,
            ),
            (
                "With `normalization`, the input of each product with a weight is `ln1(...)`,"
                " `ln2(...)` or `ln_final(...)` of the input above. With rotary positions, queries"
                " and keys are turned. These sites are added. RMSNorm has neither the mean nor b.",
                tuple(site for site in rotary if site.name not in names),
            ),
            (
                "With relative positions, each distance adds a vector of its own to keys and values"
                " (`relative_keys`: to keys alone), and there is no `pos_embed`. Bidirectional"
                " attention also has rows for later keys: `query - key + positions - 1`.",
                tuple(site for site in relative if "W_rel" in site.equation),
            ),
        )

    def build(self, inputs: Inputs) -> Model:
        """Builds the model for a task of tokens.

        Raises:
            ConfigError: if the task gives floats, its input holds answers that this attention
                would see, or ``output_vocabulary`` is less than its number of classes.
        """
        task_inputs = inputs
        shapes = self.shapes(inputs)
        scales = {
            name: self.initial_scale(name, shape)
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

        return Model(
            init,
            along(None),
            self._roles(inputs),
            sites,
            {route: along(route) for route in (PLAIN, TABLE)},
            self.cheapest_route,
        )

    def _roles(self, inputs: Inputs) -> Roles:
        last = self.layers - 1
        neurons: dict[str, Any] = {}
        if self.mlp_size:
            neurons = {
                "output_map": neuron_output_map(last, inputs.classes),
                "neurons": f"blocks.{last}.mlp.post",
                "neurons_added": added_by_neurons(last, inputs.classes),
            }
        return Roles(
            embedding=(lambda params: params["embed"]["W_E"][: inputs.tokens],),
            embedded="embed",
            unembedding=lambda params: params["unembed"]["W_U"][:, : inputs.classes],
            heads=attention_heads(self.layers),
            attention=tuple(f"blocks.{i}.attn.attn_scores" for i in range(self.layers)),
            patterns=tuple(f"blocks.{i}.attn.pattern" for i in range(self.layers)),
            linear_readout=self.normalization == "none" and self.logit_scale == 1.0,
            writers=self.writers(),
            readers=self.readers(),
            **neurons,
        )


def _any_layer(sites: Iterable[Site]) -> tuple[Site, ...]:
    """The sites of layer 1 renamed to those of any layer i, and the sites outside the layers."""
    return tuple(
        site._replace(
            name=site.name.replace("blocks.1.", "blocks.i."),
            equation=site.equation.replace("blocks.0.", "blocks.(i-1)."),
        )
        for site in sites
        if "blocks.0." not in site.name
    )
