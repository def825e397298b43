"""Running text: which files a split reads, where one document ends and the next begins, what is held out of
train.

Documents are streamed, one file in memory at a time. The text of a document is its own but for line ends (LF)
and the byte-order mark; documents of nothing but white space are left out.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from gradus.core.config import Config, wrong
from gradus.core.errors import UserError
from gradus.core.storage import digest_file, digest_json
from gradus.data.builtin import builtin_name, builtin_text
from gradus.data.paths import Encoding, find_files, read_text
from gradus.data.split import (
    SPLITS,
    TRAIN,
    EvaluationChoice,
    HeldOut,
    TrainChoice,
    assign,
    fraction,
    held_out,
    named,
)

NEAR = 1000
"""A tail is cut at a line's end where one stands within this many characters of the exact place (and half the
share)."""


WindowKind = Literal["contiguous", "document", "sentence_pairs", "sentence_order"]


class Separator(Config):
    """Documents that are parted by a text of their own, such as "<|endoftext|>"."""

    separator: Annotated[str, Field(min_length=1)]


class TextData(Config):
    """Text without labels."""

    kind: Literal["text"]
    train: TrainChoice
    """A file, a folder, a glob, a list of those, or builtin:NAME."""
    dev: EvaluationChoice = None
    """As train, or a share of it: whole documents, or the tail where there is one document."""
    test: EvaluationChoice = None
    encoding: Encoding = "utf-8"
    documents: Literal["file", "blank line", "line"] | Separator = "file"
    """What is one document: a file, what stands between blank lines, a line, or between separators."""
    windows: WindowKind = "contiguous"
    """Whether windows may see across documents (contiguous, as GPT-1 and GPT-2 were trained) or never do.
    sentence_pairs, sentence_order: two segments and a label, which the objectives next_sentence and
    sentence_order read."""
    sentences: Literal["lines", "rules"] | None = None
    """What is one sentence, for windows of two segments: a line, or what rules for English and Chinese find.
    lines where `documents` are parted by blank lines, else rules, unless given."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Train on the first so many documents only (after dev and test were held out)."""

    @property
    def parts(self) -> dict[str, TextData]:
        """The texts it is made of: itself, without a name."""
        return {"": self}

    @model_validator(mode="after")
    def _shares(self) -> TextData:
        if any(choice.by for choice in held_out(self).values()):
            raise ValueError("text is held out by whole documents; `by` is for rows")
        if self.sentences is not None and self.windows in ("contiguous", "document"):
            hint = "leave it out, or write `windows: sentence_pairs`"
            raise wrong("sentences", "these windows are not made of sentences", self.sentences, hint)
        return self


@dataclass(frozen=True, slots=True)
class Document:
    """One document and where it begins (1-based line)."""

    text: str
    file: str
    line: int


class TextSource:
    """The text of one split; it can be read again and again."""

    def __init__(self, files: list[Path], digest: Callable[[], str], read: Callable[[], Iterator[Document]]):
        self.files = files
        self._digest, self._read = digest, read

    @cached_property
    def digest(self) -> str:
        """Names the content: the bytes of the files in order (not their names) and the share of them this
        split is."""
        return self._digest()

    def documents(self) -> Iterator[Document]:
        """The documents in order. Raises UserError for a file that cannot be decoded or holds no text."""
        return self._read()


def text_splits(data: TextData, root: Path) -> dict[str, TextSource]:
    """The splits that `data` names, among train, dev and test. Files are found now and read later.

    Raises UserError where a path is wrong or a file is empty.
    """
    sources = {split: _source(choice, split, data, root) for split, choice in named(data).items()}
    if shares := held_out(data):
        sources |= _Parted(sources[TRAIN], shares).sources()
    if data.limit is not None:
        sources[TRAIN] = _limited(sources[TRAIN], data.limit)
    return {split: _as_read(sources[split], data) for split in SPLITS if split in sources}


def _as_read(source: TextSource, data: TextData) -> TextSource:
    """The source, its digest naming also how the bytes become documents."""
    options = data.model_dump(mode="json", include={"encoding", "documents", "limit"})
    return TextSource(source.files, lambda: digest_json([source.digest, options]), source.documents)


