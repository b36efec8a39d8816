"""Calls as text, such as ``name(option=0.3)``: parsed as literals and never executed."""

import ast
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from mi_jax.basics.errors import ConfigError, nearest
from mi_jax.basics.records import frozen


def called(text: str, known: Mapping[str, Callable[..., Any]], *, kind: str, example: str) -> Any:
    """Call one of the known functions or classes as a text says, with literal arguments.

    Args:
        text: the call, such as ``pair(1, b=[2, 3])``. Lists become tuples.
        known: the functions and classes that may be called, by name.
        kind: noun for their results, used in errors.
        example: a well-formed call, used in errors.

    Returns:
        The result of the call.

    Raises:
        ConfigError: if the text is not such a call, or its arguments are refused.

    Example:
        >>> known = {"pair": lambda a, b: (a, b)}
        >>> called("pair(1, b=[2, 3])", known, kind="pair", example="pair(1, b=2)")
        (1, (2, 3))
    """
    malformed = f"'{text}' is no {kind}; write it as {example}"
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"{malformed} ({error})") from error
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise ConfigError(malformed)
    name = call.func.id
    if name not in known:
        raise ConfigError(f"There is no {kind} '{name}'; {nearest(name, known)}")
    try:
        positional = [frozen(ast.literal_eval(argument)) for argument in call.args]
        keywords = {k.arg: frozen(ast.literal_eval(k.value)) for k in call.keywords}
    except (ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(
            f"'{text}': its arguments must be numbers, strings, tuples of them, or None ({error})"
        ) from error
    return _call(name, known[name], positional, keywords)


def split_calls(text: str) -> list[str]:
    """Split a list of names and calls at the commas outside of brackets and quotes.

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


def _call(
    name: str,
    function: Callable[..., Any],
    positional: list[Any],
    keywords: dict[str | None, Any],
) -> Any:
    signature = inspect.signature(function)
    parameters = signature.parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for option in keywords:
        # The name of ``**options`` in a call is None.
        if option is None or (option not in parameters and not open_ended):
            raise ConfigError(
                f"{name} has no setting '{option}'; {nearest(str(option), parameters)}"
            )
    try:
        return function(*positional, **keywords)  # pyright: ignore[reportCallIssue]
    except TypeError as error:
        raise ConfigError(f"{name}{_without_types(signature)}: {error}") from error


def _without_types(signature: inspect.Signature) -> inspect.Signature:
    """The signature without its annotations, which are long."""
    empty = inspect.Parameter.empty
    parameters = [p.replace(annotation=empty) for p in signature.parameters.values()]
    return signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)
