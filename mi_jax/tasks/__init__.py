"""Tasks: data to train on, and exact facts about them."""

from mi_jax.tasks import fourier_gap
from mi_jax.tasks.addition import MultiDigitAddition
from mi_jax.tasks.algebra import ModularArithmetic
from mi_jax.tasks.composition import GroupComposition
from mi_jax.tasks.from_arrays import FromArrays
from mi_jax.tasks.groups import Group, conjugacy_classes, group
from mi_jax.tasks.parity import SparseParity
from mi_jax.tasks.representations import characters, irrep_basis, irrep_type, irreps
from mi_jax.tasks.sequences import RepeatedSequences

TASKS = {
    "modular_arithmetic": ModularArithmetic,
    "group": GroupComposition,
    "sparse_parity": SparseParity,
    "multi_digit_addition": MultiDigitAddition,
    "repeated_sequences": RepeatedSequences,
    "from_arrays": FromArrays,
}
"""Every task by its registry name. A new task needs one line here."""

__all__ = [
    "TASKS",
    "FromArrays",
    "Group",
    "GroupComposition",
    "ModularArithmetic",
    "MultiDigitAddition",
    "RepeatedSequences",
    "SparseParity",
    "characters",
    "conjugacy_classes",
    "fourier_gap",
    "group",
    "irrep_basis",
    "irrep_type",
    "irreps",
]
