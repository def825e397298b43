"""Windows of two segments with a label: does the second follow the first (BERT), or are they swapped
(ALBERT)?

Shapes: W windows, U documents, S sentences, T tokens of a window.
"""

from __future__ import annotations

import numpy as np

from gradus.core.errors import UserError
from gradus.core.example import Example, PairKind
from gradus.core.keyed import keyed_generator
from gradus.data.frame import Frame, Roles
from gradus.data.sources import Tokens


class PairWindows:
    """Consecutive sentences of one document, as many as the context holds, parted into two segments.

    `sentence_pairs` (Devlin et al. 2019, appendix A.2): in half of the windows the second segment is one of
    another document, label 1. `sentence_order` (Lan et al. 2020, section 3.1): in half of them the segments
    change places, label 1. Where the parting falls, and what half a window belongs to, is a function of
    (epoch, window), so evaluation, which asks for epoch 0, always sees the same.

    As BERT's `create_pretraining_data.py` but for this: a window ends before the sentence that would overflow
    it and not behind it, so little is cut; the sentences that another document's stand for come in another
    epoch, not in the next window; there are no windows made short on purpose (`short_seq_prob`); and a last
    sentence left alone is read with the one before it. Sentences too long for a window are cut as there,
    token by token from the longer segment, at its head or its tail.

    `store` holds a sentence a document; `counts` [U] says how many sentences each document has. Documents
    with one sentence make no window: `alone` are their numbers.
    """

    def __init__(self, store: Tokens, counts: np.ndarray, context: int, frame: Frame, roles: Roles,
                 kind: PairKind):  # fmt: skip
        self.store, self.frame, self.roles, self.kind = store, frame, roles, kind
        self.room = context - frame.size(2)
        if self.room < 2:
            problem = f"a context of {context} tokens has no room for two segments"
            raise UserError(problem, field="model.context")
        self._sentences = np.asarray(store.documents, dtype=np.int64)
        self._first = np.concatenate([[0], np.cumsum(counts)])
        self.alone = np.flatnonzero(np.asarray(counts) < 2)
        sizes = np.diff(self._sentences) - 1  # without the `end` of each
        windows = [window for start, stop in zip(self._first[:-1], self._first[1:])
                   for window in packed(sizes, int(start), int(stop), self.room)]  # fmt: skip
        self._windows = np.array(windows, dtype=np.int64).reshape(-1, 2)
        before = np.concatenate([[0], np.cumsum(sizes)])
        self._sizes = before[self._windows[:, 1]] - before[self._windows[:, 0]]
        self._require_documents()

    def _require_documents(self) -> None:
        if not len(self):
            problem = "no document has two sentences, and a pair is made of two"
            hint = "`documents:` says what is one document, `sentences:` what is one sentence"
            raise UserError(problem, hint=hint)
        if self.kind == "sentence_pairs" and len(self._first) < 3:
            problem = "there is one document, and false pairs take their second segment from another"
            hint = "`documents: blank line` parts a file, and `windows: sentence_order` needs no other"
            raise UserError(problem, hint=hint)

    def __len__(self) -> int:
        return len(self._windows)

    @property
    def tokens(self) -> int:
        return int(np.minimum(self._sizes, self.room).sum()) + len(self) * self.frame.size(2)

    @property
    def longest(self) -> int:
        return int(min(self._sizes.max(), self.room)) + self.frame.size(2)

    @property
    def cut(self) -> np.ndarray:
        """How many tokens of each window's own sentences do not fit [W]."""
        return np.maximum(self._sizes - self.room, 0)

    def where(self, index: int, epoch: int = 0) -> str:
        return f"window {index}"

    def example(self, index: int, epoch: int = 0) -> Example:
        random = keyed_generator(self.kind, epoch, index)
        start, stop = self._windows[index].tolist()
        middle = int(random.integers(start + 1, stop))
        first, second = self._read(start, middle), self._read(middle, stop)
        label = int(random.random() < 0.5)
        if label and self.kind == "sentence_order":
            first, second = second, first
        elif label:
            second = self._from_another(start, self.room - len(first), random)
        lengths = shared_room(len(first), len(second), self.room)
        cut = len(first) + len(second) - sum(lengths)
        kept = [cut_to(text, length, random) for text, length in zip((first, second), lengths)]
        ids, segments = self.frame.laid(kept, self.roles)
        belongs = (segments,) if self.frame.segments else ()
        return Example(index, (ids,), label=label, truncated=cut, segments=belongs)

    def _from_another(self, sentence: int, room: int, random: np.random.Generator) -> np.ndarray:
        """Sentences of another document, from a random one on: as many as fit, and one at least."""
        own = int(np.searchsorted(self._first, sentence, side="right")) - 1
        other = int(random.integers(len(self._first) - 2))
        other += other >= own
        start, end = int(self._first[other]), int(self._first[other + 1])
        start = int(random.integers(start, end))
        stop = start + 1
        while stop < end and self._sentences[stop + 1] - self._sentences[start] - (stop + 1 - start) <= room:
            stop += 1
        return self._read(start, stop)

    def _read(self, start: int, stop: int) -> np.ndarray:
        """The tokens of sentences start to stop, without the `end` of each."""
        begin = int(self._sentences[start])
        ids = self.store.read(begin, int(self._sentences[stop]))
        return np.delete(ids, self._sentences[start + 1 : stop + 1] - 1 - begin)


def packed(sizes: np.ndarray, start: int, stop: int, room: int) -> list[tuple[int, int]]:
    """Sentences start to stop of one document, in windows (from, to) of at least two that `room` tokens hold,
    or of just two where not even those fit."""
    found = []
    while start < stop and stop - start > 1:
        end, total = start + 2, int(sizes[start] + sizes[start + 1])
        while end < stop and total + sizes[end] <= room:
            total += int(sizes[end])
            end += 1
        found.append((start, end))
        start = end if stop - end != 1 else end - 1
    return found


def shared_room(first: int, second: int, room: int) -> tuple[int, int]:
    """What two segments keep when the longer one loses a token at a time until both fit."""
    excess = max(first + second - room, 0)
    apart = min(abs(first - second), excess)
    longer, shorter = max(first, second) - apart, min(first, second)
    longer, shorter = longer - (excess - apart + 1) // 2, shorter - (excess - apart) // 2
    return (longer, shorter) if first >= second else (shorter, longer)


def cut_to(text: np.ndarray, length: int, random: np.random.Generator) -> np.ndarray:
    """The text with so many tokens, those too many taken from head or tail, each by a coin."""
    gone = len(text) - length
    if not gone:
        return text
    head = int(random.binomial(gone, 0.5))
    return text[head : head + length]
