"""Settings as JSON: every class by name, both ways, and differences of two records."""

import json
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unchecked import unchecked

from mi_jax.basics.errors import ConfigError
from mi_jax.basics.records import decode, differences, digest, encode
from mi_jax.interventions import INTERVENTIONS, Change
from mi_jax.models import MODELS, Transformer
from mi_jax.runs.experiment import REGISTRY
from mi_jax.tasks import TASKS, ModularArithmetic
from mi_jax.training import FILTERS, LOSSES, OPTIMIZERS, RATES, SCHEDULES, AdamW, Storage, at


@dataclass(frozen=True)
class Inner:
    x: float = 1.0
    names: tuple[str, ...] = ("a",)


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    several: tuple[Inner, ...] = ()
    flag: bool = True
    nothing: int | None = None


OWN = {"inner": Inner, "outer": Outer}


def _through_text(value: Any, registry: Any = OWN) -> Any:
    return decode(json.loads(json.dumps(encode(value, registry))), registry)


@given(
    st.builds(
        Outer,
        inner=st.builds(
            Inner,
            x=st.floats(allow_nan=False, allow_infinity=False),
            names=st.lists(st.text()).map(tuple),
        ),
        several=st.lists(st.builds(Inner), max_size=3).map(tuple),
        flag=st.booleans(),
        nothing=st.none() | st.integers(),
    )
)
def test_nested_settings_come_back_from_text_as_they_were(value: Outer) -> None:
    assert _through_text(value) == value


def test_every_nested_object_carries_its_name() -> None:
    assert encode(Outer(several=(Inner(),)), OWN) == {
        "type": "outer",
        "inner": {"type": "inner", "x": 1.0, "names": ["a"]},
        "several": [{"type": "inner", "x": 1.0, "names": ["a"]}],
        "flag": True,
        "nothing": None,
    }


def test_every_registry_name_is_one_class_and_every_class_one_name() -> None:
    folders = (TASKS, MODELS, OPTIMIZERS, RATES, FILTERS, LOSSES, SCHEDULES, INTERVENTIONS)
    names = [name for folder in folders for name in folder]
    assert len(names) == len(set(names))
    assert set(names) | {"experiment", "storage"} == set(REGISTRY)
    assert len(set(REGISTRY.values())) == len(REGISTRY)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            {"type": "adamw", "learning_rat": 1.0},
            "AdamW has no setting 'learning_rat'; did you mean learning_rate",
        ),
        ({"type": "modular_arithmetic", "q": 3}, "ModularArithmetic has no setting 'q'"),
        ({"type": "adamws"}, "Unknown type 'adamws'.*adamw"),
        ({"learning_rate": 1.0}, "Unknown type None"),
        ({"type": 3}, "Unknown type 3"),
        ({"type": "no_such_module_here:Thing"}, "no module no_such_module_here in"),
        (
            {"type": "mi_jax.models:Perceptron"},
            "cannot be found: mi_jax.models .* does not define Perceptron",
        ),
    ],
)
def test_unknown_keys_and_types_are_refused_by_name(record: dict[str, Any], message: str) -> None:
    with unchecked(), pytest.raises(ConfigError, match=message):
        decode(record, REGISTRY)


def test_an_unknown_key_deep_inside_is_refused() -> None:
    record = encode(Outer(several=(Inner(),)), OWN)
    record["several"][0]["y"] = 2
    with pytest.raises(ConfigError, match="Inner has no setting 'y'"):
        decode(record, OWN)


@pytest.mark.parametrize("value", [{"a": 1}, np.float32(1.0), np.zeros(2), 1j, {1}, Inner, b"x"])
def test_a_value_that_json_has_no_form_for_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="cannot be stored"):
        encode(value, OWN)


def test_a_class_that_no_other_process_could_import_is_refused() -> None:
    local = make_dataclass("Local", [("x", int, 1)], frozen=True)
    local.__module__ = "__main__"
    with pytest.raises(
        ConfigError, match="Local must be defined at the top of an importable module"
    ):
        encode(local(), OWN)

    @dataclass(frozen=True)
    class Hidden:
        x: int = 1

    with pytest.raises(ConfigError, match="Hidden must be defined"):
        encode(Hidden(), OWN)


