"""Training: optimizers, schedules, the loop, interventions, and the trajectory it leaves."""

from mi_jax.training.interventions import INTERVENTIONS, Change
from mi_jax.training.losses import LOSSES, CrossEntropy
from mi_jax.training.optimizers import OPTIMIZERS, AdamW
from mi_jax.training.schedules import SCHEDULES, at, dense, every, log_spaced
from mi_jax.training.trajectory import Storage

__all__ = [
    "INTERVENTIONS",
    "LOSSES",
    "OPTIMIZERS",
    "SCHEDULES",
    "AdamW",
    "Change",
    "CrossEntropy",
    "Storage",
    "at",
    "dense",
    "every",
    "log_spaced",
]
