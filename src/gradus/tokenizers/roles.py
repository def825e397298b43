"""Roles: what a special token is for, whatever its text is.

A format asks for `start` and `extract`, a window of text for `end`, masking for `mask`; which token plays the
role is the tokenizer's business. Models trained here write `<|start|>`; BERT's start and extract are both
`[CLS]`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from gradus.core.errors import nearest

ROLES = ("pad", "unknown", "start", "delimiter", "extract", "end", "mask")
"""Every trained vocabulary begins with these, in this order. Sentinels are added on demand."""

_SENTINEL = re.compile(r"sentinel (0|[1-9][0-9]*)")

USUAL = {
    "pad": ("<|pad|>", "[PAD]", "<pad>"),
    "unknown": ("<|unknown|>", "[UNK]", "<unk>"),
    "start": ("<|start|>", "_start_", "[CLS]", "<s>"),
    "delimiter": ("<|delimiter|>", "_delimiter_", "[SEP]", "</s>"),
    "extract": ("<|extract|>", "_classify_", "[CLS]"),
    "end": ("<|end|>", "<|endoftext|>", "[SEP]", "</s>"),
    "mask": ("<|mask|>", "[MASK]", "<mask>"),
}
"""Texts under which published tokenizers keep a role, the most telling first: ours, the code released with
GPT-1 (`_start_`, `_delimiter_`, `_classify_`), BERT, GPT-2, RoBERTa and its kin."""
MOST_SENTINELS = 1000
"""Looked for in published vocabularies, from `<extra_id_0>` on."""

WORD_END = "</w>"
"""How words end in the vocabulary of GPT-1's release."""
RELEASE = {"start": "_start_", "delimiter": "_delimiter_", "extract": "_classify_"}
"""What its code adds behind that vocabulary before fine-tuning, in this order (train.py)."""


def check_role(name: str) -> str:
    """Returns `name`. Raises ValueError where it is neither one of `ROLES` nor "sentinel i"."""
    if name not in ROLES and not _SENTINEL.fullmatch(name):
        raise ValueError(f"{name!r} is not a role of a token ({nearest(name, [*ROLES, 'sentinel 0'])})")
    return name


def role_text(name: str) -> str:
    """What the token of a role is called in vocabularies made here: "sentinel 3" is `<|sentinel_3|>`."""
    return f"<|{check_role(name).replace(' ', '_')}|>"


def guess_roles(token_to_id: Callable[[str], int | None]) -> dict[str, str]:
    """Role -> token text for the usual texts a vocabulary holds; `token_to_id` gives None for others."""
    found = {}
    for role, texts in USUAL.items():
        present = [text for text in texts if token_to_id(text) is not None]
        if present:
            found[role] = present[0]
    for number in range(MOST_SENTINELS):  # T5's vocabularies end with 100 of them
        if token_to_id(f"<extra_id_{number}>") is None:
            break
        found[f"sentinel {number}"] = f"<extra_id_{number}>"
    return found


def check_roles(roles: Mapping[str, str]) -> dict[str, str]:
    """A copy of `roles`. Raises ValueError for a name that is no role."""
    return {check_role(name): text for name, text in roles.items()}
