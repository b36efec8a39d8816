"""``run.json``, the record of a run: read, written, and the lock that its writer holds."""

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
"""Version of the layout on disk: a reader refuses a newer one, and reads every older one. 2 is that
of runs which begin at a state of another (``origin.npz``) or keep what interventions prepared
(``prepared/``); all others are still written as 1.
"""


def read_record(path: Path) -> dict[str, Any]:
    """The content of ``run.json``.

    Raises:
        RunError: where there is none, it can't be read, or its format is newer. DamagedError: where
            it was changed.
    """
    file = path / "run.json"
    try:
        record = json.loads(file.read_text())
        version = int(record["format"])
    except FileNotFoundError as error:
        raise RunError(
            f"{path} is no run: it holds no run.json. `mi-jax run EXPERIMENT --out {path}`"
            " makes one"
        ) from error
    except NotADirectoryError as error:
        raise RunError(f"{path} is a file; a run is a directory") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file} can't be read ({error})") from error
    if version > FORMAT:
        raise RunError(
            f"{path} has the format {version}, this version of mi_jax reads up to {FORMAT}; upgrade"
            " mi_jax"
        )
    if record.pop("digest", None) != digest(record):
        raise DamagedError(
            f"{file} was changed since the run began: what it says of the run is not to be trusted"
        )
    return record


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Makes the run's directory and its ``run.json``, whole or not at all. Raises RunError where it
    can't be written.
    """
    try:
        (path / "segments").mkdir(parents=True, exist_ok=True)
        replace_file(
            path / "run.json", json.dumps({**record, "digest": digest(record)}, indent=1).encode()
        )
    except OSError as error:
        raise RunError(f"{path} can't be written ({error.strerror}); give another --out") from error


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """The right to write a run, held until the block ends or the process dies. Raises RunError
    where another holds it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        file = (path / ".lock").open("w")
    except OSError as error:
        raise RunError(f"{path} can't be written ({error.strerror}); give another --out") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(
                f"another process is training {path}; wait for it, or give another --out"
            ) from error
        yield
