"""AdamW: each update against its formula in float64, its settings, and no new program for other
numbers.
"""

import re
from dataclasses import dataclass, fields, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import compilations
from conftest import tiny_mlp_experiment
from descending import Flat, gradients, ours, tree

from mi_jax.basics.errors import ConfigError
from mi_jax.basics.fields import Bounds, Numbers, check_bounds, sweepable
from mi_jax.basics.pytrees import dotted
from mi_jax.contracts import Optimizer
from mi_jax.interventions import Change
from mi_jax.training import OPTIMIZERS, AdamW
from mi_jax.training.decay import decay_mask
from mi_jax.training.state import Program


def _by_hand(settings: AdamW, steps: int, decays: set[str]) -> Flat:
    """arXiv 1711.05101, algorithm 2, in float64, with the warm-up of arXiv 2301.05217's code."""
    theta = {name: x.astype(np.float64) for name, x in dotted(tree()).items()}
    m = {name: np.zeros_like(x) for name, x in theta.items()}
    v = {name: np.zeros_like(x) for name, x in theta.items()}
    for step in range(steps):
        rate = settings.learning_rate * (
            min(step / settings.warmup, 1.0) if settings.warmup else 1.0
        )
        for name, g in dotted(gradients(step)).items():
            g, t = g.astype(np.float64), step + 1
            m[name] = settings.b1 * m[name] + (1 - settings.b1) * g
            v[name] = settings.b2 * v[name] + (1 - settings.b2) * g * g
            direction = (m[name] / (1 - settings.b1**t)) / (
                np.sqrt(v[name] / (1 - settings.b2**t)) + settings.eps
            )
            decay = settings.weight_decay * theta[name] if name in decays else 0.0
            theta[name] = theta[name] - rate * (direction + decay)
    return theta


ALL = {"embed.W_E", "embed.b", "unembed.W_U", "unembed.b_U"}
SETTINGS = {
    "plain": (AdamW(learning_rate=0.1, weight_decay=0.7), ALL),
    "no decay": (AdamW(learning_rate=0.1, weight_decay=0.0), ALL),
    "large eps": (AdamW(learning_rate=0.1, weight_decay=0.7, b1=0.5, b2=0.8, eps=0.3), ALL),
    "no momentum": (AdamW(learning_rate=0.1, b1=0.0, b2=0.0), ALL),
    "weights decay": (AdamW(learning_rate=0.1, decayed=("*.W_*",)), {"embed.W_E", "unembed.W_U"}),
    "some decay": (
        AdamW(learning_rate=0.1, decayed=("unembed.*", "embed.b")),
        {"embed.b", "unembed.W_U", "unembed.b_U"},
    ),
    "nothing decays": (AdamW(learning_rate=0.1, decayed=()), set()),
    "warm-up": (AdamW(learning_rate=0.1, warmup=2), ALL),
}


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("case", SETTINGS)
def test_updates_are_those_of_the_formula(case: str, steps: int) -> None:
    settings, decays = SETTINGS[case]
    updated, expected = ours(settings, steps), _by_hand(settings, steps, decays)
    for name, start in dotted(tree()).items():
        # Float32 parameters of size 1 carry 1.2e-7; the factor 1 - b2^t carries 1e-6 of
        # float32(b2).
        np.testing.assert_allclose(
            updated[name] - start, expected[name] - start, rtol=5e-6, atol=5e-7, err_msg=name
        )


def test_the_oracle_itself_tells_decay_and_rate_apart() -> None:
    settings, _ = SETTINGS["plain"]
    for other in (
        replace(settings, weight_decay=0.707),
        replace(settings, learning_rate=0.101),
        replace(settings, b1=0.909),
    ):
        assert any(
            abs(x - y).max() > 1e-4
            for x, y in zip(
                _by_hand(other, 3, ALL).values(), ours(settings, 3).values(), strict=True
            )
        )


@pytest.mark.parametrize("warmup", [0, 3])
def test_updates_are_optax_adamws(warmup: int) -> None:
    settings = AdamW(learning_rate=0.01, weight_decay=0.5, warmup=warmup)
    schedule = (lambda count: 0.01 * jnp.minimum(count / warmup, 1.0)) if warmup else 0.01
    theirs = optax.adamw(schedule, b1=0.9, b2=0.98, weight_decay=0.5)
    params = jax.tree.map(jnp.asarray, tree())
    state = theirs.init(params)
    for step in range(5):
        updates, state = theirs.update(jax.tree.map(jnp.asarray, gradients(step)), state, params)
        params = optax.apply_updates(params, updates)
    for name, x in dotted(params).items():
        np.testing.assert_allclose(ours(settings, 5)[name], x, rtol=1e-6, atol=1e-7)


