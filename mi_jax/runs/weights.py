"""Weights from a file: an npz of arrays by the dotted names of a model's parameters."""

import os

import jax
import numpy as np

from mi_jax.basics.dims import Params
from mi_jax.basics.errors import WeightsError
from mi_jax.basics.files import UNREADABLE, read_npz
from mi_jax.basics.precision import Precision
from mi_jax.basics.pytrees import dotted, nested
from mi_jax.contracts import Model


def load_weights(
    file: str | os.PathLike[str], model: Model, precision: Precision = "float32"
) -> tuple[Params, list[str]]:
    """Load the parameters of a model from an npz.

    Args:
        file: an npz of arrays by dotted name, such as ``blocks.0.mlp.W_in``; nothing in it is
            unpickled.
        model: the model whose parameters these are.
        precision: the type to cast the parameters to.

    Returns:
        The parameters as nested NumPy arrays, and the names of further arrays without a dot, which
        are ignored.

    Raises:
        WeightsError: for a file that cannot be read, missing names, wrong shapes or types, numbers
            that are not finite or would not be in this precision, or further names with a dot,
            which look like parameters.

    Example:
        experiment = mi_jax.Experiment()
        params, ignored = mi_jax.load_weights("weights.npz", experiment.build())
    """
    try:
        arrays = read_npz(file)
    except UNREADABLE as error:
        raise WeightsError(
            f"{file} cannot be read as an npz of arrays ({error}). Give a file that numpy.savez"
            " or ``Run.export`` wrote."
        ) from error
    wanted = dotted(jax.eval_shape(model.init, jax.random.key(0)))
    problems = [
        f"missing {name} {list(shape.shape)}"
        for name, shape in wanted.items()
        if name not in arrays
    ]
    problems += [
        f"{name} has the shape {list(arrays[name].shape)}, that of the model is {list(shape.shape)}"
        for name, shape in wanted.items()
        if name in arrays and arrays[name].shape != shape.shape
    ]
    problems += [
        f"{name} has the type {arrays[name].dtype}, a parameter is a floating-point number"
        for name in wanted
        if name in arrays and not np.issubdtype(arrays[name].dtype, np.floating)
    ]
    extra = sorted(set(arrays) - set(wanted))
    problems += [
        f"{name} {list(arrays[name].shape)} is not a parameter of this model"
        for name in extra
        if "." in name
    ]
    if problems:
        raise WeightsError(
            f"{file} does not fit the model: {'; '.join(problems)}. Change --like, or the settings"
            " of the model."
        )
    # A cast beyond the largest number gives infinity, which is refused here by name.
    with np.errstate(over="ignore"):
        cast = {name: arrays[name].astype(precision) for name in wanted}
    problems = [
        problem
        for name in wanted
        if (problem := _not_finite(name, arrays[name], cast[name], precision))
    ]
    if problems:
        raise WeightsError(f"{file} holds unusable numbers: {'; '.join(problems)}.")
    params = nested(cast)
    return params, [name for name in extra if "." not in name]


def _not_finite(
    name: str, stored: np.ndarray, cast: np.ndarray, precision: Precision
) -> str | None:
    """The problem of a parameter whose numbers are not finite; None where all are."""
    count = int((~np.isfinite(stored)).sum())
    if count:
        return f"{name} has {count} of {stored.size} numbers that are not finite"
    beyond = int((~np.isfinite(cast)).sum())
    if beyond:
        return (
            f"{name} has {beyond} of {stored.size} numbers beyond {precision}. Load it with"
            " precision='float64'"
        )
    return None
