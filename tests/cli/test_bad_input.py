"""Bad input: every case has an error that says what was given and what is allowed, and leaves
nothing half-written.
"""

import errno
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import tiny_mlp_experiment

from mi_jax.basics.errors import ConfigError
from mi_jax.basics.pytrees import dotted
from mi_jax.cli.main import VERBS, main
from mi_jax.models import capture
from mi_jax.runs.library import find
from mi_jax.runs.run import Run
from mi_jax.runs.train import train
from mi_jax.training.record import lock

TINY = shlex.split("--task.p 11 --model.d-model 16 --model.d-mlp 32 --steps 20 --seeds 0,1")


def _listing(folder: Path) -> dict[str, tuple[int, int]]:
    """The size and time of everything below a folder, except the lock."""
    stats = {
        str(path.relative_to(folder)): path.stat()
        for path in sorted(folder.rglob("*"))
        if path.name != ".lock"
    }
    return {
        name: (stat.st_size, stat.st_mtime_ns if Path(name).suffix else 0)
        for name, stat in stats.items()
    }


def _refused(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> str:
    """Run a command that must fail with status 2 and write nothing; return its errors."""
    before = _listing(folder)
    capsys.readouterr()
    try:
        status: Any = main(arguments)
    except SystemExit as stop:  # argparse's and tyro's own way
        status = stop.code
    out, errors = capsys.readouterr()
    assert status == 2, errors
    assert "Traceback" not in errors
    assert out == ""
    assert _listing(folder) == before
    return " ".join(errors.replace("│", " ").split())


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (
            "probe_accuracy(concepts='residue_sum')",
            "The task has no labels of a concept 'residue_sum'; known are",
        ),
        ("probe_accuracy(held_out='c')", "no labels of a concept 'c'"),
        ("probe_mdl(sites='hook_embed')", "hook_embed"),
        ("probe_effect(sites='embedd')", "embedd"),
        ("learning_coefficient(n_beta=0)", "n_beta=0: must be a positive number"),
        ("learning_coefficient(n_beta=-1.5)", "n_beta=-1.5: must be a positive"),
        ("learning_coefficient(epsilon=0)", "epsilon=0: must be a positive"),
        (
            "learning_coefficient(parameters='embedd.*')",
            "The pattern 'embedd.*' matches none of the parameters",
        ),
        ("learning_coefficient(parameters='embed*', entry=99)", "entry=99 must lie between"),
        ("learning_coefficient(entry=0)", "entry=0 is given without parameters. Name them"),
        ("learning_coefficient(split='tset')", "needs the task's split 'tset'"),
        ("learning_coefficient(where=('carry', 2))", "no example of 'train' is of that class"),
        ("learning_coefficient(examples=(5000,))", "; it holds [5000]"),
        ("sharpness(split='tset')", "needs the task's split 'tset'"),
        ("composition_score", "heads"),
    ],
)
def test_measures_of_what_is_missing_are_refused(
    run: Run, capsys: pytest.CaptureFixture[str], measure: str, message: str
) -> None:
    assert message in _refused(
        capsys, run.path, "measure", str(run.path), "--quiet", "--measures", f"train_loss,{measure}"
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The finished run of a small MLP, to point bad commands at."""
    return train(
        tiny_mlp_experiment(steps=20, seeds=(0, 1)), tmp_path_factory.mktemp("runs") / "mlp"
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("--task.p 0", "p=0: the modulus must be a whole number of at least 2"),
        ("--task.p -5", "p=-5: the modulus"),
        ("--task.p 1", "p=1: the modulus"),
        ("--task.fraction 0", "fraction=0.0: the trained share must lie between 0 and 1"),
        ("--task.fraction 1", "fraction=1.0"),
        ("--task.fraction 1.5", "fraction=1.5"),
        ("--task.fraction -0.1", "fraction=-0.1"),
        ("--task.fraction nan", "fraction=nan"),
        ("--task.fraction 0.001", "leaves 0 to train on"),
        ("--task.batch-size 0", "batch_size=0: must be a whole number from 1 to"),
        ("--task.operation multipl", "multiply"),
        ("--model.heads 5", "heads=5 does not divide d_model=16. Choose a divisor, or give d_head"),
        ("--model.heads 0", "heads=0: must be at least 1"),
        ("--model.activation rleu", "relu"),
        ("--optimizer.learning-rate nan", "learning_rate=nan: must be a finite number"),
        ("--optimizer.learning-rate -1", "learning_rate=-1.0"),
        ("--optimizer.weight-decay inf", "weight_decay=inf"),
        ("--optimizer.b1 1", "b1=1.0"),
        ("--steps 0", "steps=0 must be a whole number from 1"),
        ("--steps 1e3", "--steps"),
        ("--seeds 0,0", "seeds=(0, 0) contains a seed twice. Give each seed once"),
        ("--seeds 0,x", "whole numbers such as 0,1,2 or 0-4"),
        ("--seeds 2-1", "seeds is empty"),
        ("--schedule.n 1", "log_spaced(1): must be at least 2"),
        ("--task.q 3", "--task.q"),
        ("--task.split-sed 3", "--task.split-seed"),
        ("--modell.heads 2", "--modell.heads"),
        ("extra", "extra"),
    ],
)
@pytest.mark.parametrize("verb", ["train", "run"])
def test_a_setting_that_cannot_be_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, verb: str, overrides: str, message: str
) -> None:
    out = ["--out", str(tmp_path / "run"), "--no-compile-cache"]
    assert message in _refused(capsys, tmp_path, verb, "grokking", *out, *TINY, *overrides.split())


_ORGANISMS = [
    ("--task.name grup", "There is no task 'grup'; did you mean group?"),
    ("--task.name group --task.group S9x", "group='S9x' is unknown; did you mean S3, S4, S5, S6?"),
    ("--task.name group --task.group T5", "Groups are spelled C2, C3, ..."),
    ("--task.operation divde", "'divide'"),
    ("--task.p 12 --task.operation divide", "operation='divide' needs a prime modulus"),
    ("--task.p 12 --task.operation divide", "p=12 is not prime. The next prime is 13"),
    (
        "--task.label-noise 1.5",
        "label_noise=1.5: the share of replaced labels must lie between 0 and 1",
    ),
    ("--task.name sparse_parity --task.k 7", "k=7 of n=6 signs: k must be at most n"),
    (
        "--task.name sparse_parity",
        "A transformer reads tokens. This task gives floats. Use another model, such as mlp",
    ),
    ("--precision float16", "Expected one of ('float32', 'float64')"),
    ("--intervention Clamp(site='blocks.0.mlp.pots',value=0.0)", "blocks.0.mlp.post"),
    (
        "--intervention Change(field='optimizer.weight_decoy',value=0.3)",
        "did you mean optimizer.weight_decay",
    ),
    (
        "--intervention Change(field='optimizer.weight_decay',value=0.3,start=9,stop=9)",
        "range is empty: start=9, stop=9",
    ),
    (
        "--intervention Change(field='optimizer.weight_decay',value=0.3,start=20)",
        "would begin after the last of 20 updates. Let it start at step 19 or earlier",
    ),
]


@pytest.mark.parametrize(("overrides", "message"), _ORGANISMS)
def test_a_task_or_a_change_to_training_that_cannot_be_is_refused_before_training(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, overrides: str, message: str
) -> None:
    out = ["--out", str(tmp_path / "run"), "--no-compile-cache", "--steps", "20"]
    assert message in _refused(capsys, tmp_path, "train", "grokking", *out, *overrides.split())


def test_an_unknown_override_is_answered_with_similar_ones(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    message = _refused(
        capsys,
        tmp_path,
        "train",
        "grokking",
        "--out",
        str(tmp_path / "run"),
        "--task.split-sed",
        "3",
    )
    assert "Perhaps you meant" in message
    assert "--task.split-seed" in message


_FILES = {
    "beyond.py": (
        "from mi_jax import Experiment\n"
        "from mi_jax.training import at\n"
        "experiment = Experiment(steps=10, schedule=at(11))"
    ),
    "none.py": "trial = 1",
    "other.py": "experiment = {'steps': 3}",
}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("beyond.py", "Snapshots at steps [11] lie outside the run. Its steps are 0 to 10"),
        ("none.py", "defines no `experiment`. Assign an mi_jax.Experiment"),
        ("other.py", "defines no `experiment`"),
        ("missing.py", "There is no file"),
    ],
)
def test_a_file_that_holds_no_experiment_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, message: str
) -> None:
    for file, text in _FILES.items():
        (tmp_path / file).write_text(text)
    assert message in _refused(
        capsys, tmp_path, "train", str(tmp_path / name), "--out", str(tmp_path / "run")
    )


def test_steps_beyond_a_shortened_run_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "long.py").write_text(_FILES["beyond.py"].replace("steps=10", "steps=20"))
    message = _refused(
        capsys,
        tmp_path,
        "train",
        str(tmp_path / "long.py"),
        "--out",
        str(tmp_path / "run"),
        "--steps",
        "5",
    )
    assert "Snapshots at steps [11] lie outside the run. Its steps are 0 to 5" in message


@pytest.mark.parametrize("name", ["groking", "nowhere/run"])
def test_an_unknown_experiment_is_refused_with_those_there_are(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    assert "grokking" in _refused(capsys, tmp_path, "train", name, "--out", str(tmp_path / "run"))


def test_an_unknown_measure_is_refused_with_similar_ones(
    capsys: pytest.CaptureFixture[str], run: Run
) -> None:
    message = _refused(
        capsys,
        run.path,
        "measure",
        str(run.path),
        "--measures",
        "train_loss,tset_loss",
        "--no-compile-cache",
    )
    assert "There is no measure 'tset_loss'; did you mean test_loss" in message


def test_a_measure_that_this_run_does_not_allow_is_refused(
    capsys: pytest.CaptureFixture[str], run: Run
) -> None:
    message = _refused(
        capsys,
        run.path,
        "measure",
        str(run.path),
        "--measures",
        "attention_pattern",
        "--no-compile-cache",
    )
    assert "attention_pattern cannot be read here: it needs the model's role 'patterns'" in message


def test_an_unknown_tap_site_is_refused_with_similar_ones(tiny_run: Run) -> None:
    params, inputs = tiny_run.params(60, seed=0), np.array([[1, 2, 11]])
    with pytest.raises(
        ConfigError,
        match=r"no site 'blocks\.0\.mlp\.pots'; did you mean blocks\.0\.mlp\.post",
    ):
        tiny_run.apply(params, inputs, taps={"blocks.0.mlp.pots": lambda value: value})
    with pytest.raises(ConfigError, match=r"no site 'blocks\.1\.mlp\.post'"):
        capture(tiny_run.apply, ["blocks.1.mlp.post"])(params, inputs)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            "--optimizer.weight-decay 0.5",
            "optimizer.weight_decay: 1.0 there, 0.5 here. Use a new --out",
        ),
        ("--task.split-seed 9", "task.split_seed: 0 there, 9 here"),
        (
            "--seeds 0,1,2",
            (
                "seeds: [0, 1] there, [0, 1, 2] here. The seeds and steps of a run are fixed."
                " Train other seeds into a new --out"
            ),
        ),
        ("--seeds 1,0", "seeds: [0, 1] there, [1, 0] here"),
        ("--steps 21", "steps: 20 there, 21 here"),
    ],
)
def test_a_directory_of_another_run_is_refused_with_the_differences(
    capsys: pytest.CaptureFixture[str], run: Run, overrides: str, message: str
) -> None:
    command = [
        "train",
        str(run.path),
        "--out",
        str(run.path),
        "--no-compile-cache",
        *overrides.split(),
    ]
    assert message in _refused(capsys, run.path, *command)


def test_a_directory_of_another_model_is_refused(
    capsys: pytest.CaptureFixture[str], run: Run
) -> None:
    message = _refused(
        capsys, run.path, "train", "grokking", "--out", str(run.path), "--no-compile-cache", *TINY
    )
    assert "holds another run" in message
    assert "model: mlp there, transformer here" in message


def test_a_directory_that_holds_something_else_is_refused_and_left_alone(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    message = _refused(
        capsys,
        tmp_path,
        "train",
        "grokking",
        "--out",
        str(tmp_path / "thesis"),
        "--no-compile-cache",
        *TINY,
    )
    assert "is not empty and holds no run.json. Give another --out" in message
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]


@pytest.mark.parametrize("out", ["/proc/mi_jax_run", "/proc/1/nowhere/run", "file", "file/run"])
def test_a_path_that_cannot_be_written_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, out: str
) -> None:
    (tmp_path / "file").write_text("x")
    message = _refused(
        capsys,
        tmp_path,
        "train",
        "grokking",
        "--out",
        str(tmp_path / out),
        "--no-compile-cache",
        *TINY,
    )
    assert str(tmp_path / out) in message or out in message
    assert "cannot be written" in message or "is a file, but a run is a directory" in message


def test_two_trainers_on_one_run_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with lock(tmp_path / "run"):
        message = _refused(
            capsys,
            tmp_path,
            "train",
            "grokking",
            "--out",
            str(tmp_path / "run"),
            "--no-compile-cache",
            *TINY,
        )
    assert "Another process is training" in message


def _weights(run: Run, file: Path, **changes: Any) -> Path:
    arrays = {**dotted(run.params(20, seed=0)), **changes}
    np.savez(file, **{name: value for name, value in arrays.items() if value is not None})
    return file


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"unembed.W_U": np.zeros((24, 12), np.float32)},
            "unembed.W_U has the shape [24, 12], that of the model is [24, 11]",
        ),
        (
            {"unembed.W_U": None, "embed_a.W_E": None},
            "missing embed_a.W_E [11, 24]; missing unembed.W_U [24, 11]",
        ),
        (
            {"blocks.0.mlp.W_in": np.zeros((3, 3), np.float32)},
            "blocks.0.mlp.W_in [3, 3] is not a parameter of this model",
        ),
        ({"unembed.W_U": np.zeros((24, 11), np.int64)}, "unembed.W_U has the type int64"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    run: Run,
    changes: dict[str, Any],
    message: str,
) -> None:
    file = _weights(run, tmp_path / "weights.npz", **changes)
    out = ["--out", str(tmp_path / "readings.nc"), "--no-compile-cache"]
    assert message in _refused(
        capsys, tmp_path, "measure", str(file), "--like", str(run.path), *out
    )


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 truncated"])
def test_a_file_that_holds_no_weights_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, run: Run, content: bytes
) -> None:
    (tmp_path / "weights.npz").write_bytes(content)
    message = _refused(
        capsys,
        tmp_path,
        "measure",
        str(tmp_path / "weights.npz"),
        "--like",
        str(run.path),
        "--no-compile-cache",
    )
    assert "weights.npz cannot be read as an npz of arrays" in message


def test_weights_need_the_experiment_that_they_belong_to(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, run: Run
) -> None:
    file = _weights(run, tmp_path / "weights.npz")
    assert "which does not name its model and task" in _refused(
        capsys, tmp_path, "measure", str(file), "--no-compile-cache"
    )
    assert "no run or file" in _refused(
        capsys, tmp_path, "measure", str(tmp_path / "nothing"), "--no-compile-cache"
    )


def test_readings_of_weights_that_cannot_be_written_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, run: Run
) -> None:
    file = _weights(run, tmp_path / "weights.npz")
    command = [
        "measure",
        str(file),
        "--like",
        str(run.path),
        "--measures",
        "sum_squared_weights",
        "--no-compile-cache",
    ]
    assert "cannot be written" in _refused(capsys, tmp_path, *command, "--out", "/proc/readings.nc")


@pytest.mark.parametrize(
    "verb", ["measure", "report", "info", "verify", "fork --step 3", "zoom --around 3"]
)
def test_a_directory_that_is_no_run_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, verb: str
) -> None:
    assert "is no run: it holds no run.json" in _refused(
        capsys, tmp_path, *verb.split(), str(tmp_path)
    )


@pytest.mark.parametrize(
    "command",
    [
        ("info", "--stepz"),
        ("verify", "--task.p", "3"),
        ("report", "more"),
        ("measure", "--task.p", "3"),
        ("measure", "--like", "grokking"),
    ],
)
def test_unknown_options_of_a_verb_are_refused(
    capsys: pytest.CaptureFixture[str], run: Run, command: tuple[str, ...]
) -> None:
    verb, *rest = command
    assert rest[0] in _refused(capsys, run.path, verb, str(run.path), *rest)


@pytest.mark.parametrize(
    "command", [(), ("trian", "grokking"), ("list",), ("list", "nothing"), ("info",), ("train",)]
)
def test_an_incomplete_or_unknown_command_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: tuple[str, ...]
) -> None:
    capsys.readouterr()
    try:
        status: Any = main(command)
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert "usage" in "".join(capsys.readouterr()).lower()


_ROOM = """
from mi_jax import Experiment
from mi_jax.models import Transformer
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import AdamW, Storage, at, dense

experiment = Experiment(
    task=ModularArithmetic(p=11, fraction=0.5),
    model=Transformer(d_model=16, heads=2, d_mlp=1024),
    steps=60,
    schedule=at(5) | dense(53, 7),
    seeds=(0, 1),
    storage=Storage(states=4),
)
"""


def _with_room(limit: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a child that cannot write a file larger than ``limit`` bytes, as on a
    full disk.
    """
    code = (
        "import resource, sys; from mi_jax.cli.main import main;"
        f" resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));"
        " sys.exit(main(sys.argv[1:]))"
    )
    # No compile cache, which would be left with truncated files.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    command = [sys.executable, "-B", "-c", code, *arguments, "--no-compile-cache", "--quiet"]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture(scope="module")
def full(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path, subprocess.CompletedProcess[str]]:
    """An experiment file, its run on a full disk, and the output of its training."""
    folder = tmp_path_factory.mktemp("full")
    file, path = folder / "room.py", folder / "run"
    file.write_text(_ROOM)
    # A state takes 0.9 MB, W_in of the last segment's 15 snapshots 2 MB. How arrays are spread over
    # files differs by save.
    return file, path, _with_room(1_200_000, "train", str(file), "--out", str(path))


Full = tuple[Path, Path, subprocess.CompletedProcess[str]]


def test_a_full_disk_is_one_clear_error_and_keeps_what_was_saved(
    full: Full, capsys: pytest.CaptureFixture[str]
) -> None:
    _, path, done = full
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot be written" in done.stderr
    assert "Everything up to the segment before is kept. Make room" in done.stderr
    assert sorted(folder.name for folder in (path / "segments").iterdir()) == [
        "000000015",
        "000000030",
        "000000045",
    ]
    assert main(["verify", str(path)]) == 0
    assert "every stored number" in capsys.readouterr().out


def test_a_full_disk_is_reported_in_two_lines_at_most(full: Full) -> None:
    _, _, done = full
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2


@pytest.mark.slow
def test_a_run_that_met_a_full_disk_resumes_to_the_same_bits_once_there_is_room(
    full: Full, tmp_path: Path
) -> None:
    file, path, _ = full
    undisturbed, run = (
        train(find(str(file)), tmp_path / "undisturbed"),
        train(find(str(file)), path),
    )
    pairs = zip(jax.tree.leaves(run.stack()), jax.tree.leaves(undisturbed.stack()), strict=True)
    assert all(x.tobytes() == y.tobytes() for x, y in pairs)
    assert run.losses.equals(undisturbed.losses)


@pytest.mark.slow
def test_a_reading_on_a_full_disk_is_refused_and_leaves_no_file(run: Run) -> None:
    before = _listing(run.path)
    done = _with_room(2_000, "measure", str(run.path), "--measures", "train_loss")
    assert done.returncode == 2, (done.returncode, done.stderr[:300])
    assert "train_loss.nc cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert {name: stat for name, stat in _listing(run.path).items() if name != "measures"} == before


_LONG = "x" * 300


@pytest.mark.parametrize(
    "command",
    [
        f"measure weights.npz --like {_LONG}",
        f"measure {_LONG}",
        f"train {_LONG}",
        f"info {_LONG}",
        f"verify {_LONG}",
        f"report {_LONG}",
        f"fork {_LONG} --step 3",
        f"train grokking --steps 2 --out {_LONG}",
    ],
)
def test_a_path_that_is_too_long_for_the_system_is_a_sentence(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.npz").write_bytes(b"")
    assert "mi-jax: error:" in _refused(capsys, tmp_path, *command.split())


def test_a_full_disk_is_a_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(options: Any, overrides: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "report.html")

    verb = VERBS["report"]._replace(handle=full)
    monkeypatch.setattr("mi_jax.cli.main.VERBS", {**VERBS, "report": verb})
    assert main(["report", "run"]) == 2
    assert "report.html: No space left on device. What was" in capsys.readouterr().err
