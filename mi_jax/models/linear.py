"""Deep linear networks: a linear map learned as a product of several matrices (arXiv 1312.6120)."""

import math
from dataclasses import dataclass
from functools import reduce
from typing import Any

from jaxtyping import Array, Float

from mi_jax.basics.dims import Params, PRNGKey
from mi_jax.basics.errors import ConfigError
from mi_jax.contracts import (
    VECTOR_INPUTS,
    Architecture,
    DocumentedSites,
    Inputs,
    Model,
    Roles,
    Site,
    Taps,
)
from mi_jax.models.checks import check_at_least_one, check_init_scale
from mi_jax.models.entries import check_features, feature_count, output_count
from mi_jax.models.initial import normal_parameters
from mi_jax.models.products import matmul
from mi_jax.models.site_dims import LOGIT_DIMS, NEURON_DIMS
from mi_jax.models.taps import Tapped


@dataclass(frozen=True)
class DeepLinear(Architecture):
    """A deep linear network on a vector x of features, without biases.

    outputs = x W_0 W_1 ... W_{L-1}; W_i is the parameter ``layers.{i}.W`` [in out].

    Attributes:
        widths: widths of the L - 1 hidden layers; () for a single matrix.
        outputs: number of outputs; None for the task's number of classes. More outputs are
            allowed, and so is 1 if there are two classes (see ``MLP``).
        init_scale: W_i starts as N(0, init_scale^2 / rows).
    """

    widths: tuple[int, ...] = (16, 16)
    outputs: int | None = None
    init_scale: float = 1.0

    def __post_init__(self) -> None:
        if not all(width >= 1 for width in self.widths):
            raise ConfigError(f"widths={self.widths}: each must be at least 1.")
        check_at_least_one(self, "outputs")
        check_init_scale(self.init_scale)

    @classmethod
    def smallest(cls) -> "DeepLinear":
        """One hidden layer of four neurons."""
        return cls(widths=(4,))

    @classmethod
    def documented_sites(cls) -> DocumentedSites:
        """The sites of two layers."""
        return (("Two layers.", cls(widths=(16,)).build(VECTOR_INPUTS).sites),)

    def build(self, inputs: Inputs) -> Model:
        """Builds the model for a task of one vector of floats.

        Raises:
            ConfigError: if the task's inputs are something else, or if ``outputs`` cannot
                distinguish its classes.
        """
        count = feature_count(inputs, "A deep linear network")
        shapes = self.shapes(inputs)
        layers = len(shapes)
        sites = linear_sites(layers)

        def init(key: PRNGKey) -> Params:
            return normal_parameters(
                key,
                shapes,
                {name: self.init_scale / math.sqrt(rows) for name, (rows, _) in shapes.items()},
            )

        def apply(
            params: Any,
            inputs: Float[Array, "batch 1 feature"],
            *,
            taps: Taps | None = None,
            positions: Any = None,
        ) -> Float[Array, "batch 1 class"]:
            check_features(inputs, count)
            tapped = Tapped(taps, sites)
            x = tapped.at("input", inputs)
            for i in range(layers):
                x = tapped.product(f"layers.{i}.W", x, params["layers"][str(i)]["W"], matmul)
                x = tapped.at("logits" if i == layers - 1 else f"hidden.{i}", x)
            return x

        def input_map(params: Any) -> Float[Array, "feature neuron"]:
            return reduce(
                lambda x, W: x @ W, [params["layers"][str(i)]["W"] for i in range(layers - 1)]
            )

        hidden = Roles(
            input_map=input_map,
            output_map=lambda params: params["layers"][str(layers - 1)]["W"][:, : inputs.classes],
            neurons=f"hidden.{layers - 2}",
            linear_readout=True,
        )
        return Model(init, apply, hidden if self.widths else Roles(), sites)

    def shapes(self, inputs: Inputs) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter, by dotted name."""
        count = feature_count(inputs, "A deep linear network")
        sizes = (count, *self.widths, output_count(self.outputs, inputs))
        return {f"layers.{i}.W": sizes[i : i + 2] for i in range(len(sizes) - 1)}


def linear_sites(layers: int) -> tuple[Site, ...]:
    """The sites of a deep linear network, in the order of the forward pass."""
    sites, x = [Site("input", "the features", ("batch", "position", "feature"))], "input"
    for i in range(layers):
        last = i == layers - 1
        name, dims = ("logits", LOGIT_DIMS) if last else (f"hidden.{i}", NEURON_DIMS)
        sites += [
            Site(f"layers.{i}.W", f"{x} layers.{i}.W", dims, "product"),
            Site(name, f"{x} layers.{i}.W", dims),
        ]
        x = name
    return tuple(sites)
