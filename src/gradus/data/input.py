"""A file or stream of rows on its way to a parser: its lines, decoded, and how its errors begin.

Lines end at LF or CRLF and at nothing else: a Unicode line separator inside a text is text.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

from gradus.core.errors import UserError
from gradus.data.paths import BOM, first_undecodable, is_sound
from gradus.data.reader_options import Reader, ReaderOptions

Parsed = Iterator[tuple[int, dict[str, str] | UserError]]
"""(line, fields) of each row; one that cannot be read is its error, so that the caller decides whether it may
be skipped."""


@dataclass(frozen=True)
class Input:
    """A stream of bytes or of text, and how it is to be read; `absent` names fields that it may lack."""

    stream: IO[Any]
    name: str
    options: ReaderOptions
    reader: Reader
    absent: frozenset[str]
    bad: deque[UserError] = field(default_factory=deque)
    """What `lines` met that is not of the encoding, by line."""

    def error(self, problem: str, line: int | None, **where: Any) -> UserError:
        return UserError(problem, file=self.name, line=line, **where)

    def lines(self) -> Iterator[tuple[int, str]]:
        """(number, line without its end). Bytes that cannot be decoded are replaced, and told by
        `undecoded`."""
        for number, line in enumerate(self._decoded(), start=1):
            text = line.removeprefix(BOM) if number == 1 else line
            yield number, text.removesuffix("\n").removesuffix("\r")

    def _decoded(self) -> Iterator[str]:
        if isinstance(self.stream.read(0), str):
            yield from self._sound()
            return
        encoding, start = self.options.encoding, 0
        if "\n".encode(encoding) != b"\n":  # wide, as UTF-16 is: an LF among the bytes ends no line
            data = self.stream.read()
            if wrong := first_undecodable(data, encoding, self.name):
                raise wrong
            yield from io.StringIO(data.decode(encoding), newline="\n")
            return
        for number, line in enumerate(self.stream, start=1):
            try:
                text = line.decode(encoding)
            except UnicodeDecodeError:
                text = line.decode(encoding, "replace")
                if wrong := first_undecodable(line, encoding, self.name, number, start):
                    self.bad.append(wrong)
            start += len(line)
            yield text

    def _sound(self) -> Iterator[str]:
        """The lines of a stream of text, which decoded its bytes itself."""
        for number, line in enumerate(self.stream, start=1):
            if not is_sound(line):
                self.bad.append(self.half_pair(number, line.strip()))
            yield line

    def half_pair(self, line: int, text: str, name: str | None = None) -> UserError:
        """The error for text that cannot be written as UTF-8."""
        problem = r"half of a \ud800 pair: no such letter"
        return self.error(problem, line, field=name and quotable(name), text=quotable(text))

    def undecoded(self, line: int) -> UserError | None:
        """The error for the first bytes from this line on, as far as it was read, that are not of the
        encoding; None where all is well."""
        while self.bad and (self.bad[0].line or 0) < line:
            self.bad.popleft()
        return self.bad[0] if self.bad else None


def quotable(text: str) -> str:
    """`text` with half pairs written as escapes, so that it can be printed."""
    return text.encode("utf-8", "backslashreplace").decode()
