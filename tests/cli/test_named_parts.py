"""``--task.name`` and the like: they put in another part at its smallest or default setting, before
the other overrides are read.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from mi_jax.basics.errors import ConfigError
from mi_jax.cli.main import main
from mi_jax.cli.overrides import PARTS, with_named_parts, with_overrides, with_swept
from mi_jax.contracts import Task
from mi_jax.models import MLP, Transformer
from mi_jax.runs.experiment import Experiment
from mi_jax.tasks import TASKS, ModularArithmetic, MultiDigitAddition, SparseParity
from mi_jax.training import FILTERS, SGD, AdamW, GrokfastEMA, OrthogonalGradient

_BEFORE = Experiment(
    task=ModularArithmetic(p=59), model=MLP(width=7), optimizer=AdamW(learning_rate=0.5), steps=9
)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("joined", [True, False])
def test_a_task_is_put_in_at_its_smallest_setting(name: str, joined: bool) -> None:
    given = [f"--task.name={name}"] if joined else ["--task.name", name]
    after = with_overrides(_BEFORE, given, "test")
    assert after.task == TASKS[name].smallest()
    assert (after.model, after.optimizer, after.steps) == (_BEFORE.model, _BEFORE.optimizer, 9)


def test_other_overrides_are_read_after_named_parts_wherever_they_stand() -> None:
    first = ["--task.digits", "3", "--steps", "12", "--task.name", "multi_digit_addition"]
    after = with_overrides(
        _BEFORE, [*first, "--model.name", "transformer", "--model.d-model", "8"], "test"
    )
    assert isinstance(after.task, MultiDigitAddition)
    assert (after.task.digits, after.task.batch_size, after.steps) == (3, 16, 12)
    assert after.model == Transformer(d_model=8)


@pytest.mark.parametrize("part", ["model", "optimizer", "loss"])
def test_other_parts_are_put_in_with_their_defaults(part: str) -> None:
    for name, make in PARTS[part].items():
        assert getattr(with_overrides(_BEFORE, [f"--{part}.name", name], "test"), part) == make()


@pytest.mark.parametrize("name", PARTS["optimizer.filter"])
def test_a_filter_is_put_into_the_present_optimizer(name: str) -> None:
    with_filter = replace(_BEFORE, optimizer=AdamW(learning_rate=0.5, filter=OrthogonalGradient()))
    after = with_overrides(
        with_filter, ["--optimizer.filter.name", name, "--optimizer.weight-decay", "0.25"], "test"
    )
    wanted = None if name == "none" else FILTERS[name]()
    assert after.optimizer == AdamW(learning_rate=0.5, weight_decay=0.25, filter=wanted)


def test_a_filter_is_put_into_the_optimizer_named_with_it_and_has_settings() -> None:
    given = [
        "--optimizer.filter.name",
        "grokfast_ema",
        "--optimizer.filter.lamb",
        "3",
        "--optimizer.name",
        "sgd",
    ]
    assert with_overrides(_BEFORE, given, "test").optimizer == SGD(filter=GrokfastEMA(lamb=3.0))


def test_a_sweep_goes_over_the_new_task() -> None:
    base, axes = with_swept(_BEFORE, ["--task.name", "sparse_parity", "--task.k", "1,2"], "test")
    assert base.task == SparseParity.smallest()
    assert axes == {"task.k": (1, 2)}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["--task.name", "sparse_party"],
            "There is no task 'sparse_party'; did you mean sparse_parity",
        ),
        (["--task.name=zzz"], "There is no task 'zzz'; known are .*modular_arithmetic"),
        (
            ["--model.name", "transfomer"],
            "There is no model 'transfomer'; did you mean transformer",
        ),
        (["--optimizer.name", "adam_w"], "There is no optimizer 'adam_w'"),
        (
            ["--optimizer.filter.name", "grokfast"],
            "There is no optimizer.filter 'grokfast'; did you mean grokfast_ma",
        ),
        (["--task.name"], "--task.name needs a name; known are"),
        (
            ["--task.name", "sparse_parity", "--task.name", "sparse_parity"],
            "--task.name is given twice",
        ),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_ones(given: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_named_parts(_BEFORE, given)


def test_the_experiments_own_name_is_another_setting() -> None:
    assert with_overrides(_BEFORE, ["--name", "other"], "test").name == "other"


def test_a_task_without_a_smallest_setting_is_put_in_with_its_defaults() -> None:
    class Plain(ModularArithmetic):
        smallest = classmethod(lambda cls: Task.smallest.__func__(cls))  # pyright: ignore

    assert Plain.smallest() == Plain()


def test_a_model_that_does_not_fit_says_so_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert (
        main(
            [
                "train",
                "grokking",
                "--task.name",
                "sparse_parity",
                "--out",
                str(out),
                "--no-compile-cache",
            ]
        )
        == 2
    )
    assert "A transformer reads tokens. This task gives floats" in capsys.readouterr().err
    assert not out.exists()


def test_the_command_line_knows_the_names_and_lists_the_papers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["train", "grokking", "--task.name", "multi_digit", "--no-compile-cache"]) == 2
    assert (
        "There is no task 'multi_digit'; did you mean multi_digit_addition?"
        in capsys.readouterr().err
    )
    assert main(["list", "tasks"]) == 0
    rows = {row.split("\t")[0]: row.split("\t")[1:] for row in capsys.readouterr().out.splitlines()}
    assert set(rows) == set(TASKS)
    for name, (paper, summary, *_) in rows.items():
        assert paper == TASKS[name].paper
        assert paper.startswith("arXiv ") or name == "from_arrays"
        assert summary.endswith((".", ";"))
