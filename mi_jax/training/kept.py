"""Arrays that a run keeps beside its segments: the state that a fork begins from, and what its
interventions prepared.

An npz, written whole or not at all, with a sha256 over the name, dtype, shape and bytes of every
array and the run it is of.
"""

import hashlib
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mi_jax.basics.errors import DamagedError, RunError
from mi_jax.basics.files import replacing

_DIGEST = "sha256"


def write_arrays(file: Path, arrays: Mapping[str, np.ndarray], run: str) -> None:
    """Writes named arrays. Raises RunError where they can't be written.

    Args:
        run: the identity hash of the run that they belong to.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary, temporary.open("wb") as opened:
            np.savez(opened, **{_DIGEST: np.array(_digest(arrays, run))}, **arrays)  # pyright: ignore[reportArgumentType]
    except OSError as error:
        raise RunError(
            f"{file} can't be written ({error.strerror}); make room or mend the folder"
        ) from error


def read_arrays(file: Path, run: str) -> dict[str, np.ndarray]:
    """The arrays by name. Raises DamagedError where the file is missing, was changed or is of
    another run.
    """
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        told = str(arrays.pop(_DIGEST))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DamagedError(
            f"{file} can't be read ({error}): fork again, or put this run's own back"
        ) from error
    if told != _digest(arrays, run):
        raise DamagedError(
            f"{file} isn't what was written for this run: its numbers are not to be trusted. Fork"
            " again"
        )
    return arrays


def _digest(arrays: Mapping[str, np.ndarray], run: str) -> str:
    whole = hashlib.sha256(run.encode())
    for name in sorted(arrays):
        value = np.asarray(arrays[name])
        whole.update(
            f"|{name}|{value.dtype}|{value.shape}|".encode() + np.ascontiguousarray(value).tobytes()
        )
    return whole.hexdigest()
