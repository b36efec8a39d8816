"""Tables as sums of a few parts by scikit-learn: non-negative (NMF) or independent (ICA) ones."""

from types import ModuleType
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mi_jax.basics.errors import ConfigError, check_choice

_METHODS = ("nmf", "ica")


class Parts(NamedTuple):
    """A decomposition table = codes @ parts + mean + a rest.

    Attributes:
        codes: how much of each part a row has.
        parts: the parts, one a row.
        mean: what is added to every row; 0 for NMF.
        explained: 1 - ||table - codes @ parts - mean||^2 / ||table - column means||^2.
    """

    codes: Float[np.ndarray, "row component"]
    parts: Float[np.ndarray, "component column"]
    mean: Float[np.ndarray, " column"]
    explained: float


def parts(
    table: Float[np.ndarray, "row column"], method: str, count: int, *, seed: int = 0
) -> Parts:
    """Decomposes a table into a few parts, for example activations [example neuron].

    Args:
        table: any matrix; without negative entries for NMF.
        method: "nmf": codes and parts are non-negative, as rectified activations are. "ica": the
            codes are as independent, and as far from Gaussian, as a linear map can make them
            (FastICA).
        count: number of parts, at most the shorter side of the table.
        seed: of scikit-learn's initialisation.

    Returns:
        The codes and parts, and the share of the variance that they explain.

    Raises:
        ConfigError: if scikit-learn is missing, the method is unknown, there are more parts than
            rows or columns, or the table has negative entries and the method is "nmf".

    Example:
        >>> table = np.outer([1.0, 2.0, 0.0, 1.0], [0.0, 1.0, 3.0])
        >>> round(parts(table, "nmf", 1).explained, 3)
        1.0
    """
    check_choice("method", method, _METHODS)
    most = min(table.shape)
    if not 1 <= count <= most:
        raise ConfigError(
            f"count={count} is out of range. A table of shape {table.shape} has between 1 and"
            f" {most} parts."
        )
    if method == "nmf" and not bool((table >= 0).all()):
        raise ConfigError(
            "The table has negative entries, which NMF cannot represent. Rectify the table, or"
            " pass method='ica'."
        )
    decompose = _nmf if method == "nmf" else _ica
    codes, rows, mean = decompose(_scikit(), np.asarray(table, np.float64), count, seed)
    rest = np.square(table - codes @ rows - mean).sum()
    return Parts(codes, rows, mean, float(1 - rest / np.square(table - table.mean(axis=0)).sum()))


def _scikit() -> ModuleType:
    """scikit-learn's decompositions, imported only when they are used."""
    try:
        from sklearn import decomposition
    except ImportError as error:
        raise ConfigError(
            "NMF and ICA need scikit-learn, which is not installed. Run"
            " pip install 'mi-jax[decompositions]'."
        ) from error
    return decomposition


def _nmf(
    scikit: ModuleType, table: np.ndarray, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parts of a table by non-negative matrix factorisation.

    Returns:
        The codes [row component], the parts [component column] and the mean that is subtracted
        [column], which is 0.
    """
    model = scikit.NMF(count, init="nndsvda", random_state=seed, max_iter=2000, tol=1e-5)
    codes = model.fit_transform(table)
    return codes, model.components_, np.zeros(table.shape[1])


def _ica(
    scikit: ModuleType, table: np.ndarray, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parts of a table by independent component analysis.

    Returns:
        The codes [row component], the parts [component column] and the mean that is subtracted
        [column].
    """
    model = scikit.FastICA(
        count, random_state=seed, whiten="unit-variance", max_iter=2000, tol=1e-5
    )
    codes = model.fit_transform(table)
    return codes, model.mixing_.T, model.mean_
