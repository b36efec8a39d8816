"""MLPs on a pair of tokens or on a vector of numbers: the networks of most work on grokking that
have no attention.

Dimension letters: b batch, n tokens, d d_embed, N width, i the features or what embeds the pair.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from jaxtyping import Array, Float, Shaped

from mi_jax.basics.dims import Params, PRNGKey
from mi_jax.basics.errors import nearest, require
from mi_jax.basics.fields import added
from mi_jax.basics.pytrees import dotted
from mi_jax.contracts import Architecture, Inputs, Model, Roles, Site, Taps
from mi_jax.models.activations import ACTIVATIONS, Activation
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
from mi_jax.models.taps import Tapped

_NEURONS = ("batch", "position", "neuron")
_LOGITS = ("batch", "position", "class")


MLPInitialization = Literal["fan_in", "doshi_2023", "torch"]


@dataclass(frozen=True)
class MLP(Architecture):
    """logits = (h_depth W_U + b_U) output_scale, h_i = f(h_{i-1} W_i + b_i): on two tokens that
    vary, or on float features.

    Published networks: Gromov's (arXiv 2301.02679) is the default; Doshi's (2310.13061) with
        initialization "doshi_2023";
    Chughtai's (2302.03025) with embedding "two", d_embed 256, width 128, ReLU; Prieto's
    (2501.04697) with depth 2, width 200, ReLU and initialization "torch"; Merrill's (2303.11873)
    with width 1000, ReLU, bias, output_bias off, outputs 1, "torch".

    Attributes:
        width: hidden neurons N of each layer.
        activation: f; quadratic is Gromov's.
        bias: whether hidden layers and output have biases.
        init_scale: multiplies every initial parameter, biases included (Omnigrok's alpha, arXiv
            2210.01117).
        depth: hidden layers.
        embedding: how a pair (a, b) of tokens enters: "one_hot", concatenated, so that layer 0 is
            W_a[a] + W_b[b]; "two" tables of d_embed columns, or one "shared" table, then layer 0.
            Floats need none: leave it at its default.
        d_embed: columns of the tables of "two" and "shared".
        combination: whether the two rows of "two" and "shared" are put side by side ("concat") or
            added ("sum").
        output_bias: whether the output has a bias; None is as ``bias``.
        outputs: how many outputs there are, if not the task's classes: more, or 1 for two classes,
            which its sign tells (class 1 where it is positive).
        output_scale: multiplies the outputs: from rich (small) to lazy (large) learning (arXiv
            2310.06110).
        initialization: of weights, as standard deviations: "fan_in": 1/sqrt(rows summed),
            embeddings' 1/sqrt(d_embed), biases 0; "doshi_2023": .5 / (2 N)^(1/3) for every matrix,
            biases 0; "torch": PyTorch's default, uniform within 1/sqrt(rows summed), biases too,
            embeddings N(0, 1).
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

    def __post_init__(self) -> None:
        for name in ("width", "depth", "d_embed"):
            require(getattr(self, name) >= 1, f"{name}={getattr(self, name)}: must be at least 1")
        require(
            0 <= self.init_scale < math.inf,
            f"init_scale={self.init_scale}: must be a finite number of at least 0",
        )
        require(
            math.isfinite(self.output_scale),
            f"output_scale={self.output_scale}: must be a finite number",
        )
        require(
            self.outputs is None or self.outputs >= 1, f"outputs={self.outputs}: must be at least 1"
        )
        for name, kinds in (
            ("activation", Activation),
            ("embedding", Embedding),
            ("combination", Combination),
            ("initialization", MLPInitialization),
        ):
            value = getattr(self, name)
            require(
                value in get_args(kinds),
                f"{name}={value!r} is unknown; {nearest(str(value), get_args(kinds))}",
            )
        require(
            self.embedding != "one_hot" or self.combination == "concat",
            "combination='sum' adds rows of embedding 'two' or 'shared'; one-hot tokens are always"
            " side by side",
        )

    def build(self, inputs: Inputs) -> Model:
        """The model for a task with two varying tokens, or one vector of floats."""
        entry, sites, last = (
            self._entry(inputs),
            mlp_sites(self, inputs.kind),
            f"hidden.{self.depth - 1}.post",
        )
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
                x = tapped.product(f"layers.{i}.W", x, w[f"layers.{i}.W"], matmul) if i else x
                x = x + spread(w[f"layers.{i}.b" if i else entry.bias], x) if self.bias else x
                x = tapped.at(f"hidden.{i}.pre", x)
                x = tapped.at(f"hidden.{i}.post", ACTIVATIONS[self.activation](x))
            out = tapped.product("unembed.W_U", x, w["unembed.W_U"], matmul)
            out = out + spread(w["unembed.b_U"], out) if self.biased_output else out
            return tapped.at("logits", self.output_scale * out if self.output_scale != 1.0 else out)

        def output_map(params: Any) -> Float[Array, "neuron class"]:
            W_U = params["unembed"]["W_U"][:, : inputs.classes]
            return self.output_scale * W_U if self.output_scale != 1.0 else W_U

        first = self.depth == 1
        roles = Roles(
            embedding=entry.embedding,
            neuron_inputs=entry.neuron_inputs if first else (),
            input_map=entry.input_map if first else None,
            embedded=entry.embedded,
            output_map=output_map,
            neurons=last,
            linear_readout=True,
        )
        return Model(lambda key: self._initial(key, parameters), apply, roles, sites)

    @property
    def biased_output(self) -> bool:
        """output_bias as used."""
        return self.bias if self.output_bias is None else self.output_bias

    def _entry(self, inputs: Inputs) -> Entry:
        if inputs.kind == "floats":
            require(
                self.embedding == "one_hot",
                f"embedding={self.embedding!r} is of tokens, the task gives floats: leave it out",
            )
            return features(inputs, self.width)
        if self.embedding == "one_hot":
            return one_hot_pair(inputs, self.width)
        added = self.combination == "sum"
        return embedded_pair(
            inputs, self.width, self.d_embed, shared=self.embedding == "shared", added=added
        )

    def _parameters(self, entry: Entry, inputs: Inputs) -> dict[str, tuple[Shape, int]]:
        """Every parameter's shape and the rows summed by its layer, by dotted name."""
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
        return {**parameters, "unembed.b_U": ((outputs,), N)} if self.biased_output else parameters

    def _initial(self, key: PRNGKey, parameters: Mapping[str, tuple[Shape, int]]) -> Params:
        """Initial parameters: see ``initialization``."""
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
        tables = (
            {}
            if self.embedding == "one_hot"
            else {name: self.init_scale for name in matrices if name.endswith("W_E")}
        )
        bounds = {
            name: self.init_scale / math.sqrt(rows)
            for name, (_, rows) in parameters.items()
            if name not in tables
        }
        return torch_parameters(key, shapes, tables, bounds)


