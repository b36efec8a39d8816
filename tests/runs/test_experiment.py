"""Experiments: JSON both ways, identity, classes of the user, and several runs of one experiment
opened together.
"""

import importlib
import json
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import tiny_experiment, tiny_mlp_experiment
from unchecked import unchecked

from mi_jax.basics.errors import ConfigError, RunError
from mi_jax.basics.pytrees import dotted
from mi_jax.interventions import Change
from mi_jax.models import MLP, Transformer
from mi_jax.planted.paths import RandomWalk
from mi_jax.runs.experiment import Experiment
from mi_jax.runs.run import Run, open_run
from mi_jax.runs.train import train
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import (
    AdamW,
    CosineRate,
    CrossEntropy,
    GrokfastEMA,
    Storage,
    at,
    dense,
    every,
    log_spaced,
)
from mi_jax.training.loop import Progress

RICH = Experiment(
    task=ModularArithmetic(
        p=13, operation="x^2+xy+y^2", fraction=0.4, split="permutation", split_seed=5, batch_size=9
    ),
    model=Transformer(
        layers=2,
        d_model=12,
        heads=3,
        d_head=6,
        normalization="rms",
        positions="rotary",
        unembed_bias=True,
    ),
    optimizer=AdamW(learning_rate=2e-3, decayed=("*.W_*", "unembed.*"), warmup=4),
    steps=321,
    schedule=log_spaced(9) | at(3, 77) | dense(100, 2) | every(90),
    seeds=(4, 0, 17),
    interventions=(
        Change(field="optimizer.weight_decay", value=0.25, start=10, stop=20),
        Change(field="optimizer.learning_rate", value=1e-4, start=300),
    ),
    name="rich",
    storage=Storage(snapshots=5, megabytes=1.5, states=3),
)


@dataclass(frozen=True)
class OtherLoss(CrossEntropy):
    """A loss that isn't the default."""


def test_a_rich_experiment_survives_json() -> None:
    again = Experiment.from_json(json.loads(json.dumps(RICH.to_json())))
    assert again == RICH
    assert again.hash == RICH.hash
    assert again.snapshots().tolist() == RICH.snapshots().tolist()


@pytest.mark.parametrize("experiment", [Experiment(), tiny_experiment(), tiny_mlp_experiment()])
def test_a_plain_experiment_survives_json(experiment: Experiment) -> None:
    assert Experiment.from_json(json.loads(json.dumps(experiment.to_json()))) == experiment


@pytest.mark.parametrize(
    "path",
    [(), ("task",), ("model",), ("optimizer",), ("schedule",), ("interventions", 0), ("storage",)],
)
def test_an_unknown_key_is_refused_at_every_level(path: tuple[Any, ...]) -> None:
    record = json.loads(json.dumps(RICH.to_json()))
    place = record
    for key in path:
        place = place[key]
    place["bogus"] = 1
    with pytest.raises(ConfigError, match="has no setting 'bogus'"):
        Experiment.from_json(record)


# By field, another value than RICH's. Experiment's own fields, then those of its parts.
OTHER: dict[str, dict[str, Any]] = {
    "": {
        "task": ModularArithmetic(p=13),
        "model": MLP(),
        "optimizer": AdamW(),
        "loss": OtherLoss(),
        "steps": 322,
        "schedule": log_spaced(9),
        "interventions": (),
        "precision": "float64",
    },
    "task": {
        "p": 17,
        "operation": "add",
        "fraction": 0.41,
        "split": "published",
        "split_seed": 6,
        "split_per_seed": True,
        "format": "a b",
        "batch_size": None,
        "label_noise": 0.1,
    },
    "model": {
        "layers": 3,
        "d_model": 24,
        "heads": 2,
        "d_head": 4,
        "d_mlp": 7,
        "activation": "gelu",
        "normalization": "none",
        "positions": "learned",
        "attention": "bidirectional",
        "attention_scale": 2.5,
        "attention_rate": 0.5,
        "attention_bias": True,
        "mlp_bias": False,
        "unembed_bias": False,
        "output_vocabulary": 20,
        "logit_scale": 0.5,
        "initialization": "fan_in",
        "init_scale": 1.5,
    },
    "optimizer": {
        "learning_rate": 2.001e-3,
        "weight_decay": 0.9,
        "b1": 0.8,
        "b2": 0.9,
        "eps": 1e-7,
        "warmup": 5,
        "decayed": ("*",),
        "rate_schedule": CosineRate(300),
        "filter": GrokfastEMA(lamb=3.0),
        "clip": 1.0,
        "decay_multipliers": (("*.b_*", 0.5),),
        "decay_to": "initial",
        "weight_norm": 0.8,
    },
}


@pytest.mark.parametrize(
    ("part", "name"), [(part, name) for part, changes in OTHER.items() for name in changes]
)
def test_every_setting_that_decides_a_number_changes_the_identity(part: str, name: str) -> None:
    value = OTHER[part][name]
    changed = replace(
        RICH, **({part: replace(getattr(RICH, part), **{name: value})} if part else {name: value})
    )
    assert changed.hash != RICH.hash


