"""Twins of the measures by irrep, from the matrices of the irreps."""

import dataclasses
from functools import lru_cache
from itertools import combinations
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from attending import Attending, noisy, plain_model
from fakes import context_of
from networks import RELATIVE, Weights, assert_twin, cross_entropy, fit, read

from mi_jax.contracts import Context, Reference
from mi_jax.measures.groups import FINAL_KEY_IRREPS
from mi_jax.models import MLP, Transformer
from mi_jax.tasks import GroupComposition, group, irreps

NAMES = (
    "logit_similarity",
    "logits_explained",
    "key_irreps",
    "key_irreps_final",
    "irrep_fve_embedding",
    "irrep_fve_unembedding",
    "irrep_fve_neurons",
    "group_fourier_power_embedding",
    "group_fourier_power_unembedding",
    "group_fourier_power_neuron_inputs",
    "irrep_divergence_embedding",
    "irrep_divergence_unembedding",
    "irrep_divergence_neuron_inputs",
    "hidden_restricted_loss",
    "hidden_excluded_loss",
)
BY_HEAD = (
    "group_fourier_power_queries",
    "group_fourier_power_keys",
    "group_fourier_power_values",
    "group_fourier_power_readout",
    "irrep_divergence_queries",
    "irrep_divergence_keys",
    "irrep_divergence_values",
    "irrep_divergence_readout",
    "irrep_fve_embedding",
)
GROUPS = [
    ("C2", "xy"),
    ("C3", "xy"),
    ("C4", "xyx"),
    ("S3", "xy"),
    ("C6", "xy"),
    ("Q8", "xyx^-1"),
    ("A4", "xy"),
    ("D6", "xyx"),
    ("C13", "xy"),
]
"""Groups with irreps of real, complex and quaternionic type, and the forms of composition."""

CASES = [
    pytest.param(name, form, weights, marks=() if name in ("C4", "S3", "Q8") else pytest.mark.long)
    for name, form in GROUPS
    for weights in ("random", "trained")
]
"""The groups with their weights. Programs compile slowly, so that three are read always."""


