"""Faithfulness ablations and frequencies of attention, against hand-built networks and the formulas
in float64 NumPy.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fakes import context_of, tables

from mi_jax.contracts import Architecture, Context, Model, Roles, Site
from mi_jax.measures import MEASURES
from mi_jax.models import MLP, Bilinear, Transformer, capture
from mi_jax.models.taps import Tapped
from mi_jax.tasks import ModularArithmetic

pytestmark = pytest.mark.slow  # over half a minute in all

_PARTS = (
    "intact",
    "neuron_directions",
    "logit_blocks",
    "output_directions",
    "null_space",
    "polynomial_neurons",
)


def _task(p: int, operation: Any = "add") -> ModularArithmetic:
    return ModularArithmetic(p=p, operation=operation, fraction=0.4, split_seed=1)


def _ablations(params: Any, context: Context) -> dict[str, float]:
    values = jax.jit(MEASURES["ablation_loss"].read)(params, context)
    return {name: float(values[f"ablation_loss_{name}"]) for name in _PARTS}


# --- Brute force, straight from the formulas


def _answers(task: ModularArithmetic) -> np.ndarray:
    a, b = np.divmod(np.arange(task.p**2), task.p)
    return (a + b if task.operation == "add" else a - b) % task.p


def _loss(logits: np.ndarray, task: ModularArithmetic) -> float:
    rows, answers = np.arange(task.p**2), _answers(task)
    z = logits[:, : task.p] - logits[rows, answers][:, None]
    z[rows, answers] = -np.inf
    return float(np.log1p(np.exp(z).sum(axis=1)).mean())


def _waves(angle: np.ndarray) -> np.ndarray:
    """Cosine and sine of unit norm as columns; a wave that is 0 everywhere is left out."""
    both = [
        wave / np.linalg.norm(wave)
        for wave in (np.cos(angle), np.sin(angle))
        if np.linalg.norm(wave) > 1e-6
    ]
    return np.stack(both, axis=1)


def _products(p: int, keys: Sequence[int]) -> np.ndarray:
    """Columns 1 and, for each frequency, {1, cos, sin}(w a) x {1, cos, sin}(w b),
    as columns.
    """
    columns = [np.ones((p * p, 1))]
    for k in keys:
        factors = np.concatenate(
            [np.ones((p, 1)), _waves(2 * np.pi * k * np.arange(p) / p)], axis=1
        )
        columns.append(np.einsum("ai,bj->abij", factors, factors).reshape(p * p, -1))
    return np.concatenate(columns, axis=1)


def _fitted(table: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Least-squares fit of each column of a table."""
    return columns @ np.linalg.lstsq(columns, table, rcond=1e-9)[0]


