"""Output of the command line: tables, and nested results as lines."""

from collections.abc import Sequence
from typing import Any

MOST = 40
"""The largest number of values that are printed one by one."""


def lines_of(values: dict[str, Any], prefix: str = "") -> list[str]:
    """Format nested values as lines ``a.b<tab>value``; long lists are counted instead.

    Args:
        values: numbers, texts, lists and dicts of these, by name.
        prefix: text before each name.
    """
    lines: list[str] = []
    for name, value in values.items():
        if isinstance(value, dict) and len(value) <= MOST:
            lines += lines_of(value, f"{prefix}{name}.")
        elif isinstance(value, (dict, list)) and _count(value) > MOST:
            lines.append(f"{prefix}{name}\t{_counted(_count(value))}")
        elif isinstance(value, float):
            lines.append(f"{prefix}{name}\t{value:.6g}")
        else:
            lines.append(f"{prefix}{name}\t{value}")
    return lines


def lines_of_readings(readings: dict[str, Any], prefix: str = "") -> list[str]:
    """Format readings as ``lines_of`` does, each reading counted by itself, however many there are.

    Args:
        readings: the values of each reading by name.
        prefix: text before each name.
    """
    short = {
        name: value if _count(value) <= MOST else _counted(_count(value))
        for name, value in readings.items()
    }
    return lines_of(short, prefix)


def _counted(count: int) -> str:
    return f"{count} values (see --json)"


def _count(value: Any) -> int:
    """Count the numbers in a nested list or dict."""
    if isinstance(value, dict):
        return sum(map(_count, value.values()))
    if isinstance(value, list):
        return sum(map(_count, value))
    return 1


def print_table(rows: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Print a table.

    Args:
        rows: each is a label and its cells, one per column; the first row is the header.
    """
    # Imported here, since no other output of the command line needs rich.
    from rich.console import Console
    from rich.table import Table

    (head, cells), *rest = rows
    table = Table(head, *cells, box=None, header_style="bold")
    for label, values in rest:
        table.add_row(label, *values)
    Console().print(table)
