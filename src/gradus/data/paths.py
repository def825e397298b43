"""From what a recipe writes to files and their text: a path, a glob or a list of those, found, sorted and
decoded.

Order is part of the data: the entries of a list stand in the order they were written, the files of one glob
or folder in the bytewise order of their paths. Names that begin with a dot are never found by a glob or in a
folder.
"""

from __future__ import annotations

import codecs
import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from gradus.core.errors import UserError
from gradus.core.storage import from_home

BUILTIN, HUB = "builtin:", "hub:"
"""How names of data begin that is no file: what Python brings, and data sets of the Hugging Face hub."""
BOM = "\ufeff"
_MAGIC = "*?["
_SHOWN_BYTES = 8


def find_files(choice: str | Sequence[str], root: Path, field: str, *, folders: bool = False) -> list[Path]:
    """The files that `choice` names, in order. Relative paths start at `root`, `~` is the home folder.

    With `folders` a folder stands for all files below it. Raises UserError where a path is missing, a glob
    matches nothing, a file is empty or one file is named twice; `field` (train, dev, test) says whose choice
    it was.
    """
    found: list[Path] = []
    for entry in [choice] if isinstance(choice, str) else choice:
        found += map(_plain, _entry_files(entry, root, field, folders))
    seen: set[Path] = set()
    for file in found:
        real = file.resolve()
        if real in seen:
            raise UserError(
                "this file is named twice", field=field, text=str(file), hint="name each file once"
            )
        seen.add(real)
        if file.stat().st_size == 0:
            raise UserError("the file is empty", file=file, field=field)
    return found


def _plain(path: Path) -> Path:
    """The path without `..`, where that is the same file (a link on the way may lead elsewhere)."""
    short = Path(os.path.normpath(path))
    return short if ".." in path.parts and short.exists() and short.samefile(path) else path


def _entry_files(entry: str, root: Path, field: str, folders: bool) -> list[Path]:
    if entry.startswith(BUILTIN):
        raise UserError("built-in data stands alone, not in a list", field=field, text=entry)
    if entry.startswith(HUB):
        problem = "a data set of the hub is rows, and stands alone, not in a list"
        raise UserError(problem, field=field, text=entry)
    path = root / from_home(entry)
    if path.is_dir():
        if not folders:
            hint = f"name its files, for example {entry.rstrip('/')}/*.tsv"
            raise UserError("this is a folder, a file is wanted", field=field, text=str(path), hint=hint)
        return _folder_files(path, field)
    if path.exists():
        return [path]
    looked = f"looked in {root.absolute()}"
    if not any(letter in entry for letter in _MAGIC):
        raise UserError("no such file", field=field, text=entry, hint=looked)
    pattern = str(from_home(entry))
    found = glob.glob(pattern, root_dir=root, recursive=True)  # noqa: PTH207
    matches = [root / name for name in found]
    files = sorted((match for match in matches if match.is_file()), key=os.fsencode)
    if not files:
        raise UserError("no file matches this pattern", field=field, text=entry, hint=looked)
    return files


def _folder_files(folder: Path, field: str) -> list[Path]:
    files = [
        file
        for file in folder.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]
    if not files:
        raise UserError("the folder holds no file", field=field, text=str(folder))
    return sorted(files, key=os.fsencode)


def _known_encoding(name: str) -> str:
    try:
        b"a".decode(name)
    except LookupError:
        raise ValueError(
            f"no text encoding is called {name!r}; utf-8, gb18030, utf-16, latin-1 are examples"
        ) from None
    except UnicodeDecodeError:
        pass  # a wide encoding such as utf-16: known, and one byte is only half a letter
    return name


Encoding = Annotated[str, AfterValidator(_known_encoding)]
"""The name of one of Python's text encodings."""


def read_text(file: Path, encoding: str) -> str:
    """The whole file as text: byte-order mark removed, CRLF and CR turned into LF.

    Raises UserError with the line, the byte offset and the bytes where the file is not written in `encoding`.
    """
    data = file.read_bytes()
    if wrong := first_undecodable(data, encoding, file):
        raise wrong
    return data.decode(encoding).removeprefix(BOM).replace("\r\n", "\n").replace("\r", "\n")


def first_undecodable(
    data: bytes, encoding: str, file: Path | str, line: int = 1, start: int = 0
) -> UserError | None:
    """The error for the first bytes that are not `encoding`, with line, place and an encoding that reads
    them; None where all are. `data` begins on `line`, at byte `start` of the file."""
    try:
        data.decode(encoding)
        return None
    except UnicodeDecodeError as error:
        begin, end = error.start, max(error.end, error.start + 1)
    better = likely_encoding(data, encoding)
    hint = (
        f"it reads as {better}: write encoding: {better}" if better else "name its encoding: with `encoding`"
    )
    shown = data[begin : min(end, begin + _SHOWN_BYTES)].hex(" ")
    before = data[:begin].decode(encoding, "replace").count("\n")  # in UTF-16 a byte 10 is not always an LF
    problem = f"bytes {shown} at byte {start + begin} are not {encoding}"
    return UserError(problem, file=file, line=line + before, hint=hint)


def likely_encoding(data: bytes, tried: str) -> str | None:
    """An encoding that can read `data`, other than the one tried; None where none of the usual ones can.

    Nearly any bytes decode as GB 18030 and all as Latin-1, so Chinese is only guessed where bytes above 127
    stand together, as both halves of a GB 2312 character do; in western text they stand alone among ASCII
    letters.
    """
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    chinese = not wide and _high_bytes_together(data)
    candidates = (
        ["utf-16"] if wide else ["utf-8", "gb18030", "big5"] if chinese else ["utf-8", "cp1252", "latin-1"]
    )
    if not chinese and not any(0x80 <= byte < 0xA0 for byte in data):
        candidates = [
            name for name in candidates if name != "cp1252"
        ]  # the same as Latin-1 here, and less known
    for name in candidates:
        if codecs.lookup(name) == codecs.lookup(tried):
            continue
        try:
            data.decode(name)
            return name
        except UnicodeDecodeError:
            continue
    return None


def _high_bytes_together(data: bytes, sample: int = 1 << 16) -> bool:
    """Whether more than four in five bytes above 127 have a neighbour above 127."""
    first = next((place for place, byte in enumerate(data) if byte > 127), 0)
    padded = b"\0" + data[first : first + sample] + b"\0"
    high = [place for place, byte in enumerate(padded) if byte > 127]
    together = sum(padded[place - 1] > 127 or padded[place + 1] > 127 for place in high)
    return together > 0.8 * len(high)


def is_sound(text: str) -> bool:
    """Whether there is no half of a surrogate pair in it: such text cannot be written as UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
