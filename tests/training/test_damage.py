"""Damage: whatever happens to the files of a run, a number is as it was written, or refused."""

import errno
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import jax
import numpy as np
import pytest
from conftest import SEGMENTED, few

from mi_jax.basics.errors import DamagedError, RunError
from mi_jax.basics.records import digest
from mi_jax.cli.main import main
from mi_jax.runs.experiment import Experiment
from mi_jax.runs.fork import fork
from mi_jax.runs.run import open_run
from mi_jax.runs.train import train
from mi_jax.training import segments
from mi_jax.training.trajectory import Trajectory
from mi_jax.training.verifying import problems


def _bits(tree: Any) -> list[tuple[str, tuple[int, ...], bytes]]:
    return [(str(x.dtype), x.shape, x.tobytes()) for x in map(np.asarray, jax.tree.leaves(tree))]


def _readings(path: Path) -> dict[str, Any]:
    """Every reading of a run, each read on its own; a DamagedError where it is refused."""
    reads: dict[str, Callable[[], Any]] = {
        "steps": lambda: open_run(path).steps.tolist(),
        "losses": lambda: _bits(open_run(path).losses.values),
        "state": lambda: _bits(open_run(path).state_at(24)),
        **{
            f"state {step}": lambda step=step: _bits(Trajectory(path).stored_state(step))
            for step in (8, 16)
        },
        "status": lambda: open_run(path).status,
        "stack": lambda: _bits(open_run(path).stack()),
        "seeds": lambda: open_run(path).seeds,
        **{
            f"params {step}": lambda step=step: _bits(open_run(path).params(step))
            for step in (0, 3, 11, 20, 24)
        },
    }
    readings: dict[str, Any] = {}
    for name, read in reads.items():
        try:
            readings[name] = read()
        except DamagedError as error:
            readings[name] = error
    return readings


@pytest.fixture(scope="module")
def true_readings(segmented: Path) -> dict[str, Any]:
    readings = _readings(segmented)
    assert not any(isinstance(value, DamagedError) for value in readings.values())
    return readings


def _check(path: Path, expected: dict[str, Any], damaged_name: str) -> bool:
    """Assert that no reading is silently wrong; return whether any was refused."""
    readings, lines = _readings(path), list(problems(Trajectory(path)))
    refused = [name for name, value in readings.items() if isinstance(value, DamagedError)]
    for name, value in readings.items():
        assert name in refused or value == expected[name], f"{name} is silently wrong"
    if refused:
        assert lines, f"{refused} cannot be read, and verify finds nothing"
        assert any(damaged_name in line for line in lines), lines
        assert all(damaged_name in str(readings[name]) for name in refused), readings
    return bool(refused)


def _places(folder: Path, how: str, count: int) -> list[tuple[Path, int, int]]:
    """(file, byte, bits to flip): files with equal chances, or by size."""
    random, files = (
        Random(f"places {how}"),
        [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size],
    )
    files.sort(
        key=lambda path: (str(path.parent), path.stat().st_size)
    )  # data files have random names
    weights = [1 if how == "any file" else path.stat().st_size for path in files]
    chosen = random.choices(files, weights, k=count)
    return [
        (file.relative_to(folder), random.randrange(file.stat().st_size), random.randrange(1, 256))
        for file in chosen
    ]


@pytest.fixture
def hushed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Silence hundreds of failing reads together: each alone would wait for Orbax's threads."""
    wait = segments._CALLBACK_SECONDS
    monkeypatch.setattr(segments, "_CALLBACK_SECONDS", 0.0)
    with segments._quiet():
        yield
        time.sleep(wait)


@pytest.mark.usefixtures("hushed")
@pytest.mark.parametrize("how", few(["by size", "any file"], 1))
def test_a_flipped_byte_is_refused_and_named_or_harms_nothing(
    copy: Path, true_readings: dict[str, Any], how: str
) -> None:
    refused: list[tuple[str, bool]] = []
    for name, byte, mask in _places(copy / "segments", how, 12):
        file = copy / "segments" / name
        content = file.read_bytes()
        file.write_bytes(content[:byte] + bytes([content[byte] ^ mask]) + content[byte + 1 :])
        refused.append((name.name, _check(copy, true_readings, name.parts[0])))
        file.write_bytes(content)
    # Every byte of an array counts. Of other files some bytes are never read.
    assert all(was_refused for file, was_refused in refused if file == "0"), refused
    assert sum(was_refused for _, was_refused in refused) >= 2
    assert not _check(copy, true_readings, "")


