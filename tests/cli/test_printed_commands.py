"""Every command that a page, a message or the documentation prints is tried as it is printed."""

import html
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import tiny_experiment

from mi_jax.basics.pytrees import dotted
from mi_jax.cli import reading
from mi_jax.cli.main import main
from mi_jax.contracts import Architecture, Task
from mi_jax.models import MLP
from mi_jax.runs import sweep as sweeps
from mi_jax.runs import train as training
from mi_jax.runs.fork import fork
from mi_jax.runs.library import find
from mi_jax.runs.run import Run, open_run
from mi_jax.runs.train import train
from mi_jax.tasks import GroupComposition, ModularArithmetic
from mi_jax.training import Storage, every

_HERE = Path(__file__).parents[2]

_FILES = [
    *sorted(_HERE.glob("docs/*.md")),
    *sorted(_HERE.glob("*.md")),
    _HERE / "checkpoints" / "README.md",
    *sorted(_HERE.glob("experiments/*.py")),
    *sorted(_HERE.glob("mi_jax/**/*.py")),
]
"""Files that print commands. The history in CHANGELOG.md names options without a whole command."""

_QUOTED = re.compile(r"`(?:\.venv/bin/)?mi-jax ([^`\n]*)`")
_LINE = re.compile(r"^(?: *|[\w ]*: )mi-jax ([a-z].*?)(?:   .*)?$", re.MULTILINE)

_PLACEHOLDERS = {
    "RUN": "my_run",
    "FORK": "my_fork",
    "EXPERIMENT": "grokking",
    "STEP": "40",
    "NAME": "mlp",
    "DIR": "new",
    "checkpoints/NAME": "my_run",
    "checkpoints/short": "my_run",
    "checkpoints/grokking": "my_run",
    "checkpoints/grokking-fork-400": "my_fork",
    "checkpoints/cosine": "my_run",
    "checkpoints/mine": "my_run",
    "fork_a": "my_fork",
    "fork_b": "without_keys",
}
"""What a word in capitals stands for, and the folder for one that a text takes for granted."""


def _printed() -> list[str]:
    """Every command in the files, once, without its ``mi-jax``."""
    found: dict[str, None] = {}
    for file in _FILES:
        if file.name == "CHANGELOG.md":
            continue
        content = re.sub(r"\\+\n\s*", "", file.read_text())
        for line in [*_QUOTED.findall(content), *_LINE.findall(content)]:
            text = re.sub(r"\s{2,}.*", "", line.split(" # ")[0]).strip().rstrip(".:,")
            # A template of Python, or a mere mention of a verb or an option.
            if "{" not in text and " " in text and not text.startswith(("VERB", "COMMAND", "--")):
                found[text] = None
    return list(found)


class _ReachedError(Exception):
    """Training, or measuring at length, would begin now."""


def _reached(*arguments: Any, **settings: Any) -> Any:
    raise _ReachedError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what the documentation takes for granted: runs, weights, and files."""
    here = tmp_path_factory.mktemp("printed")
    settings: Any = {"schedule": every(100), "steps": 3_000, "storage": Storage(states=4)}
    settings |= {"seeds": (0, 1), "task": ModularArithmetic(p=5, fraction=0.5)}
    run = train(tiny_experiment(name="my_run", **settings), here / "my_run")
    run.measure(["train_loss", "test_loss", "train_accuracy", "test_accuracy"])
    for name in ("my_fork", "without_keys"):
        fork(run, step=2_900, out=here / name)
    weights: list[tuple[str, Task, Architecture]] = [
        ("weights", ModularArithmetic(), find("nanda_2023").model),
        ("nanda", ModularArithmetic(), find("nanda_2023").model),
        ("weights_59", ModularArithmetic(p=59), find("nanda_2023").model),
        ("W", GroupComposition(group="S5"), find("chughtai_2023").model),
    ]
    import jax

    for name, task, model in weights:
        params = jax.device_get(model.build(task.inputs).init(jax.random.key(0)))
        np.savez(here / f"{name}.npz", **dotted(params))
    page = (_HERE / "docs" / "own_model.md").read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    (here / "cosine.py").write_text(code)
    page = (_HERE / "docs" / "own_network.md").read_text()
    network, *_, training_it = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (here / "mine.py").write_text(network + training_it.partition("run = ")[0])
    points = np.random.default_rng(0).normal(size=(8, 2))
    splits: Any = {"train": np.arange(4), "test": np.arange(4, 8)}
    np.savez(here / "ring.npz", inputs=points, targets=np.arange(8) % 2, **splits)
    for name in ("my_experiment", "their_experiment"):
        (here / f"{name}.py").write_text(
            "from mi_jax import Experiment\nexperiment = Experiment(steps=9)\n"
        )
    return here


@pytest.mark.slow
@pytest.mark.parametrize("command", _printed())
def test_a_command_of_the_documentation_is_one(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    words = shlex.split(command)
    # Where the text has the words in which they stand: `mi-jax list tasks` and the like.
    words = [_PLACEHOLDERS.get(word, word) for word in words]
    if "--task.p 59" in command:
        words = [word.replace("weights.npz", "weights_59.npz") for word in words]
    # What takes minutes is followed up to where it begins.
    monkeypatch.setattr(training, "train", _reached)
    monkeypatch.setattr(sweeps, "_claim", _reached)
    monkeypatch.setattr("mi_jax.measuring.stored.measure_weights", _reached)
    monkeypatch.setattr("mi_jax.runs.fork._train", _reached)
    monkeypatch.setattr("mi_jax.runs.fork.train_again", _reached)
    monkeypatch.setattr(reading, "show_report", lambda *arguments: 0)

    def choose_only(run: Run, *arguments: Any, **settings: Any) -> Any:
        measures = settings.get("measures", arguments[0] if arguments else None)
        run.choose(measures)
        raise _ReachedError

    monkeypatch.setattr(Run, "measure", choose_only)
    try:
        status = main([*words, "--no-compile-cache"] if words[0] not in ("list", "info") else words)
    except _ReachedError:
        status = 0
    except SystemExit as stop:
        status = stop.code
    assert status == 0, capsys.readouterr().err


def test_commands_are_found_in_every_kind_of_file() -> None:
    printed = _printed()
    for command in (
        "run grokking",
        "zoom my_run --around 2730",
        "run planted --path.name random_walk --out checkpoints/random_walk",
        "train my_experiment.py",
        "measure checkpoints/cosine --allow-module cosine",
    ):
        assert command in printed
    assert len(printed) > 60


# --- Messages and pages

_OWN = """
from dataclasses import dataclass
from mi_jax import Experiment
from mi_jax.models import MLP
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import AdamW, at

