"""What the command line prints: tables, and nested results as lines."""

from collections.abc import Sequence
from typing import Any

MOST = 40
"""Values that are printed one by one."""


def lines_of(told: dict[str, Any], prefix: str = "") -> list[str]:
    """Tab-separated lines, nested names joined by dots; long lists are counted."""
    lines: list[str] = []
    for name, value in told.items():
        if isinstance(value, dict) and len(value) <= MOST:
            lines += lines_of(value, f"{prefix}{name}.")
        elif isinstance(value, (dict, list)) and _count(value) > MOST:
            lines.append(f"{prefix}{name}\t{_told(_count(value))}")
        else:
            lines.append(
                f"{prefix}{name}\t{value:.6g}"
                if isinstance(value, float)
                else f"{prefix}{name}\t{value}"
            )
    return lines


def lines_of_readings(readings: dict[str, Any], prefix: str = "") -> list[str]:
    """A line a reading, or one a place where there are few; longer ones are counted, however many
    readings there are.
    """
    counted = {name: _count(value) for name, value in readings.items()}
    return lines_of(
        {
            name: one if counted[name] <= MOST else _told(counted[name])
            for name, one in readings.items()
        },
        prefix,
    )


def _told(count: int) -> str:
    return f"{count} values (see --json)"


def _count(value: Any) -> int:
    """How many numbers a nested list or dict holds."""
    parts = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    )
    return 1 if parts is None else sum(map(_count, parts))


def print_table(rows: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Rows of a name and cells; the first one is the head."""
    # Nothing else of the command line waits for rich.
    from rich.console import Console
    from rich.table import Table

    (head, cells), *rest = rows
    table = Table(head, *cells, box=None, header_style="bold")
    for label, values in rest:
        table.add_row(label, *values)
    Console().print(table)
