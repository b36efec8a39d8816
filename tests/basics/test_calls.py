"""Measures with options as text."""

import pytest
from unchecked import unchecked

from mi_jax.basics.calls import split_calls
from mi_jax.basics.errors import ConfigError
from mi_jax.landscape import measure_learning_coefficient
from mi_jax.measures import probe_accuracy
from mi_jax.measuring.registry import EXPENSIVE, WITH_OPTIONS, with_options


def test_commas_inside_of_brackets_and_quotes_do_not_separate() -> None:
    assert split_calls("a,b(c=(1, 2), d='),('), e") == ["a", "b(c=(1, 2), d='),(')", "e"]
    assert split_calls("f(a='\"', b=\"'\"),g") == ["f(a='\"', b=\"'\")", "g"]


def test_a_measure_with_options_carries_them_in_its_name() -> None:
    measure = with_options(
        "learning_coefficient(parameters=['unembed.*', 'embed.*'], entry=2, where=('carry', 1),"
        " epsilon=1e-4)"
    )
    expected = measure_learning_coefficient(
        parameters=("unembed.*", "embed.*"), entry=2, where=("carry", 1), epsilon=1e-4
    )
    assert (measure.name, measure.options) == (expected.name, expected.options)
    assert (
        measure.name
        == "learning_coefficient_epsilon_0.0001_unembed.*+embed.*_entry_2_where_carry+1"
    )
    assert f"{measure.name}_se" in measure.variables
    accuracy = with_options("probe_accuracy(kind='logistic', sites='embed')")
    assert (
        accuracy.name
        == "probe_accuracy_logistic_embed"
        == probe_accuracy(kind="logistic", sites=("embed",)).name
    )
    assert accuracy.options["sites"] == ["embed"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "learning_coefficient(preconditioner='adam')",
            "preconditioner='adam': must be None or an RMSProp",
        ),
        ("learning_coefficient(draws=2.5)", r"draws=2\.5: must be a whole number"),
        ("learning_coefficient(chain_mode='x')", "chain_mode='x' is unknown"),
    ],
)
def test_values_of_another_type_are_refused(text: str, message: str) -> None:
    with unchecked(), pytest.raises(ConfigError, match=message):
        with_options(text)


def test_preconditioned_chains_have_a_name_that_can_be_typed() -> None:
    assert (
        "RMSProp(alpha=0.99, eps=0.1)"
        in with_options("learning_coefficient(preconditioner='rmsprop')").name
    )


def test_a_call_without_options_is_the_registered_measure() -> None:
    for name in WITH_OPTIONS:
        measure = with_options(f"{name}()")
        assert (measure.name, measure.variables, measure.options) == (
            name,
            EXPENSIVE[name].variables,
            EXPENSIVE[name].options,
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_coefficient(", "is no measure with options; write it as learning_coefficient"),
        ("mi_jax.x()", "is no measure with options"),
        (
            "learning_coeficient(epsilon=1)",
            "There is no measure with options 'learning_coeficient'; did you mean",
        ),
        (
            "learning_coefficient(epsilom=1)",
            "learning_coefficient has no setting 'epsilom'; did you mean epsilon",
        ),
        ("learning_coefficient(epsilon=open('x'))", "its arguments must be numbers, strings"),
        ("learning_coefficient(epsilon='x')", "learning_coefficient"),
        ("learning_coefficient(1)", "learning_coefficient"),
        ("probe_accuracy(kindd='ridge')", "A probe has no setting 'kindd'; did you mean kind"),
        ("probe_effect(ranks=2)", "A probe has no setting 'ranks'"),
        ("learning_coefficient(epsilon=0)", "epsilon=0: must be a positive number"),
        ("learning_coefficient(epsilon=-1.0)", r"epsilon=-1\.0: must be a positive"),
        ("learning_coefficient(n_beta=0)", "n_beta=0"),
        ("learning_coefficient(n_beta=-2)", "n_beta=-2"),
        ("learning_coefficient(draws=0)", "draws=0: must be at least"),
        ("sharpness(order=1)", "order=1: must be at least 2"),
        ("probe_accuracy(kind='lgistic')", "lgistic"),
        ("probe_effect(rank=0)", "rank=0 is invalid. It must be at least 1"),
    ],
)
def test_invalid_calls_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_options(text)
