"""Models: pure functions of plain nested dicts of arrays, with named sites and roles.

``NnxModule``, ``LinenModule`` and ``EquinoxModule`` are bases for networks that were written with
those packages. A new model takes one file here, one line in ``MODELS`` and one test file.
``python docs/make_sites.py`` then adds its sites to the documentation.
"""

from mi_jax.models.bilinear import Bilinear
from mi_jax.models.linear import DeepLinear
from mi_jax.models.markov import MarkovAttention
from mi_jax.models.mlp import MLP
from mi_jax.models.modules import EquinoxModule, Here, LinenModule, NnxModule
from mi_jax.models.taps import Tapped, capture
from mi_jax.models.transformer import Transformer

MODELS = {
    "transformer": Transformer,
    "mlp": MLP,
    "bilinear": Bilinear,
    "deep_linear": DeepLinear,
    "markov_attention": MarkovAttention,
}
"""The settings class of every model, by registry name."""

__all__ = [
    "MLP",
    "MODELS",
    "Bilinear",
    "DeepLinear",
    "EquinoxModule",
    "Here",
    "LinenModule",
    "MarkovAttention",
    "NnxModule",
    "Tapped",
    "Transformer",
    "capture",
]