def _source(choice: str | list[str], split: str, data: TextData, root: Path) -> TextSource:
    name = builtin_name(choice)
    if name is not None:
        passages = builtin_text(name, split)
        return TextSource(
            [], lambda: digest_json(passages), lambda: (Document(*passage) for passage in passages)
        )
    files = find_files(choice, root, split, folders=True)
    return TextSource(
        files, lambda: digest_json([digest_file(file) for file in files]), lambda: _read_files(files, data)
    )


def _limited(source: TextSource, limit: int) -> TextSource:
    return TextSource(source.files, lambda: source.digest, lambda: islice(source.documents(), limit))


def _read_files(files: list[Path], data: TextData) -> Iterator[Document]:
    for file in files:
        empty = True
        for start, piece in _pieces(read_text(file, data.encoding), data.documents):
            if piece.strip():
                empty = False
                yield Document(piece, str(file), start)
        if empty:
            raise UserError("the file holds no text", file=file)


def _pieces(text: str, documents: str | Separator) -> Iterator[tuple[int, str]]:
    """(1-based line of its first letter, text) of each document, blank ones included."""
    if documents == "file":
        yield 1, text
    elif documents == "line":
        yield from enumerate(text.split("\n"), start=1)
    elif isinstance(documents, Separator):
        line = 1
        for piece in text.split(documents.separator):
            leading = len(piece) - len(piece.lstrip("\n"))
            yield line + leading, piece.strip("\n")
            line += piece.count("\n") + documents.separator.count("\n")
    else:
        yield from _paragraphs(text)


def _paragraphs(text: str) -> Iterator[tuple[int, str]]:
    held: list[str] = []
    number = 0
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            held.append(line)
        elif held:
            yield number - len(held), "\n".join(held)
            held = []
    if held:
        yield number - len(held) + 1, "\n".join(held)


class _Parted:
    """Train, dev and test out of one source, decided once, when the first of them is read."""

    def __init__(self, whole: TextSource, shares: dict[str, HeldOut]):
        self.whole, self.shares = whole, shares

    def sources(self) -> dict[str, TextSource]:
        return {split: self._source(split) for split in (TRAIN, *self.shares)}

    def _source(self, split: str) -> TextSource:
        shares = [[name, str(choice.share)] for name, choice in self.shares.items()]
        return TextSource(
            self.whole.files,
            lambda: digest_json([self.whole.digest, split, shares]),
            lambda: self._documents(split),
        )

    @cached_property
    def _owners(self) -> list[str] | None:
        """The split of each document; None where there is one document, which is cut instead."""
        fractions = array("d", (fraction([document.text]) for document in self.whole.documents()))
        return None if len(fractions) == 1 else assign(fractions, self.shares, "documents")

    def _documents(self, split: str) -> Iterator[Document]:
        owners = self._owners
        if owners is None:
            yield self._part(next(self.whole.documents()), split)
        else:
            yield from (document for document, owner in zip(self.whole.documents(), owners) if owner == split)

    def _part(self, document: Document, split: str) -> Document:
        """Train is the front of the one document; dev and then test are its tail."""
        text, smallest = document.text, min(choice.share.amount for choice in self.shares.values()) / 100
        near = min(NEAR, int(smallest * len(text) / 2))
        upto = 1 - sum(choice.share.amount for choice in self.shares.values()) / 100
        edges = [0]
        for choice in self.shares.values():
            edges.append(_line_end(text, round(upto * len(text)), near))
            upto += choice.share.amount / 100
        place = [TRAIN, *self.shares].index(split)
        start, end = (edges + [len(text)])[place : place + 2]
        if not text[start:end].strip():
            problem = "the one document is too short to hold a share of it out"
            raise UserError(problem, file=document.file, field=split)
        return Document(text[start:end], document.file, document.line + text.count("\n", 0, start))


def _line_end(text: str, place: int, near: int) -> int:
    """The end of a line nearest to `place`, or `place` itself where none is `near` (in letters)."""
    before = text.rfind("\n", place - near, place)
    after = text.find("\n", place, place + near)
    ends = [end + 1 for end in (before, after) if end >= 0]
    return min(ends, key=lambda end: (abs(end - place), end)) if ends else place
