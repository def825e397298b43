"""Sentences of English and Chinese text by rules: marks that end them, and what only looks like an end.

A sentence ends at . ! ? 。 ！ ？ … with the quotes and brackets that close behind it, at a blank line, and
at the end of a line of Chinese, which nobody wraps by hand; other line ends are white space. A full stop ends
nothing behind an abbreviation or an initial, before a small letter, or inside a number or a name. A mark with
a quote behind it ends nothing where the sentence around the quote goes on ("Stop!" he said; “走吧！”，他说).
The white space between sentences is dropped, all else is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from gradus.core.storage import digest_json
from gradus.data.text import Document, TextSource

RULES = 1
"""Part of what names a text cut so: raise it when the same text would be cut otherwise."""

ABBREVIATIONS = frozenset(
    """mr mrs ms messrs mme mlle dr prof rev hon st ste sr jr gen col maj capt cpt lt sgt cmdr gov sen rep
    pres supt insp esq vs viz cf ca al fig figs vol vols ch chap sec art eq eqs ed eds pp jan feb mar
    apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri inc ltd co corp bros dept univ
    assn ave blvd rd mt ft approx i.e e.g a.m p.m""".split()  # noqa: SIM905
)
"""Before a full stop these end no sentence, whatever follows. "etc", "no" and the like may end one."""
BEFORE_NUMBERS = frozenset({"no", "nos", "p", "fig", "vol", "ch", "art", "op"})
"""These end none where a number follows: No. 5."""

_CLOSING = "\"'”’」』）)】》〉］\\]"
_END = re.compile(rf"(?P<mark>[.!?]+|[。！？!?｡]+|…+|\.{{3,}})(?P<close>[{_CLOSING}]*)")
_BREAK = re.compile(r"\n[^\S\n]*\n\s*|\n")
_WORD = re.compile(r"(?:[^\W\d_]+\.)*[^\W\d_]+$")
_WIDE = re.compile("[\u2026\u3000-\u303f\u3400-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]")
"""Chinese characters and the marks among them."""
_GOES_ON = "，,、；;：:。.！!？?—…"


def split_sentences(text: str) -> list[str]:
    """The sentences of a text in order, none of them blank."""
    return [sentence for part in _parts(text) for sentence in _cut(part)]


def _parts(text: str) -> Iterator[str]:
    """Paragraphs, and lines of Chinese; other line ends inside them have become spaces."""
    held, start = "", 0
    for found in _BREAK.finditer(text):
        held += text[start : found.start()]
        start = found.end()
        blank = found.group().count("\n") > 1
        if blank or _WIDE.match(held.rstrip()[-1:]) or _ends_chinese(held):
            yield held
            held = ""
        else:
            held = held.rstrip() + " "
    yield held + text[start:]


def _ends_chinese(line: str) -> bool:
    """Whether a line that ends in a quote or a figure is Chinese all the same."""
    return bool(_WIDE.search(line[-12:].strip()))


def _cut(text: str) -> Iterator[str]:
    start = 0
    for found in _END.finditer(text):
        if _is_end(text, found):
            if sentence := text[start : found.end()].strip():
                yield sentence
            start = found.end()
    if sentence := text[start:].strip():
        yield sentence


def _is_end(text: str, found: re.Match[str]) -> bool:
    mark, close, after = found["mark"], found["close"], text[found.end() : found.end() + 40]
    following = after.lstrip()
    if not following:
        return True
    if mark[-1] in "。！？｡" or (mark[-1] in "!?…" and _among_chinese(text, found, after)):
        return following[0] not in _GOES_ON and not (close and following[0] in "」』”’")
    if not after[0].isspace():
        return False
    if mark in (".", "!", "?") and text[max(found.start() - 1, 0)].isspace():
        return True  # text cut into words already: no abbreviation has a space before its full stop
    if following[0].islower() or following[0] in _GOES_ON:
        return False
    return mark != "." or bool(close) or not _only_looks(text[: found.start()][-24:], following)


def _among_chinese(text: str, found: re.Match[str], after: str) -> bool:
    """Whether a mark of both scripts stands between Chinese characters."""
    before = text[max(found.start() - 1, 0) : found.start()]
    return bool(_WIDE.match(before) or _WIDE.match(after))


def _only_looks(before: str, following: str) -> bool:
    """Whether the full stop belongs to an abbreviation, an initial or a number in a list."""
    word = _WORD.search(before)
    if word is None:
        return False
    name = word.group()
    if name.lower() in BEFORE_NUMBERS and following[0].isdigit():
        return True
    if len(name) == 1:
        return name.isupper() and name != "I"
    return name.lower() in ABBREVIATIONS


def _spaced(sentences: list[str]) -> Iterator[str]:
    """Sentences that can be joined again: a space before one stands between it and the one before, which
    Chinese does without."""
    before = ""
    for sentence in sentences:
        apart = before and not _WIDE.match(before[-1]) and not _WIDE.match(sentence)
        yield " " + sentence if apart else sentence
        before = sentence


class SentenceSource:
    """The sentences of a text as its documents, and how many each document has.

    With `lines` every line that is not blank is a sentence, as in files with one a line; else rules cut.
    """

    def __init__(self, source: TextSource, lines: bool):
        self.source, self.lines = source, lines
        self.files = source.files

    @property
    def digest(self) -> str:
        return digest_json(["sentences", RULES, self.lines, self.source.digest])

    def documents(self) -> Iterator[Document]:
        """One document a sentence, with the space before it where English has one."""
        for document in self.source.documents():
            for sentence in _spaced(self._sentences(document)):
                yield Document(sentence, document.file, document.line)

    def counts(self) -> np.ndarray:
        """How many sentences each document has [documents]."""
        return np.array([len(self._sentences(one)) for one in self.source.documents()], dtype=np.int64)

    def _sentences(self, document: Document) -> list[str]:
        if self.lines:
            return [line.strip() for line in document.text.split("\n") if line.strip()]
        return split_sentences(document.text)
