"""Losses by frequency, coefficients, keys, clusters, readout, margins, collapse, norms, spectra:
formulas in float64.
"""

import random
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fakes import context_of, read, tables

from mi_jax.basics.pytrees import dotted
from mi_jax.contracts import Measure, Subject
from mi_jax.measures import MEASURES
from mi_jax.measures.progress import excluded_loss, excluded_loss_3d, logit_fve, restricted_loss
from mi_jax.measuring.registry import READINGS
from mi_jax.measuring.stored import measure_weights
from mi_jax.models import MLP, Transformer
from mi_jax.tasks import ModularArithmetic
from mi_jax.training.losses import CrossEntropy


def _task(p: int, operation: Any = "add") -> ModularArithmetic:
    return ModularArithmetic(p=p, operation=operation, fraction=0.4, split_seed=1)


def _f32(x: np.ndarray) -> np.ndarray:
    """Values as the measures see them, rounded to float32, in float64."""
    return np.asarray(x, np.float32).astype(np.float64)


def _answers(task: ModularArithmetic) -> np.ndarray:
    a, b = np.meshgrid(np.arange(task.p), np.arange(task.p), indexing="ij")
    return (a + b if task.operation == "add" else a - b) % task.p


def _trained(task: ModularArithmetic) -> tuple[list[int], list[int]]:
    """Flat indices of the trained pairs and of the others, by the published rule."""
    pairs = list(range(task.p**2))
    random.Random(task.split_seed).shuffle(pairs)
    count = int(task.fraction * task.p**2)
    return pairs[:count], pairs[count:]


def _cross_entropy(logits: np.ndarray, answers: np.ndarray) -> np.ndarray:
    z = logits - logits[np.arange(len(logits)), answers][:, None]
    z[np.arange(len(z)), answers] = -np.inf
    return np.log1p(np.exp(z).sum(axis=1))


def _cosine(task: ModularArithmetic, k: int, wave: Any = np.cos) -> np.ndarray:
    """cos(2 pi k (a o b - c) / p) [pair class]."""
    return wave(2 * np.pi * k * (_answers(task).reshape(-1, 1) - np.arange(task.p)) / task.p)


def _pair_waves(task: ModularArithmetic, k: int) -> list[np.ndarray]:
    """Unit vectors along cos and sin of 2 pi k (a o b) / p over the pairs; a wave that is 0
    everywhere is left out.
    """
    angle = 2 * np.pi * k * _answers(task).ravel() / task.p
    return [
        wave / np.linalg.norm(wave)
        for wave in (np.cos(angle), np.sin(angle))
        if np.linalg.norm(wave) > 1e-6
    ]


def _class_waves(p: int, k: int) -> list[np.ndarray]:
    """Rows of F of frequency k: cosine and sine of unit norm; a wave that is 0 is left out."""
    angle = 2 * np.pi * k * np.arange(p) / p
    return [
        wave / np.linalg.norm(wave)
        for wave in (np.cos(angle), np.sin(angle))
        if np.linalg.norm(wave) > 1e-6
    ]


def _part(L: np.ndarray, task: ModularArithmetic, k: int) -> np.ndarray:
    """P_k L."""
    return sum(np.outer(wave, wave @ L) for wave in _pair_waves(task, k))


