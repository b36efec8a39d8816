"""Readings as netCDF files, each with its provenance and a key of everything that it depends on."""

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np
import xarray as xr

from mi_jax.basics.errors import RunError
from mi_jax.basics.files import replace_file
from mi_jax.basics.records import digest
from mi_jax.contracts import Measure
from mi_jax.training.trajectory import Trajectory

_PACKAGE = Path(__file__).parents[1]
"""Folder of the whole package, whose source is part of every key."""
_WRITTEN_OUT = 512
"""Size of a prepared array above which its hash is stored in place of its values."""


def provenance_of(
    measure: Measure, provenance: Mapping[str, Any], prepared: Mapping[int, Mapping[str, Any]]
) -> str:
    """Provenance of a reading, as JSON.

    Args:
        measure: the measure.
        provenance: of the run: the experiment, its hash, the machine.
        prepared: values that the measures prepared before the pass, by seed and name.
    """
    values = {
        name: {str(seed): _plain(by_name[name]) for seed, by_name in prepared.items()}
        for name in measure.prepare
    }
    own = {
        "measure": measure.name,
        "options": dict(measure.options),
        "source": measure.source,
        "retrospective": measure.retrospective,
        "uses": sorted(measure.uses),
        "prepared": values,
    }
    return json.dumps({**own, **provenance})


def _plain(value: Any) -> Any:
    """A prepared value as JSON: a mask as true indices from 1, a large array as shape and hash."""
    array = np.asarray(value)
    if array.size > _WRITTEN_OUT:
        return {"shape": list(array.shape), "sha256": hashlib.sha256(array.tobytes()).hexdigest()}
    return (np.flatnonzero(array) + 1).tolist() if array.dtype == bool else array.tolist()


def content_key(
    trajectory: Trajectory, measure: Measure, provenance: Mapping[str, Any]
) -> str | None:
    """Hash of everything that a reading depends on: weights, steps, experiment, options and code.

    Args:
        trajectory: the stored snapshots.
        measure: the measure.
        provenance: of the run; its ``hash`` identifies the experiment.

    Returns:
        The key; None if the code has no hash (``code_digest``).
    """
    code = code_digest(measure.function, *measure.prepare.values())
    if code is None:
        return None
    content = {
        "snapshots": trajectory.hashes(),
        "steps": trajectory.steps.tolist(),
        "experiment": provenance.get("hash"),
        "measure": [
            measure.name,
            dict(measure.options),
            {name: list(dims) for name, dims in measure.variables.items()},
        ],
        "code": code,
    }
    return digest(content)


def code_digest(*functions: Callable[..., Any]) -> str | None:
    """Hash of the package's source, and of the code and source files of functions outside it.

    None, so that no reading is reused, if such a function has no file or carries values (a closure,
    a partial, a default): those could differ while the code is the same.
    """
    files, codes = sorted(_PACKAGE.rglob("*.py")), list[bytes]()
    for function in functions:
        if (getattr(function, "__module__", None) or "").startswith("mi_jax."):
            continue
        if (
            not inspect.isfunction(function)
            or function.__closure__
            or function.__defaults__
            or function.__kwdefaults__
        ):
            return None
        codes.append(repr(_identity(function.__code__)).encode())
        try:
            files.append(Path(inspect.getfile(function)))
        except (TypeError, OSError):
            return None
    try:
        sources = [file.read_bytes() for file in files]
    except OSError:
        return None
    return hashlib.sha256(b"".join([*codes, *sources])).hexdigest()


def _identity(code: CodeType) -> tuple[Any, ...]:
    """Parts of a code object that distinguish two functions of one file."""
    constants = tuple(
        _identity(constant) if isinstance(constant, CodeType) else repr(constant)
        for constant in code.co_consts
    )
    return code.co_qualname, code.co_code, code.co_names, constants


def cached(file: Path, key: str | None) -> xr.Dataset | None:
    """Dataset of a file; None if there is none, it cannot be read, or it has another key."""
    if key is None or not file.exists():
        return None
    try:
        dataset = load_dataset(file)
    except RunError:
        return None
    return dataset if dataset.attrs.get("key") == key else None


def load_dataset(file: Path) -> xr.Dataset:
    """Dataset of a file. Raises RunError if it cannot be read."""
    try:
        with xr.open_dataset(file, engine="h5netcdf") as dataset:
            return dataset.load()
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{file} cannot be read ({error}). Remove it and measure again.") from error


def write_dataset(file: Path, dataset: xr.Dataset) -> None:
    """Writes a netCDF file completely or not at all. Raises RunError if it cannot be written."""
    try:
        file.parent.mkdir(exist_ok=True)
        # Encoded in memory first: HDF5 crashes the process if the disk is full.
        replace_file(file, bytes(dataset.to_netcdf(engine="h5netcdf")))
    except OSError as error:
        raise RunError(
            f"{file} cannot be written ({error}). Free disk space, or make the folder writable."
        ) from error
