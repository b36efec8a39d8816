"""The tasks page agrees with the registry."""

import importlib.util
from pathlib import Path

_DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_agrees_with_the_code() -> None:
    spec = importlib.util.spec_from_file_location("make_tasks", _DOCS / "make_tasks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (_DOCS / "tasks.md").read_text() == module.page(), "run: python docs/make.py"
