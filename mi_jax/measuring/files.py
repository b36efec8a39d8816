"""Readings as netCDF files, each with its provenance and a key of everything that it depends on."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import xarray as xr

from mi_jax.basics.errors import RunError
from mi_jax.basics.files import replace_file
from mi_jax.basics.records import digest
from mi_jax.contracts import Measure, Subject
from mi_jax.measuring.history import History, ReferenceChoice
from mi_jax.measuring.sources import Code, Source, code_of, source_of, text_digest
from mi_jax.training.trajectory import Trajectory

SOURCE_GONE = "A source file that it was read by is not there any more."
"""Sentence about a reading whose code cannot be compared with the code that is here."""

_PACKAGE = Path(__file__).resolve().parents[1]
"""Folder of the whole package."""
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


class Recipe(NamedTuple):
    """Everything that a reading depends on beside the weights, as it is stored with the reading.

    Attributes:
        measure: name, options and dims of the variables.
        code: modules, files and values; see ``sources.Code``.
        source: file, name, line and text of the measure's function; see ``sources.Source``.
        final: identity of the final model (``history.Snapshot.attrs``); None for an online reading.
        previous: identity of the snapshot before the first one; None where none is used.
        choice: whose end is the final model; see ``history.ReferenceChoice``.
    """

    measure: list[Any]
    code: Code
    source: Source
    final: dict[str, Any] | None
    previous: dict[str, Any] | None
    choice: ReferenceChoice

    @property
    def reusable(self) -> bool:
        """Whether the reading is the same whenever its key is."""
        return self.code.values is not None

    @property
    def shipped(self) -> bool:
        """Whether the measure is one of mi_jax."""
        return Path(self.source.file).is_relative_to(_PACKAGE)

    def to_json(self) -> str:
        """The recipe as text."""
        fields = {**self._asdict(), "code": self.code._asdict(), "source": self.source._asdict()}
        return json.dumps(fields)

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """The recipe of a stored text.

        Raises:
            ValueError, KeyError, TypeError: if the text is no recipe.
        """
        fields = json.loads(text)
        code = Code(
            tuple(fields["code"]["modules"]),
            tuple(fields["code"]["files"]),
            fields["code"]["values"],
        )
        return cls(**{**fields, "code": code, "source": Source(**fields["source"])})


def recipe_of(
    measure: Measure,
    subject: Subject,
    history: History,
    provenance: Mapping[str, Any],
    choice: ReferenceChoice,
) -> Recipe:
    """The recipe by which a measure reads a run here and now.

    Args:
        measure: the measure.
        subject: the model, task and loss that are measured.
        history: the run with those that it was forked from.
        provenance: of the run; its ``experiment`` names a user's own classes.
        choice: whose end is the final model.
    """
    final = history.final(choice) if measure.retrospective else None
    before = history.before() if "previous" in measure.uses else None
    return Recipe(
        [
            measure.name,
            json.loads(json.dumps(dict(measure.options), default=str)),
            {name: list(dims) for name, dims in measure.variables.items()},
        ],
        code_of(subject, provenance.get("experiment"), measure),
        source_of(measure.function),
        None if final is None else final.attrs,
        None if before is None else before.attrs,
        choice,
    )


def content_key(weights: str, recipe: Recipe) -> str | None:
    """Hash of everything that a reading depends on: weights, steps, references, options and code.

    The code is taken from its source text, and nothing is imported, so that a stored reading can be
    checked by the recipe that is stored beside it.

    Args:
        weights: hash of the snapshots and of the run (``weights_digest``).
        recipe: everything else.

    Returns:
        The key; None if a source file of the recipe is not there any more.
    """
    text = text_digest(recipe.code.modules, recipe.code.files)
    if text is None:
        return None
    content = [
        weights, recipe.measure, recipe.code.values, text, recipe.final, recipe.previous,
        recipe.choice,
    ]  # fmt: skip
    return digest(content)


def weights_digest(trajectory: Trajectory) -> str:
    """Hash of a run's experiment, of where it was forked, and of its snapshots."""
    parent = trajectory.record.get("parent") or {}
    return digest(
        {
            "snapshots": trajectory.hashes(),
            "steps": trajectory.steps.tolist(),
            "experiment": trajectory.record["hash"],
            "parent": [parent.get("hash"), parent.get("step")],
        }
    )


def stale(dataset: xr.Dataset, weights: str, history: History) -> str:
    """A sentence that says why a stored reading may not stand beside fresh ones.

    Args:
        dataset: the stored reading of one measure.
        weights: hash of the snapshots that the run has now.
        history: the run with those that it was forked from.

    Returns:
        The sentence; empty if the reading belongs to the code and the weights that are there now.
    """
    try:
        recipe = Recipe.from_json(dataset.attrs["recipe"])
    except (KeyError, ValueError, TypeError):
        return "It was read by an earlier version of mi_jax."
    before = history.before() if recipe.previous is not None else None
    if recipe.final is not None:
        final = history.final(recipe.choice)
        if final is None:
            return f"{history.no_final} Its final model cannot be checked."
        recipe = recipe._replace(final=final.attrs)
    recipe = recipe._replace(previous=None if before is None else before.attrs)
    key = content_key(weights, recipe)
    if key is None:
        return SOURCE_GONE
    if key != dataset.attrs.get("key"):
        return "The weights, the code, its references, or the version of jax or numpy changed."
    return ""


def is_followed(dataset: xr.Dataset) -> bool:
    """Whether a stored reading's key says everything that the reading depends on."""
    return Recipe.from_json(dataset.attrs["recipe"]).reusable


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
        _read_attributes(file)
        with xr.open_dataset(file, engine="h5netcdf") as dataset:
            return dataset.load()
    except _UNREADABLE as error:
        raise RunError(f"{file} cannot be read ({error}). Remove it and measure again.") from error


_UNREADABLE = (ArithmeticError, AttributeError, LookupError, MemoryError, OSError, RuntimeError,
               TypeError, ValueError)  # fmt: skip
"""Errors by which h5py, h5netcdf and xarray refuse a damaged file."""

_LARGEST_SHARE = 100
"""Bytes of an array for each byte of its file, at most: stored readings are not compressed."""


def _read_attributes(file: Path) -> None:
    """Read every header of a netCDF file, and hold the arrays that it claims against its size.

    h5netcdf would open a file with a damaged header by half, and print a traceback at its end.
    Raises OSError, ValueError or another error of h5py for a damaged file.
    """
    largest = max(2**20, _LARGEST_SHARE * file.stat().st_size)

    def look(name: str, item: h5py.Group | h5py.Dataset) -> None:
        dict(item.attrs)
        if isinstance(item, h5py.Dataset) and (item.size or 0) * item.dtype.itemsize > largest:
            raise ValueError(f"{name} of the shape {item.shape} is more than the file holds")

    with h5py.File(file) as stored:
        dict(stored.attrs)
        stored.visititems(look)


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
