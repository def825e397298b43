"""Rows whose words have tags: lists of words and of tags, or a text and the spans of it that are entities.

Whatever a row says, it becomes a text, the places of its words, and a tag for each; so training, scoring and
`predict` read all of them alike.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from collections.abc import Sequence as Several
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

import numpy as np

from gradus.core.errors import UserError, counted, nearest
from gradus.core.scripts import without_spaces, word_places
from gradus.data.labels import ALL_NAMED, LabelledRow, Labels, field_text
from gradus.data.parts import Part, RowFormat, Sequence
from gradus.data.tags import (
    LETTERS,
    Entity,
    Scheme,
    all_written,
    entities,
    is_of,
    whole,
    written,
)

_WORDS = re.compile(r"\w+|[^\w\s]")
SHOWN = 40
"""Characters of a text that a message quotes."""


@dataclass(frozen=True)
class Laid:
    """A text and the characters from which to which each of its words stands, in order."""

    text: str
    places: list[tuple[int, int]]

    @property
    def words(self) -> list[str]:
        return [self.text[begin:end] for begin, end in self.places]


class Tagged(RowFormat):
    """What rows with tags have in common: start text extract, and a tag for every word."""

    scheme: Scheme = "bio"
    """How tags mark entities: bio (B-LOC I-LOC O; IOB2), bmes (B M E, and S for a single word), iobes (the
    same with I for M), or none, where they mark no entities, as parts of speech."""
    pieces: Literal["first", "last", "all"] = "first"
    """Which tokens of a word learn its tag; the first of them says it (Devlin et al. 2019, section 5.3: the
    first of the word). In a decoder the last alone has seen the whole word."""

    @property
    def roles(self) -> tuple[str, ...]:
        return ("start", "extract")

    @property
    def changeable(self) -> tuple[str, ...]:
        return ()

    @property
    def label(self) -> str | None:
        """The column with what is known of train and not when predicting."""
        raise NotImplementedError

    def laid(self, row: LabelledRow) -> Laid:
        """The text of a row and its words. Raises UserError where a word is empty."""
        raise NotImplementedError

    def tags_of(self, row: LabelledRow) -> list[str]:
        """The tag of each word. Raises UserError for tags that are not as the scheme wants them."""
        raise NotImplementedError

    def mends(self, row: LabelledRow) -> bool:
        """Whether the row's tags are not as they stand in the file."""
        return False

    def told(self, laid: Laid, entity: Entity) -> dict[str, Any]:
        """{"text", "type", "start", "end"} of an entity; the end is the first place behind it."""
        begin, end = laid.places[entity.first][0], laid.places[entity.last][1]
        return {"text": laid.text[begin:end], "type": entity.type, "start": begin, "end": end}

    def sequences(self, row: LabelledRow) -> list[Sequence]:
        return [(Part(self.laid(row).text, self.fields[0]),)]

    def corpus(self, row: LabelledRow) -> list[str]:
        return [self.laid(row).text] if self.fields[0] in row.fields else []


class Words(Tagged):
    """Words and their tags: each a list, as the reader conll and JSON have it, or parted by white space."""

    label_key: ClassVar[str] = "tags"

    kind: Literal["words"] = "words"
    words: str
    """The column with the words. The model reads a space between two, but not in scripts without spaces."""
    tags: str | None = None
    """The column with the tags."""
    repair: bool = False
    """Whether tags that the scheme would not write are read as conlleval reads them, and written anew: I
    that continues nothing begins an entity, as in IOB1. Unless asked for, they are a mistake."""

    @property
    def fields(self) -> tuple[str, ...]:
        return (self.words,)

    @property
    def label(self) -> str | None:
        return self.tags

    def laid(self, row: LabelledRow) -> Laid:
        words = _listed(row, self.words)
        if empty := next((number for number, word in enumerate(words, 1) if not word.strip()), None):
            raise UserError(f"word {empty} is empty", file=row.file, line=row.line, field=self.words)
        between = "" if without_spaces(words) else " "
        ends = np.cumsum([len(word) for word in words]) + len(between) * np.arange(len(words))
        places = [(end - len(word), end) for word, end in zip(words, ends.tolist())]
        return Laid(between.join(words), places)

    def tags_of(self, row: LabelledRow) -> list[str]:
        assert self.tags is not None, "asked for where an objective reads them"
        tags, words = _listed(row, self.tags, (str, int)), _listed(row, self.words)
        where: dict[str, Any] = {"file": row.file, "line": row.line, "field": self.tags}
        if len(tags) != len(words):
            problem = f"{counted(len(tags), 'tag')} for {counted(len(words), 'word')}"
            raise UserError(problem, **where, text=" ".join(words)[:SHOWN])
        for tag in tags:
            if not is_of(tag, self.scheme):
                raise UserError(f"the scheme {self.scheme} has no such tag", **where, text=tag,
                                hint=_fitting(tags))  # fmt: skip
        if self.scheme == "none":
            return tags
        found = entities(tags)
        if self.repair:
            return all_written(found, len(tags), self.scheme)
        for one in found:
            said, wanted = tags[one.first : one.last + 1], written(one, self.scheme)
            if said != wanted:
                before = tags[one.first - 1] if one.first else "nothing"
                problem = (
                    f"word {one.first + 1}, after {before}, begins no entity of the scheme {self.scheme}"
                )
                hint = f"written {' '.join(wanted)}; `repair: true` in the format writes all such so"
                raise UserError(problem, **where, text=" ".join(said), hint=hint)
        return tags

    def mends(self, row: LabelledRow) -> bool:
        if not self.repair or self.tags is None:
            return False
        return self.tags_of(row) != _listed(row, self.tags, (str, int))

    def told(self, laid: Laid, entity: Entity) -> dict[str, Any]:
        """As of all, but counted in words."""
        return super().told(laid, entity) | {"start": entity.first, "end": entity.last + 1}


