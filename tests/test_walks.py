"""The walks in ARCHITECTURE.md are those that objects take, and pass no file more than twice."""

import importlib.util
from collections import Counter
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_walks_are_those_of_the_architecture() -> None:
    spec = importlib.util.spec_from_file_location("make_walks", _ROOT / "docs" / "make_walks.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    passed = made.walks()
    for call, files in passed.items():
        assert max(Counter(files).values()) <= 2, (call, files)
    text = (_ROOT / "ARCHITECTURE.md").read_text()
    assert made.page(passed) == text, "run python docs/make_walks.py"
