"""Text to token ids and back: the `tokenizers` library, with roles, and no way for user text to forge one.

Encoding adds no special tokens (formats and windows place them), and the text `<|end|>` inside user text is
encoded as text. Nothing is truncated or padded. The same text gives the same ids whatever the number of
threads.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import tokenizers

from gradus.core.errors import UserError, nearest
from gradus.core.sentences import SentenceEnds
from gradus.core.storage import digest_json
from gradus.core.words import WordEdges
from gradus.tokenizers import cutting, standard
from gradus.tokenizers.files import PreTokenization, Template, read_tokenizer, write_tokenizer
from gradus.tokenizers.roles import RELEASE, WORD_END, check_role, check_roles, role_text
from gradus.tokenizers.sentences import sentence_ends
from gradus.tokenizers.words import spelling, word_edges

BATCH = 1 << 21
"""Characters encoded at once: enough for every thread, little enough that the library's lists stay small."""


def _settle_threads() -> None:
    """Encoding runs on all threads; in a forked child on one, since the threads stayed with the parent.

    Without the variable the library warns at every fork after its first use.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.register_at_fork(after_in_child=lambda: os.environ.__setitem__("TOKENIZERS_PARALLELISM", "false"))


_settle_threads()


class Tokenizer:
    """Immutable. `roles` maps a role ("start", "end", "sentinel 0") to the text of its token.

    With `pre_tokenization: release` words are found by ftfy and spaCy (see `standard`), and `inner`, which
    other tools load, is only the nearest thing to it that a tokenizer.json can say.
    """

    def __init__(
        self,
        inner: tokenizers.Tokenizer,
        roles: Mapping[str, str],
        pre_tokenization: PreTokenization | None = None,
    ):
        """Takes over `inner`. Raises ValueError for what is no role, UserError for a token it has not and for
        libraries that are missing."""
        self.roles, self.pre_tokenization = check_roles(roles), pre_tokenization
        if pre_tokenization is not None:
            standard.versions()
        inner.no_truncation()
        inner.no_padding()
        if getattr(inner.model, "dropout", None):
            inner.model.dropout = None  # BPE dropout draws a different tokenisation every time
        for role, text in self.roles.items():
            if inner.token_to_id(text) is None:
                raise UserError("no such token in the vocabulary", field=f"roles.{role}", text=text)
        special = {token.content for token in inner.get_added_tokens_decoder().values() if token.special}
        inner.add_special_tokens([text for text in dict.fromkeys(self.roles.values()) if text not in special])
        inner.encode_special_tokens = True
        self.inner = inner

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Reads a tokenizer.json, or the one of a folder. Raises UserError where it is missing or broken."""
        return cls(*read_tokenizer(Path(path)))

    def save(self, folder: Path, template: Template | None = None, context: int | None = None) -> None:
        """Writes the files that Gradus and Hugging Face tools load.

        `template` says how special tokens stand around one text and around two, `context` how many tokens the
        model takes; see `files.write_tokenizer`.
        """
        write_tokenizer(self.inner, self.roles, Path(folder), template, context, self.pre_tokenization)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text, int32 [T], on all threads. Raises UserError for half a surrogate pair."""
        return [np.array(one.ids, np.int32) for one in _encodings(texts, self._encoded)]

    def places(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """The ids of each text, as `encode` gives them, and the characters [T, 2] from which to which each
        token stands in it. Raises UserError as `encode`, and for words that are found by ftfy and spaCy."""
        if self.pre_tokenization is not None:
            problem = "its words are not those of the text, so that no token has a place there"
            hint = "answers and tags have places in a text: pre_tokenization: simple, or another tokenizer"
            raise UserError(
                problem, field="tokenizer.pre_tokenization", text=self.pre_tokenization, hint=hint
            )
        placed = partial(self.inner.encode_batch, add_special_tokens=False)
        return [(np.array(one.ids, np.int32), np.array(one.offsets, np.int64).reshape(-1, 2))
                for one in _encodings(texts, placed)]  # fmt: skip

    def _encoded(self, texts: list[str]) -> list[tokenizers.Encoding]:
        if self.pre_tokenization is None:
            return self.inner.encode_batch_fast(texts, add_special_tokens=False)
        if any(not isinstance(text, str) or not _is_unicode(text) for text in texts):
            raise _broken(texts)
        words = [self._words(text) for text in texts]
        return self._of_words.encode_batch_fast(words, is_pretokenized=True, add_special_tokens=False)

    @cached_property
    def _words(self) -> Callable[[str], list[str]]:
        return standard.words_of_release()

    @cached_property
    def _of_words(self) -> tokenizers.Tokenizer:
        """The same model without what finds words, for words already found."""
        parts = json.loads(self.inner.to_str())
        inner = tokenizers.Tokenizer.from_str(
            json.dumps(parts | {"normalizer": None, "pre_tokenizer": None, "post_processor": None})
        )
        inner.encode_special_tokens = True
        return inner

    def decode(self, ids: Iterable[int], skip_roles: bool = False) -> str:
        """The text of `ids`; tokens that play a role (and other special ones) are shown or skipped."""
        return self.inner.decode([int(token) for token in ids], skip_special_tokens=skip_roles)

    def pieces(self, text: str, size: int = cutting.PIECE) -> Iterator[str]:
        """Pieces of `text` whose tokens, end to end, are the tokens of `text`. See `cutting`."""
        return cutting.pieces(text, self._cuts, size)

    def has(self, name: str) -> bool:
        """Whether a token plays the role."""
        return check_role(name) in self.roles

    def role(self, name: str) -> int:
        """The id of the token that plays the role. Raises UserError where none does."""
        if not self.has(name):
            hint = nearest(name, self.roles) if self.roles else "it has no special tokens"
            raise UserError(f"the tokenizer has no token for the role {name!r}", field="tokenizer", hint=hint)
        number = self.inner.token_to_id(self.roles[name])
        assert number is not None, "checked at construction"
        return number

    def with_roles(self, names: Iterable[str]) -> Tokenizer:
        """A tokenizer that has these roles too: tokens for the missing ones come at the vocabulary's end.

        To the vocabulary of GPT-1's release its three special tokens are added together and before all
        others, under their own names, so that they have the ids of the released code.
        """
        missing = [name for name in dict.fromkeys(names) if not self.has(name)]
        if not missing:
            return self
        release = RELEASE if getattr(self.inner.model, "end_of_word_suffix", None) == WORD_END else {}
        missing = list(dict.fromkeys([*(name for name in release if not self.has(name)), *missing]))
        added = {name: release.get(name, role_text(name)) for name in missing}
        inner = tokenizers.Tokenizer.from_str(self.inner.to_str())
        inner.add_special_tokens(list(added.values()))
        return Tokenizer(inner, self.roles | added, self.pre_tokenization)

    @cached_property
    def size(self) -> int:
        """Rows that an embedding of this vocabulary needs: one more than the largest id."""
        return 1 + max(self.inner.get_vocab(with_added_tokens=True).values())

    @cached_property
    def sentence_ends(self) -> SentenceEnds:
        """Which ids end a sentence. See `sentences`."""
        roles = frozenset(self.role(name) for name in self.roles)
        return sentence_ends(self, roles, self.role("end") if self.has("end") else None)

    @cached_property
    def word_edges(self) -> WordEdges:
        """Which tokens begin and end words. See `words`."""
        return word_edges(self)

    @cached_property
    def spelling(self) -> Sequence[bytes]:
        """What each token writes, in UTF-8. See `words`."""
        return spelling(self)

    @cached_property
    def _cuts(self) -> re.Pattern[str] | None:
        return cutting.harmless_cuts(self.inner.to_str()) if self.pre_tokenization is None else None

    @cached_property
    def digest(self) -> str:
        """Names all that decides an id: tokenizer.json but for its post-processor, the roles, and the
        versions of the libraries that find words."""
        parts = json.loads(self.inner.to_str())
        del parts["post_processor"]
        decides = {"tokenizer": parts, "roles": self.roles}
        if self.pre_tokenization is not None:
            decides["words"] = [self.pre_tokenization, standard.versions()]
        return digest_json(decides)

    def __reduce__(self) -> tuple[object, ...]:
        # The library forgets encode_special_tokens.
        return _restore, (self.inner.to_str(), self.roles, self.pre_tokenization)

    def __repr__(self) -> str:
        return f"Tokenizer(size={self.size}, roles={self.roles})"


def _restore(text: str, roles: dict[str, str], words: PreTokenization | None) -> Tokenizer:
    return Tokenizer(tokenizers.Tokenizer.from_str(text), roles, words)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _encodings(
    texts: Sequence[str], encoded: Callable[[list[str]], list[tokenizers.Encoding]]
) -> Iterator[tokenizers.Encoding]:
    """What `encoded` makes of each text, given about BATCH characters at a time. Raises UserError for what is
    no text."""
    group: list[str] = []
    characters = 0
    for place, text in enumerate(texts, 1):
        group.append(text)
        characters += len(text)
        if characters >= BATCH or place == len(texts):
            try:
                found = encoded(group)
            except TypeError:
                raise _broken(group) from None
            yield from found
            group, characters = [], 0


def _broken(texts: list[str]) -> Exception:
    """The error for the first text that is not Unicode text."""
    for text in texts:
        if not isinstance(text, str):
            return TypeError(f"a text is wanted, not {type(text).__name__}")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            around = text[max(0, error.start - 20) : error.end + 20]
            return UserError("the text holds half of a surrogate pair, which is no character", text=around)
    return TypeError("the tokenizer refused a batch of texts")
