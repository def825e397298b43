"""A table of synonyms: a file whose every line is a group of words, parted by tabs, that may stand for each
other.

So are the synsets of WordNet (Miller 1995) and the lines of 同义词词林 (Mei et al. 1983) once their codes are
gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from gradus.core.errors import UserError
from gradus.data.parting import Parted
from gradus.data.paths import BOM, first_undecodable

WANTED = "two or more words, parted by tabs"


@dataclass(frozen=True)
class Synonyms:
    """Word, in small letters, -> what may stand for it."""

    groups: dict[str, tuple[str, ...]]

    @cached_property
    def longest(self) -> int:
        """Words of the longest entry, a Chinese character being one."""
        return max(len(Parted.of(word).words) for word in self.groups)

    def found(self, text: Parted) -> list[tuple[int, int]]:
        """[first, last) of every place of `text` where an entry stands: the longest, from left to right."""
        places, first = [], 0
        while first < len(text.words):
            for last in range(min(first + self.longest, len(text.words)), first, -1):
                if text.between(first, last).casefold() in self.groups:
                    places.append((first, last))
                    first = last - 1
                    break
            first += 1
        return places

    def drawn(self, word: str, random: np.random.Generator) -> str:
        """Another word for `word`, which has an entry; with a capital where `word` has one."""
        others = self.groups[word.casefold()]
        other = others[int(random.integers(len(others)))]
        return other[:1].upper() + other[1:] if word[:1].isupper() else other


def read_synonyms(path: Path, field: str) -> Synonyms:
    """The table of a file in UTF-8; empty lines are nothing. Raises UserError for a file that is not there
    (`field` is the key that names it), a line that is no such group, and a file without any."""
    try:
        data = path.read_bytes()
    except OSError as error:
        problem = "there is no such file" if isinstance(error, FileNotFoundError) else f"{error.strerror}"
        raise UserError(problem, field=field, text=str(path), hint=f"a file with {WANTED}, a line") from None
    if bad := first_undecodable(data, "utf-8", path):
        bad.hint = "a table of synonyms is UTF-8"
        raise bad
    groups: dict[str, dict[str, None]] = {}
    for number, line in enumerate(data.decode("utf-8").removeprefix(BOM).split("\n"), 1):
        if line.strip():
            words = _group(line, path, number)
            for word in words:
                groups.setdefault(word.casefold(), {}).update(
                    {other: None for other in words if other != word}
                )
    if not groups:
        raise UserError("the table has no synonyms", file=path, hint=f"a line is {WANTED}")
    return Synonyms({word: tuple(others) for word, others in groups.items()})


def _group(line: str, path: Path, number: int) -> list[str]:
    words = [word.strip() for word in line.split("\t")]
    problem, text = "", line
    if len(words) < 2:
        problem = "a word alone has no synonym"
    elif any(not Parted.of(word).words for word in words):
        problem = "one of these is no word"
    elif len({word.casefold() for word in words}) < len(words):
        problem = "a word stands twice in its line"
    if problem:
        raise UserError(problem, file=path, line=number, text=text, hint=f"a line is {WANTED}")
    return words