def test_a_planted_path_is_part_of_the_identity_and_excludes_interventions_and_float64() -> None:
    plain = replace(RICH, interventions=())
    hashes = {
        plain.hash,
        replace(plain, path=RandomWalk()).hash,
        replace(plain, path=RandomWalk(scale=2.0)).hash,
    }
    assert len(hashes) == 3
    with pytest.raises(
        ConfigError, match=r"planted trajectory is not trained.*Change\(.*Fork the planted run"
    ):
        replace(RICH, path=RandomWalk())
    with pytest.raises(
        ConfigError, match=r"precision='float64' is invalid .* Use precision='float32'"
    ):
        replace(plain, path=RandomWalk(), precision="float64")


def test_no_setting_is_left_out_above() -> None:
    outside = {"seeds", "name", "storage", "path", "accept_machine"}
    assert set(OTHER[""]) | outside == {f.name for f in fields(Experiment)}
    for part in ("task", "model", "optimizer"):
        assert set(OTHER[part]) == {f.name for f in fields(getattr(RICH, part))}, part


@pytest.mark.parametrize(
    "changes",
    [
        {"seeds": (1,)},
        {"name": "other"},
        {"storage": Storage(snapshots=7)},
        {"accept_machine": "any"},
    ],
    ids=str,
)
def test_seeds_name_and_storage_are_outside_the_identity(changes: dict[str, Any]) -> None:
    assert replace(RICH, **changes).hash == RICH.hash


@pytest.mark.parametrize(
    "change", [{"field": "optimizer.b1"}, {"value": 0.3}, {"start": 11}, {"stop": 21}], ids=str
)
def test_every_setting_of_an_intervention_changes_the_identity(change: dict[str, Any]) -> None:
    first, second = RICH.interventions
    assert replace(RICH, interventions=(replace(first, **change), second)).hash != RICH.hash
    assert replace(RICH, interventions=(second, first)).hash != RICH.hash


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps=0"),
        ({"steps": 10.0}, "steps=10.0"),
        ({"seeds": (1.5,)}, "whole numbers"),
        ({"seeds": ()}, "seeds is empty"),
        ({"seeds": (1, 2, 1)}, r"seeds=\(1, 2, 1\) contains a seed twice. Give each seed once"),
        ({"seeds": (-1,)}, "whole numbers"),
        ({"seeds": (2**31,)}, "whole numbers"),
        ({"name": ""}, "name=''"),
        ({"name": "a/b"}, "a/b"),
    ],
    ids=str,
)
def test_an_invalid_experiment_is_refused(changes: dict[str, Any], message: str) -> None:
    with unchecked(), pytest.raises(ConfigError, match=message):
        tiny_experiment(**changes)


@pytest.mark.parametrize(
    "setting",
    [{"snapshots": 0}, {"states": 0}, {"megabytes": 0.0}, {"megabytes": float("nan")}],
    ids=str,
)
def test_an_invalid_storage_is_refused(setting: dict[str, Any]) -> None:
    ((name, value),) = setting.items()
    with pytest.raises(ConfigError, match=f"{name}={value}"):
        tiny_experiment(storage=Storage(**setting))


OWN_TASK = '''
from dataclasses import dataclass

from mi_jax.tasks import ModularArithmetic


@dataclass(frozen=True)
class Mine(ModularArithmetic):
    """Addition with a note."""

    note: float = 2.0
'''


@pytest.fixture
def own_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run whose task is a class of a file that is on the Python path during training and gone
    afterwards.
    """
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "own_task.py").write_text(OWN_TASK)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(folder)
        task = importlib.import_module("own_task").Mine(p=11, fraction=0.5, note=3)
        train(tiny_mlp_experiment(task=task, steps=10), tmp_path / "run")
    monkeypatch.delitem(sys.modules, "own_task")
    return open_run(tmp_path / "run")


def test_a_users_class_is_stored_by_module_and_name(own_run: Run) -> None:
    stored = own_run.record["experiment"]["task"]
    assert (stored["type"], stored["note"], stored["p"]) == ("own_task:Mine", 3.0, 11)


def test_a_run_whose_class_is_gone_still_gives_its_arrays(own_run: Run) -> None:
    assert own_run.params(10)["embed_a"]["W_E"].shape == (3, 11, 24)
    assert own_run.stack([0, 10])["unembed"]["W_U"].shape == (2, 3, 24, 11)
    assert own_run.losses.shape == (3, 10)
    assert own_run.steps.tolist() == list(range(11))
    assert own_run.status[2].state == "finished"


@pytest.mark.parametrize(
    "ask", [lambda run: run.experiment, lambda run: run.state_at(3), lambda run: run.measure()]
)
def test_a_run_whose_class_is_gone_says_what_is_missing_when_it_is_needed(
    own_run: Run, ask: Any
) -> None:
    with pytest.raises(ConfigError, match=r"classes of own_task.* no module own_task in .*allow"):
        ask(own_run)


def test_a_run_whose_class_is_back_is_resumed(
    own_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path / "modules")
    importlib.import_module("own_task")
    assert type(own_run.experiment.task).__name__ == "Mine"
    assert own_run.state_at(3).step.tolist() == [3, 3, 3]


SEEDS = tiny_mlp_experiment(steps=30)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Seeds 0, 1 and 2 in one run; the same in two; the second with another name and storage."""
    folder = tmp_path_factory.mktemp("seeds")
    return {
        "whole": train(SEEDS, folder / "whole"),
        "first": train(replace(SEEDS, seeds=(2, 0)), folder / "first"),
        "second": train(
            replace(SEEDS, seeds=(1,), name="second", storage=Storage(states=2)), folder / "second"
        ),
        "other": train(
            replace(SEEDS, seeds=(1,), optimizer=AdamW(learning_rate=2e-2)), folder / "other"
        ),
    }