class Composing(NamedTuple):
    """A network ReLU(E_a[x] + E_b[y] + b) U + c on a group, in float64.

    Attributes:
        task: composition in the group, with label noise.
        params: the float32 parameters that are read.
        context: context with the final model's key irreps.
        final: the final model's parameters.
    """

    task: GroupComposition
    params: Any
    context: Context
    final: Any

    @property
    def n(self) -> int:
        return self.task.elements

    @property
    def answers(self) -> np.ndarray:
        """Right answer of every pair, in the order n x + y."""
        _, table, inverse = group(self.task.group)
        x, y = np.divmod(np.arange(self.n**2), self.n)
        last = {"xy": 0, "xyx": x, "xyx^-1": inverse[x]}[self.task.form]
        return table[table[x, y], last]

    def tables(self, params: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """E_a, E_b, U and the activations of all pairs."""
        w = jax.tree.map(lambda array: np.asarray(array, np.float64), params)
        E_a, E_b, U = w["embed_a"]["W_E"][: self.n], w["embed_b"]["W_E"][: self.n], w["unembed"]
        pre = E_a[:, None] + E_b[None] + w["embed"]["b"]
        return E_a, E_b, U["W_U"], np.maximum(pre, 0).reshape(self.n**2, -1)

    def logits(self, params: Any) -> np.ndarray:
        """Logits of all pairs, [pair class]."""
        _, _, U, H = self.tables(params)
        return H @ U + np.asarray(params["unembed"]["b_U"], np.float64)


@lru_cache
def _network(name: str, form: Any, weights: Weights) -> Composing:
    task = GroupComposition(group=name, form=form, fraction=0.6, label_noise=0.3)
    model = MLP(width=9, bias=True, activation="relu").build(task.inputs)
    context = context_of(task, model=model)
    initial = noisy(model, task.elements)
    final = fit(initial, context, 0.1)
    context = dataclasses.replace(context, reference=Reference(final=final))
    prepared = {key: make(context.reference, context) for key, make in FINAL_KEY_IRREPS.items()}
    context = dataclasses.replace(context, prepared=prepared)
    return Composing(task, final if weights == "trained" else initial, context, final)


def _spans(functions: list[np.ndarray]) -> list[np.ndarray]:
    """Orthonormal columns that span the matrix elements of each irrep, [row column]."""
    spans = []
    for rho in functions:
        u, s, _ = np.linalg.svd(rho.reshape(len(rho), -1), full_matrices=False)
        spans.append(u[:, s > 1e-9 * s[0]])
    return spans


def _similarities(net: Composing, params: Any) -> np.ndarray:
    """Cosine of the centred logits with every character of answer z^-1."""
    logits = net.logits(params)
    around = logits - logits.mean(axis=1, keepdims=True)
    cosines = []
    for _, rho in irreps(net.task.group):
        # rho is orthogonal, so that rho(z^-1) is the transpose of rho(z).
        cube = np.einsum("aij,zij->az", rho[net.answers], rho)
        cosines.append((around * cube).sum() / np.linalg.norm(around) / np.linalg.norm(cube))
    return np.array(cosines)


def _powers(name: str, table: np.ndarray) -> np.ndarray:
    """(d / c) tr(f^T f) / |G|^2 of every irrep, f = sum_g f(g) rho(g), over a table's columns."""
    powers = []
    for _, rho in irreps(name):
        commuting = round(np.square(rho.trace(axis1=1, axis2=2)).mean())
        f = np.einsum("gu,gij->uij", table, rho)
        powers.append(rho.shape[1] / commuting * np.square(f).sum() / len(rho) ** 2)
    return np.array(powers)


def _divergence(name: str, table: np.ndarray) -> float:
    power = _powers(name, table)[1:]
    p = power / power.sum()
    counts = np.array([s.shape[1] for s in _spans([rho for _, rho in irreps(name)])[1:]])
    q = counts / (len(table) - 1)
    return sum(p[i] * np.log2(p[i] / q[i]) for i in range(len(p)) if p[i] > 0)


def _assert_tables(values: dict[str, np.ndarray], name: str, tables: dict[str, np.ndarray]) -> None:
    """Compare the power of tables by irrep, and its divergence, with their formulas."""
    for place, table in tables.items():
        power = _powers(name, table)
        power[0] = 0
        read_power = values[f"group_fourier_power_{place}"]
        assert_twin(read_power, power / power.sum(), place)
        # A divergence is a sum of numbers of size 1, which may cancel.
        divergence = values[f"irrep_divergence_{place}"]
        assert divergence == pytest.approx(_divergence(name, table), abs=1e-6)


@pytest.mark.parametrize(("name", "form", "weights"), CASES)
def test_readings_by_irrep_are_their_formulas(name: str, form: str, weights: Any) -> None:
    net = _network(name, form, weights)
    values = read(NAMES, net.params, net.context)
    E_a, E_b, U, H = net.tables(net.params)
    n, rhos = net.n, [rho for _, rho in irreps(name)]
    similarity, at_end = (_similarities(net, params) for params in (net.params, net.final))
    # The cosines are sums of numbers of size 1, which may cancel.
    np.testing.assert_allclose(values["logit_similarity"], similarity, rtol=0, atol=1e-6)
    assert values["logits_explained"] == pytest.approx(np.square(similarity).sum(), abs=1e-6)
    for reading, cosines in (("key_irreps", similarity), ("key_irreps_final", at_end)):
        assert (abs(cosines - 0.005) > 1e-6).all()
        assert values[reading].tolist() == (cosines > 0.005).tolist()
    tables = {
        "embedding": np.concatenate([E_a, E_b], axis=1),
        "neuron_inputs": np.concatenate([E_a, E_b], axis=1),
        "unembedding": U.T,
    }
    _assert_tables(values, name, tables)
    spans = _spans(rhos)
    for reading, table in (("left", E_a), ("right", E_b), ("unembedding", U.T)):
        share = [np.square(Q.T @ table).sum() / np.square(table).sum() for Q in spans]
        assert_twin(values[f"irrep_fve_{reading}"], share, reading)
    around = H - H.mean(axis=0)
    x, y = np.divmod(np.arange(n * n), n)
    for reading, element in (("x", x), ("y", y), ("xy", net.answers)):
        over_pairs = _spans([rho[element] for rho in rhos])
        share = [np.square(Q.T @ around).sum() / np.square(around).sum() for Q in over_pairs]
        np.testing.assert_allclose(
            values[f"irrep_fve_neurons_{reading}"], share, rtol=0, atol=RELATIVE * max(share)
        )
    of_answer = _spans([rho[net.answers] for rho in rhos])
    kept = np.zeros_like(H)
    for Q in (Q for Q, is_key in zip(of_answer, at_end > 0.005, strict=True) if is_key):
        kept += Q @ (Q.T @ H)
    logits, trained = net.logits(net.params), net.task.order()[: net.task.trained]
    labels, noise = net.answers.copy(), net.task.noise()
    labels[trained[noise.corrupted]] = noise.labels[noise.corrupted]
    restricted = cross_entropy(logits - (H - kept) @ U, net.answers).mean()
    excluded = cross_entropy(logits - kept @ U, labels)[trained].mean()
    assert_twin(values["hidden_restricted_loss"], restricted)
    assert_twin(values["hidden_excluded_loss"], excluded)


def _subgroups(name: str) -> list[np.ndarray]:
    """Proper subgroups of more than one element, as sorted arrays of elements."""
    table = group(name).table
    n, found = len(table), set()
    for size in (1, 2, 3):
        for generators in combinations(range(n), size):
            members = {0, *generators}
            while True:
                products = {int(table[x, y]) for x in members for y in members}
                if products <= members:
                    break
                members |= products
            if 1 < len(members) < n:
                found.add(tuple(sorted(members)))
    return [np.array(members) for members in found]


def _concentrations(name: str, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Concentration of every column for every subgroup and side, and the subgroup's order."""
    product, n = group(name).table, len(table)
    values, orders = [], []
    for members in _subgroups(name):
        for side in ("left", "right"):
            coset = {
                x: frozenset(
                    (product[x, members] if side == "left" else product[members, x]).tolist()
                )
                for x in range(n)
            }
            within = np.zeros(table.shape[1])
            for each in set(coset.values()):
                rows = table[sorted(each)]
                within += np.square(rows - rows.mean(axis=0)).sum(axis=0)
            s = 1 - within / np.square(table - table.mean(axis=0)).sum(axis=0)
            e = (n / len(members) - 1) / (n - 1)
            values.append((s - e) / (1 - e))
            orders.append(len(members))
    return np.array(values), np.array(orders)


@pytest.mark.parametrize(
    ("name", "form", "weights"),
    [case for case in CASES if case.values[0] not in ("C2", "C3", "C13")],
)
def test_coset_concentration_is_its_formula(name: str, form: str, weights: Any) -> None:
    net = _network(name, form, weights)
    values = read(("coset_concentration",), net.params, net.context)
    E_a, E_b, _, _ = net.tables(net.params)
    (left, orders), (right, _) = (_concentrations(name, table) for table in (E_a, E_b))
    concentration = (left.max(axis=0) + right.max(axis=0)) / 2
    assert_twin(values["coset_concentration"], concentration)
    behind = left.max(axis=0) - left
    assert (abs(behind - 1e-3) > 1e-6).all()
    best = np.where(behind < 1e-3, orders[:, None], 0).max(axis=0)
    assert values["coset_order"].tolist() == best.tolist()


def test_the_largest_of_equally_good_subgroups_counts() -> None:
    net = _network("Q8", "xyx^-1", "random")
    rng, product = np.random.default_rng(0), group("Q8").table
    by_order = {len(members): members for members in _subgroups("Q8")}
    columns = []
    for members in (by_order[2], by_order[4]):
        coset = [min(product[x, members]) for x in range(8)]
        columns.append(rng.normal(size=8)[coset])
    # The second column is a function of both subgroups' cosets; a tenth of the first breaks it.
    table = np.stack([columns[0], columns[1], columns[1] + 0.1 * columns[0]], axis=1)
    width = net.params["embed_a"]["W_E"].shape[1]
    embedding = np.array(net.params["embed_a"]["W_E"])
    embedding[:8] = np.tile(table, width // 3)
    params = {**net.params, "embed_a": {"W_E": embedding}}
    values = read(("coset_concentration",), params, net.context)
    left, orders = _concentrations("Q8", net.tables(params)[0])
    best = np.where(left.max(axis=0) - left < 1e-3, orders[:, None], 0).max(axis=0)
    assert best[:3].tolist() == [2, 4, 2]
    assert values["coset_order"].tolist() == best.tolist()


@lru_cache
def _attending(name: str, weights: Weights) -> Attending:
    """A transformer of two layers on a group."""
    task = GroupComposition(group=name, fraction=0.6)
    settings = Transformer(layers=2, d_model=6, heads=2, d_mlp=5, mlp_bias=False)
    model = plain_model(settings, task)
    context, params = context_of(task, model=model), noisy(model, task.elements)
    if weights == "trained":
        params = fit(params, context, 0.02)
    return Attending(task, settings, params, context)


@pytest.mark.parametrize(
    "name", ["S3", *(pytest.param(name, marks=pytest.mark.long) for name in ("C2", "C3", "Q8"))]
)
@pytest.mark.parametrize("weights", ["random", "trained"])
def test_irreps_of_queries_keys_values_and_readout_are_their_formulas(
    name: str, weights: Any
) -> None:
    net = _attending(name, weights)
    values, n = net.read(*BY_HEAD), net.task.elements
    E = net.w["embed.W_E"][:n]
    tables = {"readout": net.w["unembed.W_U"][:, :n].T}
    for place, matrix in (("queries", "W_Q"), ("keys", "W_K"), ("values", "W_V")):
        tables[place] = np.concatenate(
            [E @ W for layer in net.heads(matrix) for W in layer], axis=1
        )
    _assert_tables(values, name, tables)
    spans = _spans([rho for _, rho in irreps(name)])
    share = [np.square(Q.T @ E).sum() / np.square(E).sum() for Q in spans]
    # Attention stands between the tokens and the neurons, so that both sides are the embedding.
    assert_twin(values["irrep_fve_left"], share)
    assert_twin(values["irrep_fve_right"], share)


@pytest.mark.parametrize("name", ["C4", "S3", "Q8", "A4"])
def test_the_matrices_of_the_twins_are_all_irreps(name: str) -> None:
    _, table, _ = group(name)
    total = 0
    for _, rho in irreps(name):
        np.testing.assert_allclose(rho[table], np.einsum("xij,yjk->xyik", rho, rho), atol=1e-12)
        commuting = np.square(rho.trace(axis1=1, axis2=2)).mean()
        assert commuting == pytest.approx(round(commuting))
        total += rho.shape[1] ** 2 / round(commuting)
    assert total == len(table)
