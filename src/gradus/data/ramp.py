"""What grows while a stage goes on: its batch, and the windows of text that it reads.

A window in pieces is an example with several sequences. So a step has the tokens, the targets and the place
in the data that it would have anyway; only how far a token sees back is less, and attention costs less.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from pydantic import Field

from gradus.core.config import Config
from gradus.core.duration import BatchSize, Quantity, Share, TextLength
from gradus.core.example import Example

MULTIPLE = 8
"""Lengths between the first and the last are multiples of this (Li et al. 2022, section 4)."""


class BatchRamp(Config):
    """The batch grows with the tokens seen (Brown et al. 2020, appendix B: from 32k tokens to the full batch
    over the first 4 to 12 of 300 billion)."""

    start: BatchSize = Field(alias="from")
    over: Share = Quantity(4.0, "%")
    """Of the stage."""


class WindowRamp(Config):
    """Windows grow with the rows seen, in a straight line (Li et al. 2022, section 4). There what lies beyond
    the length is cut off; here it is read as further windows of that length, as DeepSpeed's `seqlen_reshape`
    does, so that no token is lost."""

    start: TextLength = Field(alias="from")
    over: Share = Quantity(30.0, "%")
    """Of the stage."""

    def mean(self, last: float) -> float:
        """The mean length over the stage, of windows that have `last` tokens in the end."""
        share = min(self.over.amount / 100, 1.0)
        return last - share * max(last - self.start.amount, 0) / 2


def ramped(first: float, last: float, done: float) -> float:
    """What has grown from `first` toward `last` when the share `done` of the way is behind."""
    return first + (last - first) * min(done, 1.0)


def window_length(first: int, last: int, done: float) -> int:
    """Tokens of a window, a whole multiple of 8 on the way."""
    if done >= 1:
        return last
    return max(first, int(ramped(first, last, done)) // MULTIPLE * MULTIPLE)


def in_pieces(example: Example, length: int) -> Example:
    """A window of text as sequences of at most `length` tokens, each of which goes on where the last one
    stops."""
    (tokens,) = example.sequences
    if len(tokens) <= length:
        return example
    return replace(example, sequences=tuple(np.split(tokens, range(length, len(tokens), length))))
