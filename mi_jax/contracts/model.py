"""Models: pure functions of a nested dict of arrays, their sites and roles, and their settings."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from mi_jax.basics.dims import Params, PRNGKey
from mi_jax.basics.errors import ConfigError, nearest
from mi_jax.basics.pytrees import dotted
from mi_jax.contracts.task import Inputs


class Site(NamedTuple):
    """Named place in a model's forward pass, where a tap may record or replace a value.

    Attributes:
        name: dotted name, such as ``blocks.0.mlp.post``.
        equation: formula of the value, in terms of other sites and parameters.
        dims: dims of the value.
        kind: "activation" if the tap gets the value and returns one; "product" if it gets (x, W)
            and returns their product, without the bias; "listened" for a value that can be recorded
            but not replaced.
        optional: whether the value is computed only if a tap listens.
    """

    name: str
    equation: str
    dims: tuple[str, ...]
    kind: Literal["activation", "product", "listened"] = "activation"
    optional: bool = False


class Heads(NamedTuple):
    """Matrices of all attention heads, which act on row vectors from the right.

    A query is x W_Q and a key is x W_K; a head adds pattern (x W_V) W_O to the residual stream.

    Attributes:
        W_Q: query matrices, [layer head d d_head].
        W_K: key matrices, [layer head d d_head].
        W_V: value matrices, [layer head d d_head].
        W_O: output matrices, [layer head d_head d].
    """

    W_Q: Float[Array | np.ndarray, "layer head d d_head"]
    W_K: Float[Array | np.ndarray, "layer head d d_head"]
    W_V: Float[Array | np.ndarray, "layer head d d_head"]
    W_O: Float[Array | np.ndarray, "layer head d_head d"]


@dataclass(frozen=True)
class Roles:
    """Parts that a model's arrays and sites play, by which measures find them.

    A measure names the roles that it needs and is skipped if one is missing. None or an empty
    tuple means that the model has no such part.

    Attributes:
        embedding: functions of the parameters, one per token table, each returning the rows of the
            task's tokens, [token d].
        output_map: function of the parameters that returns the linear map from the last neurons to
            the task's classes, W_L = W_out W_U, [neuron class]; one column if a single output
            tells two classes apart.
        neurons: site of the neurons that ``output_map`` reads.
        neuron_inputs: functions of the parameters, one per input token, that return what each token
            adds to each neuron before its activation, [token neuron]; only if that is a table of
            the weights alone.
        input_map: function of the parameters that returns what a unit of each float feature adds to
            each neuron before its activation, [feature neuron]; only if the weights alone tell.
        embedded: site of the embedded tokens, [batch position d], before positions are added.
        unembedding: function of the parameters that returns the linear map from the residual stream
            to the task's classes, [d class], without a norm before it.
        heads: function of the parameters that returns the matrices of the attention heads.
        attention: sites of the attention scores, by layer.
        patterns: sites of the attention patterns, by layer.
        neurons_added: a site after the neurons, and the function (params, value at that site) that
            returns A W_L of the neurons' activations A, with fewer products than A W_L itself.
        linear_readout: whether the outputs are ``output_map`` of the neurons plus terms that do not
            depend on them, with no norm in between.
        writers: sites that add to the residual stream, in order. The stream is their sum, except
            for attention's output biases.
        readers: sites that read the residual stream, in order.
    """

    embedding: tuple[Callable[[Params], Float[Array | np.ndarray, "token d"]], ...] = ()
    output_map: Callable[[Params], Float[Array | np.ndarray, "neuron class"]] | None = None
    neurons: str | None = None
    neuron_inputs: tuple[Callable[[Params], Float[Array | np.ndarray, "token neuron"]], ...] = ()
    input_map: Callable[[Params], Float[Array | np.ndarray, "feature neuron"]] | None = None
    embedded: str | None = None
    unembedding: Callable[[Params], Float[Array | np.ndarray, "d class"]] | None = None
    heads: Callable[[Params], Heads] | None = None
    attention: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    neurons_added: (
        tuple[str, Callable[[Params, Float[Array, "*b d"]], Float[Array, "*b class"]]] | None
    ) = None
    linear_readout: bool = False
    writers: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()

    @property
    def heads_in_two_layers(self) -> bool:
        """Whether one head can read what another has written."""
        return self.heads is not None and len(self.attention) > 1


Tap = Callable[..., Any]
"""Function at a site: ``value -> value`` for an activation, ``(x, W) -> product`` for a product."""


Taps = Mapping[str, Tap]
"""Taps by the name of their site."""


PLAIN = "plain"
"""Name of the simplest route, by which every model can be computed."""


@dataclass(frozen=True, eq=False)
class Model:
    """A built model: pure functions of a nested dict of arrays. Models compare by identity.

    Attributes:
        init: function of a key that draws the initial parameters, in float32.
        apply: ``apply(params, inputs, *, taps=None, positions=None) -> outputs``, with outputs
            [batch position class]. ``positions`` restricts the last layer, and so the outputs, to
            the positions listed.
        roles: parts that measures ask for.
        sites: every site that ``taps`` may name.
        routes: ways to compute ``apply``, by name, which agree up to rounding; ``apply`` takes the
            cheapest. Empty if there is only one.
        cheapest: function (inputs, shape of a batch, positions) that names the cheapest route.
        packages: packages beside jax whose versions change the model's numbers, such as "flax".
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
    packages: tuple[str, ...] = ()

    def along(self, route: str) -> Callable[..., Float[Array, "batch position class"]]:
        """The function ``apply``, computed by one route.

        Raises:
            ConfigError: if the model has no such route.
        """
        known = self.routes or {PLAIN: self.apply}
        if route not in known:
            raise ConfigError(f"This model has no route '{route}'; {nearest(route, known)}")
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
    """Settings of a model.

    A subclass is a frozen dataclass whose fields are its settings; a run stores them. ``build``
    makes the model for a task's inputs. Roles are what lets measures read the model; sites, with
    ``mi_jax.models.Tapped``, are what interventions and probes act on.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> @dataclass(frozen=True)
        ... class Bigram(Architecture):
        ...     scale: float = 0.1
        ...
        ...     def build(self, inputs):
        ...         def init(key):
        ...             shape = (inputs.vocabulary, inputs.classes)
        ...             return {"W": self.scale * jax.random.normal(key, shape)}
        ...
        ...         def apply(params, tokens, *, taps=None, positions=None):
        ...             if positions is not None:
        ...                 tokens = tokens[:, list(positions)]
        ...             return params["W"][tokens]  # [batch position class]
        ...
        ...         table = lambda params: params["W"][: inputs.tokens]
        ...         return Model(init, apply, Roles(embedding=(table,)))
        >>> inputs = Inputs("tokens", 5, positions=2, classes=5, alphabet=((0, 5), (0, 5)))
        >>> model = Bigram().build(inputs)
        >>> params = model.init(jax.random.key(0))
        >>> model.apply(params, jnp.array([[1, 2], [3, 4], [0, 0]]), positions=(1,)).shape
        (3, 1, 5)
    """

    repeated: ClassVar[str | None] = None
    """Name of the setting that counts layers. From the third one on, every layer must have the same
    parameters as the one before it, so that a model of very many is measured on two small ones.
    """

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
        """Build the model for a task's inputs.

        Args:
            inputs: description of the task's inputs.

        Raises:
            ConfigError: if the architecture cannot read these inputs.
        """

    def shapes(self, inputs: Inputs) -> Mapping[str, tuple[int, ...]]:
        """The shape of every parameter, by dotted name; nothing is computed.

        Args:
            inputs: description of the task's inputs.

        Raises:
            ConfigError: if the architecture cannot read these inputs.
        """
        init = self.build(inputs).init
        parameters = jax.eval_shape(lambda: init(jax.random.key(0)))
        return {name: leaf.shape for name, leaf in dotted(parameters).items()}
