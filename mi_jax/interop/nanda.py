"""Converts the public checkpoints of Nanda et al. (arXiv 2301.05217) to weights that ``mi-jax
measure`` reads.

The checkpoint ``saved_runs/wd_10-1_mod_addition_loss_curve.pth`` of
github.com/mechanistic-interpretability-grokking/progress-measures-paper, for example:

    python -m mi_jax.interop.nanda wd_10-1_mod_addition_loss_curve.pth nanda.npz
    mi-jax measure nanda.npz --like nanda_2023 --task.split-seed 1

The split of that run has seed 1. The published modules act on column vectors, W x; those of mi_jax
act on row vectors, x W.
"""

import argparse
import itertools
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

from mi_jax.basics.errors import ConfigError, MiJaxError, WeightsError
from mi_jax.basics.files import replacing
from mi_jax.interop.pth import read_pth

_OUTER = {
    "embed.W_E": ("d_model", "vocabulary"),
    "pos_embed.W_pos": ("position", "d_model"),
    "unembed.W_U": ("d_model", "vocabulary"),
}
_BLOCK = {
    "attn.W_Q": ("head", "d_head", "d_model"),
    "attn.W_K": ("head", "d_head", "d_model"),
    "attn.W_V": ("head", "d_head", "d_model"),
    "attn.W_O": ("d_model", "head * d_head"),
    "mlp.W_in": ("d_mlp", "d_model"),
    "mlp.b_in": ("d_mlp",),
    "mlp.W_out": ("d_model", "d_mlp"),
    "mlp.b_out": ("d_model",),
}
"""Arrays of each block in the checkpoint, with their dims there; ``_OUTER`` has the others."""

_GIVE = "Give a checkpoint of the published code"
"""The end of an error about a file that is none."""

_LEFT_OUT = "attn.mask"
"""A buffer of the checkpoint that is no parameter."""

_LOSSES = ("train_losses", "test_losses")


def convert(pth: str | os.PathLike[str], npz: str | os.PathLike[str]) -> Path:
    """Converts the model of a checkpoint to an npz of dotted names and row-vector arrays.

    The npz holds the arrays that ``row_vectors`` returns and, if the checkpoint has them,
    ``train_losses`` and ``test_losses``: float64, in nats, one value per logged step (in the public
    checkpoint every step, and every 10th).

    Shapes cannot tell a square matrix from its transpose: W_O where head * d_head is d_model, as in
    the public checkpoints, or W_in and W_out where d_mlp is d_model. For addition mod p on
    ``a b =``, the loss curves can: the mean loss of the weights over all pairs lies between the
    last training and test losses. The checkpoint is refused where it does not, but does with some
    square matrices transposed. Without loss curves, or for another task, nothing is checked.

    Args:
        pth: the checkpoint to read.
        npz: the file to write; an existing one is replaced.

    Returns:
        The path of the npz.

    Raises:
        ConfigError: if the npz would replace the checkpoint.
        WeightsError: if the checkpoint cannot be read or holds another model, its own losses say
            that square matrices act on row vectors, or the npz cannot be written.
    """
    source, file = Path(pth), Path(npz)
    if source.resolve() == file.resolve():
        raise ConfigError(f"{file} is the checkpoint itself. Name another file for the npz.")
    data = read_pth(source)
    try:
        state, losses = _state(data), _losses(data)
        weights = row_vectors(state)
        _check_orientation(state, weights, losses)
        arrays: dict[str, Any] = {**weights, **losses}
    except WeightsError as error:
        raise WeightsError(f"{source} {error}") from error
    try:
        # np.savez adds ".npz" to a name without that ending, but leaves an open file alone.
        with replacing(file) as temporary, temporary.open("wb") as opened:
            np.savez(opened, **arrays)
    except OSError as error:
        raise WeightsError(
            f"Cannot write {file} ({error.strerror}). Name a file that can be written."
        ) from error
    return file


