"""Heads read from their weights.

Checked against the closed form of a hand-made induction model, dense algebra, and other splits of
the same circuits.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fakes import context_of

from mi_jax.circuits import CIRCUITS, COMPOSITION
from mi_jax.circuits.factored import (
    Factored,
    between,
    eigenvalue_score,
    eigenvalues,
    norm,
    singular_values,
    through,
)
from mi_jax.circuits.heads import full_output_value, full_query_key
from mi_jax.contracts import Context, Heads, Model, Roles, Subject
from mi_jax.measuring.choosing import choose
from mi_jax.measuring.registry import EXPENSIVE, READINGS
from mi_jax.models import Transformer
from mi_jax.planted import induction
from mi_jax.tasks import ModularArithmetic
from mi_jax.training.losses import CrossEntropy

_TASK = ModularArithmetic(p=7, fraction=0.5)
_BARE = Model(
    init=lambda key: {},
    apply=lambda *args, **named: None,  # pyright: ignore[reportArgumentType]
    roles=Roles(
        embedding=(lambda params: params["W_E"],),
        unembedding=lambda params: params["W_U"],
        heads=lambda params: Heads(*(params[name] for name in Heads._fields)),
        attention=("first", "second"),
    ),
)
"""A model that has weights and no forward pass."""


def _read(name: str, params: Any, context: Context) -> dict[str, np.ndarray]:
    read = {**READINGS, **EXPENSIVE}[name].read(params, context)
    return {variable: np.asarray(values) for variable, values in read.items()}


def _random(
    layers: int = 2, heads: int = 3, d: int = 12, e: int = 4, tokens: int = 9, seed: int = 0
) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    shapes = {"W_E": (tokens, d), "W_U": (d, tokens), "W_O": (layers, heads, e, d)}
    shapes |= dict.fromkeys(("W_Q", "W_K", "W_V"), (layers, heads, d, e))
    return {
        name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()
    }


def _dense(params: Any) -> tuple[np.ndarray, np.ndarray]:
    """QK and OV [layer head d d] in float64."""
    W = {name: np.asarray(params[name], np.float64) for name in Heads._fields}
    return W["W_Q"] @ W["W_K"].swapaxes(-1, -2), W["W_V"] @ W["W_O"]


# --- Factors ----------------------------------------------------------------------------


def test_a_product_is_read_from_its_factors() -> None:
    rng = np.random.default_rng(0)
    A, B, C, D = (rng.normal(size=shape) for shape in ((2, 9, 3), (2, 3, 9), (2, 9, 4), (2, 4, 7)))
    one, other = (
        Factored(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32))
        for x, y in ((A, B), (C, D))
    )
    np.testing.assert_allclose(norm(one), np.linalg.norm(A @ B, axis=(1, 2)), rtol=1e-5)
    np.testing.assert_allclose(singular_values(one), np.linalg.svd(A @ B)[1][:, :3], rtol=1e-4)
    np.testing.assert_allclose(through(one, other).product(), A @ B @ C @ D, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(one.T.product(), (A @ B).swapaxes(1, 2), atol=1e-4)
    around = jnp.asarray(rng.normal(size=(2, 5, 9)), jnp.float32)
    expected = (
        np.asarray(around, np.float64) @ A @ B @ np.asarray(around, np.float64).swapaxes(1, 2)
    )
    np.testing.assert_allclose(
        between(around, one, around.swapaxes(1, 2)).product(), expected, rtol=1e-3, atol=1e-3
    )
    found, scores = np.asarray(eigenvalues(one)), np.asarray(eigenvalue_score(one))
    for mine, score, dense in zip(found, scores, A @ B, strict=True):
        values = np.linalg.eigvals(dense)
        largest = values[np.argsort(-np.abs(values))][:3]
        np.testing.assert_allclose(np.sort_complex(mine), np.sort_complex(largest), rtol=1e-3)
        np.testing.assert_allclose(score, largest.sum().real / np.abs(largest).sum(), rtol=1e-3)


# --- The hand-made induction model ------------------------------------------------------


def _induction(V: int = 16, beta: float = 30.0, g: float = 20.0) -> dict[str, jax.Array]:
    """Weights on one-hot tokens, positions and previous tokens.

    All reference numbers follow from counts of ones.
    """
    n, T = V + 1, 2 * V + 1
    d, e = 2 * n + T, T
    token, position, previous = (
        np.eye(d)[first : first + size] for first, size in ((0, n), (n, T), (n + T, n))
    )
    W = {name: np.zeros((2, 1, d, e)) for name in ("W_Q", "W_K", "W_V")}
    W["W_O"] = np.zeros((2, 1, e, d))
    # Layer 0: position i looks at i - 1 and copies its token into "previous".
    W["W_Q"][0, 0, :, 1:], W["W_K"][0, 0, :, 1:] = beta * position[1:].T, position[:-1].T
    W["W_V"][0, 0, :, :n], W["W_O"][0, 0, :n] = token.T, previous
    # Layer 1: a token looks for where it was the previous one, or rests at BOS (the last token),
    # and copies.
    W["W_Q"][1, 0, :, :V] = beta * token[:V].T
    W["W_K"][1, 0, :, :V] = (previous[:V] + 0.5 * token[V]).T
    W["W_V"][1, 0, :, :V], W["W_O"][1, 0, :V] = token[:V].T, g * token[:V]
    arrays = {**W, "W_E": token, "W_U": token[:V].T}
    return {name: jnp.asarray(array, jnp.float32) for name, array in arrays.items()}


def test_the_hand_made_induction_model_composes_in_closed_form() -> None:
    params, context = _induction(), context_of(_TASK, model=_BARE)
    values = _read("composition_score", params, context)
    score = values["composition_score"].copy()
    assert score.shape == (2, 2, 3)
    np.testing.assert_allclose(
        score[0, 1], [0, np.sqrt(16) / (np.sqrt(17) * np.sqrt(16 + 4)), 0], atol=1e-6
    )
    assert abs(score[0, 1, 1] - 0.21693) < 1e-5
    score[0, 1] = 0
    assert not score.any()
    np.testing.assert_allclose(
        values["composition_excess"][0, 1, 1], 0.21693 - 1 / np.sqrt(67), atol=1e-5
    )
    assert np.isnan(values["composition_excess"][1]).all()
    through_head = _read("matching_through_head", params, context)["matching_through_head"]
    assert through_head[0, 1] == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(
        _read("copying_score", params, context)["copying_score"][1, 0], 1, atol=1e-6
    )
    ranks, norms = _read("head_rank", params, context), _read("head_norms", params, context)
    np.testing.assert_allclose(ranks["ov_rank"].ravel(), [17, 16], rtol=1e-5)
    np.testing.assert_allclose(norms["ov_norm"].ravel(), [np.sqrt(17), 20 * np.sqrt(16)], rtol=1e-6)
    np.testing.assert_allclose(
        norms["qk_norm"].ravel(), [30 * np.sqrt(32), 30 * np.sqrt(20)], rtol=1e-6
    )


def test_copying_and_matching_have_their_sign() -> None:
    params, context = _induction(), context_of(_TASK, model=_BARE)
    against = {
        **params,
        "W_O": -params["W_O"],
        "W_K": params["W_K"].at[1, 0].set(-params["W_Q"][1, 0]),
    }
    assert _read("copying_score", against, context)["copying_score"][1, 0] == pytest.approx(
        -1, abs=1e-6
    )
    assert _read("matching_score", against, context)["matching_score"][1, 0] == pytest.approx(
        -1, abs=1e-6
    )


# --- Random heads -----------------------------------------------------------------------


@pytest.mark.slow
def test_composition_and_eigenvalue_scores_are_those_of_the_dense_products() -> None:
    params, context = _random(), context_of(_TASK, model=_BARE)
    qk, ov = _dense(params)
    E, U = (np.asarray(params[name], np.float64) for name in ("W_E", "W_U"))
    score = _read("composition_score", params, context)["composition_score"]
    through_head = _read("matching_through_head", params, context)["matching_through_head"]
    for i, j in np.ndindex(3, 3):
        L, reads = ov[0, i], (qk[1, j], qk[1, j].T, ov[1, j])
        expected = [np.linalg.norm(L @ R) / (np.linalg.norm(L) * np.linalg.norm(R)) for R in reads]
        np.testing.assert_allclose(score[i, 3 + j], expected, rtol=1e-4)
        values = np.linalg.eigvals(E @ qk[1, j] @ L.T @ E.T)
        np.testing.assert_allclose(
            through_head[i, 3 + j], values.sum().real / np.abs(values).sum(), atol=1e-4
        )
    for name, full, dense in (
        ("copying_score", full_output_value, E @ ov @ U),
        ("matching_score", full_query_key, E @ qk @ E.T),
    ):
        np.testing.assert_allclose(
            full(params, context).product(), dense, atol=1e-4 * np.abs(dense).max()
        )
        values = np.linalg.eigvals(dense)
        np.testing.assert_allclose(
            _read(name, params, context)[name],
            values.sum(-1).real / np.abs(values).sum(-1),
            atol=1e-4,
        )


@pytest.mark.parametrize("name", [*CIRCUITS, *COMPOSITION])
def test_another_split_of_the_same_circuits_changes_nothing(name: str) -> None:
    """The other split is W_V M, M^-1 W_O, and W_Q N, W_K N^-T."""
    params, context = _random(), context_of(_TASK, model=_BARE)
    rng = np.random.default_rng(1)
    M, N = (
        np.linalg.qr(rng.normal(size=(2, 3, 4, 4)))[0] * rng.uniform(0.5, 2, (2, 3, 1, 4))
        for _ in range(2)
    )
    changed = {
        "W_V": np.asarray(params["W_V"]) @ M,
        "W_O": np.linalg.inv(M) @ np.asarray(params["W_O"]),
        "W_Q": np.asarray(params["W_Q"]) @ N,
        "W_K": np.asarray(params["W_K"]) @ np.linalg.inv(N).swapaxes(-1, -2),
    }
    turned = {**params, **{key: jnp.asarray(value, jnp.float32) for key, value in changed.items()}}
    before, after = _read(name, params, context), _read(name, turned, context)
    for variable, values in before.items():
        assert np.isfinite(values).any()
        np.testing.assert_allclose(after[variable], values, rtol=1e-4, atol=1e-5)


def test_random_heads_have_a_composition_of_one_over_the_root_of_the_width() -> None:
    params, context = _random(heads=10, d=64, e=16), context_of(_TASK, model=_BARE)
    values = _read("composition_score", params, context)
    across = values["composition_score"][:10, 10:]
    assert across.mean() == pytest.approx(0.125, abs=0.002)
    assert across.std() == pytest.approx(0.0071, rel=0.3)
    assert abs(values["composition_excess"][:10, 10:].mean()) < 0.002


def test_aligned_heads_of_rank_one_have_composition_one() -> None:
    a = np.random.default_rng(0).normal(size=(6, 1))
    arrays = {"W_Q": a, "W_K": a, "W_V": a, "W_O": a.T}
    params = {
        name: jnp.asarray(np.broadcast_to(x, (2, 1, *x.shape)), jnp.float32)
        for name, x in arrays.items()
    }
    context = context_of(_TASK, model=_BARE)
    np.testing.assert_allclose(
        _read("composition_score", params, context)["composition_score"][0, 1], 1, rtol=1e-5
    )


# --- The transformer's ------------------------------------------------------------------


def test_a_transformers_heads_are_its_parameters_and_two_layers_are_needed_to_compose() -> None:
    deep = Transformer(layers=2, d_model=8, heads=2, d_mlp=0).build(_TASK.inputs)
    params = deep.init(jax.random.key(0))
    assert deep.roles.heads is not None
    assert deep.roles.unembedding is not None
    heads = deep.roles.heads(params)
    for layer in range(2):
        for name, stacked in heads._asdict().items():
            np.testing.assert_array_equal(
                stacked[layer], params["blocks"][str(layer)]["attn"][name]
            )
    np.testing.assert_array_equal(deep.roles.unembedding(params), params["unembed"]["W_U"][:, :7])
    names = {
        measure.name
        for measure in choose(["composition_score"], Subject(deep, _TASK, CrossEntropy()))[0]
    }
    assert names == {"composition_score"}
    flat = Transformer(d_model=8, heads=2, d_mlp=8).build(_TASK.inputs)
    with pytest.raises(Exception, match="heads_in_two_layers"):
        choose(["composition_score"], Subject(flat, _TASK, CrossEntropy()))


@pytest.mark.slow
def test_the_planted_induction_network_composes_by_its_keys() -> None:
    """The same network as a model that runs, read through its roles."""
    found = induction()
    context = context_of(found.task, model=found.model)
    score = _read("composition_score", found.params, context)["composition_score"]
    np.testing.assert_allclose(score[0, 1], [0, 0.21693, 0], atol=1e-5)
    assert _read("matching_through_head", found.params, context)["matching_through_head"][
        0, 1
    ] == pytest.approx(1, abs=1e-5)
    assert _read("copying_score", found.params, context)["copying_score"][1, 0] == pytest.approx(
        1, abs=1e-5
    )