@pytest.mark.usefixtures("hushed")
@pytest.mark.long
@pytest.mark.parametrize("how", ["any file", "by size"])
def test_a_flipped_byte_at_many_places(copy: Path, true_readings: dict[str, Any], how: str) -> None:
    for name, byte, mask in _places(copy / "segments", how, 125)[25:]:
        file = copy / "segments" / name
        content = file.read_bytes()
        file.write_bytes(content[:byte] + bytes([content[byte] ^ mask]) + content[byte + 1 :])
        _check(copy, true_readings, name.parts[0])
        file.write_bytes(content)


def _segment_files(path: Path, end: str) -> list[Path]:
    return sorted(file for file in (path / "segments" / end).rglob("*") if file.is_file())


@pytest.mark.usefixtures("hushed")
@pytest.mark.slow
def test_a_truncated_file_is_refused_and_named_or_harms_nothing(
    copy: Path, true_readings: dict[str, Any]
) -> None:
    refused = 0
    for file in _segment_files(copy, "000000016"):
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
        refused += _check(copy, true_readings, "000000016")
        file.write_bytes(content)
    assert refused >= 5


@pytest.mark.usefixtures("hushed")
@pytest.mark.slow
def test_a_missing_file_is_refused_and_named_or_harms_nothing(
    copy: Path, true_readings: dict[str, Any]
) -> None:
    refused = 0
    for file in _segment_files(copy, "000000016"):
        content = file.read_bytes()
        file.unlink()
        refused += _check(copy, true_readings, "000000016")
        file.write_bytes(content)
    assert refused >= 5


@pytest.mark.parametrize("name", ["_CHECKPOINT_METADATA", "losses", "state", "snapshots"])
def test_every_part_of_a_segment_that_is_gone_is_named(
    copy: Path, true_readings: dict[str, Any], name: str
) -> None:
    part = copy / "segments" / "000000016" / name
    part.rename(copy / name)
    assert _check(copy, true_readings, "000000016")


@pytest.mark.parametrize("end", ["000000008", "000000016"])
def test_a_missing_segment_is_named_and_nothing_is_read_past_it(
    copy: Path, true_readings: dict[str, Any], end: str
) -> None:
    shutil.rmtree(copy / "segments" / end)
    readings = _readings(copy)
    assert {name for name, value in readings.items() if not isinstance(value, DamagedError)} == {
        "seeds"
    }
    assert all(
        f"step {int(end)} is missing" in str(value)
        for name, value in readings.items()
        if name != "seeds"
    )
    assert any("one is missing" in line for line in problems(Trajectory(copy)))


def test_a_swapped_pair_of_segments_is_named_and_refused(copy: Path) -> None:
    folder = copy / "segments"
    (folder / "000000008").rename(folder / "aside")
    (folder / "000000016").rename(folder / "000000008")
    (folder / "aside").rename(folder / "000000016")
    readings = _readings(copy)
    assert {name for name, value in readings.items() if not isinstance(value, DamagedError)} == {
        "seeds"
    }
    lines = list(problems(Trajectory(copy)))
    assert any("000000008" in line for line in lines)
    assert any("000000016" in line for line in lines)


def test_a_segment_under_another_name_is_named_and_refused(copy: Path) -> None:
    (copy / "segments" / "000000024").rename(copy / "segments" / "000000020")
    for read in (
        lambda: open_run(copy).steps,
        lambda: open_run(copy).params(24),
        lambda: open_run(copy).status,
    ):
        with pytest.raises(DamagedError, match="000000020"):
            read()
    assert any("000000020" in line for line in problems(Trajectory(copy)))


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("start", lambda start: 0),
        ("steps", lambda steps: []),
        ("seeds", lambda seeds: seeds[::-1]),
        ("parameters", lambda names: names[:-1]),
        (
            "hashes",
            lambda hashes: {name: value for name, value in hashes.items() if name != "state@step"},
        ),
        ("digest", lambda digest: digest[::-1]),
        ("digest", lambda digest: None),
    ],
)
def test_an_index_that_says_something_else_is_refused(
    copy: Path, key: str, change: Callable[[Any], Any]
) -> None:
    file = copy / "segments" / "000000016" / "_CHECKPOINT_METADATA"
    metadata = json.loads(file.read_text())
    body = metadata["custom_metadata"]["index"]
    assert change(body[key]) != body[key]
    body[key] = change(body[key])
    file.write_text(json.dumps(metadata))
    with pytest.raises(DamagedError, match="000000016"):
        open_run(copy).stack()
    assert any("000000016" in line for line in problems(Trajectory(copy)))


