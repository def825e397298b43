"""Cutting a long text where the cut provably cannot change its tokens.

A novel as one string is encoded by one thread; in pieces, by all. A cut is harmless where the pre-tokenizer
always ends a word and starts the next whatever stands around. For the regular expression of GPT-2,

    's|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+

no alternative holds anything but white space before white space, so a word ends between a character and the
white space after it; and, contractions apart, none holds a letter after punctuation, so one ends between a
Chinese punctuation mark and the ideograph after it. The match that begins there never looks back; the one
that ends there looks ahead only if it is white space, which a piece never ends with.

BERT's words, which GPT-1's tokenizer borrows, are simpler: its normaliser changes one character after the
other (accents apart, which stand on neither white space nor ideographs), white space separates, and every
ideograph is a word. So a word ends before each of these.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

PIECE = 1 << 16
"""Characters a piece has at least, the last one apart."""

GPT2_CUTS = re.compile(
    r"(?<=[^\s\u180e])(?=[ \t\r\n])"  # U+180E was white space before Unicode 6.3: keep clear of the dispute
    r"|(?<=[\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f\u300b\u300d\u300f\uff09\u201d])(?=[\u4e00-\u9fa5])"
)
BERT_CUTS = re.compile(r"(?s)(?<=.)(?=[ \t\r\n\u4e00-\u9fa5])")
ANYWHERE = re.compile(r"(?s)(?<=.)(?=.)")
BERT_NORMALIZER = {
    "type": "BertNormalizer",
    "clean_text": True,
    "handle_chinese_chars": True,
    "strip_accents": None,
    "lowercase": True,
}


def harmless_cuts(tokenizer_json: str) -> re.Pattern[str] | None:
    """Where texts may be cut for this tokenizer: a pattern of empty matches, or None: nothing is proven.

    It is proven for byte-pair encoding without normaliser over GPT-2's regular expression, or over single
    characters without merges, and over the words of BERT. Tokens added to the vocabulary must be special:
    others are looked for in the text itself.
    """
    parts: dict[str, Any] = json.loads(tokenizer_json)
    model = parts["model"]
    if model["type"] != "BPE" or model.get("dropout"):
        return None
    if not all(token["special"] for token in parts["added_tokens"]):
        return None
    words = parts["pre_tokenizer"]
    if parts["normalizer"] is not None:
        known = parts["normalizer"] == BERT_NORMALIZER and words == {"type": "BertPreTokenizer"}
        return BERT_CUTS if known else None
    if words is None:
        alone = not model["merges"] and not model["fuse_unk"] and not model["byte_fallback"]
        affixes = model["continuing_subword_prefix"] or model["end_of_word_suffix"]
        return ANYWHERE if alone and not affixes else None
    if words["type"] == "ByteLevel" and words["use_regex"] and not words["add_prefix_space"]:
        affixes = model["continuing_subword_prefix"] or model["end_of_word_suffix"]
        return GPT2_CUTS if not affixes else None
    return None


def pieces(text: str, cuts: re.Pattern[str] | None, size: int = PIECE) -> Iterator[str]:
    """Cuts `text` at the first harmless place after every `size` characters; whole where there is none."""
    begin = 0
    while cuts is not None and len(text) - begin > size:
        match = cuts.search(text, begin + size)
        if match is None or match.start() == len(text):
            break
        yield text[begin : match.start()]
        begin = match.start()
    yield text[begin:]
