"""Small transformers of the twins, with their forward pass in plain float64 NumPy."""

import dataclasses
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np
from fakes import context_of
from networks import Operation, Weights, fit, read

from mi_jax.basics.pytrees import dotted
from mi_jax.contracts import PLAIN, Context, Model, Reference, Task
from mi_jax.models import Transformer
from mi_jax.tasks import ModularArithmetic

SETTINGS = {
    2: Transformer(d_model=4, heads=1, d_mlp=6),
    3: Transformer(layers=2, d_model=6, heads=1, d_mlp=8, mlp_bias=False),
    4: Transformer(layers=2, d_model=8, heads=2, d_mlp=8, attention_bias=True),
    6: Transformer(layers=2, d_model=8, heads=2, d_mlp=8, attention="bidirectional"),
    12: Transformer(d_model=12, heads=3, d_head=5, d_mlp=8, mlp_bias=False),
    13: Transformer(layers=2, d_model=8, heads=2, d_mlp=12, unembed_bias=True),
}
"""Settings of the transformer of each modulus: single heads, with and without biases."""


class Pass(NamedTuple):
    """A forward pass in float64.

    Attributes:
        logits: [batch position output].
        scores: by layer, -inf where masked, [batch head query key].
        patterns: by layer, [batch head query key].
        sites: values of other sites by name, [batch position ...].
    """

    logits: np.ndarray
    scores: list[np.ndarray]
    patterns: list[np.ndarray]
    sites: dict[str, np.ndarray]


def forward(
    settings: Transformer,
    params: Any,
    tokens: np.ndarray,
    *,
    without: tuple[int, int] | None = None,
) -> Pass:
    """Logits of a transformer without norms, with causal or full attention and ReLU neurons.

    Args:
        settings: learned or relative positions, with any biases.
        params: the parameters.
        tokens: [batch position].
        without: layer and head whose pattern is set to 0.
    """
    w = {name: np.asarray(array, np.float64) for name, array in dotted(params).items()}
    length = tokens.shape[1]
    x, sites = w["embed.W_E"][tokens], {}
    sites["embed"] = x
    if settings.positions == "learned":
        x = x + w["pos_embed.W_pos"][None, :length]
    all_scores, patterns = [], []
    for layer in range(settings.layers):
        attn, mlp = f"blocks.{layer}.attn", f"blocks.{layer}.mlp"
        sites[f"blocks.{layer}.resid_pre"] = x
        out = np.zeros_like(x)
        by_head, head_patterns, z_by_head = [], [], []
        for head in range(settings.heads):
            q, k, v = (
                x @ w[f"{attn}.W_{letter}"][head]
                + (w[f"{attn}.b_{letter}"][head] if settings.attention_bias else 0)
                for letter in "QKV"
            )
            scores = np.full((len(tokens), length, length), -np.inf)
            pattern = np.zeros_like(scores)
            z = np.zeros_like(q)
            for i in range(length):
                seen = i + 1 if settings.attention == "causal" else length
                keys = k[:, :seen]
                if settings.positions == "relative":
                    keys = keys + w[f"{attn}.W_rel_K"][head][i - np.arange(seen)]
                scores[:, i, :seen] = np.einsum("be,bke->bk", q[:, i], keys) / settings.score_scale
                e = np.exp(scores[:, i, :seen] - scores[:, i, :seen].max(axis=1, keepdims=True))
                pattern[:, i, :seen] = e / e.sum(axis=1, keepdims=True)
                if without == (layer, head):
                    pattern[:, i] = 0
                values = v[:, :seen]
                if settings.positions == "relative":
                    values = values + w[f"{attn}.W_rel_V"][head][i - np.arange(seen)]
                z[:, i] = np.einsum("bk,bke->be", pattern[:, i, :seen], values)
            out = out + z @ w[f"{attn}.W_O"][head]
            by_head.append(scores)
            head_patterns.append(pattern)
            z_by_head.append(z)
        if settings.attention_bias:
            out = out + w[f"{attn}.b_O"]
        all_scores.append(np.stack(by_head, axis=1))
        patterns.append(np.stack(head_patterns, axis=1))
        sites[f"{attn}.z"] = np.stack(z_by_head, axis=2)
        sites[f"blocks.{layer}.attn_out"] = out
        x = x + out
        sites[f"blocks.{layer}.resid_mid"] = x
        if settings.mlp_size:
            biased = settings.mlp_bias
            pre = x @ w[f"{mlp}.W_in"] + (w[f"{mlp}.b_in"] if biased else 0)
            post = np.maximum(pre, 0)
            written = post @ w[f"{mlp}.W_out"] + (w[f"{mlp}.b_out"] if biased else 0)
            sites |= {f"{mlp}.pre": pre, f"{mlp}.post": post}
            sites[f"blocks.{layer}.mlp_out"] = written
            x = x + written
        sites[f"blocks.{layer}.resid_post"] = x
    logits = x @ w["unembed.W_U"] + (w["unembed.b_U"] if settings.unembed_bias else 0)
    return Pass(logits, all_scores, patterns, sites)


class Attending(NamedTuple):
    """A transformer on pairs, with what the twins read of it.

    Attributes:
        task: the task.
        settings: of the transformer.
        params: the float32 parameters that are read.
        context: context with the final model's parameters.
    """

    task: Any
    settings: Transformer
    params: Any
    context: Context

    @property
    def w(self) -> dict[str, np.ndarray]:
        """Parameters in float64 by dotted name."""
        return {name: np.asarray(x, np.float64) for name, x in dotted(self.params).items()}

    @property
    def pairs(self) -> np.ndarray:
        """Tokens of all pairs in the order a n + b, [pair position]."""
        n = self.task.elements
        a, b = np.divmod(np.arange(n * n), n)
        return np.stack([a, b, np.full_like(a, n)], axis=1)

    def heads(self, name: str) -> np.ndarray:
        """One matrix of all heads, [layer head row column]."""
        return np.stack([self.w[f"blocks.{i}.attn.{name}"] for i in range(self.settings.layers)])

    def read(self, *names: str) -> dict[str, np.ndarray]:
        """Values of some measures by variable, from a compiled program."""
        return read(names, self.params, self.context)


def noisy(model: Model, seed: int) -> Any:
    """Initial parameters plus noise on every array, so that no bias is 0."""
    rng = np.random.default_rng(seed)
    draw = lambda x: x + (0.3 * rng.normal(size=x.shape)).astype(np.float32)  # noqa: E731
    return jax.tree.map(draw, model.init(jax.random.key(seed)))


@lru_cache
def plain_model(settings: Transformer, task: Task) -> Model:
    """The transformer of a task, computed example by example."""
    model = settings.build(task.inputs)
    return dataclasses.replace(model, apply=model.along(PLAIN))


@lru_cache
def attending(p: int, operation: Operation, weights: Weights) -> Attending:
    """The transformer of one case."""
    task = ModularArithmetic(p=p, operation=operation, fraction=0.6, split_seed=1)
    # One model serves both operations, whose inputs are equal.
    model = plain_model(SETTINGS[p], ModularArithmetic(p=p, fraction=0.6, split_seed=1))
    context = context_of(task, model=model)
    initial = noisy(model, p)
    final = fit(initial, context, 0.02)
    context = dataclasses.replace(context, reference=Reference(initial=initial, final=final))
    return Attending(task, SETTINGS[p], final if weights == "trained" else initial, context)
