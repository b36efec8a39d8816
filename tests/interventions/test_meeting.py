"""Interventions that meet in one update: the stated order, no silent undoing, a held norm."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import jax
import numpy as np
import pytest
from conftest import tiny_mlp_experiment

from mi_jax.basics.errors import ConfigError, RunError
from mi_jax.basics.fourier import fourier_basis
from mi_jax.basics.pytrees import dotted
from mi_jax.interventions import (
    INTERVENTIONS,
    Ablate,
    AtParams,
    Change,
    Clamp,
    Freeze,
    Graft,
    Intervention,
    Project,
    Reset,
    Transplant,
)
from mi_jax.training import SGD, AdamW
from mi_jax.training.loop import replay
from mi_jax.training.program_schedule import ProgramSchedule
from mi_jax.training.state import TrainState

MLP = tiny_mlp_experiment(seeds=(0, 3), steps=40)
START, LATER, NAME = 5, 8, "unembed.W_U"


def _programs(*interventions: Any, of: Any = MLP, load_params: Any = None) -> ProgramSchedule:
    parts = replace(of, interventions=interventions).parts()
    if load_params is None:
        return ProgramSchedule(parts)
    return ProgramSchedule(parts, load_params=load_params)


def _at(programs: ProgramSchedule, step: int) -> TrainState:
    return replay(programs, programs.init(), 0, step)


def _arrays(state: TrainState) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in dotted(state.params).items()}


@pytest.fixture(scope="module")
def plain() -> dict[int, TrainState]:
    """The states of a run without interventions."""
    programs = _programs()
    return {step: _at(programs, step) for step in (0, START, START + 1, 20)}


def _norms(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The norm of all parameters together, per seed, in float64."""
    squares = [(x.astype(np.float64) ** 2).reshape(len(x), -1).sum(axis=1) for x in arrays.values()]
    return np.sqrt(np.sum(squares, axis=0))


# Freeze and what changes the same parameters in the same update.


_ONCE: dict[str, Callable[[], Intervention]] = {
    "reset": lambda: Reset(NAME, start=START),
    "graft": lambda: Graft(NAME, None, 20, start=START),
    "project once": lambda: Project(NAME, frequencies=(2, 3), every=None, start=START),
    "project": lambda: Project(NAME, frequencies=(2, 3), start=START),
}


@pytest.mark.parametrize("kind", _ONCE)
@pytest.mark.parametrize("freeze_is_last", [True, False])
def test_freeze_holds_the_values_that_another_change_of_the_same_update_gives(
    kind: str, freeze_is_last: bool, plain: dict[int, TrainState]
) -> None:
    pair = (Freeze(NAME, start=START), _ONCE[kind]())
    programs = _programs(
        *(pair[::-1] if freeze_is_last else pair),
        load_params=lambda path, step: plain[step].params,
    )
    first, later = (_arrays(_at(programs, step))[NAME] for step in (START + 1, LATER))
    before = _arrays(plain[START])[NAME]
    if kind.startswith("project"):
        basis = fourier_basis(11)[3:7]
        np.testing.assert_allclose(
            first, before - before @ basis.T @ basis, atol=2e-6 * np.abs(before).max()
        )
        np.testing.assert_allclose(later, first, atol=2e-6 * np.abs(before).max())
    else:
        source = plain[0 if kind == "reset" else 20]
        np.testing.assert_array_equal(first, _arrays(source)[NAME])
        np.testing.assert_array_equal(later, first)
    assert np.abs(first - before).max() > 1e-3


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_change_acts_in_its_stated_place_whatever_its_place_in_the_list(
    order: tuple[int, ...], plain: dict[int, TrainState]
) -> None:
    three = (
        Freeze("*", start=START),
        Reset(NAME, start=START),
        Project(NAME, frequencies=(2,), start=START),
    )
    after = _arrays(_at(_programs(*(three[i] for i in order)), START + 1))
    basis, initial = fourier_basis(11)[3:5], _arrays(plain[0])[NAME]
    np.testing.assert_allclose(after[NAME], initial - initial @ basis.T @ basis, atol=1e-6)
    for name in set(after) - {NAME}:
        np.testing.assert_array_equal(after[name], _arrays(plain[START])[name])


