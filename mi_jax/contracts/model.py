"""Models: pure functions of a nested dict of arrays, their sites and roles, and the settings that
build them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Array, Float

from mi_jax.basics.dims import Params, PRNGKey
from mi_jax.basics.errors import ConfigError, nearest, require
from mi_jax.contracts.task import Inputs


class Site(NamedTuple):
    """A place in a model's forward pass that a tap may listen to or replace."""

    name: str
    equation: str
    dims: tuple[str, ...]
    kind: Literal["activation", "product"] = "activation"
    """A product's tap gets (x, W) and returns the product, without the bias."""
    optional: bool = False
    """Computed only when it is listened to."""


class Heads(NamedTuple):
    """The matrices of all attention heads, row vectors first: a query is x W_Q, a head adds pattern
    (x W_V) W_O.
    """

    W_Q: Float[Array | np.ndarray, "layer head d d_head"]
    W_K: Float[Array | np.ndarray, "layer head d d_head"]
    W_V: Float[Array | np.ndarray, "layer head d d_head"]
    W_O: Float[Array | np.ndarray, "layer head d_head d"]


@dataclass(frozen=True)
class Roles:
    """Which arrays and sites of a model play the field's parts. None or empty: the model has no
    such part.
    """

    embedding: tuple[Callable[[Params], Float[Array | np.ndarray, "token d"]], ...] = ()
    """One function of the parameters a token table, the task's tokens only."""
    output_map: Callable[[Params], Float[Array | np.ndarray, "neuron class"]] | None = None
    """The linear map from the last neurons to the task's classes, W_L = W_out W_U; one column where
    one output tells two.
    """
    neurons: str | None = None
    """The site of the neurons that output_map reads."""
    neuron_inputs: tuple[Callable[[Params], Float[Array | np.ndarray, "token neuron"]], ...] = ()
    """What each token adds to each neuron before its activation, where that is a table of the
    weights alone.
    """
    input_map: Callable[[Params], Float[Array | np.ndarray, "feature neuron"]] | None = None
    """What a unit of each feature of float inputs adds to each neuron before its activation, where
    the weights alone say that.
    """
    embedded: str | None = None
    """The site [batch position d] of the embedded tokens, before positions are added."""
    unembedding: Callable[[Params], Float[Array | np.ndarray, "d class"]] | None = None
    """The linear map from the residual stream to the task's classes; a norm before it is left out.
    """
    heads: Callable[[Params], Heads] | None = None
    """The matrices of the attention heads."""
    attention: tuple[str, ...] = ()
    """The sites of the attention scores, by layer."""
    patterns: tuple[str, ...] = ()
    """The sites of the attention patterns, by layer."""
    neurons_added: (
        tuple[str, Callable[[Params, Float[Array, "*b d"]], Float[Array, "*b class"]]] | None
    ) = None
    """A site after the neurons, and the map of (params, what it holds) that gives A W_L of them:
    fewer products than A W_L.
    """
    linear_readout: bool = False
    """Whether the outputs are output_map of the neurons plus what doesn't depend on them (there is
    no norm in between).
    """
    writers: tuple[str, ...] = ()
    """Sites that add to the residual stream, in order: its sum, but for attention's output biases.
    """
    readers: tuple[str, ...] = ()
    """Sites that read the residual stream, in order."""

    @property
    def heads_in_two_layers(self) -> bool:
        """Whether one head can read what another has written."""
        return self.heads is not None and len(self.attention) > 1


Tap = Callable[..., Any]


Taps = Mapping[str, Tap]


PLAIN = "plain"
"""The name of the simplest way of computing a model."""


@dataclass(frozen=True, eq=False)
class Model:
    """A built model: pure functions of a plain nested dict of arrays. Compared by identity.

    Attributes:
        init: key -> params.
        apply: ``apply(params, inputs, *, taps=None, positions=None) -> outputs [batch position
            class]``; with ``positions`` only those are computed in the last layer and returned.
        roles: the parts that measures ask for.
        sites: every name that ``taps`` knows.
        routes: ways of computing ``apply``, by name, equal but for rounding; ``apply`` takes the
            cheapest. Empty where there is one way only.
        cheapest: (inputs, shape of a batch, positions) -> the name of that way.
    """

    init: Callable[[PRNGKey], Params]
    apply: Callable[..., Float[Array, "batch position class"]]
    roles: Roles = Roles()
    sites: tuple[Site, ...] = ()
    routes: Mapping[str, Callable[..., Float[Array, "batch position class"]]] = field(
        default_factory=dict
    )
    cheapest: Callable[[Inputs, tuple[int, ...], tuple[int, ...] | None], str] = (
        lambda inputs, shape, positions: PLAIN
    )

    def along(self, route: str) -> Callable[..., Float[Array, "batch position class"]]:
        """``apply`` by the named way. Raises ConfigError for one that this model doesn't have."""
        known = self.routes or {PLAIN: self.apply}
        require(route in known, f"this model has no route '{route}'; {nearest(route, known)}")
        return known[route]


DocumentedSites = tuple[tuple[str, tuple[Site, ...]], ...]
"""Pairs of a text and the sites in the table below it."""

PAIR_INPUTS = Inputs(
    "tokens", vocabulary=8, positions=3, classes=7, alphabet=((0, 7), (0, 7), (7, 8))
)
"""A pair of tokens and an equals sign."""

VECTOR_INPUTS = Inputs("floats", vocabulary=0, positions=1, classes=2, alphabet=(), features=40)
"""One vector of 40 floats in two classes."""

EXAMPLE_INPUTS = (PAIR_INPUTS, VECTOR_INPUTS)
"""Inputs on which the documentation builds every model."""


@dataclass(frozen=True)
class Architecture(ABC):
    """The settings of a model; ``build`` makes the model for a task's inputs."""

    @classmethod
    def smallest(cls) -> "Architecture":
        """The smallest sensible setting, which trains in seconds: tests run it on every task."""
        return cls()

    @classmethod
    def documented_sites(cls) -> "DocumentedSites":
        """Tables for ``docs/sites.md``, one per variant worth showing.

        By default one table: the sites of ``smallest()`` on the first of ``EXAMPLE_INPUTS`` that
        the model accepts.

        Returns:
            Pairs (text, sites): Markdown shown above the table, and the rows of the table.
        """
        refusals: list[str] = []
        for inputs in EXAMPLE_INPUTS:
            try:
                return (("", cls.smallest().build(inputs).sites),)
            except ConfigError as error:
                refusals.append(str(error))
        raise ConfigError(
            f"{cls.__name__} accepts none of the example inputs: {'; '.join(refusals)}."
            f" Override {cls.__name__}.documented_sites."
        )

    @abstractmethod
    def build(self, inputs: Inputs) -> Model:
        """The model for these inputs. Raises ConfigError where they don't fit."""
