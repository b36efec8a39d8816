"""``run.json``, the record of a run: reading it, writing it, and the lock that its writer holds."""

import contextlib
import errno
import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from mi_jax.basics.errors import DamagedError, RunError
from mi_jax.basics.files import replace_file
from mi_jax.basics.records import digest

FORMAT = 3
"""Newest version of the layout on disk. A reader refuses a newer one, and reads every older one.

Version 2 added runs that begin at the state of another run (``origin.npz``) or hold arrays that
interventions prepared (``prepared/``). Version 3 has segments of nine files; a run of an earlier
version that is resumed keeps its segments and becomes one of version 3.
"""

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows has no such module
    fcntl = None

LARGEST_STEP = 2**31 - 1
"""Largest step, and largest label of a seed: JAX counts steps in 32 bits."""

_OUTSIDE_IDENTITY = ("name", "seeds", "storage", "accept_machine")
"""Settings of an experiment that its hash does not cover."""


def read_record(path: Path) -> dict[str, Any]:
    """Contents of ``run.json``.

    For a fork, the entry ``parent`` records the parent run and the step.

    Args:
        path: the run's directory.

    Everything that the file says is checked here, so that what uses the record need not.

    Raises:
        RunError: if there is no such file, it cannot be read, or its format is newer.
        DamagedError: if it was changed, an entry is missing or of another type, or two entries
            contradict each other.
    """
    file = path / "run.json"
    try:
        if file.exists() and not file.is_file():
            raise OSError("it is not a file")
        record = json.loads(file.read_text())
        # Half a character, which JSON can name, could be neither printed nor looked up.
        json.dumps(record, ensure_ascii=False).encode()
        version = record["format"]
        if not _is_whole(version, 1):
            raise ValueError(f"format={version!r}")
    except FileNotFoundError as error:
        raise RunError(
            f"{path} is no run: it holds no run.json. Train one with `mi-jax run EXPERIMENT --out"
            f" {shlex.quote(str(path))}`."
        ) from error
    except NotADirectoryError as error:
        raise RunError(
            f"{path} is a file, but a run is a directory. Give the directory of a run."
        ) from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(
            f"{file} cannot be read ({error}). Restore it from a copy of this run."
        ) from error
    if version > FORMAT:
        raise RunError(
            f"{path} has the format {version}, but this version of mi_jax reads up to {FORMAT}."
            " Upgrade mi_jax."
        )
    if record.pop("digest", None) != digest(record):
        raise DamagedError(
            f"{file} was changed since the run began, so its contents cannot be trusted. Restore it"
            " from a copy of this run."
        )
    wrong = _wrong(record)
    if wrong:
        raise DamagedError(
            f"{file} does not describe a run: {wrong}. Restore it from a copy of this run."
        )
    return record