def mlp_sites(config: "MLP", kind: str) -> tuple[Site, ...]:
    """The sites of an MLP on inputs of this kind, in the order of the forward pass."""
    sites, x, bias = _entry_sites(config, kind)
    for i in range(config.depth):
        if x is not None:
            sites.append(Site(f"layers.{i}.W", f"{x} layers.{i}.W", _NEURONS, "product"))
        product = f"{x} layers.{i}.W" if x is not None else "embed_a.W_E[a] + embed_b.W_E[b]"
        sites.append(
            Site(
                f"hidden.{i}.pre",
                product + f" + {f'layers.{i}.b' if i else bias}" * config.bias,
                _NEURONS,
            )
        )
        sites.append(Site(f"hidden.{i}.post", f"{config.activation}(hidden.{i}.pre)", _NEURONS))
        x = f"hidden.{i}.post"
    out = f"{x} W_U" + " + b_U" * config.biased_output
    return (
        *sites,
        Site("unembed.W_U", f"{x} W_U", _LOGITS, "product"),
        Site("logits", f"({out}) output_scale" if config.output_scale != 1.0 else out, _LOGITS),
    )


def _entry_sites(config: "MLP", kind: str) -> tuple[list[Site], str | None, str]:
    """The sites before the first layer's pre-activation, what its weight is multiplied with, and
    its bias.
    """
    embedded, read = ("batch", "position", "d_embed"), ("batch", "position", "d_input")
    if kind == "floats":
        return (
            [Site("input", "the features", ("batch", "position", "feature"))],
            "input",
            "layers.0.b",
        )
    if config.embedding == "one_hot":
        return (
            [Site(f"embed_{x}.W_E", f"embed_{x}.W_E[{x}]", _NEURONS, "product") for x in "ab"],
            None,
            "embed.b",
        )
    if config.embedding == "two":
        sites = [Site(f"embed_{x}.W_E", f"embed_{x}.W_E[{x}]", embedded, "product") for x in "ab"]
        a, b = "embed_a.W_E[a]", "embed_b.W_E[b]"
    else:
        equation = "embed.W_E[a], embed.W_E[b]"
        sites = [
            Site("embed.W_E", equation, embedded, "product"),
            Site("embed", equation, embedded),
        ]
        a, b = "embed at 0", "embed at 1"
    sites.append(
        Site(
            "input", f"{a} + {b}" if config.combination == "sum" else f"{a}, {b} side by side", read
        )
    )
    return sites, "input", "layers.0.b"
