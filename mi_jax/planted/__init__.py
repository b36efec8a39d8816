"""Planted truths: networks and trajectories with known weights, against which measures, probes and
dates are tested.
"""

from mi_jax.planted.gromov import gromov
from mi_jax.planted.induction import backup_head, induction, unused_concept
from mi_jax.planted.network import Planted
from mi_jax.planted.paths import PATHS, RandomWalk, ScaledInduction, TwoCircuits
from mi_jax.planted.runs import random_walk, scaled_induction, two_circuits

__all__ = [
    "PATHS",
    "Planted",
    "RandomWalk",
    "ScaledInduction",
    "TwoCircuits",
    "backup_head",
    "gromov",
    "induction",
    "random_walk",
    "scaled_induction",
    "two_circuits",
    "unused_concept",
]
