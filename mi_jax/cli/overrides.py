"""Overrides of an experiment from the command line: ``--task.p 31 --optimizer.learning-rate 1e-2
--seeds 0,1,2``.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, get_args, get_origin

import tyro

from mi_jax.basics.errors import ConfigError, nearest
from mi_jax.basics.fields import old_names, setting, with_setting
from mi_jax.models import MODELS
from mi_jax.planted import PATHS
from mi_jax.runs.experiment import Experiment
from mi_jax.tasks import TASKS
from mi_jax.training import FILTERS, LOSSES, OPTIMIZERS

PARTS: Mapping[str, Mapping[str, Callable[[], Any]]] = {
    "task": {name: task.smallest for name, task in TASKS.items()},
    "model": MODELS,
    "optimizer": OPTIMIZERS,
    "loss": LOSSES,
    "path": {"none": lambda: None, **PATHS},
    "optimizer.filter": {
        "none": lambda: None,
        **{name: make for name, make in FILTERS.items() if name != "in_turn"},
    },
}
"""By part and name, the constructor of what ``--PART.name NAME`` puts into the experiment: a task
at its smallest setting, other parts with their defaults. ``optimizer.filter`` is put into the
optimizer that is named with it.
"""


def with_named_parts(
    experiment: Experiment, arguments: Sequence[str]
) -> tuple[Experiment, list[str]]:
    """Replace the parts that ``--task.name NAME`` and the like name.

    Args:
        experiment: the experiment to change.
        arguments: words of the command line.

    Returns:
        The experiment, and the other arguments.

    Raises:
        ConfigError: for an unknown name, a part named twice, or a flag without a name.
    """
    words = list(arguments)
    rest: list[str] = []
    parts: dict[str, Any] = {}
    while words:
        word = words.pop(0)
        flag, equals, value = word.partition("=")
        part = flag.removeprefix("--").removesuffix(".name")
        if part not in PARTS or flag != f"--{part}.name":
            rest.append(word)
            continue
        if not equals and not words:
            raise ConfigError(f"{flag} needs a name; {nearest('', PARTS[part])}")
        if part in parts:
            raise ConfigError(f"{flag} is given twice. Give it once.")
        name = value if equals else words.pop(0)
        if name not in PARTS[part]:
            raise ConfigError(f"There is no {part} '{name}'; {nearest(name, PARTS[part])}")
        parts[part] = PARTS[part][name]()
    # Sorted, so that an optimizer is in place before its filter is put into it.
    for part in sorted(parts):
        experiment = with_setting(experiment, part, parts[part])
    return experiment, rest


def with_overrides(experiment: Experiment, arguments: Sequence[str], command: str) -> Experiment:
    """Replace parts and settings of an experiment.

    An unreadable override ends the process with a message and status 2.

    Args:
        experiment: the experiment to change.
        arguments: words of the command line, such as ``["--task.p", "31"]``.
        command: the command that the message names.

    Raises:
        ConfigError: for a value that the experiment refuses.
    """
    experiment, arguments = with_named_parts(experiment, arguments)
    arguments = _with_new_names(experiment, arguments)
    if not arguments:
        return experiment
    registry = tyro.constructors.ConstructorRegistry()
    registry.primitive_rule(_whole_numbers)
    return tyro.cli(
        Experiment,
        default=experiment,
        args=list(arguments),
        prog=command,
        description=(
            "Settings of the experiment, each with its value as default. A whole part is replaced"
            " by name before its settings are read: --task.name NAME puts in that task at its"
            " smallest setting; --model.name, --optimizer.name, --loss.name and"
            " --optimizer.filter.name put in another with its defaults."
        ),
        config=(tyro.conf.AvoidSubcommands, tyro.conf.SuppressFixed),
        registry=registry,
    )


def with_swept(
    experiment: Experiment, arguments: Sequence[str], command: str
) -> tuple[Experiment, dict[str, tuple[Any, ...]]]:
    """Separate swept settings, ``--optimizer.weight-decay 0.1,1``, from overrides of one value.

    A list of whole numbers, such as seeds, is one value.

    Args:
        experiment: the experiment to change.
        arguments: words of the command line.
        command: the command that messages name.

    Returns:
        The experiment with its overrides, and the values of each swept setting by dotted name.

    Raises:
        ConfigError: for a value that the experiment refuses.
    """
    experiment, arguments = with_named_parts(experiment, arguments)
    arguments = _with_new_names(experiment, arguments)
    words: list[str] = []
    for argument in arguments:
        words += argument.split("=", 1) if argument.startswith("--") else [argument]
    fixed: list[str] = []
    swept: dict[str, list[str]] = {}
    while words:
        flag = words.pop(0)
        name = flag.removeprefix("--").replace("-", "_")
        has_values = flag.startswith("--") and bool(words) and "," in words[0]
        if has_values and not isinstance(_setting_or_none(experiment, name), tuple):
            swept[name] = words.pop(0).split(",")
        else:
            fixed.append(flag)
    base = with_overrides(experiment, fixed, command)
    axes: dict[str, tuple[Any, ...]] = {}
    for name, texts in swept.items():
        flag = f"--{name.replace('_', '-')}"
        points = [with_overrides(base, [flag, text], command) for text in texts]
        axes[name] = tuple(setting(point, name) for point in points)
    return base, axes


def _setting_or_none(experiment: Experiment, name: str) -> Any:
    try:
        return setting(experiment, name)
    except ConfigError:
        return None


def _with_new_names(experiment: Experiment, arguments: Sequence[str]) -> list[str]:
    """Replace the old name of each renamed setting by the new one, with a line on stderr."""
    words = []
    for word in arguments:
        flag, equals, value = word.partition("=")
        parent, _, last = flag.removeprefix("--").replace("-", "_").rpartition(".")
        part = _setting_or_none(experiment, parent) if parent else experiment
        renamed = old_names(part) if flag.startswith("--") and is_dataclass(part) else {}
        if last in renamed:
            path = f"{parent}.{renamed[last]}" if parent else renamed[last]
            new_flag = f"--{path}".replace("_", "-")
            print(
                f"mi-jax: {flag} is now {new_flag}. The old name will be removed in mi_jax 0.3.",
                file=sys.stderr,
            )
            word = f"{new_flag}{equals}{value}"
        words.append(word)
    return words


_MOST_NUMBERS = 100_000
"""The most numbers that a list on the command line may stand for."""


def parse_whole_numbers(text: str) -> tuple[int, ...]:
    """Parse ``0,1,2`` and ``0-4`` as numbers.

    Raises:
        ConfigError: for any other text.

    Example:
        >>> parse_whole_numbers("0-2,7")
        (0, 1, 2, 7)
    """
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        try:
            values = range(int(first), int(last if dash else first) + 1)
        except ValueError as error:
            raise ConfigError(
                f"Cannot read '{text}'. Give a list of whole numbers such as 0,1,2 or 0-4."
            ) from error
        # Not len(values), which fails from 2^63 on.
        if len(numbers) + values.stop - values.start > _MOST_NUMBERS:
            raise ConfigError(
                f"'{text}' lists more than {_MOST_NUMBERS} numbers. Give a shorter list."
            )
        numbers += values
    return tuple(numbers)


def _whole_numbers(info: Any) -> Any:
    """Tell tyro how to read a tuple of whole numbers from one word."""
    # tyro narrows the type to the length of the default: tuple[int, int] for two seeds.
    if get_origin(info.type) is not tuple or not set(get_args(info.type)) <= {int, Ellipsis}:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT,INT,...",
        instance_from_str=lambda arguments: parse_whole_numbers(arguments[0]),
        is_instance=lambda value: (
            isinstance(value, tuple) and all(isinstance(x, int) for x in value)
        ),
        str_from_instance=lambda value: [",".join(map(str, value))],
    )