def test_of_two_replacements_the_later_in_the_list_wins_where_they_overlap(
    plain: dict[int, TrainState],
) -> None:
    pair = (Graft("*", None, 20, start=START), Reset(NAME, start=START))
    programs = _programs(*pair, load_params=lambda path, step: plain[step].params)
    after = _arrays(_at(programs, START + 1))
    for name, value in after.items():
        np.testing.assert_array_equal(value, _arrays(plain[0 if name == NAME else 20])[name])


_SITE = "hidden.0.post"
_WITHOUT_EFFECT: dict[str, tuple[Intervention, ...]] = {
    "reset, graft": (Reset(NAME, start=5), Graft("*", None, 20, start=5)),
    "graft, reset": (Graft(NAME, None, 20, start=5), Reset(NAME, start=5)),
    "clamp, ablate": (Clamp(_SITE, 0.5, start=3, stop=9), Ablate(_SITE, start=2)),
    "ablate, clamp": (
        Ablate(_SITE, only={"neuron": (1,)}),
        Clamp(_SITE, 0.5, only={"neuron": (1, 2)}),
    ),
    "clamp, transplant": (Clamp(_SITE, 0.5), Transplant(_SITE, None, 20)),
    "change, change": (
        Change("optimizer.learning_rate", 0.1, start=3, stop=5),
        Change("optimizer.learning_rate", 0.2, start=3),
    ),
    "change, whole part": (
        Change("optimizer.learning_rate", 0.1, start=3),
        Change("optimizer", SGD(0.2), start=3),
    ),
    "change, part by name": (
        Change("optimizer.learning_rate", 0.1, start=3),
        Change("optimizer.name", "sgd", start=3),
    ),
    "change, two that take turns": (
        Change("optimizer.learning_rate", 0.1, start=3, stop=9),
        Change("optimizer.learning_rate", 0.2, stop=5),
        Change("optimizer.name", "sgd", start=5),
    ),
}


@pytest.mark.parametrize("pair", _WITHOUT_EFFECT)
def test_an_intervention_that_another_undoes_wholly_is_refused(
    pair: str, plain: dict[int, TrainState]
) -> None:
    first, *others = _WITHOUT_EFFECT[pair]
    programs = _programs(first, *others, load_params=lambda path, step: plain[step].params)
    with pytest.raises(ConfigError, match=r"would have no effect.*replaced by"):
        programs.check()
    _programs(*others, load_params=lambda path, step: plain[step].params).check()


@pytest.mark.parametrize(
    "pair",
    [
        (Reset("*", start=5), Graft(NAME, None, 20, start=5)),
        (Reset(NAME, start=5), Graft("*", None, 20, start=6)),
        (Clamp(_SITE, 0.5), Ablate(_SITE, start=2)),
        (Ablate(_SITE), Clamp(_SITE, 0.5, only={"neuron": (1,)})),
        (Clamp(_SITE, 0.5, only={"neuron": (1,)}), Ablate(_SITE, only={"neuron": (2,)})),
        (
            Change("optimizer.learning_rate", 0.1, start=3, stop=9),
            Change("optimizer.learning_rate", 0.2, start=5),
        ),
        (Change("optimizer.name", "sgd"), Change("optimizer.learning_rate", 0.1)),
        (
            Change("optimizer.learning_rate", 0.1, start=3, stop=9),
            Change("optimizer.learning_rate", 0.2, stop=5),
            Change("optimizer.learning_rate", 0.3, start=6),
        ),
    ],
)
def test_an_intervention_of_which_something_is_left_is_allowed(
    pair: tuple[Intervention, ...], plain: dict[int, TrainState]
) -> None:
    _programs(*pair, load_params=lambda path, step: plain[step].params).check()


@pytest.mark.parametrize("name", INTERVENTIONS)
def test_an_intervention_given_twice_is_refused_or_acts_twice(name: str) -> None:
    """A repetition of any kind of replacement has no effect, so every kind answers for itself."""
    made: dict[str, Intervention] = {
        "change": Change("optimizer.learning_rate", 0.1),
        "clamp": Clamp(_SITE, 0.5),
        "ablate": Ablate(_SITE),
        "transplant": Transplant(_SITE, None, 20),
        "graft": Graft(NAME, None, 20),
        "freeze": Freeze(NAME),
        "reset": Reset(NAME),
        "project": Project(NAME, frequencies=(2,)),
    }
    names = frozenset({NAME})
    replaces = name not in ("freeze", "project")
    assert made[name].overwrites(made[name], names) is replaces


# A held norm.


