"""MLPs on a pair of tokens or on a vector of floats.

Most work on grokking without attention uses these networks.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from jaxtyping import Array, Float, Shaped

from mi_jax.basics.dims import Params, PRNGKey
from mi_jax.basics.errors import ConfigError
from mi_jax.basics.fields import added
from mi_jax.basics.pytrees import dotted
from mi_jax.contracts import (
    PAIR_INPUTS,
    VECTOR_INPUTS,
    Architecture,
    DocumentedSites,
    Inputs,
    Model,
    Roles,
    Site,
    Taps,
)
from mi_jax.models.activations import ACTIVATIONS, Activation
from mi_jax.models.checks import (
    check_at_least_one,
    check_choices,
    check_finite,
    check_init_scale,
)
from mi_jax.models.entries import (
    Combination,
    Embedding,
    Entry,
    Shape,
    embedded_pair,
    features,
    one_hot_pair,
    output_count,
)
from mi_jax.models.initial import normal_parameters, torch_parameters
from mi_jax.models.products import matmul, spread
from mi_jax.models.site_dims import LOGIT_DIMS, NEURON_DIMS
from mi_jax.models.taps import Tapped

MLPInitialization = Literal["fan_in", "doshi_2023", "torch"]


@dataclass(frozen=True)
class MLP(Architecture):
    """A multilayer perceptron on two varying tokens or on a vector of floats.

        h_i = f(h_{i-1} W_i + b_i),  logits = output_scale (h_depth W_U + b_U)

    Settings of published networks:

    - Gromov (arXiv 2301.02679): the defaults.
    - Doshi (2310.13061): ``initialization="doshi_2023"``.
    - Chughtai (2302.03025): ``embedding="two"``, ``d_embed=256``, ``width=128``,
      ``activation="relu"``.
    - Prieto (2501.04697): ``depth=2``, ``width=200``, ``activation="relu"``,
      ``initialization="torch"``.
    - Merrill (2303.11873): ``width=1000``, ``activation="relu"``, ``bias=True``,
      ``output_bias=False``, ``outputs=1``, ``initialization="torch"``.

    Attributes:
        width: number of neurons N of each hidden layer.
        activation: the elementwise function f; "quadratic" is Gromov's.
        bias: whether the hidden layers and the output have biases.
        init_scale: factor on every initial parameter, biases included (the alpha of Omnigrok,
            arXiv 2210.01117).
        depth: number of hidden layers.
        embedding: how a pair (a, b) of tokens enters. "one_hot": both one-hot vectors are
            concatenated, so layer 0 computes W_a[a] + W_b[b]. "two": a table of ``d_embed`` columns
            per token comes before layer 0. "shared": both tokens use one such table. On floats,
            leave this at its default.
        d_embed: number of columns of the tables of "two" and "shared".
        combination: whether the two rows of "two" and "shared" are concatenated ("concat") or added
            ("sum").
        output_bias: whether the output has a bias; None for the same as ``bias``.
        outputs: number of outputs; None for the task's number of classes. More outputs are
            allowed, and so is 1 if there are two classes: class 1 is then a positive output.
        output_scale: factor on the outputs; small values train richly, large ones lazily
            (arXiv 2310.06110).
        initialization: distribution of the initial weights.
            "fan_in": standard deviation 1 / sqrt(rows summed), for embeddings
            1 / sqrt(d_embed); biases 0.
            "doshi_2023": standard deviation 0.5 / (2 N)^(1/3) for every matrix; biases 0.
            "torch": PyTorch's default, uniform within 1 / sqrt(rows summed) for weights and biases,
            N(0, 1) for embeddings.
    """

    width: int = 256
    activation: Activation = "quadratic"
    bias: bool = False
    init_scale: float = 1.0
    depth: int = added(1)
    embedding: Embedding = added("one_hot")
    d_embed: int = added(256)
    combination: Combination = added("concat")
    output_bias: bool | None = added(None)
    outputs: int | None = added(None)
    output_scale: float = added(1.0)
    initialization: MLPInitialization = added("fan_in")

    repeated: ClassVar[str] = "depth"

    def __post_init__(self) -> None:
        check_at_least_one(self, "width", "depth", "d_embed", "outputs")
        check_init_scale(self.init_scale)
        check_finite(self, "output_scale")
        check_choices(
            self,
            {
                "activation": Activation,
                "embedding": Embedding,
                "combination": Combination,
                "initialization": MLPInitialization,
            },
        )
        if self.embedding == "one_hot" and self.combination != "concat":
            raise ConfigError(
                "combination='sum' does not apply to embedding='one_hot'. One-hot tokens are always"
                " concatenated. Set embedding to 'two' or 'shared', or leave combination at"
                " 'concat'."
            )

    @classmethod
    def smallest(cls) -> "MLP":
        """Sixteen neurons in one hidden layer."""
        return cls(width=16, d_embed=8)

    @classmethod
    def documented_sites(cls) -> DocumentedSites:
        """The sites of a pair with each kind of embedding, and of floats."""
        return (
            (
                "On a pair of tokens a and b; there is one position. `output_scale` multiplies the"
                " last line.",
                cls(bias=True).build(PAIR_INPUTS).sites,
            ),
            (
                "With two embeddings, here at depth 2; every further layer has the same sites:",
                cls(embedding="two", depth=2, activation="relu").build(PAIR_INPUTS).sites,
            ),
            (
                "With a shared embedding, these sites come before `layers.0.W`; with"
                ' `combination="sum"` the rows are added instead of put side by side:',
                cls(embedding="shared").build(PAIR_INPUTS).sites[:3],
            ),
            ("On floats, this site comes first:", cls().build(VECTOR_INPUTS).sites[:1]),
        )

    def build(self, inputs: Inputs) -> Model:
        """Builds the model for a pair of varying tokens or one vector of floats.

        Raises:
            ConfigError: if the task's inputs are something else, ``embedding`` does not fit
                them, or ``outputs`` cannot distinguish the task's classes.
        """
        entry = self._entry(inputs)
        sites = mlp_sites(self, inputs.kind)
        parameters = self._parameters(entry, inputs)

        def apply(
            params: Any,
            inputs: Shaped[Array, "batch ..."],
            *,
            taps: Taps | None = None,
            positions: Any = None,
        ) -> Float[Array, "batch 1 class"]:
            tapped, w = Tapped(taps, sites), dotted(params)
            x = entry.pre(params, inputs, tapped)
            for i in range(self.depth):
                if i:
                    x = tapped.product(f"layers.{i}.W", x, w[f"layers.{i}.W"], matmul)
                if self.bias:
                    x = x + spread(w[f"layers.{i}.b" if i else entry.bias], x)
                x = tapped.at(f"hidden.{i}.pre", x)
                x = tapped.at(f"hidden.{i}.post", ACTIVATIONS[self.activation](x))
            out = tapped.product("unembed.W_U", x, w["unembed.W_U"], matmul)
            if self.biased_output:
                out = out + spread(w["unembed.b_U"], out)
            return tapped.at("logits", self.output_scale * out if self.output_scale != 1.0 else out)

        def output_map(params: Any) -> Float[Array, "neuron class"]:
            W_U = params["unembed"]["W_U"][:, : inputs.classes]
            return self.output_scale * W_U if self.output_scale != 1.0 else W_U

        one_layer = self.depth == 1
        roles = Roles(
            embedding=entry.embedding,
            neuron_inputs=entry.neuron_inputs if one_layer else (),
            input_map=entry.input_map if one_layer else None,
            embedded=entry.embedded,
            output_map=output_map,
            neurons=f"hidden.{self.depth - 1}.post",
            linear_readout=True,
        )
        return Model(lambda key: self._initial(key, parameters), apply, roles, sites)

    def shapes(self, inputs: Inputs) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter, by dotted name."""
        parameters = self._parameters(self._entry(inputs), inputs)
        return {name: shape for name, (shape, _) in parameters.items()}

    @property
    def biased_output(self) -> bool:
        """Whether the output has a bias."""
        return self.bias if self.output_bias is None else self.output_bias

    def _entry(self, inputs: Inputs) -> Entry:
        if inputs.kind == "floats":
            if self.embedding != "one_hot":
                raise ConfigError(
                    f"embedding={self.embedding!r} applies to tokens only. This task gives floats."
                    " Leave embedding at its default."
                )
            return features(inputs, self.width)
        if self.embedding == "one_hot":
            return one_hot_pair(inputs, self.width)
        return embedded_pair(
            inputs,
            self.width,
            self.d_embed,
            shared=self.embedding == "shared",
            summed=self.combination == "sum",
        )

    def _parameters(self, entry: Entry, inputs: Inputs) -> dict[str, tuple[Shape, int]]:
        """By dotted name, every parameter's shape and the number of rows its layer sums."""
        N, outputs = self.width, output_count(self.outputs, inputs)
        parameters = {
            **entry.parameters,
            **{f"layers.{i}.W": ((N, N), N) for i in range(1, self.depth)},
        }
        if self.bias:
            _, rows = list(entry.parameters.values())[-1]
            parameters |= {
                entry.bias: ((N,), rows),
                **{f"layers.{i}.b": ((N,), N) for i in range(1, self.depth)},
            }
        parameters["unembed.W_U"] = (N, outputs), N
        if self.biased_output:
            parameters["unembed.b_U"] = (outputs,), N
        return parameters

    def _initial(self, key: PRNGKey, parameters: Mapping[str, tuple[Shape, int]]) -> Params:
        """Initial parameters by the rule that ``initialization`` names."""
        shapes = {name: shape for name, (shape, _) in parameters.items()}
        matrices = {name: rows for name, (shape, rows) in parameters.items() if len(shape) > 1}
        if self.initialization == "doshi_2023":
            scale = self.init_scale * 0.5 / math.cbrt(2 * self.width)
            return normal_parameters(key, shapes, dict.fromkeys(matrices, scale))
        if self.initialization == "fan_in":
            return normal_parameters(
                key,
                shapes,
                {name: self.init_scale / math.sqrt(rows) for name, rows in matrices.items()},
            )
        tables = {}
        if self.embedding != "one_hot":
            tables = {name: self.init_scale for name in matrices if name.endswith("W_E")}
        bounds = {
            name: self.init_scale / math.sqrt(rows)
            for name, (_, rows) in parameters.items()
            if name not in tables
        }
        return torch_parameters(key, shapes, tables, bounds)


