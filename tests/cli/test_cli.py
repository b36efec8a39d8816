"""The command line: the output, files and exit status of each verb."""

import contextlib
import io
import json
import math
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest
from conftest import few

import mi_jax
from mi_jax.basics.pytrees import dotted
from mi_jax.cli.main import VERBS, main
from mi_jax.cli.printing import lines_of, lines_of_readings
from mi_jax.contracts import Measure
from mi_jax.dynamics import GROKKING, GROKKING_RULES, LIU_2022, grokking_dates
from mi_jax.measures import PICTURES
from mi_jax.measuring.registry import EXPENSIVE, READINGS
from mi_jax.runs.run import open_run

TINY = shlex.split(
    "--task.p 11 --model.d-model 16 --model.heads 2 --model.d-mlp 32 --steps 40 --seeds 0,1"
    " --schedule.n 12"
)
SOME = (
    "train_loss",
    "test_loss",
    "train_accuracy",
    "test_accuracy",
    "restricted_loss",
    "excluded_loss",
    "key_frequencies",
    "fourier_power_embedding",
    "fourier_power_unembedding",
    "gini_unembedding",
    "sum_squared_weights",
    "neuron_frequency",
)


@pytest.fixture(autouse=True, scope="module")
def _few_readings() -> Iterator[None]:
    """Keep a dozen measures: compiling all of them takes a minute."""
    registries, everything = (READINGS, PICTURES), (dict(READINGS), dict(PICTURES))
    for registry in registries:
        assert isinstance(registry, dict)
        registry.clear()
    READINGS.update({name: everything[0][name] for name in SOME})
    yield
    for registry, all_of_it in zip(registries, everything, strict=True):
        registry.clear()
        registry.update(all_of_it)


class Output:
    """The exit status and the output of a command."""

    def __init__(self, status: int, out: str, errors: str):
        self.status, self.out, self.errors = status, out, errors

    @property
    def json(self) -> Any:
        """The one object on stdout; NaN is refused, since it is not JSON."""

        def refuse(constant: str) -> Any:
            raise AssertionError(f"{constant} is no JSON")

        assert self.status == 0, self.errors
        return json.loads(self.out, parse_constant=refuse)

    @property
    def table(self) -> dict[str, list[str]]:
        """Tab-separated lines by their first cell."""
        return {
            cells[0]: cells[1:] for cells in (line.split("\t") for line in self.out.splitlines())
        }


def _run_command(capsys: pytest.CaptureFixture[str], *arguments: str) -> Output:
    capsys.readouterr()
    own = [] if arguments[0] in ("list",) else ["--no-compile-cache"]
    return Output(main([*arguments, *own]), *capsys.readouterr())


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Output]:
    """A run made by ``mi-jax run`` (trained, measured, reported), and the output of the command."""
    path, out = tmp_path_factory.mktemp("runs") / "demo", io.StringIO()
    with contextlib.redirect_stdout(out):
        status = main(
            ["run", "grokking", "--out", str(path), "--quiet", "--no-compile-cache", *TINY]
        )
    return path, Output(status, out.getvalue(), "")


@pytest.fixture(scope="module")
def path(ran: tuple[Path, Output]) -> Path:
    """The run's directory."""
    return ran[0]


def test_run_ends_with_the_numbers_and_the_report(ran: tuple[Path, Output]) -> None:
    path, output = ran
    assert output.status == 0
    assert output.table["seed"][:2] == ["0", "1"]
    last = int(open_run(path).steps[-1])
    assert output.table["memorised, step"][:2] == [f"later than {last}"] * 2
    final = open_run(path).measures["sum_squared_weights"].isel(step=-1).values
    assert output.table["sum_squared_weights"][:2] == [f"{value:.4g}" for value in final]
    assert output.out.splitlines()[-1] == f"report: {path / 'report.html'}"


