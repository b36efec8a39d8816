"""Runs of networks that their users wrote in Flax and Equinox: all that a run of a model does."""

import importlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pytest
from conftest import tiny_experiment

import mi_jax
from mi_jax.basics.errors import ConfigError, RunError
from mi_jax.interventions import Clamp
from mi_jax.models import EquinoxModule, NnxModule
from mi_jax.report.study import report
from mi_jax.runs.fork import fork, zoom
from mi_jax.runs.run import Run, open_run
from mi_jax.runs.train import train
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import AdamW, Storage, every, machine
from mi_jax.training.loop import Progress

_NETWORKS = Path(__file__).parents[1] / "models"
sys.path.append(str(_NETWORKS))
users_networks = pytest.importorskip("users_networks")

USERS = {
    "nnx": users_networks.NnxMLP(),
    "nnx transformer": users_networks.NnxTransformer(),
    "linen": users_networks.LinenMLP(),
    "equinox": users_networks.EquinoxMLP(),
}
_SITE = {"nnx transformer": "blocks.0.post"}


class _StopError(Exception):
    pass


def _experiment(model: Any) -> Any:
    return tiny_experiment(
        task=ModularArithmetic(p=7, fraction=0.6),
        model=model,
        optimizer=AdamW(learning_rate=1e-2),
        steps=24,
        schedule=every(4),
        storage=Storage(states=3, snapshots=5),
        seeds=(0, 1),
    )


def _bits(run: Run) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(run.stack())]


@pytest.mark.slow
@pytest.mark.parametrize("name", USERS)
def test_a_users_network_is_trained_resumed_forked_measured_and_reported(
    name: str, tmp_path: Path
) -> None:
    experiment = _experiment(USERS[name])
    whole = train(experiment, tmp_path / "whole")

    def watch(progress: Progress) -> None:
        if progress.step >= 10:
            raise _StopError

    with pytest.raises(_StopError):
        train(experiment, tmp_path / "cut", watch=watch)
    assert _bits(train(experiment, tmp_path / "cut")) == _bits(whole)
    closer = zoom(whole, around=12, every=1, width=4, out=tmp_path / "zoom")
    np.testing.assert_array_equal(
        jax.tree.leaves(closer.stack([12]))[0], jax.tree.leaves(whole.stack([12]))[0]
    )
    # A neuron held at a value: the network's outputs under the same tap are what was trained.
    site = _SITE.get(name, "post")
    dim = next(s.dims[-1] for s in whole.subject.model.sites if s.name == site)
    clamped = fork(
        whole, step=12, interventions=[Clamp(site, 0.5, only={dim: (2,)})], out=tmp_path / "fork"
    )
    assert _bits(clamped)[-1:] != _bits(whole)[-1:]
    # What a clamped neuron adds has no gradient through the neuron's own inputs.
    inputs = {
        "nnx": ("layers", "0", "b"),
        "nnx transformer": ("blocks", "0", "up", "bias"),
        "linen": ("layers", "0", "b"),
        "equinox": ("hidden", "bias"),
    }[name]
    history = [clamped.stack([step]) for step in (12, 24)]
    for part in inputs:
        history = [one[part] for one in history]
    moved = (history[1] - history[0])[0]
    decay = np.prod([1 - 1e-2 * experiment.optimizer.weight_decay] * 12)
    expected = history[0][0, :, 2] * (decay - 1)
    # Momentum that the fork inherits still moves it a little; the others move on.
    assert np.abs(moved[:, 2] - expected).max() < np.abs(np.delete(moved, 2, axis=1)).max()
    readings = whole.measure()
    assert {"train_loss", "test_accuracy", "gini_embedding"} <= set(readings)
    assert np.isfinite(readings["test_loss"]).all()
    assert "<figure" in report(whole).report.read_text()


@pytest.mark.parametrize("name", USERS)
def test_a_snapshot_is_given_back_as_the_module_it_came_from(name: str, tmp_path: Path) -> None:
    run = train(_experiment(USERS[name]), tmp_path / "run")
    module = mi_jax.as_module(run, 24, seed=1)
    tokens = np.array([[1, 2, 7], [6, 0, 7]])
    if isinstance(USERS[name], NnxModule):
        module.eval()
        for block in getattr(module, "blocks", []):
            block.attn.sow = lambda *args, **kwargs: True
    call = jax.vmap(eqx.nn.inference_mode(module)) if name == "equinox" else module
    expected = np.asarray(call(tokens))
    found = np.asarray(run.apply(run.params(24, seed=1), tokens))
    np.testing.assert_allclose(found, expected.reshape(found.shape), atol=1e-6)
    with pytest.raises(ConfigError, match=r"several seeds. Choose one of \[0, 1\]"):
        mi_jax.as_module(run, 24)


