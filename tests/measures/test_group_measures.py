"""Readings by irrep: traces and projections in float64, networks built from irreps, and Fourier's
on cyclic groups.
"""

import dataclasses
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import few
from fakes import context_of, read, tables

from mi_jax.cli.main import main
from mi_jax.contracts import Context, Reference
from mi_jax.measures import MEASURES
from mi_jax.models import MLP, Transformer
from mi_jax.tasks import GroupComposition, characters, group, irrep_basis, irreps
from mi_jax.tasks.subgroups import cosets, subgroups

_GROUPS = ["A4", "Q8", "C6"]
"""Irreps of real, complex and quaternionic type."""


def _frozen(context: Context, final: Any) -> Context:
    """Context with the key irreps and frequencies frozen from the final parameters."""
    context = dataclasses.replace(context, reference=Reference(final=final))
    recipes = {**MEASURES["hidden_restricted_loss"].prepare, **MEASURES["restricted_loss"].prepare}
    needed_fact = {"final_key_irreps": "characters", "final_key_frequencies": "cyclic_answer"}
    prepared = {
        name: make(context.reference, context)
        for name, make in recipes.items()
        if needed_fact[name] in context.ground_truth
    }
    return dataclasses.replace(context, prepared=prepared)


@lru_cache
def _subject(name: str, form: Any = "xy") -> tuple[Any, Context]:
    """Small network without biases, with weights large enough for its irreps to differ."""
    task = GroupComposition(group=name, form=form, fraction=0.5)
    model = MLP(embedding="two", d_embed=6, width=10, activation="relu").build(task.inputs)
    params = jax.tree.map(lambda x: 2 * x, model.init(jax.random.key(1)))
    return params, _frozen(context_of(task, model=model), params)


def _cubes(name: str, answer: np.ndarray) -> np.ndarray:
    """chi(answer[x, y] z^-1) [irrep x y z], from traces of products of matrices."""
    rhos = [rho for _, rho in irreps(name)]
    return np.array([np.einsum("xyij,zij->xyz", rho[answer], rho) for rho in rhos])


def _logits(params: Any, context: Context) -> np.ndarray:
    """[x y z] in float64, from the weights."""
    E_a, E_b, W, U = (
        np.asarray(array, np.float64)
        for array in (
            params["embed_a"]["W_E"],
            params["embed_b"]["W_E"],
            params["layers"]["0"]["W"],
            params["unembed"]["W_U"],
        )
    )
    return _activations(E_a, E_b, W) @ U


def _activations(E_a: np.ndarray, E_b: np.ndarray, W: np.ndarray) -> np.ndarray:
    d = E_a.shape[1]
    return np.maximum((E_a @ W[:d])[:, None] + (E_b @ W[d:])[None], 0)


def _hidden(params: Any) -> np.ndarray:
    arrays = (params["embed_a"]["W_E"], params["embed_b"]["W_E"], params["layers"]["0"]["W"])
    return _activations(*(np.asarray(array, np.float64) for array in arrays))


def _spans(name: str, answer: np.ndarray | None = None) -> list[np.ndarray]:
    """Orthonormal bases of each irrep's matrix elements by SVD, over elements or, looked up at the
    answer, over pairs.
    """
    spans: list[np.ndarray] = []
    for _, rho in irreps(name):
        values = (rho if answer is None else rho[answer.ravel()]).reshape(-1, rho.shape[1] ** 2)
        u, s, _ = np.linalg.svd(values, full_matrices=False)
        spans.append(u[:, s > 1e-9 * s[0]])
    return spans


# --- The group's Fourier transform


@pytest.mark.parametrize("name", [*_GROUPS, "S5"])
def test_parseval_and_the_projectors_of_irreps(name: str) -> None:
    basis, irrep = irrep_basis(name)
    table = np.random.default_rng(0).normal(size=(len(basis), 3))
    parts = np.array(
        [basis[:, irrep == i] @ basis[:, irrep == i].T for i in range(irrep.max() + 1)]
    )
    np.testing.assert_allclose(parts @ parts, parts, atol=1e-12)
    np.testing.assert_allclose(parts.sum(axis=0), np.eye(len(basis)), atol=1e-12)
    powers = ((parts @ table) ** 2).sum(axis=(1, 2))
    np.testing.assert_allclose(powers.sum(), (table**2).sum(), rtol=1e-12)
    context = context_of(GroupComposition(group=name, fraction=0.5))
    power = read("group_fourier_power_embedding", tables(W_E=table), context)
    np.testing.assert_allclose(power[1:], powers[1:] / powers[1:].sum(), rtol=1e-4)
    assert power[0] == 0