def test_a_finished_run_is_not_trained_or_measured_again(
    capsys: pytest.CaptureFixture[str], path: Path
) -> None:
    before = {
        file: file.stat().st_mtime_ns
        for part in ("segments", "measures")
        for file in (path / part).rglob("*")
    }
    assert _run_command(capsys, "train", "grokking", "--out", str(path), *TINY).status == 0
    assert _run_command(capsys, "measure", str(path)).status == 0
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_the_report_is_one_file_with_figures_described_in_words(path: Path) -> None:
    page = (path / "report.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page), (
        "the page loads something from elsewhere"
    )
    assert not re.search(r"@import|url\((?!data:|#)", page)
    pictures = re.findall(r"<img[^>]*>", page)
    assert len(pictures) >= 4
    for picture in pictures:
        assert 'src="data:image/' in picture
        answer = re.search(r'alt="([^"]*)"', picture)
        assert answer
        assert len(answer[1]) > 10
    for words in (
        "grokking",
        "restricted_loss",
        "sum_squared_weights",
        "retrospective",
        open_run(path).record["hash"],
    ):
        assert words in page


def test_figures_are_kept_as_png_and_svg(path: Path) -> None:
    png, svg = (
        {file.stem for file in (path / "figures").glob(f"*{suffix}")} for suffix in (".png", ".svg")
    )
    assert {"loss", "accuracy", "progress", "frequencies", "spectra"} <= png
    assert png == svg


