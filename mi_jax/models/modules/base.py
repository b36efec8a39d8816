"""A network that its user wrote with Flax or Equinox, as a model: what the three packages share."""

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from mi_jax.basics.dims import Params, PRNGKey
from mi_jax.basics.errors import ConfigError, nearest
from mi_jax.basics.pytrees import dotted, nested
from mi_jax.contracts import Architecture, Inputs, Model, Roles, Site, Taps
from mi_jax.models.modules.calls import Calls
from mi_jax.models.site_dims import LOGIT_DIMS, NEURON_DIMS
from mi_jax.models.taps import Tapped

LOGITS = "logits"
"""Site of the network's outputs."""

Flat = Mapping[str, Any]
"""Arrays by the dotted name that the network itself gives them."""


@runtime_checkable
class Network(Protocol):
    """A user's network through the package that it was written with."""

    @property
    def shapes(self) -> Mapping[str, Any]:
        """Shape and type of every parameter by the network's own dotted name, in its own order;
        tied ones stand once.
        """
        ...

    def init(self, key: PRNGKey) -> Flat:
        """Draws the initial parameters."""
        ...

    def call(self, params: Flat, inputs: Any, calls: Calls) -> Any:
        """The network's outputs; its submodules tell ``calls`` of their values."""
        ...

    def module(self, params: Flat) -> Any:
        """The network as its package has it, with these parameters."""
        ...


@dataclass(frozen=True)
class ModuleArchitecture(Architecture):
    """Base of the networks that a user wrote with Flax or Equinox.

    A subclass is a frozen dataclass whose fields are its settings. Parameters are a nested dict
    under the network's own names. Every submodule's path is a site, every value that is sown, every
    ``Here``, and ``logits``, the outputs.
    """

    packages: ClassVar[tuple[str, ...]] = ()
    """Packages beside jax that the network's numbers depend on."""

    @abstractmethod
    def module(self, inputs: Inputs, rngs: Any) -> Any:
        """The network.

        It maps inputs [batch position] of tokens, or [batch position feature] of floats, to outputs
        [batch position class]. Where the task reads one position, [batch 1 class] and [batch class]
        are allowed too.

        Args:
            inputs: description of the task's inputs.
            rngs: source of randomness for the initial parameters.
        """

    def roles(self, inputs: Inputs) -> Roles:
        """The parts that the network's arrays and sites play for measures; none by default.

        Args:
            inputs: description of the task's inputs.
        """
        return Roles()

    def names(self) -> Mapping[str, str]:
        """Other names for parameters: from the network's own dotted name to the one that is stored.

        By default every parameter keeps the network's name.
        """
        return {}

    def site_dims(self) -> Mapping[str, tuple[str, ...]]:
        """The dims of sites by name, where those that are inferred from shapes do not suit.

        Inferred are batch, position, head, query and key (for [batch head position position]) and
        feature, the last one.
        """
        return {}

    @abstractmethod
    def network(self, inputs: Inputs) -> Network:
        """The network through its package. Raises ConfigError if it cannot be built."""

    def build(self, inputs: Inputs) -> Model:
        """Build the model from the network.

        Raises:
            ConfigError: for a network without parameters, with state beside them, whose shapes
                depend on its seed, or with outputs of another shape than ``module`` says; for two
                parameters of one name, and for roles of parameters or sites that are not there.
        """
        network = self.network(inputs)
        stored = _stored_names(self, network.shapes)

        def init(key: PRNGKey) -> Params:
            drawn = network.init(key)
            return nested({stored[name]: value for name, value in drawn.items()})

        def own(params: Params) -> Flat:
            flat = dotted(params)
            return {name: jnp.asarray(flat[stored[name]]) for name in network.shapes}

        roles = self.roles(inputs)
        sites, shapes = _sites(self, network, inputs)
        _check_sites(self, roles, shapes, inputs)
        sites = tuple(_of_role(site, roles) for site in sites)
        views = {site: _View(dims, inputs.positions) for site, dims in _read(roles, sites).items()}

        def apply(
            params: Any,
            inputs_: Shaped[Array | np.ndarray, "batch ..."],
            *,
            taps: Taps | None = None,
            positions: Any = None,
        ) -> Float[Array, "batch position class"]:
            tapped = Tapped(taps, sites)

            def at(site: str, value: Any) -> Any:
                if site not in views:
                    return tapped.at(site, value)
                return views[site].at(value, positions, lambda part: tapped.at(site, part))

            calls = Calls(at, tapped.listens)
            out = _answers(self, network.call(own(params), inputs_, calls), inputs_, inputs)
            return tapped.at(LOGITS, _at_positions(self, out, positions, inputs))

        template = nested({stored[name]: shape for name, shape in network.shapes.items()})
        _check_functions(self, roles, template)
        return Model(init, apply, roles, sites, packages=self.packages)

    def as_module(self, inputs: Inputs, params: Params) -> Any:
        """The network as its package has it, with the parameters of one checkpoint.

        Args:
            inputs: description of the task's inputs.
            params: nested dict of arrays, as a run stores them.
        """
        network = self.network(inputs)
        stored, flat = _stored_names(self, network.shapes), dotted(params)
        return network.module({name: jnp.asarray(flat[stored[name]]) for name in network.shapes})


