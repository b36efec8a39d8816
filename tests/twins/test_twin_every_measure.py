"""Every measure of the registry has a twin: a float64 computation in a file of this folder."""

import ast
from pathlib import Path

from mi_jax.measuring.registry import EXPENSIVE, READINGS


def _named(file: Path) -> set[str]:
    """Strings of a twin's code, without docstrings."""
    return {
        node.value
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_every_measure_has_a_twin() -> None:
    files = sorted(Path(__file__).parent.glob("test_twin_*.py"))
    named = set[str]().union(*(_named(file) for file in files))
    without = sorted({*READINGS, *EXPENSIVE} - named)
    assert not without, (
        f"These measures have no float64 twin: {without}. Write one from the formula in the"
        " measure's docstring, in the file of its family in tests/twins."
    )
