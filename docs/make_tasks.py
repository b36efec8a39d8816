"""Writes ``tasks.md``, the page of every task with its paper and what is known of it, from the
registry.

python docs/make_tasks.py
"""

from pathlib import Path

import jax

from mi_jax.basics.records import constructor
from mi_jax.contracts import Task
from mi_jax.tasks import TASKS

_HEAD = """# Tasks

Every task by its registry name: `mi-jax list tasks` lists them, `--task.name NAME` puts a task's smallest setting in place of an
experiment's. *Truth* are the concepts of the smallest setting: exact facts that readings are scored against, each defined in the
task's docstring; other settings may have more or fewer. *Labels* are what is known of single examples,
for probes, each with its number of classes. This page is made by `python docs/make_tasks.py`.

| task | what it is | paper | inputs | splits | truth | labels | smallest setting |
|---|---|---|---|---|---|---|---|
"""


def _inputs(task: Task) -> str:
    inputs = task.inputs
    if inputs.kind == "floats":
        return (
            f"{inputs.features} floats at {inputs.positions} position{'s' * (inputs.positions > 1)}"
        )
    return (
        f"{inputs.positions} tokens of {inputs.vocabulary}, read at"
        f" {', '.join(map(str, task.read))}"
    )


def _row(name: str, task: Task) -> str:
    evaluation = task.evaluation(task.data(0), jax.random.key(0))
    told = (type(task).__doc__ or "").strip().split("\n\n")[0]
    cells = [
        f"`{name}`",
        " ".join(told.split()).replace("|", "\\|"),
        task.paper,
        _inputs(task),
        ", ".join(sorted(evaluation.batches)),
        ", ".join(f"`{concept}`" for concept in evaluation.ground_truth),
        ", ".join(f"`{concept}` {one.classes}" for concept, one in task.labels(evaluation).items()),
        f"`{constructor(task)}`",
    ]
    return f"| {' | '.join(cells)} |"


def page() -> str:
    """The page's text."""
    return _HEAD + "\n".join(_row(name, task.smallest()) for name, task in TASKS.items()) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("tasks.md").write_text(page())
