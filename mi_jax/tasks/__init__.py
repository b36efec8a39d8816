"""Tasks: the data, and what is known to be true of it."""

from mi_jax.tasks.algebra import ModularArithmetic

TASKS = {
    "modular_arithmetic": ModularArithmetic,
}
"""Every task by its registry name."""

__all__ = ["TASKS", "ModularArithmetic"]
