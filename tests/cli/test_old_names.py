"""Old names of settings keep working, on the command line with a line on stderr."""

import pytest

from mi_jax.cli.overrides import with_overrides, with_swept
from mi_jax.interventions import Change
from mi_jax.models import MLP
from mi_jax.runs.experiment import Experiment
from mi_jax.tasks import ModularArithmetic
from mi_jax.training.program_schedule import ProgramSchedule

_EXPERIMENT = Experiment(
    task=ModularArithmetic(p=11, fraction=0.5, batch_size=16), model=MLP(width=8), steps=9
)
_LINE = (
    "mi-jax: --task.batch is now --task.batch-size. The old name will be removed in mi_jax 0.3.\n"
)


@pytest.mark.parametrize("words", [["--task.batch", "4"], ["--task.batch=4"]])
def test_an_old_name_on_the_command_line_is_replaced(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = with_overrides(_EXPERIMENT, words, "mi-jax train")
    assert isinstance(experiment.task, ModularArithmetic)
    assert experiment.task.batch_size == 4
    assert capsys.readouterr().err == _LINE
    assert experiment == with_overrides(_EXPERIMENT, ["--task.batch-size", "4"], "mi-jax train")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("words", [["--task.batch", "4,8"], ["--task.batch=4,8"]])
def test_an_old_name_is_swept_under_the_new_one(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    base, axes = with_swept(_EXPERIMENT, words, "mi-jax sweep")
    assert base == _EXPERIMENT
    assert axes == {"task.batch_size": (4, 8)}
    assert capsys.readouterr().err == _LINE


def test_a_stored_change_of_an_old_name_has_its_effect_and_its_identity() -> None:
    record = Experiment(
        task=_EXPERIMENT.task,
        model=_EXPERIMENT.model,
        steps=9,
        interventions=(Change("task.batch", 4, start=5),),
    ).to_json()
    assert record["interventions"][0]["field"] == "task.batch"
    experiment = Experiment.from_json(record)
    assert experiment.to_json() == record
    schedule = ProgramSchedule(experiment.parts())
    sizes = [schedule.active(step).program.parts.task.batch_size for step in (4, 5)]  # pyright: ignore[reportAttributeAccessIssue]
    assert sizes == [16, 4]
