"""What may be done to the texts of labelled rows before they are read: words go, change places, come in, are
hidden or said otherwise; a text is translated there and back; two rows are mixed.

Deletion, swap, insertion and synonyms are EDA's four (Wei and Zou 2019, section 2), 10 % of the words as
in its released code (`alpha` of code/augment.py), where it makes several copies of a row beforehand and
not, as here, another reading of it in every epoch. No stop words are spared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from gradus.core.config import Config
from gradus.core.duration import Part, Quantity
from gradus.data.parting import Parted
from gradus.data.synonyms import Synonyms
from gradus.tokenizers.segmenters import Cut, Segmenter, segmenter_versions

HIDDEN = ("\ufdd0", "\ufdd1")
"""Around a word that is read as masks: code points that are no characters (Unicode 23.7), so no text has
them."""


@dataclass(frozen=True)
class Known:
    """What changes of words may need: a segmenter, a table, and a word of the train rows, drawn at random."""

    cut: Cut | None = None
    synonyms: Synonyms | None = None
    word: Callable[[np.random.Generator], str | None] = lambda random: None


class Augmentation(Config):
    """What every kind may be told."""

    turn: ClassVar[int] = 1
    """Kinds come in this order: what reads the text as it stands, what changes words, what hides them,
    what mixes rows."""

    rows: Part = Quantity(50, "%")
    """The probability that it changes a row, drawn anew every epoch."""

    @property
    def chance(self) -> float:
        """`rows` as a number."""
        return self.rows.amount / 100

    @property
    def libraries(self) -> dict[str, str]:
        """The versions of the libraries that decide what it does. Raises UserError where one is missing."""
        return {}


class OfWords(Augmentation):
    """What changes a share of the words of each text."""

    share: Part = Quantity(10, "%")
    """Of the words, one at least (EDA: 0.1)."""
    words: Segmenter | None = None
    """What finds words of several Chinese characters; unless given each character is a word."""

    @property
    def libraries(self) -> dict[str, str]:
        return segmenter_versions(self.words, "augment") if self.words is not None else {}

    def number(self, words: int) -> int:
        """How many of so many words: rounded down, but one at least."""
        return max(1, int(self.share.amount * words / 100))

    def changed(self, text: Parted, random: np.random.Generator, known: Known) -> Parted:
        """The text with some words changed; it has one at least, and keeps one."""
        raise NotImplementedError

    def some(self, text: Parted, random: np.random.Generator) -> np.ndarray:
        """Which words are taken, each with the probability `share`; never all of them. bool [words]."""
        taken = random.random(len(text.words)) < self.share.amount / 100
        if taken.all():
            taken[random.integers(len(taken))] = False
        return taken


class Deletion(OfWords):
    """`{kind: deletion}`: every word goes with the probability `share`; one stays."""

    kind: Literal["deletion"] = "deletion"

    def changed(self, text: Parted, random: np.random.Generator, known: Known) -> Parted:
        return text.without(self.some(text, random).tolist())


class Swap(OfWords):
    """`{kind: swap}`: two words change places, as often as `share` says."""

    kind: Literal["swap"] = "swap"

    def changed(self, text: Parted, random: np.random.Generator, known: Known) -> Parted:
        words = list(text.words)
        for _ in range(self.number(len(words)) if len(words) > 1 else 0):
            one, other = random.choice(len(words), 2, replace=False)
            words[one], words[other] = words[other], words[one]
        return text.with_words(words)


class Replacement(OfWords):
    """`{kind: synonyms, file: FILE}`: words that the table has are replaced by another of their line."""

    kind: Literal["synonyms"] = "synonyms"
    file: str
    """The table: in every line two or more words, parted by tabs, that may stand for each other."""

    def changed(self, text: Parted, random: np.random.Generator, known: Known) -> Parted:
        assert known.synonyms is not None
        found = known.synonyms.found(text)
        chosen = random.permutation(len(found))[: self.number(len(text.words))]
        for place in sorted(chosen.tolist(), reverse=True):
            first, last = found[place]
            text = text.replaced(first, last, known.synonyms.drawn(text.between(first, last), random))
        return text


class Insertion(OfWords):
    """`{kind: insertion}`: words come in at random places: with a `file` synonyms of the text's own words,
    as in EDA, else words of the train rows, as often as they stand there."""

    kind: Literal["insertion"] = "insertion"
    file: str | None = None
    """A table of synonyms, as of the kind `synonyms`."""

    def changed(self, text: Parted, random: np.random.Generator, known: Known) -> Parted:
        found = [] if known.synonyms is None else known.synonyms.found(text)
        for word in [self._word(text, found, random, known) for _ in range(self.number(len(text.words)))]:
            if word is not None:
                text = text.inserted(int(random.integers(len(text.words) + 1)), word)
        return text

    def _word(
        self, text: Parted, found: list[tuple[int, int]], random: np.random.Generator, known: Known
    ) -> str | None:
        if known.synonyms is None:
            return known.word(random)
        if not found:
            return None
        return known.synonyms.drawn(text.between(*found[int(random.integers(len(found)))]), random)


class Masking(OfWords):
    """`{kind: masking}`: every word is hidden with the probability `share`: all its tokens are read as the
    role `mask` (Devlin et al. 2019, section 3.1, of words; word dropout, Iyyer et al. 2015, section 3)."""

    turn: ClassVar[int] = 2
    kind: Literal["masking"] = "masking"
    share: Part = Quantity(15, "%")
    """Of the words; one at least is read (BERT: 15 %)."""

    def changed(self, text: Parted, random: np.random.Generator, known: Known) -> Parted:
        hidden = self.some(text, random)
        words = [word.join(HIDDEN) if is_hidden else word for word, is_hidden in zip(text.words, hidden)]
        return Parted(tuple(words), text.gaps)


class BackTranslation(Augmentation):
    """`{kind: back_translation, there: FOLDER, back: FOLDER}`: the text is what two models make of it
    (Sennrich et al. 2016, section 3; as augmentation Xie et al. 2020, section 2.2), once for all epochs."""

    turn: ClassVar[int] = 0
    kind: Literal["back_translation"] = "back_translation"
    there: str
    """A model folder that says a text in another language: an encoder-decoder, or one taught `seq2seq`."""
    back: str
    """One that says it in the first language again."""
    temperature: float = Field(0.0, ge=0)
    """0: the likeliest word each time. Above, words are drawn (Xie et al. 2020: 0.9), which says more
    differently."""


class Mixing(Augmentation):
    """`{kind: mix}`: of two rows the states that the head reads are added, lambda times one and 1 - lambda
    times the other, and so are what is wanted (Zhang et al. 2018, section 2; of sentences Guo et al. 2019,
    section 3.2). Lambda is drawn from Beta(alpha, alpha), the other row from train."""

    turn: ClassVar[int] = 3
    kind: Literal["mix"] = "mix"
    rows: Part = Quantity(100, "%")
    """The probability that a row is mixed with another, drawn anew every epoch."""
    alpha: float = Field(0.2, gt=0)
    """The larger, the more even the mixture (Zhang et al. 2018: 0.1 to 0.4)."""


Augment = Annotated[
    Deletion | Swap | Replacement | Insertion | Masking | BackTranslation | Mixing,
    Field(discriminator="kind"),
]