@pytest.fixture(scope="module")
def joined(runs: dict[str, Run]) -> Run:
    return open_run([runs["first"].path, str(runs["second"].path)])


def test_runs_of_one_experiment_open_as_one(runs: dict[str, Run], joined: Run) -> None:
    assert joined.seeds == (2, 0, 1)
    assert joined.steps.tolist() == runs["whole"].steps.tolist()
    assert list(joined.status) == [2, 0, 1]


def test_joined_runs_give_each_seeds_parameters_bit_for_bit(
    runs: dict[str, Run], joined: Run
) -> None:
    whole, both = dotted(runs["whole"].stack()), dotted(joined.stack())
    assert list(both) == list(whole)
    for name, stack in both.items():
        assert np.array_equal(stack, whole[name][:, [2, 0, 1]])
    for seed in (0, 1, 2):
        pairs = zip(
            jax.tree.leaves(joined.params(30, seed)),
            jax.tree.leaves(runs["whole"].params(30, seed=seed)),
            strict=True,
        )
        assert all(np.array_equal(x, y) for x, y in pairs)
    assert np.array_equal(joined.params(30)["unembed"]["W_U"], both["unembed.W_U"][-1])


def test_joined_runs_give_losses_by_seed(runs: dict[str, Run], joined: Run) -> None:
    assert joined.losses.sel(seed=1).equals(runs["whole"].losses.sel(seed=1))
    assert joined.losses.reindex(seed=[0, 1, 2]).equals(runs["whole"].losses)


def test_joined_runs_are_measured_by_seed(runs: dict[str, Run], joined: Run) -> None:
    names = ["test_loss", "key_frequencies"]
    dataset = joined.measure(names)
    assert dataset["seed"].values.tolist() == [2, 0, 1]
    assert dataset.sel(seed=[0, 1, 2]).equals(runs["whole"].measure(names))
    assert joined.measures.equals(dataset)


@pytest.mark.parametrize("step", [0, 13, 30])
def test_joined_runs_give_exact_states(runs: dict[str, Run], joined: Run, step: int) -> None:
    pairs = zip(
        jax.tree.leaves(joined.state_at(step)),
        jax.tree.leaves(runs["whole"].state_at(step)),
        strict=True,
    )
    assert all(np.array_equal(x, y[np.array([2, 0, 1])]) for x, y in pairs)


def test_runs_of_different_experiments_are_not_joined(runs: dict[str, Run]) -> None:
    with pytest.raises(
        RunError, match=r"not of one experiment: optimizer\.learning_rate: 0\.01 there, 0\.02 here"
    ):
        open_run([runs["first"].path, runs["other"].path])


def test_a_seed_in_two_runs_is_refused(runs: dict[str, Run]) -> None:
    with pytest.raises(RunError, match=r"seeds \[1\] are in more than one"):
        open_run([runs["second"].path, runs["whole"].path.parent / "second"])
    with pytest.raises(RunError, match=r"seeds \[0, 2\]"):
        open_run([runs["whole"].path, runs["first"].path])


def test_no_path_is_refused() -> None:
    with pytest.raises(ConfigError, match="no path"):
        open_run([])


class _StopError(Exception):
    pass


def _stopped(experiment: Experiment, path: Path, after: int) -> Run:
    """A run that was interrupted as soon as training had passed a step."""

    def watch(progress: Progress) -> None:
        if progress.step >= after:
            raise _StopError

    with pytest.raises(_StopError):
        train(experiment, path, watch=watch)
    return open_run(path)


def test_an_unfinished_run_is_not_joined_with_a_finished_one(
    runs: dict[str, Run], tmp_path: Path
) -> None:
    half = _stopped(replace(SEEDS, seeds=(1,)), tmp_path / "half", 20)
    assert half.status[1].state == "unfinished"
    with pytest.raises(RunError, match=r"different steps\. Train both to their end"):
        open_run([runs["first"].path, half.path])


def test_two_unfinished_runs_that_stopped_at_different_steps_are_not_joined(tmp_path: Path) -> None:
    early = replace(SEEDS, steps=200, schedule=at(0))
    one, other = (
        _stopped(replace(early, seeds=(seed,)), tmp_path / str(seed), 60 * (1 + seed))
        for seed in (0, 1)
    )
    assert one.steps.tolist() == other.steps.tolist() == [0]
    with pytest.raises(RunError, match=r"hold different steps\. Train both to their end"):
        _ = open_run([one.path, other.path]).losses
