"""Tests of planted networks.

They behave as the mathematics of their weights says, and measures find what was planted.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fakes import context_of
from unchecked import unchecked

from mi_jax import planted
from mi_jax.basics.errors import ConfigError, MeasureError
from mi_jax.basics.pytrees import dotted
from mi_jax.contracts import Batch
from mi_jax.measures import MEASURES
from mi_jax.models import capture
from mi_jax.planted import Planted
from mi_jax.training.losses import CrossEntropy

_SCORES = (
    "previous_token_score",
    "previous_token_attention",
    "induction_score",
    "prefix_matching_score",
    "duplicate_token_score",
    "in_context",
    "head_ablation_loss",
)


def _reader(net: Planted) -> Callable[[Any], dict[str, np.ndarray]]:
    """A compiled function from parameters to every measure of heads, by name."""
    context = context_of(net.task, model=net.model)
    program = jax.jit(
        lambda params: {
            k: v for name in _SCORES for k, v in MEASURES[name].read(params, context).items()
        }
    )
    return lambda params: {name: np.asarray(value) for name, value in program(params).items()}


def _read(net: Planted) -> dict[str, np.ndarray]:
    return _reader(net)(net.params)


def _batch(net: Planted) -> Batch:
    return net.task.evaluation(net.task.data(0), jax.random.key(0)).batches["test"]


def _loss(net: Planted, taps: Mapping[str, Callable[..., Any]] | None = None) -> float:
    """The mean loss of the predictable answers."""
    batch = _batch(net)
    each = CrossEntropy()(
        net.model.apply(net.params, batch.inputs, taps=taps, positions=net.task.read), batch.targets
    )
    return float((each * batch.weights).sum() / np.asarray(batch.weights).sum())


@pytest.fixture(scope="module")
def induction() -> Planted:
    """V = L = 16, as in the literature's numbers."""
    return planted.induction()


@pytest.fixture(scope="module")
def read(induction: Planted) -> dict[str, np.ndarray]:
    """Readings of the induction network."""
    return _read(induction)


# --- Gromov's solution


