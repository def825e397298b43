"""The user's mistake, told in one line: where it stands, what is wrong, the offending text, what would be
right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

LONGEST_QUOTE = 80


class UserError(Exception):
    """Something the user can mend: the command prints it without a traceback and exits with status 2.

    `file` and `line` (1-based) say where, `field` which column, key or option, `text` is what stands there
    and `hint` what would be right. Only `problem` is required.
    """

    def __init__(
        self,
        problem: str,
        *,
        file: str | Path | None = None,
        line: int | None = None,
        field: str | None = None,
        text: object = None,
        hint: str | None = None,
    ):
        self.problem, self.file, self.line, self.field, self.text, self.hint = (
            problem,
            file,
            line,
            field,
            text,
            hint,
        )
        super().__init__(str(self))

    def __str__(self) -> str:
        where = ""
        if self.file is not None:
            where = f"{self.file}:{self.line}: " if self.line is not None else f"{self.file}: "
        if self.field:
            where += f"{self.field}: "
        quoted = f": {quote(self.text)}" if self.text is not None else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{where}{self.problem}{quoted}{hint}"


@contextmanager
def under(part: str) -> Iterator[None]:
    """While a part of a recipe is worked on: a mistake names its field from there."""
    try:
        yield
    except UserError as mistake:
        mistake.field = f"{part}.{mistake.field}"
        raise


def quote(text: object) -> str:
    """`text` as one line in quotes, cut to what a terminal line can show."""
    shown = repr(text if isinstance(text, str) else str(text))
    return shown if len(shown) <= LONGEST_QUOTE else shown[: LONGEST_QUOTE - 4] + "...'"


def counted(number: int, noun: str) -> str:
    """`1 row`, `2,400 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def nearest(word: str, legal: Iterable[str]) -> str:
    """A hint that names the legal words and, where one is near, says which was probably meant."""
    legal = list(legal)
    plain = {option.casefold().strip(): option for option in reversed(legal)}
    close = [
        plain[found] for found in difflib.get_close_matches(word.casefold().strip(), plain, n=1, cutoff=0.6)
    ]
    listed = "one of " + ", ".join(legal) if legal else "nothing is allowed here"
    return f"did you mean {close[0]!r}? {listed}" if close else listed
