"""Models: pure functions of plain nested dicts of arrays, with named sites and roles."""

from mi_jax.models.mlp import MLP
from mi_jax.models.taps import Tapped, capture
from mi_jax.models.transformer import Transformer

MODELS = {
    "transformer": Transformer,
    "mlp": MLP,
}
"""Every model's settings by registry name."""

__all__ = ["MLP", "MODELS", "Tapped", "Transformer", "capture"]
