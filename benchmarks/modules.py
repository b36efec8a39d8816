"""The price of a network from Flax or Equinox: a training step of the same numbers, beside the
package's own models.

Keys of ``--json``; each is a ratio of times:
    nnx_transformer_vs_plain: the transformer of experiments/flax_transformer.py, relative to
        ``Transformer`` on its plain route.
    nnx_transformer_vs_fastest: the same, relative to the route that ``Transformer`` chooses itself.
    linen_mlp_vs_plain: an MLP on a shared embedding in linen, relative to ``MLP``.
    equinox_mlp_vs_plain: the same in Equinox, called through ``jax.vmap``.
"""

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

import equinox
import jax
from flax import linen

from benchmarks.timing import compared, ours, report
from mi_jax.contracts import Inputs
from mi_jax.models import MLP, EquinoxModule, LinenModule
from mi_jax.runs.library import find

_STEPS = 20
_D, _WIDTH = 64, 256


class _LinenNet(linen.Module):
    tokens: int
    classes: int

    @linen.compact
    def __call__(self, tokens: Any) -> Any:
        x = linen.Embed(self.tokens, _D, name="embed")(tokens[:, :2]).reshape(len(tokens), 1, -1)
        x = jax.nn.relu(linen.Dense(_WIDTH, use_bias=False, name="hidden")(x))
        return linen.Dense(self.classes, use_bias=False, name="out")(x)


@dataclasses.dataclass(frozen=True)
class LinenMLP(LinenModule):
    """An MLP in linen."""

    def module(self, inputs: Inputs, rngs: Any) -> Any:
        """The network."""
        return _LinenNet(inputs.tokens, inputs.classes)


class _EquinoxNet(equinox.Module):
    embed: equinox.nn.Embedding
    hidden: equinox.nn.Linear
    out: equinox.nn.Linear

    def __init__(self, tokens: int, classes: int, key: Any):
        a, b, c = jax.random.split(key, 3)
        self.embed = equinox.nn.Embedding(tokens, _D, key=a)
        self.hidden = equinox.nn.Linear(2 * _D, _WIDTH, use_bias=False, key=b)
        self.out = equinox.nn.Linear(_WIDTH, classes, use_bias=False, key=c)

    def __call__(self, tokens: Any) -> Any:
        x = jax.vmap(self.embed)(tokens[:2]).reshape(-1)
        return self.out(jax.nn.relu(self.hidden(x)))


@dataclasses.dataclass(frozen=True)
class EquinoxMLP(EquinoxModule):
    """An MLP in Equinox."""

    def module(self, inputs: Inputs, rngs: Any) -> Any:
        """The network."""
        return _EquinoxNet(inputs.tokens, inputs.classes, rngs)


def measure(say: Any = print) -> Mapping[str, float | None]:
    """The ratios, by key."""
    flax = dataclasses.replace(find("flax_transformer"), seeds=(0,))
    own = dataclasses.replace(flax, model=find("grokking").model)
    plain = MLP(width=_WIDTH, embedding="shared", d_embed=_D, activation="relu")
    pairs = {
        "nnx_transformer_vs_plain": (ours(own, _STEPS, route="plain"), ours(flax, _STEPS)),
        "nnx_transformer_vs_fastest": (ours(own, _STEPS), ours(flax, _STEPS)),
    }
    for name, model in (("linen", LinenMLP()), ("equinox", EquinoxMLP())):
        pairs[f"{name}_mlp_vs_plain"] = (
            ours(dataclasses.replace(flax, model=plain), _STEPS),
            ours(dataclasses.replace(flax, model=model), _STEPS),
        )
    ratios = {name: compared(*pair) for name, pair in pairs.items()}
    for name, ratio in ratios.items():
        say(ratio.line(name, _STEPS))
    return {name: ratio.median for name, ratio in ratios.items()}


if __name__ == "__main__":
    sys.exit(report("modules", measure, __doc__ or ""))