@pytest.mark.parametrize(
    "other",
    [
        replace(SEGMENTED, optimizer=replace(SEGMENTED.optimizer, learning_rate=3e-3)),
        replace(SEGMENTED, seeds=(1, 0)),
    ],
    ids=["experiment", "seeds"],
)
def test_a_segment_of_another_run_in_its_place_is_refused(
    copy: Path, tmp_path: Path, other: Experiment
) -> None:
    foreign = train(other, tmp_path / "foreign").path
    here = copy / "segments" / "000000016"
    shutil.rmtree(here)
    shutil.copytree(foreign / "segments" / "000000016", here)
    with pytest.raises(DamagedError, match=r"000000016 .* belongs to another run"):
        open_run(copy).stack()
    assert any("belongs to another run" in line for line in problems(Trajectory(copy)))


@pytest.mark.parametrize("part", ["losses", "state", "snapshots"])
def test_a_part_of_another_segment_in_its_place_is_refused(
    copy: Path, true_readings: dict[str, Any], part: str
) -> None:
    here, there = copy / "segments" / "000000016" / part, copy / "segments" / "000000024" / part
    shutil.rmtree(here)
    shutil.copytree(there, here)
    assert _check(copy, true_readings, "000000016")


def _spoil(folder: Path) -> None:
    """Cut every data file of an item of a segment."""
    for file in folder.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:-1])


def test_the_command_line_names_damage_and_says_so_by_its_status(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(copy)]) == 0
    assert "every stored number is as it was written" in capsys.readouterr().out
    _spoil(copy / "segments" / "000000016" / "state")
    assert main(["verify", str(copy)]) == 1
    assert "000000016" in capsys.readouterr().out


def test_what_needs_no_damaged_array_is_still_read(
    copy: Path, true_readings: dict[str, Any]
) -> None:
    _spoil(copy / "segments" / "000000016" / "state")
    readings = _readings(copy)
    assert {name for name, value in readings.items() if isinstance(value, DamagedError)} == {
        "state 16"
    }
    assert {**readings, "state 16": None} == {**true_readings, "state 16": None}


@pytest.mark.parametrize("part", ["losses", "state"])
def test_verify_calls_nothing_missing_that_is_there(copy: Path, part: str) -> None:
    _spoil(copy / "segments" / "000000016" / part)
    (line,) = problems(Trajectory(copy))
    assert line.startswith("Segment 000000016 is damaged")
    assert open_run(copy).params(11)


_READ_OFTEN = """
import sys, time
from mi_jax.basics.errors import DamagedError
from mi_jax.runs.run import open_run

for _ in range(30):
    try:
        open_run(sys.argv[1]).stack()
        raise SystemExit("nothing was refused")
    except DamagedError:
        pass
time.sleep(0.5)
"""


