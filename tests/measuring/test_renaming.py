"""Readings under other names of the elements, against their formulas in float64 NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import noisy_params

from mi_jax.basics.fourier import fourier_basis
from mi_jax.contracts import Context, Reference, Subject, Task
from mi_jax.measures import MEASURES
from mi_jax.measuring.nulls import EXPLANATION, STRUCTURE, Network, RenamedReader, read_renamed
from mi_jax.measuring.program import make_context
from mi_jax.measuring.registry import READINGS
from mi_jax.measuring.renaming import random_names, renamed
from mi_jax.models import MLP, Transformer
from mi_jax.tasks import GroupComposition, ModularArithmetic
from mi_jax.training import CrossEntropy

P = 7
_TASKS: dict[str, Task] = {
    "add": ModularArithmetic(p=P, fraction=0.5),
    "subtract": ModularArithmetic(p=P, operation="subtract", fraction=0.5, label_noise=0.4),
    "group": GroupComposition(group="S3", fraction=0.5),
}


def _network(task: Task, settings: Any, names: tuple[str, ...]) -> tuple[Any, Context, list[Any]]:
    """Noisy parameters, their context, and those measures that apply."""
    subject = Subject(settings.build(task.inputs), task, CrossEntropy())
    params = noisy_params(subject.model)
    facts = set(make_context(subject, 0, Reference(final=params), []).ground_truth)
    measures = [
        READINGS[name]
        for name in names
        if facts >= set(READINGS[name].ground_truth)
        and all(getattr(subject.model.roles, role) for role in READINGS[name].roles)
    ]
    return params, make_context(subject, 0, Reference(final=params), measures), measures


def _read(task: Task, settings: Any, names: tuple[str, ...], orders: np.ndarray, anew: bool) -> Any:
    params, context, measures = _network(task, settings, names)
    return params, context, RenamedReader(measures, anew=anew).read(params, context, orders)


def _tables(params: Any, context: Context) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits [a b class], right answers and trained pairs, by the task's own inputs."""
    p = context.inputs.classes
    logits, answers = np.zeros((p, p, p)), np.zeros((p, p), int)
    labels, trained = np.zeros((p, p), int), np.zeros((p, p), bool)
    for split, batch in context.batches.items():
        inputs = np.asarray(batch.inputs)
        a, b = inputs[:, 0], inputs[:, 1]
        outputs = context.model.apply(params, batch.inputs, positions=context.read)
        logits[a, b] = np.asarray(outputs, np.float64)[:, 0, :p]
        labels[a, b], trained[a, b] = np.asarray(batch.targets)[:, 0], split == "train"
    answers[:] = np.asarray(context.ground_truth["answer"])
    return logits, answers, np.where(trained, labels, -1)


