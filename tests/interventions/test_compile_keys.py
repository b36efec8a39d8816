"""Compile keys: derived from the marked fields, so that values share a program."""

import contextlib
from dataclasses import dataclass, fields
from typing import Any

import jax.numpy as jnp
import pytest
from compiling import compilations
from conftest import tiny_mlp_experiment

from mi_jax.basics.errors import ConfigError
from mi_jax.cli.main import main
from mi_jax.interventions import (
    INTERVENTIONS,
    Ablate,
    AtBatch,
    AtParams,
    AtSite,
    Clamp,
    Freeze,
    Graft,
    InProgram,
    PrepareContext,
    Project,
    Reset,
    Transplant,
    value_field,
)
from mi_jax.interventions.places import repeated
from mi_jax.training.loop import replay
from mi_jax.training.program_schedule import ProgramSchedule

KEYS = [
    (Clamp("embed", 0.5, only={"head": (1,)}, start=3), Clamp("embed", 0.0, only={"head": (1,)})),
    (Ablate("embed", start=3, stop=5), Ablate("embed")),
    (Transplant("embed", "/some/run", 7, start=3), Transplant("embed", None, 0)),
    (Graft("*.W_*", "/some/run", 7, start=3), Graft("*.W_*", None, 0)),
    (Freeze("*.W_*", start=3), Freeze("*.W_*")),
    (Reset("*.W_*", start=3), Reset("*.W_*")),
    (Project("*.W_U", (1, 2), None, "embedding", start=3), Project("*.W_U")),
    (Project("*.W_U", "random", frequencies=(3,), stop=3), Project("*.W_U")),
]


@pytest.mark.parametrize(("intervention", "key"), KEYS, ids=str)
def test_a_compile_key_has_no_range_and_no_values(intervention: InProgram, key: InProgram) -> None:
    assert intervention.compile_key() == key
    assert key.compile_key() == key


def test_every_registered_intervention_in_the_program_is_tried_above() -> None:
    tried = {type(intervention) for intervention, _ in KEYS}
    assert tried == {cls for cls in INTERVENTIONS.values() if issubclass(cls, InProgram)}


@dataclass(frozen=True)
class _Scale(AtParams):
    """Multiplies all parameters after the update."""

    factor: float = value_field(1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.factor < 0:
            raise ConfigError(f"factor={self.factor}: must be at least 0.")

    def prepare(self, context: PrepareContext) -> dict[str, Any]:
        return {"factor": repeated(jnp.float32(self.factor), context.seeds)}

    def after(self, params: Any, before: Any, arrays: Any) -> Any:
        return {
            name: {key: arrays["factor"] * x for key, x in group.items()}
            for name, group in params.items()
        }


@dataclass(frozen=True)
class _Unmarked(_Scale):
    """The same, with a field that is not marked."""

    factor: float = 1.0


@pytest.mark.parametrize(("cls", "programs"), [(_Scale, 1), (_Unmarked, 2)])
def test_marked_values_share_a_program_and_unmarked_ones_do_not(cls: Any, programs: int) -> None:
    experiment = tiny_mlp_experiment(
        seeds=(0,), steps=6, interventions=(cls(0.5, stop=3), cls(0.25, start=3))
    )
    schedule = ProgramSchedule(experiment.parts())
    with compilations("jit(_advance") as compiled:
        replay(schedule, schedule.init(), 0, 6)
    assert len(compiled) == programs


def test_a_value_that_the_class_itself_refuses_is_refused() -> None:
    with pytest.raises(ConfigError, match="factor=-1"):
        _Scale(-1.0)


def test_the_old_names_of_a_users_class_work_and_warn() -> None:
    with pytest.warns(DeprecationWarning, match="mi_jax 0.3") as warned:

        @dataclass(frozen=True)
        class Old(AtBatch):
            by: int = 0

            @property
            def rhythm(self) -> int | None:
                return 3

            def form(self) -> "Old":
                return Old()

            def batch(self, batch: Any, arrays: Any) -> Any:
                return batch

    assert {str(warning.message).split(" The")[0] for warning in warned} == {
        "Old.rhythm is now period.",
        "Old.form is now compile_key.",
    }
    assert Old(by=2, start=4).compile_key() == Old()
    assert [step for step in range(12) if Old(start=4).in_force(step)] == [4, 7, 10]


def test_new_names_win_over_old_ones_without_a_warning() -> None:
    @dataclass(frozen=True)
    class Both(AtSite):
        period = None
        rhythm = 3

        @property
        def place(self) -> str:
            return "embed"

        def value_at(self, value: Any, arrays: Any, forward: Any) -> Any:
            return value

    assert Both(start=2).in_force(2)
    assert not Both(start=2).in_force(5)


@pytest.mark.parametrize("verb", ["run", "fork"])
def test_the_command_lines_help_names_every_registered_intervention(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.suppress(SystemExit):
        main([verb, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    *names, last = (cls.__name__ for cls in INTERVENTIONS.values())
    assert f"{', '.join(names)} and {last} are described in mi_jax.interventions" in shown


def test_fields_of_a_range_are_never_values() -> None:
    for cls in INTERVENTIONS.values():
        marked = {f.name for f in fields(cls) if "neutral" in f.metadata}
        assert not marked & {"start", "stop"}
