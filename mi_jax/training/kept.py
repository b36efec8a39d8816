"""Files of arrays beside a run's segments: the state that a fork begins from, and the arrays that
its interventions prepared.

Each file is an npz, written whole or not at all, with a sha256 over the run's identity and the
name, dtype, shape and bytes of every array.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mi_jax.basics.errors import DamagedError, RunError
from mi_jax.basics.files import UNREADABLE, read_npz, replacing

_DIGEST = "sha256"

PREPARED = "prepared"
"""Folder, beside the segments, of the arrays that interventions prepared."""


def write_arrays(file: Path, arrays: Mapping[str, np.ndarray], run: str) -> None:
    """Write named arrays.

    Args:
        file: the npz.
        arrays: the arrays by name.
        run: the identity hash of the run that they belong to.

    Raises:
        RunError: if the file cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary, temporary.open("wb") as opened:
            stored = {_DIGEST: np.array(_digest(arrays, run)), **arrays}
            np.savez(opened, **stored)  # pyright: ignore[reportArgumentType]
    except OSError as error:
        raise RunError(
            f"{file} cannot be written ({error.strerror}). Free disk space, or make the folder"
            " writable."
        ) from error


def read_arrays(file: Path, run: str) -> dict[str, np.ndarray]:
    """Read arrays by name.

    Args:
        file: the npz.
        run: the identity hash of the run that the arrays must belong to.

    Raises:
        DamagedError: if the file is missing, was changed, or belongs to another run.
    """
    try:
        arrays = read_npz(file)
        stored_digest = str(arrays.pop(_DIGEST))
    except UNREADABLE as error:
        raise DamagedError(f"{file} cannot be read ({error}). {_remedy(file)}") from error
    if stored_digest != _digest(arrays, run):
        raise DamagedError(
            f"{file} was changed, or belongs to another run. Its numbers cannot be trusted."
            f" {_remedy(file)}"
        )
    return arrays


def _remedy(file: Path) -> str:
    """The end of an error about a file. Only the start of a fork can be made again by forking."""
    again = "" if file.parent.name == PREPARED else ", or fork again"
    return f"Restore the file from a copy of this run{again}."


def _digest(arrays: Mapping[str, np.ndarray], run: str) -> str:
    hasher = hashlib.sha256(run.encode())
    for name in sorted(arrays):
        value = np.asarray(arrays[name])
        hasher.update(f"|{name}|{value.dtype}|{value.shape}|".encode())
        hasher.update(np.ascontiguousarray(value).tobytes())
    return hasher.hexdigest()
