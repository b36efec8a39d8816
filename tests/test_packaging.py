"""What the package promises to those who install it."""

import re
import tomllib
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_TEXTS = (
    "mi_jax/**/*.py",
    "tests/**/*.py",
    "experiments/*.py",
    "docs/*.md",
    "notebooks/*.py",
    "*.md",
)


def test_every_extra_that_a_text_advises_exists() -> None:
    extras = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    advised = {
        extra.strip(): file.relative_to(_ROOT)
        for pattern in _TEXTS
        for file in _ROOT.glob(pattern)
        for names in re.findall(r"mi-jax\\?\[([\w, -]+)\]", file.read_text())
        for extra in names.split(",")
    }
    assert {"decompositions", "bench", "cuda"} <= set(advised)
    assert not {extra: file for extra, file in advised.items() if extra not in extras}
