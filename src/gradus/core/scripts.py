"""Whether texts belong to scripts that put no spaces between words, such as Chinese."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache

UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
"""Scripts, by the first word of a character's Unicode name, that put no spaces between words."""


def without_spaces(texts: Sequence[str]) -> bool:
    """Whether most letters of `texts` belong to scripts that do not part words by spaces."""
    letters = Counter(character for text in texts for character in text if character.isalpha())
    joined = sum(count for character, count in letters.items() if unspaced(character))
    return 2 * joined > sum(letters.values())


@lru_cache(maxsize=1 << 16)
def unspaced(character: str) -> bool:
    """Whether it belongs to a script that does not part words by spaces."""
    return unicodedata.name(character, "").startswith(UNSPACED)


def word_places(
    text: str, pattern: re.Pattern[str], begin: int = 0, end: int | None = None
) -> Iterator[tuple[int, int]]:
    """Where words stand in `text[begin:end]`: what `pattern` finds, but each character of a script without
    spaces by itself. A mark that is combined with a letter, such as a vowel sign, belongs to it."""
    for start, stop in _runs(text, pattern, begin, len(text) if end is None else end):
        place = start
        while place < stop:
            after = _past_marks(text, place + 1, stop)
            if unspaced(text[place]):
                if start < place:
                    yield start, place
                yield place, after
                start = after
            place = after
        if start < stop:
            yield start, stop


def _runs(text: str, pattern: re.Pattern[str], begin: int, end: int) -> Iterator[tuple[int, int]]:
    """What `pattern` finds, with the marks behind it, and with what such a mark had parted."""
    first = last = begin
    for found in pattern.finditer(text, begin, end):
        start, stop = found.span()
        if start < last:
            continue
        parted = first < last == start and _is_mark(text[last - 1]) and text[start].isalnum()
        if first < last and not parted:
            yield first, last
        first, last = first if parted else start, _past_marks(text, stop, end)
    if first < last:
        yield first, last


def _past_marks(text: str, place: int, end: int) -> int:
    """The first place from `place` on without a combining mark, or `end`."""
    while place < end and _is_mark(text[place]):
        place += 1
    return place


@lru_cache(maxsize=1 << 16)
def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")
