"""Text as it is compared: case, width, punctuation and white space aside.

NFKC makes one of full-width and half-width, ligatures and letters; characters are then letters, white space
or marks (punctuation, controls), and only letters count. Chinese characters and kana are letters that no
spaces part into words, so two of them count as one word, about what a word of theirs has.
"""

from __future__ import annotations

import sys
import unicodedata
from functools import cache

import numpy as np

LETTER, WIDE, SPACE, MARK = range(4)
_WIDE = [(0x3041, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)]
"""Kana and Chinese characters (Unicode 15, blocks)."""
_MARKS = {"Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Cc", "Cf"}
"""Categories: punctuation, controls. Symbols are letters here: C and C++, or two smileys, are not alike."""


@cache
def _table() -> np.ndarray:
    kinds = np.full(sys.maxunicode + 1, LETTER, np.uint8)
    for code in range(0x10000):  # beyond it there is neither white space nor living punctuation
        if chr(code).isspace():
            kinds[code] = SPACE
        elif unicodedata.category(chr(code)) in _MARKS:
            kinds[code] = MARK
    for first, last in _WIDE:
        kinds[first : last + 1] = np.where(kinds[first : last + 1] == MARK, MARK, WIDE)
    return kinds


def folded(text: str) -> tuple[np.ndarray, np.ndarray]:
    """The code points [T] of the text in NFKC and without case, and the kind of each."""
    text = unicodedata.normalize("NFKC", text).casefold()
    codes = np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32)
    return codes, _table()[codes]


def units(kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which characters are kept, and of those which begin a unit: a word, or one of the wide letters."""
    kept = np.flatnonzero((kinds == LETTER) | (kinds == WIDE))
    spaces = np.cumsum(kinds == SPACE)[kept]
    wide = kinds[kept] == WIDE
    begins = (np.diff(spaces, prepend=-1) > 0) | wide
    begins[1:] |= wide[:-1]
    return kept, np.flatnonzero(begins)
