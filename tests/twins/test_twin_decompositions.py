"""Twins of spectra, modes, and the likeness of two checkpoints."""

import dataclasses
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from attending import Attending, attending
from networks import (
    SPREAD,
    Network,
    assert_twin,
    cross_entropy,
    fit,
    frequencies,
    network,
    read,
    waves,
)

from mi_jax.contracts import Context, Reference

SPECTRA = (
    "singular_values_embedding",
    "singular_values_unembedding",
    "effective_rank_embedding",
    "effective_rank_unembedding",
    "singular_values",
    "stable_rank",
)
MODES = (
    "mode_frequency_share_unembedding",
    "key_mode_share_unembedding",
    "subspace_angle_unembedding_final",
    "subspace_angle_unembedding_previous",
    "subspace_angle_embedding_previous",
    "final_mode_strength_embedding",
    "final_mode_strength_unembedding",
)
LIKENESS = (
    "cka_previous",
    "cka_final",
    "procrustes_previous",
    "procrustes_final",
    "loss_barrier_train_final",
    "loss_barrier_test_final",
    "loss_barrier_train_previous",
)


class Tables(NamedTuple):
    """Arrays of a checkpoint of ``Network`` in float64."""

    E_a: np.ndarray
    E_b: np.ndarray
    U: np.ndarray

    @property
    def embedding(self) -> np.ndarray:
        return np.concatenate([self.E_a, self.E_b], axis=1)

    @property
    def unembedding(self) -> np.ndarray:
        return self.U.T

    @property
    def neurons(self) -> np.ndarray:
        """Activations of all pairs, [pair neuron]."""
        return ((self.E_a[:, None] + self.E_b[None]) ** 2).reshape(len(self.E_a) ** 2, -1)


def _tables(params: Any, p: int) -> Tables:
    arrays = params["embed_a"]["W_E"][:p], params["embed_b"]["W_E"][:p], params["unembed"]["W_U"]
    return Tables(*(np.asarray(array, np.float64) for array in arrays))


class Checkpoints(NamedTuple):
    """A network with its previous and its final checkpoint."""

    net: Network
    context: Context
    here: Tables
    previous: Tables
    final: Tables


@lru_cache
def _checkpoints(p: int, operation: Any, weights: Any) -> Checkpoints:
    net = network(p, operation, weights)
    initial, final = network(p, operation, "random").params, net.context.reference.final
    previous = fit(initial, net.context, 0.03)
    reference = Reference(previous=previous, final=final)
    context = dataclasses.replace(net.context, reference=reference)
    return Checkpoints(
        net, context, *(_tables(params, p) for params in (net.params, previous, final))
    )


# --- Spectra


def _assert_spectra(values: dict[str, np.ndarray], tables: dict[str, np.ndarray]) -> None:
    for place, table in tables.items():
        s = np.linalg.svd(table, compute_uv=False)
        padded = np.zeros(len(table))
        padded[: len(s)] = s
        assert_twin(values[f"singular_values_{place}"], padded, place)
        q = s / s.sum()
        rank = np.exp(-sum(x * np.log(x) for x in q if x > 0))
        assert_twin(values[f"effective_rank_{place}"], rank, place)


def _assert_arrays(values: dict[str, np.ndarray], matrices: list[np.ndarray]) -> None:
    most = max(min(matrix.shape) for matrix in matrices)
    spectra = np.zeros((len(matrices), most))
    for row, matrix in zip(spectra, matrices, strict=True):
        s = np.linalg.svd(matrix, compute_uv=False)
        row[: len(s)] = s
    assert_twin(values["singular_values"], spectra)
    norms = np.array([np.square(matrix).sum() for matrix in matrices])
    assert_twin(values["stable_rank"], norms / spectra[:, 0] ** 2)


