"""Running text as token ids on disk: tokenised once, in parallel, and memory-mapped ever after.

A store lies in the cache under a key made of the text's digest and the tokenizer's. Every document is
followed by the role `end`. It is written under a temporary name and renamed when whole, so a killed process
leaves nothing that counts; two processes that want the same store write it once.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gradus.core.errors import UserError
from gradus.core.storage import (
    MANIFEST,
    digest_file,
    digest_json,
    lock,
    new_folder,
    read_json,
    sweep,
    write_json,
)
from gradus.tokenizers import Tokenizer

FORMAT = 1
"""Part of the key: raise it when the same text would be written otherwise."""
SHARD_BYTES = 64 << 20
BATCH = 1 << 21
"""Characters tokenised at once: bounds the memory, whatever the size of the text."""

INDEX, DOCUMENTS = "index.json", "documents.npy"


class HasText(Protocol):
    @property
    def text(self) -> str: ...


class TextDocuments(Protocol):
    """Running text as data/text.py reads it: `digest` changes with anything that changes a document."""

    @property
    def digest(self) -> str: ...

    def documents(self) -> Iterator[HasText]: ...


class TokenStore:
    """Token ids of documents end to end, each followed by `end`.

    `total` counts tokens, `bytes` the UTF-8 bytes of the text (what bits per byte divide by), `documents`
    [documents + 1] says where each begins and, last, where all end; `digest` names the content.
    """

    def __init__(self, folder: Path):
        """Opens a store. Raises OSError, ValueError, KeyError or TypeError where it is not whole.

        The small files are compared with the manifest, of shards only the sizes: gigabytes are not read.
        """
        digests = read_json(folder / MANIFEST)["files"]
        for name in (INDEX, DOCUMENTS):
            if digest_file(folder / name) != digests[name]:
                raise ValueError(f"{folder / name} is damaged")
        index = read_json(folder / INDEX)
        self.folder = folder
        self.digest: str = index["digest"]
        self.total: int = index["tokens"]
        self.bytes: int = index["bytes"]
        self.documents: np.ndarray = np.load(folder / DOCUMENTS, mmap_mode="r", allow_pickle=False)
        self._per_shard: int = index["tokens_per_shard"]
        self._shards = [_map(folder / name, index["dtype"], digests) for name in index["shards"]]
        if sum(map(len, self._shards)) != self.total or int(self.documents[-1]) != self.total:
            raise ValueError(f"{folder} has not the tokens that it should")

    def __reduce__(self) -> tuple[object, ...]:
        return TokenStore, (self.folder,)  # a memory map would travel as its content

    def read(self, start: int, stop: int) -> np.ndarray:
        """The ids of tokens start to stop, int64 [stop - start]. Raises IndexError beyond either end."""
        if not 0 <= start <= stop <= self.total:
            raise IndexError(f"tokens {start} to {stop} of {self.total}")
        ids = np.empty(stop - start, dtype=np.int64)
        place = start
        while place < stop:
            number, inside = divmod(place, self._per_shard)
            part = self._shards[number][inside : inside + stop - place]
            ids[place - start : place - start + len(part)] = part
            place += len(part)
        return ids


def _map(file: Path, dtype: str, digests: dict[str, str]) -> np.ndarray:
    if file.name not in digests:
        raise ValueError(f"{file} is not in the manifest")
    return np.memmap(file, dtype=dtype, mode="r")


def token_store(
    source: TextDocuments,
    tokenizer: Tokenizer,
    cache: Path,
    progress: Callable[[int], None] | None = None,
) -> TokenStore:
    """The tokens of `source`: opened where `cache` has them, else written there first.

    `progress` is told the bytes of text done so far. Raises UserError where there is no text, or the
    tokenizer has no token for the role `end`.
    """
    end = tokenizer.role("end")
    key = digest_json({"format": FORMAT, "text": source.digest, "tokenizer": tokenizer.digest})
    folder = cache / f"tokens-{key[:16]}"
    store = _open(folder, key)
    if store is not None:
        return store
    # One lock for all stores of the cache: tokenising uses every core as it is, and the sweep may take all
    # leftovers.
    with lock(cache / "tokens.lock", wait=True):
        store = _open(folder, key)
        if store is not None:
            return store
        sweep(cache, "tokens-*")
        with new_folder(folder) as temporary:
            dtype = "<u2" if tokenizer.size <= 1 << 16 else "<u4"
            writer = _Writer(temporary, dtype)
            try:
                _tokenise(source.documents(), tokenizer, end, writer, progress)
            finally:
                writer.close()
            if not writer.bytes:
                raise UserError("there is no text", hint="every document is empty")
            writer.write_index(key)
    return TokenStore(folder)


def _open(folder: Path, key: str) -> TokenStore | None:
    """The store, or None where there is none or it is damaged."""
    try:
        store = TokenStore(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return store if store.digest == key else None


def _tokenise(
    documents: Iterable[HasText],
    tokenizer: Tokenizer,
    end: int,
    writer: _Writer,
    progress: Callable[[int], None] | None,
) -> None:
    for batch in _batches(documents, tokenizer):
        encoded = tokenizer.encode([piece for piece, _ in batch])
        for ids, (piece, last) in zip(encoded, batch):
            writer.add(ids, len(piece.encode()))
            if last:
                writer.end_document(end)
        if progress is not None:
            progress(writer.bytes)


def _batches(documents: Iterable[HasText], tokenizer: Tokenizer) -> Iterator[list[tuple[str, bool]]]:
    """Pieces of documents, each with whether it is its document's last, about BATCH characters at a time."""
    batch: list[tuple[str, bool]] = []
    characters = 0
    for document in documents:
        left = len(document.text)
        for piece in tokenizer.pieces(document.text):
            left -= len(piece)
            batch.append((piece, left == 0))
            characters += len(piece) + 1
            if characters >= BATCH:
                yield batch
                batch, characters = [], 0
    if batch:
        yield batch


class _Writer:
    """Appends ids to shards of equal size, the last one apart, and remembers where documents begin."""

    def __init__(self, folder: Path, dtype: str):
        self.folder, self.dtype = folder, np.dtype(dtype)
        self.per_shard = SHARD_BYTES // self.dtype.itemsize
        self.total = self.bytes = 0
        self.starts = array("q", [0])
        self.names: list[str] = []
        self._file: Any = None

    def add(self, ids: np.ndarray, size: int) -> None:
        """Appends the ids of a piece of `size` bytes."""
        self.bytes += size
        ids = ids.astype(self.dtype)
        while len(ids):
            room = self.per_shard - self.total % self.per_shard
            if room == self.per_shard:
                self._next_file()
            part, ids = ids[:room], ids[room:]
            self._file.write(part.tobytes())
            self.total += len(part)

    def end_document(self, end: int) -> None:
        self.add(np.array([end]), 0)
        self.starts.append(self.total)

    def _next_file(self) -> None:
        self.close()
        self.names.append(f"{len(self.names):05}.bin")
        self._file = open(self.folder / self.names[-1], "wb")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def write_index(self, key: str) -> None:
        np.save(self.folder / DOCUMENTS, np.array(self.starts, dtype=np.int64), allow_pickle=False)
        index = {
            "digest": key,
            "tokens": self.total,
            "documents": len(self.starts) - 1,
            "bytes": self.bytes,
            "dtype": self.dtype.str,
            "tokens_per_shard": self.per_shard,
            "shards": self.names,
        }
        write_json(self.folder / INDEX, index)
