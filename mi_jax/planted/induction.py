"""Hand-made induction: alone, with a backup head, and beside a concept that nothing reads.

The columns of the residual stream are one-hot (see ``heads``). A head of layer 0 copies the
predecessor of each token into the columns ``previous``. A head of layer 1 attends to where the
present token is the previous one, and writes the token that stands there.

An answer is predictable where the sequence repeats, so that induction finds the right token.
"""

import math
from typing import Any

import numpy as np

from mi_jax.basics.errors import ConfigError
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
    """Plants induction in the smallest network: two layers of one head, without MLP or norm.

    Matches of both heads are worth ``beta``, and the second head writes ``gain`` times the token it
    finds. With V symbols, a predictable answer then costs about (e + V - 2) / e^gain nats, and any
    other log(e + V - 1).

    Args:
        symbols: the number of symbols V.
        length: tokens per half of a sequence; None for V.
        beta: the score of a match.
        gain: the factor on the token that induction writes.

    Returns:
        The network. Its ``truth`` holds:

        - ``columns``: columns of the residual stream, by the name of what they hold.
        - ``heads``: (layer, head), by name.
        - ``edges``: the circuit's edges, from writer to reader.
        - ``scores``: values by the names of the measures, exact but for rounding. Those of the
          weights are Elhage's composition scores and the copying score, the sum of OV's eigenvalues
          over the sum of their absolute values.

    Raises:
        ConfigError: if ``symbols`` is below 2, or ``length`` does not fit the task.

    Example:
        >>> induction(symbols=4).truth["heads"]
        {'previous': [0, 0], 'induction': [1, 0]}
    """
    task = induction_task(symbols, length)
    settings, parts = induction_parts(task)
    flat = induction_weights(task, settings, parts, beta, beta, gain)
    return Planted(
        settings.build(task.inputs), parameters(flat), task, _truth(task, parts, beta, gain)
    )


def induction_parts(task: RepeatedSequences) -> tuple[Transformer, Columns]:
    """Lays out the induction network for a task.

    Returns:
        The transformer's settings, and the columns of its residual stream.
    """
    parts = columns(
        {"token": task.symbols + 1, "position": task.inputs.positions, "previous": task.symbols + 1}
    )
    return attention_only(task, parts, layers=2, heads=1), parts


def induction_weights(
    task: RepeatedSequences,
    settings: Transformer,
    parts: Columns,
    previous: float,
    match: float,
    gain: float,
) -> Flat:
    """Weights of the induction network, by dotted name.

    Args:
        task: the task.
        settings: the settings of the transformer.
        parts: the columns of the residual stream.
        previous: the score of the previous token in layer 0.
        match: the score of a match in layer 1.
        gain: the factor on the token that induction writes.
    """
    flat = embedded(task, parts, settings)
    look_back(flat, parts, PREVIOUS, previous, 1, "previous")
    induction_head(flat, parts, INDUCTION, match, gain)
    return flat