class Entities(Tagged):
    """A text and the spans of it that are entities: words are found in the text, and have tags by the spans.

    Words are runs of letters and digits, single marks, and single characters of scripts without spaces.
    """

    label_key: ClassVar[str] = "spans"

    kind: Literal["entities"] = "entities"
    text: str
    """The column with the text."""
    spans: str | None = None
    """The column with the entities: a JSON list of {"start", "end", "type"} in characters of the text, `end`
    the first behind the entity."""
    scheme: Literal["bio", "bmes", "iobes"] = "bio"
    """How tags are written for them."""

    @property
    def fields(self) -> tuple[str, ...]:
        return (self.text,)

    @property
    def label(self) -> str | None:
        return self.spans

    def laid(self, row: LabelledRow) -> Laid:
        text = field_text(row, self.text)
        return Laid(text, list(word_places(text, _WORDS)))

    def tags_of(self, row: LabelledRow) -> list[str]:
        laid, spans = self.laid(row), sorted(self._spans(row))
        begins, ends = ({place[side]: at for at, place in enumerate(laid.places)} for side in (0, 1))
        size = len(laid.text)
        for begin, end, kind in spans:
            problem = ""
            if not 0 <= begin < end <= size:
                problem = f"the text has {counted(size, 'character')}, and no place from {begin} to {end}"
            elif begin not in begins or end not in ends:
                problem = f"the entity from {begin} to {end} begins or ends within a word, or at white space"
            if problem:
                raise self._refused(row, problem, f"{kind} {laid.text[max(begin, 0) : max(end, 0)]}")
        for (begin, end, _), (after, beyond, _) in pairwise(spans):
            if after < end:
                problem = f"the entities from {begin} to {end} and from {after} to {beyond} overlap"
                raise self._refused(row, problem, laid.text[begin : max(end, beyond)])
        found = [Entity(kind, begins[begin], ends[end]) for begin, end, kind in spans]
        return all_written(found, len(laid.places), self.scheme)

    def _spans(self, row: LabelledRow) -> Iterator[tuple[int, int, str]]:
        """(begin, end, type) of every entity as the row says. Raises UserError for what is no such list."""
        assert self.spans is not None, "asked for where an objective reads them"
        text = field_text(row, self.spans)
        try:
            found = json.loads(text)
            for one in found:
                begin, end, kind = one["start"], one["end"], one["type"]
                if type(begin) is not int or type(end) is not int or not isinstance(kind, str) or not kind:
                    raise TypeError
                yield begin, end, kind
        except (ValueError, TypeError, KeyError):
            wanted = 'a JSON list of {"start": 0, "end": 2, "type": "LOC"} is wanted'
            raise self._refused(row, wanted, text) from None

    def _refused(self, row: LabelledRow, problem: str, text: str) -> UserError:
        return UserError(problem, file=row.file, line=row.line, field=self.spans, text=text)


@dataclass(frozen=True)
class Tags(Labels):
    """The K tags of words in the order of the logits."""

    def of_words(self, row: LabelledRow, form: Tagged) -> list[int]:
        """The number of each word's tag. Raises UserError for one that train has not."""
        number = {name: place for place, name in enumerate(self.names)}
        tags = form.tags_of(row)
        for tag in tags:
            if tag not in number:
                raise UserError(
                    "this tag is not among those of the training rows", file=row.file, line=row.line,
                    field=form.label, text=tag, hint=f"{nearest(tag, self.names)}; {ALL_NAMED}",
                )  # fmt: skip
        return [number[tag] for tag in tags]

    @classmethod
    def of_rows(cls, rows: Several[LabelledRow], form: Tagged, given: list[str] | None) -> Tags:
        """The tags of the training rows: as `given`, else `O` and every letter of the scheme for each type,
        else, without a scheme, sorted. Raises UserError for a tag that `given` lacks, or a single tag."""
        tags = cls(tuple(given or whole((tag for row in rows for tag in form.tags_of(row)), form.scheme)))
        if given:
            for row in rows:
                tags.of_words(row, form)
        if len(tags.names) < 2:
            problem = "every word of the training rows has the same tag"
            raise UserError(problem, file=rows[0].file, field=form.label, text="".join(tags.names))
        return tags


def _listed(row: LabelledRow, field: str, of: tuple[type, ...] = (str,)) -> list[str]:
    """The items of a JSON list, or what stands between white space. Raises UserError for other items."""
    text = field_text(row, field)
    try:
        found = json.loads(text) if text.startswith("[") and text[1:2] != " " else None
    except ValueError:
        found = None
    if not isinstance(found, list):
        return text.split()
    if any(type(item) not in of for item in found):
        raise UserError("a list of texts is wanted", file=row.file, line=row.line, field=field, text=text)
    return [str(item) for item in found]


def _fitting(tags: Several[str]) -> str:
    """Which scheme has such tags."""
    fitting = [scheme for scheme in LETTERS if all(is_of(tag, scheme) for tag in tags)]
    if not fitting:
        return "`scheme: none` is for tags that mark no entities"
    return f"`scheme: {' or '.join(fitting)}` has those of this row"
