"""A network of one's own: the transformer of the experiment grokking, written in flax.nnx as its
user would write it, is trained and read like every model of the package.

Question: does a network from Flax grok, and can it be read, as the package's own transformer?
Paper: Nanda et al. 2023, arXiv 2301.05217, in the small setting of the experiment grokking.
Command: mi-jax run flax_transformer
Minutes: about 7 on 2 cores to train (15 steps/s of 3 seeds); no table of tokens helps it.
Printed, by seed 0, 1, 2:
    did not grok, did not grok, grokked: memorised between 80 and 82, each; generalised later than
    6,000, later than 6,000, between 2,446 and 2,521;
    key frequencies of seed 2: 12 20 25; its restricted loss 3.9e-8, excluded loss 5.42;
    test accuracy .34, .38, 1.00.
    The start decides, not the package: of six further seeds (3 to 8) of the experiment grokking,
    two had test accuracies of .60 and .32 at step 6,000. From the same initial parameters both
    networks have the same losses (tests/models/test_flax_transformer.py).
A run names a class of this file, so another process needs leave to read it: in this folder, give
    the verbs that open a run allow-module flax_transformer.
"""

from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx

from mi_jax import Experiment
from mi_jax.contracts import Inputs, Roles
from mi_jax.models import Here, NnxModule
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import AdamW, log_spaced


class Net(nnx.Module):
    """One layer of causal attention and an MLP, without norms."""

    def __init__(
        self, inputs: Inputs, d: int, heads: int, width: int, classes: int, rngs: nnx.Rngs
    ):
        normal = nnx.initializers.normal(d**-0.5)
        self.embed = nnx.Embed(inputs.vocabulary, d, embedding_init=normal, rngs=rngs)
        self.positions = nnx.Param(normal(rngs.params(), (inputs.positions, d)))
        self.attn = nnx.MultiHeadAttention(
            heads, d, use_bias=False, decode=False, kernel_init=normal, rngs=rngs
        )
        self.mlp_in = nnx.Linear(d, width, kernel_init=normal, rngs=rngs)
        self.post = Here()
        self.mlp_out = nnx.Linear(width, d, kernel_init=normal, rngs=rngs)
        readout = nnx.initializers.normal(inputs.vocabulary**-0.5)
        self.unembed = nnx.Linear(d, classes, use_bias=False, kernel_init=readout, rngs=rngs)

    def __call__(self, tokens: Any) -> Any:
        """Logits [batch position class] of tokens [batch position]."""
        x = self.embed(tokens) + self.positions[...][None]
        x = x + self.attn(x, mask=nnx.make_causal_mask(tokens), sow_weights=True)
        x = x + self.mlp_out(self.post(jax.nn.relu(self.mlp_in(x))))
        return self.unembed(x)


@dataclass(frozen=True)
class FlaxTransformer(NnxModule):
    """Settings of ``Net``, and the parts by which measures find their way in it.

    Attributes:
        d_model: width of the residual stream.
        heads: number of attention heads.
        d_mlp: number of neurons.
    """

    d_model: int = 64
    heads: int = 4
    d_mlp: int = 256

    def module(self, inputs: Inputs, rngs: Any) -> nnx.Module:
        """The network."""
        return Net(inputs, self.d_model, self.heads, self.d_mlp, inputs.vocabulary, rngs)

    def roles(self, inputs: Inputs) -> Roles:
        """The tables and sites that measures read."""
        classes = inputs.classes
        return Roles(
            embedding=(lambda params: params["embed"]["embedding"][: inputs.tokens],),
            embedded="embed",
            neurons="post",
            output_map=lambda params: (
                params["mlp_out"]["kernel"] @ params["unembed"]["kernel"][:, :classes]
            ),
            unembedding=lambda params: params["unembed"]["kernel"][:, :classes],
            patterns=("attn.attention_weights",),
            linear_readout=True,
        )


experiment = Experiment(
    name="flax_transformer",
    task=ModularArithmetic(p=59, fraction=0.35),
    model=FlaxTransformer(),
    optimizer=AdamW(learning_rate=3e-3, weight_decay=1.0, warmup=10),
    steps=6_000,
    schedule=log_spaced(200),
    seeds=(0, 1, 2),
)
