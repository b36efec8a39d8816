"""Tables as sums of a few parts by scikit-learn: non-negative ones (NMF), or statistically
independent ones (ICA).
"""

from types import ModuleType
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mi_jax.basics.errors import ConfigError, nearest, require

_METHODS = ("nmf", "ica")


class Parts(NamedTuple):
    """table is about codes @ parts + mean."""

    codes: Float[np.ndarray, "row component"]
    parts: Float[np.ndarray, "component column"]
    mean: Float[np.ndarray, " column"]
    """0 for NMF."""
    explained: float
    """1 - ||table - codes @ parts - mean||^2 / ||table - column means||^2."""


def parts(
    table: Float[np.ndarray, "row column"], method: str, count: int, *, seed: int = 0
) -> Parts:
    """A table, activations [example neuron] say, as ``count`` parts.

    Args:
        method: "nmf": codes and parts are non-negative, and so must the table be (rectified
            activations); "ica": the codes are as independent, as far from Gaussian, as a linear map
            can make them (FastICA).

    Raises:
        ConfigError: without scikit-learn (``pip install 'mi-jax[decompositions]'``), for an unknown
            method, more parts than rows or columns, or negative entries for NMF.
    """
    require(method in _METHODS, f"method={method!r} is unknown; {nearest(method, _METHODS)}")
    most = min(table.shape)
    require(
        1 <= count <= most,
        f"count={count}: a table of {table.shape} has between 1 and {most} parts",
    )
    require(
        method != "nmf" or bool((table >= 0).all()),
        "nmf needs a table without negative entries; take ica, or rectify it",
    )
    make = _nmf if method == "nmf" else _ica
    codes, held, mean = make(_scikit(), np.asarray(table, np.float64), count, seed)
    rest = np.square(table - codes @ held - mean).sum()
    return Parts(codes, held, mean, float(1 - rest / np.square(table - table.mean(axis=0)).sum()))


def _scikit() -> ModuleType:
    try:
        from sklearn import decomposition
    except ImportError as error:
        raise ConfigError(
            "NMF and ICA are scikit-learn's: pip install 'mi-jax[decompositions]'"
        ) from error
    return decomposition


def _nmf(
    scikit: ModuleType, table: np.ndarray, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    model = scikit.NMF(count, init="nndsvda", random_state=seed, max_iter=2000, tol=1e-5)
    codes = model.fit_transform(table)
    return codes, model.components_, np.zeros(table.shape[1])


def _ica(
    scikit: ModuleType, table: np.ndarray, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    model = scikit.FastICA(
        count, random_state=seed, whiten="unit-variance", max_iter=2000, tol=1e-5
    )
    codes = model.fit_transform(table)
    return codes, model.mixing_.T, model.mean_
