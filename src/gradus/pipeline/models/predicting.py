"""Predicting the rows of a file into a file: in order, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gradus.core.errors import UserError
from gradus.core.storage import from_home, new_file
from gradus.data.rows import STANDARD_INPUT, stream_rows
from gradus.pipeline.models.opening import told_as_options

if TYPE_CHECKING:
    from gradus.pipeline.models.serving import Model


def predict_file(
    model: Model,
    input: str | Path,
    output: str | Path,
    reader: str | None = None,
    encoding: str | None = None,
) -> dict[str, int]:
    """Predicts every row of a file into JSON Lines, one object a row, in order.

    "-" is standard input or output. An object holds `row`, `file`, `line` and what `Model.predict` says of
    the row, `score` being its label's logit. Rows are read as in the model's training, but for `drop`, and
    standard input as the training rows themselves; JSON and Parquet files are read as such whatever it was.
    `reader` and `encoding` overrule it all. The output appears whole or not at all. Returns the counts of
    `rows`, `truncated_rows` and `truncated_tokens`. Raises UserError for bad rows and paths.
    """
    model.require_answers()
    form = model.row_encoder.format
    absent = frozenset(({form.label} if form.label else set()) | set(getattr(form, "target_fields", ())))
    counts = {"rows": 0, "truncated_rows": 0, "truncated_tokens": 0}
    options = model.reading.options(str(input), reader, encoding)
    with told_as_options(str(input), options, reader), _lines(output) as write:
        for answer in model.answers(stream_rows(options, input, absent)):
            place = {"row": answer.row.index, "file": answer.row.file, "line": answer.row.line}
            said = model.told(answer)
            mark = {"score": float(answer.scores.max())} if "label" in said and len(answer.scores) > 1 else {}
            write(json.dumps({**place, **mark, **said}, ensure_ascii=False))
            counts["rows"] += 1
            counts["truncated_rows"] += bool(answer.truncated)
            counts["truncated_tokens"] += answer.truncated
    return counts


@contextmanager
def _lines(output: str | Path) -> Iterator[Callable[[str], object]]:
    """Writes lines to standard output for "-", else to a file that is there once the block has ended well."""
    if str(output) == STANDARD_INPUT:
        yield lambda line: print(line, flush=True)
        return
    path = from_home(output)
    if path.is_dir():
        raise UserError("this is a folder, a file is wanted", field="output", text=str(path))
    with ExitStack() as stack:
        try:
            file = stack.enter_context(new_file(path))
        except OSError as error:
            problem = f"cannot be written ({error.strerror})"
            raise UserError(problem, field="output", text=str(path)) from None
        yield lambda line: file.write(f"{line}\n".encode())
