"""Settings of a transformer: its sizes and variants, the shapes of its parameters and the scales
they start with.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from mi_jax.basics.errors import nearest, require
from mi_jax.contracts import PLAIN, Architecture, Inputs
from mi_jax.models.activations import Activation
from mi_jax.models.positions import distance_count
from mi_jax.models.transformer.table import multiply_adds

Normalization = Literal["none", "layer", "rms"]
Positions = Literal["learned", "rotary", "relative", "relative_keys", "none"]
Attention = Literal["causal", "bidirectional"]
Initialization = Literal["nanda_2023", "zhong_2023", "edelman_2024", "fan_in"]

TABLE = "table"
"""The first layer on the token table (see ``table``), not example by example."""

_LONGEST_TABLE = 8
"""Positions up to which the token table is taken by itself: it is a program of its own for every
query and key.
"""


@dataclass(frozen=True)
class TransformerSettings(Architecture):
    """The fields of ``Transformer``, which documents them, and what follows from them."""

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

    def __post_init__(self) -> None:
        for name in ("layers", "d_model", "heads"):
            require(getattr(self, name) >= 1, f"{name}={getattr(self, name)}: must be at least 1")
        require(
            self.d_head is not None or self.d_model % self.heads == 0,
            f"heads={self.heads} don't divide d_model={self.d_model}; choose a divisor, or give"
            " d_head",
        )
        require(
            self.d_head is None or self.d_head >= 1, f"d_head={self.d_head}: must be at least 1"
        )
        require(self.d_mlp is None or self.d_mlp >= 0, f"d_mlp={self.d_mlp}: must be at least 0")
        require(
            self.attention_scale is None or self.attention_scale > 0,
            f"attention_scale={self.attention_scale}: must be > 0",
        )
        require(
            math.isfinite(self.logit_scale),
            f"logit_scale={self.logit_scale}: must be a finite number",
        )
        require(
            0 <= self.init_scale < math.inf,
            f"init_scale={self.init_scale}: must be a finite number of at least 0",
        )
        require(
            0 <= self.attention_rate <= 1,
            f"attention_rate={self.attention_rate}: must lie between 0 and 1",
        )
        require(
            self.positions != "rotary" or self.head_size % 2 == 0,
            f"rotary positions need an even d_head, not {self.head_size}",
        )
        for name, kinds in (
            ("activation", Activation),
            ("normalization", Normalization),
            ("positions", Positions),
            ("attention", Attention),
            ("initialization", Initialization),
        ):
            value = getattr(self, name)
            require(
                value in get_args(kinds),
                f"{name}={value!r} is unknown; {nearest(str(value), get_args(kinds))}",
            )

    @property
    def head_size(self) -> int:
        """d_head as used."""
        return self.d_head or self.d_model // self.heads

    @property
    def score_scale(self) -> float:
        """attention_scale as used."""
        return self.attention_scale or math.sqrt(self.head_size)

    @property
    def mlp_size(self) -> int:
        """d_mlp as used; 0 without MLPs."""
        return 4 * self.d_model if self.d_mlp is None else self.d_mlp

    @property
    def relative(self) -> str:
        """The letters of what distances are added to: keys, values, or nothing."""
        return {"relative": "KV", "relative_keys": "K"}.get(self.positions, "")

    def outputs(self, inputs: Inputs) -> int:
        """How many logits a position has. Raises ConfigError where they are fewer than the task's
        classes.
        """
        outputs = inputs.vocabulary if self.output_vocabulary is None else self.output_vocabulary
        require(
            outputs >= inputs.classes,
            f"output_vocabulary={outputs} is less than the task's {inputs.classes} classes",
        )
        return outputs

    def shapes(self, inputs: Inputs) -> dict[str, tuple[int, ...]]:
        """Every parameter's shape by dotted name."""
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
        return {"none": {}, "layer": {f"{name}.w": d, f"{name}.b": d}, "rms": {f"{name}.w": d}}[
            self.normalization
        ]

    def _scale(self, name: str, shape: tuple[int, ...]) -> float:
        if self.initialization == "edelman_2024":
            return self.init_scale * (0.01 if name.endswith("W_O") else 0.02)
        rows = shape[0] * shape[1] if name.endswith("W_O") else shape[-2]
        if self.initialization in ("nanda_2023", "zhong_2023"):
            by_columns = (
                "unembed.W_U",
                *((".mlp.W_in",) if self.initialization == "zhong_2023" else ()),
            )
            variance = shape[-1] if name.endswith(by_columns) else self.d_model
        elif ".W_rel_" in name:
            variance = shape[-1]
        else:
            variance = self.d_model if name.startswith(("embed", "pos_embed")) else rows
        return self.init_scale / math.sqrt(variance)

    def cheapest_route(
        self, inputs: Inputs, shape: tuple[int, ...], positions: tuple[int, ...] | None
    ) -> str:
        """The way of computing the first layer that takes fewer multiply-adds for inputs of this
        shape.
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

    def _writers(self) -> tuple[str, ...]:
        parts = ["embed", *(["pos_embed"] if self.positions == "learned" else [])]
        for i in range(self.layers):
            parts += [
                f"blocks.{i}.attn.result",
                *([f"blocks.{i}.mlp_out"] if self.mlp_size else []),
            ]
        return tuple(parts)

    def _readers(self) -> tuple[str, ...]:
        parts: list[str] = []
        for i in range(self.layers):
            parts += [f"blocks.{i}.attn.{x}_input" for x in "qkv"]
            parts += [f"blocks.{i}.mlp_in"] if self.mlp_size else []
        return (*parts, f"blocks.{self.layers - 1}.resid_post")
