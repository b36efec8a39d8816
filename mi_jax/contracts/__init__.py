"""Contracts between the rooms: what a task, a model, a loss, an optimizer, a measure and an
estimator are to one another.

The folders know each other through these types alone. Configuration is a frozen dataclass
(hashable, stored in the run by its registry name); behaviour is pure functions.
"""

from mi_jax.contracts.labels import Labels, labels, renamed, token_labels, with_parities
from mi_jax.contracts.measure import (
    Context,
    Estimator,
    Holders,
    Measure,
    MeasureFunction,
    Null,
    Reference,
    Shared,
    Subject,
    option_suffix,
)
from mi_jax.contracts.model import PLAIN, Architecture, Heads, Model, Roles, Site, Tap, Taps
from mi_jax.contracts.task import (
    LONGEST_CHUNK,
    Batch,
    Evaluation,
    Feed,
    Inputs,
    Task,
    trained_labels,
)
from mi_jax.contracts.training import GradientTransformation, Loss, Optimizer, batch_loss, mean_loss

__all__ = [
    "LONGEST_CHUNK",
    "PLAIN",
    "Architecture",
    "Batch",
    "Context",
    "Estimator",
    "Evaluation",
    "Feed",
    "GradientTransformation",
    "Heads",
    "Holders",
    "Inputs",
    "Labels",
    "Loss",
    "Measure",
    "MeasureFunction",
    "Model",
    "Null",
    "Optimizer",
    "Reference",
    "Roles",
    "Shared",
    "Site",
    "Subject",
    "Tap",
    "Taps",
    "Task",
    "batch_loss",
    "labels",
    "mean_loss",
    "option_suffix",
    "renamed",
    "token_labels",
    "trained_labels",
    "with_parities",
]