def backup_head(
    symbols: int = 16, length: int | None = None, *, beta: float = 30.0, gain: float = 20.0
) -> Planted:
    """Plants induction with a backup head, in the layer after the main head.

    The backup does the same as the main head, but only where the main head has done nothing. For
    that, the main head also raises a flag, by its attention to tokens other than the start token.
    The backup's score for the start token is beta / 2 + beta flag, so the backup rests there while
    the flag is up.

    Zeroing one of the two heads leaves the loss as it is. Zeroing both makes no answer predictable.
    A main head that is patched from another sequence still raises its flag, so the backup stays
    silent.

    Args:
        symbols: the number of symbols V.
        length: tokens per half of a sequence; None for V.
        beta: the score of a match.
        gain: the factor on the token that both heads write.

    Returns:
        The network. Its ``truth`` holds:

        - ``columns``: columns of the residual stream, by the name of what they hold.
        - ``heads``: (layer, head) of ``previous``, ``main`` and ``backup``.
        - ``loss``: the mean loss of the predictable answers in nats, by what is zeroed (``none``,
          ``main``, ``backup``, ``both``), up to a relative error of about gain e^(-beta / 2).
        - ``zero_is_backed_up``, ``patch_is_backed_up``: whether the backup takes over from a main
          head that is zeroed, or patched.

    Raises:
        ConfigError: if ``symbols`` is below 2, or ``length`` does not fit the task.
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
    induction_head(flat, parts, INDUCTION, beta, gain, into="answer", flag_raised="flag")
    induction_head(flat, parts, BACKUP, beta, gain, into="answer", flag_read="flag")
    predictable, unpredictable = predictable_loss(symbols, gain), unpredictable_loss(symbols)
    truth = {
        "columns": _listed(parts),
        "heads": {"previous": list(PREVIOUS), "main": list(INDUCTION), "backup": list(BACKUP)},
        "loss": {
            "none": predictable,
            "main": predictable,
            "backup": predictable,
            "both": unpredictable,
        },
        "zero_is_backed_up": True,
        "patch_is_backed_up": False,
    }
    return Planted(settings.build(task.inputs), parameters(flat), task, truth)


def unused_concept(
    symbols: int = 8, length: int | None = None, *, beta: float = 30.0, gain: float = 20.0
) -> Planted:
    """Plants induction beside a concept that nothing reads: the token two positions back.

    A second head of layer 0 writes that token. At ``blocks.0.resid_post`` the previous token and
    the token before it stand one-hot in columns of their own, at every position, so a linear map
    decodes each without error. Induction matches the previous token: without its columns no answer
    is predictable. Every weight that reads the columns of the other is zero: changing them does not
    change one bit of the logits.

    Args:
        symbols: the number of symbols V.
        length: tokens per half of a sequence; None for V.
        beta: the score of a match.
        gain: the factor on the token that induction writes.

    Returns:
        The network. Its ``truth`` holds:

        - ``columns``: columns of the residual stream, by the name of what they hold.
        - ``site``: where both concepts stand.
        - ``used``, ``unused``: for each concept, the ``concept``'s name in the task, its
          ``columns``, the ``head`` that writes it, the ``accuracy`` of the best linear probe, and
          the ``loss`` of the predictable answers in nats once its columns are zeroed.
        - ``loss``: the same loss with nothing changed.

    Raises:
        ConfigError: if ``symbols`` is below 2, or ``length`` does not fit the task.
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
    intact = predictable_loss(symbols, gain)

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
        "used": concept("previous_token", "previous", PREVIOUS, unpredictable_loss(symbols)),
        "unused": concept("token_two_back", "two_back", UNUSED, intact),
        "loss": intact,
    }
    return Planted(settings.build(task.inputs), parameters(flat), task, truth)


def predictable_loss(symbols: int, gain: float) -> float:
    """The loss in nats where induction finds the right token.

    The logit of the answer is ``gain``, that of the present token 1, all others are 0.

    Args:
        symbols: the number of symbols V.
        gain: the factor on the token that induction writes.
    """
    return math.log1p((math.e + symbols - 2) * math.exp(-gain))


def unpredictable_loss(symbols: int) -> float:
    """The loss in nats where nothing is found: the present token's logit is 1, all others are 0."""
    return math.log(math.e + symbols - 1)


def _truth(task: RepeatedSequences, parts: Columns, beta: float, gain: float) -> dict[str, Any]:
    """The truth of ``induction``."""
    V = task.symbols
    predictable, unpredictable = predictable_loss(V, gain), unpredictable_loss(V)
    back = np.array([1 / (1 + i * math.exp(-beta)) for i in range(1, 2 * task.length)])
    matched = [
        1 / (1 + math.exp(-beta / 2) + (i - 1) * math.exp(-beta))
        for i in range(task.length + 1, 2 * task.length)
    ]
    scores = {
        "previous_token_score": float(back.mean()),
        "induction_score": float(np.mean(matched)),
        "repeated_loss": predictable,
        "first_half_loss": (math.log(V) + (task.length - 1) * unpredictable) / task.length,
        "in_context_score": predictable - unpredictable,
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
    """Repeated sequences of V symbols.

    Args:
        symbols: the number of symbols V.
        length: tokens per half of a sequence; None for V.

    Raises:
        ConfigError: if ``symbols`` is below 2, or ``length`` does not fit the task.
    """
    if not isinstance(symbols, int) or symbols < 2:
        raise ConfigError(f"symbols={symbols}: must be a whole number of at least 2.")
    length = symbols if length is None else length
    return RepeatedSequences(
        symbols=symbols,
        length=length,
        test_examples=min(64, max(1, math.perm(symbols, max(length, 0)))),
    )


def _listed(parts: Columns) -> dict[str, list[int]]:
    """The columns as JSON has them."""
    return {name: part.tolist() for name, part in parts.items()}
