"""Interop: readers for weights in the formats of other libraries and papers."""

from mi_jax.interop.pth import Record, read_pth

__all__ = ["Record", "read_pth"]
