"""Overrides of an experiment from the command line: ``--task.p 31 --optimizer.learning-rate 1e-2
--seeds 0,1,2``.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, get_args, get_origin

import tyro

from mi_jax.basics.errors import ConfigError, nearest, require
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
        **{name: one for name, one in FILTERS.items() if name != "in_turn"},
    },
}
"""What ``--task.name`` and the like put in place of an experiment's part: by name, a task's
smallest setting, the defaults of the others. A part of a part, ``--optimizer.filter.name``, is put
into the part that is named with it.
"""


def with_named_parts(
    experiment: Experiment, arguments: Sequence[str]
) -> tuple[Experiment, list[str]]:
    """The experiment with the parts that ``--task.name NAME`` and the like name, and the other
    arguments.

    Raises:
        ConfigError: for a name that isn't there, a part named twice, or a flag without a name.
    """
    words, rest, named = list(arguments), list[str](), dict[str, Any]()
    while words:
        word = words.pop(0)
        flag, equals, value = word.partition("=")
        part = flag.removeprefix("--").removesuffix(".name")
        if part not in PARTS or flag != f"--{part}.name":
            rest.append(word)
            continue
        require(bool(equals or words), f"{flag} needs a name; {nearest('', PARTS[part])}")
        require(part not in named, f"{flag} is given twice")
        name = value if equals else words.pop(0)
        require(name in PARTS[part], f"there is no {part} '{name}'; {nearest(name, PARTS[part])}")
        named[part] = PARTS[part][name]()
    for part in sorted(named):
        experiment = with_setting(experiment, part, named[part])
    return experiment, rest


def with_overrides(experiment: Experiment, arguments: Sequence[str], command: str) -> Experiment:
    """The experiment with parts and fields replaced. An unreadable override ends the process with a
    message and status 2.

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
            "Overrides of the experiment; names are those of its settings. --task.name NAME first"
            " puts that task's smallest setting in place of the experiment's; --model.name,"
            " --optimizer.name, --loss.name and --optimizer.filter.name another's defaults."
        ),
        config=(tyro.conf.AvoidSubcommands, tyro.conf.SuppressFixed),
        registry=registry,
    )


def with_swept(
    experiment: Experiment, arguments: Sequence[str], command: str
) -> tuple[Experiment, dict[str, tuple[Any, ...]]]:
    """The experiment with its overrides, and the settings that were given several values:
    ``--optimizer.weight-decay 0.1,1``.

    A list of whole numbers, such as seeds, is one value.

    Raises:
        ConfigError: for a value that the experiment refuses.
    """
    experiment, arguments = with_named_parts(experiment, arguments)
    arguments = _with_new_names(experiment, arguments)
    fixed, swept = list[str](), dict[str, list[str]]()
    words = [
        word
        for argument in arguments
        for word in (argument.split("=", 1) if argument.startswith("--") else [argument])
    ]
    i = 0
    while i < len(words):
        flag, value = words[i], words[i + 1] if i + 1 < len(words) else ""
        name = flag.removeprefix("--").replace("-", "_")
        if (
            flag.startswith("--")
            and "," in value
            and not isinstance(_setting_or_none(experiment, name), tuple)
        ):
            swept[name] = value.split(",")
            i += 2
        else:
            fixed.append(flag)
            i += 1
    base = with_overrides(experiment, fixed, command)
    values = {
        name: tuple(
            setting(with_overrides(base, [f"--{name.replace('_', '-')}", text], command), name)
            for text in texts
        )
        for name, texts in swept.items()
    }
    return base, values


def _setting_or_none(experiment: Experiment, name: str) -> Any:
    try:
        return setting(experiment, name)
    except ConfigError:
        return None


def _with_new_names(experiment: Experiment, arguments: Sequence[str]) -> list[str]:
    """The arguments with the new name of each renamed setting; an old one is told on stderr."""
    words = []
    for word in arguments:
        flag, equals, value = word.partition("=")
        path = flag.removeprefix("--").replace("-", "_").split(".")
        part: Any = experiment
        for name in path[:-1]:
            part = getattr(part, name, None)
        old = old_names(part) if flag.startswith("--") and is_dataclass(part) else {}
        if path[-1] in old:
            new = "--" + ".".join([*path[:-1], old[path[-1]]]).replace("_", "-")
            print(f"mi-jax: {flag} is now {new}; the old name goes with 0.3", file=sys.stderr)
            word = f"{new}{equals}{value}"
        words.append(word)
    return words


def parse_whole_numbers(text: str) -> tuple[int, ...]:
    """``0,1,2`` and ``0-4`` as numbers.

    Example:
        >>> parse_whole_numbers("0-2,7")
        (0, 1, 2, 7)
    """
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        try:
            numbers += range(int(first), int(last) + 1) if dash else [int(first)]
        except ValueError as error:
            raise ConfigError(
                f"'{text}' isn't a list of whole numbers such as 0,1,2 or 0-4"
            ) from error
    return tuple(numbers)


def _whole_numbers(info: Any) -> Any:
    # tyro narrows the type by the default's length.
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
