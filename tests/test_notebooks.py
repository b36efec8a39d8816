"""The notebooks: kept as scripts too, executed with their figures in, and run here on a tiny setting."""

from pathlib import Path
from typing import Any

import jupytext
import pytest

_FOLDER = Path(__file__).parents[1] / "notebooks"
_TINY = {"01_first_trajectory": {"p": 11, "steps": 60, "snapshots": 8}}


def _notebooks() -> list[str]:
    return sorted(file.stem for file in _FOLDER.glob("*.py"))


def test_every_notebook_is_run_here() -> None:
    assert _notebooks() == sorted(_TINY) == sorted(file.stem for file in _FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("name", _notebooks())
def test_the_notebook_is_its_script(name: str) -> None:
    script, notebook = (jupytext.read(_FOLDER / f"{name}.{kind}") for kind in ("py", "ipynb"))
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [(cell.cell_type, cell.source) for cell in script.cells]


@pytest.mark.parametrize("name", _notebooks())
def test_the_notebook_was_executed_to_its_end_with_its_figures_in(name: str) -> None:
    cells = [cell for cell in jupytext.read(_FOLDER / f"{name}.ipynb").cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("name", _notebooks())
def test_the_script_runs_on_a_tiny_setting(name: str, tmp_path: Path) -> None:
    cells = [cell for cell in jupytext.read(_FOLDER / f"{name}.py").cells if cell.cell_type == "code"]
    (settings,) = (cell for cell in cells if "parameters" in cell.metadata.get("tags", []))
    space: dict[str, Any] = {}
    exec(settings.source, space)
    tiny = {**_TINY[name], "out": str(tmp_path / "run")}
    assert tiny.keys() <= space.keys()
    space |= tiny
    for cell in cells:
        if cell is not settings:
            lines = [line for line in cell.source.splitlines() if not line.startswith("%")]
            exec("\n".join(lines), space)
    assert set(space["own"]) == {"output_alignment"}
    assert float(space["own"]["output_alignment"][0, -1]) == pytest.approx(1, abs=1e-6)
