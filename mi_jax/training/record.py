"""``run.json``, the record of a run: reading it, writing it, and the lock that its writer holds."""

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mi_jax.basics.errors import DamagedError, RunError
from mi_jax.basics.files import replace_file
from mi_jax.basics.records import digest

FORMAT = 2
"""Newest version of the layout on disk. A reader refuses a newer one, and reads every older one.

Version 2 is written for runs that begin at the state of another run (``origin.npz``) or hold arrays
that interventions prepared (``prepared/``); all other runs are still written as version 1.
"""


def read_record(path: Path) -> dict[str, Any]:
    """Contents of ``run.json``.

    For a fork, the entry ``parent`` records the parent run and the step.

    Args:
        path: the run's directory.

    Raises:
        RunError: if there is no such file, it cannot be read, or its format is newer.
        DamagedError: if it was changed.
    """
    file = path / "run.json"
    try:
        record = json.loads(file.read_text())
        version = int(record["format"])
    except FileNotFoundError as error:
        raise RunError(
            f"{path} is no run: it holds no run.json. Train one with `mi-jax run EXPERIMENT --out"
            f" {path}`."
        ) from error
    except NotADirectoryError as error:
        raise RunError(
            f"{path} is a file, but a run is a directory. Give the directory of a run."
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
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
    return record


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


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the lock of a run's writer until the block ends or the process dies.

    Raises:
        RunError: if another process holds it, or the directory cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        file = (path / ".lock").open("w")
    except OSError as error:
        raise _unwritable(path, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(
                f"Another process is training {path}. Wait for it, or give another --out."
            ) from error
        yield


def _unwritable(path: Path, error: OSError) -> RunError:
    return RunError(f"{path} cannot be written ({error.strerror}). Give another --out.")
