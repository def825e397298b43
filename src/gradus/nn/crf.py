"""The linear-chain conditional random field: how likely a row of tags is, and which row is likeliest.

Lafferty, McCallum and Pereira 2001; on a network's scores Collobert et al. 2011, section 3.4.2, and Lample et
al. 2016, section 2.2. A row of tags scores what each link says of its own tag and what the chain says of
each tag after another; its probability is exp of that over the sum for all rows of tags. Sums are taken in
log space, for all chains at one time: the one loop goes over time. Shapes: J links of S chains, K tags.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from gradus.nn.heads import LinearHead

FORBIDDEN = -1e4
"""The score of what may not follow: its probability is 0 in fp32, and sums stay finite where all is
forbidden."""


@dataclass(frozen=True, slots=True)
class Chains:
    """How the links of chains are laid out: time by time, the longest chain first, so that the chains which
    go on are the first ones of every time.

    `order` [J] are the links as they were given, `bounds` [T+1] where each time begins, `chain` [J] names the
    chain of a place, `before` [J-S] the place of the link before it, for all that are not the first, and
    `last` [S] that of a chain's last link; chains are numbered by their lengths.
    """

    order: Tensor
    bounds: list[int]
    chain: Tensor
    before: Tensor
    last: Tensor

    @property
    def first(self) -> Tensor:
        """The first link of each chain [S], as they were given."""
        return self.order[: len(self.last)]

    @staticmethod
    def of(begins: Tensor) -> Chains:
        """Chains end to end, each of which begins where `begins` [J] is not 0; the first of all does."""
        first = np.flatnonzero(begins.cpu().numpy())
        lengths = np.diff(first, append=len(begins))
        longest = np.argsort(-lengths, kind="stable")
        first, lengths = first[longest], lengths[longest]
        sizes = np.searchsorted(-lengths, -np.arange(lengths.max(initial=0)))
        bounds = np.cumsum([0, *sizes])
        time = np.repeat(np.arange(len(sizes)), sizes)
        chain = np.arange(len(begins)) - bounds[time]
        before = bounds[time[len(first) :] - 1] + chain[len(first) :]
        last = bounds[lengths - 1] + np.arange(len(first))
        places = [
            torch.from_numpy(one).to(begins.device) for one in (first[chain] + time, chain, before, last)
        ]
        return Chains(places[0], bounds.tolist(), *places[1:])

    def laid(self, given: Tensor) -> Tensor:
        """[J, ...] time by time."""
        return given.index_select(0, self.order)

    def given(self, laid: Tensor) -> Tensor:
        """The inverse of `laid`."""
        return torch.empty_like(laid).index_copy_(0, self.order, laid)


class Scores(NamedTuple):
    """What the chain says beside its links: of the first tag [K], of the last [K], and of `transitions[i, j]`
    [K, K] that tag j follows tag i."""

    starts: Tensor
    ends: Tensor
    transitions: Tensor

    def on(self, links: Tensor, begins: Tensor, ends: Tensor) -> Tensor:
        """What links say [J, K] with the scores of the first and last tag, where `begins` and `ends` [J]."""
        return links + begins.unsqueeze(1) * self.starts + ends.unsqueeze(1) * self.ends


def barred(follows: np.ndarray) -> Scores:
    """0 where a tag may stand and FORBIDDEN where not: `follows` [K+1, K+1] says which tag (a column) may
    follow which (a row), the last of each being what is before and behind the row of tags."""
    scores = torch.from_numpy(np.where(follows, 0.0, FORBIDDEN)).to(torch.float32)
    return Scores(scores[-1, :-1], scores[:-1, -1], scores[:-1, :-1])


class Chain(nn.Module):
    """What a chain learns to say. It begins at 0, where it is a softmax for each link; what `follows` forbids
    stays forbidden."""

    barred_starts: Tensor
    barred_ends: Tensor
    barred_transitions: Tensor

    def __init__(self, tags: int, follows: np.ndarray | None = None):
        super().__init__()
        self.starts = nn.Parameter(torch.zeros(tags))
        self.ends = nn.Parameter(torch.zeros(tags))
        self.transitions = nn.Parameter(torch.zeros(tags, tags))
        walls = barred(np.ones((tags + 1, tags + 1), bool) if follows is None else follows)
        for name, wall in walls._asdict().items():
            self.register_buffer(f"barred_{name}", wall, persistent=False)

    def start(self) -> None:
        for own in (self.starts, self.ends, self.transitions):
            own.zero_()

    @property
    def scores(self) -> Scores:
        return Scores(
            self.starts + self.barred_starts,
            self.ends + self.barred_ends,
            self.transitions + self.barred_transitions,
        )


class ChainHead(LinearHead):
    """A linear layer that scores the tags of each state, with a chain beside it."""

    def __init__(self, width: int, tags: int, dropout: float, bias: bool, follows: np.ndarray | None = None):
        super().__init__(width, tags, dropout, bias)
        self.chain = Chain(tags, follows)


def chain_nats(links: Tensor, transitions: Tensor, tags: Tensor, chains: Chains) -> Tensor:
    """Minus the log-likelihood of `tags` [J], of each chain [S], from what links say [J, K] (`Scores.on`) and
    transitions [K, K]; in the precision of the links. It cannot be differentiated twice."""
    links, tags = chains.laid(links), chains.laid(tags)
    total: Tensor = _LogPartition.apply(links, transitions, chains)
    own = links.gather(1, tags.unsqueeze(1))[:, 0]
    pairs = transitions[tags[chains.before], tags[len(chains.last) :]]
    own = own + torch.cat([own.new_zeros(len(chains.last)), pairs])
    return total.index_add(0, chains.chain, own, alpha=-1)


def marginals(links: Tensor, transitions: Tensor, chains: Chains) -> Tensor:
    """The probability of each tag at each link [J, K], whatever the other tags are."""
    links = chains.laid(links)
    weight = links.new_ones(len(chains.last))
    odds, _ = _posteriors(*_sums(links, transitions, chains), links, transitions, chains, weight)
    return chains.given(odds)


def likeliest(links: Tensor, transitions: Tensor, chains: Chains) -> Tensor:
    """The tags [J] of each chain that score most together (Viterbi 1967)."""
    best, turned = chains.laid(links).clone(), transitions.t()
    back = torch.zeros(best.shape, dtype=torch.int64, device=best.device)
    for past, now in _times(chains):
        most, back[now] = (best[past].unsqueeze(1) + turned).max(2)
        best[now] += most
    current = best.index_select(0, chains.last).argmax(1)
    tags = torch.empty(len(best), dtype=torch.int64, device=best.device)
    for begin, end in reversed([*pairwise(chains.bounds)]):
        going = current[: end - begin]
        tags[begin:end] = going
        going.copy_(back[begin:end].gather(1, going.unsqueeze(1))[:, 0])
    return chains.given(tags)


def _times(chains: Chains) -> list[tuple[slice, slice]]:
    """The places of every time but the first, and those of the links before them."""
    return [
        (slice(past, past + end - begin), slice(begin, end))
        for (past, begin), (_, end) in pairwise(pairwise(chains.bounds))
    ]


def _sums(links: Tensor, transitions: Tensor, chains: Chains) -> tuple[Tensor, Tensor]:
    """Of each link, laid out in time, the log of the sum over all tags so far, of those that end in each tag
    [J, K], above a level [J]: those of a chain make up the whole sum's log. So long chains lose no digits."""
    level, turned = links.logsumexp(1), transitions.t().contiguous()
    sums = links - level.unsqueeze(1)
    for past, now in _times(chains):
        sums[now] += (sums[past].unsqueeze(1) + turned).logsumexp(2)
        more = sums[now].logsumexp(1)
        level[now] += more
        sums[now] -= more.unsqueeze(1)
    return sums, level


