"""Induction made by hand: alone, with a backup head, and beside a concept that nothing reads.

The stream's columns are one-hot (see ``heads``). A head of layer 0 copies each token's predecessor
into the columns ``previous``; a head of layer 1 attends to where the present token is the previous
one, and writes the token that stands there.
"""

import math
from typing import Any

import numpy as np

from mi_jax.basics.errors import require
from mi_jax.models import Transformer
from mi_jax.planted.heads import (
    Columns,
    attention_only,
    columns,
    embedded,
    induction_head,
    look_back,
)
from mi_jax.planted.network import Flat, Planted, parameters
from mi_jax.tasks import RepeatedSequences

PREVIOUS, INDUCTION, BACKUP, UNUSED = (0, 0), (1, 0), (2, 0), (0, 1)
"""(layer, head) of the planted heads."""


def induction(
    symbols: int = 16, length: int | None = None, *, beta: float = 30.0, gain: float = 20.0
) -> Planted:
    """The least network with induction: two layers of one head, without MLP or norm.

    Both heads' matches are worth ``beta``, and the second writes ``gain`` times the token it finds,
    so that with V symbols an answer that can be told costs about (e + V - 2) / e^gain nats, and one
    that can't log(e + V - 1).

    Args:
        symbols: V. length: tokens of a half; V by default.

    Returns:
        truth: ``columns`` of the residual stream by what they hold; ``heads``, (layer, head) by
            name; ``edges`` of the circuit,
        from writer to reader; ``scores`` by the field's names, but for rounding (those of the
        weights: Elhage's composition scores, and the share of the sum of OV's eigenvalues in that
        of their sizes).
    """
    task, settings, parts = induction_parts(induction_task(symbols, length))
    flat = induction_weights(task, settings, parts, beta, beta, gain)
    return Planted(
        settings.build(task.inputs), parameters(flat), task, _truth(task, parts, beta, gain)
    )


def induction_parts(task: RepeatedSequences) -> tuple[RepeatedSequences, Transformer, Columns]:
    """The task, with the settings and the stream of its induction network."""
    parts = columns(
        {"token": task.symbols + 1, "position": task.inputs.positions, "previous": task.symbols + 1}
    )
    return task, attention_only(task, parts, layers=2, heads=1), parts


def induction_weights(
    task: RepeatedSequences,
    settings: Transformer,
    parts: Columns,
    previous: float,
    match: float,
    gain: float,
) -> Flat:
    """The weights by the score of a previous token, the score of a match, and the gain."""
    flat = embedded(task, parts, settings)
    look_back(flat, parts, PREVIOUS, previous, 1, "previous")
    induction_head(flat, parts, INDUCTION, match, gain)
    return flat


def backup_head(
    symbols: int = 16, length: int | None = None, *, beta: float = 30.0, gain: float = 20.0
) -> Planted:
    """Induction whose head has a backup in the next layer, which does the same where the first head
    has done nothing.

    The main head also raises a flag, by the share of its attention that doesn't rest. The backup's
    rest at the start token is worth beta / 2 + beta flag: it rests while the flag is up. Set to
    zero alone, neither head is missed; both, nothing is told any more. A main head that is patched
    from another sequence still raises its flag, so that its backup stays silent.

    Returns:
        truth: ``columns``; ``heads`` (previous, main, backup); ``loss``: the mean loss of the
            answers that can be told, by what
        is set to zero (none, main, backup, both), but for a share of about gain e^(-beta / 2);
        ``zero_is_backed_up``, ``patch_is_backed_up``: whether the backup takes over.
    """
    task = induction_task(symbols, length)
    sizes = {
        "token": symbols + 1,
        "position": task.inputs.positions,
        "previous": symbols + 1,
        "answer": symbols,
        "flag": 1,
    }
    parts = columns(sizes)
    settings = attention_only(task, parts, layers=3, heads=1)
    flat = embedded(task, parts, settings, "answer")
    look_back(flat, parts, PREVIOUS, beta, 1, "previous")
    induction_head(flat, parts, INDUCTION, beta, gain, into="answer", raises="flag")
    induction_head(flat, parts, BACKUP, beta, gain, into="answer", heeds="flag")
    told, untold = told_loss(symbols, gain), untold_loss(symbols)
    truth = {
        "columns": _listed(parts),
        "heads": {"previous": list(PREVIOUS), "main": list(INDUCTION), "backup": list(BACKUP)},
        "loss": {"none": told, "main": told, "backup": told, "both": untold},
        "zero_is_backed_up": True,
        "patch_is_backed_up": False,
    }
    return Planted(settings.build(task.inputs), parameters(flat), task, truth)