_HELD: dict[str, tuple[Callable[[], tuple[Intervention, ...]], tuple[str, ...]]] = {
    "freeze": (lambda: (Freeze(NAME, start=START),), (NAME,)),
    "project": (lambda: (Project(NAME, frequencies=(2, 3), start=START),), ()),
    "project once": (lambda: (Project(NAME, frequencies=(2,), every=None, start=START),), ()),
    "project every third": (lambda: (Project(NAME, frequencies=(2,), every=3, start=START),), ()),
    "reset": (lambda: (Reset(NAME, start=START),), ()),
    "graft": (lambda: (Graft(NAME, None, 20, start=START),), ()),
    "reset and freeze": (lambda: (Reset(NAME, start=START), Freeze(NAME, start=START)), (NAME,)),
    "freeze all": (lambda: (Freeze("*", start=START),), ("*",)),
    "clamp": (lambda: (Clamp(_SITE, 0.1, start=START),), ()),
}


@pytest.mark.parametrize("optimizer", [AdamW(1e-2, weight_norm=1.0), SGD(0.5, weight_norm=1.2)])
@pytest.mark.parametrize("kind", _HELD)
def test_a_held_norm_is_held_under_interventions(
    kind: str, optimizer: Any, plain: dict[int, TrainState]
) -> None:
    make, frozen = _HELD[kind]
    of = replace(MLP, optimizer=optimizer)
    programs = _programs(*make(), of=of, load_params=lambda path, step: plain[step].params)
    state = programs.init()
    target = optimizer.weight_norm * _norms(_arrays(state))
    held: list[dict[str, np.ndarray]] = []
    for step in range(12):
        state = replay(programs, state, step, step + 1)
        held.append(_arrays(state))
        np.testing.assert_allclose(_norms(held[-1]), target, rtol=2e-6, err_msg=f"step {step + 1}")
    first, last = held[START], held[-1]
    for name in first:
        if name in frozen or "*" in frozen:
            np.testing.assert_array_equal(last[name], first[name])
        else:
            assert np.abs(last[name] - first[name]).max() > 1e-4
    if "reset" in kind or "graft" in kind:
        source = _arrays(plain[20 if kind == "graft" else 0])[NAME]
        np.testing.assert_array_equal(first[NAME], source)
    if kind == "project":
        waves = fourier_basis(11)[3:7]
        assert np.abs(last[NAME] @ waves.T).max() < 2e-6 * np.abs(last[NAME]).max()


@dataclass(frozen=True)
class Halve(AtParams):
    """Halves every parameter: a user's own intervention, which states nothing about a norm."""

    def after(self, params: Any, before: Any, arrays: Any) -> Any:
        return jax.tree.map(lambda x: 0.5 * x, params)


def test_a_held_norm_is_held_under_a_users_own_intervention() -> None:
    of = replace(MLP, optimizer=AdamW(1e-2, weight_norm=1.0))
    programs = _programs(Halve(start=3), of=of)
    after, target = _norms(_arrays(_at(programs, 7))), _norms(_arrays(programs.init()))
    np.testing.assert_allclose(after, target, rtol=2e-6)


def test_a_norm_that_the_frozen_parameters_exceed_is_refused_where_it_begins() -> None:
    of = replace(MLP, optimizer=AdamW(1e-2, weight_norm=1.0))
    changes = (Freeze(NAME, start=2), Change("optimizer.weight_norm", 1e-3, start=6))
    programs = _programs(*changes, of=of)
    with pytest.raises(RunError, match=r"At step 6, weight_norm=0\.001 .*Freeze"):
        _at(programs, 8)


def test_a_norm_that_nothing_is_left_to_hold_is_refused_before_training() -> None:
    of = replace(MLP, optimizer=AdamW(1e-2, weight_norm=1.0))
    project = Project(NAME, frequencies=(2,), start=2, every=4)
    all_but_one = tuple(n for n in dotted(_programs().base.template.params) if n != NAME)
    for frozen in ((Freeze("*", start=5),), (Freeze(NAME, start=3), Freeze(all_but_one, start=6))):
        with pytest.raises(ConfigError, match=r"Project.* at update 6, where Freeze.*weight_norm"):
            _programs(project, *frozen, of=of).check()
    # Without a held norm, with something left to hold it, or at other updates, nothing is wrong.
    _programs(project, Freeze("*", start=5)).check()
    _programs(project, Freeze(all_but_one, start=5), of=of).check()
    _programs(project, Freeze("*", start=7, stop=10), of=of).check()