def test_a_users_own_class_goes_by_module_and_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        "from dataclasses import dataclass",
        "from mi_jax.training import Storage",
        "class Family:",
        " @dataclass(frozen=True)",
        " class Member(Storage):",
        "  x: float = 2.0",
    ]
    (tmp_path / "own_records.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    import own_records  # pyright: ignore[reportMissingImports]

    member = own_records.Family.Member(x=3.0)
    record = encode(member, OWN)
    assert record["type"] == "own_records:Family.Member"
    assert record["x"] == 3.0
    assert _through_text(member, REGISTRY) == member


@pytest.mark.parametrize(
    ("settings", "name", "whole"),
    [
        (AdamW(), "learning_rate", 1),
        (AdamW(), "weight_decay", 0),
        (Change(field="optimizer.weight_decay", value=2.0), "value", 2),
        (Storage(), "megabytes", 8),
        (Transformer(), "init_scale", 2),
        (Transformer(), "attention_scale", 8),  # float or None
        (Inner(), "x", 3),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_an_int_in_a_float_field_has_the_floats_hash(settings: Any, name: str, whole: int) -> None:
    registry = {**REGISTRY, **OWN}
    with unchecked():
        records = [
            encode(replace(settings, **{name: value}), registry) for value in (whole, float(whole))
        ]
    assert digest(records[0]) == digest(records[1])


def test_true_and_one_are_different_settings() -> None:
    assert digest(encode(Outer(flag=True), OWN)) != digest(encode(Outer(flag=1), OWN))  # pyright: ignore[reportArgumentType]


def test_a_digest_ignores_the_order_of_keys_and_nothing_else() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    others = [
        {"a": 1, "b": [2, 1]},
        {"a": 1, "b": [1, 2, None]},
        {"a": "1", "b": [1, 2]},
        {"a": 1.5, "b": [1, 2]},
        {"a": 1},
    ]
    assert len({digest(other) for other in others} | {digest({"a": 1, "b": [1, 2]})}) == 6


def _json(value: Any) -> Any:
    return encode(value, REGISTRY)


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        (AdamW(), AdamW(), []),
        (AdamW(), AdamW(weight_decay=0.5), ["weight_decay: 1.0 there, 0.5 here"]),
        (
            AdamW(),
            AdamW(weight_decay=0.5, warmup=3),
            ["warmup: 0 there, 3 here", "weight_decay: 1.0 there, 0.5 here"],
        ),
        (AdamW(), AdamW(decayed=("*.W_*",)), ['decayed: ["*"] there, ["*.W_*"] here']),
        (
            ModularArithmetic(),
            ModularArithmetic(operation="subtract"),
            ['operation: "add" there, "subtract" here'],
        ),
        (ModularArithmetic(), ModularArithmetic(batch_size=7), ["batch: null there, 7 here"]),
        (at(1) | at(2), at(1) | at(3), None),
    ],
)
def test_differences_say_each_setting_with_both_values(
    old: Any, new: Any, lines: list[str] | None
) -> None:
    listed = differences(_json(old), _json(new))
    assert listed == lines if lines is not None else len(listed) == 1


def test_differences_name_the_whole_path_and_missing_keys() -> None:
    old = {"type": "experiment", "task": {"type": "t", "p": 59}, "steps": 10, "gone": 1}
    new = {
        "type": "experiment",
        "task": {"type": "t", "p": 61},
        "steps": 10,
        "added": {"type": "thing"},
    }
    assert differences(old, new) == [
        "task.p: 59 there, 61 here",
        "gone: 1 there, null here",
        "added: null there, thing here",
    ]


def test_differences_of_two_classes_name_the_classes_and_stop_there() -> None:
    old, new = (
        {"model": {"type": "mlp", "width": 3}},
        {"model": {"type": "transformer", "layers": 1}},
    )
    assert differences(old, new) == ["model: mlp there, transformer here"]
