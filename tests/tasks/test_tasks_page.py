"""The tasks page is what the registry says."""

import importlib.util
from pathlib import Path

_DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_what_the_code_says() -> None:
    spec = importlib.util.spec_from_file_location("make_tasks", _DOCS / "make_tasks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (_DOCS / "tasks.md").read_text() == module.page(), "run: python docs/make_tasks.py"
