"""Training: losses, optimizers, schedules, the loop, and the trajectory that it leaves on disk."""

from mi_jax.training.filters import FILTERS, GrokfastEMA, GrokfastMA, OrthogonalGradient
from mi_jax.training.losses import (
    LOSSES,
    MSE,
    CrossEntropy,
    Hinge,
    LogSoftmaxCrossEntropy,
    StableMax,
)
from mi_jax.training.optimizers import OPTIMIZERS, SGD, Adam, AdamW, Muon
from mi_jax.training.rates import RATES, CosineRate, LinearRate, StepRate
from mi_jax.training.schedules import SCHEDULES, at, dense, every, log_spaced
from mi_jax.training.trajectory import Storage

__all__ = [
    "FILTERS",
    "LOSSES",
    "MSE",
    "OPTIMIZERS",
    "RATES",
    "SCHEDULES",
    "SGD",
    "Adam",
    "AdamW",
    "CosineRate",
    "CrossEntropy",
    "GrokfastEMA",
    "GrokfastMA",
    "Hinge",
    "LinearRate",
    "LogSoftmaxCrossEntropy",
    "Muon",
    "OrthogonalGradient",
    "StableMax",
    "StepRate",
    "Storage",
    "at",
    "dense",
    "every",
    "log_spaced",
]
