"""What a run takes, estimated from shapes alone: beside the real bytes, and for runs that no
machine can hold.
"""

import json
import resource
import time
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import tiny_experiment

from mi_jax.basics.errors import ConfigError, RunError
from mi_jax.basics.fields import with_setting
from mi_jax.basics.pytrees import byte_count
from mi_jax.basics.streams import stream
from mi_jax.cli.main import main
from mi_jax.cli.overrides import parse_whole_numbers
from mi_jax.contracts import Architecture, Task
from mi_jax.models import MLP, MODELS, DeepLinear, Transformer
from mi_jax.runs import limits
from mi_jax.runs.experiment import Experiment
from mi_jax.runs.limits import estimate, size_text
from mi_jax.runs.train import train
from mi_jax.tasks import (
    TASKS,
    GroupComposition,
    ModularArithmetic,
    MultiDigitAddition,
    RepeatedSequences,
    SparseParity,
)
from mi_jax.training import Storage, every
from mi_jax.training.schedules import LogSpaced
from mi_jax.training.state import Program

_SIZED: list[Task] = [
    *(task.smallest() for task in TASKS.values()),
    ModularArithmetic(p=59, operation="divide", split="unordered"),
    ModularArithmetic(p=53, split="unordered", label_noise=0.1, batch_size=64),
    ModularArithmetic(p=61, operation="x^3+xy", split="held_out", format="a op b = c"),
    ModularArithmetic(p=43, operation="divide", split="held_out"),
    GroupComposition(group="S5"),
    GroupComposition(group="C113"),
    GroupComposition(group="D59", form="xyx^-1", fraction=0.6),
    SparseParity(),
    SparseParity(n=200, k=40, examples=4000, test_examples=500),
    MultiDigitAddition(),
    MultiDigitAddition(digits=8, examples=3000, batch_size=100),
    RepeatedSequences(symbols=64, length=40, test_examples=300),
]
"""Every task at its smallest setting, and settings of a middle size."""


def _reads(model: Architecture, task: Task) -> bool:
    """Whether a model accepts the inputs of a task."""
    try:
        model.build(task.inputs)
    except ConfigError:
        return False
    return True


_BUILT: list[tuple[Task, Architecture]] = [
    *(
        (task, model)
        for task in (
            ModularArithmetic.smallest(),
            SparseParity.smallest(),
            RepeatedSequences.smallest(),
        )
        for model in (kind.smallest() for kind in MODELS.values())
        if _reads(model, task)
    ),
    (ModularArithmetic(), Transformer(layers=5, normalization="layer", attention_bias=True)),
    (MultiDigitAddition(), Transformer(layers=4, positions="relative", unembed_bias=True)),
    (ModularArithmetic(), MLP(depth=6, width=200, embedding="two", bias=True)),
    (SparseParity(), MLP(depth=4, width=300, outputs=1, initialization="torch")),
    (SparseParity(), DeepLinear(widths=(30, 20, 10))),
]
"""Every model at its smallest setting on tasks that it reads, and of several layers."""


@pytest.mark.parametrize("task", _SIZED, ids=str)
def test_the_size_of_a_task_is_that_of_its_arrays(task: Task) -> None:
    size = task.size()
    assert size is not None
    data = task.data(0)
    evaluation = task.evaluation(data, stream(0, "measure"))
    batch = jax.eval_shape(lambda: task.batches(data, stream(0, "data"), 0, 1)(0))
    assert size.batch == len(batch.targets)
    assert size.examples == sum(len(split.targets) for split in evaluation.batches.values())
    taken = byte_count(evaluation.batches) + byte_count(evaluation.ground_truth)
    assert 0.5 < size.evaluation / taken < 2
    assert size.data == byte_count(data) or 0.5 < size.data / byte_count(data) < 2


def test_the_count_of_pairs_needs_no_list_of_them() -> None:
    for operation in ("add", "divide"):
        for split in ("permutation", "unordered", "held_out"):
            for p in (5, 11, 23):
                task = ModularArithmetic(p=p, operation=operation, split=split, fraction=0.47)
                assert task.pair_count == len(task.domain)
                assert len(task.data(0).targets) == task.trained


@pytest.mark.parametrize(("task", "model"), _BUILT, ids=str)
def test_the_size_of_parameters_and_state_is_that_of_the_arrays(
    task: Task, model: Architecture
) -> None:
    experiment = Experiment(task=task, model=model, seeds=(0, 1, 2), steps=100)
    needed = estimate(experiment)
    shapes = jax.eval_shape(model.build(task.inputs).init, jax.random.key(0))
    assert 4 * needed.parameters == byte_count(shapes)
    state = byte_count(Program(experiment.parts()).template)
    assert needed.state == pytest.approx(state, rel=1e-3)
    double = replace(experiment, precision="float64")
    state = byte_count(Program(double.parts()).template)
    assert estimate(double).state == pytest.approx(state, rel=1e-3)


