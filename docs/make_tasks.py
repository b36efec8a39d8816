"""Write ``tasks.md``, the page of every task with its paper and ground truth, from the registry.

python docs/make_tasks.py
"""

from pathlib import Path

import jax

from mi_jax.basics.records import constructor
from mi_jax.contracts import Task
from mi_jax.tasks import TASKS

_HEAD = """# Tasks

Every task by its registry name. `mi-jax list tasks` lists them; `--task.name NAME` replaces an
experiment's task with the smallest setting of another one. *Ground truth*: exact facts that
readings are scored against, each defined in the task's docstring. *Labels*: classes of single
examples, for probes, each with its number of classes. Both are those of the smallest setting; other
settings may have more or fewer. This page is made by `python docs/make.py`.

| task | description | paper | inputs | splits | ground truth | labels | smallest setting |
|---|---|---|---|---|---|---|---|
"""


def _inputs(task: Task) -> str:
    """Description of a task's inputs."""
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
    """Row of one task."""
    evaluation = task.evaluation(task.data(0), jax.random.key(0))
    summary = (type(task).__doc__ or "").strip().split("\n\n")[0]
    cells = [
        f"`{name}`",
        " ".join(summary.split()).replace("|", "\\|"),
        task.paper,
        _inputs(task),
        ", ".join(sorted(evaluation.batches)),
        ", ".join(f"`{name}`" for name in evaluation.ground_truth),
        ", ".join(f"`{name}` {label.classes}" for name, label in task.labels(evaluation).items()),
        f"`{constructor(task)}`",
    ]
    return f"| {' | '.join(cells)} |"


def page() -> str:
    """Text of the page."""
    return _HEAD + "\n".join(_row(name, task.smallest()) for name, task in TASKS.items()) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("tasks.md").write_text(page())
