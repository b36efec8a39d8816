"""Somebody else's run is data: no code that it names is imported or called until it is allowed."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny_mlp_experiment

from mi_jax.basics.errors import ConfigError, DamagedError, NotAllowedError
from mi_jax.basics.records import decode, digest
from mi_jax.cli.main import main
from mi_jax.contracts import Task
from mi_jax.runs.experiment import REGISTRY, Experiment
from mi_jax.runs.library import find
from mi_jax.runs.run import Run, open_run
from mi_jax.runs.sweep import sweep
from mi_jax.runs.train import train
from mi_jax.tasks import ModularArithmetic
from mi_jax.training.record import identity

_STORED = Path(__file__).parents[1] / "data" / "run_format_1"

_SENTINEL = '''
from dataclasses import dataclass
from pathlib import Path

from mi_jax.tasks import ModularArithmetic

(Path(__file__).parent / "imported").write_text("x")


@dataclass(frozen=True)
class Mine(ModularArithmetic):
    """Addition mod p."""


class Writes:
    def __init__(self, **settings):
        (Path(__file__).parent / "called").write_text("x")
'''


def _named(path: Path, name: str, *keys: str | int) -> Path:
    """A copy of a stored run whose record names a class at some place; its hashes are right."""
    shutil.copytree(_STORED, path)
    record = json.loads((path / "run.json").read_text())
    del record["digest"]
    part = record["experiment"]
    for key in keys[:-1]:
        part = part[key]
    old = part[keys[-1]]
    part[keys[-1]] = {**(old if isinstance(old, dict) else {}), "type": name}
    record["hash"] = digest(identity(record["experiment"]))
    (path / "run.json").write_text(json.dumps({**record, "digest": digest(record)}))
    return path


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module in the current folder, which is on the Python path too, that writes a
    file when it is imported.
    """
    name = f"sentinel_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(_SENTINEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield name
    sys.modules.pop(name, None)


_PLACES = [("task",), ("model",), ("optimizer",), ("loss",), ("schedule",), ("storage",)]


@pytest.mark.parametrize("place", _PLACES, ids=lambda place: place[-1])
def test_no_module_that_a_run_names_is_imported(
    mine: str, tmp_path: Path, place: tuple[str, ...]
) -> None:
    for i, name in enumerate((f"{mine}:Mine", f"{mine}:Writes")):
        run = open_run(_named(tmp_path / f"run{i}", name, *place))
        for ask in (lambda run=run: run.experiment, run.measure, lambda run=run: run.state_at(3)):
            with pytest.raises(NotAllowedError, match=f"uses? classes of {mine}"):
                ask()
        assert run.params(6)["embed"]["W_E"].shape[0] == 2
    assert mine not in sys.modules
    assert not (tmp_path / "imported").exists()


def test_a_class_in_the_place_of_a_name_is_refused_before_it_is_looked_for(
    mine: str, tmp_path: Path
) -> None:
    with pytest.raises(DamagedError, match="must be an experiment with a name"):
        open_run(_named(tmp_path / "run", f"{mine}:Writes", "name"))
    assert mine not in sys.modules


_COMMANDS = [
    "measure RUN",
    "train RUN",
    "run RUN --dry-run",
    "run RUN --help",
    "fork RUN --step 4",
    "zoom RUN --around 4",
    "reproduce RUN",
    "compare RUN RUN",
    "sweep RUN --steps 3,4",
    "measure weights.npz --like RUN",
    "train RUN/run.json",
]


@pytest.mark.parametrize("command", _COMMANDS)
def test_no_command_imports_what_a_run_names_and_each_says_how_to_allow_it(
    mine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    run = _named(tmp_path / "theirs", f"{mine}:Mine", "task")
    (tmp_path / "weights.npz").write_bytes(b"")
    words = [word.replace("RUN", str(run)) for word in command.split()]
    assert main([*words, "--no-compile-cache"]) == 2
    errors = capsys.readouterr().err
    assert not (tmp_path / "imported").exists()
    assert f"mi-jax {' '.join(words)} --no-compile-cache --allow-module {mine}" in errors
    assert str(tmp_path / f"{mine}.py") in errors
    assert "recorded no hash" in errors


def test_info_and_verify_need_no_permission(
    mine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _named(tmp_path / "theirs", f"{mine}:Mine", "task")
    assert main(["info", str(run)]) == 0
    assert f"{mine}:Mine" in capsys.readouterr().out
    main(["verify", str(run)])
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("os:system", ("task",)),
        ("os:system", ("name",)),
        ("builtins:print", ("loss",)),
        ("json:JSONDecoder", ("task",)),
        ("test_permission:Hidden", ("task",)),
        ("test_permission:Bare", ("task",)),
        ("test_permission:Own", ("model",)),
        ("test_permission:Own", ("name",)),
        ("test_permission:Own.p", ("task",)),
        ("mi_jax.contracts.labels:Labels", ("task",)),
        ("adamw", ("task",)),
        ("modular_arithmetic", ("seeds",)),
        ("mi_jax.cli.__main__:main", ("task",)),
        ("mi_jax.cli.main:main", ("task",)),
        ("mi_jax.tasks:os.system", ("task",)),
        ("mi_jax.experiments.grokking:experiment", ("task",)),
    ],
)
def test_nothing_is_called_but_frozen_dataclasses_of_the_contract(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, place: tuple[str, ...]
) -> None:
    record = json.loads((_STORED / "run.json").read_text())["experiment"]
    record[place[0]] = {"type": name}
    with pytest.raises(ConfigError):
        Experiment.from_json(record)
    assert _CALLED == []
    assert capfd.readouterr().out == ""


