"""Answers in words: what a model that was taught `seq2seq` says of rows, for `predict`.

Where the format has `answers`, the likeliest of their words names the class; else the answer is what greedy
decoding says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gradus.core.example import Example
from gradus.data.readers import Row
from gradus.data.text_to_text import TextToTextEncoder
from gradus.distributed.world import World
from gradus.evaluation.answering import answer_nats
from gradus.evaluation.generate import generate_all
from gradus.evaluation.sampling import Sampling
from gradus.objectives import Objective
from gradus.pipeline.answers import Answer
from gradus.pipeline.opening import never_said

if TYPE_CHECKING:
    from gradus.pipeline.serving import Model

MOST_TOKENS = 256
"""Of an answer that greedy decoding says; the context where that is shorter."""


def says(model: Model) -> Objective | None:
    """The objective that answers rows in words; None where there is none, or rows are read otherwise."""
    if model.reading.format is None or model.reading.format.kind != "text_to_text":
        return None
    return next((one for one in model.opened.learner.objectives if one.name == "seq2seq"), None)


def said_of(model: Model, rows: Sequence[Row]) -> Iterator[Answer]:
    """The answer to each row, in order: log-likelihoods of the format's words, or a text."""
    encoder, objective = model.row_encoder, says(model)
    assert isinstance(encoder, TextToTextEncoder) and objective is not None
    read = encoder.encode(rows, labelled=False)
    if encoder.form.answers is None:
        texts = _greedy(model, read)
        yield from (
            Answer(row, np.zeros(0), one.truncated, text) for row, one, text in zip(rows, read, texts)
        )
        return
    opened, words = model.opened, len(encoder.form.answers)
    world = World(device=opened.device)
    nats = answer_nats(
        opened.learner.transformer, objective, encoder.candidates(rows), words, world, opened.budget
    )
    yield from (Answer(row, -own, one.truncated) for row, one, own in zip(rows, read, nats))


def _greedy(model: Model, read: Sequence[Example]) -> list[str]:
    """What greedy decoding says after each row as its encoder lays it out."""
    tokens, opened = model.tokens, model.opened
    config = opened.folder.config
    start = read[0].decoded[0][:-1].tolist() if config.encodes_and_decodes else None
    said = generate_all(
        opened.learner.transformer, [one.sequences[0].tolist() for one in read],
        Sampling(temperature=0.0, tokens=min(MOST_TOKENS, config.context)), tokens.role("end"),
        never_said(tokens, config), start=start,
    )  # fmt: skip
    return [tokens.decode(ids).strip() for ids in said]