def test_report_makes_the_page_again(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    (path / "report.html").unlink()
    answer = _run_command(capsys, "report", str(path), "--json").json
    assert (answer["run"], answer["report"]) == (str(path), str(path / "report.html"))
    assert answer["seeds"] == _run_command(capsys, "measure", str(path), "--json").json
    assert (path / "report.html").is_file()
    findings = {finding["reading"]: finding for finding in answer["findings"]}
    assert {"restricted_loss", "excluded_loss"} <= set(findings)
    for finding in findings.values():
        assert set(finding) == {"claim", "reading", "level", "p", "supported"}
        assert finding["p"] is None or 0 < finding["p"] <= 1
        assert finding["supported"] == (finding["level"] > 0)


def test_measure_of_a_run_is_the_last_step_by_seed(
    capsys: pytest.CaptureFixture[str], path: Path
) -> None:
    answer = _run_command(capsys, "measure", str(path), "--json").json
    assert set(answer) == {"0", "1"}
    dataset = open_run(path).measures
    for seed in (0, 1):
        mine, final = answer[str(seed)], dataset.sel(seed=seed, step=40)
        assert set(mine) == set(SOME)
        for name in ("train_loss", "restricted_loss", "gini_unembedding"):
            assert isinstance(mine[name], float)
            assert mine[name] == final[name].item()
        assert (
            mine["key_frequencies"]
            == (1 + np.flatnonzero(final["key_frequencies"].values)).tolist()
        )
        assert all(type(k) is int for k in mine["key_frequencies"])
        power = mine["fourier_power_unembedding"]
        assert list(power) == ["1", "2", "3", "4", "5"]
        assert list(power.values()) == final["fourier_power_unembedding"].values.tolist()
        assert mine["neuron_frequency"] == final["neuron_frequency"].values.tolist()
        assert all(type(k) is int for k in mine["neuron_frequency"])


def test_measure_takes_the_measures_that_are_named(
    capsys: pytest.CaptureFixture[str], path: Path
) -> None:
    answer = _run_command(
        capsys, "measure", str(path), "--measures", "test_loss,key_frequencies", "--json"
    ).json
    assert {tuple(readings) for readings in answer.values()} == {("test_loss", "key_frequencies")}


def test_measure_without_json_is_tab_separated_by_seed(
    capsys: pytest.CaptureFixture[str], path: Path
) -> None:
    output = _run_command(
        capsys, "measure", str(path), "--measures", "test_loss,fourier_power_embedding"
    )
    final = open_run(path).measures["test_loss"].sel(seed=1, step=40).item()
    assert output.table["1.test_loss"] == [f"{final:.6g}"]
    assert set(output.table) == {
        f"{s}.{x}"
        for s in (0, 1)
        for x in ("test_loss", *(f"fourier_power_embedding.{k}" for k in "12345"))
    }


@pytest.mark.slow
def test_exported_weights_measure_as_the_run_does(
    capsys: pytest.CaptureFixture[str], path: Path, tmp_path: Path
) -> None:
    run = open_run(path)
    file = run.export(40, tmp_path / "weights.npz", seed=1)
    answer = _run_command(capsys, "measure", str(file), "--like", str(path), "--json").json
    assert answer == _run_command(capsys, "measure", str(path), "--json").json["1"]
    assert (
        answer
        == _run_command(capsys, "measure", str(file), "--like", "grokking", "--json", *TINY).json
    )
    assert [one.name for one in tmp_path.iterdir()] == ["weights.npz"]


def test_the_task_of_weights_is_that_of_the_command(
    capsys: pytest.CaptureFixture[str], path: Path, tmp_path: Path
) -> None:
    file = open_run(path).export(40, tmp_path / "weights.npz", seed=1)
    command = [
        "measure",
        str(file),
        "--like",
        str(path),
        "--measures",
        "test_loss,train_loss,sum_squared_weights",
        "--json",
    ]
    one, other = (
        _run_command(capsys, *command).json,
        _run_command(capsys, *command, "--task.split-seed", "5").json,
    )
    assert one["sum_squared_weights"] == other["sum_squared_weights"]
    assert one["test_loss"] != other["test_loss"]


def test_readings_of_weights_are_written_where_asked(
    capsys: pytest.CaptureFixture[str], path: Path, tmp_path: Path
) -> None:
    arrays = {
        **dotted(open_run(path).params(40, seed=0)),
        "is_train": np.ones(3),
        "p": np.array(11),
    }
    np.savez(tmp_path / "weights.npz", **arrays)
    command = [
        "measure",
        str(tmp_path / "weights.npz"),
        "--like",
        str(path),
        "--measures",
        "test_loss",
        "--json",
    ]
    output = _run_command(capsys, *command, "--out", str(tmp_path / "readings.nc"))
    assert "arrays that are not parameters, ignored: is_train, p" in output.errors
    assert sorted(one.name for one in tmp_path.iterdir()) == ["readings.nc", "weights.npz"]
    import xarray as xr

    with xr.open_dataset(tmp_path / "readings.nc", engine="h5netcdf") as stored:
        assert stored["test_loss"].item() == output.json["test_loss"]


def test_measures_that_cannot_be_taken_are_listed_with_the_reason(
    capsys: pytest.CaptureFixture[str], path: Path, tmp_path: Path
) -> None:
    file = open_run(path).export(40, tmp_path / "weights.npz", seed=0)
    output = _run_command(
        capsys, "measure", str(file), "--like", str(path), "--task.operation", "multiply", "--json"
    )
    assert "test_loss" in output.json
    assert "restricted_loss" not in output.json
    assert re.search(
        r"not read: .*restricted_loss.*: needs the task's ground truth 'cyclic_answer'",
        output.errors,
    )


def test_info_says_what_a_run_is_and_how_far_it_got(
    capsys: pytest.CaptureFixture[str], path: Path
) -> None:
    answer = _run_command(capsys, "info", str(path), "--json").json
    run = open_run(path)
    assert (answer["seeds"], answer["steps"], answer["snapshots"], answer["trained_to"]) == (
        [0, 1],
        40,
        12,
        40,
    )
    assert answer["status"]["1"] == {"state": "finished", "last_finite_step": 40}
    assert (answer["hash"], answer["experiment"]) == (run.record["hash"], run.record["experiment"])
    assert set(answer["measures"]) >= set(SOME)
    table = _run_command(capsys, "info", str(path)).table
    assert table["status.0.state"] == ["finished"]
    assert table["experiment.task.p"] == ["11"]


def test_verify_of_a_sound_run_finds_nothing(
    capsys: pytest.CaptureFixture[str], path: Path
) -> None:
    assert _run_command(capsys, "verify", str(path), "--json").json == {
        "run": str(path),
        "problems": [],
    }


def test_train_says_where_the_run_is(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    assert (
        _run_command(capsys, "train", "grokking", "--out", str(path), *TINY).out
        == f"trained: {path}\n"
    )
    assert _run_command(capsys, "train", str(path), "--json").json["trained_to"] == 40


@pytest.mark.parametrize("kind", ["tasks", "models", "measures", "options", "experiments"])
def test_list_prints_a_name_and_what_it_is(capsys: pytest.CaptureFixture[str], kind: str) -> None:
    table = _run_command(capsys, "list", kind).table
    some = {
        "tasks": "modular_arithmetic",
        "models": "mlp",
        "measures": "restricted_loss",
        "options": "probe_mdl",
        "experiments": "nanda_2023",
    }[kind]
    assert some in table
    assert all(cells and cells[0] for cells in table.values())
    assert set(_run_command(capsys, "list", kind, "--json").json) == set(table)


def test_list_tasks_says_what_is_known_and_the_smallest_setting(
    capsys: pytest.CaptureFixture[str],
) -> None:
    paper, _, truth, smallest = _run_command(capsys, "list", "tasks", "--json").json[
        "sparse_parity"
    ]
    assert "2207.08799" in paper
    assert truth.split(", ")[:2] == ["subset", "answer"]
    assert smallest == "SparseParity(n=6, k=2, examples=32, batch_size=8, test_examples=16)"


def test_list_options_shows_the_options_of_a_measure(capsys: pytest.CaptureFixture[str]) -> None:
    table = _run_command(capsys, "list", "options").table
    assert {"gamma=1000.0", "entry=None", "preconditioner=None"} <= set(
        table["learning_coefficient"][1].split(", ")
    )
    assert {"how='erase'", "rank=4", "kind='ridge'", "held_out=None"} <= set(
        table["probe_effect"][1].split(", ")
    )
    assert table["sharpness"][0].startswith("The largest eigenvalue of the Hessian")


def test_list_measures_says_which_know_the_end_of_training(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = _run_command(capsys, "list", "measures").table
    assert table["restricted_loss"][0] == "retrospective"
    assert table["test_loss"][0] == "online"
    assert table["fourier_power_embedding"][1] == "seed step frequency"


def test_long_values_are_counted_on_a_terminal_however_they_are_nested() -> None:
    answer = {"trace": [[0.5] * 30] * 2, "few": [1, 2], "one": 0.25}
    assert lines_of(answer) == ["trace\t60 values (see --json)", "few\t[1, 2]", "one\t0.25"]


def test_each_reading_is_counted_by_itself_however_many_there_are() -> None:
    by_site = {f"site {i}": {f"concept {j}": 0.5 for j in range(10)} for i in range(10)}
    answer = {
        "probe_accuracy": by_site,
        "trace": [[0.5] * 30] * 2,
        **{f"one_{i}": 0.25 for i in range(50)},
    }
    lines = lines_of_readings(answer, "0.")
    assert lines[:3] == [
        "0.probe_accuracy\t100 values (see --json)",
        "0.trace\t60 values (see --json)",
        "0.one_0\t0.25",
    ]
    assert len(lines) == 52


def test_list_measures_marks_what_is_read_only_when_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXPENSIVE, "slow", Measure("slow", lambda params, context: {}))  # pyright: ignore[reportArgumentType]
    table = _run_command(capsys, "list", "measures").table
    assert table["slow"][0] == "online, when named"
    assert "when named" not in table["test_loss"][0]


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = _run_command(capsys, "run", "grokking", "--dry-run", "--json", *TINY).json
    assert (answer["seeds"], answer["steps"], answer["snapshots"]) == (2, 40, 12)
    assert answer["parameters"] == 12 * 16 + 3 * 16 + 4 * 16 * 16 + 2 * 16 * 32 + 32 + 16 + 16 * 12
    assert answer["minutes_of_training"] > 0
    assert answer["megabytes"] > 0
    assert list(tmp_path.iterdir()) == []
    table = _run_command(capsys, "train", "grokking", "--dry-run", *TINY).table
    assert table["parameters"] == ["2,528"]


def test_a_dry_run_refuses_what_training_would(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(
            [
                "train",
                "grokking",
                "--dry-run",
                *TINY,
                "--intervention",
                "Ablate('blocks.0.mlp.pots')",
            ]
        )
        == 2
    )
    assert "did you mean blocks.0.mlp.post" in capsys.readouterr().err


def test_a_dry_runs_disk_is_about_what_the_run_takes(
    capsys: pytest.CaptureFixture[str], path: Path
) -> None:
    answer = _run_command(capsys, "train", str(path), "--dry-run", "--json").json
    taken = (
        sum(file.stat().st_size for file in (path / "segments").rglob("*") if file.is_file())
        / 2**20
    )
    assert 0.5 < taken / answer["megabytes"] < 2


@pytest.mark.slow
def test_progress_goes_to_stderr_and_can_be_silenced(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    loud = _run_command(capsys, "train", "grokking", "--out", str(tmp_path / "loud"), *TINY)
    last = loud.errors.splitlines()[-1]
    assert last.startswith("step 40/40   loss ")
    assert "steps/s" in last
    assert "nan" not in loud.errors
    quiet = _run_command(
        capsys, "train", "grokking", "--out", str(tmp_path / "quiet"), "--quiet", *TINY
    )
    assert quiet.errors == ""


def test_a_run_lands_in_checkpoints_of_the_working_directory(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _run_command(capsys, "train", "grokking", "--quiet", *TINY).status == 0
    made = open_run(Path("checkpoints") / "grokking")
    assert np.array_equal(made.losses, open_run(path).losses)
    assert _run_command(capsys, "info", "checkpoints/grokking", "--json").json["trained_to"] == 40
    assert [one.name for one in tmp_path.iterdir()] == ["checkpoints"]
    (tmp_path / "deeper").mkdir()
    monkeypatch.chdir(tmp_path / "deeper")
    assert _run_command(capsys, "verify", "../checkpoints/grokking").status == 0


@pytest.mark.parametrize("name", few(["file.py", "run", "run/run.json"], 1))
def test_an_experiment_is_a_run_its_record_or_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, path: Path, name: str
) -> None:
    (tmp_path / "run").symlink_to(path)
    (tmp_path / "file.py").write_text(
        "import json\nfrom pathlib import Path\nfrom mi_jax import Experiment\n"
        f"record = json.loads(Path({str(path / 'run.json')!r}).read_text())\n"
        "experiment = Experiment.from_json(record['experiment'])\n"
    )
    output = _run_command(
        capsys,
        "train",
        str(tmp_path / name),
        "--out",
        str(tmp_path / "again"),
        "--quiet",
        "--seeds",
        "1",
    )
    assert output.status == 0, output.errors
    made, first = open_run(tmp_path / "again"), open_run(path)
    assert made.experiment.hash == first.experiment.hash
    assert np.array_equal(made.losses.sel(seed=1), first.losses.sel(seed=1))


@pytest.mark.parametrize("default", [(0,), (0, 1), (0, 1, 2), (4, 3, 2, 1)])
@pytest.mark.parametrize(
    ("text", "seeds"), [("0-2", [0, 1, 2]), ("3,1", [3, 1]), ("7", [7]), ("0-1,5-6", [0, 1, 5, 6])]
)
def test_seeds_are_a_list_or_a_range_whatever_the_default(
    tmp_path: Path, default: tuple[int, ...], text: str, seeds: list[int]
) -> None:
    from mi_jax.cli.overrides import with_overrides
    from mi_jax.runs.experiment import Experiment

    assert with_overrides(Experiment(seeds=default), ["--seeds", text], "test").seeds == tuple(
        seeds
    )


def test_overrides_reach_every_part_and_leave_the_rest() -> None:
    from mi_jax.cli.overrides import with_overrides
    from mi_jax.runs.library import find

    before = find("grokking")
    given = (
        "--task.p 31 --task.operation subtract --task.fraction 0.4 --task.split-seed 3"
        " --model.d-model 32 --model.d-head 5"
    )
    more = (
        "--model.activation gelu --model.unembed-bias --optimizer.learning-rate 1e-2"
        " --optimizer.weight-decay 0.5 --steps 77"
    )
    after = with_overrides(before, f"{given} {more} --name other".split(), "test")
    old, new = dotted(before.to_json()), dotted(after.to_json())
    assert {name: new[name] for name in new if name not in old or new[name] != old[name]} == {
        "task.p": 31,
        "task.operation": "subtract",
        "task.fraction": 0.4,
        "task.split_seed": 3,
        "model.d_model": 32,
        "model.d_head": 5,
        "model.activation": "gelu",
        "model.unembed_bias": True,
        "optimizer.learning_rate": 1e-2,
        "optimizer.weight_decay": 0.5,
        "steps": 77,
        "name": "other",
    }


def test_help_of_an_experiment_shows_its_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["run", "grokking", "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    for words in ("--dry-run", "--task.p", "--optimizer.weight-decay", "--seeds"):
        assert words in out


def _child(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


_HEAVY = "('jax', 'jaxlib', 'optax', 'orbax', 'xarray', 'matplotlib', 'tyro', 'h5py')"


@pytest.mark.parametrize("arguments", [("--help",), ("run", "--help"), ("measure", "--help")])
def test_help_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    done = _child(
        "import sys\n"
        "from mi_jax.cli.main import main\n"
        "try:\n"
        "    status = main(sys.argv[1:])\n"
        "except SystemExit as stop:\n"
        "    status = stop.code\n"
        f"print('status', status, [name for name in {_HEAVY} if name in sys.modules])",
        *arguments,
    )
    assert done.stdout.splitlines()[-1] == "status 0 []", done.stderr
    assert "usage: mi-jax" in done.stdout


def test_importing_mi_jax_imports_no_jax_and_using_all_of_it_changes_no_setting() -> None:
    lines = [
        "import sys, mi_jax",
        f"assert not [name for name in {_HEAVY} if name in sys.modules]",
        "import logging",
        "assert (logging.root.level, logging.root.handlers) == (logging.WARNING, [])",
        "import jax; before = dict(jax.config.values)",
        "import matplotlib; style = dict(matplotlib.rcParams)",
        "for name in mi_jax.__all__: getattr(mi_jax, name)",
        "import mi_jax.cli.main, mi_jax.cli.progress, mi_jax.cli.overrides, mi_jax.report.study",
        # Parts of jax that are imported late may add settings of their own.
        "assert {name: jax.config.values[name] for name in before} == before",
        "assert dict(matplotlib.rcParams) == style",
        "print('fine')",
    ]
    done = _child("\n".join(lines))
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr


@pytest.mark.parametrize("verb", ["run", "report", "sweep", "compare"])
def test_the_rule_of_dates_is_an_option_with_the_defaults_of_the_package(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.suppress(SystemExit):
        main([verb, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert f"(default: {GROKKING.level:g})" in text
    assert f"(default: {GROKKING.gap:g})" in text
    assert f"{{{','.join(GROKKING_RULES)}}}" in text
    assert f"accuracy {LIU_2022.level:g}, and a gap of {LIU_2022.gap:g} in steps" in text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--level", "99"], "level=99.0 is no accuracy. Give one above 0 and up to 1."),
        (["--gap", "0.5"], "gap=0.5 is no gap in ratio. Give a finite number of at least 1."),
    ],
)
def test_an_invalid_rule_is_refused(
    capsys: pytest.CaptureFixture[str], path: Path, given: list[str], message: str
) -> None:
    output = _run_command(capsys, "report", str(path), *given)
    assert output.status == 2
    assert message in output.errors


def test_the_report_has_the_dates_of_every_seed_as_json(
    capsys: pytest.CaptureFixture[str], path: Path
) -> None:
    arguments = ("report", str(path), "--json", "--rule", "liu_2022", "--level", "0.05")
    answer = _run_command(capsys, *arguments).json
    assert answer["rule"] == {"level": 0.05, "gap": 1000.0, "gap_unit": "steps"}
    rule = replace(LIU_2022, level=0.05)
    dates = grokking_dates(open_run(path).measures, rule)
    assert answer["verdicts"] == {
        str(seed): verdict
        for seed, verdict in zip(dates["seed"].values, dates["verdict"].values, strict=True)
    }
    names = ("memorised", "circuit_formation_end", "cleanup_end", "generalised")
    assert sorted(answer["dates"]) == sorted(names)
    for name in names:
        date = answer["dates"][name]
        expected = {
            str(seed): [None if math.isinf(bound) else bound for bound in pair]
            for seed, pair in zip(dates["seed"].values, dates[name].values.tolist(), strict=True)
            if not math.isnan(pair[0])
        }
        assert date["seeds"] == expected
        assert date["coverage"] == {2: 0.5, 1: None, 0: None}[len(expected)]
        assert len(date["median"]) == len(date["interval"]) == 2


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_has_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status: Any = main([verb, "--help"])
    except SystemExit as stop:
        status = stop.code
    assert status == 0
    assert f"  mi-jax {verb} " in capsys.readouterr().out.split("Example")[1]


def test_listing_imports_nothing_that_only_computing_needs() -> None:
    done = _child(
        "import sys, mi_jax.cli.listing\nprint([one for one in ('scipy', 'matplotlib', 'orbax',"
        " 'optax', 'xarray', 'pandas', 'tyro') if one in sys.modules])"
    )
    assert done.stdout == "[]\n", done.stderr


def test_every_promised_name_is_there() -> None:
    for name in mi_jax.__all__:
        assert getattr(mi_jax, name) is not None
    assert {"train", "open_run", "measure", "capture", "Experiment"} <= set(mi_jax.__all__)
    assert set(mi_jax.__all__) <= set(dir(mi_jax))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = mi_jax.trian  # pyright: ignore[reportAttributeAccessIssue]


def test_no_function_has_the_name_of_a_module_that_would_take_its_place() -> None:
    """Importing the module ``mi_jax.name`` sets the package's attribute ``name`` to the module."""
    modules = {one.name for one in pkgutil.iter_modules(mi_jax.__path__)}
    assert {
        name for name in mi_jax.__all__ if not isinstance(getattr(mi_jax, name), ModuleType)
    }.isdisjoint(modules)


def test_the_library_and_no_compile_cache_turn_no_compile_cache_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = [getattr(jax.config, name) for name in names]
    assert _run_command(capsys, "train", "grokking", "--dry-run", *TINY).status == 0
    assert [getattr(jax.config, name) for name in names] == before


@pytest.mark.slow
def test_a_command_keeps_what_it_compiles_in_the_users_cache_and_nowhere_else(
    tmp_path: Path,
) -> None:
    (tmp_path / "small.py").write_text(
        "from mi_jax import Experiment\n"
        "from mi_jax.models import MLP\n"
        "from mi_jax.tasks import ModularArithmetic\n"
        "experiment = Experiment(task=ModularArithmetic(p=7), model=MLP(width=8), steps=30)\n"
    )
    command = ["train", str(tmp_path / "small.py"), "--out", str(tmp_path / "run"), "--quiet"]
    code = "import sys; from mi_jax.cli.main import main; sys.exit(main(sys.argv[1:]))"
    done = _child(
        code, *command, XDG_CACHE_HOME=str(tmp_path / "cache"), HOME=str(tmp_path / "home")
    )
    assert done.returncode == 0, done.stderr
    kept = [file for file in (tmp_path / "cache" / "mi_jax" / "jax").iterdir() if file.is_file()]
    assert any("advance" in file.name for file in kept)
    # Matplotlib stores its list of fonts.
    assert {file.name for file in (tmp_path / "cache").iterdir()} <= {"mi_jax", "matplotlib"}
    assert {file.name for file in (tmp_path / "home").rglob("*")} <= {".config", "matplotlib"}


def test_a_reader_that_closes_the_pipe_ends_a_command_quietly() -> None:
    command = [sys.executable, "-m", "mi_jax.cli", "list", "measures"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        errors = child.stderr.read()
    assert (child.returncode, errors) == (0, "")


@pytest.mark.slow
def test_run_takes_every_reading_that_the_experiment_allows(tmp_path: Path) -> None:
    done = _child(
        "import sys; from mi_jax.cli.main import main; sys.exit(main(sys.argv[1:]))",
        *("run", "grokking", "--out", str(tmp_path / "run"), "--json", "--no-compile-cache", *TINY),
    )
    assert done.returncode == 0, done.stderr
    readings = json.loads(done.stdout)["seeds"]["0"]
    without_noise = {
        name
        for one in READINGS.values()
        for name in one.variables
        if "corrupted" not in one.ground_truth
    }
    assert without_noise <= set(readings)
