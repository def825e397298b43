"""Where the tokens of a ragged batch stand inside attention: the only place that pads.

Tokens come flat, sequences end to end. A `Layout` lays them out in a few groups of like length, a kernel
attends within every row of a group, and the layout brings the rows back. Padding stands after a row's real
tokens. Shapes: N flat tokens, S rows, T time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

ROUND_LENGTH = 16
"""Lengths are rounded up to this inside attention: each new matrix shape makes oneDNN build a kernel."""
GROUP_COST = 1 << 17
"""What one more group costs in calls, counted in cells of a score matrix."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How N flat tokens become padded groups [S, T] and return.

    `groups` are (S, T) and `members` the sequences in each, one a row, the last rows empty. `take` [P] names
    the flat token of every padded place and `back` [real] the padded place of every real token; both are
    None where the tokens already stand as one group. `padding` are the places of `take` that hold no token.
    """

    total: int
    real: int
    groups: tuple[tuple[int, int], ...]
    members: tuple[np.ndarray, ...]
    lengths: np.ndarray
    take: Tensor | None = None
    back: Tensor | None = None
    padding: Tensor | None = None

    @staticmethod
    def of(offsets: np.ndarray, total: int, device: torch.device | str = "cpu") -> Layout:
        """The layout of sequences at `offsets` [S+1] among `total` tokens: a function of their lengths."""
        lengths = np.diff(offsets)
        if len(lengths) and (lengths == lengths[0]).all() and lengths[0] > 0:
            every = (np.arange(len(lengths)),)
            return Layout(total, int(offsets[-1]), ((len(lengths), int(lengths[0])),), every, lengths)
        order = np.argsort(-lengths, kind="stable")
        order = order[lengths[order] > 0]
        groups, members, done = [], [], 0
        for rows, time in group_lengths(lengths[order]):
            groups.append((round_rows(rows), time))
            members.append(order[done : done + rows])
            done += rows
        return Layout._placed(offsets, total, groups, members, device)

    def beside(self, offsets: np.ndarray, total: int, device: torch.device | str = "cpu") -> Layout:
        """The layout of other sequences, one for each of these, in the same rows of the same groups: what
        cross attention takes its keys from. Raises ValueError for another number of sequences."""
        lengths = np.diff(offsets)
        if len(lengths) != len(self.lengths):
            raise ValueError(f"{len(lengths)} sequences cannot stand beside {len(self.lengths)}")
        times = [-(-int(lengths[rows].max()) // ROUND_LENGTH) * ROUND_LENGTH for rows in self.members]
        groups = [(rows, max(time, 1)) for (rows, _), time in zip(self.groups, times)]
        return Layout._placed(offsets, total, groups, self.members, device)

    @staticmethod
    def _placed(
        offsets: np.ndarray,
        total: int,
        groups: Sequence[tuple[int, int]],
        members: Sequence[np.ndarray],
        device: torch.device | str,
    ) -> Layout:
        lengths, real = np.diff(offsets), int(offsets[-1])
        place, places = np.zeros(len(lengths), dtype=np.int64), 0
        for (rows, time), inside in zip(groups, members):
            place[inside] = places + np.arange(len(inside)) * time
            places += rows * time
        back = np.repeat(place, lengths) + np.arange(real) - np.repeat(offsets[:-1], lengths)
        take = np.zeros(places, dtype=np.int64)
        take[back] = np.arange(real)
        empty = np.ones(places, dtype=bool)
        empty[back] = False
        indices = [torch.from_numpy(part).to(device) for part in (take, back, np.flatnonzero(empty))]
        return Layout(total, real, tuple(groups), tuple(members), lengths, *indices)

    def seen(self) -> list[np.ndarray | None]:
        """For each group the real tokens of its rows [S], at least 1 a row; None where all rows are full."""
        found: list[np.ndarray | None] = []
        for (rows, time), inside in zip(self.groups, self.members):
            here = np.ones(rows, dtype=np.int64)
            here[: len(inside)] = np.maximum(self.lengths[inside], 1)
            found.append(None if (here == time).all() else here)
        return found

    def spread(self, flat: Tensor) -> Sequence[Tensor]:
        """[N, ...] -> one [S, T, ...] a group. A view where the tokens already stand as one group."""
        if self.take is None or self.back is None:
            rows, time = self.groups[0]
            return [flat[: self.real].view(rows, time, *flat.shape[1:])]
        padded: Tensor = Move.apply(flat, self.take, self.back, None)
        parts = padded.split([rows * time for rows, time in self.groups])
        return [part.view(*group, *flat.shape[1:]) for part, group in zip(parts, self.groups)]

    def collect(self, parts: Sequence[Tensor]) -> Tensor:
        """The inverse of `spread`: [N, ...], zero in the dead tail."""
        tail = self.total - self.real
        if self.take is None or self.back is None:
            flat = parts[0].flatten(0, 1)
            return F.pad(flat, (0, 0) * (flat.dim() - 1) + (0, tail)) if tail else flat
        joined = (
            parts[0].flatten(0, 1) if len(parts) == 1 else torch.cat([part.flatten(0, 1) for part in parts])
        )
        flat = Move.apply(joined, self.back, self.take, self.padding)
        return F.pad(flat, (0, 0) * (flat.dim() - 1) + (0, tail)) if tail else flat


class Move(torch.autograd.Function):
    """Rows to other places: forward takes `there`, backward takes `back`. Neither adds, so both only copy.

    `unread` are the rows of the input that the result leaves out: their gradient is 0.
    """

    @staticmethod
    def forward(ctx, rows, there, back, unread):
        ctx.indices, ctx.size = (back, unread), len(rows)
        return rows.index_select(0, there)

    @staticmethod
    def backward(ctx, gradient):
        back, unread = ctx.indices
        moved = gradient.index_select(0, back)
        if unread is not None and len(unread):
            moved.index_fill_(0, unread, 0)
        if len(moved) < ctx.size:
            moved = F.pad(moved, (0, 0) * (moved.dim() - 1) + (0, ctx.size - len(moved)))
        return moved, None, None, None


def group_lengths(lengths: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Cuts lengths, longest first, into groups (rows, padded time) of least cost.

    The cost of a group is rows x time^2 cells of scores and a constant for its calls; the cheapest
    partition of the distinct rounded lengths into runs is found by dynamic programming.
    """
    rounded = -(-np.asarray(lengths, dtype=np.int64) // ROUND_LENGTH) * ROUND_LENGTH
    times, counts = np.unique(rounded, return_counts=True)
    times, counts = times[::-1], counts[::-1]
    before = np.concatenate([[0], np.cumsum(counts)])
    best, cut = [0.0], [0]
    for end in range(1, len(times) + 1):
        costs = [
            best[start] + GROUP_COST + float(before[end] - before[start]) * float(times[start]) ** 2
            for start in range(end)
        ]
        cut.append(int(np.argmin(costs)))
        best.append(costs[cut[end]])
    groups: list[tuple[int, int]] = []
    end = len(times)
    while end:
        groups.append((int(before[end] - before[cut[end]]), int(times[cut[end]])))
        end = cut[end]
    return tuple(reversed(groups))


def round_rows(rows: int) -> int:
    """Up to a power of two or three quarters of one: rows of a group are a matrix shape too."""
    power = 1 << (rows - 1).bit_length()
    return power * 3 // 4 if power >= 4 and rows <= power * 3 // 4 else power
