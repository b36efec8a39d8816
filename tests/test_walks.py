"""The walks in ARCHITECTURE.md are those that objects take, and pass no file more than twice."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_walks_are_those_of_the_architecture() -> None:
    # In a process of its own: here the types of arguments are checked by wrappers, through which
    # a call within a file looks like one from another file.
    code = (
        "import json, sys; sys.path.insert(0, 'docs'); import make_walks;"
        " passed = make_walks.walks(); print(json.dumps([passed, make_walks.page(passed)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=_ROOT, check=True, capture_output=True, text=True
    )
    passed, page = json.loads(done.stdout.splitlines()[-1])
    for call, files in passed.items():
        assert max(Counter(files).values()) <= 2, (call, files)
    text = (_ROOT / "ARCHITECTURE.md").read_text()
    assert page == text, "run python docs/make_walks.py"