def _pairs(p: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.divmod(np.arange(p * p), p)
    return np.stack([a, b], axis=1), (a + b) % p


def _accuracy_and_error(net: Planted, p: int) -> tuple[float, float]:
    inputs, answers = _pairs(p)
    out = np.asarray(net.model.apply(net.params, jnp.asarray(inputs)))[:, 0]
    return float((out.argmax(axis=1) == answers).mean()), float(
        ((out - np.eye(p)[answers]) ** 2).mean()
    )


def test_gromovs_solution_is_right_everywhere_and_the_wrong_sign_is_chance() -> None:
    for N, error in ((200, 0.020), (500, 0.0085), (1000, 0.0041)):
        accuracy, squared_error = _accuracy_and_error(planted.gromov(97, N), 97)
        assert accuracy == 1.0
        assert squared_error == pytest.approx(error, rel=0.1)
    wrong = planted.gromov(97, 500, sign=-1)
    assert wrong.truth["accuracy"] == 1 / 97
    assert _accuracy_and_error(wrong, 97)[0] == pytest.approx(1 / 97, abs=0.004)


def test_gromovs_error_is_four_over_the_width() -> None:
    # Every frequency is equally frequent, so the mean is exact: var = 4 / N,
    # bias^2 = (1 - 1/p) / (p - 1)^2.
    p, widths = 31, (60, 240, 960)
    errors = [
        np.mean([_accuracy_and_error(planted.gromov(p, N, seed=seed), p)[1] for seed in range(4)])
        for N in widths
    ]
    np.testing.assert_allclose(errors, [4 / N + 1 / (p * (p - 1)) for N in widths], rtol=0.06)
    truths = [planted.gromov(p, N).truth["mean_squared_error"] for N in widths]
    np.testing.assert_allclose(truths, [4 / N + 1 / (p * (p - 1)) for N in widths])


def test_gromovs_neurons_are_waves_of_their_frequencies() -> None:
    net = planted.gromov(23, 33, seed=3)
    flat = dotted(net.params)
    for name, phases in (("embed_a.W_E", "phases_a"), ("embed_b.W_E", "phases_b")):
        transform = np.fft.fft(np.asarray(flat[name], np.float64), axis=0)
        for neuron, (k, phase) in enumerate(
            zip(net.truth["frequencies"], net.truth[phases], strict=True)
        ):
            power = np.abs(transform[:12, neuron])
            assert power[k] == pytest.approx(net.truth["amplitude"] * 23 / 2, rel=1e-5)
            assert np.delete(power, k).max() < 1e-4
            assert np.exp(1j * (np.angle(transform[k, neuron]) - phase)) == pytest.approx(
                1, abs=1e-4
            )


# --- Induction


def test_the_hand_made_induction_model_has_the_known_scores(
    induction: Planted, read: dict[str, np.ndarray]
) -> None:
    assert read["previous_token_score"][0, 0] == pytest.approx(1.0, abs=1e-6)
    assert read["induction_score"][1, 0] == pytest.approx(0.9999997, abs=1e-7)
    assert read["repeated_loss"] == pytest.approx(3.4e-8, abs=0.05e-8)
    assert read["first_half_loss"] == pytest.approx(2.868, abs=5e-4)
    assert read["in_context_score"] == pytest.approx(-2.8746, abs=5e-5)
    np.testing.assert_allclose(read["head_ablation_loss"], [[2.8746], [2.8746]], atol=5e-5)


def test_the_truth_of_induction_is_what_is_measured(
    induction: Planted, read: dict[str, np.ndarray]
) -> None:
    scores = induction.truth["scores"]
    assert read["previous_token_score"][0, 0] == pytest.approx(
        scores["previous_token_score"], abs=1e-6
    )
    assert 1 - read["induction_score"][1, 0] == pytest.approx(
        1 - scores["induction_score"], abs=1e-7
    )
    for name in ("repeated_loss", "first_half_loss", "in_context_score"):
        assert read[name] == pytest.approx(scores[name], rel=2e-5), name
    np.testing.assert_array_equal(read["induction_score"], read["prefix_matching_score"])
    assert read["duplicate_token_score"].max() < 1e-9


def test_the_weights_of_induction_compose_as_known(induction: Planted) -> None:
    w = {name: np.asarray(value, np.float64) for name, value in dotted(induction.params).items()}
    OV = [w[f"blocks.{i}.attn.W_V"][0] @ w[f"blocks.{i}.attn.W_O"][0] for i in (0, 1)]
    QK = [w[f"blocks.{i}.attn.W_Q"][0] @ w[f"blocks.{i}.attn.W_K"][0].T for i in (0, 1)]

    def composition(L: np.ndarray, R: np.ndarray) -> float:
        return float(np.linalg.norm(L @ R) / np.linalg.norm(L) / np.linalg.norm(R))

    copied = np.linalg.eigvals(w["embed.W_E"] @ OV[1] @ w["unembed.W_U"] @ np.eye(16, 17))
    assert copied.sum() / np.abs(copied).sum() == pytest.approx(1.0)
    assert np.sort(np.abs(copied))[-16:] == pytest.approx(20)
    through = np.linalg.eigvals(w["embed.W_E"] @ QK[1] @ OV[0].T @ w["embed.W_E"].T)
    assert through.sum() / np.abs(through).sum() == pytest.approx(1.0)
    singular = np.linalg.svd(OV[1], compute_uv=False)
    assert singular.sum() ** 2 / (singular**2).sum() == pytest.approx(16)
    scores = induction.truth["scores"]
    assert composition(OV[0], QK[1].T) == pytest.approx(0.21693, abs=5e-6)
    assert composition(OV[0], QK[1].T) == pytest.approx(scores["key_composition"])
    assert composition(OV[0], QK[1]) == scores["query_composition"] == 0
    assert composition(OV[0], OV[1]) == scores["value_composition"] == 0
    assert (
        len(induction.truth["columns"]["token"]) + len(induction.truth["columns"]["position"]) == 50
    )
    assert w["embed.W_E"].shape == (17, 67)


@pytest.mark.slow
def test_only_the_edges_of_the_circuit_matter(induction: Planted) -> None:
    batch, V = _batch(induction), 16
    tokens = np.asarray(batch.inputs)
    other = tokens[::-1]
    _, seen = capture(induction.model.apply, ["blocks.0.attn.result"])(
        induction.params, jnp.asarray(other)
    )
    elsewhere = seen["blocks.0.attn.result"]
    _, seen = capture(induction.model.apply, ["blocks.0.attn.result"])(
        induction.params, batch.inputs
    )
    swap = elsewhere - seen["blocks.0.attn.result"]
    clean = _loss(induction)
    for slot in "qv":
        assert (
            _loss(induction, {f"blocks.1.attn.{slot}_input": lambda x: x + swap[:, : x.shape[1]]})
            == clean
        )
    # With the keys of the other sequence, each token attends to where it is the predecessor in that
    # sequence, and reads the values of this one.
    expected = []
    for sequence, others in zip(tokens, other, strict=True):
        for i in range(V + 1, 2 * V):
            sources = [j for j in range(1, i + 1) if others[j - 1] == sequence[i]]
            logits = np.eye(V)[sequence[i]] + 20 * np.mean(
                [np.eye(V)[sequence[j]] for j in sources], axis=0
            )
            expected.append(np.log(np.exp(logits).sum()) - logits[sequence[i + 1]])
    assert _loss(induction, {"blocks.1.attn.k_input": lambda x: x + swap}) == pytest.approx(
        np.mean(expected), rel=1e-4
    )
    assert np.mean(expected) > 15


@pytest.mark.slow
def test_weaker_heads_are_as_weak_as_the_formula_says() -> None:
    net = planted.induction(5, 4, beta=3.0, gain=2.0)
    read = _read(net)
    for layer, name in ((0, "previous_token_score"), (1, "induction_score")):
        if layer == 0:
            assert read[name][0, 0] == pytest.approx(net.truth["scores"][name], rel=1e-5)
    i = np.arange(1, 8)
    np.testing.assert_allclose(
        read["previous_token_attention"][0, 0, 1:8], math.exp(3) / (math.exp(3) + i), rtol=1e-5
    )
    assert np.isnan(read["previous_token_attention"][:, :, [0, 8]]).all()
    np.testing.assert_allclose(
        read["previous_token_attention"][0, 0, 1:8].mean(),
        read["previous_token_score"][0, 0],
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    ("symbols", "length", "beta", "gain"),
    [
        (16, None, 30.0, 20.0),
        (16, None, 12.0, 20.0),
        (16, None, 8.0, 20.0),
        (16, None, 5.0, 20.0),
        (7, 5, 3.0, 2.0),
        (4, 4, 0.5, 1.0),
        (2, 2, 30.0, 20.0),
    ],
)
def test_the_truth_of_induction_holds_for_every_strength_of_its_heads(
    symbols: int, length: int | None, beta: float, gain: float
) -> None:
    net = planted.induction(symbols, length, beta=beta, gain=gain)
    read, scores = _read(net), net.truth["scores"]
    for name, head in (("previous_token_score", (0, 0)), ("induction_score", (1, 0))):
        assert read[name][head] == pytest.approx(scores[name], rel=2e-5, abs=1e-6), name
    for name in ("repeated_loss", "first_half_loss", "in_context_score"):
        assert read[name] == pytest.approx(scores[name], rel=1e-4, abs=1e-12), name


@pytest.mark.parametrize("beta", [2.0, 6.0, 12.0])
def test_the_losses_of_a_weak_backup_head_and_of_an_unused_concept_are_stated_exactly(
    beta: float,
) -> None:
    net = planted.backup_head(6, 5, beta=beta, gain=6.0)
    main, backup = net.truth["heads"]["main"][0], net.truth["heads"]["backup"][0]
    zeroed = {"none": (), "main": (main,), "backup": (backup,), "both": (main, backup)}
    for name, layers in zeroed.items():
        expected = net.truth["loss"][name]
        assert _loss(net, _zeroed(*layers)) == pytest.approx(expected, rel=1e-4), name
    net = planted.unused_concept(6, 5, beta=beta, gain=6.0)
    assert _loss(net) == pytest.approx(net.truth["loss"], rel=1e-4)
    for name in ("used", "unused"):
        columns = jnp.array(net.truth[name]["columns"])
        taps = {net.truth["site"]: lambda x, columns=columns: x.at[..., columns].set(0.0)}
        assert _loss(net, taps) == pytest.approx(net.truth[name]["loss"], rel=1e-4), name


def _by_hand(V: int, L: int, beta: float, gain: float) -> dict[str, float]:
    """Scores of the induction network, attention by attention, on one sequence."""
    tokens = [V, *range(L), *range(L)]
    previous = np.zeros((2 * L + 1, V + 1))
    for i in range(2 * L + 1):
        target = max(i - 1, 0)
        weights = np.array([math.exp(beta * (j == target)) for j in range(i + 1)])
        for j, weight in enumerate(weights / weights.sum()):
            previous[i, tokens[j]] += weight
    losses, matched = [], []
    for i in range(2 * L):
        token = tokens[i]
        scores = [beta / 2 * (j == 0) + beta * previous[j, token] for j in range(i + 1)]
        if token == V:
            scores = [0.0 for _ in range(i + 1)]
        weights = np.exp(scores) / np.exp(scores).sum()
        logits = np.eye(V + 1)[token][:V].copy()
        for j, weight in enumerate(weights):
            logits += gain * weight * np.eye(V + 1)[tokens[j]][:V]
        losses.append(float(np.log(np.exp(logits).sum()) - logits[tokens[i + 1]]))
        if i > L:
            matched.append(float(weights[i - L + 1]))
    repeated, first = float(np.mean(losses[L + 1 :])), float(np.mean(losses[:L]))
    return {
        "induction_score": float(np.mean(matched)),
        "repeated_loss": repeated,
        "first_half_loss": first,
    }


@pytest.mark.parametrize(("V", "L", "beta", "gain"), [(16, 16, 5.0, 20.0), (7, 5, 3.0, 2.0)])
def test_the_stated_scores_are_those_of_attention_worked_out_by_hand(
    V: int, L: int, beta: float, gain: float
) -> None:
    scores = planted.induction(V, L, beta=beta, gain=gain).truth["scores"]
    for name, value in _by_hand(V, L, beta, gain).items():
        assert scores[name] == pytest.approx(value, rel=1e-9), name


# --- A backup head


def _zeroed(*layers: int) -> dict[str, Callable[..., Any]]:
    return {f"blocks.{layer}.attn.z": lambda z: 0 * z for layer in layers}


@pytest.mark.slow
def test_a_backup_head_takes_over_from_a_zeroed_main_head_and_not_from_a_patched_one() -> None:
    net = planted.backup_head(8)
    loss = net.truth["loss"]
    main, backup = net.truth["heads"]["main"][0], net.truth["heads"]["backup"][0]
    for name, layers in {
        "none": (),
        "main": (main,),
        "backup": (backup,),
        "both": (main, backup),
    }.items():
        assert _loss(net, _zeroed(*layers)) == pytest.approx(loss[name], rel=2e-5), name
    assert loss["both"] > 1e7 * loss["none"]
    tokens = jnp.asarray(_batch(net).inputs)
    site = f"blocks.{main}.attn.z"
    _, elsewhere = capture(net.model.apply, [site])(net.params, tokens[::-1])
    patched = _loss(net, {site: lambda z: elsewhere[site]})
    assert (patched < 1) == net.truth["patch_is_backed_up"]
    _, silent = capture(net.model.apply, [f"blocks.{backup}.attn.result"])(net.params, tokens)
    _, speaking = capture(net.model.apply, [f"blocks.{backup}.attn.result"])(
        net.params, tokens, taps=_zeroed(main)
    )
    answers = np.array(net.truth["columns"]["answer"])
    predictable = slice(9, 16)
    assert np.abs(silent[f"blocks.{backup}.attn.result"][:, predictable, 0, answers]).max() < 1e-4
    np.testing.assert_allclose(
        speaking[f"blocks.{backup}.attn.result"][:, predictable, 0, answers].sum(axis=-1),
        20,
        rtol=1e-4,
    )


# --- A concept that nothing reads


@pytest.fixture(scope="module")
def unused() -> Planted:
    """V = L = 8."""
    return planted.unused_concept()


@pytest.mark.parametrize("name", ["used", "unused"])
def test_both_concepts_stand_in_the_stream_exactly(unused: Planted, name: str) -> None:
    truth = unused.truth[name]
    evaluation = unused.task.evaluation(unused.task.data(0), jax.random.key(0))
    site = unused.truth["site"]
    _, seen = capture(unused.model.apply, [site])(unused.params, evaluation.batches["test"].inputs)
    stream = np.asarray(seen[site])[:, list(unused.task.read)][..., truth["columns"]]
    concept = np.asarray(evaluation.ground_truth[truth["concept"]])
    np.testing.assert_allclose(stream, np.eye(9)[concept], atol=1e-5)


def test_only_the_used_concept_has_an_effect(unused: Planted) -> None:
    site = unused.truth["site"]
    batch = _batch(unused)
    out = np.asarray(unused.model.apply(unused.params, batch.inputs))

    def erased(columns: list[int], value: float) -> dict[str, Callable[..., Any]]:
        return {site: lambda x: x.at[..., jnp.array(columns)].set(value)}

    for value in (0.0, 7.5, -100.0):
        changed = unused.model.apply(
            unused.params, batch.inputs, taps=erased(unused.truth["unused"]["columns"], value)
        )
        np.testing.assert_array_equal(changed, out)
    for name in ("used", "unused"):
        truth = unused.truth[name]
        assert _loss(unused, erased(truth["columns"], 0.0)) == pytest.approx(
            truth["loss"], rel=2e-5
        ), name
    assert (
        unused.truth["used"]["loss"]
        > 1e7 * unused.truth["unused"]["loss"]
        == 1e7 * unused.truth["loss"]
    )


def test_a_planted_network_is_measured_like_a_run(unused: Planted) -> None:
    read = unused.measure(["test_loss"])
    assert read["test_loss"].sizes == {"seed": 1, "step": 1}
    assert read["test_loss"].item() == pytest.approx(unused.truth["loss"], rel=1e-4)
    with pytest.raises(MeasureError, match="embedding"):
        unused.measure(["key_mode_share_unembedding"])


# --- What every planted network has


@pytest.mark.parametrize(
    "make", [planted.induction, planted.backup_head, planted.unused_concept, planted.gromov]
)
def test_parameters_are_the_models_own_and_the_truth_is_json(make: Callable[..., Planted]) -> None:
    net = make(7)
    wanted = jax.eval_shape(net.model.init, jax.random.key(0))
    assert jax.tree.map(lambda x: x.shape, net.params) == jax.tree.map(lambda x: x.shape, wanted)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(net.params))
    assert _plain(net.truth)


