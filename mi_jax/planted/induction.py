"""Hand-made induction: alone, with a backup head, and beside a concept that nothing reads.

The columns of the residual stream are one-hot (see ``heads``). A head of layer 0 copies the
predecessor of each token into the columns ``previous``. A head of layer 1 attends to where the
present token is the previous one, and writes the token that stands there.

An answer is predictable where the sequence repeats, so that induction finds the right token.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float

from mi_jax.basics.errors import ConfigError
from mi_jax.models import Transformer
from mi_jax.planted.exact import exact_pass
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
    finds. With V symbols and a large ``beta``, a predictable answer costs about
    (e + V - 2) / e^gain nats, and any other log(e + V - 1). A smaller ``beta`` lets attention miss
    its match, and what it then reads is written too: at ``beta=5`` and V = 16 a predictable answer
    costs 250 times as much. The truth is exact for every ``beta`` and ``gain``.

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
        - ``scores``: values by the names of the measures, exact but for rounding: attention, and
          losses in nats, from a forward pass in float64 (see ``exact_pass``). Those of the weights
          are Elhage's composition scores and the copying score, the sum of OV's eigenvalues over
          the sum of their absolute values.

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
        settings.build(task.inputs), parameters(flat), task, _truth(task, parts, flat, beta)
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

    With a large ``beta``, zeroing one of the two heads leaves the loss as it is, and zeroing both
    makes no answer predictable. A main head that is patched from another sequence still raises its
    flag, so the backup stays silent.

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
          ``main``, ``backup``, ``both``), exact but for rounding.
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
    zeroed = {"none": (), "main": (INDUCTION,), "backup": (BACKUP,), "both": (INDUCTION, BACKUP)}
    truth = {
        "columns": _listed(parts),
        "heads": {"previous": list(PREVIOUS), "main": list(INDUCTION), "backup": list(BACKUP)},
        "loss": {
            name: _predictable(task, exact_pass(flat, task, zeroed_heads=heads).losses)
            for name, heads in zeroed.items()
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
    the token before it stand one-hot in columns of their own, at every position (for a large
    ``beta``), so a linear map decodes each without error. Induction matches the previous token:
    without its columns no answer is predictable. Every weight that reads the columns of the other
    is zero: changing them does not change one bit of the logits.

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
          the ``loss`` of the predictable answers in nats once its columns are zeroed, exact but
          for rounding.
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

    def concept(name: str, part: str, head: tuple[int, int]) -> dict[str, Any]:
        zeroed = exact_pass(flat, task, zeroed_columns=parts[part].tolist())
        return {
            "concept": name,
            "columns": parts[part].tolist(),
            "head": list(head),
            "accuracy": 1.0,
            "loss": _predictable(task, zeroed.losses),
        }

    truth = {
        "columns": _listed(parts),
        "site": "blocks.0.resid_post",
        "used": concept("previous_token", "previous", PREVIOUS),
        "unused": concept("token_two_back", "two_back", UNUSED),
        "loss": _predictable(task, exact_pass(flat, task).losses),
    }
    return Planted(settings.build(task.inputs), parameters(flat), task, truth)


def _predictable(task: RepeatedSequences, losses: Float[np.ndarray, " position"]) -> float:
    """The mean loss of the answers that induction can predict, in nats."""
    return float(losses[task.length + 1 :].mean())


def _truth(task: RepeatedSequences, parts: Columns, flat: Flat, beta: float) -> dict[str, Any]:
    """The truth of ``induction``."""
    V, length = task.symbols, task.length
    losses, patterns = exact_pass(flat, task)
    back = np.array([1 / (1 + i * math.exp(-beta)) for i in range(1, 2 * length)])
    # From position i of the second half on, induction looks after the earlier copy of its token.
    matched = [patterns[INDUCTION][i, i - length + 1] for i in range(length + 1, 2 * length)]
    scores = {
        "previous_token_score": float(back.mean()),
        "induction_score": float(np.mean(matched)),
        "repeated_loss": _predictable(task, losses),
        "first_half_loss": float(losses[:length].mean()),
        "in_context_score": float(losses[-1] - losses[length // 2]),
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
