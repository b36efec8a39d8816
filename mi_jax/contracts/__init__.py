"""Contracts between the rooms: tasks, models, losses, optimizers, measures and estimators.

The rooms know one another through these types alone. Configuration is a frozen dataclass: it is
hashable, and a run stores it by its registry name. Behaviour is pure functions.
"""

from mi_jax.contracts.labels import Labels, labels, renamed_inputs, token_labels
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
from mi_jax.contracts.model import (
    EXAMPLE_INPUTS,
    PAIR_INPUTS,
    PLAIN,
    VECTOR_INPUTS,
    Architecture,
    DocumentedSites,
    Heads,
    Model,
    Roles,
    Site,
    Tap,
    Taps,
)
from mi_jax.contracts.task import (
    LONGEST_CHUNK,
    Batch,
    Evaluation,
    Feed,
    Inputs,
    Task,
    TaskSize,
    trained_labels,
)
from mi_jax.contracts.training import GradientTransformation, Loss, Optimizer, batch_loss, mean_loss

__all__ = [
    "EXAMPLE_INPUTS",
    "LONGEST_CHUNK",
    "PAIR_INPUTS",
    "PLAIN",
    "VECTOR_INPUTS",
    "Architecture",
    "Batch",
    "Context",
    "DocumentedSites",
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
    "TaskSize",
    "batch_loss",
    "labels",
    "mean_loss",
    "option_suffix",
    "renamed_inputs",
    "token_labels",
    "trained_labels",
]