def _matrices(net: Attending) -> list[np.ndarray]:
    """Every array as one linear map, heads side by side, in the order of the dotted names."""
    matrices = []
    for name, array in net.w.items():
        if array.ndim == 1 or ".b_" in name:
            matrices.append(array.reshape(1, -1))
        elif array.ndim == 2:
            matrices.append(array)
        else:
            matrices.append(np.concatenate(list(array), axis=0 if name.endswith("W_O") else 1))
    return matrices


@pytest.mark.parametrize(("p", "operation", "weights"), SPREAD)
def test_spectra_of_a_transformer_are_their_formulas(p: int, operation: Any, weights: Any) -> None:
    net = attending(p, operation, weights)
    values = net.read(*SPECTRA)
    last = f"blocks.{net.settings.layers - 1}"
    unembedding = (net.w[f"{last}.mlp.W_out"] @ net.w["unembed.W_U"][:, :p]).T
    _assert_spectra(values, {"embedding": net.w["embed.W_E"][:p], "unembedding": unembedding})
    _assert_arrays(values, _matrices(net))


@pytest.mark.parametrize(("p", "operation", "weights"), SPREAD)
def test_spectra_of_an_mlp_are_their_formulas(p: int, operation: Any, weights: Any) -> None:
    at = _checkpoints(p, operation, weights)
    values = read(SPECTRA, at.net.params, at.context)
    _assert_spectra(values, {"embedding": at.here.embedding, "unembedding": at.here.unembedding})
    arrays = [np.asarray(array, np.float64) for array in jax.tree.leaves(at.net.params)]
    _assert_arrays(values, arrays)


@pytest.mark.parametrize("p", [2, 13])
def test_arrays_of_zeros_have_no_rank(p: int) -> None:
    net = attending(p, "add", "random")
    values = read(SPECTRA, jax.tree.map(np.zeros_like, net.params), net.context)
    assert (values["singular_values"] == 0).all()
    assert np.isnan(values["stable_rank"]).all()
    assert np.isnan(values["effective_rank_embedding"])


# --- Modes


def _left(table: np.ndarray) -> np.ndarray:
    return np.linalg.svd(table, full_matrices=False)[0]


def _angle(here: np.ndarray, there: np.ndarray) -> float:
    """Root mean square of the principal angles of the leading 10 left singular vectors' spans."""
    X, Y = _left(here)[:, :10], _left(there)[:, :10]
    # The sines are exact where an angle is small, the cosines where it is large.
    cosines = np.linalg.svd(X.T @ Y, compute_uv=False)
    sines = np.linalg.svd(Y - X @ (X.T @ Y), compute_uv=False)[::-1]
    return np.sqrt(np.square(np.arctan2(sines, cosines)).mean())


@pytest.mark.parametrize(("p", "operation", "weights"), SPREAD)
def test_modes_are_their_formulas(p: int, operation: Any, weights: Any) -> None:
    at = _checkpoints(p, operation, weights)
    values = read(MODES, at.net.params, at.context)
    u = _left(at.here.unembedding)
    share = [max(np.square(waves(p, k) @ mode).sum() for k in frequencies(p)) for mode in u.T]
    assert_twin(values["mode_frequency_share_unembedding"], share)
    keys = np.concatenate([waves(p, k) for k in at.net.keys])
    leading = u[:, : len(keys)]
    assert_twin(values["key_mode_share_unembedding"], np.square(keys @ leading).sum() / len(keys))
    for place, there, other in (
        ("unembedding", at.final, "final"),
        ("unembedding", at.previous, "previous"),
        ("embedding", at.previous, "previous"),
    ):
        angle = _angle(getattr(at.here, place), getattr(there, place))
        # Spans of all dimensions have the angle 0.
        tolerance = 1e-5 * max(angle, 0.1)
        value = values[f"subspace_angle_{place}_{other}"]
        assert value == pytest.approx(angle, abs=tolerance), (place, other)
    for place in ("embedding", "unembedding"):
        u, s, vt = np.linalg.svd(getattr(at.final, place), full_matrices=False)
        strength = np.einsum("ri,rd,id->i", u, getattr(at.here, place), vt)
        expected = np.full(p, np.nan)
        expected[: len(s)] = strength
        assert_twin(values[f"final_mode_strength_{place}"], expected)