def _brute_force(
    logits: np.ndarray, task: ModularArithmetic, keys: Sequence[int]
) -> dict[str, np.ndarray]:
    p, every = task.p, range(1, task.p // 2 + 1)
    L, answers = _f32(logits)[:, :, :p].reshape(p * p, p), _answers(task).ravel()
    train, test = _trained(task)
    restricted = _cross_entropy(sum(_part(L, task, k) for k in keys) + L.mean(axis=0), answers)
    unit = {k: _cosine(task, k) / np.linalg.norm(_cosine(task, k)) for k in every}
    flat = L - sum((unit[k] * L).sum() * unit[k] for k in keys)
    design = np.stack([_cosine(task, k).ravel() for k in every], axis=1)
    centred = (L - L.mean()).ravel()
    alone = [
        1 - ((centred - x * (x @ centred) / (x @ x)) ** 2).sum() / (centred**2).sum()
        for x in design.T
    ]
    return {
        "excluded_loss_by_frequency": np.array(
            [_cross_entropy(L - _part(L, task, k), answers)[train].mean() for k in every]
        ),
        "excluded_loss_3d": _cross_entropy(flat, answers)[train].mean(),
        "excluded_loss": (
            _cross_entropy(L - sum(_part(L, task, k) for k in keys), answers)[train].mean()
        ),
        "restricted_loss": restricted.mean(),
        "restricted_loss_train": restricted[train].mean(),
        "restricted_loss_test": restricted[test].mean(),
        "cos_coefficients": np.linalg.lstsq(design, L.ravel(), rcond=None)[0],
        "logit_fve_by_frequency": np.array(alone),
        "logit_fve": sum(alone[k - 1] for k in keys),
    }


def _random_logits(task: ModularArithmetic, seed: int) -> np.ndarray:
    """Noise, a mean by class, and two strong cosines, so that no loss is that of chance."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.5, 1, size=(task.p, task.p, task.p + 1)) + rng.normal(size=task.p + 1)
    for k in (1, task.p // 2):
        logits[:, :, : task.p] += rng.uniform(1, 3) * _cosine(task, k).reshape(
            task.p, task.p, task.p
        )
    return logits


# --- Progress measures

_FROZEN = (
    "excluded_loss_by_frequency",
    "excluded_loss_3d",
    "restricted_loss_train",
    "restricted_loss_test",
    "cos_coefficients",
    "logit_fve_by_frequency",
)
_CASES = [(7, [1, 3]), (7, [2]), (8, [1, 4]), (8, [4]), (11, [2, 3, 5])]


@pytest.mark.slow
@pytest.mark.parametrize("operation", ["add", "subtract"])
@pytest.mark.parametrize(("p", "keys"), _CASES)
def test_each_progress_measure_is_its_formula_in_float64(
    p: int, keys: list[int], operation: str
) -> None:
    task = _task(p, operation)
    logits = _random_logits(task, seed=p)
    expected = _brute_force(logits, task, keys)
    context = context_of(task, keys=keys)
    for name in _FROZEN:
        value = read(name, tables(logits=logits), context)
        np.testing.assert_allclose(value, expected[name], rtol=2e-5, atol=2e-6, err_msg=name)


_ONLINE: dict[str, Measure] = {
    "restricted_loss": restricted_loss(keys="online"),
    "restricted_loss_train": restricted_loss("train", "online"),
    "restricted_loss_test": restricted_loss("test", "online"),
    "excluded_loss": excluded_loss("online"),
    "excluded_loss_3d": excluded_loss_3d("online"),
    "logit_fve": logit_fve("online"),
}


def _with_keys(task: ModularArithmetic, k: int, seed: int) -> dict[str, jax.Array]:
    """Random logits, and an output map of one frequency."""
    return tables(logits=_random_logits(task, seed), W_L=_class_waves(task.p, k)[0][None])


@pytest.mark.slow
@pytest.mark.parametrize("name", _ONLINE)
def test_online_measures_use_the_checkpoints_own_keys(name: str) -> None:
    task, online = _task(11), _ONLINE[name]
    params, final = _with_keys(task, 2, seed=0), _with_keys(task, 5, seed=1)
    context = context_of(task, final=final)
    expected = {k: _brute_force(np.asarray(params["logits"]), task, [k])[name] for k in (2, 5)}
    value = float(online.read(params, context)[online.name])
    assert value == pytest.approx(expected[2], rel=2e-5)
    frozen = restricted_loss() if name == "restricted_loss" else MEASURES[name]
    assert float(frozen.read(params, context)[name]) == pytest.approx(expected[5], rel=2e-5)
    assert abs(expected[2] - expected[5]) > 1e-2
    assert online.name == f"{name}_online"
    assert frozen.retrospective
    assert not online.retrospective
    assert not online.prepare


@pytest.mark.parametrize("name", _ONLINE)
def test_online_and_frozen_measures_agree_on_the_final_model(name: str) -> None:
    task, online = _task(7), _ONLINE[name]
    final = _with_keys(task, 3, seed=2)
    context = context_of(task, final=final)
    assert float(online.read(final, context)[online.name]) == float(
        MEASURES[name].read(final, context)[name]
    )


@pytest.mark.parametrize("operation", ["add", "subtract"])
@pytest.mark.parametrize("p", [7, 8, 11])
def test_coefficients_are_those_that_the_logits_were_made_with(p: int, operation: str) -> None:
    """Terms orthogonal to cosines of a o b - c change nothing: constants, waves of one input,
    sines, the other operation.
    """
    task = _task(p, operation)
    alpha = np.random.default_rng(p).normal(size=p // 2)
    logits = sum(alpha[k - 1] * _cosine(task, k) for k in range(1, p // 2 + 1)).reshape(p, p, p)
    rest = (
        3
        + np.arange(p)
        + np.cos(2 * np.pi * np.arange(p) / p)[:, None, None]
        + _cosine(task, 1, np.sin).reshape(p, p, p)
    )
    other = _task(p, "subtract" if operation == "add" else "add")
    rest = rest + _cosine(other, 2).reshape(p, p, p)
    for table in (logits, logits + rest):
        np.testing.assert_allclose(
            read("cos_coefficients", tables(logits=table), context_of(task)), alpha, atol=2e-6
        )


@pytest.mark.parametrize(("p", "keys"), _CASES)
def test_the_shares_of_the_key_frequencies_add_up_to_the_share_explained(
    p: int, keys: list[int]
) -> None:
    task = _task(p)
    params, context = tables(logits=_random_logits(task, seed=3)), context_of(task, keys=keys)
    shares = read("logit_fve_by_frequency", params, context)
    assert shares[np.array(keys) - 1].sum() == pytest.approx(
        float(read("logit_fve", params, context)), rel=1e-5
    )


def test_excluding_one_frequency_of_two_leaves_the_loss_of_the_other() -> None:
    task = _task(11)
    waves = {k: scale * _cosine(task, k) for k, scale in ((2, 3.0), (5, 2.0))}
    losses = read(
        "excluded_loss_by_frequency",
        tables(logits=sum(waves.values()).reshape(11, 11, 11)),
        context_of(task),
    )
    answers = _answers(task).ravel()
    # Logits of a - b - c alone have one loss for every pair: the split doesn't matter.
    np.testing.assert_allclose(
        losses[[1, 4]], [_cross_entropy(waves[k], answers).mean() for k in (5, 2)], rtol=1e-5
    )
    np.testing.assert_allclose(
        losses[[0, 2, 3]], _cross_entropy(waves[2] + waves[5], answers).mean(), rtol=1e-5
    )


@pytest.mark.parametrize("p", [7, 8])
def test_excluding_all_of_logits_made_of_cosines_leaves_the_logarithm_of_p(p: int) -> None:
    task = _task(p)
    keys = [1, p // 2]
    logits = sum(k * _cosine(task, k) for k in keys).reshape(p, p, p)
    assert float(
        read("excluded_loss_3d", tables(logits=logits), context_of(task, keys=keys))
    ) == pytest.approx(np.log(p), rel=1e-6)


def test_the_splits_restricted_losses_weigh_up_to_that_of_all_pairs() -> None:
    task = _task(7)
    params, context = tables(logits=_random_logits(task, 4)), context_of(task, keys=[3])
    train, test = _trained(task)
    parts = {
        name: float(read(f"restricted_loss_{name}", params, context)) for name in ("train", "test")
    }
    whole = (len(train) * parts["train"] + len(test) * parts["test"]) / 49
    assert float(read("restricted_loss", params, context)) == pytest.approx(whole, rel=1e-6)
    assert abs(parts["train"] - parts["test"]) > 1e-3


# --- Key frequencies by each rule


def _true_frequencies(mask: np.ndarray) -> list[int]:
    assert mask.dtype == bool
    return (np.flatnonzero(mask) + 1).tolist()


@pytest.mark.parametrize("p", [7, 8, 11])
@pytest.mark.parametrize("seed", range(3))
def test_the_embeddings_keys_exceed_a_quarter_of_its_largest_component(p: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    spectrum = rng.exponential(size=(p // 2, 2)) ** 2
    table = 9 + sum(
        size * np.outer(wave, rng.normal(size=5))
        for k in range(1, p // 2 + 1)
        for size, wave in zip(spectrum[k - 1], _class_waves(p, k), strict=False)
    )
    best = np.array(
        [
            max(np.linalg.norm(wave @ _f32(table)) for wave in _class_waves(p, k))
            for k in range(1, p // 2 + 1)
        ]
    )
    expected = np.flatnonzero(best > best.max() / 4) + 1
    assert (
        _true_frequencies(
            read("key_frequencies_embedding", tables(W_E=table), context_of(_task(p)))
        )
        == expected.tolist()
    )


def test_the_embeddings_quarter_is_a_quarter() -> None:
    sizes = {1: 1.0, 2: 0.252, 4: 0.248, 6: 0.252}
    table = np.stack([size * _class_waves(13, k)[k % 2] for k, size in sizes.items()], axis=1)
    assert _true_frequencies(
        read("key_frequencies_embedding", tables(W_E=table), context_of(_task(13)))
    ) == [
        1,
        2,
        6,
    ]


def test_the_embeddings_keys_reach_the_last_frequency() -> None:
    for p in (7, 11, 113):
        table = _class_waves(p, (p - 1) // 2)[1][:, None]
        assert _true_frequencies(
            read("key_frequencies_embedding", tables(W_E=table), context_of(_task(p)))
        ) == [(p - 1) // 2]


def test_the_final_models_keys_are_read_at_every_checkpoint() -> None:
    task = _task(11)
    params, final = _with_keys(task, 2, seed=0), _with_keys(task, 5, seed=1)
    context = context_of(task, final=final)
    assert _true_frequencies(read("key_frequencies_final", params, context)) == [5]
    assert _true_frequencies(read("key_frequencies", params, context)) == [2]
    assert MEASURES["key_frequencies_final"].retrospective


# --- Clusters of neurons


def _explained(neuron: np.ndarray, k: int) -> float:
    """R^2 of a neuron [a b] on the products of {1, cos, sin}(w a) and {1, cos, sin}(w b), by least
    squares.
    """
    p = len(neuron)
    x = 2 * np.pi * k * np.arange(p) / p
    factors = np.stack([np.ones(p), np.cos(x), np.sin(x)])
    design = np.einsum("ia,jb->abij", factors, factors).reshape(p * p, 9)
    residual = neuron.ravel() - design @ np.linalg.lstsq(design, neuron.ravel(), rcond=1e-9)[0]
    return float(1 - (residual**2).sum() / ((neuron - neuron.mean()) ** 2).sum())


def _mixed(p: int, first: int, second: int, share: float) -> np.ndarray:
    """Neuron [a b] with the share ``share`` at one frequency and the rest at another."""
    wa, wb = (2 * np.pi * k * np.arange(p) / p for k in (first, second))
    return np.sqrt(share) * np.cos(wa)[:, None] + np.sqrt(1 - share) * np.sin(wb)[None, :]


def test_neurons_count_for_their_frequency_from_85_percent_on() -> None:
    units = [
        _mixed(11, 2, 5, 0.852),
        _mixed(11, 2, 3, 0.99),
        _mixed(11, 5, 1, 0.86),
        _mixed(11, 4, 1, 0.848),
        np.ones((11, 11)),
    ]
    params, context = tables(neurons=4 + 3 * np.stack(units, axis=-1)), context_of(_task(11))
    assert read("cluster_sizes", params, context).tolist() == [0, 2, 0, 0, 1]
    assert _true_frequencies(read("key_frequencies_neurons", params, context)) == [2, 5]


@pytest.mark.slow
@pytest.mark.parametrize("p", [7, 8])
def test_clusters_are_those_of_least_squares(p: int) -> None:
    rng = np.random.default_rng(p)
    units = [
        _mixed(p, k, 1 + k % (p // 2), share)
        for k in range(1, p // 2 + 1)
        for share in rng.uniform(0.75, 1, size=4)
    ]
    neurons = _f32(np.stack(units, axis=-1) + 0.05 * rng.normal(size=(p, p, len(units))))
    shares = np.array(
        [[_explained(neurons[..., n], k) for k in range(1, p // 2 + 1)] for n in range(len(units))]
    )
    assert np.abs(shares.max(axis=1) - 0.85).min() > 1e-5
    best = 1 + shares.argmax(axis=1)[shares.max(axis=1) >= 0.85]
    assert 0 < len(best) < len(units)
    expected = np.array([(best == k).sum() for k in range(1, p // 2 + 1)])
    context = context_of(_task(p))
    np.testing.assert_array_equal(read("cluster_sizes", tables(neurons=neurons), context), expected)
    np.testing.assert_array_equal(
        read("key_frequencies_neurons", tables(neurons=neurons), context), expected > 0
    )


# --- Readout of each frequency


def _readout(params: Any, task: ModularArithmetic) -> dict[str, np.ndarray]:
    return {
        name: np.asarray(value)
        for name, value in MEASURES["readout_fve"].read(params, context_of(task)).items()
    }


@pytest.mark.parametrize("operation", ["add", "subtract"])
@pytest.mark.parametrize("p", [7, 8, 11])
def test_the_readouts_share_is_its_formula_in_float64(p: int, operation: str) -> None:
    task, rng = _task(p, operation), np.random.default_rng(p)
    neurons = rng.normal(1, 1, size=(p, p, 6))
    for k in range(1, p // 2 + 1):
        neurons[..., k] += _pair_waves(task, k)[0].reshape(p, p) * p
    W_L = rng.normal(size=(6, p))
    params = tables(neurons=neurons, W_L=W_L)
    values = _readout(params, task)
    for k in range(1, p // 2 + 1):
        for name, row, wave in zip(
            ("cos", "sin"), _class_waves(p, k), _pair_waves(task, k), strict=False
        ):
            y = _f32(neurons).reshape(p * p, 6) @ (_f32(W_L) @ row)
            y = y - y.mean()
            assert values[f"readout_fve_{name}"][k - 1] == pytest.approx(
                (y @ wave) ** 2 / (y @ y), rel=1e-4
            ), (name, k)


def test_neurons_that_are_the_answers_waves_are_read_whole() -> None:
    task = _task(7)
    cos, sin = (wave.reshape(7, 7) for wave in _pair_waves(task, 2))
    params = tables(neurons=5 + np.stack([cos, sin], axis=-1), W_L=np.stack(_class_waves(7, 2)))
    assert _readout(params, task)["readout_fve_cos"][1] == pytest.approx(1, abs=1e-5)
    assert _readout(params, task)["readout_fve_sin"][1] == pytest.approx(1, abs=1e-5)
    turned = tables(neurons=5 + np.stack([sin, cos], axis=-1), W_L=np.stack(_class_waves(7, 2)))
    assert _readout(turned, task)["readout_fve_cos"][1] == pytest.approx(0, abs=1e-5)


# --- Margins and collapse


@pytest.mark.parametrize("split", ["train", "test"])
def test_margins_are_the_right_output_less_the_largest_wrong_one(split: str) -> None:
    task = _task(7)
    logits = _f32(
        np.random.default_rng(0).normal(0, 3, size=(7, 7, 8))
        + 4 * np.pad(np.eye(7)[_answers(task)], ((0, 0),) * 2 + ((0, 1),))
    )
    margins: list[float] = []
    for pair in _trained(task)[split == "test"]:
        a, b = divmod(pair, 7)
        wrong = [logits[a, b, c] for c in range(8) if c != (a + b) % 7]
        margins.append(logits[a, b, (a + b) % 7] - max(wrong))
    values = MEASURES[f"{split}_margin"].read(tables(logits=logits), context_of(task))
    assert float(values[f"{split}_margin"]) == pytest.approx(np.mean(margins), rel=1e-5)
    assert float(values[f"{split}_margin_minimum"]) == pytest.approx(min(margins), rel=1e-6)
    assert min(margins) < 0 < max(margins)


def test_an_output_that_is_no_class_counts_as_a_wrong_one() -> None:
    task = _task(5)
    logits = np.zeros((5, 5, 6))
    logits[..., 5] = 2.0
    values = MEASURES["test_margin"].read(tables(logits=logits), context_of(task))
    assert {name: float(value) for name, value in values.items()} == {
        "test_margin": -2.0,
        "test_margin_minimum": -2.0,
    }


def _at_margins(task: ModularArithmetic, margins: Sequence[float]) -> dict[str, jax.Array]:
    """Logits with 0 for the wrong classes; the trained pairs' right ones take the margins in turn,
    all others are 0.
    """
    logits = np.zeros((task.p, task.p, task.p + 1))
    for place, pair in enumerate(_trained(task)[0]):
        a, b = divmod(pair, task.p)
        logits[a, b, (a + b) % task.p] = margins[place % len(margins)]
    return tables(logits=logits - 3.0)


# e^-m is lost beside 1 in float32 from about 17 on (2^-24); the exact loss itself is a float32 down
# to e^-87.
@pytest.mark.parametrize(
    ("margin", "softmax", "exact"),
    [(10.0, 0, 0), (16.0, 0, 0), (20.0, 1, 0), (80.0, 1, 0), (100.0, 1, 1), (200.0, 1, 1)],
)
def test_collapse_begins_where_float32_ends(margin: float, softmax: int, exact: int) -> None:
    task = _task(5)
    params, context = _at_margins(task, [margin]), context_of(task)
    assert float(read("softmax_collapse", params, context)) == softmax
    assert float(read("exact_loss_collapse", params, context)) == exact


def test_collapse_is_a_share_of_the_trained_pairs() -> None:
    task = _task(5)
    assert len(_trained(task)[0]) == 10
    params, context = _at_margins(task, [10, 10, 20, 100, 200]), context_of(task)
    assert float(read("softmax_collapse", params, context)) == pytest.approx(6 / 10)
    assert float(read("exact_loss_collapse", params, context)) == pytest.approx(4 / 10)


def test_a_softmax_may_collapse_on_a_wrong_answer() -> None:
    task = _task(5)
    params, context = _at_margins(task, [-50.0]), context_of(task)
    assert float(read("softmax_collapse", params, context)) == 0, "five equal wrong classes"
    wrong = np.zeros((5, 5, 6))
    wrong[..., 5] = 50
    assert float(read("softmax_collapse", tables(logits=wrong), context)) == 1
    assert float(read("exact_loss_collapse", tables(logits=wrong), context)) == 0


# --- Norms


def test_squares_by_parameter_are_labelled_with_its_name() -> None:
    task = _task(5)
    model = Transformer(layers=11, d_model=4, heads=1, d_mlp=4, attention_bias=True).build(
        task.inputs
    )
    params = jax.tree.map(lambda x: x + 0.2, model.init(jax.random.key(0)))
    subject = Subject(model, task, CrossEntropy())
    provenance = {"experiment": {}, "hash": ""}
    names = ("sum_squared_weights", "sum_squared_weights_by_parameter")
    read_all = measure_weights(
        params, subject, [MEASURES[name] for name in names], provenance
    ).isel(seed=0, step=0)
    each = read_all["sum_squared_weights_by_parameter"]
    expected = {name: (np.asarray(x, np.float64) ** 2).sum() for name, x in dotted(params).items()}
    assert "blocks.10.attn.W_Q" in expected
    assert len(set(np.round(list(expected.values()), 4))) > len(expected) / 2
    assert set(each["parameter"].values) == set(expected)
    for name, value in expected.items():
        assert float(each.sel(parameter=name)) == pytest.approx(value, rel=1e-5), name
    assert float(each.sum()) == pytest.approx(float(read_all["sum_squared_weights"]), rel=1e-5)


# --- Inverse participation ratio


def _mlp_tables(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> dict[str, Any]:
    """Parameters of an MLP.

    a and b [token neuron] are what each token adds to each neuron, out [class neuron] what each
    neuron adds to each logit.
    """
    to = lambda x: jnp.asarray(x, jnp.float32)  # noqa: E731
    return {"embed_a": {"W_E": to(a)}, "embed_b": {"W_E": to(b)}, "unembed": {"W_U": to(out.T)}}


def _ratio(v: np.ndarray) -> float:
    """sum_k (|v_k| / sqrt(sum |v|^2))^4, v_k the real DFT with its constant, term by term."""
    p, x = len(v), np.arange(len(v))
    spectrum = np.array(
        [abs((v * np.exp(-2j * np.pi * k * x / p)).sum()) for k in range(p // 2 + 1)]
    )
    return float(((spectrum / np.sqrt((spectrum**2).sum())) ** 4).sum())


def _ipr(vectors: Sequence[np.ndarray]) -> np.ndarray:
    task = _task(len(vectors[0]))
    model = MLP(width=vectors[0].shape[1]).build(task.inputs)
    return read("inverse_participation_ratio", _mlp_tables(*vectors), context_of(task, model=model))


@pytest.mark.parametrize("p", [7, 8, 11])
def test_the_participation_ratio_is_the_mean_of_a_neurons_three_vectors(p: int) -> None:
    rng = np.random.default_rng(p)
    vectors = [rng.normal(shift, 1, size=(p, 5)) for shift in (0, 1, 2)]
    expected = [np.mean([_ratio(_f32(table)[:, n]) for table in vectors]) for n in range(5)]
    np.testing.assert_allclose(_ipr(vectors), expected, rtol=1e-5)


def test_a_pure_cosine_participates_alone_and_two_share() -> None:
    x = 2 * np.pi * np.arange(11)[:, None] / 11
    pure = [np.cos(k * x + 0.3 * k) for k in (1, 3, 5)]
    np.testing.assert_allclose(_ipr(pure), 1, atol=1e-5)
    np.testing.assert_allclose(_ipr([pure[0] + pure[1]] * 3), 0.5, rtol=1e-5)
    # The real DFT holds the constant once and a cosine as one half: powers 1 and 1 / 4.
    np.testing.assert_allclose(_ipr([1 + pure[0]] * 3), (1 + 1 / 16) / (1 + 1 / 4) ** 2, rtol=1e-5)


@pytest.mark.parametrize(("p", "published"), [(97, 0.0402), (59, 0.0657), (113, 0.0346)])
def test_gaussian_weights_participate_at_the_published_level(p: int, published: float) -> None:
    rng = np.random.default_rng(p)
    mean = float(_ipr([rng.normal(size=(p, 4000)) for _ in range(3)]).mean())
    assert mean == pytest.approx(published, abs=4e-4)  # the published sample is small
    assert mean == pytest.approx(4 / (p + 1), rel=0.025)


@pytest.mark.slow
def test_gromovs_analytic_network_participates_at_one() -> None:
    """U = cos(w k i + f), V = cos(w k j + g), W = cos(w k q + f + g), by neuron k and phases f, g
    (reference 4.9).
    """
    p, width = 23, 128
    rng = np.random.default_rng(0)
    angle = 2 * np.pi * np.arange(p)[:, None] * (1 + np.arange(width) % ((p - 1) // 2)) / p
    f, g = rng.uniform(-np.pi, np.pi, size=(2, width))
    size = (2 / width) ** (1 / 3)
    vectors = [size * np.cos(angle + phase) for phase in (f, g, f + g)]
    np.testing.assert_allclose(_ipr(vectors), 1, atol=1e-5)
    task = _task(p)
    model = MLP(width=width).build(task.inputs)
    assert float(read("test_accuracy", _mlp_tables(*vectors), context_of(task, model=model))) == 1.0


def test_a_transformers_neurons_participate_by_their_output_alone() -> None:
    task = _task(7)
    model = Transformer(d_model=8, heads=2, d_mlp=6).build(task.inputs)
    params = model.init(jax.random.key(0))
    W_L = _f32(params["blocks"]["0"]["mlp"]["W_out"]) @ _f32(params["unembed"]["W_U"])[:, :7]
    value = read("inverse_participation_ratio", params, context_of(task, model=model))
    np.testing.assert_allclose(value, [_ratio(row) for row in W_L], rtol=1e-4)


# --- Spectra


def _spectrum(table: np.ndarray, place: str, quantity: str = "singular_values") -> np.ndarray:
    """Spectrum of a table [residue d] placed as the embedding or, transposed, as the output map."""
    name = f"{quantity}_{place}"
    params = tables(W_E=table) if place == "embedding" else tables(W_L=table.T)
    return np.asarray(READINGS[name].read(params, context_of(_task(len(table))))[name])


_PLACES = ("embedding", "unembedding")


@pytest.mark.parametrize("place", _PLACES)
@pytest.mark.parametrize(("p", "d"), [(7, 3), (7, 7), (8, 20)])
def test_singular_values_are_numpys_padded_with_zeros(place: str, p: int, d: int) -> None:
    table = np.random.default_rng(d).normal(size=(p, d))
    expected = np.zeros(p)
    expected[: min(p, d)] = np.linalg.svd(_f32(table), compute_uv=False)
    np.testing.assert_allclose(_spectrum(table, place), expected, rtol=1e-5, atol=1e-5)
    q = expected[: min(p, d)] / expected.sum()
    assert float(_spectrum(table, place, "effective_rank")) == pytest.approx(
        np.exp(-(q * np.log(q)).sum()), rel=1e-5
    )


def _of_spectrum(p: int, d: int, values: Sequence[float]) -> np.ndarray:
    rng, r = np.random.default_rng(1), len(values)
    left, right = (np.linalg.qr(rng.normal(size=(n, r)))[0] for n in (p, d))
    return left * np.array(values) @ right.T


@pytest.mark.parametrize("place", _PLACES)
@pytest.mark.parametrize("r", [1, 2, 4])
def test_a_table_of_rank_r_with_equal_values_has_effective_rank_r(place: str, r: int) -> None:
    table = _of_spectrum(11, 9, [3.0] * r)
    np.testing.assert_allclose(_spectrum(table, place), [3.0] * r + [0.0] * (11 - r), atol=1e-5)
    assert float(_spectrum(table, place, "effective_rank")) == pytest.approx(r, rel=1e-4)


def test_effective_rank_by_hand() -> None:
    """Shares 1/2, 1/4, 1/4: entropy 1.5 ln 2."""
    assert float(
        _spectrum(_of_spectrum(7, 5, [4, 2, 2]), "embedding", "effective_rank")
    ) == pytest.approx(2**1.5, rel=1e-4)


@pytest.mark.parametrize("place", _PLACES)
def test_special_tokens_and_outputs_have_no_part_in_a_spectrum(place: str) -> None:
    task = _task(7)
    model = Transformer(d_model=8, heads=2, d_mlp=12).build(task.inputs)
    params = model.init(jax.random.key(0))
    W_E, W_U = _f32(params["embed"]["W_E"])[:7], _f32(params["unembed"]["W_U"])[:, :7]
    table = W_E if place == "embedding" else _f32(params["blocks"]["0"]["mlp"]["W_out"]) @ W_U
    name = f"singular_values_{place}"
    value = READINGS[name].read(params, context_of(task, model=model))[name]
    np.testing.assert_allclose(
        value, np.linalg.svd(table, compute_uv=False)[:7], rtol=1e-4, atol=1e-6
    )


# --- Values that are not finite

_EVALUATION = _task(7).evaluation(_task(7).data(0), jax.random.key(0))
_WEIGHTS_ALONE = ("sum_squared_weights", "sum_squared_weights_by_parameter", "trained_pairs")
_LOGITS_ALONE = sorted(
    name
    for name, measure in READINGS.items()
    if not measure.roles
    and name not in _WEIGHTS_ALONE
    and set(measure.ground_truth) <= set(_EVALUATION.ground_truth)
    and set(measure.splits) <= set(_EVALUATION.batches)
)


@pytest.mark.parametrize("name", _LOGITS_ALONE)
def test_logits_that_are_not_finite_show_in_every_measure_of_logits(name: str) -> None:
    """A measure of a diverged seed is NaN. Both splits hold a NaN, because a measure of one split
    does not see the other.
    """
    task = _task(7)
    logits = _random_logits(task, 0)
    for pairs in _trained(task):
        a, b = divmod(pairs[0], 7)
        logits[a, b, 4] = np.nan
    context = context_of(task, keys=[1])
    for variable, value in MEASURES[name].read(tables(logits=logits), context).items():
        assert np.isnan(np.asarray(value)).all(), variable


@pytest.mark.parametrize("place", _PLACES)
def test_weights_that_are_not_finite_show_in_a_spectrum(place: str) -> None:
    table = np.random.default_rng(0).normal(size=(7, 4))
    table[2, 3] = np.nan
    assert np.isnan(_spectrum(table, place)[:4]).all()
    assert np.isnan(_spectrum(table, place, "effective_rank"))
