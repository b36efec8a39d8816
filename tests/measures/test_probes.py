"""Probes and their effects.

Checked against scikit-learn and brute force, a planted network, random networks, and bad options.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import few
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from unchecked import unchecked

from mi_jax import planted as planted_networks
from mi_jax.basics.errors import ConfigError, MeasureError
from mi_jax.basics.pytrees import stacked
from mi_jax.contracts import Context, Inputs, Model, Reference, Site, Subject
from mi_jax.measures import probe_accuracy, probe_effect, probe_mdl, probe_selectivity
from mi_jax.measures.activations import all_inputs, row_functions, site_vectors
from mi_jax.measures.erasure import (
    class_means,
    displace,
    displacement,
    probed_subspace,
    random_subspaces,
    whiten,
    whitening,
)
from mi_jax.measures.linear_probes import (
    angle_scores,
    log_softmax,
    logistic_fit,
    one_hot_rows,
    ridge_fit,
    right_share,
    row_ranges,
)
from mi_jax.measuring.program import Reader, make_context
from mi_jax.measuring.stored import measure_weights
from mi_jax.models import MLP, Transformer
from mi_jax.models.taps import Tapped, capture
from mi_jax.tasks import ModularArithmetic, RepeatedSequences
from mi_jax.training.losses import CrossEntropy

_CLASSES = (4, 3)


@pytest.fixture(scope="module")
def cloud() -> tuple[np.ndarray, list[np.ndarray]]:
    """Centred vectors with very different spreads that partly encode two concepts."""
    rng = np.random.default_rng(0)
    values = [rng.integers(n, size=90) for n in _CLASSES]
    X = rng.normal(size=(90, 6)) * np.array([3, 1, 1, 0.3, 2, 1])
    X[:, 0] += 2 * values[0]
    X[:, 3] += 0.4 * values[1]
    return X - X.mean(axis=0), values


def _float32(x: np.ndarray) -> jax.Array:
    return jnp.asarray(x, jnp.float32)


def _rows(values: list[np.ndarray]) -> jax.Array:
    return one_hot_rows([jnp.asarray(x) for x in values], _CLASSES)


@pytest.mark.parametrize("ridge", [1e-3, 0.1])
def test_ridge_matches_scikit_learn(cloud: Any, ridge: float) -> None:
    X, values = cloud
    W, b = ridge_fit(_float32(X), _rows(values), ridge)
    for (start, end), y in zip(row_ranges(_CLASSES), values, strict=True):
        theirs = Ridge(alpha=len(X) * ridge * (X**2).mean()).fit(X, np.eye(end - start)[y])
        np.testing.assert_allclose(W[start:end], theirs.coef_, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(b[start:end], theirs.intercept_, rtol=1e-5)


@pytest.mark.parametrize("ridge", [3e-3, 0.1])
def test_logistic_regression_matches_scikit_learn(cloud: Any, ridge: float) -> None:
    X, values = cloud
    rows = row_ranges(_CLASSES)
    W, b = logistic_fit(_float32(X), _rows(values), rows, ridge)
    ours = np.exp(log_softmax(W @ _float32(X).T + b[:, None], rows))
    for (start, end), y in zip(rows, values, strict=True):
        theirs = LogisticRegression(
            C=1 / (len(X) * ridge * (X**2).mean()), tol=1e-8, max_iter=2000
        ).fit(X, y)
        np.testing.assert_allclose(ours[start:end].T, theirs.predict_proba(X), atol=2e-4)


def test_classes_with_equal_scores_share_being_right() -> None:
    scores = _float32(np.array([[1, 2, 2, 0], [3, 2, 2, 0], [0, 1, 2, 0.0]]))
    np.testing.assert_allclose(
        right_share(scores, jnp.array([1, 0, 2, 1])), [1, 1 / 2, 1 / 3, 1 / 3], rtol=1e-6
    )
    np.testing.assert_allclose(
        right_share(scores, jnp.array([0, 2, 2, 1])), [0, 0, 1 / 3, 1 / 3], rtol=1e-6
    )


@pytest.mark.parametrize(("classes", "turn"), few([(11, 4), (11, 1), (12, 5), (2, 1)], 1))
def test_angles_are_ridge_onto_cosine_and_sine(classes: int, turn: int) -> None:
    """Also for classes without training examples, which a circular probe still scores."""
    rng = np.random.default_rng(classes)
    y = rng.integers(classes, size=300)

    def angle(k: Any, c: Any) -> Any:
        phase = 2 * np.pi * k * c / classes
        return np.stack([np.cos(phase), np.sin(phase)], axis=-1)

    X = angle(turn, y) @ rng.normal(size=(2, 5)) + 0.03 * rng.normal(size=(300, 5))
    seen = y < max(2, classes - 3)
    order = np.concatenate([np.flatnonzero(seen), np.flatnonzero(~seen)])
    X, y, n = X[order] - X[seen].mean(axis=0), y[order], int(seen.sum())
    Y = one_hot_rows([jnp.asarray(y[:n])], (classes,))
    W, b = ridge_fit(_float32(X[:n]), Y, 1e-3)
    scores = angle_scores(W @ _float32(X).T + b[:, None], Y)
    theirs = Ridge(alpha=n * 1e-3 * (X[:n] ** 2).mean()).fit(X[:n], angle(turn, y[:n])).predict(X)
    np.testing.assert_allclose(
        scores, angle(turn, np.arange(classes)) @ theirs.T, rtol=1e-3, atol=1e-4
    )
    assert float(right_share(scores, jnp.asarray(y)).mean()) > 0.97


# --- The subspace -----------------------------------------------------------------------


def test_no_linear_probe_decodes_an_erased_concept(cloud: Any) -> None:
    """All class means are equal afterwards: vectors and classes have no covariance (LEACE)."""
    X, values = _float32(cloud[0] + 1), cloud[1]
    Y = one_hot_rows([jnp.asarray(values[0])], (4,))
    by = whitening(X, 1e-4)
    Z = whiten(X, by)
    Q = probed_subspace(Z, Y, 3)
    np.testing.assert_allclose(Q.T @ Q, np.eye(3), atol=1e-4)
    after = displace(X, displacement("erase", Z, Q), Q, by)
    means = np.asarray(class_means(after, Y))
    np.testing.assert_allclose(means, np.broadcast_to(means[:1], means.shape), atol=2e-4)
    assert np.ptp(np.asarray(class_means(X, Y)), axis=0).max() > 1


def test_the_subspace_leads_with_the_largest_canonical_correlation(cloud: Any) -> None:
    X, values = cloud
    Y = one_hot_rows([jnp.asarray(values[0])], (4,))
    Z = whiten(_float32(X), whitening(_float32(X), 1e-6))
    weighted = (
        np.asarray(class_means(Z, Y), np.float64) * np.sqrt(np.asarray(Y.mean(axis=1)))[:, None]
    )
    _, sizes, V = np.linalg.svd(weighted)
    Q = np.asarray(probed_subspace(Z, Y, 2))
    np.testing.assert_allclose(np.abs(Q.T @ V[:2].T), np.eye(2), atol=2e-3)
    assert sizes[0] == pytest.approx(np.sqrt(((Q[:, 0] @ weighted.T) ** 2).sum()), rel=1e-4)


def test_columns_beyond_the_rank_of_the_class_means_are_zero(cloud: Any) -> None:
    X = _float32(cloud[0])
    two = one_hot_rows([jnp.asarray((cloud[1][1] > 0).astype(int))], (2,))
    Q = np.asarray(probed_subspace(whiten(X, whitening(X, 1e-3)), two, 2))
    np.testing.assert_allclose(np.linalg.norm(Q, axis=0), [1, 0], atol=1e-4)


def test_random_subspaces_are_orthonormal_lie_where_the_vectors_do_and_are_reproducible() -> None:
    plane = np.linalg.qr(np.random.default_rng(1).normal(size=(9, 4)))[0]
    Z = _float32(np.random.default_rng(2).normal(size=(50, 4)) @ plane.T)
    frames = np.asarray(random_subspaces(Z, 2, 3, 0))
    np.testing.assert_allclose(
        np.einsum("ndr,nds->nrs", frames, frames), np.broadcast_to(np.eye(2), (3, 2, 2)), atol=1e-5
    )
    assert (np.linalg.norm(plane.T @ frames, axis=1) > 0.999).all()
    np.testing.assert_array_equal(frames, random_subspaces(Z, 2, 3, 0))
    assert np.abs(frames[0] @ frames[0].T - frames[1] @ frames[1].T).max() > 0.1


# --- A network that holds both tokens and answers with the first alone ------------------

_P, _D, _SHARP = 7, 18, 5.0
_SITES = (
    Site("stream", "W_a[a] + W_b[b]", ("batch", "position", "d")),
    Site("logits", "stream W_U", ("batch", "position", "class")),
)


def _planted(inputs: Inputs) -> Model:
    def apply(params: Any, tokens: Any, *, taps: Any = None, positions: Any = None) -> jax.Array:
        tapped = Tapped(taps, _SITES)
        stream = tapped.at(
            "stream", (params["W_a"][tokens[:, 0]] + params["W_b"][tokens[:, 1]])[:, None]
        )
        return tapped.at("logits", stream @ params["W_U"])

    return Model(lambda key: _weights(0), apply, sites=_SITES)


def _weights(seed: int) -> dict[str, jax.Array]:
    """A stream with both tokens at right angles, and outputs that read the first token only."""
    frame = np.linalg.qr(np.random.default_rng(seed).normal(size=(_D, _D)))[0]
    a, b = frame[:_P], frame[_P : 2 * _P]
    return {name: _float32(x) for name, x in (("W_a", a), ("W_b", b), ("W_U", _SHARP * a.T))}


_TASK = ModularArithmetic(p=_P, fraction=0.5)
_SUBJECT = Subject(_planted(_TASK.inputs), _TASK, CrossEntropy())
_ASKED = {"sites": ("stream",), "concepts": ("a", "b", "a_parity", "b_parity", "product")}
_ABOUT = {"experiment": {}, "hash": ""}


_ACCURACY = probe_accuracy(**_ASKED)
_EFFECTS = {
    how: probe_effect(how, rank=6, examples=40, **_ASKED) for how in ("erase", "steer", "swap")
}


@pytest.fixture(scope="module")
def planted() -> Any:
    read = measure_weights(_weights(0), _SUBJECT, [_ACCURACY, *_EFFECTS.values()], _ABOUT)
    return read.isel(seed=0, step=0).sel(site="stream")


@pytest.mark.slow
def test_the_unused_token_is_decodable_without_effect_and_the_used_one_has_both(
    planted: Any,
) -> None:
    accuracy = planted[_ACCURACY.name]
    assert (accuracy.sel(concept=["a", "b", "a_parity", "b_parity"]) > 0.99).all()
    assert float(accuracy.sel(concept="product")) < 0.6
    for how, effect in _EFFECTS.items():
        value, null = planted[effect.name], planted[f"{effect.name}_null"].max("draw")
        assert float(value.sel(concept="a")) > float(null.sel(concept="a")), how
        for unused in ("b", "b_parity"):
            assert float(value.sel(concept=unused)) <= float(null.sel(concept=unused)), how
            assert float(value.sel(concept=unused)) < 1e-3, how


def test_effects_of_the_used_token_by_hand(planted: Any) -> None:
    """The probability of the token is e^s / (e^s + 6).

    After erasing all outputs are equal; after swapping or steering the next token is answered.
    """
    large = np.exp(_SHARP) / (np.exp(_SHARP) + _P - 1)
    assert float(planted[_EFFECTS["erase"].name].sel(concept="a")) == pytest.approx(
        large - 1 / _P, abs=1e-3
    )
    evaluation = _TASK.evaluation(_TASK.data(0), jax.random.key(0))
    a = evaluation.inputs[np.random.default_rng(2).permutation(_P * _P)[:40], 0]
    moved_away = (a != np.roll(a, -1)).mean() * (large - (1 - large) / (_P - 1))
    assert float(planted[_EFFECTS["swap"].name].sel(concept="a")) == pytest.approx(
        moved_away, abs=1e-3
    )
    assert float(planted[_EFFECTS["steer"].name].sel(concept="a")) == pytest.approx(
        moved_away, abs=1e-3
    )


@pytest.mark.slow
def test_a_rotated_stream_has_the_same_accuracies_and_effects(planted: Any) -> None:
    turn = _float32(np.linalg.qr(np.random.default_rng(5).normal(size=(_D, _D)))[0])
    W = _weights(0)
    turned = {"W_a": W["W_a"] @ turn, "W_b": W["W_b"] @ turn, "W_U": turn.T @ W["W_U"]}
    measures = [_ACCURACY, _EFFECTS["erase"]]
    read = (
        measure_weights(turned, _SUBJECT, measures, _ABOUT).isel(seed=0, step=0).sel(site="stream")
    )
    # The class means of labels that the stream does not know have no well-defined leading
    # directions.
    known = ["a", "b", "a_parity", "b_parity"]
    for one in measures:
        np.testing.assert_allclose(
            read[one.name].sel(concept=known), planted[one.name].sel(concept=known), atol=2e-3
        )


def test_the_planted_unused_concept_is_decodable_within_its_null_and_the_used_one_has_both() -> (
    None
):
    net = planted_networks.unused_concept()
    few = {
        "sites": (net.truth["site"],),
        "concepts": (net.truth["used"]["concept"], net.truth["unused"]["concept"]),
    }
    accuracy, effect = probe_accuracy(**few), probe_effect(**few)
    read = measure_weights(
        net.params, Subject(net.model, net.task, CrossEntropy()), [accuracy, effect], _ABOUT
    )
    used, unused = (
        read.squeeze(drop=True).sel(concept=net.truth[name]["concept"])
        for name in ("used", "unused")
    )
    for one in (used, unused):
        assert float(one[accuracy.name]) > 0.99
    assert float(used[effect.name]) > float(used[f"{effect.name}_null"].max())
    assert float(unused[effect.name]) <= float(unused[f"{effect.name}_null"].max())


@pytest.mark.slow
def test_rows_are_examples_at_every_position_that_is_read() -> None:
    task = RepeatedSequences.smallest()
    model = Transformer(layers=2, d_model=8, heads=2, d_mlp=0).build(task.inputs)
    params = model.init(jax.random.key(0))
    sites = ("blocks.0.attn.z", "blocks.1.attn.attn_scores", "blocks.1.resid_post")
    context = make_context(Subject(model, task, CrossEntropy()), 0, Reference(), [])
    inputs = all_inputs(context)
    _, seen = capture(model.apply, sites)(params, inputs)
    found = site_vectors(params, context, sites, task.read)
    for name in sites:
        value = np.asarray(seen[name])
        value = value.swapaxes(1, 2) if name.endswith("scores") else value
        rows = value[:, list(task.read)].reshape(len(inputs) * len(task.read), -1)
        np.testing.assert_allclose(found[name], np.where(np.isneginf(rows), 0, rows), atol=1e-5)
        take, put = row_functions(context, name, task.read)
        np.testing.assert_array_equal(put(seen[name], take(seen[name])), seen[name])
        assert not np.asarray(take(put(seen[name], 0 * take(seen[name])))).any()


# --- Through the runner -----------------------------------------------------------------

_DEMO = ModularArithmetic(p=11, fraction=0.4)
_NETWORK = Transformer(d_model=8, heads=2, d_mlp=12).build(_DEMO.inputs)


def _context(measures: list[Any], model: Model = _NETWORK) -> Context:
    return make_context(Subject(model, _DEMO, CrossEntropy()), 0, Reference(), measures)


@pytest.mark.slow
def test_a_probe_of_a_network_matches_scikit_learn_on_the_same_halves() -> None:
    site = "blocks.0.mlp.post"
    one = probe_accuracy(sites=(site, "blocks.0.resid_pre"), concepts=("a", "answer", "carry"))
    params, context = _NETWORK.init(jax.random.key(0)), _context([one])
    ours = {name: np.asarray(value) for name, value in one.read(params, context).items()}
    trained, tested = (
        np.asarray(context.prepared[f"probe_{half}"]) for half in ("trained", "tested")
    )
    assert sorted([*trained, *tested]) == list(range(121))
    for inputs, names in (
        (all_inputs(context), ("", "_train")),
        (context.prepared["probe_control"], ("_control",)),
    ):
        X = np.asarray(capture(_NETWORK.apply, [site])(params, inputs)[1][site])[:, -1].astype(
            np.float64
        )
        alpha = len(trained) * 1e-3 * ((X[trained] - X[trained].mean(axis=0)) ** 2).mean()
        for column, concept in enumerate(("a", "answer", "carry")):
            y = np.asarray(context.labels[concept].values)
            theirs = RidgeClassifier(alpha=alpha).fit(X[trained], y[trained])
            for name in names:
                half = trained if name == "_train" else tested
                assert ours[one.name + name][0, column] == pytest.approx(
                    theirs.score(X[half], y[half]), abs=1e-5
                ), (name, concept)
    # Before attention every example has the same vector, so that a probe is right as often as the
    # largest class, or an equal share of the largest ones, occurs.
    assert (ours[one.name][1] < [0.2, 0.2, 0.7]).all()


def test_readings_are_labelled_and_weights_that_are_not_finite_read_nan() -> None:
    few = {
        "sites": ("blocks.0.attn_out", "blocks.0.attn.attn_scores"),
        "concepts": ("b", "trained"),
    }
    measures = [
        probe_accuracy(**few),
        probe_selectivity(**few),
        probe_effect(draws=2, examples=20, **few),
    ]
    params = _NETWORK.init(jax.random.key(0))
    nowhere = jax.tree.map(lambda x: np.full_like(x, np.nan), params)
    read = Reader(measures).read(
        stacked([jax.tree.map(np.asarray, params), nowhere]), None, _context(measures)
    )
    for name, values in read.items():
        assert values.shape[1:3] == (2, 2), name
        assert np.isfinite(values[0]).all(), name
        assert np.isnan(values[1]).all(), name
    accuracy, selectivity = measures[0].name, measures[1].name
    np.testing.assert_allclose(
        read[selectivity][0], read[accuracy][0] - read[f"{accuracy}_control"][0], atol=1e-6
    )


def test_probes_of_all_positions_and_of_one_each_have_their_own_halves() -> None:
    """Rows are examples times positions, so the halves differ, also when both are read together."""
    task = RepeatedSequences.smallest()
    model = Transformer(d_model=8, heads=2, d_mlp=0).build(task.inputs)
    params, subject = model.init(jax.random.key(0)), Subject(model, task, CrossEntropy())
    measures = [
        probe_accuracy(sites="blocks.0.resid_post", position=at) for at in (None, task.read[-1])
    ]
    together = make_context(subject, 0, Reference(), measures)
    for one in measures:
        alone = one.read(params, make_context(subject, 0, Reference(), [one]))
        for name, values in one.read(params, together).items():
            np.testing.assert_array_equal(values, alone[name])


def test_random_networks_have_no_selectivity() -> None:
    """Mean selectivity over untrained networks is within 3 standard errors of 0."""
    one = probe_selectivity(sites=("hidden.0.post",))
    model = MLP(width=24, embedding="shared", d_embed=6).build(_DEMO.inputs)
    params = [jax.tree.map(np.asarray, model.init(jax.random.key(seed))) for seed in range(48)]
    values = Reader([one]).read(stacked(params), None, _context([one], model))[one.name][:, 0]
    error = values.std(axis=0, ddof=1) / np.sqrt(len(params))
    assert (np.abs(values.mean(axis=0)) <= 3 * error + 1e-3).all(), np.stack(
        [values.mean(axis=0), error]
    )
    assert (error < 0.03).all()


# --- Refused options --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"concepts": ("anser",)}, "'anser'; did you mean answer"),
        ({"sites": ("blocks.0.mlp.pots",)}, "'blocks.0.mlp.pots'.* did you mean blocks.0.mlp.post"),
        ({"position": 3}, "positions 0 to 2"),
        ({"position": -1}, "positions 0 to 2"),
        ({"sites": ("pos_embed",)}, "no site 'pos_embed' to probe"),
    ],
)
@pytest.mark.parametrize("make", [probe_accuracy, probe_selectivity, probe_mdl, probe_effect])
def test_an_error_names_what_the_model_or_task_lacks(
    make: Any, options: dict[str, Any], says: str
) -> None:
    """Also beside another probe, which has everything it asks for."""
    one, params = make(**options), _NETWORK.init(jax.random.key(0))
    with pytest.raises(MeasureError, match=says):
        one.read(params, _context([one, probe_accuracy()]))


@pytest.mark.parametrize("make", [probe_accuracy, probe_selectivity])
def test_a_concept_that_cannot_be_held_out_is_named(make: Any) -> None:
    with pytest.raises(MeasureError, match="no labels of a concept 'residue'"):
        _context([make(held_out="residue")])


@pytest.mark.parametrize(
    ("make", "options", "says"),
    [
        (probe_accuracy, {"kind": "rigde"}, "did you mean ridge"),
        (probe_accuracy, {"ridge": 0.0}, "positive"),
        (probe_accuracy, {"sites": ()}, "sites is empty"),
        (probe_mdl, {"kind": "circular"}, "gives no probabilities"),
        (probe_mdl, {"held_out": "a"}, "random order"),
        (probe_effect, {"how": "swop"}, "did you mean swap"),
        (probe_effect, {"rank": 0}, "at least 1"),
        (probe_effect, {"kind": "logistic"}, "leave kind"),
    ],
)
def test_invalid_options_are_refused(make: Any, options: dict[str, Any], says: str) -> None:
    with unchecked(), pytest.raises(ConfigError, match=says):
        make(**options)


def test_options_are_part_of_the_name() -> None:
    names = [
        probe_accuracy().name,
        probe_accuracy(kind="logistic", ridge=0.1).name,
        probe_accuracy(held_out="a", position=1).name,
        probe_accuracy(sites=("blocks.0.mlp.post",), concepts=("a", "b")).name,
        probe_effect("swap", rank=2).name,
        probe_mdl(kind="logistic").name,
    ]
    assert names == [
        "probe_accuracy",
        "probe_accuracy_logistic_ridge_0.1",
        "probe_accuracy_held_out_a_at_1",
        "probe_accuracy_blocks.0.mlp.post_a+b",
        "probe_effect_swap_rank_2",
        "probe_mdl_logistic",
    ]


@pytest.mark.slow
def test_only_a_circular_probe_reads_held_out_residues() -> None:
    """The stream holds cosine and sine of the first token.

    A circular probe scores residues that it never saw; one-hot classes cannot.
    """
    angle = 2 * np.pi * np.arange(11)[:, None] / 11 * np.array([3.0])
    table = np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    params = {
        "W_a": _float32(table),
        "W_b": _float32(0 * table),
        "W_U": _float32(np.zeros((2, 11))),
    }
    few = {"sites": ("stream",), "concepts": ("a", "b"), "held_out": "a"}
    measures = [probe_accuracy(**few), probe_accuracy(kind="circular", **few)]
    context = _context(measures, _planted(_DEMO.inputs))
    ridge, circle = (np.asarray(one.read(params, context)[one.name])[0] for one in measures)
    assert np.isnan(ridge[0])
    assert circle[0] == 1.0
    assert circle[1] < 0.3
    values = np.asarray(context.labels["a"].values)
    halves = [
        set(values[np.asarray(context.prepared[f"probe_{half}_a"])].tolist())
        for half in ("trained", "tested")
    ]
    assert not halves[0] & halves[1]
    assert halves[0] | halves[1] == set(range(11))