def mlp_sites(config: MLP, kind: str) -> tuple[Site, ...]:
    """The sites of an MLP, in the order of the forward pass.

    Args:
        config: the settings.
        kind: the kind of the inputs, "tokens" or "floats".
    """
    sites, x, bias = _entry_sites(config, kind)
    for i in range(config.depth):
        if x is None:
            product = "embed_a.W_E[a] + embed_b.W_E[b]"
        else:
            product = f"{x} layers.{i}.W"
            sites.append(Site(f"layers.{i}.W", product, NEURON_DIMS, "product"))
        pre = f"{product} + {f'layers.{i}.b' if i else bias}" if config.bias else product
        sites.append(Site(f"hidden.{i}.pre", pre, NEURON_DIMS))
        sites.append(Site(f"hidden.{i}.post", f"{config.activation}(hidden.{i}.pre)", NEURON_DIMS))
        x = f"hidden.{i}.post"
    out = f"{x} W_U + b_U" if config.biased_output else f"{x} W_U"
    logits = f"({out}) output_scale" if config.output_scale != 1.0 else out
    return (
        *sites,
        Site("unembed.W_U", f"{x} W_U", LOGIT_DIMS, "product"),
        Site("logits", logits, LOGIT_DIMS),
    )


def _entry_sites(config: MLP, kind: str) -> tuple[list[Site], str | None, str]:
    """The part of the sites before the first layer's pre-activation.

    Returns:
        The sites; the site that ``layers.0.W`` multiplies, or None if there is no such product;
        the name of the first layer's bias.
    """
    if kind == "floats":
        dims = ("batch", "position", "feature")
        return [Site("input", "the features", dims)], "input", "layers.0.b"
    embedded, joined = ("batch", "position", "d_embed"), ("batch", "position", "d_input")
    dims = NEURON_DIMS if config.embedding == "one_hot" else embedded
    sites = [Site(f"embed_{x}.W_E", f"embed_{x}.W_E[{x}]", dims, "product") for x in "ab"]
    if config.embedding == "one_hot":
        return sites, None, "embed.b"
    a, b = "embed_a.W_E[a]", "embed_b.W_E[b]"
    if config.embedding == "shared":
        equation = "embed.W_E[a], embed.W_E[b]"
        sites = [
            Site("embed.W_E", equation, embedded, "product"),
            Site("embed", equation, embedded),
        ]
        a, b = "embed at 0", "embed at 1"
    joining = f"{a} + {b}" if config.combination == "sum" else f"{a}, {b} side by side"
    sites.append(Site("input", joining, joined))
    return sites, "input", "layers.0.b"
