"""GPT-1's own tokenizer, from the files that OpenAI released: byte pairs of lower-cased words that end in
`</w>`.

How text is taken apart into words before that is a matter of two readings; see `GPT1Tokenizer`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Literal

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from gradus.core.config import Config
from gradus.core.errors import UserError
from gradus.core.storage import from_home
from gradus.tokenizers.roles import WORD_END
from gradus.tokenizers.tokenizer import Tokenizer

ENCODER, MERGES = "encoder_bpe_40000.json", "vocab_40000.bpe"
"""What openai/finetune-transformer-lm calls the vocabulary and the merges."""
HUB_ENCODER, HUB_MERGES = "vocab.json", "merges.txt"
"""The same two files in the folder `openai-gpt` of Hugging Face."""
UNKNOWN = "<unk>"
ROLES = {"unknown": UNKNOWN, "pad": UNKNOWN}
"""The released code fills up with zeros, and token 0 is `<unk>`. The last token of a row never is, so
Hugging Face's classifier finds it behind this filling."""

Merge = tuple[str, str]


class GPT1Tokenizer(Config):
    """The tokenizer of OpenAI's GPT-1: 40,000 merges, 40,478 tokens (Radford et al. 2018, section 4.1).

    Start, delimiter and extract are `_start_`, `_delimiter_` and `_classify_`, behind the vocabulary and in
    this order, as in the released code; `end`, which that lacks, comes after them where it is needed.
    """

    needs_text: ClassVar[bool] = False

    kind: Literal["gpt1"] = "gpt1"
    path: str
    """The folder with `encoder_bpe_40000.json` and `vocab_40000.bpe`, or Hugging Face's `vocab.json` and
    `merges.txt`."""
    pre_tokenization: Literal["simple", "release"] = "simple"
    """How words are found: as Hugging Face's class does (BERT's words), or with ftfy, spaCy and the rules of
    the released code (the paper's section 4.1; `pip install "gradus-lm[release]"`)."""

    def build(self, texts: Iterable[str] = (), root: Path | None = None) -> Tokenizer:
        """Reads the files; a relative path counts from `root`. Raises UserError where one is missing or
        broken, or where the extra is wanted and not installed."""
        path = from_home(self.path)
        return read_release(path if root is None else root / path, self.pre_tokenization)


def read_release(folder: Path, pre_tokenization: Literal["simple", "release"] = "simple") -> Tokenizer:
    """The tokenizer of a folder with the two files, without the special tokens of fine-tuning.

    Raises UserError, naming file and line, for what is missing or does not belong together.
    """
    vocabulary, merges = read_vocabulary(vocabulary_files(folder))
    return Tokenizer(
        assemble(vocabulary, merges), ROLES, None if pre_tokenization == "simple" else pre_tokenization
    )


def vocabulary_files(folder: Path) -> tuple[Path, Path]:
    """Where vocabulary and merges stand. Raises UserError where the folder lacks one."""
    named = {(ENCODER, MERGES), (HUB_ENCODER, HUB_MERGES)}
    for encoder, merges in sorted(named):
        if (folder / encoder).is_file() or (folder / merges).is_file():
            for name in (encoder, merges):
                if not (folder / name).is_file():
                    hint = f"{encoder} and {merges} belong together"
                    raise UserError("a file of the vocabulary is missing", file=folder / name, hint=hint)
            return folder / encoder, folder / merges
    hint = f"a folder with {ENCODER} and {MERGES} is wanted"
    raise UserError("here is no vocabulary of GPT-1", file=folder, hint=hint)


def read_vocabulary(files: tuple[Path, Path]) -> tuple[dict[str, int], list[Merge]]:
    """Token -> id, and the merges in order. Raises UserError for files that are broken or do not belong
    together."""
    vocabulary = _read_encoder(files[0])
    merges = []
    lines = _text(files[1]).split("\n")
    for number, line in enumerate(lines, 1):
        if (number == 1 and line.startswith("#version")) or (number == len(lines) and not line):
            continue
        parts = line.removesuffix("\r").split(" ")
        if len(parts) != 2:
            hint = "two tokens and a space between are wanted"
            raise UserError("this is no merge", file=files[1], line=number, text=line, hint=hint)
        for token in (*parts, "".join(parts)):
            if token not in vocabulary:
                hint = f"{files[1].name} and {files[0].name} belong together"
                problem = f"the merge needs a token that {files[0].name} lacks"
                raise UserError(problem, file=files[1], line=number, text=token, hint=hint)
        merges.append((parts[0], parts[1]))
    return vocabulary, merges


def _read_encoder(file: Path) -> dict[str, int]:
    wanted = "an object is wanted that gives each token an id, 0 to their number less 1"
    try:
        vocabulary = json.loads(_text(file))
    except ValueError as error:
        raise UserError("cannot be read as JSON", file=file, text=str(error), hint=wanted) from None
    if not isinstance(vocabulary, dict) or not vocabulary:
        raise UserError("this is no vocabulary", file=file, hint=wanted)
    for token, number in vocabulary.items():
        if not isinstance(number, int) or isinstance(number, bool):
            raise UserError("the id of a token is no integer", file=file, field=token, text=number)
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        owner: dict[int, str] = {}
        for token, number in vocabulary.items():
            other = owner.setdefault(number, token)
            if other != token or not 0 <= number < len(vocabulary):
                problem = "an id stands twice" if other != token else "an id is out of range"
                raise UserError(problem, file=file, field=token, text=number, hint=wanted)
    if UNKNOWN not in vocabulary:
        raise UserError("the vocabulary lacks a token", file=file, text=UNKNOWN)
    return vocabulary


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("cannot be read", file=file, text=str(error)) from None


def assemble(vocabulary: dict[str, int], merges: list[Merge]) -> tokenizers.Tokenizer:
    """The library's tokenizer over BERT's words in lower case, as Hugging Face's class for GPT-1 has it.

    That class stands in for ftfy and spaCy with the simple pre-tokenisation of BERT (Devlin et al. 2019):
    accents are stripped, punctuation and Chinese characters stand alone.
    """
    model = models.BPE(
        vocab=vocabulary,
        merges=merges,
        continuing_subword_prefix="",
        end_of_word_suffix=WORD_END,
        unk_token=UNKNOWN,
        fuse_unk=False,
    )
    inner = tokenizers.Tokenizer(model)
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.BPEDecoder(suffix=WORD_END)
    return inner