def _posteriors(
    sums: Tensor, level: Tensor, links: Tensor, transitions: Tensor, chains: Chains, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """The probability of each tag at each link [J, K] and of each pair, summed [K, K], times the `weight` of
    the chain [S]: what a link has flows back to those before it, by their share of its sum."""
    odds, turned = torch.zeros_like(sums), transitions.t().contiguous()
    pairs = torch.zeros_like(turned)
    odds[chains.last] = sums.index_select(0, chains.last).exp() * weight.unsqueeze(1)
    came = sums + level.unsqueeze(1) - links
    for past, now in reversed(_times(chains)):
        share = (sums[past].unsqueeze(1) + turned).sub_(came[now].unsqueeze(2)).exp_()
        share.mul_(odds[now].unsqueeze(2))
        pairs += share.sum(0)
        odds[past] += share.sum(1)
    return odds, pairs.t()


class _LogPartition(torch.autograd.Function):
    """The log of the sum over all tags of each chain [S]; its gradient is the probabilities."""

    @staticmethod
    def forward(ctx, links, transitions, chains):
        sums, level = _sums(links, transitions, chains)
        ctx.save_for_backward(sums, level, links, transitions)
        ctx.chains = chains
        return links.new_zeros(len(chains.last)).index_add(0, chains.chain, level)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return *_posteriors(*ctx.saved_tensors, ctx.chains, gradient), None
