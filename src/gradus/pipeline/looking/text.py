"""A look at a user's text before there is a recipe: files, amount, encoding, language, documents."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gradus.core.errors import UserError
from gradus.core.storage import from_home
from gradus.data.builtin import builtin_name, builtin_text
from gradus.data.paths import BOM, find_files, likely_encoding
from gradus.data.split import TRAIN

MOST_READ = 64 << 20
"""Bytes of running text that are read for the look; the rest is counted by the size of its files."""
CHINESE_SHARE = 0.2
"""From this share of Han characters among the letters on, text is counted in characters, not in words."""
NEARLY_ALL = 0.97
"""A context twice as long for the longest few rows would cost more than it gives."""
FEW_FILES = 20
"""With fewer files than this a whole file is too large a piece to hold out."""
ENOUGH_PIECES = 100
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_LETTER = re.compile(r"[^\W\d_]")
_BLANK_LINE = re.compile(r"\n\s*\n")


@dataclass(frozen=True)
class SeenText:
    """What there is of running text."""

    entries: list[str]
    """What a recipe names: files, folders and globs as given, or builtin:NAME."""
    files: int
    bytes: int
    han: float
    """The share of Han characters among the letters, 0 to 1."""
    encoding: str = "utf-8"
    documents: str = "file"
    """How the recipe parts documents: file, blank line or line."""
    left_out: int = 0
    """Files of a folder that are not .txt, where others are."""
    builtin: bool = False

    @property
    def chinese(self) -> bool:
        return self.han >= CHINESE_SHARE


@dataclass(frozen=True)
class Lengths:
    """How long texts are, in words or (Chinese) characters, and in bytes."""

    unit: str
    shortest: int
    median: int
    longest: int
    nearly_all_bytes: int
    """The share NEARLY_ALL of the texts have at most so many bytes of UTF-8."""

    @classmethod
    def of(cls, texts: Sequence[str], chinese: bool) -> Lengths:
        lengths = sorted(len(text) if chinese else len(text.split()) for text in texts)
        sizes = sorted(len(text.encode("utf-8", "replace")) for text in texts)
        return cls(
            "characters" if chinese else "words",
            lengths[0],
            lengths[len(lengths) // 2],
            lengths[-1],
            sizes[min(len(sizes) - 1, int(NEARLY_ALL * len(sizes)))],
        )

    def __str__(self) -> str:
        return f"{self.shortest:,} to {self.longest:,} {self.unit}, median {self.median:,}"


def han_share(texts: Iterable[str]) -> float:
    """The share of Han characters among the letters of `texts`; 0 where there are no letters."""
    han = letters = 0
    for text in texts:
        han += len(_HAN.findall(text))
        letters += len(_LETTER.findall(text))
    return han / letters if letters else 0.0


def encoding_of(data: bytes, file: Path) -> str:
    """utf-8 where the bytes are, else what they read as. Raises UserError where no usual encoding does."""
    try:
        data.decode("utf-8")
        return "utf-8"
    except UnicodeDecodeError as error:
        found = likely_encoding(data, "utf-8")
        if found is None:
            hint = "save it as UTF-8"
            raise UserError(
                f"neither UTF-8 nor another usual encoding (byte {error.start})", file=file, hint=hint
            ) from None
        return found


def look_at_text(entries: Sequence[str]) -> SeenText:
    """What files, folders and globs (relative to the working folder), or one builtin:NAME, hold.

    Raises UserError for what is missing or empty, and where files differ in encoding.
    """
    name = builtin_name(entries[0]) if len(entries) == 1 else None
    if name is not None:
        passages = builtin_text(name, TRAIN)
        size = sum(len(passage.text.encode()) for passage in passages)
        share = han_share(passage.text for passage in passages)
        return SeenText(list(entries), len(passages), size, share, builtin=True)
    choices = [_choice(entry) for entry in entries]
    files = find_files(choices, Path(), "--text", folders=True)
    left_out = len(find_files(list(entries), Path(), "--text", folders=True)) - len(files)
    encoding, sample = _sample(files)
    documents = "file" if len(files) == 1 or len(files) >= FEW_FILES else _smaller_documents(sample)
    size = sum(file.stat().st_size for file in files)
    return SeenText(choices, len(files), size, han_share(sample), encoding, documents, left_out)


def _choice(entry: str) -> str:
    """A folder that holds .txt files among others stands for those."""
    folder = from_home(entry)
    if not folder.is_dir() or not any(folder.rglob("*.txt")):
        return entry
    return f"{entry.rstrip('/') or '/'}/**/*.txt"


def _sample(files: Sequence[Path]) -> tuple[str, list[str]]:
    """The encoding that all files share, and the text of as many as are worth reading."""
    found: dict[str, Path] = {}
    texts: list[str] = []
    read = 0
    for file in files:
        if texts and read + file.stat().st_size > MOST_READ:
            continue
        data = file.read_bytes()
        encoding = encoding_of(data, file)
        if not data.isascii():
            found.setdefault(encoding, file)
        texts.append(data.decode(encoding).removeprefix(BOM).replace("\r\n", "\n").replace("\r", "\n"))
        read += len(data)
    if len(found) > 1:
        (one, first), (other, second), *_ = found.items()
        hint = f"{first} is {one}: save all files in one encoding, best UTF-8"
        raise UserError(f"this file is {other} where another is {one}", file=second, hint=hint)
    return next(iter(found), "utf-8"), texts


def _smaller_documents(texts: Sequence[str]) -> str:
    """What to hold out where there are several files but few: pieces between blank lines, or lines."""
    if sum(len(_BLANK_LINE.findall(text)) for text in texts) >= ENOUGH_PIECES:
        return "blank line"
    return "line" if sum(text.count("\n") for text in texts) >= ENOUGH_PIECES else "file"
