"""Adding a part to the package: one new file and one registration, done in a copy of the package,
which then lists, trains, measures and reports with the new part.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).parents[1]

_TINY = ("--steps", "40", "--seeds", "0", "--quiet", "--no-compile-cache")


class _Copy:
    """A copy of the package to change, and the command line that runs from it."""

    def __init__(self, folder: Path):
        self.folder = folder
        for name in ("mi_jax", "experiments"):
            shutil.copytree(_ROOT / name, folder / name)

    def add(self, file: str, text: str) -> None:
        """One new file."""
        path = self.folder / "mi_jax" / file
        assert not path.exists()
        path.write_text(text)

    def register(self, file: str, registry: str, line: str, entry: str) -> None:
        """One registration: the import of the new part, and its entry in a registry.

        Args:
            file: where the registry stands.
            registry: the text that opens it.
            line: the import.
            entry: the line in the registry.
        """
        path = self.folder / "mi_jax" / file
        text = path.read_text()
        assert text.count(f"\n{registry}\n") == 1, f"{registry} opens no registry in {file}"
        first_import = text.index("\nfrom mi_jax")
        text = text[: first_import + 1] + f"{line}\n" + text[first_import + 1 :]
        path.write_text(text.replace(f"\n{registry}\n", f"\n{registry}\n    {entry}\n"))

    def __call__(self, *arguments: str) -> str:
        """What ``mi-jax`` prints."""
        command = [sys.executable, "-m", "mi_jax.cli", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(self.folder)}
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def listed(self, kind: str) -> dict[str, Any]:
        """The rows of ``mi-jax list``."""
        return json.loads(self("list", kind, "--json"))

    def report(self, run: str) -> tuple[dict[str, Any], str]:
        """The readings at the last step of seed 0, and the text of the report."""
        told = json.loads(self("report", run, "--json"))
        return told["seeds"]["0"], (self.folder / run / "report.html").read_text()


@pytest.fixture
def copy(tmp_path: Path) -> _Copy:
    return _Copy(tmp_path)


_SETTINGS = (
    "--task.p",
    "7",
    "--task.fraction",
    "0.6",
    "--model.d-model",
    "8",
    "--model.heads",
    "1",
)
_SMALL = (*_SETTINGS, "--model.d-mlp", "16")


@pytest.mark.slow
def test_a_task(copy: _Copy) -> None:
    copy.add(
        "tasks/maximum.py",
        '''"""The larger of two numbers."""

from dataclasses import dataclass
from itertools import product

import jax.numpy as jnp
import numpy as np

from mi_jax.contracts import Batch, Evaluation, Inputs, Task


@dataclass(frozen=True)
class Maximum(Task):
    """The larger of two numbers below n, on all pairs in every step.

    Ground truth: ``table`` [n n], row of each pair; ``answer`` [n n], the larger one.
    """

    n: int = 5

    @property
    def inputs(self):
        return Inputs("tokens", self.n, 2, self.n, ((0, self.n), (0, self.n)))

    @property
    def read(self):
        return (1,)

    def data(self, seed):
        pairs = np.array(list(product(range(self.n), repeat=2)), np.int32)
        answers = pairs.max(axis=1, keepdims=True)
        return Batch(jnp.asarray(pairs), jnp.asarray(answers), jnp.ones(answers.shape))

    def batches(self, data, key, start, n):
        return lambda i: data

    def evaluation(self, data, key):
        table = jnp.arange(self.n**2).reshape(self.n, self.n)
        answer = data.targets.reshape(self.n, self.n)
        return Evaluation({"train": data}, {"table": table, "answer": answer})
''',
    )
    copy.register(
        "tasks/__init__.py",
        "TASKS = {",
        "from mi_jax.tasks.maximum import Maximum",
        '"maximum": Maximum,',
    )
    assert "maximum" in copy.listed("tasks")
    model = ("--model.d-model", "8", "--model.heads", "1", "--model.d-mlp", "16")
    copy("run", "grokking", "--task.name", "maximum", *model, *_TINY, "--out", "run")
    readings, page = copy.report("run")
    assert readings["train_loss"] > 0
    assert "train_accuracy" in page


@pytest.mark.long
def test_a_model(copy: _Copy) -> None:
    copy.add(
        "models/sum.py",
        '''"""A network on the sum of two embeddings."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from mi_jax.basics.errors import require
from mi_jax.contracts import Architecture, Model, Roles, Site
from mi_jax.models.taps import Tapped

SITES = (Site("neurons", "cos(W_E[a] + W_E[b])", ("batch", "position", "neuron")),)


@dataclass(frozen=True)
class SumModel(Architecture):
    """Cosines of the sum of two embeddings, read out linearly."""

    width: int = 16

    def build(self, inputs):
        require(len(inputs.varied) == 2, "SumModel reads pairs of tokens.")
        first, second = inputs.varied

        def init(key):
            one, two = jax.random.split(key)
            table = jax.random.normal(one, (inputs.tokens, self.width))
            return {"W_E": table, "W_U": jax.random.normal(two, (self.width, inputs.classes)) / 4}

        def apply(params, tokens, *, taps=None, positions=None):
            pre = params["W_E"][tokens[:, first]] + params["W_E"][tokens[:, second]]
            return Tapped(taps, SITES).at("neurons", jnp.cos(pre)[:, None]) @ params["W_U"]

        table, output = (lambda params: params["W_E"]), (lambda params: params["W_U"])
        return Model(init, apply, Roles((table,), output, "neurons", linear_readout=True), SITES)
