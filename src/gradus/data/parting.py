"""A text as its words and what stands between them, so that words can be changed and the rest stays.

A word is a run of letters and digits, with apostrophes and hyphens inside, or a single character of a script
without spaces; a segmenter finds words of several Chinese characters. Marks are no words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gradus.core.scripts import unspaced, word_places
from gradus.tokenizers.segmenters import Cut
from gradus.tokenizers.words import is_chinese

_INSIDE = "'’-"
_WORD = re.compile(rf"[^\W_]+(?:[{_INSIDE}][^\W_]+)*")


@dataclass(frozen=True)
class Parted:
    """gaps[0] words[0] gaps[1] ... words[-1] gaps[-1] is the text: one gap more than words."""

    words: tuple[str, ...]
    gaps: tuple[str, ...]

    @classmethod
    def of(cls, text: str, cut: Cut | None = None) -> Parted:
        """The words of a text; those with a Chinese character are what `cut` says, where it is given."""
        words, gaps, before = [], [], 0
        for begin, end in _places(text, cut):
            gaps.append(text[before:begin])
            words.append(text[begin:end])
            before = end
        return cls(tuple(words), (*gaps, text[before:]))

    @property
    def text(self) -> str:
        return "".join(gap + word for gap, word in zip(self.gaps, (*self.words, "")))

    def between(self, first: int, last: int) -> str:
        """The text from the word `first` to the word before `last`."""
        inner = Parted(self.words[first:last], ("", *self.gaps[first + 1 : last], ""))
        return inner.text

    def with_words(self, words: Sequence[str]) -> Parted:
        """As many other words at the same places."""
        return _spaced(words, self.gaps)

    def replaced(self, first: int, last: int, word: str) -> Parted:
        """`word` in place of the words from `first` to before `last` and what stands between those."""
        words = (*self.words[:first], word, *self.words[last:])
        return _spaced(words, (*self.gaps[: first + 1], *self.gaps[last:]))

    def inserted(self, place: int, word: str) -> Parted:
        """`word` before the word at `place`, or directly behind the last; a text has one at least."""
        words = (*self.words[:place], word, *self.words[place:])
        gaps = (self.gaps[place], "") if place < len(self.words) else ("", self.gaps[place])
        return _spaced(words, (*self.gaps[:place], *gaps, *self.gaps[place + 1 :]))

    def without(self, gone: Sequence[bool]) -> Parted:
        """Without the words that are `gone`, one bool a word, and the spaces that parted them."""
        words: list[str] = []
        gaps = [self.gaps[0]]
        for word, gap, is_gone in zip(self.words, self.gaps[1:], gone):
            if is_gone:
                gaps[-1] += gap.lstrip() if gaps[-1][-1:].isspace() or not (words or gaps[-1]) else gap
            else:
                words.append(word)
                gaps.append(gap)
        if gone[-1] and not self.gaps[-1]:
            gaps[-1] = gaps[-1].rstrip()
        return _spaced(words, gaps)


def _spaced(words: Sequence[str], gaps: Sequence[str]) -> Parted:
    """A space where words have come side by side that would else be one."""
    parted = [gap or _space(left, right) for gap, left, right in zip(gaps[1:], words, words[1:])]
    return Parted(tuple(words), (gaps[0], *parted, *gaps[len(words) :]) if words else tuple(gaps))


def _space(left: str, right: str) -> str:
    return "" if unspaced(left[-1]) or unspaced(right[0]) else " "


def _places(text: str, cut: Cut | None) -> Iterator[tuple[int, int]]:
    start = done = 0
    for word in cut(text) if cut is not None else ():
        end = start + len(word)
        if any(map(is_chinese, word)):
            yield from _plain(text, done, start)
            yield start, end
            done = end
        start = end
    yield from _plain(text, done, len(text))


def _plain(text: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Words without a segmenter; a mark between a letter and a Chinese character is of neither."""
    for start, stop in word_places(text, _WORD, begin, end):
        word = text[start:stop].strip(_INSIDE)
        if word:
            start += text[start:stop].index(word)
            yield start, start + len(word)
