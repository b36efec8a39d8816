"""A transformer of one or more layers: its settings, forward pass, sites and weight views."""

from mi_jax.models.transformer.model import Transformer

__all__ = ["Transformer"]
