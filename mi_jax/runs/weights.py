"""Weights from a file: an npz of arrays under a model's dotted names."""

import os
import zipfile
import zlib

import jax
import numpy as np

from mi_jax.basics.dims import Params
from mi_jax.basics.errors import WeightsError
from mi_jax.basics.precision import Precision
from mi_jax.basics.pytrees import dotted, nested
from mi_jax.contracts import Model


def load_weights(
    file: str | os.PathLike[str], model: Model, precision: Precision = "float32"
) -> tuple[Params, list[str]]:
    """The parameters of an npz under the model's dotted names, and the names of arrays that are no
    parameters.

    Args:
        precision: what the parameters are cast to.

    Raises:
        WeightsError: for a file that can't be read, missing names, wrong shapes, or parameter-like
            (dotted) extra names.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            stored = [entry for entry in archive.namelist() if entry.endswith(".npy")]
            arrays = {entry.removesuffix(".npy"): _stored_array(archive, entry) for entry in stored}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise WeightsError(f"{file} can't be read as an npz of arrays ({error})") from error
    wanted = dotted(jax.eval_shape(model.init, jax.random.key(0)))
    problems = [
        f"missing {name} {list(shape.shape)}"
        for name, shape in wanted.items()
        if name not in arrays
    ]
    problems += [
        f"{name} has the shape {list(arrays[name].shape)}, the model's is {list(shape.shape)}"
        for name, shape in wanted.items()
        if name in arrays and arrays[name].shape != shape.shape
    ]
    problems += [
        f"{name} is of type {arrays[name].dtype}, a parameter is floating point"
        for name in wanted
        if name in arrays and not np.issubdtype(arrays[name].dtype, np.floating)
    ]
    extra = sorted(set(arrays) - set(wanted))
    problems += [
        f"{name} {list(arrays[name].shape)} is no parameter of this model"
        for name in extra
        if "." in name
    ]
    if problems:
        raise WeightsError(
            f"{file} doesn't fit the model: {'; '.join(problems)}. Change --like or the model's"
            " settings"
        )
    params = nested({name: arrays[name].astype(precision) for name in wanted})
    return params, [name for name in extra if "." not in name]


def _stored_array(archive: zipfile.ZipFile, entry: str) -> np.ndarray:
    with archive.open(entry) as opened:
        return np.lib.format.read_array(opened, allow_pickle=False)
