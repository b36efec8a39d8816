"""What there is, for ``mi-jax list``: tasks, models, measures, their options and experiments, a row
each.
"""

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import jax

from mi_jax.basics.records import constructor
from mi_jax.measures.probes import Probe
from mi_jax.measuring.registry import EXPENSIVE, READINGS, WITH_OPTIONS
from mi_jax.models import MODELS
from mi_jax.tasks import TASKS

Row = tuple[str, ...]
"""A name and what is said of it, cell by cell."""


def _tasks() -> list[Row]:
    def row(name: str, task: Any) -> Row:
        truth = task.evaluation(task.data(0), jax.random.key(0)).ground_truth
        return name, task.paper, _summary(type(task)), ", ".join(truth), constructor(task)

    return [row(name, task.smallest()) for name, task in TASKS.items()]


def _models() -> list[Row]:
    return [(name, _summary(model)) for name, model in MODELS.items()]


def _measures() -> list[Row]:
    return [
        (
            name,
            f"{'retrospective' if one.retrospective else 'online'}{named}",
            " ".join(["seed", "step", *dims]),
            one.source,
        )
        for registry, named in ((READINGS, ""), (EXPENSIVE, ", when named"))
        for one in registry.values()
        for name, dims in one.variables.items()
    ]


def _options() -> list[Row]:
    def row(name: str, make: Callable[..., Any]) -> Row:
        given = [
            one
            for one in inspect.signature(make).parameters.values()
            if one.kind is not one.VAR_KEYWORD
        ]
        told = [f"{one.name}={one.default!r}" for one in given]
        probed = (
            [f"{one.name}={one.default!r}" for one in fields(Probe)]
            if name.startswith("probe")
            else []
        )
        return name, _summary(make), ", ".join([*told, *probed])

    return [row(name, make) for name, make in WITH_OPTIONS.items()]


def _experiments() -> list[Row]:
    from mi_jax.runs.library import shipped, summary

    return [(name, summary(file)) for name, file in shipped().items()]


def _summary(thing: Any) -> str:
    """The first paragraph of a docstring, as one line."""
    return " ".join((thing.__doc__ or "").strip().split("\n\n")[0].split())


LISTS: dict[str, tuple[list[str], Callable[[], list[Row]]]] = {
    "tasks": (["paper", "what it is", "truth", "smallest setting"], _tasks),
    "models": (["what it is"], _models),
    "measures": (["when", "dims", "source"], _measures),
    "options": (["what it is", "options and their defaults"], _options),
    "experiments": (["what it is"], _experiments),
}
"""By kind, the heads of its cells after the name, and what makes its rows."""