@dataclass(frozen=True)
class Mine(ModularArithmetic):
    pass

experiment = Experiment(
    name="mine",
    task=Mine(p=7, fraction=0.5),
    model=MLP(width=8),
    optimizer=AdamW(learning_rate=1e-2),
    steps=9,
    schedule=at(3),
)
"""


def _shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What a shell makes of a line, as a new process without this one's Python path."""
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    return subprocess.run(
        command, shell=True, cwd=folder, env=environment, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.long
def test_a_report_makes_its_run_again_as_it_says(tmp_path: Path) -> None:
    folder = tmp_path / "my experiments"
    folder.mkdir()
    (folder / "mine.py").write_text(_OWN)
    program = shlex.join([sys.executable, "-P", "-m", "mi_jax.cli"])
    first = _shell(f"{program} run mine.py --quiet", folder)
    assert first.returncode == 0, first.stderr
    page = (folder / "checkpoints" / "mine" / "report.html").read_text()
    commands = re.findall(r"[^\n<>]*\breproduce [^\n<>]*", page)
    assert len(commands) == 1, commands
    command = html.unescape(commands[0]).strip()
    assert command.endswith("reproduce checkpoints/mine --allow-module mine")
    again = _shell(command, folder)
    assert again.returncode == 0, again.stderr


def test_a_report_of_a_run_without_readings_says_what_to_type(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(
        tiny_experiment(model=MLP(width=8), steps=9, seeds=(0,)), tmp_path / "a run of mine"
    )
    assert main(["report", str(run.path), "--no-compile-cache"]) == 2
    said = re.search(r"`mi-jax (measure .*)` first", capsys.readouterr().err)
    assert said
    words = [*shlex.split(said[1]), "--measures", "train_loss", "--quiet", "--no-compile-cache"]
    assert main(words) == 0
    assert "train_loss" in open_run(run.path).measures


def test_the_command_that_allows_a_module_allows_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(_OWN)
    program = [sys.executable, "-P", "-m", "mi_jax.cli"]
    done = _shell(f"{shlex.join(program)} train mine.py --quiet --out 'a run'", tmp_path)
    assert done.returncode == 0, done.stderr
    refused = _shell(f"{shlex.join(program)} measure 'a run' --measures train_loss", tmp_path)
    assert refused.returncode == 2
    said = re.search(r"allow it: mi-jax (.*)", refused.stderr)
    assert said
    allowed = _shell(f"{shlex.join(program)} {said[1]}", tmp_path)
    assert allowed.returncode == 0, allowed.stderr


def test_a_folder_without_a_run_says_how_to_train_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "not yet"
    folder.mkdir()
    assert main(["info", str(folder)]) == 2
    said = re.search(r"`mi-jax (run EXPERIMENT .*)`", capsys.readouterr().err)
    assert said
    words = shlex.split(said[1].replace("EXPERIMENT", "grokking"))
    assert words == ["run", "grokking", "--out", str(folder)]
    assert main([*words, "--dry-run", "--quiet"]) == 0
