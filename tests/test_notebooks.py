"""The notebooks: kept as scripts too, executed with their figures in, and run here on a tiny
setting.
"""

from pathlib import Path
from typing import Any

import jupytext
import pytest

_FOLDER = Path(__file__).parents[1] / "notebooks"
_TINY = {
    "01_first_trajectory": {"p": 11, "steps": 60, "snapshots": 8},
    "02_decodable_used_and_degenerate": {"p": 11, "steps": 300, "snapshots": 9, "tolerance": 0.5},
}


def _check_first_trajectory(space: dict[str, Any]) -> None:
    assert set(space["own"]) == {"output_alignment"}
    assert float(space["own"]["output_alignment"][0, -1]) == pytest.approx(1, abs=1e-6)


def _check_decodable_used_and_degenerate(space: dict[str, Any]) -> None:
    used, unused = (space["truth"].sel(concept=name).squeeze() for name in space["two"]["concepts"])
    for one in (used, unused):
        assert float(one["probe_accuracy"]) > 0.99
    assert float(used["probe_effect"]) > float(used["probe_effect_null"].max())
    assert float(unused["probe_effect"]) <= float(unused["probe_effect_null"].max())
    expected, found = float(space["expected"].learning_coefficient), space["found"]
    assert float(found.learning_coefficient) == pytest.approx(expected, rel=0.1)


_CHECKS = {
    "01_first_trajectory": _check_first_trajectory,
    "02_decodable_used_and_degenerate": _check_decodable_used_and_degenerate,
}


def _notebooks() -> list[str]:
    return sorted(file.stem for file in _FOLDER.glob("*.py"))


def test_every_notebook_is_run_here() -> None:
    assert (
        _notebooks()
        == sorted(_TINY)
        == sorted(_CHECKS)
        == sorted(file.stem for file in _FOLDER.glob("*.ipynb"))
    )


@pytest.mark.parametrize("name", _notebooks())
def test_the_notebook_is_its_script(name: str) -> None:
    script, notebook = (jupytext.read(_FOLDER / f"{name}.{kind}") for kind in ("py", "ipynb"))
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [
        (cell.cell_type, cell.source) for cell in script.cells
    ]


@pytest.mark.parametrize("name", _notebooks())
def test_the_notebook_was_executed_to_its_end_with_its_figures_in(name: str) -> None:
    cells = [
        cell for cell in jupytext.read(_FOLDER / f"{name}.ipynb").cells if cell.cell_type == "code"
    ]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [
        output
        for output in outputs
        if output.output_type == "error" or output.get("name") == "stderr"
    ]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name.startswith("01") else pytest.mark.long)
        for name in _notebooks()
    ],
)
def test_the_script_runs_on_a_tiny_setting(name: str, tmp_path: Path) -> None:
    cells = [
        cell for cell in jupytext.read(_FOLDER / f"{name}.py").cells if cell.cell_type == "code"
    ]
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
    _CHECKS[name](space)
