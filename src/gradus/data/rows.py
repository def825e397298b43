"""Labelled rows of every split: read, held out, renamed, dropped, cleared of leaks, limited and counted, in
this order."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Annotated, Any, Literal

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from gradus.core.config import wrong
from gradus.core.errors import UserError, nearest
from gradus.data.builtin import builtin_name, builtin_rows
from gradus.data.formats import Format
from gradus.data.hub import HubName, read_hub
from gradus.data.input import Input
from gradus.data.label_sets import MultiLabel
from gradus.data.label_weights import Weight
from gradus.data.leakage import leaked, row_keys
from gradus.data.parts import Long
from gradus.data.paths import HUB, find_files
from gradus.data.questions import Question
from gradus.data.reader_options import ReaderOptions, Text, distinct
from gradus.data.readers import (
    Row,
    Skipped,
    good_rows,
    is_dropped,
    missing_column,
    raw_rows,
    read_rows,
    read_stream,
    renamed,
)
from gradus.data.split import (
    SPLITS,
    TEST,
    TRAIN,
    EvaluationChoice,
    HeldOut,
    TrainChoice,
    assign,
    fraction,
    held_out,
    named,
)

STANDARD_INPUT = "-"
UNLABELLED = "unlabelled"
LATER = ("multi_label", "unlabelled")
"""Keys of rows that came after the first fingerprints."""


class RowsData(ReaderOptions):
    """Labelled rows. How files are read holds for all splits."""

    kind: Literal["rows"]
    train: TrainChoice
    """A file, a glob, a list of those, builtin:NAME, or hub:NAME of a data set of the Hugging Face hub."""
    dev: EvaluationChoice = None
    """As train, or a share of it: "10 %" or {share: 10 %, by: FIELD}."""
    test: EvaluationChoice = None
    format: Format
    """Which columns are the texts and the label."""
    labels: Annotated[list[Text], Field(min_length=2), AfterValidator(distinct)] | None = None
    """The classes in the order of the logits. Default: those of train, sorted (as numbers if all are
    integers)."""
    multi_label: MultiLabel = None
    """A row has any number of labels: a JSON list of them, or with {separator: ","} one text."""
    weights: Literal["balanced"] | Annotated[dict[Text, Weight], Field(min_length=1)] | None = None
    """What a label weighs in the loss: numbers by name, 1 where there is none; or balanced, so that every one
    counts the same. See `data.label_weights`."""
    unlabelled: TrainChoice | None = None
    """Further rows, whose label is not known: what they are only teachers say. Named as train."""
    long: Long = "truncate"
    """Rows with more tokens than the context: cut (and counted), an error, or, of a question's context, read
    in several windows."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Train on the first so many rows only (after dev and test were held out)."""
    leakage: Literal["stop", "allow", "drop"] = "stop"
    """What to do where a row of test is in train, too (case, white space, punctuation and label aside): stop
    with an error, allow it, or drop such rows from train."""

    @model_validator(mode="after")
    def _shares(self) -> RowsData:
        held_out(self)
        return self

    @model_validator(mode="after")
    def _windows(self) -> RowsData:
        question = self.format if isinstance(self.format, Question) else None
        if self.long == "window" and question is None:
            problem = f"rows of the format {self.format.kind} are read as one"
            raise wrong("long", problem, "window", "truncate or error; questions have windows")
        if self.long != "window" and question is not None and question.stride is not None:
            problem = "without further windows there is nothing to share"
            raise wrong("format.stride", problem, question.stride, "long: window, or leave it out")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, dumped: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without keys that came after the first fingerprints and are not given: they decide nothing."""
        return {key: value for key, value in dumped(self).items() if key not in LATER or value is not None}

    def reader_options(self) -> ReaderOptions:
        """The reader's keys alone: what a model folder keeps to read the rows of `predict`."""
        return ReaderOptions(**{name: getattr(self, name) for name in ReaderOptions.model_fields})


@dataclass(frozen=True)
class RowSource:
    """The rows of one split, in the order of the files, and what was left out of it."""

    rows: list[Row]
    digest: str
    """Names the fields of all rows, in order; file names and lines do not count."""
    skipped: list[Skipped]
    """Bad rows (of all of train's files, for a split that was held out of train: none)."""
    dropped: int = 0
    """Rows left out by `drop`."""
    beyond_limit: int = 0
    """Rows left out by `limit`."""
    leaked: int = 0
    """Rows left out by `leakage: drop`, before `limit`."""


def row_splits(data: RowsData, root: Path) -> dict[str, RowSource]:
    """The rows of the splits that `data` names, among train, dev and test, held in memory.

    Raises UserError for wrong paths, bad rows beyond those allowed, a split without rows, and for a field of
    `map`, `drop` or `by` that no row of train has.
    """
    skipped: dict[str, list[Skipped]] = {split: [] for split in SPLITS}
    raw = {
        split: list(_read_choice(choice, split, data, root, skipped[split]))
        for split, choice in named(data).items()
    }
    _known_fields(data, raw[TRAIN])
    if shares := held_out(data):
        raw |= _parted(raw[TRAIN], shares)
    kept = {split: list(_kept(raw[split], data)) for split in SPLITS if split in raw}
    clean = kept | {TRAIN: _without_leaks(kept, data)}
    sources = {}
    for split, rows in kept.items():
        used = _limited(clean[split], split, data, len(raw[split]))
        dropped, beyond = len(raw[split]) - len(rows), len(clean[split]) - len(used)
        leaks = len(rows) - len(clean[split])
        sources[split] = RowSource(used, _digest(used), skipped[split], dropped, beyond, leaks)
    if data.unlabelled is not None:
        sources[UNLABELLED] = _unlabelled(data, root)
    return sources