@pytest.mark.parametrize(
    ("task", "model"),
    [
        (ModularArithmetic(p=31), Transformer(d_model=64, d_mlp=256)),
        (ModularArithmetic(p=31), MLP(width=256)),
        (MultiDigitAddition(digits=3), Transformer(d_model=32, layers=2)),
        (SparseParity(batch_size=500), MLP(width=500, activation="relu", bias=True)),
    ],
    ids=["transformer", "mlp", "addition", "parity"],
)
def test_activations_are_about_what_the_compiled_step_takes(
    task: Task, model: Architecture
) -> None:
    experiment = Experiment(task=task, model=model, steps=100)
    program = Program(experiment.parts())
    numbers = {name: np.float32(value) for name, value in program.parts.numbers.items()}
    lowered = program._advance.lower(
        program.template, program.data, program._keys, numbers, np.int32(1), ()
    )
    taken = lowered.compile().memory_analysis()
    assert taken is not None
    assert 0.5 < estimate(experiment).activations / taken.temp_size_in_bytes < 2


def test_the_bound_that_is_counted_is_above_what_is_traced() -> None:
    for model in (Transformer(), Transformer(layers=2), MLP(), MLP(embedding="shared", depth=3)):
        experiment = Experiment(task=ModularArithmetic(p=31), model=model)
        assert estimate(experiment, traced=False).memory > estimate(experiment).memory


_TOO_LARGE = [
    (["grokking", "--task.p", "1000000000"], "EiB of memory"),
    (["grokking", "--task.p", "100003"], "PiB of memory"),
    (["grokking", "--model.layers", "9223372036854775807"], "EiB of memory"),
    (["gromov_2023", "--model.depth", "1000000"], "TiB of memory"),
    (["grokking", "--model.d-model", "4000000000"], "EiB of memory"),
    (["grokking", "--task.name", "group", "--task.group", "C1000000"], "TiB of memory"),
    (["merrill_2023", "--task.n", "2000000000"], "TiB of memory"),
    (
        [
            "five_digit_addition",
            "--task.test-examples",
            "900000000",
            "--task.cascade-examples",
            "0",
        ],
        "GiB of memory",
    ),
]
"""Commands of runs that no machine can hold, and a part of the refusal."""


@pytest.mark.parametrize(("words", "message"), _TOO_LARGE, ids=lambda value: str(value[-1]))
def test_a_run_that_no_machine_can_hold_is_refused_before_anything_is_written(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    begin = time.process_time()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert main(["train", *words]) == 2
    refused = capsys.readouterr().err
    assert message in refused
    assert "this machine has" in refused
    assert main(["train", *words, "--dry-run", "--json"]) == 2
    output = capsys.readouterr()
    assert json.loads(output.out)["megabytes_of_memory"] > 2**14
    # The same estimate.
    assert output.err == refused
    assert time.process_time() - begin < 4
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words", [["--task.p", "1009"], ["--storage.states", "1000000000"]], ids=lambda words: words[0]
)
def test_a_large_dry_run_answers_at_once(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "machine_memory", lambda: 2**40)
    monkeypatch.setattr(limits, "free_disk", lambda path: 2**50)
    begin = time.process_time()
    assert main(["train", "nanda_2023", *words, "--dry-run", "--json"]) == 0
    assert time.process_time() - begin < 2
    assert json.loads(capsys.readouterr().out)["minutes_of_training"] > 0


def test_what_does_not_fit_the_disk_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "free_disk", lambda path: 2**20)
    with pytest.raises(RunError, match=r"of disk, and .* has 1\.0 MiB free"):
        train(tiny_experiment(storage=Storage(states=60)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_examples_of_a_run_that_no_machine_can_hold_are_not_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = with_setting(tiny_experiment(), "task.p", 10**6)
    with pytest.raises(RunError, match="Measuring this run would take at least"):
        limits.check_readable(experiment)
    (tmp_path / "weights.npz").write_bytes(b"")
    words = ["measure", str(tmp_path / "weights.npz"), "--like", "grokking"]
    assert main([*words, "--task.p", "1000000000", "--no-compile-cache"]) == 2
    assert "Measuring this run would take at least" in capsys.readouterr().err


def test_schedules_and_lists_of_numbers_are_bounded() -> None:
    with pytest.raises(ConfigError, match="up to 2000000001 snapshots"):
        every(1).steps(2_000_000_000)
    with pytest.raises(ConfigError, match="at most 100000 for a run"):
        LogSpaced(10**6).steps(2_000_000_000)
    with pytest.raises(ConfigError, match="from 1 to 2147483647"):
        tiny_experiment(steps=2**31)
    with pytest.raises(ConfigError, match="more than 100000 numbers"):
        parse_whole_numbers("0-99999999999999999999")


def test_bytes_in_words() -> None:
    texts = [size_text(count) for count in (0, 1, 1023, 1024, 3 * 2**29, 2**70)]
    assert texts == ["0.0 B", "1.0 B", "1,023.0 B", "1.0 KiB", "1.5 GiB", "1,024.0 EiB"]
