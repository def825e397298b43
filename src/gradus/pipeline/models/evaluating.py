"""Evaluating a model that is ready for use: the metrics of its own task, on the data it is given."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gradus.core.errors import UserError, counted, nearest
from gradus.data.hub import HubName
from gradus.data.paths import BUILTIN, HUB
from gradus.data.reader_options import ReaderOptions
from gradus.data.readers import Row, is_dropped, renamed
from gradus.data.rows import RowsData, row_splits
from gradus.data.shards import token_store
from gradus.data.sources import Rows, Source
from gradus.data.split import SPLITS, TRAIN
from gradus.data.text import TextData, text_splits
from gradus.data.windows import text_windows
from gradus.data.word_pieces import WordEncoder
from gradus.distributed.world import World
from gradus.evaluation.evaluator import Scores, score, summarise_all
from gradus.evaluation.metrics import language_metrics
from gradus.evaluation.texts import libraries_of
from gradus.families.folder import CARD
from gradus.objectives import main_place
from gradus.pipeline.models.opening import told_as_options
from gradus.pipeline.models.saying import answer_metrics

if TYPE_CHECKING:
    from gradus.pipeline.models.serving import Model


def evaluate_file(
    model: Model,
    data: str | Path | Sequence[str],
    split: str = "test",
    reader: str | None = None,
    encoding: str | None = None,
) -> dict[str, float]:
    """The metrics of the model's own task, as its training reports them, and the counts they rest on.

    `data` is a file, a glob, a list of them, builtin:NAME or hub:NAME; the last two have splits, and `split`
    chooses one. Rows need the label's column. A language model reads text, tokenised into a temporary folder,
    in the windows of its training; where its tokenizer has no token for `end`, each document is scored alone,
    without it. `reader` (of rows) and `encoding` overrule those of the training. Raises UserError for data
    that cannot be read, or holds nothing to score.
    """
    entries = [str(data)] if isinstance(data, str | Path) else list(data)
    name = entries[0] if entries else ""
    if not name:
        raise UserError("no data to evaluate on is named", field="data")
    if split not in SPLITS:
        raise UserError("there is no such split", field="split", text=split, hint=nearest(split, SPLITS))
    splits: dict[str, Any] = {TRAIN: entries}
    if name.startswith(BUILTIN) and len(entries) == 1:
        splits = {TRAIN: name, split: name}
    elif name.startswith(HUB) and len(entries) == 1:
        splits, split = {TRAIN: str(HubName.of(name, split))}, TRAIN
    else:
        split = TRAIN
    rows = model.task is not None or model.reading.format is not None
    options = model.reading.options(name, reader if rows else None, encoding)
    try:
        with told_as_options(name, options, reader):
            if rows:
                return _evaluate_rows(model, splits, split, options)
            if reader is not None:
                problem = "a language model is evaluated on text, which has no reader"
                raise UserError(problem, field="--reader", text=reader, hint="leave it out")
            return _evaluate_text(model, splits, split, options.encoding if encoding else None)
    except UserError as error:
        error.field = "data" if error.field == TRAIN else error.field  # there is no `train` here
        raise


def _evaluate_rows(
    model: Model, splits: Mapping[str, Any], split: str, options: ReaderOptions
) -> dict[str, float]:
    encoder = model.row_encoder
    keys = {key: getattr(options, key) for key in ReaderOptions.model_fields if key not in ("map", "drop")}
    keys |= {"format": encoder.format, "long": encoder.long}
    found = row_splits(RowsData(kind="rows", **splits, **keys), Path())[split]
    raw = found.rows
    _require_label(raw, encoder.format.label)
    named = [replace(row, fields=renamed(row.fields, options)) for row in raw]
    kept = [row for row in named if not is_dropped(row.fields, options)]
    if not kept:
        raise UserError(f"`drop` leaves none of the {counted(len(raw), 'row')}", file=raw[0].file)
    rows = [replace(row, index=index) for index, row in enumerate(kept)]
    examples = encoder.encode(rows)
    cuts = [example.truncated for example in examples if example.truncated]
    source = Rows(examples, [f"{row.file}:{row.line}" for row in rows])
    counts = {"rows": len(rows), "truncated_rows": len(cuts), "truncated_tokens": sum(cuts)}
    left_out = {"skipped_rows": len(found.skipped), "dropped_rows": len(raw) - len(kept)}
    counts |= {why: number for why, number in left_out.items() if number}
    if isinstance(encoder, WordEncoder):
        words = encoder.counts(rows, examples)
        counts |= {name: words[name] for name in ("words", "lost_words", "mended_rows") if name in words}
    asked, opened = model.reading.metrics, model.opened
    libraries_of(asked, file=str(opened.folder.path / CARD), field="metrics")
    metrics, judged = _metrics(model, source, None)
    world = World(device=opened.device)
    metrics |= answer_metrics(encoder, rows, judged, opened.learner, world, opened.budget, asked)
    return {**metrics, **counts}


def _require_label(rows: Sequence[Row], label: str | None) -> None:
    """Raises UserError where no row has the column of the label; it names those there are."""
    there = dict.fromkeys(name for row in rows for name in row.fields)
    if label is not None and label not in there:
        problem = f"evaluating needs the label column {label!r}"
        raise UserError(problem, file=rows[0].file, hint=f"the columns are {', '.join(there)}")


def _evaluate_text(
    model: Model, splits: Mapping[str, Any], split: str, encoding: str | None
) -> dict[str, float]:
    how = model.reading
    data = TextData(kind="text", **splits, encoding=encoding or how.encoding, documents=how.documents)
    text = text_splits(data, Path())[split]
    if not model.tokens.has("end") and model.opened.folder.config.arrangement != "encoder":
        nats, predicted, size = 0.0, 0, 0
        for document in text.documents():
            ((likelihood, tokens),) = model.score([document.text])
            nats, predicted, size = nats - likelihood, predicted + tokens, size + len(document.text.encode())
        return {**language_metrics(nats, predicted, size), "tokens": predicted, "bytes": size}
    with tempfile.TemporaryDirectory(prefix="gradus-") as folder:
        windows, store, _ = text_windows(
            text, how, model.tokens, model.opened.folder.config, model.window,
            lambda documents: token_store(documents, model.tokens, Path(folder)), Path(folder),
        )  # fmt: skip
        return {**_metrics(model, windows, store.bytes)[0], "tokens": store.total, "bytes": store.bytes}


def _metrics(model: Model, source: Source, size: int | None) -> tuple[dict[str, float], Scores]:
    """The metrics of the objective that the model is judged by, and the losses of the others; its scores."""
    learner, world = model.opened.learner, World(device=model.opened.device)
    with torch.inference_mode():
        found = score(learner, source, world, model.opened.budget)
    place = main_place(learner.objectives)
    main = learner.objectives[place]
    return summarise_all(learner.objectives, found, main, model.labels, size), found[place]