def row_vectors(state: Mapping[str, Any]) -> dict[str, Float[np.ndarray, "..."]]:
    """Converts a state dict whose arrays act as W x to arrays that act as x W.

    Args:
        state: the arrays by dotted name: W_E [d_model vocabulary], W_Q, W_K, W_V [head d_head
            d_model], W_O [d_model head * d_head], W_in [d_mlp d_model], W_out [d_model d_mlp]. The
            buffer ``mask`` is ignored.

    Returns:
        The arrays by the same names: W_E [vocabulary d_model], W_Q, W_K, W_V [head d_model d_head],
        W_O [head d_head d_model], W_in [d_model d_mlp], W_out [d_mlp d_model]; W_pos [position
        d_model], W_U [d_model vocabulary] and the biases unchanged. They are float32, or float64
        if the state dict is.

    Raises:
        WeightsError: naming every array that is missing, unknown, or does not fit the others.
    """
    blocks = {
        int(match[1])
        for match in (re.match(r"blocks\.(\d+)\.", str(name)) for name in state)
        if match
    }
    wanted = dict(_OUTER)
    for block in range(max(len(blocks), 1)):
        wanted |= {f"blocks.{block}.{name}": dims for name, dims in _BLOCK.items()}
    left_out = {f"blocks.{block}.{_LEFT_OUT}" for block in blocks}
    problems = [f"lacks {name}" for name in wanted if name not in state]
    problems += [
        f"has {name}, which is no array of this model"
        for name in state
        if name not in wanted and name not in left_out
    ]
    sizes: dict[str, int] = {}
    for name in (name for name in wanted if name in state):
        problems += _misfits(name, state[name], wanted[name], sizes)
    if not problems and sizes["head * d_head"] != sizes["head"] * sizes["d_head"]:
        problems = [
            f"has W_O for {sizes['head * d_head']} = head * d_head, W_Q for {sizes['head']} *"
            f" {sizes['d_head']}"
        ]
    if problems:
        raise WeightsError(f"{'; '.join(problems)}. {_GIVE}, whose arrays act on column vectors.")
    return {
        name: _row_vector(name.rpartition(".")[2], state[name], sizes["head"]) for name in wanted
    }


def _row_vector(kind: str, x: Shaped[np.ndarray, "..."], heads: int) -> Float[np.ndarray, "..."]:
    """An array for x W, of the kind that the last part of its name says."""
    match kind:
        case "W_Q" | "W_K" | "W_V":
            x = x.swapaxes(1, 2)
        case "W_O":
            x = x.T.reshape(heads, -1, x.shape[0])
        case "W_E" | "W_in" | "W_out":
            x = x.T
    return np.ascontiguousarray(x, np.promote_types(x.dtype, np.float32))


def _misfits(name: str, x: Any, dims: tuple[str, ...], sizes: dict[str, int]) -> list[str]:
    """The problems of an array, given the sizes of dims so far; adds the array's own sizes."""
    if not isinstance(x, np.ndarray) or not jnp.issubdtype(x.dtype, jnp.floating):
        return [
            f"has {name} as {x.dtype if isinstance(x, np.ndarray) else type(x).__name__}, which is"
            " no floating-point array"
        ]
    if x.ndim != len(dims):
        return [f"has {name} {list(x.shape)} with {x.ndim} dims instead of {', '.join(dims)}"]
    pairs = [
        (dim, size, sizes.setdefault(dim, size)) for dim, size in zip(dims, x.shape, strict=True)
    ]
    return [
        f"has {name} {list(x.shape)} where {dim} is {size_elsewhere} elsewhere"
        for dim, size, size_elsewhere in pairs
        if size != size_elsewhere
    ]


_SLACK = 1.5
"""Factor by which the mean loss may leave the last logged losses, which are those of one step
before.
"""


def _check_orientation(
    state: Mapping[str, Any],
    weights: Mapping[str, Float[np.ndarray, "..."]],
    losses: Mapping[str, Float[np.ndarray, " log"]],
) -> None:
    """Refuses square matrices of which the checkpoint's own losses say that they are transposed.

    Args:
        state: the state dict.
        weights: what ``row_vectors`` makes of it.
        losses: the loss curves of the checkpoint.

    Raises:
        WeightsError: where the losses fit the weights only with some matrices transposed.
    """
    square = sorted({kind for name in state if (kind := _square_kind(name, state[name]))})
    logged = [losses[name][-1] for name in _LOSSES if name in losses and len(losses[name])]
    if not square or len(logged) < len(_LOSSES) or weights["pos_embed.W_pos"].shape[0] != 3:
        return
    low, high = min(logged) / _SLACK, max(logged) * _SLACK
    loss = _addition_loss(weights)
    if low <= loss <= high:
        return
    for count in range(1, len(square) + 1):
        for kinds in itertools.combinations(square, count):
            turned = {
                name: np.swapaxes(x, -1, -2) if _square_kind(name, x) in kinds else x
                for name, x in state.items()
            }
            if low <= (fitting := _addition_loss(row_vectors(turned))) <= high:
                raise WeightsError(
                    f"has losses that do not fit its weights: the losses end at {logged[0]:.3g}"
                    f" (training) and {logged[1]:.3g} (test), and the mean over all pairs is"
                    f" {loss:.3g}. With {', '.join(kinds)} transposed it is {fitting:.3g}, so"
                    " these seem to act on row vectors. Transpose them, or give a checkpoint of"
                    " the published code."
                )


