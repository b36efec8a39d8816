"""Calls as text: ``name(option=0.3, other=("a", "b"))``, literals only, parsed and never executed."""

import ast
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from mi_jax.basics.errors import ConfigError, nearest
from mi_jax.basics.records import frozen


def called(text: str, known: Mapping[str, Callable[..., Any]], *, kind: str, example: str) -> Any:
    """What the call of one of the known functions or classes with literal arguments gives; lists
    are tuples.

    Args:
        kind: what they make, for errors. example: a call as it should be written.

    Example:
        >>> called("pair(1, b=[2, 3])", {"pair": lambda a, b: (a, b)}, kind="pair", example="pair(1, b=2)")
        (1, (2, 3))

    Raises:
        ConfigError: for anything else.
    """
    told = f"'{text}' is no {kind}; write it as {example}"
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"{told} ({error})") from error
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise ConfigError(told)
    name = call.func.id
    if name not in known:
        raise ConfigError(f"there is no {kind} '{name}'; {nearest(name, known)}")
    try:
        given = [frozen(ast.literal_eval(argument)) for argument in call.args]
        named = {keyword.arg: frozen(ast.literal_eval(keyword.value)) for keyword in call.keywords}
    except (ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(
            f"'{text}': its arguments must be numbers, strings, tuples of them, or None ({error})"
        ) from error
    return _made(name, known[name], given, named)


def split_calls(text: str) -> list[str]:
    """Names and calls, separated by the commas outside of brackets and quotes.

    Example:
        >>> split_calls("train_loss, probe_mdl(sites=('a', 'b'))")
        ['train_loss', "probe_mdl(sites=('a', 'b'))"]
    """
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote or letter in "'\"":
            quote = "" if letter == quote else quote or letter
        depth += (not quote and letter in "([{") - (not quote and letter in ")]}")
        if letter == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def _made(
    name: str, make: Callable[..., Any], given: list[Any], named: dict[str | None, Any]
) -> Any:
    signature = inspect.signature(make)
    open_ended = any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values())
    for option in named:
        if option is None or (option not in signature.parameters and not open_ended):
            raise ConfigError(
                f"{name} has no setting '{option}'; {nearest(str(option), signature.parameters)}"
            )
    try:
        return make(*given, **named)  # pyright: ignore[reportCallIssue]
    except TypeError as error:
        raise ConfigError(f"{name}{_bare(signature)}: {error}") from error


def _bare(signature: inspect.Signature) -> inspect.Signature:
    """Without its types, which are long."""
    empty = inspect.Parameter.empty
    bare = [one.replace(annotation=empty) for one in signature.parameters.values()]
    return signature.replace(parameters=bare, return_annotation=inspect.Signature.empty)