# --- Likeness


def _scaled(X: np.ndarray) -> np.ndarray:
    around = X - X.mean(axis=0)
    return around / np.linalg.norm(around)


def _cka(X: np.ndarray, Y: np.ndarray) -> float:
    X, Y = X - X.mean(axis=0), Y - Y.mean(axis=0)
    norms = np.linalg.norm(X.T @ X) * np.linalg.norm(Y.T @ Y)
    return float(np.square(X.T @ Y).sum() / norms)


def _procrustes(X: np.ndarray, Y: np.ndarray) -> float:
    X, Y = _scaled(X), _scaled(Y)
    u, _, vt = np.linalg.svd(Y.T @ X)
    return float(np.linalg.norm(X - Y @ (u @ vt)))


def _barrier(
    here: Tables, there: Tables, pairs: np.ndarray, labels: np.ndarray
) -> tuple[float, float]:
    """Barrier of a split on the straight line, and the largest loss on it."""
    losses = []
    for share in np.linspace(0, 1, 11):
        between = Tables(*((1 - share) * x + share * y for x, y in zip(here, there, strict=True)))
        logits = between.neurons[pairs] @ between.U
        losses.append(cross_entropy(logits, labels[pairs]).mean())
    chord = np.linspace(losses[0], losses[-1], 11)
    return max(np.array(losses) - chord), max(np.abs(losses))


@pytest.mark.parametrize(("p", "operation", "weights"), SPREAD)
def test_likeness_is_its_formula(p: int, operation: Any, weights: Any) -> None:
    at = _checkpoints(p, operation, weights)
    values = read(LIKENESS, at.net.params, at.context)
    test = np.setdiff1d(np.arange(p * p), at.net.trained)
    for other, there in (("previous", at.previous), ("final", at.final)):
        X, Y = at.here.neurons, there.neurons
        assert_twin(values[f"cka_{other}"], _cka(X, Y), other)
        # A checkpoint is at distance 0 from itself.
        distance = _procrustes(X, Y)
        value = values[f"procrustes_{other}"]
        assert value == pytest.approx(distance, abs=1e-5 * max(distance, 0.1)), other
    for split, other, there, pairs, labels in (
        ("train", "final", at.final, at.net.trained, at.net.labels),
        ("train", "previous", at.previous, at.net.trained, at.net.labels),
        ("test", "final", at.final, test, at.net.answers),
    ):
        height, largest = _barrier(at.here, there, pairs, labels)
        # A barrier is a difference of losses, whose size is what rounds it.
        value = values[f"loss_barrier_{split}_{other}"]
        assert value == pytest.approx(height, abs=1e-6 * largest), (split, other)


@pytest.mark.parametrize("p", [6, 13])
@pytest.mark.parametrize("operation", ["add", "subtract"])
def test_a_barrier_between_opposite_networks_is_its_formula(p: int, operation: Any) -> None:
    at = _checkpoints(p, operation, "trained")
    # The neurons are even in the embeddings, so that both ends know the answers.
    opposite = {**at.net.params}
    for name in ("embed_a", "embed_b"):
        opposite[name] = jax.tree.map(lambda x: -1.5 * x, opposite[name])
    reference = at.context.reference._replace(final=opposite)
    context = dataclasses.replace(at.context, reference=reference)
    values = read(LIKENESS, at.net.params, context)
    pairs, there = at.net.trained, _tables(opposite, p)
    height, largest = _barrier(at.here, there, pairs, at.net.labels)
    assert height > 0.1
    value = values["loss_barrier_train_final"]
    assert value == pytest.approx(height, abs=1e-6 * largest)
    assert values["procrustes_final"] == pytest.approx(0, abs=1e-5)
