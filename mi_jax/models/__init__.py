"""Models: pure functions of plain nested dicts of arrays, with named sites and roles."""

from mi_jax.models.bilinear import Bilinear
from mi_jax.models.linear import DeepLinear
from mi_jax.models.markov import MarkovAttention
from mi_jax.models.mlp import MLP
from mi_jax.models.taps import Tapped, capture
from mi_jax.models.transformer import Transformer

MODELS = {
    "transformer": Transformer,
    "mlp": MLP,
    "bilinear": Bilinear,
    "deep_linear": DeepLinear,
    "markov_attention": MarkovAttention,
}
"""Every model's settings by registry name."""

__all__ = [
    "MLP",
    "MODELS",
    "Bilinear",
    "DeepLinear",
    "MarkovAttention",
    "Tapped",
    "Transformer",
    "capture",
]
