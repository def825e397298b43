"""Rows that two splits share: exactly, or but for case, width, white space and punctuation; labels aside.

Of a row its hashes are kept, not its text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gradus.data.folding import WIDE, folded, units
from gradus.data.readers import Row

FEWEST_WORDS = 3
"""Rows shorter than this ("good", "很好看") recur by chance: they are told, but neither stop nor are left
out."""
_ROWS_AT_ONCE = 4096


class Key(NamedTuple):
    """A row's texts, hashed: as they stand, and folded."""

    exact: bytes
    alike: bytes
    short: bool


def row_keys(rows: Sequence[Row], fields: Sequence[str], ordered: bool = True) -> list[Key]:
    """The keys of rows by these fields; a field that a row lacks is empty.

    Where the texts are not `ordered`, a row with the same ones in another order has the same keys.
    """
    keys: list[Key] = []
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        texts = [[row.fields.get(name, "") for name in fields] for row in rows[start : start + _ROWS_AT_ONCE]]
        said = _said([text for of_row in texts for text in of_row])
        for of_row in texts:
            folds, words = zip(*(next(said) for _ in fields))
            exact = _digest("\0".join(of_row if ordered else sorted(of_row)).encode())
            letters = b"\0\0\0\0".join(folds if ordered else sorted(folds))
            alike = _digest(letters) if any(folds) else exact
            keys.append(Key(exact, alike, sum(words) < FEWEST_WORDS))
    return keys


def _said(texts: Sequence[str]) -> Iterator[tuple[bytes, int]]:
    """The letters of every text, folded, as bytes, and the number of its words: all at once, since NumPy is
    slow on short arrays."""
    codes, kinds = folded("".join(text.replace("\0", " ") + "\n\0" for text in texts))
    kept, begins = units(kinds)
    edges = np.concatenate([[0], np.searchsorted(kept, np.flatnonzero(codes == 0))])
    wide = np.diff(np.concatenate([[0], np.cumsum(kinds[kept] == WIDE)])[edges])
    words = np.diff(np.searchsorted(begins, edges)) - wide + (wide + 1) // 2
    letters = codes[kept].tobytes()
    ends = (4 * edges).tolist()
    return zip((letters[begin:end] for begin, end in zip(ends, ends[1:])), words.tolist())


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def leaked(train: Sequence[Key], test: Sequence[Key]) -> list[bool]:
    """Whether each row of train is one of test, exactly or alike, that is not too short to say so.

    What is short is told by the row of test, as in `shared_rows`: of two rows alike one may have its letters
    in fewer words.
    """
    asked = [key for key in test if not key.short]
    exact, alike = {key.exact for key in asked}, {key.alike for key in asked}
    return [key.exact in exact or key.alike in alike for key in train]


@dataclass
class SharedRows:
    """Rows of one split (`of` in all) that another has too; `first` is (its row, the other's) as places."""

    of: int
    exact: int = 0
    alike: int = 0
    short: int = 0
    """Rows of fewer than FEWEST_WORDS words that the other has, exactly or alike."""
    first: tuple[int, int] | None = None
    """Row numbers in the split and in the other; of a short row where there is no other."""

    @property
    def serious(self) -> int:
        return self.exact + self.alike


def shared_rows(seen: Sequence[Key], asked: Sequence[Key]) -> SharedRows:
    """Which rows of `asked` are in `seen`."""
    exact = {key.exact: index for index, key in reversed(list(enumerate(seen)))}
    alike = {key.alike: index for index, key in reversed(list(enumerate(seen)))}
    found, first_short = SharedRows(len(asked)), None
    for index, key in enumerate(asked):
        other = exact.get(key.exact, alike.get(key.alike))
        if other is None:
            continue
        if key.short:
            found.short += 1
            first_short = first_short or (index, other)
            continue
        found.exact += key.exact in exact
        found.alike += key.exact not in exact
        found.first = found.first or (index, other)
    found.first = found.first or first_short
    return found
