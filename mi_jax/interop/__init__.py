"""Interop: other people's formats of weights and graphs."""

from mi_jax.interop.pth import Record, read_pth

__all__ = ["Record", "read_pth"]