def _square_kind(name: str, x: Any) -> str | None:
    """The last part of an array's name, where the array fits transposed as well; else None."""
    kind = name.rpartition(".")[2]
    if kind not in ("W_E", "W_U", "W_Q", "W_K", "W_V", "W_O", "W_in", "W_out"):
        return None
    return kind if x.shape[-1] == x.shape[-2] else None


def _addition_loss(weights: Mapping[str, Float[np.ndarray, "..."]]) -> float:
    """The mean cross-entropy over all pairs of a + b mod p, read at the equals sign, in nats.

    Args:
        weights: arrays for row vectors, by dotted name. The last token is the equals sign.
    """
    w = {name: x.astype(np.float64) for name, x in weights.items()}
    p = len(w["embed.W_E"]) - 1
    a, b = np.divmod(np.arange(p * p), p)
    x = w["embed.W_E"][np.stack([a, b, np.full_like(a, p)], axis=1)] + w["pos_embed.W_pos"]
    later = np.triu(np.ones((3, 3), bool), 1)
    block = 0
    while f"blocks.{block}.attn.W_Q" in w:
        of_block = {kind: w[f"blocks.{block}.{kind}"] for kind in _BLOCK}
        added = np.zeros_like(x)
        for W_Q, W_K, W_V, W_O in zip(
            *(of_block[f"attn.W_{letter}"] for letter in "QKVO"), strict=True
        ):
            scores = (x @ W_Q) @ (x @ W_K).swapaxes(1, 2) / np.sqrt(W_Q.shape[-1])
            scores = np.where(later, -np.inf, scores)
            pattern = np.exp(scores - scores.max(axis=-1, keepdims=True))
            added += pattern / pattern.sum(axis=-1, keepdims=True) @ (x @ W_V) @ W_O
        x = x + added
        post = np.maximum(x @ of_block["mlp.W_in"] + of_block["mlp.b_in"], 0)
        x = x + post @ of_block["mlp.W_out"] + of_block["mlp.b_out"]
        block += 1
    logits = x[:, -1] @ w["unembed.W_U"][:, :p]
    # The wrong answers alone, so that a loss of e^-20 keeps its digits.
    answers = ((a + b) % p)[:, None]
    margins = logits - np.take_along_axis(logits, answers, axis=1)
    np.put_along_axis(margins, answers, -np.inf, axis=1)
    return float(np.logaddexp(0, np.logaddexp.reduce(margins, axis=1)).mean())


def _state(data: Any) -> dict[str, Any]:
    """The state dict: the checkpoint itself, or its only entry that holds an ``embed.W_E``."""
    if not isinstance(data, dict):
        raise WeightsError(
            f"holds a {type(data).__name__} instead of a dict with the model's state dict. {_GIVE}."
        )
    states = [
        value
        for value in (data, *data.values())
        if isinstance(value, dict) and "embed.W_E" in value
    ]
    if len(states) != 1:
        entries = ", ".join(f"{key} ({type(value).__name__})" for key, value in data.items())
        raise WeightsError(
            f"holds {len(states)} state dicts with an embed.W_E instead of one. Its entries are:"
            f" {entries}. {_GIVE}."
        )
    return states[0]


def _losses(data: dict[str, Any]) -> dict[str, Float[np.ndarray, " log"]]:
    """The loss curves that the checkpoint has."""
    curves: dict[str, np.ndarray] = {}
    for name in (name for name in _LOSSES if name in data):
        try:
            curves[name] = np.asarray(data[name], np.float64)
        except (TypeError, ValueError) as error:
            raise WeightsError(
                f"has {name} that are not a list of numbers ({error}). {_GIVE}."
            ) from error
        if curves[name].ndim != 1:
            raise WeightsError(
                f"has {name} of shape {list(curves[name].shape)} instead of a list of numbers."
                f" {_GIVE}."
            )
    return curves


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line. Returns 0, or 2 for an error that the user can correct."""
    parser = argparse.ArgumentParser(
        "python -m mi_jax.interop.nanda",
        description="Convert a .pth of Nanda et al. to weights for mi-jax measure.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "pth",
        metavar="FILE.pth",
        help="a checkpoint of github.com/.../progress-measures-paper/saved_runs",
    )
    parser.add_argument(
        "npz", metavar="OUT.npz", help="the file to write; an existing one is replaced"
    )
    options = parser.parse_args(arguments)
    try:
        file = convert(options.pth, options.npz)
    except MiJaxError as error:
        print(f"mi_jax.interop.nanda: error: {error}", file=sys.stderr)
        return 2
    print(f"{file}: mi-jax measure {shlex.quote(str(file))} --like nanda_2023 --task.split-seed 1")
    return 0


if __name__ == "__main__":
    sys.exit(main())