@pytest.mark.slow
def test_a_read_that_fails_prints_nothing(copy: Path) -> None:
    file = copy / "segments" / "000000016" / "snapshots" / "0"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    done = subprocess.run(
        [sys.executable, "-c", _READ_OFTEN, str(copy)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_resuming_from_a_damaged_state_is_refused_and_the_advice_repairs_it(
    copy: Path, true_readings: dict[str, Any]
) -> None:
    shutil.rmtree(copy / "segments" / "000000024")
    for file in (copy / "segments" / "000000016" / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with pytest.raises(
        DamagedError, match=r"remove .*000000016 and every later one, then run the same command"
    ) as error:
        train(SEGMENTED, copy)
    assert not (copy / "segments" / "000000024").exists()
    shutil.rmtree(copy / "segments" / "000000016")
    train(SEGMENTED, copy)
    assert _readings(copy) == true_readings
    assert "Segment 000000016" in str(error.value)


def test_measuring_damaged_snapshots_is_refused_and_writes_no_reading(copy: Path) -> None:
    _spoil(copy / "segments" / "000000016" / "snapshots")
    with pytest.raises(DamagedError, match="000000016"):
        open_run(copy).measure(["train_loss"])
    assert not list(copy.rglob("*.nc*"))


def test_remains_of_an_unfinished_save_are_ignored_by_readers_and_removed_by_the_next_trainer(
    copy: Path, true_readings: dict[str, Any]
) -> None:
    shutil.rmtree(copy / "segments" / "000000024")
    left = [
        copy / "segments" / name
        for name in ("000000024.orbax-checkpoint-tmp", "000000020.orbax-checkpoint-tmp-3")
    ]
    for path in left:
        shutil.copytree(copy / "segments" / "000000016", path)
    assert open_run(copy).steps.tolist() == [0, 3, 11]
    assert list(problems(Trajectory(copy))) == []
    assert all(path.exists() for path in left)
    train(SEGMENTED, copy)
    assert sorted(path.name for path in (copy / "segments").iterdir()) == [
        "000000008",
        "000000016",
        "000000024",
    ]
    assert _readings(copy) == true_readings


@pytest.mark.parametrize("name", ["notes", "000000012.bak", ".DS_Store"])
def test_other_things_among_the_segments_are_ignored_and_kept(
    copy: Path, true_readings: dict[str, Any], name: str
) -> None:
    (copy / "segments" / name).mkdir()
    assert not _check(copy, true_readings, "")
    assert list(problems(Trajectory(copy))) == []
    train(SEGMENTED, copy)
    assert (copy / "segments" / name).is_dir()


def test_a_run_whose_last_segment_is_gone_is_unfinished_and_resumes(
    copy: Path, true_readings: dict[str, Any]
) -> None:
    shutil.rmtree(copy / "segments" / "000000024")
    run = open_run(copy)
    assert {status.state for status in run.status.values()} == {"unfinished"}
    with pytest.raises(RunError, match="no snapshot"):
        run.params(24)
    train(SEGMENTED, copy)
    assert _readings(copy) == true_readings


@pytest.mark.parametrize("count", [1, 2])
def test_a_flipped_byte_of_the_record_is_refused(
    copy: Path, true_readings: dict[str, Any], count: int
) -> None:
    random, file = Random(count), copy / "run.json"
    content = file.read_bytes()
    for _ in range(20):
        changed = bytearray(content)
        for _ in range(count):
            changed[random.randrange(len(content))] ^= random.randrange(1, 256)
        file.write_bytes(bytes(changed))
        try:
            readings = _readings(copy)
        except RunError:
            continue
        assert all(
            isinstance(value, DamagedError) or value == true_readings[name]
            for name, value in readings.items()
        )


def test_a_run_whose_segments_are_all_gone_is_not_called_sound(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(copy / "segments")
    assert main(["verify", str(copy)]) == 1
    out = capsys.readouterr().out
    assert "there is no segment in" in out
    assert "5 snapshots from step 0 to step 24 belong there" in out
    shutil.rmtree(copy / "measures", ignore_errors=True)
    train(SEGMENTED, copy)
    assert main(["verify", str(copy)]) == 0


def test_verify_says_how_far_an_unfinished_run_is_trained(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(copy / "segments" / "000000024")
    assert main(["verify", str(copy)]) == 0
    assert "it is trained to step 16 of 24" in capsys.readouterr().out


def test_verify_names_a_snapshot_that_the_record_does_not_list(copy: Path) -> None:
    file = copy / "run.json"
    record = json.loads(file.read_text())
    del record["digest"]
    record["snapshots"].remove(11)
    file.write_text(json.dumps({**record, "digest": digest(record)}))
    assert list(problems(Trajectory(copy))) == [
        "snapshots at steps [11] are stored, and run.json has none there"
    ]


def test_a_fork_that_was_stopped_before_it_stored_anything_is_not_damaged(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forked = fork(copy, step=16, out=copy / "fork")
    expected = _bits(forked.stack())
    shutil.rmtree(forked.path / "segments")
    (forked.path / "origin.npz").unlink()
    assert main(["verify", str(forked.path)]) == 0
    assert "nothing is stored yet" in capsys.readouterr().out
    assert _bits(fork(copy, step=16, out=copy / "fork").stack()) == expected
    (forked.path / "origin.npz").unlink()
    assert main(["verify", str(forked.path)]) == 1


def test_a_folder_whose_record_could_not_be_written_is_begun_again(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        path.with_name(f".{path.name}.1.tmp").write_bytes(content[:1])
        raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "full"
    with monkeypatch.context() as patch:
        patch.setattr("mi_jax.training.record.replace_file", full)
        with pytest.raises(RunError, match=r"cannot be written .No space left"):
            train(SEGMENTED, out)
    assert (out / "segments").is_dir()
    assert _bits(train(SEGMENTED, out).stack()) == _bits(open_run(copy).stack())
    other = tmp_path / "other"
    (other / "segments" / "000000008").mkdir(parents=True)
    with pytest.raises(RunError, match=r"is not empty and holds no run\.json"):
        train(SEGMENTED, other)