def example(inputs: Inputs, batch: int) -> Any:
    """Inputs of zeros, whose shapes and types are those of the task's."""
    if inputs.kind == "floats":
        return jnp.zeros((batch, inputs.positions, inputs.features), jnp.float32)
    return jnp.zeros((batch, inputs.positions), jnp.int32)


def check_parameters(name: str, shapes: Mapping[str, Any]) -> None:
    """Refuse a network without parameters, or with some that gradients cannot train."""
    if not shapes:
        raise ConfigError(f"{name}.module made a network without parameters.")
    for parameter, shape in shapes.items():
        if shape.dtype != jnp.float32:
            raise ConfigError(
                f"{name}: the parameter {parameter} is of the type {shape.dtype}. Parameters are"
                " float32; a run with precision='float64' casts them."
            )


def by_name(architecture: str, names: Sequence[str], leaves: Sequence[Any]) -> dict[str, Any]:
    """Arrays by their dotted names. Raises ConfigError for two of one name.

    Args:
        architecture: its name.
        names: of all arrays.
        leaves: the arrays, in the same order.
    """
    named = dict(zip(names, leaves, strict=True))
    if len(named) < len(leaves):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise ConfigError(
            f"{architecture}.module made a network with two parameters at the path {twice}. Use no"
            " dots in the keys of dicts."
        )
    return named


def refuse_state(name: str, kinds: Mapping[str, str]) -> None:
    """Refuse state beside the parameters.

    Args:
        name: of the architecture.
        kinds: the kind of each piece of state, by its path.
    """
    if kinds:
        listed = ", ".join(f"{path} ({kind})" for path, kind in kinds.items())
        raise ConfigError(
            f"{name}.module made a network with state that is not parameters: {listed}. A run"
            " stores and trains parameters alone. Take batch statistics and caches out; use"
            " LayerNorm in place of BatchNorm."
        )


@contextlib.contextmanager
def building(name: str) -> Iterator[None]:
    """Say in one sentence why a network could not be made."""
    try:
        yield
    except ConfigError:
        raise
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerIntegerConversionError) as error:
        raise ConfigError(
            f"{name}.module makes a network whose shapes depend on its random numbers; every seed"
            " must have the same shapes. Derive them from the settings."
        ) from error
    except Exception as error:
        raise ConfigError(
            f"{name}.module could not make the network or call it on a batch"
            f" ({type(error).__name__}: {error})."
        ) from error


def check_same_shapes(name: str, once: Mapping[str, Any], again: Mapping[str, Any]) -> None:
    """Refuse a network that is made with other parameters the second time."""
    shapes, others = ({n: s.shape for n, s in made.items()} for made in (once, again))
    if shapes != others:
        different = sorted(n for n in {*shapes, *others} if shapes.get(n) != others.get(n))
        first = different[0]
        raise ConfigError(
            f"{name}.module made two different networks from the same settings: {first} has the"
            f" shape {shapes.get(first)}, then {others.get(first)}. Every seed must have the same"
            " shapes. Derive them from the settings."
        )


def _stored_names(architecture: ModuleArchitecture, shapes: Mapping[str, Any]) -> dict[str, str]:
    """The name under which each parameter is stored, by the network's own name."""
    name, renames = type(architecture).__name__, dict(architecture.names())
    for old in renames:
        if old not in shapes:
            raise ConfigError(
                f"{name}.names renames '{old}', which is no parameter of the network;"
                f" {nearest(old, shapes)}"
            )
    stored = {old: renames.get(old, old) for old in shapes}
    owners: dict[str, str] = {}
    for old, new in stored.items():
        clashes = (n for n in owners if n == new or _is_within(n, new) or _is_within(new, n))
        clash = next(clashes, None)
        if clash is not None:
            raise ConfigError(
                f"{name}: the parameters {owners[clash]} and {old} would be stored as {clash} and"
                f" {new}. Give each a name of its own, which does not begin with another's, in"
                f" {name}.names."
            )
        owners[new] = old
    return stored


