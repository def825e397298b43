"""How likely tokens are, without gradients: what evaluation sums.

Shapes: M targets, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

CELLS = 1 << 23
"""Logits that exist at one time: 32 MiB in fp32."""


def token_nats(states: Tensor, weight: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """-log p of each target [M], fp32 or better, from states [M, D], the output embedding [V, D], values
    [M] and, where there is one, a bias [V].

    Products run in the precision of the states, the log-sum-exp in at least fp32; logits are never all there.
    """
    nats = torch.empty(
        len(states), dtype=torch.promote_types(states.dtype, torch.float32), device=states.device
    )
    for part, logits in _chunks(states, weight, bias):
        nats[part] = torch.nn.functional.cross_entropy(logits, value[part], reduction="none")
    return nats


def likeliest(states: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The likeliest token [M] after states [M, D], the first among equals; arguments as above."""
    found = torch.empty(len(states), dtype=torch.int64, device=states.device)
    for part, logits in _chunks(states, weight, bias):
        found[part] = logits.argmax(1)
    return found


def _chunks(states: Tensor, weight: Tensor, bias: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
    """Logits in at least fp32, some rows at a time, and which rows they are."""
    precision = torch.promote_types(states.dtype, torch.float32)
    narrow = weight.to(states.dtype)
    rows = max(1, CELLS // len(weight))
    for start in range(0, len(states), rows):
        part = slice(start, start + rows)
        logits = (states[part] @ narrow.t()).to(precision)
        if bias is not None:
            logits += bias
        yield part, logits
