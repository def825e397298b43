"""Train rows that are read otherwise in every epoch: a function of (seed, epoch, row, place in the list), so
resuming, order and workers change nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gradus.core.example import Example, Partner
from gradus.core.keyed import keyed_generator
from gradus.data.augmentation import (
    HIDDEN,
    Augment,
    BackTranslation,
    Insertion,
    Known,
    Masking,
    Mixing,
    OfWords,
    Replacement,
)
from gradus.data.encoding import Encoder, RowEncoder
from gradus.data.parting import Parted
from gradus.data.readers import Row
from gradus.data.sources import Rows
from gradus.data.synonyms import Synonyms
from gradus.tokenizers.segmenters import segmenter

_MARKED = re.compile(f"{HIDDEN[0]}(.*?){HIDDEN[1]}", re.DOTALL)


@dataclass(frozen=True)
class Changes:
    """A stage's list, with what was made of it: tables of synonyms and paraphrases by place in the list."""

    list: Sequence[Augment]
    seed: int
    synonyms: Mapping[int, Synonyms]
    paraphrases: Mapping[int, Mapping[str, str]]


class AugmentedRows(Rows):
    """Rows whose `changeable` columns are changed before tokens are made of them; labels, and what is not
    changed in an epoch, stay as they are.

    Where the context is too short for a changed row it is cut, whatever `long` says of those in the files.
    """

    def __init__(self, rows: Sequence[Row], plain: Rows, encoder: RowEncoder, changes: Changes):
        super().__init__(plain.examples, plain.places)
        self.rows, self.changes, self.columns = rows, changes, encoder.format.changeable
        self.encoder = replace(encoder, long="truncate") if encoder.long == "error" else encoder
        self._known = [self._known_of(place, one) for place, one in enumerate(changes.list)]
        mixing = [(place, one) for place, one in enumerate(changes.list) if isinstance(one, Mixing)]
        self._mixing = mixing[0] if mixing else None

    @property
    def tokens(self) -> int:
        """Tokens of one epoch, those of mixed rows counted as they are expected, all others as in the
        files."""
        return round(super().tokens * (1 + (self._mixing[1].chance if self._mixing else 0)))

    @property
    def longest(self) -> int:
        return super().longest * (2 if self._mixing else 1)

    def example(self, index: int, epoch: int = 0) -> Example:
        own, drawn = self._alone(index, epoch), self.partner(index, epoch)
        if drawn is None:
            return own
        row, share = drawn
        return mixed(own, self._alone(row, epoch), share)

    def partner(self, index: int, epoch: int) -> tuple[int, float] | None:
        """The row that a row is mixed with in an epoch, and what that weighs; None where it is read alone."""
        if self._mixing is None or len(self) < 2:
            return None
        place, mix = self._mixing
        random = self._random(epoch, index, place)
        if random.random() >= mix.chance:
            return None
        other = int(random.integers(len(self) - 1))
        return other + (other >= index), float(random.beta(mix.alpha, mix.alpha))

    def texts(self, index: int, epoch: int) -> dict[str, str]:
        """The columns that an epoch changes, hidden words between the marks of `HIDDEN`."""
        found: dict[str, str] = {}
        for place, one in enumerate(self.changes.list):
            random = self._random(epoch, index, place)
            if isinstance(one, Mixing) or random.random() >= one.chance:
                continue
            for column in self.columns:
                text = self.rows[index].fields[column]
                if isinstance(one, BackTranslation):
                    found[column] = self.changes.paraphrases[place][text]
                else:
                    found[column] = _changed(found.get(column, text), one, random, self._known[place])
        return {column: text for column, text in found.items() if text != self.rows[index].fields[column]}

    def _alone(self, index: int, epoch: int) -> Example:
        changed = self.texts(index, epoch)
        if not changed:
            return self.examples[index]
        row = replace(self.rows[index], fields={**self.rows[index].fields, **changed})
        encoder = self.encoder
        if any(_MARKED.search(text) for text in changed.values()):
            encoder = replace(encoder, tokenizer=Hiding(encoder.tokenizer))
        return encoder.encode([row])[0]

    def _random(self, epoch: int, index: int, place: int) -> np.random.Generator:
        return keyed_generator("augment", self.changes.seed, epoch, index, place)

    def _known_of(self, place: int, one: Augment) -> Known:
        if isinstance(one, Mixing | BackTranslation):
            return Known()
        cut = segmenter(one.words) if one.words is not None else None
        if isinstance(one, Replacement | Insertion) and one.file is not None:
            return Known(cut, self.changes.synonyms[place])

        def word(random: np.random.Generator) -> str | None:
            row = self.rows[int(random.integers(len(self.rows)))]
            words = Parted.of(row.fields[self.columns[int(random.integers(len(self.columns)))]], cut).words
            return words[int(random.integers(len(words)))] if words else None

        return Known(cut, word=word)


def _changed(text: str, one: OfWords, random: np.random.Generator, known: Known) -> str:
    parted = Parted.of(text, known.cut)
    if not parted.words or (isinstance(one, Masking) and any(mark in text for mark in HIDDEN)):
        return text
    return one.changed(parted, random, known).text


@dataclass(frozen=True)
class Hiding:
    """A tokenizer that reads every token of a marked word as the role `mask`; one that reaches over
    several words is hidden with any of them."""

    inner: Encoder

    def role(self, name: str) -> int:
        return self.inner.role(name)

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        return [ids for ids, _ in self.places(texts)]

    def places(self, texts: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Ids [T] and the characters [T, 2] of the texts without marks."""
        mask, found = self.inner.role("mask"), []
        for text, (ids, places) in zip(texts, self.inner.places([_MARKED.sub(r"\1", one) for one in texts])):
            hidden = np.array(ids)
            for shift, mark in enumerate(_MARKED.finditer(text)):
                begin = mark.start() - 2 * shift
                hidden[(places[:, 0] < begin + len(mark[1])) & (places[:, 1] > begin)] = mask
            found.append((hidden, places))
        return found


def mixed(own: Example, other: Example, share: float) -> Example:
    """Two rows as one, the second weighing `share`."""
    return replace(
        own,
        sequences=own.sequences + other.sequences,
        segments=own.segments + other.segments,
        decoded=own.decoded + other.decoded,
        truncated=own.truncated + other.truncated,
        partner=Partner(other.label, share, len(own.sequences)),
    )


def shown(text: str, mask: str = "[mask]") -> str:
    """A changed text for a person to read."""
    return _MARKED.sub(mask, text)