def unused_concept(
    symbols: int = 8, length: int | None = None, *, beta: float = 30.0, gain: float = 20.0
) -> Planted:
    """Induction beside a second head of layer 0 that writes the token two positions back, which
    nothing reads.

    At ``blocks.0.resid_post`` both the previous token and the one before it stand one-hot in
    columns of their own, at every
    position: each can be decoded from the stream by a linear map, without error. The first is what
        induction matches: without
    its columns nothing is told any more. Every weight that reads the second's columns is zero: what
    is done to them doesn't change a bit of the logits.

    Returns:
        truth: ``columns``; ``site`` where both stand; ``used`` and ``unused``, each with the
            ``concept`` of the task that it is,
        the ``columns`` it stands in, the ``head`` that writes it, the ``accuracy`` of the best
        linear probe, and the ``loss`` of the answers that can be told once its columns are set to
        zero; ``loss`` with nothing changed.
    """
    task = induction_task(symbols, length)
    sizes = {
        "token": symbols + 1,
        "position": task.inputs.positions,
        "previous": symbols + 1,
        "two_back": symbols + 1,
    }
    parts = columns(sizes)
    settings = attention_only(task, parts, layers=2, heads=2)
    flat = induction_weights(task, settings, parts, beta, beta, gain)
    look_back(flat, parts, UNUSED, beta, 2, "two_back")
    told = told_loss(symbols, gain)

    def concept(name: str, part: str, head: tuple[int, int], loss: float) -> dict[str, Any]:
        return {
            "concept": name,
            "columns": parts[part].tolist(),
            "head": list(head),
            "accuracy": 1.0,
            "loss": loss,
        }

    truth = {
        "columns": _listed(parts),
        "site": "blocks.0.resid_post",
        "used": concept("previous_token", "previous", PREVIOUS, untold_loss(symbols)),
        "unused": concept("token_two_back", "two_back", UNUSED, told),
        "loss": told,
    }
    return Planted(settings.build(task.inputs), parameters(flat), task, truth)


def told_loss(symbols: int, gain: float) -> float:
    """The loss where the right token is found: logits are gain there, 1 at the present token and 0
    elsewhere.
    """
    return math.log1p((math.e + symbols - 2) * math.exp(-gain))


def untold_loss(symbols: int) -> float:
    """The loss where nothing is found: the present token's logit is 1, all others are 0."""
    return math.log(math.e + symbols - 1)


def _truth(task: RepeatedSequences, parts: Columns, beta: float, gain: float) -> dict[str, Any]:
    told, untold, V = told_loss(task.symbols, gain), untold_loss(task.symbols), task.symbols
    back = np.array([1 / (1 + i * math.exp(-beta)) for i in range(1, 2 * task.length)])
    matched = [
        1 / (1 + math.exp(-beta / 2) + (i - 1) * math.exp(-beta))
        for i in range(task.length + 1, 2 * task.length)
    ]
    scores = {
        "previous_token_score": float(back.mean()),
        "induction_score": float(np.mean(matched)),
        "repeated_loss": told,
        "first_half_loss": (math.log(V) + (task.length - 1) * untold) / task.length,
        "in_context_score": told - untold,
        "copying_score": 1.0,
        "key_composition": math.sqrt(V / ((V + 1) * (V + V / 4))),
        "query_composition": 0.0,
        "value_composition": 0.0,
    }
    edges = [
        "input->a0.h0.v",
        "a0.h0->a1.h0.k",
        "input->a1.h0.q",
        "input->a1.h0.v",
        "a1.h0->logits",
    ]
    heads = {"previous": list(PREVIOUS), "induction": list(INDUCTION)}
    return {"columns": _listed(parts), "heads": heads, "edges": edges, "scores": scores}


def induction_task(symbols: int, length: int | None) -> RepeatedSequences:
    """Repeated sequences of V symbols; L is V by default."""
    require(
        isinstance(symbols, int) and symbols >= 2,
        f"symbols={symbols}: must be a whole number of at least 2",
    )
    length = symbols if length is None else length
    return RepeatedSequences(
        symbols=symbols,
        length=length,
        test_examples=min(64, max(1, math.perm(symbols, max(length, 0)))),
    )


def _listed(parts: Columns) -> dict[str, list[int]]:
    return {name: part.tolist() for name, part in parts.items()}
