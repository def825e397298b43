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
    spaces by itself."""
    for found in pattern.finditer(text, begin, len(text) if end is None else end):
        start, stop = found.span()
        for place in range(start, stop):
            if unspaced(text[place]):
                if start < place:
                    yield start, place
                yield place, place + 1
                start = place + 1
        if start < stop:
            yield start, stop
