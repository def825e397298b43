"""Which tokens begin or end a word, and what they write: what whole-word and span masking need to know of a
vocabulary.

A word is a run of letters and digits; a mark, a Chinese character (as in BERT's `_is_chinese_char`) and white
space stand alone. Words of several Chinese characters are a matter of the text: see `segmenters`.

Shapes: V vocabulary.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Protocol

import numpy as np
import tokenizers

from gradus.core.words import WordEdges

BEGINS, ENDS = 1, 2
"""Flags of a token: a word begins with it, a word ends with it. Between two tokens stands a border where the
left one ends or the right one begins; a token without flags goes on with the word before it."""

METASPACE = "▁"
_CHINESE = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip
_LEADS = (0xE3, 0xF4)
"""First bytes, in UTF-8, of characters from U+3000 on: in a vocabulary of bytes most of those are Chinese."""


class _Tokens(Protocol):
    @property
    def inner(self) -> tokenizers.Tokenizer: ...

    @property
    def roles(self) -> Mapping[str, str]: ...

    @property
    def size(self) -> int: ...

    def role(self, name: str) -> int: ...


def word_edges(tokenizer: _Tokens) -> WordEdges:
    """Which tokens of the vocabulary begin and end a word; those that play a role do both."""
    parts = json.loads(tokenizer.inner.to_str())
    flags_of = _reader(parts)
    edges = np.full(tokenizer.size, BEGINS | ENDS, dtype=np.uint8)
    special = {tokenizer.role(name) for name in tokenizer.roles}
    for token, number in tokenizer.inner.get_vocab(with_added_tokens=True).items():
        if number not in special:
            edges[number] = flags_of(token)
    return WordEdges((edges & BEGINS) > 0, (edges & ENDS) > 0)


def spelling(tokenizer: _Tokens) -> list[bytes]:
    """What each token writes, in UTF-8 [V]; those that play a role, or are none, write a line's end."""
    parts = json.loads(tokenizer.inner.to_str())
    spelt = _speller(parts)
    found = [b"\n"] * tokenizer.size
    special = {tokenizer.role(name) for name in tokenizer.roles}
    for token, number in tokenizer.inner.get_vocab(with_added_tokens=True).items():
        if number not in special:
            found[number] = spelt(token)
    return found


def _reader(parts: dict[str, Any]) -> Callable[[str], int]:
    """How the tokens of this kind of vocabulary write where words begin."""
    model, spelt = parts["model"], _speller(parts)
    if prefix := model.get("continuing_subword_prefix"):
        return lambda token: 0 if token.startswith(prefix) else BEGINS
    if suffix := model.get("end_of_word_suffix"):
        return lambda token: ENDS if token.endswith(suffix) else 0
    return lambda token: _of_bytes(spelt(token))


def _speller(parts: dict[str, Any]) -> Callable[[str], bytes]:
    """How the tokens of this kind of vocabulary write text."""
    model = parts["model"]
    if prefix := model.get("continuing_subword_prefix"):
        return lambda token: token.removeprefix(prefix).encode()
    if suffix := model.get("end_of_word_suffix"):
        return lambda token: token.replace(suffix, " ").encode()
    kinds = set(_kinds(parts.get("pre_tokenizer"))) | set(_kinds(parts.get("decoder")))
    if "ByteLevel" in kinds:
        return _bytes_spelt
    if "Metaspace" in kinds or any(isinstance(one, list) for one in model.get("vocab", ())):
        return lambda token: _byte_named(token) or token.replace(METASPACE, " ").encode()
    return str.encode


def _kinds(part: dict[str, Any] | None) -> list[str]:
    """The type of a step, and of those inside a sequence of steps."""
    if part is None:
        return []
    inner = part.get("pretokenizers") or part.get("decoders") or []
    return [part["type"], *(kind for one in inner for kind in _kinds(one))]


@cache
def _bytes_of() -> dict[str, int]:
    """The character that stands for each byte (Radford et al. 2019, `bytes_to_unicode`), inverted."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + at): byte for at, byte in enumerate(others)}


def _bytes_spelt(token: str) -> bytes:
    table = _bytes_of()
    if any(character not in table for character in token):
        return token.encode()
    return bytes(table[character] for character in token)


def _byte_named(token: str) -> bytes | None:
    """The byte of a token such as <0xE4>, with which a vocabulary of text writes what it lacks."""
    found = re.fullmatch(r"<0x([0-9A-F]{2})>", token)
    return bytes.fromhex(found[1]) if found else None


def _of_bytes(raw: bytes) -> int:
    """A token of bytes; one that begins or ends inside a character goes on at that side."""
    text = raw.decode("utf-8", errors="replace")
    flags = _of_text(text)
    if text.startswith("\ufffd"):
        flags = (flags & ~BEGINS) | (BEGINS if _LEADS[0] <= raw[0] <= _LEADS[1] else 0)
    return flags & ~ENDS if text.endswith("\ufffd") else flags


def _of_text(text: str) -> int:
    if not text:
        return 0
    return (BEGINS if stands_alone(text[0]) else 0) | (ENDS if stands_alone(text[-1]) else 0)


def stands_alone(character: str) -> bool:
    """Whether no word goes on over this character: white space, a mark, or a Chinese character."""
    return not (character.isalnum() or character == "\ufffd") or is_chinese(character)


def is_chinese(character: str) -> bool:
    """As BERT's `_is_chinese_char`."""
    code = ord(character)
    return any(low <= code <= high for low, high in _CHINESE)
