"""Which special tokens stand around the texts of a sequence: as GPT-1 has it, or as encoders do.

A decoder reads `start first delimiter second extract` and is read at the last token, which has seen all
others (Radford et al. 2018, section 3.3). An encoder reads `start first delimiter second end` and is read at
the first (Devlin et al. 2019, figure 3); the tokens of the first text, its delimiter among them, then belong
to segment 0 and all others to segment 1. Of an encoder-decoder the encoder reads `first delimiter second end`
and the decoder the same, one place later; it is read at the last token (Lewis et al. 2020, section 3.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gradus.core.model import ModelConfig
from gradus.tokenizers import Tokenizer

Roles = Mapping[str, np.ndarray]
"""The token of a role, [1], by the role's name."""


@dataclass(frozen=True)
class Frame:
    """The roles of the special tokens: `before` the first text, `between` two texts, `after` the last;
    `segments`: whether tokens belong to the first or the second text; `opening`: what a decoder beside the
    encoder begins with. Unless given, those of GPT-1."""

    before: tuple[str, ...] = ("start",)
    between: tuple[str, ...] = ("delimiter",)
    after: str = "extract"
    segments: bool = False
    opening: str | None = None

    @classmethod
    def of(cls, model: ModelConfig) -> Frame:
        """What models of this arrangement and family read."""
        if model.arrangement == "decoder":
            return cls()
        between = ("delimiter",) * model.delimiters
        if model.arrangement == "encoder":
            return cls(("start",), between, "end", model.segments >= 2)
        before, after = model.encoder_roles
        return cls(before, between, after[0], opening=model.decoder_roles[0])

    def roles(self, pair: bool) -> tuple[str, ...]:
        """The roles that stand in a sequence of one text or of a pair, each once."""
        opening = (self.opening,) if self.opening else ()
        return tuple(dict.fromkeys((*self.before, *(self.between if pair else ()), self.after, *opening)))

    def template(self, pair: bool) -> tuple[list[str], list[str]]:
        """One text and two with their special tokens, for tools that know nothing of our formats; without
        `pair` nothing stands between two texts. ":1" marks what belongs to segment 1."""
        second = ":1" if self.segments else ""
        between = self.between if pair else ()
        one = [*self.before, "$A", self.after]
        return one, [*self.before, "$A", *between, f"$B{second}", f"{self.after}{second}"]

    def size(self, texts: int) -> int:
        """Special tokens of a sequence of so many texts."""
        return len(self.before) + 1 + len(self.between) * (texts - 1)

    def laid(self, texts: list[np.ndarray], roles: Roles) -> tuple[np.ndarray, np.ndarray]:
        """(ids [T], segments [T]) of texts with the special tokens around them."""
        pieces = [*(roles[role] for role in self.before), texts[0]]
        owners = [0] * len(pieces)
        for text in texts[1:]:
            pieces += [roles[role] for role in self.between] + [text]
            owners += [0] * len(self.between) + [1]
        pieces.append(roles[self.after])
        owners.append(int(len(texts) > 1))
        belongs = np.repeat(owners, [len(piece) for piece in pieces])
        return np.concatenate(pieces).astype(np.int64), belongs.astype(np.int64)

    def decoded(self, read: Sequence[np.ndarray], roles: Roles) -> tuple[np.ndarray, ...]:
        """What a decoder beside the encoder reads and says, one a sequence; nothing where there is none."""
        if self.opening is None:
            return ()
        return tuple(np.concatenate([roles[self.opening], ids]) for ids in read)


def scored_specials(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids of the special tokens that stand in rows: what `scored: special` means."""
    roles = ("start", "delimiter", "extract", "end")
    return tuple(sorted({tokenizer.role(name) for name in roles if tokenizer.has(name)}))
