"""Running text as the windows that a model reads: of tokens, between special tokens, or of two segments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from gradus.core.errors import UserError
from gradus.core.model import ModelConfig
from gradus.core.storage import new_file
from gradus.data.frame import Frame
from gradus.data.pairs import PairWindows
from gradus.data.sentences import SentenceSource
from gradus.data.shards import TextDocuments, TokenStore
from gradus.data.sources import FramedWindows, Source, Windows
from gradus.data.text import Separator, TextSource, WindowKind
from gradus.tokenizers import Tokenizer


class How(Protocol):
    """How text is read: a stage's `data`, or what a model folder says of it."""

    @property
    def windows(self) -> WindowKind: ...

    @property
    def sentences(self) -> Literal["lines", "rules"] | None: ...

    @property
    def documents(self) -> str | Separator: ...


Stored = Callable[[TextDocuments], TokenStore]


def text_windows(
    source: TextSource,
    how: How,
    tokenizer: Tokenizer,
    model: ModelConfig,
    window: int,
    stored: Stored,
    cache: Path,
    least: int = 1,
) -> tuple[Source, TokenStore, dict[str, Any]]:
    """The windows of a text, its tokens, and what was counted; `stored` makes tokens of documents.

    `window` is how many tokens of text a decoder's window has, `least` how many an objective needs.
    Raises UserError for text too short, and where two segments are wanted and no document has two sentences.
    """
    across = how.windows
    if across == "sentence_pairs" or across == "sentence_order":
        return _pairs(source, how, tokenizer, model, stored, cache)
    store = stored(source)
    if model.arrangement == "encoder":
        around = tokenizer.role("start"), tokenizer.role("end")
        framed = FramedWindows(store, window, around, across)
        return framed, store, _counted(framed, store, len(store.documents) - 1)
    windows = Windows(store, window, across)
    counts = _counted(windows, store, len(store.documents) - 1)
    return windows, store, counts | {"short_rows": windows.shorter_than(least)}


def _pairs(
    source: TextSource, how: How, tokenizer: Tokenizer, model: ModelConfig, stored: Stored, cache: Path
) -> tuple[Source, TokenStore, dict[str, Any]]:
    assert how.windows in ("sentence_pairs", "sentence_order")
    lines = how.sentences == "lines" or (how.sentences is None and how.documents == "blank line")
    sentences = SentenceSource(source, lines)
    store, counts = stored(sentences), _sentence_counts(sentences, cache)
    frame = Frame.of(model)
    roles = {name: np.array([tokenizer.role(name)]) for name in frame.roles(pair=True)}
    try:
        windows = PairWindows(store, counts, model.context, frame, roles, how.windows)
    except UserError as mistake:
        if mistake.field is None and source.files:
            mistake.file = source.files[0]
        raise
    cut = windows.cut[windows.cut > 0]
    return windows, store, _counted(windows, store, len(counts)) | {
        "sentences": int(counts.sum()),
        "documents_of_one_sentence": len(windows.alone),
        "truncated_rows": len(cut), "truncated_tokens": int(cut.sum()),
    }  # fmt: skip


def _counted(windows: Source, store: TokenStore, documents: int) -> dict[str, Any]:
    return {"rows": len(windows), "documents": documents, "tokens": store.total, "bytes": store.bytes,
            "truncated_rows": 0, "truncated_tokens": 0, "skipped_rows": 0}  # fmt: skip


def _sentence_counts(sentences: SentenceSource, cache: Path) -> np.ndarray:
    """How many sentences each document has, from the cache or counted now."""
    file = cache / f"sentences-{sentences.digest[:16]}.npy"
    try:
        found: np.ndarray = np.load(file, allow_pickle=False)
    except (OSError, ValueError):
        found = sentences.counts()
        cache.mkdir(parents=True, exist_ok=True)
        with new_file(file) as opened:
            np.save(opened, found, allow_pickle=False)
    return found