def _is_within(outer: str, inner: str) -> bool:
    return inner.startswith(f"{outer}.")


def _sites(
    architecture: ModuleArchitecture, network: Network, inputs: Inputs
) -> tuple[tuple[Site, ...], dict[str, tuple[int, ...]]]:
    """The sites of a network, found by tracing it on two sizes of batch, and their shapes for a
    batch of two.
    """
    name = type(architecture).__name__

    def traced(batch: int, chosen: Callable[[str], bool]) -> tuple[dict[str, Any], dict[str, str]]:
        kinds: dict[str, str] = {}

        def run(params: Flat, x: Any) -> tuple[Any, dict[str, Any]]:
            values: dict[str, Any] = {}

            def at(site: str, value: Any) -> Any:
                values[site] = value
                return value

            calls = Calls(at, chosen)
            out = _answers(architecture, network.call(params, x, calls), x, inputs)
            kinds.update(calls.kinds)
            return out, values

        with building(name):
            _, values = jax.eval_shape(run, dict(network.shapes), example(inputs, batch))
        return values, kinds

    two, kinds = traced(2, lambda site: True)
    three, _ = traced(3, lambda site: True)
    given = dict(architecture.site_dims())
    sites = []
    for site in kinds:
        value, other = two.get(site), three.get(site)
        # A value within another transformation than vmap never arrives.
        if value is None or other is None or other.ndim != value.ndim:
            continue
        dims = given.pop(site, None) or _dims(value.shape, other.shape, inputs.positions)
        if len(dims) != value.ndim:
            raise ConfigError(
                f"{name}.site_dims gives '{site}' the dims {dims}, but its shape is"
                f" {value.shape}. Name {value.ndim} dims."
            )
        kind = "listened" if kinds[site] == "sow" else "activation"
        sites.append(Site(site, f"{kinds[site]} at {site}", tuple(dims), kind))
    if given:
        site = next(iter(given))
        raise ConfigError(
            f"{name}.site_dims names '{site}', which is no site of the network;"
            f" {nearest(site, two)}"
        )
    if LOGITS in two:
        raise ConfigError(
            f"{name}: a submodule is named '{LOGITS}', which is the site of the outputs. Give it"
            " another name."
        )
    shapes = {site.name: tuple(two[site.name].shape) for site in sites}
    return (*sites, Site(LOGITS, "the outputs", LOGIT_DIMS)), shapes


def _dims(two: Sequence[int], three: Sequence[int], positions: int) -> tuple[str, ...]:
    """Names for the axes of a value, from its shapes for batches of two and of three."""
    dims = ["batch" if (a, b) == (2, 3) else "" for a, b in zip(two, three, strict=True)]
    if dims.count("batch") > 1:
        dims = [""] * len(two)
    if len(two) == 4 and dims[0] and two[2] == two[3] == positions and two[1] != positions:
        return ("batch", "head", "query", "key")
    rest = [i for i, dim in enumerate(dims) if not dim]
    if rest:
        dims[rest.pop()] = "feature"
    for i in list(rest):
        if two[i] == positions and "position" not in dims:
            dims[i] = "position"
            rest.remove(i)
    if len(rest) == 1 and len(two) == 4 and "position" in dims:
        dims[rest[0]] = "head"
    return tuple(dim or f"axis_{i}" for i, dim in enumerate(dims))


def _answers(architecture: ModuleArchitecture, out: Any, x: Any, inputs: Inputs) -> Any:
    """The outputs as [batch position class].

    Raises:
        ConfigError: for outputs of another shape.
    """
    name, shape = type(architecture).__name__, getattr(out, "shape", None)
    batch, positions, classes = x.shape[0], inputs.positions, inputs.classes
    if shape is not None and len(shape) == 2:
        out = out[:, None]
    fits = shape is not None and out.ndim == 3 and out.shape[0] == batch
    enough = fits and (out.shape[2] >= classes or (out.shape[2] == 1 and classes == 2))
    if not (enough and out.shape[1] in (1, positions)):
        returned = type(out).__name__ if shape is None else f"the shape {tuple(shape)}"
        raise ConfigError(
            f"{name}: for inputs of the shape {tuple(x.shape)} the network returned {returned}. It"
            f" must return [batch position class], here {(batch, positions, classes)}; where the"
            f" task reads one position, {(batch, 1, classes)} or {(batch, classes)} will do."
        )
    return out


