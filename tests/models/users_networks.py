"""Networks as their users would write them, in Flax and in Equinox, for the tests of modules."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from flax import linen, nnx

from mi_jax.contracts import Inputs, Roles
from mi_jax.models import EquinoxModule, Here, LinenModule, NnxModule


class NnxNet(nnx.Module):
    """One hidden layer on the embeddings of two tokens."""

    def __init__(self, tokens: int, classes: int, d: int, width: int, rngs: nnx.Rngs):
        self.embed = nnx.Embed(tokens, d, rngs=rngs)
        self.embedded = Here()
        self.hidden = nnx.Linear(2 * d, width, rngs=rngs)
        self.post = Here()
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.out = nnx.Linear(width, classes, rngs=rngs)

    def __call__(self, tokens: Any) -> Any:
        x = self.embedded(self.embed(tokens[:, :2]))
        x = x.reshape(tokens.shape[0], 1, -1)
        return self.out(self.dropout(self.post(jax.nn.relu(self.hidden(x)))))


def mlp_roles(inputs: Inputs) -> Roles:
    """The roles of the MLPs, under the names of ``mi_jax.models.MLP``."""

    def adds(token: int) -> Any:
        def table(params: Any) -> Any:
            rows, d = params["layers"]["0"]["W"], params["embed"]["W_E"].shape[1]
            return params["embed"]["W_E"] @ rows[token * d : (token + 1) * d]

        return table

    return Roles(
        embedding=(lambda params: params["embed"]["W_E"],),
        neuron_inputs=(adds(0), adds(1)),
        output_map=lambda params: params["unembed"]["W_U"],
        neurons="post",
        linear_readout=True,
    )


@dataclass(frozen=True)
class NnxMLP(NnxModule):
    """The network of ``NnxNet``."""

    d: int = 8
    width: int = 16

    def module(self, inputs: Inputs, rngs: Any) -> Any:
        return NnxNet(inputs.tokens, inputs.classes, self.d, self.width, rngs)

    def roles(self, inputs: Inputs) -> Roles:
        return mlp_roles(inputs)

    def names(self) -> Mapping[str, str]:
        return {
            "embed.embedding": "embed.W_E",
            "hidden.kernel": "layers.0.W",
            "hidden.bias": "layers.0.b",
            "out.kernel": "unembed.W_U",
            "out.bias": "unembed.b_U",
        }


class NnxBlock(nnx.Module):
    """A layer of attention and an MLP."""

    def __init__(self, d: int, heads: int, rngs: nnx.Rngs):
        self.attn = nnx.MultiHeadAttention(heads, d, decode=False, use_bias=False, rngs=rngs)
        self.norm = nnx.LayerNorm(d, rngs=rngs)
        self.up = nnx.Linear(d, 4 * d, rngs=rngs)
        self.post = Here()
        self.down = nnx.Linear(4 * d, d, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = x + self.attn(x, sow_weights=True)
        return x + self.down(self.post(jax.nn.relu(self.up(self.norm(x)))))


class NnxTransformerNet(nnx.Module):
    """A small transformer with stock attention."""

    def __init__(self, inputs: Inputs, d: int, heads: int, layers: int, rngs: nnx.Rngs):
        self.embed = nnx.Embed(inputs.vocabulary, d, rngs=rngs)
        self.positions = nnx.Param(
            0.1 * jax.random.normal(rngs.params(), (inputs.positions, d), jnp.float32)
        )
        self.blocks = nnx.List([NnxBlock(d, heads, rngs) for _ in range(layers)])
        self.out = nnx.Linear(d, inputs.classes, use_bias=False, rngs=rngs)

    def __call__(self, tokens: Any) -> Any:
        x = self.embed(tokens) + self.positions[...][None]
        for block in self.blocks:
            x = block(x)
        return self.out(x)


@dataclass(frozen=True)
class NnxTransformer(NnxModule):
    """The network of ``NnxTransformerNet``."""

    d: int = 8
    heads: int = 2
    layers: int = 1

    def module(self, inputs: Inputs, rngs: Any) -> Any:
        return NnxTransformerNet(inputs, self.d, self.heads, self.layers, rngs)

    def roles(self, inputs: Inputs) -> Roles:
        return Roles(
            embedding=(lambda params: params["embed"]["embedding"][: inputs.tokens],),
            neurons=f"blocks.{self.layers - 1}.post",
            patterns=tuple(f"blocks.{i}.attn.attention_weights" for i in range(self.layers)),
        )


class LinenNet(linen.Module):
    """The same MLP in linen."""

    tokens: int
    classes: int
    d: int
    width: int

    @linen.compact
    def __call__(self, tokens: Any, train: bool = False) -> Any:
        x = linen.Embed(self.tokens, self.d, name="embed")(tokens[:, :2])
        x = Here("embedded")(x).reshape(tokens.shape[0], 1, -1)
        x = Here("post")(jax.nn.relu(linen.Dense(self.width, name="hidden")(x)))
        x = linen.Dropout(0.5, deterministic=not train)(x)
        return linen.Dense(self.classes, name="out")(x)


@dataclass(frozen=True)
class LinenMLP(LinenModule):
    """The network of ``LinenNet``."""

    d: int = 8
    width: int = 16

    def module(self, inputs: Inputs, rngs: Any) -> Any:
        return LinenNet(inputs.tokens, inputs.classes, self.d, self.width)

    def roles(self, inputs: Inputs) -> Roles:
        return mlp_roles(inputs)

    def names(self) -> Mapping[str, str]:
        return NnxMLP().names()


class EquinoxNet(eqx.Module):
    """The same MLP in Equinox, on one example, with weights [out in]."""

    embed: eqx.nn.Embedding
    hidden: eqx.nn.Linear
    out: eqx.nn.Linear
    dropout: eqx.nn.Dropout
    embedded: Here
    post: Here

    def __init__(self, tokens: int, classes: int, d: int, width: int, key: Any):
        keys = jax.random.split(key, 3)
        self.embed = eqx.nn.Embedding(tokens, d, key=keys[0])
        self.hidden = eqx.nn.Linear(2 * d, width, key=keys[1])
        self.out = eqx.nn.Linear(width, classes, key=keys[2])
        self.dropout = eqx.nn.Dropout(0.5)
        self.embedded, self.post = Here(), Here()

    def __call__(self, tokens: Any) -> Any:
        x = self.embedded(jax.vmap(self.embed)(tokens[:2])).reshape(-1)
        x = self.post(jax.nn.relu(self.hidden(x))[None])
        return self.out(self.dropout(x[0]))[None]


@dataclass(frozen=True)
class EquinoxMLP(EquinoxModule):
    """The network of ``EquinoxNet``."""

    d: int = 8
    width: int = 16

    def module(self, inputs: Inputs, rngs: Any) -> Any:
        return EquinoxNet(inputs.tokens, inputs.classes, self.d, self.width, rngs)

    def roles(self, inputs: Inputs) -> Roles:
        def adds(token: int) -> Any:
            def table(params: Any) -> Any:
                rows = params["hidden"]["weight"].T[token * self.d : (token + 1) * self.d]
                return params["embed"]["weight"] @ rows

            return table

        return Roles(
            embedding=(lambda params: params["embed"]["weight"],),
            neuron_inputs=(adds(0), adds(1)),
            output_map=lambda params: params["out"]["weight"].T,
            neurons="post",
            linear_readout=True,
        )
