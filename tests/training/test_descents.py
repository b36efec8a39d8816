"""Every optimizer and filter: three updates against the formulas in float64, identities, settings,
and storage of their states.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import compilations
from conftest import few, tiny_experiment, tiny_mlp_experiment
from descending import ByHand, gradients, norm, ours, tree, wide
from optax import contrib
from unchecked import unchecked

from mi_jax.basics.errors import ConfigError
from mi_jax.basics.fields import sweepable_numbers, with_numbers
from mi_jax.basics.pytrees import dotted
from mi_jax.basics.records import decode, encode
from mi_jax.interventions import Change
from mi_jax.runs.experiment import REGISTRY, Experiment
from mi_jax.runs.train import train
from mi_jax.training import (
    SGD,
    Adam,
    AdamW,
    CosineRate,
    GrokfastEMA,
    GrokfastMA,
    LinearRate,
    Muon,
    OrthogonalGradient,
    StepRate,
    Storage,
)
from mi_jax.training.optimizers import OPTIMIZERS, Descent
from mi_jax.training.state import Program

# Numbers that float32 holds exactly.
_SGD = SGD(0.125)
_ADAM = Adam(0.125, b1=0.75, b2=0.875)
_ADAMW = AdamW(0.125, b1=0.75, b2=0.875, weight_decay=0.5)
_MUON = Muon(
    0.125, adam_learning_rate=0.0625, momentum=0.5, b1=0.75, b2=0.875, orthogonalized=("*.W_*",)
)

CASES: dict[str, Descent] = {
    "sgd": _SGD,
    "sgd momentum": replace(_SGD, momentum=0.75),
    "sgd nesterov": replace(_SGD, momentum=0.75, nesterov=True),
    "sgd decay": replace(_SGD, momentum=0.75, weight_decay=0.5),
    "sgd l2": replace(_SGD, momentum=0.75, l2=0.5),
    "sgd both, to initial": replace(
        _SGD, momentum=0.75, l2=0.5, weight_decay=0.25, decay_to="initial"
    ),
    "sgd warm-up": replace(_SGD, warmup=2),
    "sgd cosine": replace(_SGD, warmup=1, rate_schedule=CosineRate(4, floor=0.25)),
    "adam": _ADAM,
    "adam l2": replace(_ADAM, l2=0.5),
    "adam l2, some": replace(_ADAM, l2=0.5, decayed=("*.W_*",)),
    "adamw": _ADAMW,
    "adamw to initial": replace(_ADAMW, weight_decay=4.0, decay_to="initial"),
    "adamw by group": replace(
        _ADAMW, decayed=("*.W_*", "embed.b"), decay_multipliers=(("embed.*", 2.0), ("*", 0.25))
    ),
    "adamw by group, to initial": replace(
        _ADAMW, decay_multipliers=(("*.b*", 0.0),), weight_decay=4.0, decay_to="initial"
    ),
    "adamw clip": replace(_ADAMW, clip=0.5),
    "sgd clip": replace(_SGD, clip=8.0),
    "sgd fixed norm": replace(_SGD, weight_norm=1.0),
    "adamw fixed norm": replace(_ADAMW, weight_norm=0.75),
    "muon": _MUON,
    "muon plain, decay": replace(_MUON, nesterov=False, weight_decay=0.5, iterations=3),
    "muon, one matrix": replace(_MUON, orthogonalized=("unembed.W_U",)),
    "ema": replace(_SGD, filter=GrokfastEMA(alpha=0.75, lamb=2.0)),
    "ma": replace(_SGD, filter=GrokfastMA(window=2, lamb=4.0)),
    "ma at once": replace(_SGD, filter=GrokfastMA(window=2, lamb=4.0, begin="at_once")),
    "ma sum": replace(_SGD, filter=GrokfastMA(window=3, lamb=0.5, statistic="sum")),
    "ma before adam": replace(_ADAM, filter=GrokfastMA(window=2, lamb=4.0)),
    "orthogonal": replace(_SGD, filter=OrthogonalGradient()),
    "orthogonal, not rescaled": replace(_SGD, filter=OrthogonalGradient(rescaled=False)),
    "in turn": replace(_SGD, filter=GrokfastEMA(alpha=0.5) | OrthogonalGradient()),
    "in turn, other way": replace(_SGD, filter=OrthogonalGradient() | GrokfastEMA(alpha=0.5)),
    "all": replace(
        _SGD,
        filter=GrokfastEMA(alpha=0.5),
        clip=4.0,
        l2=0.25,
        momentum=0.5,
        weight_decay=0.5,
        weight_norm=1.0,
        warmup=1,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_three_updates_are_those_of_the_formulas(case: str) -> None:
    updated, expected = ours(CASES[case], 3), ByHand(CASES[case]).after(3)
    for name, start in wide(tree()).items():
        # A float32 parameter of size 1 to 30 is rounded by up to 1e-6 in three updates.
        scale = max(1.0, np.abs(expected[name]).max())
        np.testing.assert_allclose(
            updated[name] - start,
            expected[name] - start,
            rtol=1e-6,
            atol=5e-7 * scale,
            err_msg=name,
        )


def test_no_two_cases_are_the_same_update() -> None:
    ends = {
        case: np.concatenate([x.ravel() for x in ByHand(settings).after(3).values()])
        for case, settings in CASES.items()
    }
    names = list(ends)
    for i, name in enumerate(names):
        for other in names[i + 1 :]:
            assert np.abs(ends[name] - ends[other]).max() > 1e-3, (name, other)


@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_is_optaxs_own(nesterov: bool) -> None:
    settings = replace(_MUON, nesterov=nesterov, weight_decay=0.5, b2=0.98)
    theirs = contrib.muon(
        0.125,
        beta=0.5,
        nesterov=nesterov,
        weight_decay=0.5,
        adam_b1=0.75,
        adam_b2=0.98,
        adam_weight_decay=0.5,
        adam_learning_rate=0.0625,
    )
    params = jax.tree.map(jnp.asarray, tree())
    state = theirs.init(params)
    for step in range(3):
        updates, state = theirs.update(jax.tree.map(jnp.asarray, gradients(step)), state, params)
        params = optax.apply_updates(params, updates)
    updated = ours(settings, 3)
    for name, x in dotted(params).items():
        if name != "embed.b" and name != "unembed.b_U":
            np.testing.assert_allclose(updated[name], x, rtol=1e-6, atol=1e-6, err_msg=name)
        else:
            # optax's AdamW is given nesterov too.
            assert not nesterov or not np.allclose(updated[name], x, atol=1e-4)


def test_muon_takes_each_head_as_a_matrix() -> None:
    rng = np.random.default_rng(0)
    heads, g = (
        rng.normal(size=(3, 4, 2)).astype(np.float32),
        rng.normal(size=(3, 4, 2)).astype(np.float32),
    )
    settings = Muon(orthogonalized=("W",))
    numbers = sweepable_numbers(settings)

    def moved(params: Any, g: Any) -> Any:
        transform = settings.transform(numbers, 0)
        updates: Any = transform.update({"W": g}, transform.init(params), params)[0]
        return updates["W"]

    together = moved({"W": jnp.asarray(heads)}, jnp.asarray(g))
    for i in range(3):
        alone = moved({"W": jnp.asarray(heads[i])}, jnp.asarray(g[i]))
        np.testing.assert_allclose(together[i], alone, rtol=1e-5, atol=1e-7)
        singular = np.linalg.svd(np.asarray(alone) / 0.02, compute_uv=False)
        assert (singular > 0.6).all()
        assert (singular < 1.3).all()


def _orthogonal(g: np.ndarray, w: np.ndarray) -> Any:
    transform, params = OrthogonalGradient().transform({}), {"w": jnp.asarray(w)}
    updates: Any = transform.update({"w": jnp.asarray(g)}, transform.init(params), params)[0]
    return updates["w"]


@pytest.mark.parametrize("seed", range(5))
def test_an_orthogonal_gradient_is_orthogonal_to_the_weights_and_as_long(seed: int) -> None:
    rng = np.random.default_rng(seed)
    w, g = (rng.normal(size=(40, 30)).astype(np.float32) for _ in range(2))
    left = np.asarray(_orthogonal(g, w))
    assert abs((w * left).sum()) < 1e-6 * np.linalg.norm(w) * np.linalg.norm(g)
    assert abs((w * g).sum()) > 1e-4 * np.linalg.norm(w) * np.linalg.norm(g)
    assert np.linalg.norm(left) == pytest.approx(np.linalg.norm(g), rel=1e-6)


def test_an_orthogonal_gradient_of_zero_weights_or_of_zero_is_itself() -> None:
    ones, zeros = np.ones(3, np.float32), np.zeros(3, np.float32)
    np.testing.assert_array_equal(_orthogonal(ones, zeros), ones)
    np.testing.assert_array_equal(_orthogonal(zeros, ones), zeros)


@pytest.mark.parametrize("scale", [1.0, 0.5, 3.0])
def test_a_held_norm_stays(scale: float) -> None:
    settings = replace(_SGD, weight_norm=scale, momentum=0.5)
    for steps in (1, 2, 20):
        assert norm(wide(ours(settings, steps))) == pytest.approx(
            scale * norm(wide(tree())), rel=1e-6
        )
    assert norm(wide(ours(replace(settings, weight_norm=None), 20))) > 2 * norm(wide(tree()))


def test_without_gradient_decay_to_initial_stays_and_decay_to_zero_shrinks() -> None:
    for settings, stays in ((replace(_ADAMW, decay_to="initial"), True), (_ADAMW, False)):
        numbers, params = sweepable_numbers(settings), jax.tree.map(jnp.asarray, tree())
        transform = settings.transform(numbers, 0)
        updates, _ = transform.update(
            jax.tree.map(jnp.zeros_like, params), transform.init(params), params
        )
        assert (max(float(jnp.abs(u).max()) for u in jax.tree.leaves(updates)) == 0) == stays


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (
            CosineRate(12, floor=0.2),
            [0, 0.5, 1, 0.2 + 0.8 * (1 + np.cos(np.pi / 10)) / 2, 0.6, 0.2, 0.2],
        ),
        (LinearRate(12, floor=0.2), [0, 0.5, 1, 0.92, 0.6, 0.2, 0.2]),
        (StepRate((3, 12), by=0.5), [0, 0.5, 1, 0.5, 0.5, 0.25, 0.25]),
        (None, [0, 0.5, 1, 1, 1, 1, 1]),
    ],
)
def test_the_rate_follows_its_schedule(schedule: Any, expected: list[float]) -> None:
    settings = SGD(2.0, warmup=2, rate_schedule=schedule)
    rates = [
        float(settings.rate(jnp.float32(2.0), jnp.int32(step)))
        for step in (0, 1, 2, 3, 7, 12, 1000)
    ]
    np.testing.assert_allclose(rates, 2 * np.array(expected), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(-1.0), "learning_rate=-1.0"),
        (lambda: SGD(momentum=1.0), "momentum=1.0"),
        (lambda: SGD(momentum=-0.1), "momentum=-0.1"),
        (lambda: SGD(l2=float("nan")), "l2=nan"),
        (lambda: SGD(weight_decay=-1.0), "weight_decay=-1.0"),
        (lambda: Adam(b2=1.0), "b2=1.0"),
        (lambda: Adam(l2=-1.0), "l2=-1.0"),
        (lambda: AdamW(clip=0.0), "clip=0.0: must be a finite number above 0, or None"),
        (lambda: AdamW(clip=float("inf")), "clip=inf"),
        (lambda: AdamW(weight_norm=-1.0), "weight_norm=-1.0"),
        (
            lambda: AdamW(decay_to="initia"),
            "decay_to='initia' is unknown; did you mean initial?",
        ),  # pyright: ignore[reportArgumentType]
        (
            lambda: AdamW(decay_multipliers=(("*", -1.0),)),
            "decay_multipliers: -1.0 for '*' must be",
        ),
        (
            lambda: AdamW(warmup=10, rate_schedule=CosineRate(10)),
            "ends at update 10, within the warm-up of 10",
        ),
        (lambda: CosineRate(0), "cosine rate(steps=0)"),
        (lambda: LinearRate(5, floor=1.5), "linear rate(floor=1.5)"),
        (lambda: StepRate(()), "step rate(at=())"),
        (lambda: StepRate((5, 3)), "step rate(at=(5, 3)): must rise"),
        (lambda: StepRate((5,), by=-1.0), "step rate(by=-1.0)"),
        (lambda: GrokfastEMA(alpha=1.0), "alpha=1.0"),
        (lambda: GrokfastEMA(lamb=-1.0), "lamb=-1.0"),
        (lambda: GrokfastMA(window=0), "window=0"),
        (
            lambda: GrokfastMA(begin="ful"),
            "begin='ful' is unknown; did you mean full?",
        ),  # pyright: ignore[reportArgumentType]
        (
            lambda: GrokfastMA(statistic="men"),
            "statistic='men'",
        ),  # pyright: ignore[reportArgumentType]
        (lambda: Muon(adam_learning_rate=-1.0), "adam_learning_rate=-1.0"),
        (lambda: Muon(iterations=0), "iterations=0"),
        (lambda: Muon(orthogonalized=()), "orthogonalized is empty"),
        (lambda: with_numbers(SGD(filter=GrokfastEMA()), {"filter.lamb": -1.0}), "lamb=-1.0"),
    ],
)
def test_a_bad_setting_is_refused_by_its_name(make: Any, message: str) -> None:
    with unchecked(), pytest.raises(ConfigError, match=re.escape(message)):
        make()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (AdamW(decayed=("*.w_e",)), "decayed: no parameter matches '*.w_e'; known are embed.W_E"),
        (
            AdamW(decay_multipliers=(("embed.c", 2.0),)),
            "decay_multipliers: no parameter matches 'embed.c'; did you mean",
        ),
        (Muon(), "orthogonalized: no parameter matches 'blocks.*.W_*'"),
        (Muon(orthogonalized=("embed.*",)), "orthogonalized: 'embed.b' [2] is no matrix"),
    ],
)
def test_a_pattern_that_fits_no_parameter_is_refused(settings: Descent, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        ours(settings, 0)


def test_a_pattern_that_fits_no_parameter_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match="no parameter matches"):
        train(tiny_mlp_experiment(optimizer=Muon()), tmp_path / "run")
    assert not (tmp_path / "run").exists()


RICH = SGD(
    filter=GrokfastEMA() | GrokfastMA(window=3),
    clip=1.0,
    weight_norm=1.0,
    rate_schedule=StepRate((5, 9)),
    l2=0.1,
)


@pytest.mark.parametrize(
    "settings", [*(make() for make in OPTIMIZERS.values()), RICH, *CASES.values()], ids=str
)
def test_settings_come_back_from_json(settings: Descent) -> None:
    assert decode(encode(settings, REGISTRY), REGISTRY) == settings


def test_fields_added_later_are_written_only_where_they_are_set() -> None:
    assert sorted(encode(AdamW(), REGISTRY)) == sorted(
        ("type", "learning_rate", "weight_decay", "b1", "b2", "eps", "warmup", "decayed")
    )
    assert encode(AdamW(clip=1.0), REGISTRY)["clip"] == 1.0
    with unchecked():
        groups = [AdamW(decay_multipliers=(("*.b", factor),)) for factor in (2, 2.0)]
    assert repr(encode(groups[0], REGISTRY)) == repr(encode(groups[1], REGISTRY))


def test_numbers_of_nested_parts_are_traced_and_may_be_changed_during_training() -> None:
    program = Program(tiny_mlp_experiment(optimizer=RICH, seeds=(0,)).parts())
    numbers, state = program.parts.numbers, program.init()
    assert {
        "optimizer.clip",
        "optimizer.weight_norm",
        "optimizer.filter.first.lamb",
        "optimizer.filter.second.lamb",
    } < set(numbers)
    before, _ = program.advance(state, numbers, 4)
    with compilations("jit(_advance") as compiled:
        for name in set(numbers) - {"optimizer.weight_decay"}:
            after, _ = program.advance(state, {**numbers, name: 0.5 * numbers[name] + 0.125}, 4)
            pairs = zip(jax.tree.leaves(before.params), jax.tree.leaves(after.params), strict=True)
            assert any((x != y).any() for x, y in pairs), f"{name} changes nothing"
    assert compiled == []
    change = Change(field="optimizer.filter.first.lamb", value=-1.0, start=2)
    with pytest.raises(ConfigError, match=r"lamb=-1\.0"):
        tiny_mlp_experiment(optimizer=RICH, interventions=(change,)).parts()


STORED: dict[str, Descent] = {
    "sgd": SGD(0.3, momentum=0.9, l2=1e-3, decay_to="initial", clip=1.0),
    "adam": Adam(
        1e-2, l2=1e-3, filter=GrokfastMA(window=7), decay_multipliers=(("unembed.*", 0.0),)
    ),
    "adamw": AdamW(
        1e-2,
        filter=GrokfastEMA() | OrthogonalGradient(),
        weight_norm=1.0,
        rate_schedule=CosineRate(30),
    ),
    "muon": Muon(
        1e-2, orthogonalized=("unembed.W_U",), weight_decay=0.1, decay_to="initial", warmup=3
    ),
}


class _Stop(Exception):
    """Raised by a watcher to end training."""


def _stop_at(step: int) -> Any:
    def watch(progress: Any) -> None:
        if progress.step >= step:
            raise _Stop

    return watch


@pytest.mark.parametrize("name", few(OPTIMIZERS, 1))
def test_a_run_trained_in_two_goes_has_the_bits_of_one(name: str, tmp_path: Path) -> None:
    experiment = _stored(name)
    whole = train(experiment, tmp_path / "whole")
    with pytest.raises(_Stop):
        train(experiment, tmp_path / "goes", watch=_stop_at(experiment.steps // 2))
    assert (
        0
        < max(int(path.name) for path in (tmp_path / "goes" / "segments").iterdir())
        < experiment.steps
    )
    goes = train(experiment, tmp_path / "goes")
    ends = [dotted(run.state_at(experiment.steps)) for run in (whole, goes)]
    assert ends[0].keys() == ends[1].keys()
    for key, value in ends[0].items():
        assert value.size > 0, key
        np.testing.assert_array_equal(np.asarray(value), np.asarray(ends[1][key]), err_msg=key)
    np.testing.assert_array_equal(whole.losses, goes.losses)
    assert np.isfinite(whole.losses).all()


def _stored(name: str) -> Experiment:
    return tiny_mlp_experiment(
        optimizer=STORED[name], steps=24, seeds=(0, 1), storage=Storage(states=4), name=name
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_vmapped_seeds_equal_mapped_ones_up_to_rounding(name: str) -> None:
    ends = []
    for mode in ("mapped", "vmapped"):
        program = Program(_stored(name).parts(seed_mode=mode))
        ends.append(program.advance(program.init(), program.parts.numbers, 3)[0])
    for mapped, vmapped in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_allclose(mapped, vmapped, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_muon_trains_a_transformer_by_its_default_matrices() -> None:
    program = Program(tiny_experiment(optimizer=Muon(), seeds=(0,)).parts())
    _, losses = program.advance(program.init(), program.parts.numbers, 60)
    assert float(losses[0, 59]) < 0.5 * float(losses[0, 0])