def identity(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an experiment's JSON form that its hash covers: all but seeds, name, storage, the
    machines that it accepts, and where a file of data lies whose own hash is part of the task.
    """
    covered = {name: value for name, value in experiment.items() if name not in _OUTSIDE_IDENTITY}
    task = covered.get("task")
    if isinstance(task, Mapping) and task.get("sha256"):
        covered["task"] = {name: value for name, value in task.items() if name != "file"}
    return covered


def forked_hash(experiment: str, parent: Mapping[str, Any]) -> str:
    """The identity of an experiment as a fork of a run at a step.

    Args:
        experiment: the identity hash of the experiment.
        parent: the entry ``parent`` of the fork's record.
    """
    origin = {"hash": parent["hash"], "step": parent["step"]}
    return digest({"experiment": experiment, "parent": origin})


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Make the run's directory with the folder ``segments`` in it, and write ``run.json``.

    The file is written whole or not at all. It holds the record and, as ``digest``, its hash.

    Args:
        path: the run's directory.
        record: the contents, as JSON values, without ``digest``.

    Raises:
        RunError: if the directory or the file cannot be written.
    """
    try:
        (path / "segments").mkdir(parents=True, exist_ok=True)
        content = json.dumps({**record, "digest": digest(record)}, indent=1)
        replace_file(path / "run.json", content.encode())
    except OSError as error:
        raise _unwritable(path, error) from error


def upgrade_record(path: Path, record: Mapping[str, Any]) -> None:
    """Rewrite the ``run.json`` of an earlier format before segments of today's are added.

    The caller must hold the writer's lock.

    Args:
        path: the run's directory.
        record: its contents.

    Raises:
        RunError: if the file cannot be written.
    """
    if record["format"] < FORMAT:
        write_record(path, {**record, "format": FORMAT})


@contextlib.contextmanager
def lock(path: Path, *, allow_no_lock: bool = False) -> Iterator[None]:
    """Hold the lock of a run's writer until the block ends or the process dies.

    Args:
        path: the run's directory.
        allow_no_lock: go on where the file system has no locks.

    Raises:
        RunError: if another process holds it, the file system or the operating system has no
            locks, or the directory cannot be written.
    """
    if fcntl is None and not allow_no_lock:
        raise RunError(
            "This operating system has no POSIX file locks, so two processes could write one run."
            " On Windows, use the Windows Subsystem for Linux, or see that one process alone"
            f" trains {path} and pass --allow-no-lock (allow_no_lock=True)."
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
        file = (path / ".lock").open("w")
    except OSError as error:
        raise _unwritable(path, error) from error
    with file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
                raise RunError(
                    f"Another process is training {path}. Wait for it, or give another --out."
                ) from error
            if not allow_no_lock:
                raise RunError(
                    f"{path} cannot be locked ({error.strerror}): its file system has no locks, so"
                    " two processes could write one run. Give an --out on another file system; or"
                    " see that one process alone trains this run, and pass --allow-no-lock"
                    " (allow_no_lock=True)."
                ) from error
        yield


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of a run's writer; False where there are no locks.

    Args:
        path: the run's directory.
    """
    if fcntl is None:
        return False
    try:
        with (path / ".lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
    return False


def _wrong(record: Mapping[str, Any]) -> str:
    """The first fault in the contents of a ``run.json``; empty if there is none."""
    for name, (describes, is_right) in _ENTRIES.items():
        if name not in record and name not in _OPTIONAL:
            return f"'{name}' is missing"
        if name in record and not is_right(record[name]):
            return f"'{name}' must be {describes}, and is {_shown(record[name])}"
    experiment, parent = record["experiment"], record.get("parent")
    for name in ("seeds", "steps"):
        if experiment.get(name) != record[name]:
            return f"'{name}' is {_shown(record[name])}, but that of its experiment is another"
    origin = 0 if parent is None else parent["step"]
    snapshots = record["snapshots"]
    if (snapshots[0], snapshots[-1]) != (origin, record["steps"]):
        return f"its snapshots do not run from step {origin} to step {record['steps']}"
    own = digest(identity(experiment))
    if record["hash"] != (own if parent is None else forked_hash(own, parent)):
        return "'hash' is not that of its experiment"
    return ""


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _is_whole(value: Any, minimum: int) -> bool:
    return type(value) is int and minimum <= value <= LARGEST_STEP


def _is_list(value: Any, minimum: int) -> bool:
    """Whether a value is a list of whole numbers, at least one and each once."""
    if not isinstance(value, list) or not value:
        return False
    return all(_is_whole(item, minimum) for item in value) and len(set(value)) == len(value)


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _is_parent(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    path = value.get("path")
    is_path = isinstance(path, str) and bool(path) and "\0" not in path
    states = ("exact", "fresh optimizer state")
    is_state = value.get("state") in states
    is_kind = isinstance(value.get("departs", False), bool)
    is_origin = _is_hash(value.get("hash")) and _is_whole(value.get("step"), 0)
    return is_path and is_state and is_kind and is_origin


def _is_storage(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("type"), str)


def _is_experiment(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.get("type") == "experiment"
        and _is_storage(value.get("storage"))
        and isinstance(value.get("name"), str)
    )


def _is_mode(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.get("seeds") in ("mapped", "vmapped")
        and isinstance(value.get("route", ""), str)
    )


def _is_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(number, (int, float)) and not isinstance(number, bool)
        for number in value.values()
    )


_ENTRIES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "parent": ("an object with path, hash, step and state", _is_parent),
    "experiment": ("an experiment with a name and a storage", _is_experiment),
    "hash": ("a SHA-256 in hexadecimal digits", _is_hash),
    "seeds": ("a list of whole numbers, each once", lambda value: _is_list(value, 0)),
    "steps": (f"a whole number from 1 to {LARGEST_STEP}", lambda value: _is_whole(value, 1)),
    "snapshots": (
        "a rising list of whole numbers",
        lambda value: _is_list(value, 0) and value == sorted(value),
    ),
    "numbers": ("an object of numbers", _is_numbers),
    "machine": ("an object", lambda value: isinstance(value, dict)),
    "mode": ("an object with seeds 'mapped' or 'vmapped', and a route", _is_mode),
    "modules": (
        "an object of SHA-256 by module",
        lambda value: isinstance(value, dict) and all(map(_is_hash, value.values())),
    ),
    "truth": ("an object", lambda value: isinstance(value, dict)),
}
"""Of each entry of ``run.json``, what it must be, in words and as a test."""

_OPTIONAL = ("parent", "numbers", "modules", "truth")
"""Entries that a run may lack."""


def _unwritable(path: Path, error: OSError) -> RunError:
    return RunError(f"{path} cannot be written ({error.strerror}). Give another --out.")