def _at_positions(
    architecture: ModuleArchitecture, out: Any, positions: Any, inputs: Inputs
) -> Any:
    """The outputs at the positions that are asked for. Raises ConfigError if they are not there."""
    if positions is None:
        return out
    if out.shape[1] == inputs.positions:
        return out[:, list(positions)]
    if len(positions) == 1:
        return out
    raise ConfigError(
        f"{type(architecture).__name__}: the network returned {tuple(out.shape)}, one position, and"
        f" the task reads the positions {list(positions)}. Return"
        f" {(out.shape[0], inputs.positions, out.shape[2])}."
    )


class _View(NamedTuple):
    """The part of a value of a role that measures and taps see: the positions that are read.

    Models of this package compute nothing else from the queries of the last layer on.

    Attributes:
        dims: of the site.
        positions: length of an input.
    """

    dims: tuple[str, ...]
    positions: int

    def at(self, value: Any, read: Any, tap: Callable[[Any], Any]) -> Any:
        """The value, with what a tap makes of the part that it sees.

        Args:
            value: as the network computed it; neurons may lack the axis of positions.
            read: the positions that are read; None for all.
            tap: acts on the part.
        """
        if value.ndim < len(self.dims):
            return jnp.squeeze(tap(value[:, None]), 1)
        axis = next((i for i, dim in enumerate(self.dims) if dim in ("position", "query")), None)
        if read is None or axis is None or value.shape[axis] != self.positions:
            return tap(value)
        chosen = (slice(None),) * axis + (np.asarray(read),)
        return value.at[chosen].set(tap(value[chosen]))


def _of_role(site: Site, roles: Roles) -> Site:
    """The site with the dims of its role."""
    return site._replace(dims=NEURON_DIMS) if site.name == roles.neurons else site


def _read(roles: Roles, sites: Sequence[Site]) -> dict[str, tuple[str, ...]]:
    """The dims of the sites that measures read at the read positions, by name."""
    added = roles.neurons_added and roles.neurons_added[0]
    names = {roles.neurons, added, *roles.attention[-1:], *roles.patterns[-1:]}
    return {site.name: site.dims for site in sites if site.name in names}


def _check_sites(
    architecture: ModuleArchitecture,
    roles: Roles,
    shapes: Mapping[str, tuple[int, ...]],
    inputs: Inputs,
) -> None:
    """Refuse roles of sites that are not there, or of another shape than the role asks for."""
    name, known = type(architecture).__name__, [*shapes, LOGITS]
    named = {
        "neurons": (roles.neurons,) if roles.neurons else (),
        "embedded": (roles.embedded,) if roles.embedded else (),
        "neurons_added": (roles.neurons_added[0],) if roles.neurons_added else (),
        **{role: getattr(roles, role) for role in ("attention", "patterns", "writers", "readers")},
    }
    for role, asked in named.items():
        for site in asked:
            if site not in known:
                raise ConfigError(
                    f"{name}.roles: {role} names the site '{site}', which the network does not"
                    f" have; {nearest(site, known)}"
                )
    asked = {
        "neurons": (roles.neurons, ("batch", "position", "neuron"), (2, 3), None),
        "embedded": (roles.embedded, ("batch", "position", "d"), (3,), inputs.positions),
    }
    for role, (site, dims, ranks, positions) in asked.items():
        if site is None:
            continue
        shape = list(shapes.get(site, []))
        fits = len(shape) in ranks and shape[0] == 2
        if not (fits and positions in (None, shape[1])):
            raise ConfigError(
                f"{name}.roles: {role} names '{site}', whose value has the shape {tuple(shape)} for"
                f" a batch of 2. It must be [{' '.join(dims)}]"
                f"{'' if positions is None else f', with all {positions} positions'}."
            )


def _check_functions(architecture: ModuleArchitecture, roles: Roles, template: Any) -> None:
    """Refuse roles of parameters that are not there."""
    name = type(architecture).__name__
    one = ("output_map", "input_map", "unembedding", "heads")
    functions = {role: (getattr(roles, role),) for role in one if getattr(roles, role)}
    functions |= {role: getattr(roles, role) for role in ("embedding", "neuron_inputs")}
    for role, all_of_role in functions.items():
        for function in all_of_role:
            try:
                jax.eval_shape(function, template)
            except Exception as error:
                raise ConfigError(
                    f"{name}.roles: {role} cannot be read from the parameters"
                    f" ({type(error).__name__}: {error}). They are"
                    f" {', '.join(sorted(dotted(template)))}."
                ) from error