def test_a_run_of_another_model_is_no_module(tiny_run: Run) -> None:
    with pytest.raises(ConfigError, match="Transformer, which was not written with Flax"):
        mi_jax.as_module(tiny_run, int(tiny_run.steps[-1]), seed=0)


def test_another_version_of_flax_is_named_before_a_run_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = _experiment(USERS["nnx"])

    def watch(progress: Progress) -> None:
        if progress.step >= 10:
            raise _StopError

    known = machine._version
    with monkeypatch.context() as patch:
        patch.setattr(machine, "_version", lambda name: "0.1.0" if name == "flax" else known(name))
        with pytest.raises(_StopError):
            train(experiment, tmp_path / "run", watch=watch)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["machine"]["packages"] == {"flax": "0.1.0"}
    with pytest.raises(RunError, match=r"flax: 0\.1\.0 there, 0\.\d+\.\d+ here"):
        train(experiment, tmp_path / "run")
    run = train(experiment, tmp_path / "run", allow_other_machine=True)
    assert run.steps[-1] == 24


def test_a_changed_network_is_read_again(tmp_path: Path) -> None:
    """In processes of their own, since a module stays as it was imported."""
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import dataclass\n"
        "from flax import nnx\n"
        "from mi_jax.models import NnxModule\n"
        "class Net(nnx.Module):\n"
        "    def __init__(self, inputs, rngs):\n"
        "        self.embed = nnx.Embed(inputs.vocabulary, inputs.classes, rngs=rngs)\n"
        "    def __call__(self, tokens):\n"
        "        return self.embed(tokens) * 1.0\n"
        "@dataclass(frozen=True)\n"
        "class Mine(NnxModule):\n"
        "    def module(self, inputs, rngs):\n"
        "        return Net(inputs, rngs)\n"
    )
    begin = (
        "import mi_jax, mine\n"
        "from mi_jax.tasks import ModularArithmetic\n"
        "mi_jax.train(mi_jax.Experiment(ModularArithmetic(p=5, fraction=0.6), mine.Mine(),"
        " steps=2, seeds=(0,)), 'run')\n"
    )
    read = (
        "import mi_jax\n"
        "run = mi_jax.open_run('run', allow_modules=['mine'])\n"
        "print(float(run.measure(['test_loss'])['test_loss'].values[0, -1]))\n"
    )

    def say(code: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    say(begin)
    once = say(read)
    assert say(read) == once
    file.write_text(file.read_text().replace("* 1.0", "* 3.0"))
    assert say(read) != once


def test_a_run_of_a_users_network_is_opened_without_its_code(tmp_path: Path) -> None:
    run = train(_experiment(USERS["linen"]), tmp_path / "run")
    run.measure(["test_loss"])
    code = (
        "import sys, mi_jax\n"
        f"run = mi_jax.open_run({str(run.path)!r})\n"
        "print(run.params(24, seed=0)['unembed']['W_U'].shape, list(run.measures))\n"
        "assert not {'flax', 'users_networks'} & set(sys.modules)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(16, 7) ['test_loss']"
    assert isinstance(open_run(run.path).experiment.model, users_networks.LinenMLP)
    assert not isinstance(open_run(run.path).experiment.model, EquinoxModule)


# --- The page ---


@pytest.mark.slow
def test_the_page_runs_as_printed_and_all_four_networks_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "own_network.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 5
    (tmp_path / "page_network.py").write_text("\n".join(blocks).replace("400", "40"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    made = importlib.import_module("page_network")
    assert {"gini_embedding", "restricted_loss", "test_accuracy"} <= set(made.readings)
    assert made.ablated.steps[-1] == 40
    assert made.network.out.kernel[...].shape == (64, 23)
    ends = []
    for name in ("MyNnx", "MyLinen", "MyEquinox", "MyPlain"):
        model = getattr(made, name)()
        run = train(replace(made.experiment, model=model), tmp_path / name)
        ends.append(run.losses.values[:, [0, -1]].mean(axis=0))
        assert run.measure(["restricted_loss"])["restricted_loss"].notnull().all()
    first, last = np.transpose(ends)
    assert (last < 0.9 * first).all()
