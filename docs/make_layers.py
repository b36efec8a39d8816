"""Write the table of layers in ARCHITECTURE.md from the table in ``tests/test_layers.py``.

python docs/make_layers.py
"""

import importlib.util
from pathlib import Path
from types import ModuleType

_ROOT = Path(__file__).parents[1]
_BEGIN, _END = "<!-- layers: made by docs/make_layers.py -->", "<!-- end of layers -->"


def _layers() -> ModuleType:
    """Import the test module that holds the table."""
    spec = importlib.util.spec_from_file_location("layers", _ROOT / "tests" / "test_layers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def table() -> str:
    """Table in Markdown, one row per room."""
    layers = _layers()
    rows = [
        f"| `{room}` | {', '.join(f'`{name}`' for name in layers.ordered(allowed)) or 'nothing'} |"
        for room, allowed in layers.MAY_IMPORT.items()
    ]
    return "\n".join(["| room | may import |", "|---|---|", *rows])


def page() -> str:
    """Text of ARCHITECTURE.md with the table in its place."""
    text = (_ROOT / "ARCHITECTURE.md").read_text()
    before, rest = text.split(_BEGIN)
    return f"{before}{_BEGIN}\n\n{table()}\n\n{_END}{rest.split(_END)[1]}"


if __name__ == "__main__":
    (_ROOT / "ARCHITECTURE.md").write_text(page())
