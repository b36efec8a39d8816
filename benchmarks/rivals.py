"""The same training in PyTorch, written in the usual way: eager, with AdamW. Needs the extra
``bench``.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn


def _matrix(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape) / shape[-1] ** 0.5)


class Transformer(nn.Module):
    """Network of Nanda et al.: one layer, without layer norms, with one einsum per operation.

    Args:
        vocabulary: number of tokens.
        outputs: number of output classes.
        positions: length of the input.
        d: width of the residual stream.
        heads: number of attention heads.
        d_mlp: width of the hidden layer.
        last: compute only the last position, from the queries on; a common optimisation.
    """

    def __init__(
        self,
        vocabulary: int,
        outputs: int,
        positions: int,
        d: int,
        heads: int,
        d_mlp: int,
        *,
        last: bool = False,
    ):
        super().__init__()
        e = d // heads
        self.W_E, self.W_pos, self.W_U = (
            _matrix(vocabulary, d),
            _matrix(positions, d),
            _matrix(d, outputs),
        )
        self.W_Q, self.W_K, self.W_V, self.W_O = (
            _matrix(heads, *shape) for shape in ((d, e), (d, e), (d, e), (e, d))
        )
        self.W_in, self.b_in = _matrix(d, d_mlp), nn.Parameter(torch.zeros(d_mlp))
        self.W_out, self.b_out = _matrix(d_mlp, d), nn.Parameter(torch.zeros(d))
        self.register_buffer("mask", torch.tril(torch.ones(positions, positions)).bool())
        self.scale, self.last = e**0.5, last

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits [batch position output]."""
        x = self.W_E[tokens] + self.W_pos
        rows = slice(-1, None) if self.last else slice(None)
        q = torch.einsum("bsd,hde->bhse", x[:, rows], self.W_Q)
        k, v = (torch.einsum("bsd,hde->bhse", x, W) for W in (self.W_K, self.W_V))
        scores = (q @ k.transpose(-1, -2) / self.scale).masked_fill(~self.mask[rows], float("-inf"))
        x = x[:, rows] + torch.einsum("bhse,hed->bsd", scores.softmax(-1) @ v, self.W_O)
        x = x + torch.relu(x @ self.W_in + self.b_in) @ self.W_out + self.b_out
        return x @ self.W_U


class QuadraticMLP(nn.Module):
    """Network of Gromov on a pair of tokens: concatenated one-hot inputs, a matrix, a square, and
    an output matrix.

    Args:
        tokens: number of tokens.
        width: width of the hidden layer.
        one_hot: True as published; False looks tokens up in two tables, which is faster.
    """

    def __init__(self, tokens: int, width: int, *, one_hot: bool = True):
        super().__init__()
        self.one_hot, self.tokens = one_hot, tokens
        self.a, self.b = nn.Embedding(tokens, width), nn.Embedding(tokens, width)
        self.into, self.out = (
            nn.Linear(2 * tokens, width, bias=False),
            nn.Linear(width, tokens, bias=False),
        )

    def forward(self, pairs: torch.Tensor) -> torch.Tensor:
        """Logits [batch 1 class]."""
        if self.one_hot:
            pre = self.into(nn.functional.one_hot(pairs[:, :2], self.tokens).float().flatten(1))
        else:
            pre = self.a(pairs[:, 0]) + self.b(pairs[:, 1])
        return self.out(pre**2)[:, None]


def training_step(
    model: nn.Module,
    inputs: np.ndarray,
    targets: np.ndarray,
    learning_rate: float,
    weight_decay: float,
) -> Callable[[], None]:
    """A function that makes one full-batch step: loss at the last position, backward, AdamW."""
    tokens, answers = (
        torch.from_numpy(np.array(inputs)).long(),
        torch.from_numpy(np.array(targets)).long()[:, -1],
    )
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, weight_decay=weight_decay, betas=(0.9, 0.98)
    )

    def step() -> None:
        loss = nn.functional.cross_entropy(model(tokens)[:, -1], answers)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def parity_step(
    n: int, k: int, width: int, batch: int, learning_rate: float, weight_decay: float
) -> Callable[[], None]:
    """A function that makes one step on fresh examples of a sparse parity."""
    model = nn.Sequential(nn.Linear(n, width), nn.ReLU(), nn.Linear(width, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay)

    def step() -> None:
        x = torch.randint(0, 2, (batch, n)) * 2.0 - 1.0
        answers = (x[:, :k].prod(1) < 0).long()
        loss = nn.functional.cross_entropy(model(x), answers)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step