_CALLED: list[str] = []


@dataclass(frozen=True)
class Hidden:
    """A frozen dataclass of no contract."""

    def __post_init__(self) -> None:
        _CALLED.append("Hidden")


class Bare:
    """No dataclass at all."""

    def __init__(self) -> None:
        _CALLED.append("Bare")


@dataclass(frozen=True)
class Own(ModularArithmetic):
    """A task."""

    note: Any = None


def test_a_class_whose_module_the_caller_has_imported_is_found() -> None:
    record = tiny_mlp_experiment(task=Own(p=7)).to_json()
    assert record["task"]["type"] == "test_permission:Own"
    assert Experiment.from_json(record).task == Own(p=7)
    record["task"]["note"] = {"type": "test_permission:Hidden"}
    with pytest.raises(ConfigError, match="note names Hidden, which is not a frozen dataclass"):
        Experiment.from_json(record)
    assert _CALLED == []


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"type": "modular_arithmetic", "p": "7"}, 'settings.p="7" has the wrong type'),
        ({"type": "modular_arithmetic", "p": True}, "p=true has the wrong type"),
        ({"type": "modular_arithmetic", "p": 1e30}, "takes int"),
        ({"type": "modular_arithmetic", "p": 10**30}, "takes int"),
        ({"type": "modular_arithmetic", "fraction": None}, "takes float"),
        ({"type": "modular_arithmetic", "operation": "ad"}, "takes Literal"),
        ({"type": "at", "at": [2, "x"]}, "takes tuple"),
        ({"type": ["x"]}, "Unknown type"),
    ],
)
def test_values_of_the_wrong_type_are_refused_by_name(record: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        decode(record, REGISTRY)


def test_only_the_contract_that_a_field_asks_for_is_made() -> None:
    with pytest.raises(ConfigError, match="not a frozen dataclass of the type that belongs there"):
        decode({"type": "adamw"}, REGISTRY, Task)


@pytest.fixture
def own(mine: str, tmp_path: Path) -> Path:
    """A run of a class of the sentinel module, which this process has forgotten again."""
    task = importlib.import_module(mine).Mine(p=7, fraction=0.5)
    run = train(tiny_mlp_experiment(task=task, steps=4, seeds=(0,)), tmp_path / "own")
    assert run.experiment.task == task
    del sys.modules[mine]
    (tmp_path / "imported").unlink()
    sys.path.remove(str(tmp_path))
    return run.path


def test_an_allowed_module_is_imported_from_the_current_folder(
    mine: str, own: Path, tmp_path: Path
) -> None:
    with pytest.raises(NotAllowedError, match="is the file that the run was trained with"):
        _ = open_run(own).experiment
    assert not (tmp_path / "imported").exists()
    run = open_run(own, allow_modules=[mine])
    assert type(run.experiment.task).__name__ == "Mine"
    assert (tmp_path / "imported").exists()
    assert run.measure(["test_loss"])["test_loss"].sizes["step"] == len(run.steps)


def test_another_file_than_the_recorded_one_is_named_as_such(
    mine: str, own: Path, tmp_path: Path
) -> None:
    file = tmp_path / f"{mine}.py"
    file.write_text(f"{_SENTINEL}\n# changed\n")
    with pytest.raises(NotAllowedError, match=f"{file}, which by its hash is not the file"):
        _ = open_run(own).experiment


def test_an_allowed_module_is_found_on_the_python_path_after_the_current_folder(
    mine: str, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.syspath_prepend(tmp_path)
    assert type(open_run(own, allow_modules=[mine]).experiment.task).__name__ == "Mine"
    assert sys.modules.pop(mine).__file__ == str(tmp_path / f"{mine}.py")
    shutil.copy(tmp_path / f"{mine}.py", elsewhere)
    open_run(own, allow_modules=[mine])
    assert sys.modules[mine].__file__ == str(elsewhere / f"{mine}.py")


def test_an_allowed_module_is_looked_for_in_no_other_place(
    mine: str, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    with pytest.raises(ConfigError, match=f"There is no module {mine} in {elsewhere} or on the"):
        open_run(own, allow_modules=[mine])
    # Neither inside the run, nor by a link from there.
    for place in (own, own / "code"):
        place.mkdir(exist_ok=True)
        monkeypatch.chdir(place)
        (place / f"{mine}.py").symlink_to(tmp_path / f"{mine}.py")
        with pytest.raises(ConfigError, match="never imported"):
            open_run(own, allow_modules=[mine])
    # Nor where the Python path leads into a run.
    with monkeypatch.context() as patch:
        patch.chdir(elsewhere)
        patch.syspath_prepend(own)
        with pytest.raises(ConfigError, match="never imported"):
            open_run(own, allow_modules=[mine])
    monkeypatch.chdir(elsewhere)
    shutil.copy(tmp_path / f"{mine}.py", own / "code.py")
    (elsewhere / f"{mine}.py").symlink_to(own / "code.py")
    with pytest.raises(ConfigError, match="never imported"):
        open_run(own, allow_modules=[mine])
    assert not (tmp_path / "imported").exists()
    assert not list(tmp_path.rglob("imported"))


@pytest.mark.parametrize("name", ["mine.py", "../mine", "", "a b", "/mine"])
def test_what_is_no_name_of_a_module_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="not the name of a module"):
        open_run(_STORED, allow_modules=[name])


def test_a_module_inside_a_package_is_allowed_by_its_full_name(mine: str, tmp_path: Path) -> None:
    package = tmp_path / f"package_{mine}"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text(_SENTINEL)
    name = f"{package.name}.inner"
    run = _named(tmp_path / "theirs", f"{name}:Mine", "task")
    with pytest.raises(NotAllowedError, match=str(package / "inner.py")):
        _ = open_run(run).experiment
    assert type(open_run(run, allow_modules=[name]).experiment.task).__name__ == "Mine"
    for module in (name, package.name):
        del sys.modules[module]


def test_a_command_allows_a_module_beside_a_file_that_it_names(
    mine: str, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_run(own)
    run.export(4, tmp_path / "weights.npz")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    words = ["measure", "../weights.npz", "--like", str(own), "--measures", "test_loss"]
    assert main(words) == 2
    assert not (tmp_path / "imported").exists()
    assert main([*words, "--allow-module", mine]) == 0


def test_the_experiment_file_of_the_command_needs_no_permission(
    mine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / f"{mine}.py"
    file.write_text(
        f"{_SENTINEL}\nfrom mi_jax import Experiment\nfrom mi_jax.models import MLP\n"
        "experiment = Experiment(task=Mine(p=5, fraction=0.5), model=MLP(width=4), steps=2)\n"
    )
    assert main(["train", str(file), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    assert main(["measure", str(tmp_path / "out"), "--measures", "test_loss", "--quiet"]) == 0
    capsys.readouterr()
    # Another process has not imported it.
    command = [sys.executable, "-P", "-m", "mi_jax.cli", "measure", "out", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    advised = f"mi-jax measure out --quiet --allow-module {mine}"
    assert advised in done.stderr
    again = [*command, "--allow-module", mine, "--measures", "test_loss"]
    done = subprocess.run(again, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_processes_of_a_sweep_know_the_modules_that_were_allowed(
    mine: str, own: Path, tmp_path: Path
) -> None:
    experiment = open_run(own, allow_modules=[mine]).experiment
    summary = sweep(experiment, {"steps": (2, 3)}, tmp_path / "sweep", processes=2)
    assert summary.sizes["steps"] == 2


def test_stored_readings_of_a_run_that_is_not_allowed_say_whether_they_were_checked(
    mine: str, own: Path, tmp_path: Path
) -> None:
    run = open_run(own, allow_modules=[mine])
    run.measure(["test_loss"])
    del sys.modules[mine]
    stored = Run(run.trajectories).measures
    assert "checked" not in stored["test_loss"].attrs
    (tmp_path / f"{mine}.py").unlink()
    theirs = open_run(own).measures
    assert theirs["test_loss"].attrs["checked"] is False
    assert theirs["test_loss"].values.tolist() == stored["test_loss"].values.tolist()


def test_a_file_named_on_the_command_line_is_the_callers_own(mine: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="defines no `experiment`"):
        find(str(tmp_path / f"{mine}.py"))
    assert (tmp_path / "imported").exists()
