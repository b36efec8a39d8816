"""Interventions as text: ``Change(field="optimizer.weight_decay", value=0.3, start=400)``, literals only, never executed."""

import ast
import inspect
from typing import Any

from mi_jax.errors import ConfigError, nearest
from mi_jax.interventions.places import Intervention


def parse(text: str, known: dict[str, type[Intervention]]) -> Intervention:
    """The intervention that a call of one of the known classes with literal arguments says.

    Example:
        >>> from mi_jax.interventions import INTERVENTIONS
        >>> parse('Freeze("embed.*", start=10, stop=20)', INTERVENTIONS)
        Freeze(start=10, stop=20, parameters=('embed.*',))

    Raises:
        ConfigError: for anything else.
    """
    told = f"'{text}' is no intervention; write it as Change(field=\"optimizer.weight_decay\", value=0.3, start=400)"
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"{told} ({error})") from error
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise ConfigError(told)
    classes = {one.__name__: one for one in known.values()}
    if call.func.id not in classes:
        raise ConfigError(f"there is no intervention '{call.func.id}'; {nearest(call.func.id, classes)}")
    try:
        given = [_literal(argument) for argument in call.args]
        named = {keyword.arg: _literal(keyword.value) for keyword in call.keywords}
    except ValueError as error:
        raise ConfigError(f"'{text}': its arguments must be numbers, strings, tuples of them, or None ({error})") from error
    return _made(classes[call.func.id], given, named)


def _literal(node: ast.expr) -> Any:
    value = ast.literal_eval(node)
    return _tuples(value)


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _tuples(item) for name, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value


def _made(cls: type[Intervention], given: list[Any], named: dict[str | None, Any]) -> Intervention:
    signature = inspect.signature(cls)
    for name in named:
        if name is None or name not in signature.parameters:
            raise ConfigError(f"{cls.__name__} has no setting '{name}'; {nearest(str(name), signature.parameters)}")
    try:
        return cls(*given, **named)  # pyright: ignore[reportCallIssue]
    except TypeError as error:
        raise ConfigError(f"{cls.__name__}{signature}: {error}") from error
