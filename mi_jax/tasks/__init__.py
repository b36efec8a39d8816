"""Tasks: the data, and what is known to be true of it."""

from mi_jax.tasks.addition import MultiDigitAddition
from mi_jax.tasks.algebra import ModularArithmetic
from mi_jax.tasks.parity import SparseParity

TASKS = {
    "modular_arithmetic": ModularArithmetic,
    "sparse_parity": SparseParity,
    "multi_digit_addition": MultiDigitAddition,
}
"""Every task by its registry name."""

__all__ = ["TASKS", "ModularArithmetic", "MultiDigitAddition", "SparseParity"]
