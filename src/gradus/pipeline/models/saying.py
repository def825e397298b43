"""Answers in words: what a model that was taught `seq2seq` says of rows, and how good that is.

Where the format has `answers`, the likeliest of their words names the class; else the answer is what greedy
decoding says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gradus.core.example import Example
from gradus.data.encoding import RowEncoder
from gradus.data.labels import LabelledRow
from gradus.data.question_windows import QuestionEncoder
from gradus.data.readers import Row
from gradus.data.tagged import Tags
from gradus.data.text_to_text import TextToTextEncoder
from gradus.data.word_pieces import WordEncoder
from gradus.distributed.world import World
from gradus.evaluation.answering import answer_nats, greedy_matches
from gradus.evaluation.evaluator import Scores
from gradus.evaluation.generate import generate_all
from gradus.evaluation.sampling import Sampling
from gradus.evaluation.texts import TextMetric, text_metrics
from gradus.nn.transformer import Transformer
from gradus.objectives import Objective
from gradus.pipeline.models.answers import Answer
from gradus.pipeline.models.opening import never_said
from gradus.pipeline.models.spans import span_answer_metrics
from gradus.pipeline.models.tags import tag_answer_metrics
from gradus.tokenizers import Tokenizer
from gradus.training.learner import Learner

if TYPE_CHECKING:
    from gradus.pipeline.models.serving import Model

MOST_TOKENS = 256
"""Of an answer that greedy decoding says; the context where that is shorter."""


def answer_metrics(
    encoder: RowEncoder,
    rows: Sequence[LabelledRow],
    scores: Scores,
    learner: Learner,
    world: World,
    budget: int,
    asked: Sequence[TextMetric] = (),
) -> dict[str, float]:
    """For a model that tags words what `tag_metrics` counts; for one that finds answers in a context
    `exact_match` and `f1`; for one that says them `exact_match`, the share of rows whose answer greedy
    decoding says, and, where classes have words, `accuracy`, the share whose right word is the likeliest of
    them, else what is `asked` of the texts that greedy decoding says. No metrics for others. `scores` are
    those of the objective that it is judged by. The learner must be in evaluation mode."""
    if isinstance(encoder, QuestionEncoder) and encoder.answers is not None:
        return span_answer_metrics(encoder, rows, scores.values)
    if isinstance(encoder, WordEncoder) and isinstance(encoder.answers, Tags):
        return tag_answer_metrics(encoder, encoder.answers.names, rows, scores.values)
    says = _taught(learner)
    if not isinstance(encoder, TextToTextEncoder) or says is None:
        return {}
    examples, common = encoder.encode(rows), (learner.transformer, says)
    metrics = {"exact_match": float(greedy_matches(*common, examples, world, budget).mean())}
    if encoder.form.answers:
        words = len(encoder.form.answers)
        nats = answer_nats(*common, encoder.candidates(rows), words, world, budget)
        right = np.array([example.label for example in examples])
        metrics["accuracy"] = float((nats.argmin(1) == right).mean())
    elif asked:
        mine = encoder.encode(rows[world.rank :: world.size], labelled=False)
        shares = world.gather(_greedy(learner.transformer, encoder, mine))
        said = [shares[place % world.size][place // world.size] for place in range(len(rows))]
        metrics |= text_metrics(asked, said, [encoder.form.said(row) for row in rows])
    return metrics


def says(model: Model) -> Objective | None:
    """The objective that answers rows in words; None where there is none, or rows are read otherwise."""
    if model.reading.format is None or model.reading.format.kind != "text_to_text":
        return None
    return _taught(model.opened.learner)


def _taught(learner: Learner) -> Objective | None:
    return next((one for one in learner.objectives if one.name == "seq2seq"), None)


def said_of(model: Model, rows: Sequence[Row]) -> Iterator[Answer]:
    """The answer to each row, in order: log-likelihoods of the format's words, or a text."""
    encoder, objective, opened = model.row_encoder, says(model), model.opened
    assert isinstance(encoder, TextToTextEncoder) and objective is not None
    read, transformer = encoder.encode(rows, labelled=False), opened.learner.transformer
    if encoder.form.answers is None:
        texts = _greedy(transformer, encoder, read)
        yield from (
            Answer(row, np.zeros(0), one.truncated, text) for row, one, text in zip(rows, read, texts)
        )
        return
    world, words = World(device=opened.device), len(encoder.form.answers)
    nats = answer_nats(transformer, objective, encoder.candidates(rows), words, world, opened.budget)
    yield from (Answer(row, -own, one.truncated) for row, one, own in zip(rows, read, nats))


def _greedy(transformer: Transformer, encoder: TextToTextEncoder, read: Sequence[Example]) -> list[str]:
    """What greedy decoding says after each row as its encoder lays it out."""
    tokens = min(MOST_TOKENS, transformer.config.context)
    return decoded(transformer, encoder, read, Sampling(temperature=0.0, tokens=tokens))


def decoded(
    transformer: Transformer, encoder: TextToTextEncoder, read: Sequence[Example], sampling: Sampling
) -> list[str]:
    """What is said after each row as its encoder lays it out."""
    tokens, config = encoder.tokenizer, transformer.config
    assert isinstance(tokens, Tokenizer)
    start = [tokens.role(name) for name in config.decoder_roles] if config.encodes_and_decodes else None
    said = generate_all(
        transformer, [one.sequences[0].tolist() for one in read],
        sampling, tokens.role("end"), never_said(tokens, config), start=start,
    )  # fmt: skip
    return [tokens.decode(ids).strip() for ids in said]