@pytest.mark.parametrize("name", ["A5", "Q8"])
def test_power_is_that_of_the_transform_by_matrices(name: str) -> None:
    """d / c tr(f^T f), f = sum_g f(g) rho(g), which for c = 1 is the published formula."""
    f = np.random.default_rng(1).normal(size=(len(group(name).table), 2))
    powers = []
    for _, rho in irreps(name):
        commuting = round((rho.trace(axis1=1, axis2=2) ** 2).mean())
        transform = np.einsum("gu,gij->uij", f, rho)
        powers.append(rho.shape[1] / commuting * (transform**2).sum())
    expected = np.array(powers[1:]) / sum(powers[1:])
    for place in ("embedding", "unembedding"):
        params = tables(W_E=f) if place == "embedding" else tables(W_L=f.T)
        power = read(
            f"group_fourier_power_{place}",
            params,
            context_of(GroupComposition(group=name, fraction=0.5)),
        )
        np.testing.assert_allclose(power[1:], expected, rtol=1e-4)
        modes = np.array([Q.shape[1] for Q in _spans(name)])[1:]
        divergence = (expected * np.log2(expected / (modes / modes.sum()))).sum()
        value = read(
            f"irrep_divergence_{place}",
            params,
            context_of(GroupComposition(group=name, fraction=0.5)),
        )
        np.testing.assert_allclose(value, divergence, rtol=1e-3)


# --- Against brute force


@pytest.mark.parametrize(
    ("name", "form"), few([*((name, "xy") for name in _GROUPS), ("S3", "xyx^-1"), ("S3", "xyx")], 2)
)
def test_logit_similarity_is_the_cosine_with_the_trace_cube(name: str, form: Any) -> None:
    params, context = _subject(name, form)
    logits, cubes = (
        _logits(params, context),
        _cubes(name, np.asarray(context.ground_truth["answer"])),
    )
    around = logits - logits.mean(axis=2, keepdims=True)
    expected = (cubes * around).sum(axis=(1, 2, 3)) / np.sqrt(
        (cubes**2).sum(axis=(1, 2, 3)) * (around**2).sum()
    )
    np.testing.assert_allclose(
        read("logit_similarity", params, context), expected, rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        read("logits_explained", params, context), (expected[1:] ** 2).sum(), rtol=1e-4
    )
    np.testing.assert_array_equal(read("key_irreps", params, context), expected > 0.005)
    np.testing.assert_array_equal(read("key_irreps_final", params, context), expected > 0.005)