def _plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _plain(item) for key, item in value.items())
    return (
        all(map(_plain, value))
        if isinstance(value, list)
        else isinstance(value, (bool, int, float, str))
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: planted.gromov(8), "p=8: must be an odd"),
        (lambda: planted.gromov(7, 0), "width=0: must be a whole number"),
        (
            lambda: planted.gromov(7, 5, sign=0),
            "sign=0: must be 1",
        ),  # pyright: ignore[reportArgumentType]
        (lambda: planted.induction(1), "symbols=1"),
        (lambda: planted.induction(4, 5), "length=5.*at most symbols=4"),
        (lambda: planted.backup_head(4, 1), "length=1"),
    ],
)
def test_invalid_settings_are_refused(make: Callable[[], Any], message: str) -> None:
    with unchecked(), pytest.raises(ConfigError, match=message):
        make()


# --- Measures of heads against sums written out


@pytest.fixture(scope="module")
def read_unused(unused: Planted) -> Callable[[Any], dict[str, np.ndarray]]:
    """A function from parameters of the induction network to every measure of heads."""
    return _reader(unused)


@pytest.mark.slow
def test_scores_of_random_patterns_are_the_sums_written_out(
    unused: Planted, read_unused: Callable[[Any], dict[str, np.ndarray]]
) -> None:
    noise = [
        jax.random.normal(jax.random.key(i), x.shape)
        for i, x in enumerate(jax.tree.leaves(unused.params))
    ]
    net = unused._replace(params=jax.tree.unflatten(jax.tree.structure(unused.params), noise))
    read = read_unused(net.params)
    tokens, sites = (
        np.asarray(_batch(net).inputs),
        ["blocks.0.attn.pattern", "blocks.1.attn.pattern"],
    )
    _, seen = capture(net.model.apply, sites)(net.params, jnp.asarray(tokens))
    patterns = np.stack([seen[site] for site in sites]).astype(np.float64)
    queries = range(1, 16)
    expected = {
        "previous_token_score": [
            [np.mean([A[:, i, i - 1] for i in queries]) for A in layer]
            for layer in _heads(patterns)
        ],
        "induction_score": _means(patterns, tokens, 1),
        "prefix_matching_score": _means(patterns, tokens, 1),
        "duplicate_token_score": _means(patterns, tokens, 0),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(read[name], value, rtol=1e-5, err_msg=name)
    for layer, head in ((0, 1), (1, 0)):
        taps = {f"blocks.{layer}.attn.z": lambda z, head=head: z.at[:, :, head].set(0)}
        assert read["head_ablation_loss"][layer, head] == pytest.approx(_loss(net, taps), rel=1e-5)


def _heads(patterns: np.ndarray) -> np.ndarray:
    return patterns.transpose(0, 2, 1, 3, 4)


def _means(patterns: np.ndarray, tokens: np.ndarray, offset: int) -> np.ndarray:
    """Mean attention to the position of the last earlier copy plus an offset, by loops."""
    attention = []
    for b, row in enumerate(tokens):
        for i in range(16):
            earlier = [j for j in range(i) if row[j] == row[i]]
            if earlier:
                attention.append(patterns[:, b, :, i, earlier[-1] + offset])
    return np.mean(attention, axis=0)


def test_scores_follow_the_heads_where_these_are_permuted(
    unused: Planted, read_unused: Callable[[Any], dict[str, np.ndarray]]
) -> None:
    flipped = jax.tree.map(lambda x: x[::-1] if x.ndim == 3 else x, unused.params)
    ours, theirs = read_unused(unused.params), read_unused(flipped)
    for name in ("previous_token_score", "induction_score", "head_ablation_loss"):
        np.testing.assert_allclose(theirs[name], ours[name][:, ::-1], rtol=1e-5, atol=1e-9)


def test_measures_of_heads_have_a_context_of_their_own() -> None:
    net = planted.induction(4)
    context = dataclasses.replace(context_of(net.task, model=net.model), ground_truth={})
    missing = MEASURES["induction_score"].missing(
        net.model.roles, frozenset(context.ground_truth), frozenset()
    )
    assert missing is not None
    assert "previous_occurrence" in missing