def _polynomial(neurons: np.ndarray, p: int) -> tuple[np.ndarray, int]:
    """Neurons, with those that one frequency explains to .85 replaced by its polynomial, and the
    number replaced.
    """
    fits = np.stack([_fitted(neurons, _products(p, [k])) for k in range(1, p // 2 + 1)])
    total = ((neurons - neurons.mean(axis=0)) ** 2).sum(axis=0)
    shares = 1 - ((fits - neurons) ** 2).sum(axis=1) / np.where(total > 0, total, np.nan)
    best = np.nan_to_num(shares, nan=-1).argmax(axis=0)
    explained = np.nan_to_num(shares.max(axis=0), nan=-1) >= 0.85
    assert np.nanmin(np.abs(shares.max(axis=0) - 0.85)) > 1e-4
    return np.where(explained, fits[best, :, np.arange(len(best))].T, neurons), int(explained.sum())


def _brute_force(
    neurons: np.ndarray,
    W_L: np.ndarray,
    logits_of: Any,
    task: ModularArithmetic,
    keys: Sequence[int],
) -> dict[str, float]:
    """Losses by the part that is kept.

    Takes neurons [pair neuron] and the function from neurons to logits [pair class].
    """
    p = task.p
    answers, logits = _answers(task), logits_of(neurons)[:, :p]
    pair = np.concatenate([_waves(2 * np.pi * k * answers / p) for k in keys], axis=1)
    read = W_L @ np.concatenate([_waves(2 * np.pi * k * np.arange(p) / p) for k in keys], axis=1)
    U, s, _ = np.linalg.svd(read, full_matrices=False)
    span = U[:, s > 1e-6 * s.max()]
    along = neurons @ span @ span.T
    polynomial, replaced = _polynomial(neurons, p)
    assert 0 < replaced < neurons.shape[1], "both kinds of neurons are needed"
    return {
        "intact": _loss(logits, task),
        "neuron_directions": _loss(
            logits_of(neurons.mean(axis=0) + pair @ (pair.T @ neurons)), task
        ),
        "logit_blocks": _loss(_fitted(logits, _products(p, keys)), task),
        "output_directions": _loss(logits_of(along), task),
        "null_space": _loss(logits_of(neurons - along), task),
        "polynomial_neurons": _loss(logits_of(polynomial), task),
    }


def _f64(tree: Any) -> Any:
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def _pairs(p: int) -> jax.Array:
    return jnp.array([[a, b, p] for a in range(p) for b in range(p)])


def _with_circle(W_E: jax.Array, p: int) -> jax.Array:
    """An embedding with a large circle in it, so that some neurons have one frequency."""
    return W_E.at[:p, :2].add(jnp.asarray(6 * _waves(2 * np.pi * np.arange(p) / p), jnp.float32))


@pytest.mark.parametrize("operation", ["add", "subtract"])
@pytest.mark.parametrize(("p", "keys"), [(7, [1, 3]), (7, [2]), (8, [1, 4]), (11, [2, 5])])
def test_each_ablation_of_an_mlp_is_its_formula_in_float64(
    p: int, keys: list[int], operation: str
) -> None:
    task, width = _task(p, operation), 16
    model = MLP(width=width, activation="relu", bias=True).build(task.inputs)
    rng = np.random.default_rng(p)
    phase = 2 * np.pi * np.arange(p)[:, None] * (1 + np.arange(width) % (p // 2)) / p + rng.uniform(
        size=width
    )
    noise = np.linspace(0, 0.5, width)
    params = tables(
        a=np.cos(phase) + noise * rng.normal(size=(p, width)),
        out=rng.normal(size=(width, p)),
        bias=noise - 0.2,
    )
    params = {
        "embed_a": {"W_E": params["a"]},
        "embed_b": {"W_E": 0.9 * params["a"]},
        "embed": {"b": params["bias"]},
        "unembed": {"W_U": params["out"], "b_U": 2 * params["out"][0]},
    }
    w = _f64(params)
    pre = w["embed_a"]["W_E"][:, None] + w["embed_b"]["W_E"][None, :] + w["embed"]["b"]
    neurons = np.maximum(pre, 0).reshape(p * p, width)
    out = w["unembed"]
    expected = _brute_force(neurons, out["W_U"], lambda A: A @ out["W_U"] + out["b_U"], task, keys)
    values = _ablations(params, context_of(task, model=model, keys=keys))
    assert values == pytest.approx(expected, rel=2e-5)
    assert len({round(value, 3) for value in values.values()}) == len(_PARTS)


@pytest.mark.parametrize(
    "config",
    [
        Transformer(d_model=12, heads=2, d_mlp=20),
        Transformer(
            d_model=12, heads=2, d_mlp=20, normalization="layer", unembed_bias=True, logit_scale=3.0
        ),
        Transformer(d_model=12, heads=2, d_mlp=20, layers=2, mlp_bias=False, unembed_bias=True),
    ],
)
def test_each_ablation_of_a_transformer_is_its_formula_in_float64(config: Transformer) -> None:
    """The rest of the forward pass stays: the residual stream, biases, the final norm."""
    task, keys = _task(5), [1]
    p, model = task.p, config.build(task.inputs)
    params: Any = jax.tree.map(lambda x: 1.5 * x + 0.05, model.init(jax.random.key(2)))
    params["embed"]["W_E"] = _with_circle(params["embed"]["W_E"], p)
    last = f"blocks.{config.layers - 1}"
    seen = _f64(
        capture(model.apply, [f"{last}.resid_mid", f"{last}.mlp.post"])(params, _pairs(p))[1]
    )
    mid, neurons = (seen[f"{last}.{name}"][:, -1] for name in ("resid_mid", "mlp.post"))
    w = _f64(params)
    mlp = w["blocks"][str(config.layers - 1)]["mlp"]

    def logits_of(A: np.ndarray) -> np.ndarray:
        x = mid + A @ mlp["W_out"] + mlp.get("b_out", 0.0)
        if config.normalization == "layer":
            x = x - x.mean(axis=1, keepdims=True)
            x = (
                x / np.sqrt((x**2).mean(axis=1, keepdims=True) + 1e-5) * w["ln_final"]["w"]
                + w["ln_final"]["b"]
            )
        return config.logit_scale * (x @ w["unembed"]["W_U"] + w["unembed"].get("b_U", 0.0))

    expected = _brute_force(
        neurons, mlp["W_out"] @ w["unembed"]["W_U"][:, :p], logits_of, task, keys
    )
    assert _ablations(params, context_of(task, model=model, keys=keys)) == pytest.approx(
        expected, rel=1e-4
    )


_LINEAR: dict[str, Architecture] = {
    "transformer": Transformer(d_model=12, heads=2, d_mlp=20),
    "two layers": Transformer(
        d_model=12, heads=2, d_mlp=20, layers=2, mlp_bias=False, unembed_bias=True
    ),
    "relative positions": Transformer(d_model=12, heads=2, d_mlp=20, positions="relative"),
    "mlp, output bias and scale": MLP(
        width=20, activation="relu", bias=True, output_scale=0.4, outputs=7
    ),
    "mlp, two embeddings": MLP(
        width=20, d_embed=12, embedding="two", depth=2, activation="relu", output_bias=True
    ),
    "mlp, shared embedding": MLP(
        width=20, d_embed=12, embedding="shared", combination="sum", output_scale=-2.0
    ),
    "bilinear": Bilinear(width=20),
}


@pytest.mark.parametrize("name", _LINEAR)
def test_the_short_way_through_a_linear_readout_gives_the_losses_of_forward_passes(
    name: str,
) -> None:
    task = _task(5)
    model = _LINEAR[name].build(task.inputs)
    assert model.roles.linear_readout
    params: Any = jax.tree.map(lambda x: 1.5 * x + 0.05, model.init(jax.random.key(2)))
    for table in params:
        if table.startswith("embed") and "W_E" in params[table]:
            params[table]["W_E"] = _with_circle(params[table]["W_E"], task.p)
    whole = dataclasses.replace(model, roles=dataclasses.replace(model.roles, linear_readout=False))
    short, long = (
        _ablations(params, context_of(task, model=variant, keys=[1])) for variant in (model, whole)
    )
    assert short == pytest.approx(long, rel=2e-5)
    assert len({round(loss, 4) for loss in short.values()}) == len(_PARTS)


# --- A network that is the explanation

_NEURONS = Site("neurons", "neurons[a, b]", ("batch", "position", "neuron"))


def _neurons_to_logits(
    params: Any, inputs: Any, *, taps: Any = None, positions: Any = None
) -> jax.Array:
    """Logits neurons[a, b] W_L at one position."""
    neurons = Tapped(taps, (_NEURONS,)).at(
        "neurons", params["neurons"][inputs[:, 0], inputs[:, 1]][:, None]
    )
    return neurons @ params["W_L"]


def _model(linear: bool) -> Model:
    roles = Roles(output_map=lambda params: params["W_L"], neurons="neurons", linear_readout=linear)
    return Model(lambda key: {}, _neurons_to_logits, roles, (_NEURONS,))


def _explained_network(task: ModularArithmetic, keys: Sequence[int]) -> dict[str, jax.Array]:
    """Neurons along c_k and s_k alone, whose output weights are the rows of F of frequency k."""
    pair = np.concatenate([_waves(2 * np.pi * k * _answers(task) / task.p) for k in keys], axis=1)
    rows = np.concatenate(
        [_waves(2 * np.pi * k * np.arange(task.p) / task.p) for k in keys], axis=1
    )
    return tables(neurons=(10 * pair).reshape(task.p, task.p, -1), W_L=rows.T)


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("operation", ["add", "subtract"])
def test_a_network_of_key_directions_alone_loses_nothing_when_they_are_kept_and_all_when_not(
    linear: bool, operation: str
) -> None:
    task, keys = _task(7, operation), [1, 3]
    context = context_of(task, model=_model(linear), keys=keys)
    values = _ablations(_explained_network(task, keys), context)
    null = values.pop("null_space")
    assert null == pytest.approx(np.log(7), rel=1e-5)
    assert values == dict.fromkeys(values, pytest.approx(values["intact"], rel=1e-5))
    assert values["intact"] < 0.6 * null


def test_with_another_key_frequency_the_loss_is_that_of_chance() -> None:
    task = _task(7)
    context = context_of(task, model=_model(True), keys=[2])
    values = _ablations(_explained_network(task, [1, 3]), context)
    assert values["neuron_directions"] == pytest.approx(np.log(7), rel=1e-5)
    assert values["logit_blocks"] == pytest.approx(np.log(7), rel=1e-5)


def test_more_directions_than_neurons_span_everything() -> None:
    """Six directions, four neurons: the projector is the identity, and its complement leaves
    nothing.
    """
    task, rng = _task(7), np.random.default_rng(0)
    params = tables(neurons=rng.normal(size=(7, 7, 4)), W_L=rng.normal(size=(4, 7)))
    values = _ablations(params, context_of(task, model=_model(True), keys=[1, 2, 3]))
    assert values["output_directions"] == pytest.approx(values["intact"], rel=1e-5)
    assert values["null_space"] == pytest.approx(np.log(7), rel=1e-5)


def test_a_network_without_key_frequencies_has_only_its_null_space() -> None:
    task, rng = _task(7), np.random.default_rng(0)
    params = tables(neurons=rng.normal(size=(7, 7, 4)), W_L=rng.normal(size=(4, 7)))
    context = context_of(task, model=_model(True), keys=[1])
    none = dataclasses.replace(context, prepared={"final_key_frequencies": jnp.zeros(3, bool)})
    values = _ablations(params, none)
    assert values["output_directions"] == pytest.approx(np.log(7), rel=1e-6)
    assert values["null_space"] == pytest.approx(values["intact"], rel=1e-6)


def test_a_polynomial_neuron_loses_its_other_frequencies_and_the_rest_lose_nothing() -> None:
    task = _task(7)
    x = 2 * np.pi * np.arange(7) / 7
    clean, spoilt = np.cos(x)[:, None] + np.cos(x)[None, :], 0.3 * np.cos(2 * x)[:, None]
    neurons = np.stack(
        [2 + clean + spoilt, clean + 3 * spoilt], axis=-1
    )  # shares 1/1.045 and 1/1.405
    W_L = np.random.default_rng(0).normal(size=(2, 7))
    value = _ablations(
        tables(neurons=neurons, W_L=W_L), context_of(task, model=_model(True), keys=[1])
    )["polynomial_neurons"]
    kept = neurons - np.stack([np.broadcast_to(spoilt, (7, 7)), np.zeros((7, 7))], axis=-1)
    assert value == pytest.approx(_loss(kept.reshape(49, 2) @ W_L, task), rel=1e-5)


# --- Attention

_SCORES = tuple(
    Site(f"scores.{i}", "scores[i]", ("batch", "head", "query", "key")) for i in range(2)
)


def _attend(params: Any, inputs: Any, *, taps: Any = None, positions: Any = None) -> jax.Array:
    """Two layers of scores [layer a b head] for the first token; NaN where no measure should
    read.
    """
    tapped = Tapped(taps, _SCORES)
    for i, site in enumerate(_SCORES):
        here = params["scores"][i][inputs[:, 0], inputs[:, 1]]
        rows = range(inputs.shape[1]) if i == 0 or positions is None else positions
        last = inputs.shape[1] - 1
        value = (
            jnp.full((*here.shape, len(rows), inputs.shape[1]), jnp.nan)
            .at[:, :, list(rows).index(last), 0]
            .set(here)
        )
        tapped.at(site.name, value)
    return jnp.zeros((len(inputs), 1, params["scores"].shape[1]))


_HEADS = Model(
    lambda key: {}, _attend, Roles(attention=tuple(site.name for site in _SCORES)), _SCORES
)


def _attention(
    scores: np.ndarray, task: ModularArithmetic | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """FVE and frequency [layer head] of scores [layer a b head]."""
    params, context = (
        tables(scores=scores),
        context_of(task or _task(scores.shape[1]), model=_HEADS),
    )
    names = ("attention_fve", "attention_frequency")
    fve, frequency = (np.asarray(MEASURES[name].read(params, context)[name]) for name in names)
    return fve, frequency


def _of_the_first(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Scores [layer a b head] of two layers of heads that depend on the first token only."""
    p, heads = len(columns[0]), len(columns) // 2
    scores = np.stack(columns).reshape(2, heads, p).transpose(0, 2, 1)
    return np.broadcast_to(scores[:, :, None, :], (2, p, p, heads))


@pytest.mark.parametrize("p", [7, 8, 11, 113])
def test_scores_of_one_wave_have_its_frequency_and_are_explained_whole(p: int) -> None:
    frequencies = [1, p // 2, 2, 3]
    waves = [
        (i - 2) * 5 + (1 + i) * np.cos(2 * np.pi * k * np.arange(p) / p + i * (k < p / 2))
        for i, k in enumerate(frequencies)
    ]
    fve, frequency = _attention(_of_the_first(waves))
    np.testing.assert_allclose(fve, 1, atol=1e-5)
    assert frequency.ravel().tolist() == frequencies


@pytest.mark.parametrize("format", ["a b =", "a b"])
@pytest.mark.parametrize("p", [7, 8])
def test_shares_of_scores_are_those_of_least_squares(p: int, format: Any) -> None:
    rng = np.random.default_rng(p)
    scores = rng.normal(2, 1, size=(2, p, p, 3)) + 2 * rng.normal(size=(2, p, 1, 3))
    scores = scores.astype(np.float32).astype(np.float64)
    shares = np.zeros((2, 3, p // 2))
    for layer, head, k in np.ndindex(shares.shape):
        y = scores[layer, :, :, head].ravel() - scores[layer, :, :, head].mean()
        waves = np.repeat(_waves(2 * np.pi * (k + 1) * np.arange(p) / p), p, axis=0)
        shares[layer, head, k] = 1 - ((y - _fitted(y, waves)) ** 2).sum() / (y**2).sum()
    fve, frequency = _attention(scores, ModularArithmetic(p=p, fraction=0.5, format=format))
    np.testing.assert_allclose(fve, shares.max(axis=-1), rtol=1e-5)
    np.testing.assert_array_equal(frequency, 1 + shares.argmax(axis=-1))


def test_waves_of_the_second_token_are_not_explained() -> None:
    wave = np.cos(2 * np.pi * 2 * np.arange(7) / 7)
    first = np.broadcast_to(wave[None, :, None, None], (2, 7, 7, 1))
    fve, frequency = _attention(3 * first + 4 * first.transpose(0, 2, 1, 3))
    np.testing.assert_allclose(fve, 9 / 25, rtol=1e-5)
    assert frequency.tolist() == [[2], [2]]


@pytest.mark.parametrize(("value", "p"), [(0.0, 7), (0.1, 8), (1.7, 59), (0.1, 59), (1234.567, 7)])
def test_scores_that_never_vary_have_no_frequency(value: float, p: int) -> None:
    wave = np.cos(2 * np.pi * np.arange(p) / p)
    fve, frequency = _attention(_of_the_first([np.full(p, value), wave, wave, np.full(p, value)]))
    assert np.isnan(fve).tolist() == [[True, False], [False, True]]
    assert frequency.tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("layers", [1, 2])
def test_a_transformers_heads_are_read_at_the_last_position_for_the_first_token(
    layers: int,
) -> None:
    task = _task(7)
    model = Transformer(layers=layers, d_model=8, heads=2, d_mlp=12).build(task.inputs)
    params = jax.tree.map(lambda x: 2 * x, model.init(jax.random.key(0)))
    sites = [
        f"blocks.{i}.attn.{name}" for i in range(layers) for name in ("attn_scores", "pattern")
    ]
    seen = capture(model.apply, sites)(params, _pairs(7))[1]
    context = context_of(task, model=model)
    values = {
        name: np.asarray(MEASURES[name].read(params, context)[name])
        for name in ("attention_fve", "attention_frequency", "attention_pattern")
    }
    for i in range(layers):
        pattern = np.asarray(seen[f"blocks.{i}.attn.pattern"], np.float64)[:, :, 2]
        np.testing.assert_allclose(values["attention_pattern"][i], pattern.mean(axis=0), rtol=1e-5)
        scores = np.asarray(seen[f"blocks.{i}.attn.attn_scores"], np.float64)[:, :, 2, 0]
        for head in range(2):
            y = scores[:, head] - scores[:, head].mean()
            waves = [
                np.repeat(_waves(2 * np.pi * k * np.arange(7) / 7), 7, axis=0) for k in (1, 2, 3)
            ]
            shares = [(_fitted(y, wave) ** 2).sum() / (y**2).sum() for wave in waves]
            assert values["attention_fve"][i, head] == pytest.approx(max(shares), rel=1e-4)
            assert values["attention_frequency"][i, head] == 1 + np.argmax(shares)


def test_a_model_without_attention_has_no_heads_to_read() -> None:
    model = MLP(width=4).build(_task(5).inputs)
    everything = frozenset(context_of(_task(5)).ground_truth)
    assert (
        MEASURES["attention_fve"].missing(model.roles, everything, frozenset())
        == "needs the model's role 'attention'"
    )
    reason = MEASURES["ablation_loss"].missing(_HEADS.roles, everything, frozenset({"final"}))
    assert reason == "needs the model's role 'neurons', the model's role 'output_map'"
