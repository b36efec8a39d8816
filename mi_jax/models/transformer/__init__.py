"""A transformer of one to n layers."""

from mi_jax.models.transformer.model import Transformer

__all__ = ["Transformer"]
