"""Long runs of words that rows and documents share with running text: how far a test was read beforehand.

A run is 13 words, case and punctuation aside (Brown et al. 2020, section 4 and appendix C). Two Chinese or
Japanese characters count as a word, so a run of theirs is 26 characters. A text shorter than 13 words is
looked for as a whole, down to 8 words, that paper's floor: shorter ones are shared by chance.

Text is streamed. What is held is numbers: some 70 bytes a word of dev and test, none of what is read by.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from gradus.core.keyed import mixed
from gradus.data.folding import WIDE, folded, units

WORDS, FEWEST_WORDS = 13, 8
_RUN, _SHORTEST = 2 * WORDS, 2 * FEWEST_WORDS
"""In half words, so that a Chinese character is one."""
_PIECE, _OVERLAP = 1 << 18, 1 << 10
"""Characters worked on at once; longer documents are cut with an overlap that is wider than a run."""
_BITS = 22
"""A table of so many leading bits of a hash tells most places at once that they begin no run."""
_BASE = 0x9E3779B97F4A7C15


class Passage(NamedTuple):
    """A text that runs do not leave, where it stands, and the number of its row or document."""

    text: str
    file: str
    line: int
    owner: int


@dataclass(frozen=True)
class SharedRuns:
    """How many of a split's rows or documents (`of` hold a run) share one of their runs, and how many runs.

    `first` is FILE:LINE of the first of them, and of where it was found.
    """

    of: int
    owners: int
    of_runs: int
    runs: int
    first: tuple[str, str] | None


class Runs:
    """The runs of several splits, to be looked for in text that is read once."""

    def __init__(self, splits: Sequence[Iterable[Passage]]):
        self._files: dict[str, int] = {}
        found = [part for split, passages in enumerate(splits) for part in self._runs(passages, split)]
        columns: list[Any] = [np.concatenate(column) for column in zip(*found)] if found else [_NONE] * 7
        start, run, self._size, self._split, self._owner, self._file, self._line = columns
        self._splits, self._sizes = len(splits), np.unique(self._size).tolist()
        self._starts = np.unique(start)
        self._may_start = np.zeros(1 << _BITS, bool)
        self._may_start[self._starts >> np.uint64(64 - _BITS)] = True
        self._table, self._at = np.unique(run, return_inverse=True)

    def _runs(self, passages: Iterable[Passage], split: int) -> Iterator[tuple[np.ndarray, ...]]:
        """Of every run: hash of its first 8 words, hash, half words, split, owner, file, line."""
        for batch in _batches(passages):
            read = _Read(batch)
            begin, size = read.runs()
            files = np.array([self._files.setdefault(passage.file, len(self._files)) for passage in batch])
            owners = np.array([passage.owner for passage in batch])
            of = read.passage[begin]
            yield (read.hashes(begin, _SHORTEST), read.hashes(begin, size), size,
                   np.full_like(begin, split), owners[of], files[of], read.lines(begin))  # fmt: skip

    def found_in(self, passages: Iterable[Passage]) -> list[SharedRuns]:
        """What each split shares with these texts."""
        place = np.full((2, len(self._table)), -1)
        files: dict[str, int] = {}
        for batch in _batches(passages):
            read = _Read(batch)
            begin = read.where(_SHORTEST)
            hashes = read.hashes(begin, _SHORTEST)
            maybe = self._may_start[hashes >> np.uint64(64 - _BITS)]
            begin = begin[maybe][_known(self._starts, hashes[maybe])[1]]
            numbers = np.array([files.setdefault(passage.file, len(files)) for passage in batch])
            for size in self._sizes if len(begin) else ():
                fits = read.where(size, begin)
                at, is_known = _known(self._table, read.hashes(fits, size))
                new, first = np.unique(at[is_known], return_index=True)
                new, units = new[place[0][new] < 0], fits[is_known][first[place[0][new] < 0]]
                place[0][new], place[1][new] = numbers[read.passage[units]], read.lines(units)
        return [self._told(split, place, list(files)) for split in range(self._splits)]

    def _told(self, split: int, place: np.ndarray, files: list[str]) -> SharedRuns:
        own = np.flatnonzero(self._split == split)
        hit = own[place[0][self._at[own]] >= 0]
        first = None
        if len(hit):
            file, line = place[:, self._at[hit[0]]]
            asked = f"{list(self._files)[self._file[hit[0]]]}:{self._line[hit[0]]}"
            first = (asked, f"{files[file]}:{line}")
        owners, of = (len(np.unique(self._owner[some])) for some in (hit, own))
        return SharedRuns(of, owners, len(own), len(hit), first)


_NONE = np.zeros(0, np.uint64)


def _known(table: np.ndarray, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(place in the sorted table, whether it is there) of every hash."""
    if not len(table):
        return np.zeros(len(hashes), np.int64), np.zeros(len(hashes), bool)
    at = np.minimum(np.searchsorted(table, hashes), len(table) - 1)
    return at, table[at] == hashes


