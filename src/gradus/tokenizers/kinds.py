"""The kinds of tokenizer a recipe can name: byte-level BPE, single characters, GPT-1's, or one that exists.

Each config builds its tokenizer from texts; the same texts give the same tokenizer.json, byte for byte.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tokenizers
from pydantic import Field, field_validator
from tokenizers import decoders, models, pre_tokenizers, trainers

from gradus.core.config import Config
from gradus.core.errors import UserError
from gradus.core.storage import from_home
from gradus.tokenizers import cutting
from gradus.tokenizers.files import read_tokenizer
from gradus.tokenizers.release import GPT1Tokenizer
from gradus.tokenizers.roles import ROLES, check_roles, role_text
from gradus.tokenizers.tokenizer import Tokenizer

BYTES = 256
LEAST_COUNT = 2
"""A pair of tokens seen only once is not merged (as in subword-nmt, Sennrich et al. 2016)."""

_ROLES = {name: role_text(name) for name in ROLES}
_SPECIAL = list(_ROLES.values())


class BytePairTokenizer(Config):
    """Byte-level byte-pair encoding with the words of GPT-2 (Radford et al. 2019, section 2.2): any Unicode
    text, Chinese or emoji, goes through and comes back unchanged."""

    needs_text: ClassVar[bool] = True

    kind: Literal["bpe"] = "bpe"
    vocab_size: int = Field(8192, ge=BYTES + len(ROLES))
    """Size of the vocabulary, 256 bytes and 7 roles included: at least 263. A little text may give less."""
    train: str | list[str] | None = None
    """Text to train on: a path, a glob or a list; else the train text of the first stage with text."""

    def build(self, texts: Iterable[str]) -> Tokenizer:
        """Trains on `texts`. Raises UserError where they hold nothing."""
        inner = tokenizers.Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            min_frequency=LEAST_COUNT,
            special_tokens=_SPECIAL,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        inner.train_from_iterator(_pieces(_some(texts)), trainer)
        return Tokenizer(inner, _ROLES)


class CharacterTokenizer(Config):
    """One token a Unicode character, the most frequent first; characters not in the text are unknown."""

    needs_text: ClassVar[bool] = True

    kind: Literal["char"] = "char"
    vocab_size: int | None = Field(None, ge=1 + len(ROLES))
    """Size of the vocabulary, the 7 roles included: at least 8. Unless given, it holds every character."""
    train: str | list[str] | None = None
    """Text to count: a path, a glob or a list; else the train text of the first stage with text."""

    def build(self, texts: Iterable[str]) -> Tokenizer:
        """Counts the characters of `texts`. Raises UserError where they hold nothing."""
        counts: Counter[str] = Counter()
        for text in _some(texts):
            counts.update(text)
        order = sorted(counts, key=lambda character: (-counts[character], character))
        if self.vocab_size is not None:
            order = order[: self.vocab_size - len(ROLES)]
        vocabulary = {token: index for index, token in enumerate(_SPECIAL + order)}
        # Byte-pair encoding without merges leaves single characters, and fuses no unknown ones.
        inner = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=_ROLES["unknown"]))
        inner.decoder = decoders.Fuse()
        return Tokenizer(inner, _ROLES)


class PretrainedTokenizer(Config):
    """A tokenizer that exists: ours, or any tokenizer.json of a Hugging Face folder."""

    needs_text: ClassVar[bool] = False

    kind: Literal["pretrained"] = "pretrained"
    path: str
    """A tokenizer.json, or a folder that holds one."""
    roles: dict[str, str] = {}
    """Role -> text of the token that plays it, where that is not one of the usual texts ([CLS], <s>, ...)."""

    @field_validator("roles")
    @classmethod
    def _known(cls, roles: dict[str, str]) -> dict[str, str]:
        return check_roles(roles)

    def build(self, texts: Iterable[str] = (), root: Path | None = None) -> Tokenizer:
        """Loads it; a relative path counts from `root`. Raises UserError where the file is missing or broken,
        or holds no token of that text."""
        path = from_home(self.path)
        found = read_tokenizer(path if root is None else root / path)
        return Tokenizer(found.inner, found.roles | self.roles, found.pre_tokenization)


TokenizerConfig = Annotated[
    BytePairTokenizer | CharacterTokenizer | GPT1Tokenizer | PretrainedTokenizer, Field(discriminator="kind")
]


def _some(texts: Iterable[str]) -> Iterator[str]:
    """The texts. Raises UserError at their end where all were empty."""
    characters = 0
    for text in texts:
        characters += len(text)
        yield text
    if not characters:
        hint = "name some under tokenizer.train, or use kind: pretrained"
        raise UserError("there is no text to train the tokenizer on", field="tokenizer", hint=hint)


def _pieces(texts: Iterable[str]) -> Iterator[str]:
    """Long texts in pieces that every thread can share; the words, and so their counts, stay the same."""
    for text in texts:
        yield from cutting.pieces(text, cutting.GPT2_CUTS)