''',
    )
    copy.register(
        "models/__init__.py",
        "MODELS = {",
        "from mi_jax.models.sum import SumModel",
        '"sum": SumModel,',
    )
    assert "sum" in copy.listed("models")
    task = ("--task.p", "7", "--task.fraction", "0.6")
    copy("run", "grokking", "--model.name", "sum", *task, *_TINY, "--out", "run")
    readings, page = copy.report("run")
    assert len(readings["fourier_power_embedding"]) == 3
    assert "gini_embedding" in page


@pytest.mark.slow
def test_a_measure(copy: _Copy) -> None:
    copy.add(
        "measures/largest.py",
        '''"""The largest weight."""

import jax
import jax.numpy as jnp

from mi_jax.contracts import Measure


def largest_weight():
    """The largest |theta| of all parameters."""

    def _largest_weight(params, context):
        return jnp.stack([jnp.abs(leaf).max() for leaf in jax.tree.leaves(params)]).max()

    return Measure("largest_weight", _largest_weight)
''',
    )
    copy.register(
        "measures/__init__.py",
        "MEASURES = {\n    measure.name: measure\n    for measure in (",
        "from mi_jax.measures.largest import largest_weight",
        "largest_weight(),",
    )
    assert "largest_weight" in copy.listed("measures")
    copy("run", "grokking", *_SMALL, *_TINY, "--out", "run")
    readings, page = copy.report("run")
    assert readings["largest_weight"] > 0
    assert "largest_weight" in page


@pytest.mark.long
def test_an_optimizer(copy: _Copy) -> None:
    copy.add(
        "training/signs.py",
        '''"""Sign descent."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from mi_jax.basics.fields import sweepable
from mi_jax.training.descent import Descent


@dataclass(frozen=True)
class SignDescent(Descent):
    """theta <- theta - lr sign(g).

    Attributes:
        learning_rate: lr.
        weight_decay: decoupled.
    """

    learning_rate: float = sweepable(1e-3, minimum=0)
    weight_decay: float = sweepable(0.0, minimum=0)

    def rule(self, numbers, step):
        signs = optax.stateless(lambda u, params: jax.tree.map(jnp.sign, u))
        rate = self.rate(numbers["learning_rate"], step)
        return signs, self.decay(numbers["weight_decay"]), optax.scale_by_learning_rate(rate)
''',
    )
    copy.register(
        "training/optimizers.py",
        "OPTIMIZERS = {",
        "from mi_jax.training.signs import SignDescent",
        '"signs": SignDescent,',
    )
    copy("run", "grokking", "--optimizer.name", "signs", *_SMALL, *_TINY, "--out", "run")
    record = json.loads((copy.folder / "run" / "run.json").read_text())
    assert record["experiment"]["optimizer"]["type"] == "signs"
    readings, page = copy.report("run")
    assert readings["train_loss"] > 0
    assert "signs" in page


@pytest.mark.slow
def test_an_intervention(copy: _Copy) -> None:
    copy.add(
        "interventions/noise.py",
        '''"""Shifting a gradient."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from mi_jax.interventions.places import AtGradient, value_field


@dataclass(frozen=True)
class ShiftGradient(AtGradient):
    """Adds a number to every gradient.

    Attributes:
        by: the number.
    """

    by: float = value_field(0.0)

    def prepare(self, context):
        return {"by": jnp.full(len(context.seeds), self.by)}

    def gradient(self, gradients, params, arrays):
        return jax.tree.map(lambda g: g + arrays["by"], gradients)
''',
    )
    copy.register(
        "interventions/__init__.py",
        "INTERVENTIONS = {",
        "from mi_jax.interventions.noise import ShiftGradient",
        '"shift_gradient": ShiftGradient,',
    )
    assert "ShiftGradient" in copy("fork", "--help")
    copy("train", "grokking", *_SMALL, *_TINY, "--out", "run")
    change = ("--intervention", "ShiftGradient(by=0.5)", "--out", "fork", "--quiet")
    copy("fork", "run", "--step", "20", *change)
    copy("measure", "fork", "--quiet")
    _, page = copy.report("fork")
    assert "shift_gradient" in page


@pytest.mark.long
def test_a_figure(copy: _Copy) -> None:
    copy.add(
        "plots/squares.py",
        '''"""The norm of the weights."""

from mi_jax.plots.style import described, new_axes, step_axis, styled


@described(
    title="The norm of the weights",
    caption="The square root of the sum of all squared weights.",
    alt="The norm of the weights against the step.",
    needs=("sum_squared_weights",),
)
@styled
def weight_norm(dataset, *, ax=None):
    """The norm of all weights against the step."""
    axes = ax or new_axes()
    axes.plot(dataset["step"], dataset["sum_squared_weights"].T ** 0.5)
    step_axis(axes, dataset["step"].values)
    axes.set_ylabel("norm of the weights")
    return axes
''',
    )
    copy.register(
        "report/catalogue/__init__.py",
        "FIGURES: tuple[Callable[[ReportInputs], list[FigurePlan]], ...] = (",
        "from mi_jax.plots.squares import weight_norm",
        "of_plot(weight_norm),",
    )
    copy("run", "grokking", *_SMALL, *_TINY, "--out", "run")
    _, page = copy.report("run")
    assert "The square root of the sum of all squared weights." in page
    assert (copy.folder / "run" / "figures" / "weight_norm.png").stat().st_size > 1000