def _cross_entropy(logits: np.ndarray, answers: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return -np.take_along_axis(log, answers[..., None], axis=-1)[..., 0]


@pytest.mark.parametrize("operation", ["add", "subtract"])
@pytest.mark.parametrize("settings", [MLP(width=12), Transformer(d_model=8, heads=2, d_mlp=12)])
def test_relabelled_readings_follow_their_formulas_with_pi_of_the_answer_and_of_the_class(
    operation: str, settings: Any
) -> None:
    orders = np.stack([np.random.default_rng(i).permutation(P) for i in range(3)])
    names = ("logit_fve", "restricted_loss", "excluded_loss")
    params, context, _ = _network(_TASKS[operation], settings, names)
    keys = jnp.array([True, False, False])
    context.prepared["final_key_frequencies"] = keys  # pyright: ignore[reportIndexIssue]
    measures = [MEASURES[name] for name in names]
    found = RenamedReader(measures, anew=False).read(params, context, orders)
    logits, answers, labels = _tables(params, context)
    for draw, pi in enumerate(orders):
        angle = 2 * np.pi * (pi[answers][:, :, None] - pi[None, None, :]) / P
        wave, around = np.cos(angle), logits - logits.mean()
        fve = (wave * around).sum() ** 2 / (wave**2).sum() / (around**2).sum()
        part = np.zeros_like(logits)
        for function in (np.cos, np.sin):
            over_pairs = function(2 * np.pi * pi[answers] / P)
            over_pairs /= np.linalg.norm(over_pairs)
            part += over_pairs[:, :, None] * np.einsum("ab,abc->c", over_pairs, logits)
        # The labels of the losses stay right.
        restricted = _cross_entropy(part + logits.mean(axis=(0, 1)), answers).mean()
        excluded = _cross_entropy(logits - part, np.maximum(labels, 0))[labels >= 0].mean()
        np.testing.assert_allclose(found["logit_fve"][draw], fve, rtol=1e-4)
        np.testing.assert_allclose(found["restricted_loss"][draw], restricted, rtol=1e-5)
        np.testing.assert_allclose(found["excluded_loss"][draw], excluded, rtol=1e-5)


def test_characters_are_of_renamed_answers_and_classes() -> None:
    orders = np.stack([np.random.default_rng(i).permutation(6) for i in range(3)])
    settings = MLP(width=12)
    params, context, found = _read(_TASKS["group"], settings, EXPLANATION, orders, False)
    logits, answers, _ = _tables(params, context)
    facts = {name: np.asarray(fact) for name, fact in context.ground_truth.items()}
    around = logits - logits.mean(axis=2, keepdims=True)
    for draw, pi in enumerate(orders):
        quotient = facts["product"][pi[answers][:, :, None], facts["inverse"][pi][None, None, :]]
        explained = 0.0
        for character in facts["characters"].astype(np.float64):
            trace = character[quotient]
            explained += (trace * around).sum() ** 2 / (trace**2).sum() / (around**2).sum()
        np.testing.assert_allclose(found["logits_explained"][draw], explained, rtol=1e-4)


@pytest.mark.parametrize("settings", [MLP(width=12), Transformer(d_model=8, heads=2, d_mlp=12)])
def test_structure_is_read_of_tables_in_another_order_with_keys_chosen_anew(settings: Any) -> None:
    orders = np.stack([np.random.default_rng(i).permutation(P) for i in range(4)])
    params, context, _ = _network(_TASKS["add"], settings, STRUCTURE)
    # In the first order the readout is one wave, in the others all frequencies are key.
    wave = 30 * jnp.cos(2 * jnp.pi * orders[0] / P)
    params["unembed"]["W_U"] = params["unembed"]["W_U"].at[:, :P].add(wave[None])
    roles, basis = context.model.roles, fourier_basis(P)[1:].astype(np.float64)
    measures = [MEASURES[name] for name in STRUCTURE[:2]] + [READINGS[STRUCTURE[2]]]
    context = make_context(
        Subject(context.model, _TASKS["add"], CrossEntropy()), 0, Reference(final=params), measures
    )
    context.prepared["final_key_frequencies"] = jnp.array([True, False, False])  # pyright: ignore[reportIndexIssue]
    found = RenamedReader(measures, anew=True).read(params, context, orders)
    tables = {
        "gini_embedding": np.concatenate([np.asarray(t(params)) for t in roles.embedding], axis=1),
        "gini_unembedding": np.asarray(roles.output_map(params)).T,  # pyright: ignore[reportOptionalCall]
    }
    few: list[bool] = []
    for draw, names in enumerate(orders):
        ordered = {}
        for name, table in tables.items():
            ordered[name] = np.empty_like(table, np.float64)
            ordered[name][names] = table
            norms = np.sort(np.linalg.norm(basis @ ordered[name], axis=1))
            n = len(norms)
            gini = 2 * (np.arange(1, n + 1) * norms).sum() / (n * norms.sum()) - (n + 1) / n
            np.testing.assert_allclose(found[name][draw], gini, rtol=1e-4)
        table = ordered["gini_unembedding"]
        norms = np.linalg.norm(basis @ table, axis=1).reshape(-1, 2)
        keys = norms.max(axis=1) > 0.25 * norms.max()
        u, waves = np.linalg.svd(table)[0], basis[np.repeat(keys, 2)]
        share = np.square(waves @ u[:, : len(waves)]).sum() / len(waves)
        few.append(2 * keys.sum() <= len(keys))
        share *= few[-1]
        np.testing.assert_allclose(found["key_mode_share_unembedding"][draw], share, rtol=1e-4)
    assert few == [True, False, False, False]


@pytest.mark.parametrize("name", _TASKS)
def test_other_names_leave_every_loss_what_it_was(name: str) -> None:
    losses = ("train_loss", "test_loss", "train_accuracy")
    settings = MLP(width=12)
    params, context, measures = _network(_TASKS[name], settings, losses)
    names = random_names(jax.random.key(1), context.inputs.classes, 1)[0]
    there = renamed(context, jnp.asarray(names))
    for measure in measures:
        here = measure.read(params, context)[measure.name]
        np.testing.assert_allclose(measure.read(params, there)[measure.name], here, rtol=1e-6)


@pytest.mark.parametrize("name", _TASKS)
@pytest.mark.parametrize("anew", [True, False])
def test_the_old_names_give_the_reading_itself(name: str, anew: bool) -> None:
    task, kind = _TASKS[name], STRUCTURE if anew else EXPLANATION
    settings = MLP(width=12, embedding="two", d_embed=6) if name == "group" else MLP(width=12)
    params, context, measures = _network(task, settings, kind)
    found = RenamedReader(measures, anew=anew).read(
        params, context, np.arange(task.inputs.classes)[None]
    )
    assert found
    for measure in measures:
        if not np.isnan(found[measure.name]).any():
            expected = measure.read(params, context)[measure.name]
            np.testing.assert_allclose(found[measure.name][0], expected, rtol=1e-5)


def test_draws_are_reproducible_shared_by_seeds_or_their_own() -> None:
    task, settings = _TASKS["add"], MLP(width=12)
    params, context, measures = _network(task, settings, ("gini_embedding",))
    program = RenamedReader(measures, anew=True)
    twice = [Network(seed, params, context) for seed in (0, 5)]
    shared = read_renamed(program, twice, 40, shared=True)["gini_embedding"]
    own = read_renamed(program, twice, 40, shared=False)["gini_embedding"]
    assert shared.dims == ("seed", "draw")
    assert shared["seed"].values.tolist() == [0, 5]
    np.testing.assert_array_equal(shared.sel(seed=0), shared.sel(seed=5))
    assert (own.sel(seed=0) != own.sel(seed=5)).mean() > 0.5
    again = read_renamed(program, twice[1:], 40, shared=False)["gini_embedding"]
    np.testing.assert_array_equal(own.sel(seed=[5]), again)
    # Draws are a stream: more of them begin with the same.
    more = read_renamed(program, twice, 60, shared=True)["gini_embedding"]
    np.testing.assert_array_equal(more.isel(draw=slice(40)), shared)


def test_few_elements_have_every_permutation_once() -> None:
    drawn = random_names(jax.random.key(0), 4, 199)
    assert len({tuple(row) for row in drawn.tolist()}) == len(drawn) == 23
    assert [0, 1, 2, 3] not in drawn.tolist()
    many = random_names(jax.random.key(0), 23, 199)
    assert many.shape == (199, 23)
    np.testing.assert_array_equal(np.sort(many, axis=1), np.tile(np.arange(23), (199, 1)))
