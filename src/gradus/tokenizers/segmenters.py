"""Words of Chinese, which has no spaces, by a segmenter that the user names: as in whole-word masking of
Chinese (Cui et al. 2021, who had LTP).

The segmenter reads the text that the tokens spell, and only words with a Chinese character are its affair.
Shapes: T tokens, B bytes of their text, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Literal

import numpy as np

from gradus.core.libraries import versions
from gradus.core.words import WordEdges
from gradus.tokenizers.words import is_chinese

Segmenter = Literal["jieba"]
Cut = Callable[[str], Iterable[str]]
"""A text -> its words, which end to end are the text."""


def segmenter_versions(name: Segmenter, field: str = "objectives") -> dict[str, str]:
    """The library's version, which belongs to what the words are. Raises UserError, which names `field`,
    where it is missing."""
    return versions([name], f"`words: {name}`", "chinese", "leave it out", field=field, text=name)


@cache
def segmenter(name: Segmenter) -> Cut:
    """Raises UserError where the library is missing."""
    segmenter_versions(name)
    import jieba

    # No word that a program added to the common one, and no cache of another's making.
    own = jieba.Tokenizer()
    own.FREQ, own.total = own.gen_pfdict(own.get_dict_file())
    own.initialized = True
    cut: Cut = own.cut
    return cut


class SegmentedWords:
    """Where words have their borders: around a segmenter's Chinese words, else as `edges` say.

    `spelling` [V] are the bytes that each token writes. A token that reaches over several words joins them.
    """

    def __init__(self, edges: WordEdges, spelling: Sequence[bytes], name: Segmenter):
        self.edges, self.spelling, self.cut = edges, spelling, segmenter(name)
        self.lengths = np.array([len(one) for one in spelling], dtype=np.int64)

    def borders(self, tokens: np.ndarray) -> np.ndarray:
        """Whether a border stands between neighbours of `tokens` [T], bool [T - 1]."""
        raw = b"".join(self.spelling[token] for token in tokens.tolist())
        around, inside = np.zeros((2, len(raw) + 1), dtype=bool)
        inside[:-1] = (np.frombuffer(raw, np.uint8) & 0xC0) == 0x80  # of a character, whatever cut it
        start = 0
        for word in self.cut(raw.decode("utf-8", "surrogateescape")):
            end = start + len(word.encode("utf-8", "surrogateescape"))
            if any(map(is_chinese, word)):
                around[[start, end]] = inside[start + 1 : end] = True
            start = end
        places = np.cumsum(self.lengths[tokens])[:-1]
        found: np.ndarray = (self.edges.borders(tokens) | around[places]) & ~inside[places]
        return found