def test_the_first_update_of_a_warm_up_changes_nothing_and_the_second_something() -> None:
    settings, start = AdamW(warmup=10), dotted(tree())
    assert all((x == start[name]).all() for name, x in ours(settings, 1).items())
    assert all((x != start[name]).all() for name, x in ours(settings, 2).items())


def test_without_warm_up_the_first_update_changes_everything() -> None:
    assert all((x != dotted(tree())[name]).all() for name, x in ours(AdamW(), 1).items())


@pytest.mark.parametrize(
    ("patterns", "decayed"),
    [
        (("*",), ALL),
        (("*.W_*",), {"embed.W_E", "unembed.W_U"}),
        (("embed.*",), {"embed.W_E", "embed.b"}),
        (("unembed.b_U", "embed.b"), {"embed.b", "unembed.b_U"}),
        ((), set()),
    ],
)
def test_a_mask_holds_the_names_that_match(patterns: tuple[str, ...], decayed: set[str]) -> None:
    assert {name for name, on in dotted(decay_mask(patterns)(tree())).items() if on} == decayed


@pytest.mark.parametrize(
    "setting",
    [
        {"learning_rate": float("nan")},
        {"learning_rate": -1e-3},
        {"learning_rate": float("inf")},
        {"learning_rate": 4e38},
        {"weight_decay": -0.1},
        {"weight_decay": float("nan")},
        {"eps": -1e-8},
        {"b1": 1.0},
        {"b1": -0.1},
        {"b2": 1.0},
        {"b2": float("nan")},
        {"warmup": -1},
    ],
    ids=str,
)
def test_a_bad_setting_is_refused_by_its_name(setting: dict[str, Any]) -> None:
    ((name, value),) = setting.items()
    with pytest.raises(ConfigError, match=re.escape(f"{name}={value}")):
        AdamW(**setting)


def test_other_numbers_compile_nothing_and_change_the_result() -> None:
    program = Program(tiny_mlp_experiment(seeds=(0,)).parts())
    state, numbers = program.init(), program.parts.numbers
    before, _ = program.advance(state, numbers, 3)
    assert set(numbers) == {
        f"optimizer.{name}" for name in ("learning_rate", "weight_decay", "b1", "b2", "eps")
    }
    with compilations("jit(_advance") as compiled:
        for name, value in numbers.items():
            other = {**numbers, name: 0.5 if name.endswith(("b1", "b2")) else 3.0 * value}
            after, _ = program.advance(state, other, 3)
            pairs = zip(jax.tree.leaves(before.params), jax.tree.leaves(after.params), strict=True)
            assert any((x != y).any() for x, y in pairs), f"{name} changes nothing"
    assert compiled == []


def test_compilations_are_counted() -> None:
    program = Program(tiny_mlp_experiment(seeds=(0,)).parts())
    state = program.init()
    with compilations("jit(_advance") as compiled:
        program.advance(state, program.parts.numbers, 3)
    assert len(compiled) == 1


@dataclass(frozen=True)
class Signs(Optimizer):
    """A user's optimizer, which shares nothing with ``Descent``: theta <- theta - lr sign(g)."""

    learning_rate: float = sweepable(0.1, minimum=0)
    share: float = sweepable(1.0, above=0, maximum=1)

    def __post_init__(self) -> None:
        check_bounds(self)

    def transform(self, numbers: Numbers, step: Any) -> optax.GradientTransformation:
        scale = numbers["learning_rate"] * numbers["share"]
        return optax.stateless(lambda g, params: jax.tree.map(lambda x: -scale * jnp.sign(x), g))


def test_the_bounds_of_a_users_own_optimizer_are_checked_when_it_is_built_and_changed() -> None:
    with pytest.raises(ConfigError, match=r"share=1\.5: must be above 0 and at most 1"):
        Signs(share=1.5)
    change = Change(field="optimizer.share", value=0.0, start=2)
    with pytest.raises(ConfigError, match=r"share=0\.0"):
        tiny_mlp_experiment(optimizer=Signs(), interventions=(change,)).parts()
    program = Program(tiny_mlp_experiment(optimizer=Signs(), seeds=(0,)).parts())
    state = program.init()
    after, _ = program.advance(state, program.parts.numbers, 1)
    for name, x in dotted(after.params).items():
        moved = np.abs(np.asarray(x) - np.asarray(dotted(state.params)[name]))
        np.testing.assert_allclose(moved[moved > 0], 0.1, rtol=1e-5)
        assert (moved > 0).any()


def test_the_bounds_of_every_registered_optimizer_stand_in_its_fields() -> None:
    for cls in OPTIMIZERS.values():
        for f in fields(cls):
            if f.metadata.get("sweepable"):
                assert f.metadata["bounds"] != Bounds(), f"{cls.__name__}.{f.name}"
