"""Factories of measures: all are public, documented, and refuse unknown options."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator

import pytest
from unchecked import unchecked

import mi_jax.measures
from mi_jax.basics.errors import ConfigError
from mi_jax.contracts import Measure
from mi_jax.measures import (
    BY_WEIGHT,
    MEASURES,
    PICTURES,
    distance_irrelevance,
    excluded_loss,
    fourier_power,
    group_fourier_power,
    key_frequencies,
    restricted_loss,
)

_PROBES = ("description_length", "probe_effects", "probes")
"""Files of the probes, whose factories share the options that ``Probe`` documents."""


def _factories() -> Iterator[Callable[..., Measure]]:
    """Public functions of the folder that return a Measure, without the probes."""
    for info in pkgutil.iter_modules(mi_jax.measures.__path__):
        if info.name in _PROBES:
            continue
        module = importlib.import_module(f"mi_jax.measures.{info.name}")
        for name, value in inspect.getmembers(module, inspect.isfunction):
            defined_here = value.__module__ == module.__name__
            returns = inspect.signature(value).return_annotation
            if defined_here and not name.startswith("_") and returns is Measure:
                yield value


_FACTORIES = {factory.__name__: factory for factory in _factories()}


def test_every_factory_is_public() -> None:
    public = mi_jax.measures.__all__
    assert set(_FACTORIES) <= set(public)
    constants = [name for name in public if name.isupper()]
    assert public == sorted(constants) + sorted(set(public) - set(constants))


@pytest.mark.parametrize("name", _FACTORIES)
def test_every_factory_documents_its_arguments_and_variables(name: str) -> None:
    doc = inspect.getdoc(_FACTORIES[name]) or ""
    assert "Returns:" in doc
    for argument, parameter in inspect.signature(_FACTORIES[name]).parameters.items():
        if parameter.kind is not parameter.VAR_KEYWORD:
            assert re.search(rf"^ +{argument}: ", doc, re.MULTILINE), argument


@pytest.mark.parametrize("measure", [*MEASURES.values(), *BY_WEIGHT.values(), *PICTURES.values()])
def test_every_function_carries_the_name_of_its_factory(measure: Measure) -> None:
    assert measure.function.__name__.removeprefix("_") in _FACTORIES


@pytest.mark.parametrize("factory", [fourier_power, group_fourier_power, key_frequencies])
def test_an_unknown_place_is_refused(factory: Callable[[str], Measure]) -> None:
    with pytest.raises(ConfigError, match="no table at place 'embeding'; did you mean embedding"):
        factory("embeding")


def test_key_frequencies_have_a_rule_for_two_places_only() -> None:
    with pytest.raises(ConfigError, match="place 'queries'; known are embedding, unembedding"):
        key_frequencies("queries")


@pytest.mark.parametrize("factory", [restricted_loss, excluded_loss])
def test_unknown_keys_are_refused(factory: Callable[..., Measure]) -> None:
    with (
        unchecked(),
        pytest.raises(ConfigError, match="keys='own' is unknown; known are final, online"),
    ):
        factory(keys="own")


def test_an_unknown_logit_is_refused() -> None:
    with (
        unchecked(),
        pytest.raises(ConfigError, match="of='right' is unknown; known are correct, wrong"),
    ):
        distance_irrelevance("right")  # pyright: ignore[reportArgumentType]
