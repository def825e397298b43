"""Which tokens end a sentence, in English, Chinese and what is written like them.

Every full stop counts, as in BART's released code (`full_stop_index` of its `DenoisingDataset`): "Dr." ends a
sentence, too. For shuffling sentences that does no harm.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from gradus.core.sentences import SentenceEnds

MARKS = ".!?…。！？｡"
CLOSERS = "\"'”’»)]}）】」』》〉"


class _Tokens(Protocol):
    @property
    def size(self) -> int: ...

    def encode(self, texts: list[str]) -> list[np.ndarray]: ...

    def decode(self, ids: list[int]) -> str: ...


def sentence_ends(tokenizer: _Tokens, roles: frozenset[int], end: int | None) -> SentenceEnds:
    """The ids that end a sentence: those whose text does, and `end`, which ends a document; `roles` are the
    ids of tokens that are no text.

    A mark without a token of its own (in a vocabulary of bytes, "。" may be three) is the run of ids that
    encodes it.
    """
    single: set[tuple[int, ...]] = set() if end is None else {(end,)}
    closers = set()
    for token in set(range(tokenizer.size)) - roles:
        whole = tokenizer.decode([token])
        text = whole.strip()
        bare = text.rstrip(CLOSERS)
        if bare and bare[-1] in MARKS:
            single.add((token,))
        elif text and not bare and whole[0] == text[0]:  # one behind a space opens what comes
            closers.add(token)
    runs = {tuple(ids.tolist()) for ids in tokenizer.encode([*MARKS])}
    several = {run for run in runs if len(run) > 1 and not any((token,) in single for token in run)}
    return SentenceEnds(tuple(sorted(single | several)), frozenset(closers))