def _unlabelled(data: RowsData, root: Path) -> RowSource:
    assert data.unlabelled is not None
    skipped: list[Skipped] = []
    raw = list(_read_choice(data.unlabelled, UNLABELLED, data, root, skipped))
    kept = list(_kept(raw, data))
    used = _limited(kept, UNLABELLED, data, len(raw))
    return RowSource(used, _digest(used), skipped, len(raw) - len(kept))


def _kept(rows: Iterable[Row], data: RowsData) -> Iterator[Row]:
    for row in rows:
        fields = renamed(row.fields, data)
        if not is_dropped(fields, data):
            yield replace(row, fields=fields)


def _without_leaks(kept: dict[str, list[Row]], data: RowsData) -> list[Row]:
    """Train without the rows of test, where the recipe says so."""
    if data.leakage != "drop" or TEST not in kept:
        return kept[TRAIN]
    form = data.format
    train, test = (row_keys(kept[split], form.fields, form.ordered) for split in (TRAIN, TEST))
    return [row for row, is_leaked in zip(kept[TRAIN], leaked(train, test)) if not is_leaked]


def stream_rows(
    options: ReaderOptions, file: Path | str, absent: frozenset[str] = frozenset(), drop: bool = False
) -> Iterator[Row]:
    """The rows of a file, or of standard input for "-", one at a time and in order: what `predict` reads.

    Columns in `absent` (the label) may be missing. `map` renames; `drop` leaves rows out only if asked for,
    so that by default every row gets its answer, and bad rows are errors for the same reason. Raises
    UserError.
    """
    strict = options.model_copy(update={"bad_rows": "stop"} | ({} if drop else {"drop": {}}))
    if str(file) == STANDARD_INPUT:
        stream: IO[Any] = getattr(sys.stdin, "buffer", sys.stdin)
        return read_stream(stream, "standard input", strict, absent=absent)
    return read_rows(Path(file), strict, absent=absent)


def _read_choice(
    choice: str | list[str], split: str, data: RowsData, root: Path, skipped: list[Skipped]
) -> Iterator[Row]:
    """The rows of one split as they stand, before `map` and `drop`."""
    name = builtin_name(choice)
    if name is not None:
        yield from (Row(index, *row) for index, row in enumerate(builtin_rows(name, split)))
        return
    index = 0
    for file, rows in _opened(choice, split, data, root, skipped):
        for line, fields in rows:
            yield Row(index, fields, file, line)
            index += 1


def _opened(
    choice: str | list[str], split: str, data: RowsData, root: Path, skipped: list[Skipped]
) -> Iterator[tuple[str, Iterator[tuple[int, dict[str, str]]]]]:
    """Each file's name and its rows."""
    if isinstance(choice, str) and choice.startswith(HUB):
        wanted = HubName.of(choice, split)
        source = Input(io.BytesIO(), str(wanted), data, data.reader_for(str(wanted)), frozenset())
        yield str(wanted), good_rows(read_hub(source, wanted, split), str(wanted), data, skipped)
        return
    for file in find_files(choice, root, split):
        with open(file, "rb") as stream:
            yield str(file), raw_rows(stream, str(file), data, skipped)


def _known_fields(data: RowsData, rows: list[Row]) -> None:
    """A misspelt field would else rename or drop nothing, in silence."""
    there = dict.fromkeys(field for row in rows for field in row.fields)
    for option, fields in (("map", data.map), ("drop", data.drop)):
        for field in fields:
            if field not in there:
                raise UserError(
                    "no row of train has this field", field=option, text=field, hint=nearest(field, there)
                )


def _parted(rows: list[Row], shares: dict[str, HeldOut]) -> dict[str, list[Row]]:
    by = next(iter(shares.values())).by
    owners = assign([fraction(_key(row, by)) for row in rows], shares, "rows")
    return {split: [row for row, owner in zip(rows, owners) if owner == split] for split in (TRAIN, *shares)}


def _key(row: Row, by: str | None) -> list[str]:
    """What decides where a row falls: one field, or all of them as they stand in the file."""
    if by is None:
        return [part for field in sorted(row.fields) for part in (field, row.fields[field])]
    if by not in row.fields:
        missing_column(row, by)
    return [row.fields[by]]


def _limited(rows: list[Row], split: str, data: RowsData, read: int) -> list[Row]:
    """The rows to use, numbered. Raises UserError where none is left of those that were `read`."""
    limit = data.limit if split == TRAIN else None
    if not rows:
        keys = "`drop` and `leakage: drop` leave" if data.leakage == "drop" else "`drop` leaves"
        raise UserError(f"{keys} none of the {read} rows", field=split)
    return [replace(row, index=index) for index, row in enumerate(rows[:limit])]


def _digest(rows: Iterable[Row]) -> str:
    state = hashlib.blake2b(digest_size=16)
    for row in rows:
        state.update(json.dumps(row.fields, sort_keys=True, ensure_ascii=False).encode() + b"\n")
    return state.hexdigest()
