"""A tokenizer on disk: tokenizer.json and tokenizer_config.json, which Hugging Face tools open as they are.

The class is named `PreTrainedTokenizerFast` and the inputs are named, or transformers rebuilds a tokenizer of
the model's family (lower-casing for GPT-1) and adds token types. `split_special_tokens` makes it read the
text of a special token inside user text as text, as we do. Our roles stand beside, under a key that it
carries along.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import tokenizers
from tokenizers.processors import TemplateProcessing

from gradus.core.errors import UserError
from gradus.core.storage import write_file, write_json
from gradus.tokenizers.roles import WORD_END, check_roles, guess_roles

TOKENIZER = "tokenizer.json"
CONFIG = "tokenizer_config.json"
ROLES_KEY = "gradus_roles"
WORDS_KEY = "gradus_pre_tokenization"
PreTokenization = Literal["release"]
"""How words are found where tokenizer.json does not say it all; see `standard`."""
TEXTS = ("$A", "$B")
"""The first and the second text of a row in a template; every other word of it is a role."""

Template = tuple[Sequence[str], Sequence[str]]
"""How special tokens stand around one text and around two: (["start", "$A", "extract"], ["start", "$A",
"delimiter", "$B", "extract"]). With ":1" behind it a word belongs to segment 1: "$B:1"."""

_NAMED = {
    "pad": "pad_token",
    "unknown": "unk_token",
    "start": "bos_token",
    "end": "eos_token",
    "mask": "mask_token",
}


class Read(NamedTuple):
    """A tokenizer as it stood on disk."""

    inner: tokenizers.Tokenizer
    roles: dict[str, str]
    pre_tokenization: PreTokenization | None


def read_tokenizer(path: Path) -> Read:
    """The tokenizer of a folder or of a tokenizer.json, and its roles: as stored, else the usual ones.

    Raises UserError where the file is missing or broken.
    """
    file = path / TOKENIZER if path.is_dir() else path
    try:
        inner = tokenizers.Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        hint = f"a {TOKENIZER} or a folder that holds one is wanted"
        raise UserError("there is no tokenizer", file=file, hint=hint) from None
    except Exception as error:  # the library raises bare Exception
        hint = f"a {TOKENIZER} as the tokenizers library writes it is wanted"
        raise UserError("cannot be read as a tokenizer", file=file, text=str(error), hint=hint) from None
    stored, words = _stored(file.with_name(CONFIG), inner.token_to_id)
    return Read(inner, _usual_roles(inner) if stored is None else stored, words)


def _usual_roles(inner: tokenizers.Tokenizer) -> dict[str, str]:
    """What the texts of a foreign vocabulary tell; GPT-1's fills up with `<unk>`, token 0, as released."""
    roles = guess_roles(inner.token_to_id)
    released = getattr(inner.model, "end_of_word_suffix", None) == WORD_END
    if released and "unknown" in roles and "pad" not in roles:
        roles["pad"] = roles["unknown"]
    return roles


def _stored(
    file: Path, token_to_id: Callable[[str], int | None]
) -> tuple[dict[str, str] | None, PreTokenization | None]:
    """Roles and pre-tokenisation that we wrote into tokenizer_config.json; None where somebody else wrote it
    or nobody."""
    if not file.exists():
        return None, None
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        roles, words = settings.get(ROLES_KEY), settings.get(WORDS_KEY)
        roles = None if roles is None else check_roles(roles)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(
            "cannot be read", file=file, text=str(error), hint="it should be a JSON object"
        ) from None
    for role, text in (roles or {}).items():
        if not isinstance(text, str) or token_to_id(text) is None:
            field = f"{ROLES_KEY}.{role}"
            raise UserError(f"no such token in {TOKENIZER} beside it", file=file, field=field, text=text)
    if words not in (None, "release"):
        raise UserError("there is no such way", file=file, field=WORDS_KEY, text=words, hint="release")
    return roles, words


def write_tokenizer(
    inner: tokenizers.Tokenizer,
    roles: Mapping[str, str],
    folder: Path,
    template: Template | None,
    context: int | None,
    pre_tokenization: PreTokenization | None = None,
) -> None:
    """Writes both files into `folder`. `context` is the longest sequence the model takes, in tokens.

    With `template`, encoding by Hugging Face tools puts the special tokens around the text, and truncation
    cuts the text before they come. Raises UserError for a role in the template that no token plays.
    """
    if template is not None:
        inner = tokenizers.Tokenizer.from_str(inner.to_str())
        inner.post_processor = post_processor(inner, roles, template)
    write_file(folder / TOKENIZER, inner.to_str(pretty=True) + "\n")
    types = ["token_type_ids"] if template and any(map(_segment, template[1])) else []
    named = {key: roles[role] for role, key in _NAMED.items() if role in roles}
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", *types, "attention_mask"],
        **named,
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
        **({} if context is None else {"model_max_length": context}),
        ROLES_KEY: dict(roles),
        **({} if pre_tokenization is None else {WORDS_KEY: pre_tokenization}),
    }
    write_json(folder / CONFIG, settings)


def post_processor(
    inner: tokenizers.Tokenizer, roles: Mapping[str, str], template: Template
) -> TemplateProcessing:
    """The template as the library wants it. Raises UserError for a role that no token plays."""
    used = dict.fromkeys(name for part in template for name in map(_name, part) if name not in TEXTS)
    for role in used:
        if role not in roles:
            raise UserError(f"the tokenizer has no token for the role {role!r}", field="tokenizer")
    single, pair = (
        [(name if (name := _name(word)) in TEXTS else roles[name]) + ":1" * _segment(word) for word in part]
        for part in template
    )
    ids = [(text, inner.token_to_id(text)) for text in dict.fromkeys(roles[role] for role in used)]
    return TemplateProcessing(single=single, pair=pair, special_tokens=ids)


def _name(word: str) -> str:
    """A word of a template without its segment."""
    return word.removesuffix(":1")


def _segment(word: str) -> int:
    return int(word.endswith(":1"))