def _batches(passages: Iterable[Passage]) -> Iterator[list[Passage]]:
    """Passages together where they are short, in overlapping pieces where they are long."""
    batch: list[Passage] = []
    size = 0
    for passage in passages:
        line = passage.line
        for start in range(0, max(len(passage.text), 1), _PIECE):
            piece = passage.text[start : start + _PIECE + _OVERLAP]
            batch.append(passage._replace(text=piece, line=line))
            size += len(piece)
            line += piece.count("\n", 0, _PIECE)
            if size >= _PIECE:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


class _Read:
    """A batch as units (a word, or one Chinese character) with the sums from which any run's hash follows."""

    def __init__(self, batch: Sequence[Passage]):
        parts = [folded(passage.text + "\n") for passage in batch]
        codes, kinds = (np.concatenate(column) for column in zip(*parts))
        kept, begins = units(kinds)
        self.position = kept[begins]
        self.edges = np.append(begins, len(kept))
        size = np.where(kinds[self.position] == WIDE, 1, 2)
        self.weight = np.concatenate([[0], np.cumsum(size)])
        bounds = np.cumsum([0, *(len(part) for part, _ in parts)])
        self.passage = np.searchsorted(bounds, self.position, side="right") - 1
        self._breaks = np.flatnonzero(codes == ord("\n"))
        line = np.array([passage.line for passage in batch])
        self._line = line - np.searchsorted(self._breaks, bounds[:-1])
        powers, self._inverse = _powers(1 << max(len(kept), 2 * _PIECE).bit_length())
        values = mixed(codes[kept].astype(np.uint64)) * powers[: len(kept)]
        self._sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(values, dtype=np.uint64)])

    def lines(self, begin: np.ndarray) -> np.ndarray:
        """The line on which each of these units stands."""
        return self._line[self.passage[begin]] + np.searchsorted(self._breaks, self.position[begin])

    def _after(self, begin: np.ndarray, size: np.ndarray | int) -> np.ndarray:
        """The unit after a run of at least so many half words."""
        return np.searchsorted(self.weight, self.weight[begin] + size)

    def where(self, size: int, begin: np.ndarray | None = None) -> np.ndarray:
        """The units, of all or of those given, at which a run of this size stands within its passage."""
        begin = np.arange(len(self.position)) if begin is None else begin
        after = self._after(begin, size)
        begin, after = begin[after < len(self.weight)], after[after < len(self.weight)]
        return begin[self.passage[after - 1] == self.passage[begin]]

    def hashes(self, begin: np.ndarray, size: np.ndarray | int) -> np.ndarray:
        """The hash of the characters of each run, and of its size."""
        start, end = self.edges[begin], self.edges[self._after(begin, size)]
        hashed = (self._sums[end] - self._sums[start]) * self._inverse[start]
        return hashed ^ mixed(np.asarray(size, np.uint64))

    def runs(self) -> tuple[np.ndarray, np.ndarray]:
        """Where runs of 13 words begin, and shorter passages as a whole, with their half words."""
        begin = self.where(_RUN)
        first = np.flatnonzero(np.diff(self.passage, prepend=-1))
        total = np.diff(self.weight[np.append(first, len(self.position))])
        short = (total < _RUN) & (total >= _SHORTEST)
        size = np.concatenate([np.full(len(begin), _RUN), total[short]])
        return np.concatenate([begin, first[short]]), size


@cache
def _powers(size: int) -> tuple[np.ndarray, np.ndarray]:
    """The powers of the base modulo 2^64, and of its inverse: a hash then does not depend on where a run
    stands (Karp and Rabin 1987)."""
    powers = [np.full(size + 1, base, np.uint64) for base in (_BASE, pow(_BASE, -1, 1 << 64))]
    for each in powers:
        each[0] = 1
    return np.cumprod(powers[0], dtype=np.uint64), np.cumprod(powers[1], dtype=np.uint64)
