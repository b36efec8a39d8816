"""Settings of a transformer, and the shapes and initial scales of its parameters."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from mi_jax.basics.errors import ConfigError
from mi_jax.contracts import PLAIN, Architecture, Inputs
from mi_jax.models.activations import Activation
from mi_jax.models.checks import (
    check_at_least_one,
    check_choices,
    check_finite,
    check_init_scale,
)
from mi_jax.models.positions import distance_count
from mi_jax.models.transformer.table import multiply_adds

Normalization = Literal["none", "layer", "rms"]
Positions = Literal["learned", "rotary", "relative", "relative_keys", "none"]
Attention = Literal["causal", "bidirectional"]
Initialization = Literal["nanda_2023", "zhong_2023", "edelman_2024", "fan_in"]

TABLE = "table"
"""The route that computes the first layer on the token table (see ``table``) instead of example by
example.
"""

_LONGEST_TABLE = 8
"""The most positions for which ``cheapest_route`` takes the token table. The table compiles a
separate piece of program for every query and key, so long inputs would compile slowly.
"""


@dataclass(frozen=True)
class TransformerSettings(Architecture):
    """The fields of ``Transformer``, documented there, and the quantities that follow from them."""

    layers: int = 1
    d_model: int = 128
    heads: int = 4
    d_head: int | None = None
    d_mlp: int | None = None
    activation: Activation = "relu"
    normalization: Normalization = "none"
    positions: Positions = "learned"
    attention: Attention = "causal"
    attention_scale: float | None = None
    attention_rate: float = 1.0
    attention_bias: bool = False
    mlp_bias: bool = True
    unembed_bias: bool = False
    output_vocabulary: int | None = None
    logit_scale: float = 1.0
    initialization: Initialization = "nanda_2023"
    init_scale: float = 1.0

    repeated: ClassVar[str] = "layers"

    def __post_init__(self) -> None:
        check_at_least_one(self, "layers", "d_model", "heads", "d_head")
        if self.d_head is None and self.d_model % self.heads:
            raise ConfigError(
                f"heads={self.heads} does not divide d_model={self.d_model}. Choose a divisor, or"
                " give d_head."
            )
        if self.d_mlp is not None and not self.d_mlp >= 0:
            raise ConfigError(f"d_mlp={self.d_mlp}: must be at least 0.")
        if self.attention_scale is not None and not self.attention_scale > 0:
            raise ConfigError(f"attention_scale={self.attention_scale}: must be above 0.")
        check_finite(self, "logit_scale")
        check_init_scale(self.init_scale)
        if not 0 <= self.attention_rate <= 1:
            raise ConfigError(f"attention_rate={self.attention_rate}: must lie between 0 and 1.")
        if self.positions == "rotary" and self.head_size % 2:
            raise ConfigError(
                f"Rotary positions need an even d_head, not {self.head_size}. Change d_head or"
                " d_model."
            )
        check_choices(
            self,
            {
                "activation": Activation,
                "normalization": Normalization,
                "positions": Positions,
                "attention": Attention,
                "initialization": Initialization,
            },
        )

    @property
    def head_size(self) -> int:
        """Size of a head: ``d_head``, or its default."""
        return self.d_head or self.d_model // self.heads

    @property
    def score_scale(self) -> float:
        """Divisor of the scores: ``attention_scale``, or its default."""
        return self.attention_scale or math.sqrt(self.head_size)

    @property
    def mlp_size(self) -> int:
        """Hidden width of the MLPs: ``d_mlp``, or its default; 0 without MLPs."""
        return 4 * self.d_model if self.d_mlp is None else self.d_mlp

    @property
    def relative(self) -> str:
        """The projections that get a vector per distance: "KV", "K" or ""."""
        return {"relative": "KV", "relative_keys": "K"}.get(self.positions, "")

    def outputs(self, inputs: Inputs) -> int:
        """The number of logits per position.

        Raises:
            ConfigError: if there are fewer than the task has classes.
        """
        outputs = inputs.vocabulary if self.output_vocabulary is None else self.output_vocabulary
        if outputs < inputs.classes:
            raise ConfigError(
                f"output_vocabulary={outputs} is less than the task's {inputs.classes} classes."
                f" Give at least {inputs.classes}, or leave it out."
            )
        return outputs

    def check_inputs(self, inputs: Inputs) -> None:
        """Refuse inputs that are no tokens, or hold answers that this attention would see.

        Raises:
            ConfigError: in either case.
        """
        if inputs.kind != "tokens":
            raise ConfigError(
                f"A transformer reads tokens. This task gives {inputs.kind}. Use another model,"
                " such as mlp."
            )
        if inputs.causal and self.attention != "causal":
            raise ConfigError(
                f"attention={self.attention!r} would see this task's answers, which are part of its"
                " input. Use attention='causal'."
            )

    def shapes(self, inputs: Inputs) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter, by dotted name."""
        self.check_inputs(inputs)
        d, h, e, m = self.d_model, self.heads, self.head_size, self.mlp_size
        shapes: dict[str, tuple[int, ...]] = {"embed.W_E": (inputs.vocabulary, d)}
        if self.positions == "learned":
            shapes["pos_embed.W_pos"] = (inputs.positions, d)
        for block in (f"blocks.{i}" for i in range(self.layers)):
            shapes |= self._norm_shapes(f"{block}.ln1")
            shapes |= {f"{block}.attn.W_{x}": (h, d, e) for x in "QKV"} | {
                f"{block}.attn.W_O": (h, e, d)
            }
            distances = distance_count(inputs.positions, causal=self.attention == "causal")
            shapes |= {f"{block}.attn.W_rel_{x}": (h, distances, e) for x in self.relative}
            if self.attention_bias:
                shapes |= {f"{block}.attn.b_{x}": (h, e) for x in "QKV"} | {
                    f"{block}.attn.b_O": (d,)
                }
            if m:
                shapes |= self._norm_shapes(f"{block}.ln2")
                shapes |= {f"{block}.mlp.W_in": (d, m), f"{block}.mlp.W_out": (m, d)}
                if self.mlp_bias:
                    shapes |= {f"{block}.mlp.b_in": (m,), f"{block}.mlp.b_out": (d,)}
        shapes |= self._norm_shapes("ln_final")
        shapes["unembed.W_U"] = (d, self.outputs(inputs))
        if self.unembed_bias:
            shapes["unembed.b_U"] = (self.outputs(inputs),)
        return shapes

    def _norm_shapes(self, name: str) -> dict[str, tuple[int, ...]]:
        d = (self.d_model,)
        match self.normalization:
            case "none":
                return {}
            case "layer":
                return {f"{name}.w": d, f"{name}.b": d}
            case "rms":
                return {f"{name}.w": d}

    def initial_scale(self, name: str, shape: tuple[int, ...]) -> float:
        """The initial standard deviation of a matrix.

        Args:
            name: the matrix's dotted name.
            shape: its shape.
        """
        if self.initialization == "edelman_2024":
            return self.init_scale * (0.01 if name.endswith("W_O") else 0.02)
        rows = shape[0] * shape[1] if name.endswith("W_O") else shape[-2]
        if self.initialization in ("nanda_2023", "zhong_2023"):
            by_columns = ("unembed.W_U",)
            if self.initialization == "zhong_2023":
                by_columns = ("unembed.W_U", ".mlp.W_in")
            variance = shape[-1] if name.endswith(by_columns) else self.d_model
        elif ".W_rel_" in name:
            variance = shape[-1]
        else:
            variance = self.d_model if name.startswith(("embed", "pos_embed")) else rows
        return self.init_scale / math.sqrt(variance)

    def cheapest_route(
        self, inputs: Inputs, shape: tuple[int, ...], positions: tuple[int, ...] | None
    ) -> str:
        """The route whose first layer takes fewer multiply-adds.

        Args:
            inputs: the task's inputs.
            shape: [batch position], the shape of a batch.
            positions: the positions to compute; None for all.

        Returns:
            ``PLAIN`` or ``TABLE``.
        """
        everywhere = range(shape[1])
        if (
            inputs.positions > _LONGEST_TABLE
            or shape[1] != inputs.positions
            or not {*(positions or ())} <= {*everywhere}
        ):
            return PLAIN
        queries = everywhere if positions is None or self.layers > 1 else positions
        plain, table = multiply_adds(
            inputs, shape[0], list(queries), self.d_model, self.heads, self.head_size
        )
        return TABLE if table < plain else PLAIN

    def writers(self) -> tuple[str, ...]:
        """The sites that add to the residual stream, in order."""
        sites = ["embed"]
        if self.positions == "learned":
            sites.append("pos_embed")
        for i in range(self.layers):
            sites.append(f"blocks.{i}.attn.result")
            if self.mlp_size:
                sites.append(f"blocks.{i}.mlp_out")
        return tuple(sites)

    def readers(self) -> tuple[str, ...]:
        """The sites that read the residual stream, in order."""
        sites: list[str] = []
        for i in range(self.layers):
            sites += [f"blocks.{i}.attn.{x}_input" for x in "qkv"]
            if self.mlp_size:
                sites.append(f"blocks.{i}.mlp_in")
        return (*sites, f"blocks.{self.layers - 1}.resid_post")
