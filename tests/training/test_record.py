"""run.json is checked once, where it is read: whatever it says is a run, or a sentence."""

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mi_jax.basics.errors import DamagedError, MiJaxError, RunError
from mi_jax.basics.records import digest
from mi_jax.cli.main import main
from mi_jax.runs.run import open_run
from mi_jax.training.record import forked_hash, identity, lock, read_record

_DATA = Path(__file__).parents[1] / "data"
_FORMATS = ["run_format_1", "run_format_2", "run_format_3"]
_VALUES = [None, True, -1, 2**40, "x", [], {}, 1e30, 10**30]
"""What an entry is replaced by; it is also removed."""


def _record(name: str) -> dict[str, Any]:
    record = json.loads((_DATA / name / "run.json").read_text())
    del record["digest"]
    return record


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of every entry of a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield (*path, key)
        if isinstance(item, (dict, list)):
            yield from _paths(item, (*path, key))


def _changes(name: str) -> Iterator[tuple[tuple[str | int, ...], dict[str, Any]]]:
    """Records that differ from a stored one in one entry."""
    for path in list(_paths(_record(name))):
        for value in ["removed", *_VALUES]:
            record: Any = _record(name)
            owner = record
            for key in path[:-1]:
                owner = owner[key]
            if value == "removed":
                del owner[path[-1]]
            else:
                owner[path[-1]] = value
            if json.dumps(record) != json.dumps(_record(name)):
                yield path, record


def _write(folder: Path, record: dict[str, Any], name: str) -> Path:
    """A run with the record, and with everything else of a stored one."""
    if not folder.exists():
        folder.mkdir()
        for part in ("segments", "origin.npz", "prepared"):
            if (_DATA / name / part).exists():
                (folder / part).symlink_to(_DATA / name / part)
    (folder / "run.json").write_text(json.dumps({**record, "digest": digest(record)}))
    return folder


def _signed(record: dict[str, Any]) -> dict[str, Any]:
    """The record with the hash, seeds and steps that fit its experiment, as an attacker has it."""
    experiment = record["experiment"]
    own = digest(identity(experiment))
    hashed = forked_hash(own, record["parent"]) if "parent" in record else own
    copied = {name: experiment[name] for name in ("seeds", "steps")}
    return {**record, "hash": hashed, **copied}


@pytest.mark.parametrize("name", _FORMATS)
@pytest.mark.parametrize("sign", [lambda record: record, _signed], ids=["as it is", "signed"])
def test_a_record_with_one_wrong_entry_is_a_run_or_a_sentence(
    tmp_path: Path, name: str, sign: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    opened, refused = set[tuple[str | int, ...]](), 0
    for path, record in _changes(name):
        with contextlib.suppress(KeyError, TypeError, AttributeError):
            record = sign(record)
        run = _write(tmp_path / "run", record, name)
        try:
            opening = open_run(run)
            _ = opening.seeds, opening.steps, opening.parent, opening.mode, opening.experiment
        except MiJaxError as error:
            refused += bool(str(error))
        else:
            opened.add(path)
    assert refused > 400
    if sign is not _signed:
        # No hash covers where the parent was, the machine, the mode, or which steps are kept.
        free = {"machine", "numbers", "parent", "mode", "experiment", "format", "snapshots"}
        assert {path[0] for path in opened} <= free
        named = {path[1] for path in opened if path[0] == "experiment"}
        assert named <= {"name", "storage"}


@pytest.mark.parametrize("name", _FORMATS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": None}, "'seeds' must be a list of whole numbers, each once, and is null"),
        ({"seeds": [0, 0]}, "'seeds' must be a list of whole numbers, each once"),
        ({"seeds": [0, 1, 2]}, "'seeds' is .*that of its experiment is another"),
        ({"steps": "6"}, "'steps' must be a whole number from 1"),
        ({"steps": 2**31}, "'steps' must be a whole number from 1 to 2147483647"),
        ({"snapshots": []}, "'snapshots' must be a rising list"),
        ({"snapshots": [3, 4]}, "snapshots do not run from step"),
        ({"mode": {}}, "'mode' must be an object with seeds"),
        ({"machine": "mine"}, "'machine' must be an object"),
        ({"parent": {"path": "x"}}, "'parent' must be an object with path, hash"),
        ({"hash": "0" * 64}, "'hash' is not that of its experiment"),
        ({"experiment": {}}, "'experiment' must be an experiment"),
        ({"modules": {"os": "x"}}, "'modules' must be"),
    ],
)
def test_a_wrong_entry_is_named(
    tmp_path: Path, name: str, change: dict[str, Any], message: str
) -> None:
    run = _write(tmp_path / "run", {**_record(name), **change}, name)
    with pytest.raises(DamagedError, match=f"run.json does not describe a run: .*{message}"):
        read_record(run)


@pytest.mark.parametrize("entry", ["seeds", "steps", "snapshots", "machine", "mode", "experiment"])
def test_a_missing_entry_is_named(tmp_path: Path, entry: str) -> None:
    record = _record(_FORMATS[0])
    del record[entry]
    with pytest.raises(DamagedError, match=f"'{entry}' is missing"):
        read_record(_write(tmp_path / "run", record, _FORMATS[0]))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"format": 1, "hash": "\\ud800"}', "\x00", "1"])
def test_a_file_that_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunError, match=r"run\.json cannot be read"):
        read_record(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.json")
    with pytest.raises(RunError, match="it is not a file"):
        read_record(tmp_path)


def test_a_command_says_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = _write(tmp_path / "run", {**_record(_FORMATS[0]), "machine": []}, _FORMATS[0])
    for verb in ("info", "verify", "measure", "report", "train", "reproduce"):
        assert main([verb, str(run)]) == 2
        assert "does not describe a run: 'machine' must be" in capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_a_file_system_without_locks_is_named_and_used_when_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(file: Any, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with (
        pytest.raises(RunError, match=f"locked .{os.strerror(number)}.*--allow-no-lock"),
        lock(tmp_path / "run"),
    ):
        raise AssertionError
    with lock(tmp_path / "run", allow_no_lock=True):
        assert (tmp_path / "run").is_dir()


def test_a_lock_that_another_process_holds_is_refused_whatever_is_allowed(tmp_path: Path) -> None:
    with (
        lock(tmp_path),
        pytest.raises(RunError, match="Another process is training"),
        lock(tmp_path, allow_no_lock=True),
    ):
        raise AssertionError


def test_a_system_without_locks_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mi_jax.training.record.fcntl", None)
    with (
        pytest.raises(RunError, match=r"no POSIX file locks.*Windows.*--allow-no-lock"),
        lock(tmp_path),
    ):
        raise AssertionError
    with lock(tmp_path, allow_no_lock=True):
        assert (tmp_path / ".lock").exists()