@pytest.mark.parametrize("name", _GROUPS)
def test_shares_of_the_weights_and_the_neurons_are_those_of_projections(name: str) -> None:
    params, context = _subject(name)
    spans, answer, H = _spans(name), np.asarray(context.ground_truth["answer"]), _hidden(params)
    E_a, E_b, W = (
        np.asarray(array, np.float64)
        for array in (
            params["embed_a"]["W_E"],
            params["embed_b"]["W_E"],
            params["layers"]["0"]["W"],
        )
    )
    d = E_a.shape[1]
    sides = {
        "irrep_fve_left": E_a @ W[:d],
        "irrep_fve_right": E_b @ W[d:],
        "irrep_fve_unembedding": np.asarray(params["unembed"]["W_U"]).T,
    }
    both = MEASURES["irrep_fve_embedding"].read(params, context) | MEASURES[
        "irrep_fve_unembedding"
    ].read(params, context)
    for variable, table in sides.items():
        expected = [((Q.T @ table) ** 2).sum() / (table**2).sum() for Q in spans]
        np.testing.assert_allclose(both[variable], expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(np.sum(both[variable]), 1, rtol=1e-5)
    n = len(H)
    around = (H - H.mean(axis=(0, 1))).reshape(n * n, -1)
    at = {"x": np.repeat(np.arange(n), n), "y": np.tile(np.arange(n), n), "xy": answer.ravel()}
    shares = MEASURES["irrep_fve_neurons"].read(params, context)
    for which, looked_up in at.items():
        expected = [
            ((Q.T @ around) ** 2).sum() / (around**2).sum() for Q in _spans(name, looked_up)
        ]
        np.testing.assert_allclose(
            shares[f"irrep_fve_neurons_{which}"], expected, rtol=1e-3, atol=1e-6
        )


def _cross_entropy(logits: np.ndarray, answer: np.ndarray) -> np.ndarray:
    top = logits.max(axis=1, keepdims=True)
    return (top + np.log(np.exp(logits - top).sum(axis=1, keepdims=True)))[:, 0] - logits[
        np.arange(len(answer)), answer
    ]


@pytest.mark.parametrize("name", few(["S3", "Q8"], 1))
def test_hidden_losses_are_those_of_projected_activations(name: str) -> None:
    params, context = _subject(name)
    answer, H, U = (
        np.asarray(context.ground_truth["answer"]).ravel(),
        _hidden(params),
        np.asarray(params["unembed"]["W_U"], np.float64),
    )
    H, keys = H.reshape(len(answer), -1), np.asarray(context.prepared["final_key_irreps"])
    assert 0 < keys.sum() < len(keys)
    Q = np.concatenate(
        [span for span, key in zip(_spans(name, answer), keys, strict=True) if key], axis=1
    )
    key_part = Q @ (Q.T @ H)
    table = np.asarray(context.ground_truth["table"]).ravel()
    # One split follows another, "test" first.
    trained = table >= context.batches["test"].targets.shape[0]
    np.testing.assert_allclose(
        read("hidden_restricted_loss", params, context),
        _cross_entropy(key_part @ U, answer).mean(),
        rtol=1e-4,
    )
    expected = _cross_entropy((H - key_part) @ U, answer)[trained].mean()
    np.testing.assert_allclose(read("hidden_excluded_loss", params, context), expected, rtol=1e-4)


@pytest.mark.slow
def test_hidden_losses_keep_the_logits_that_bypass_the_neurons() -> None:
    """In a transformer: the logits minus A W_L, biases included."""
    task = GroupComposition(group="S3", fraction=0.5)
    model = Transformer(d_model=8, heads=2, d_mlp=6).build(task.inputs)
    params = jax.tree.map(lambda x: 2 * x + 0.1, model.init(jax.random.key(0)))
    context = _frozen(context_of(task, model=model), params)
    silent = jax.tree.map(lambda x: x, params)
    silent["blocks"]["0"]["mlp"]["W_out"] = 0 * silent["blocks"]["0"]["mlp"]["W_out"]
    everything = dataclasses.replace(context, prepared={"final_key_irreps": jnp.ones(3, bool)})
    nothing = dataclasses.replace(context, prepared={"final_key_irreps": jnp.zeros(3, bool)})
    without = MEASURES["hidden_restricted_loss"].read(silent, nothing)["hidden_restricted_loss"]
    np.testing.assert_allclose(read("hidden_restricted_loss", params, nothing), without, rtol=1e-5)
    np.testing.assert_allclose(
        read("hidden_excluded_loss", params, nothing),
        read("train_loss", params, context),
        rtol=1e-5,
    )
    assert abs(read("hidden_restricted_loss", params, everything) - without) > 1e-3


def test_the_hidden_excluded_loss_is_of_the_labels_that_are_trained_on() -> None:
    """With nothing to exclude it is the training loss; the restricted loss is of right answers."""
    params, _ = _subject("S3")
    task = GroupComposition(group="S3", fraction=0.6, label_noise=0.5)
    model = MLP(embedding="two", d_embed=6, width=10, activation="relu").build(task.inputs)
    noisy = _frozen(context_of(task, model=model), params)
    nothing = dataclasses.replace(noisy, prepared={"final_key_irreps": jnp.zeros(3, bool)})
    loss = read("train_loss", params, nothing)
    np.testing.assert_allclose(read("hidden_excluded_loss", params, nothing), loss, rtol=1e-6)
    train = noisy.batches["train"]
    right = train._replace(targets=jnp.asarray(train.info["right_answer"])[:, None])
    clean = dataclasses.replace(noisy, batches={**noisy.batches, "train": right})
    excluded, restricted = (
        [float(read(name, params, context)) for context in (noisy, clean)]
        for name in ("hidden_excluded_loss", "hidden_restricted_loss")
    )
    assert excluded[0] != excluded[1]
    assert restricted[0] == restricted[1]


# --- Cyclic groups: Fourier


@pytest.mark.parametrize("name", few(["C7", "C6"], 1))
def test_on_cyclic_groups_power_is_fouriers(name: str) -> None:
    params, context = _subject(name)
    for place in ("embedding", "unembedding"):
        ours, fourier = (
            read(f"{kind}_{place}", params, context)
            for kind in ("group_fourier_power", "fourier_power")
        )
        np.testing.assert_allclose(ours[1:], fourier, rtol=0, atol=1e-6)


def test_on_cyclic_groups_similarities_and_losses_are_fouriers() -> None:
    params, context = _subject("C7")
    logits = _logits(params, context)
    around = logits - logits.mean(axis=2, keepdims=True)
    # Their coefficients are of waves of squared norm p^3 / 2.
    cosines = read("cos_coefficients", params, context) * np.sqrt(7**3 / 2) / np.linalg.norm(around)
    np.testing.assert_allclose(
        read("logit_similarity", params, context)[1:], cosines, rtol=0, atol=1e-6
    )
    keys = read("logit_similarity", params, context) > 0.005
    fourier = dataclasses.replace(
        context, prepared={**context.prepared, "final_key_frequencies": jnp.asarray(keys[1:])}
    )
    excluded = read("excluded_loss", params, fourier)
    np.testing.assert_allclose(read("hidden_excluded_loss", params, context), excluded, rtol=1e-6)
    # Restricted loss adds each class's mean, which is the trivial irrep's part.
    whole = dataclasses.replace(
        context, prepared={"final_key_irreps": jnp.asarray(keys).at[0].set(True)}
    )
    np.testing.assert_allclose(
        read("hidden_restricted_loss", params, whole),
        read("restricted_loss", params, fourier),
        rtol=1e-6,
    )


# --- Cosets


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("S3", 6),
        ("S4", 30),
        ("A4", 10),
        ("A5", 59),
        ("S5", 156),
        ("Q8", 6),
        ("D6", 16),
        ("C12", 6),
        ("C7", 2),
    ],
)
def test_all_subgroups_are_found(name: str, count: int) -> None:
    """Counts from OEIS (A005432 for S_n, A029725 for A_n, tau(n) + sigma(n) for D_n)."""
    proper, table = subgroups(name), group(name).table
    assert len(proper) == count - 2  # without the whole group and the trivial one
    for members in proper[:: max(1, len(proper) // 20)]:
        elements = np.flatnonzero(members)
        assert set(table[np.ix_(elements, elements)].ravel()) == set(elements)
    if len(proper):
        left, right = cosets(name)[-1]
        elements = np.flatnonzero(proper[-1])
        assert all(
            {*table[x, elements]} == {*np.flatnonzero(left == left[x])} for x in range(len(table))
        )
        assert all(
            {*table[elements, x]} == {*np.flatnonzero(right == right[x])} for x in range(len(table))
        )


@pytest.mark.slow
def test_the_concentration_is_by_loops_the_best_subgroups() -> None:
    params, context = _subject("D4")
    arrays = (params["embed_a"]["W_E"], params["embed_b"]["W_E"], params["layers"]["0"]["W"])
    E_a, E_b, W = (np.asarray(array, np.float64) for array in arrays)
    d, n = E_a.shape[1], len(E_a)
    best, orders = np.full((2, W.shape[1]), -np.inf), np.zeros(W.shape[1], int)
    for side, table in enumerate((E_a @ W[:d], E_b @ W[d:])):
        total, candidates = table.var(axis=0), []
        for members, both in zip(subgroups("D4"), cosets("D4"), strict=True):
            for labels in both:
                blocks = [np.flatnonzero(labels == label) for label in np.unique(labels)]
                within = sum(len(block) / n * table[block].var(axis=0) for block in blocks)
                expected = (len(blocks) - 1) / (n - 1)
                excess = (1 - within / total - expected) / (1 - expected)
                candidates.append((excess, members.sum()))
        best[side] = np.max([excess for excess, _ in candidates], axis=0)
        if side == 0:
            orders = np.max(
                [np.where(excess > best[0] - 1e-3, order, 0) for excess, order in candidates],
                axis=0,
            )
    values = MEASURES["coset_concentration"].read(params, context)
    np.testing.assert_allclose(values["coset_concentration"], best.mean(axis=0), rtol=1e-4)
    np.testing.assert_array_equal(values["coset_order"], orders)


# --- A network on S5 built by hand, read as foreign weights

_STANDARD, _SIGN = 3.0, 4.0


def _hand_built() -> dict[str, np.ndarray]:
    """logits = 3 (fixed points of x y z^-1) + 4 sign(x y z^-1): 125 neurons P_x[i, j] P_y[j, k],
    two for s_x s_y, a constant.

    For entries of permutation matrices p q = relu(p + q - 1); for signs s t = relu(s + t) + relu(-s
    - t) - 1.
    """
    elements, n = np.array(group("S5").elements), 120
    P = np.zeros((n, 5, 5))
    P[np.arange(n)[:, None], np.arange(5)[None], elements] = 1
    signs = dict(characters("S5"))["1+1+1+1+1"]
    E = np.zeros((n, 256))
    E[:, :25], E[:, 25], E[:, 26] = P.reshape(n, 25), signs, 1
    W, U = np.zeros((512, 128)), np.zeros((128, n))
    for neuron, (i, j, k) in enumerate(np.ndindex(5, 5, 5)):
        W[5 * i + j, neuron], W[256 + 5 * j + k, neuron], W[26, neuron] = 1, 1, -1
        U[neuron] = _STANDARD * P[:, i, k]
    W[25, 125], W[256 + 25, 125], W[25, 126], W[256 + 25, 126], W[26, 127] = 1, 1, -1, -1, 1
    U[125], U[126], U[127] = _SIGN * signs, _SIGN * signs, -_SIGN * signs
    arrays = {"embed_a.W_E": E, "embed_b.W_E": E, "layers.0.W": W, "unembed.W_U": U}
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def test_foreign_weights_of_s5_are_read_like_chughtais(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The fixed points of a permutation are 1 + the character of 4+1, so every number is known."""
    np.savez(tmp_path / "W.npz", **_hand_built())  # pyright: ignore[reportArgumentType]
    like = str(Path(__file__).parents[2] / "experiments" / "chughtai_2023.py")
    names = (
        "logit_similarity,logits_explained,key_irreps,hidden_restricted_loss,"
        "hidden_excluded_loss,coset_concentration,test_loss"
    )
    command = [
        "measure",
        str(tmp_path / "W.npz"),
        "--like",
        like,
        "--task.group",
        "S5",
        "--measures",
        names,
        "--json",
    ]
    assert main([*command, "--no-compile-cache"]) == 0
    printed = json.loads(capsys.readouterr().out)
    expected = dict.fromkeys(dict(characters("S5")), 0.0) | {"4+1": 0.6, "1+1+1+1+1": 0.8}
    assert list(printed["logit_similarity"]) == list(expected)
    np.testing.assert_allclose(
        list(printed["logit_similarity"].values()), list(expected.values()), atol=1e-6
    )
    assert printed["logits_explained"] == pytest.approx(1, abs=1e-5)
    assert printed["key_irreps"] == ["4+1", "1+1+1+1+1"]
    # What is left of the neurons is a constant, so that every answer is as likely; what is kept
    # gives the logits but for one.
    assert printed["hidden_excluded_loss"] == pytest.approx(np.log(120), rel=1e-5)
    values = (
        _STANDARD * (dict(characters("S5"))["5"] + dict(characters("S5"))["4+1"])
        + _SIGN * dict(characters("S5"))["1+1+1+1+1"]
    )
    loss = np.log(np.exp(values).sum()) - values[0]
    assert printed["hidden_restricted_loss"] == pytest.approx(loss, rel=1e-3)
    assert printed["test_loss"] == pytest.approx(loss, rel=1e-3)
    np.testing.assert_allclose(printed["coset_concentration"][:127], 1, atol=1e-5)
    assert printed["coset_order"] == [24] * 125 + [60, 60, printed["coset_order"][127]]
