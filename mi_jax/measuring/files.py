"""Readings as files: netCDF, each with where it comes from and a key of all that it depends on."""

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
_TOLD = 512
"""Numbers up to which what a measure froze is written out beside its result."""


def provenance_of(
    one: Measure, provenance: Mapping[str, Any], prepared: Mapping[int, Mapping[str, Any]]
) -> str:
    """JSON of where a reading comes from: the measure, its options, what it froze by seed, the run."""
    frozen = {
        name: {str(seed): _plain(by_name[name]) for seed, by_name in prepared.items()}
        for name in one.prepare
    }
    told = {
        "measure": one.name,
        "options": dict(one.options),
        "source": one.source,
        "retrospective": one.retrospective,
        "uses": sorted(one.uses),
        "prepared": frozen,
    }
    return json.dumps({**told, **provenance})


def _plain(value: Any) -> Any:
    """JSON of what was frozen; a mask as the list of what it holds, counted from 1; of a long list
    its length and hash.
    """
    array = np.asarray(value)
    if array.size > _TOLD:
        return {"shape": list(array.shape), "sha256": hashlib.sha256(array.tobytes()).hexdigest()}
    return (np.flatnonzero(array) + 1).tolist() if array.dtype == bool else array.tolist()


def content_key(trajectory: Trajectory, one: Measure, provenance: Mapping[str, Any]) -> str | None:
    """What the result depends on: weights, steps, experiment, options and code; None where the code
    can't be told.
    """
    code = code_digest(one.function, *one.prepare.values())
    if code is None:
        return None
    content = {
        "snapshots": trajectory.hashes(),
        "steps": trajectory.steps.tolist(),
        "experiment": provenance.get("hash"),
        "measure": [one.name, dict(one.options), {k: list(v) for k, v in one.variables.items()}],
        "code": code,
    }
    return digest(content)


def code_digest(*functions: Callable[..., Any]) -> str | None:
    """A hash of the package's source, and of functions from elsewhere: their code, and the files
    that they stand in.

    None, so that nothing is reused, where such a function has no file or carries values of its own
    (a closure, a partial).
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
        codes.append(repr(_told(function.__code__)).encode())
        try:
            files.append(Path(inspect.getfile(function)))
        except (TypeError, OSError):
            return None
    try:
        return hashlib.sha256(
            b"".join([*codes, *(file.read_bytes() for file in files)])
        ).hexdigest()
    except OSError:
        return None


def _told(code: CodeType) -> tuple[Any, ...]:
    """What tells two functions of one file apart."""
    constants = tuple(
        _told(one) if isinstance(one, CodeType) else repr(one) for one in code.co_consts
    )
    return code.co_qualname, code.co_code, code.co_names, constants


def cached(file: Path, key: str | None) -> xr.Dataset | None:
    """The dataset of a file, if it was made under this very key."""
    if key is None or not file.exists():
        return None
    try:
        dataset = load_dataset(file)
    except RunError:
        return None
    return dataset if dataset.attrs.get("key") == key else None


def load_dataset(file: Path) -> xr.Dataset:
    """The dataset of a file. Raises RunError where it can't be read."""
    try:
        with xr.open_dataset(file, engine="h5netcdf") as dataset:
            return dataset.load()
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{file} can't be read ({error}); remove it and measure again") from error


def write_dataset(file: Path, dataset: xr.Dataset) -> None:
    """Writes a netCDF, whole or not at all. Raises RunError where it can't be written."""
    try:
        file.parent.mkdir(exist_ok=True)
        # Made in memory: HDF5 itself dies of a full disk.
        replace_file(file, bytes(dataset.to_netcdf(engine="h5netcdf")))
    except OSError as error:
        raise RunError(f"{file} can't be written ({error})") from error
