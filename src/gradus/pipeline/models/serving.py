"""A trained model put to use: it generates, predicts, scores and is evaluated.

Shapes: T tokens, V vocabulary, K classes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import tokenizers
import torch

from gradus.core.errors import UserError
from gradus.core.example import Example, collate
from gradus.core.storage import from_home
from gradus.data.encoding import Answers, RowEncoder
from gradus.data.feed import cut
from gradus.data.formats import TextToText
from gradus.data.label_sets import LabelSets
from gradus.data.labels import Choices, Labels, Numbers, Spans
from gradus.data.readers import Row, renamed
from gradus.data.sources import HeldTokens, Rows, Windows
from gradus.data.tagged import Tags
from gradus.data.text_to_text import row_encoder
from gradus.distributed.precision import Precision
from gradus.distributed.world import World
from gradus.evaluation.evaluator import said_of_row, score
from gradus.objectives import Objective, reads_row_label
from gradus.pipeline.models.answers import Answer, told
from gradus.pipeline.models.evaluating import evaluate_file
from gradus.pipeline.models.generating import continue_texts, decoder_start
from gradus.pipeline.models.opening import Opened, Reading, open_folder, row_template
from gradus.pipeline.models.predicting import predict_file as predict_file
from gradus.pipeline.models.results import model_folder
from gradus.pipeline.models.saying import said_of, says
from gradus.pipeline.recipes.recipe import Recipe
from gradus.tokenizers import Tokenizer
from gradus.tokenizers.files import post_processor

ROWS_AT_ONCE = 64
"""Rows that `predict` holds at one time; what they are cut into depends on their tokens alone."""


@dataclass(frozen=True)
class Model:
    """A model ready for use; `load` makes it."""

    opened: Opened

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes in the order of the logits, none for a language model."""
        return self.opened.labels

    @property
    def reading(self) -> Reading:
        """How its rows or its text are read."""
        return self.opened.reading

    @property
    def window(self) -> int:
        """Tokens of a window of running text, as in its training."""
        return self.opened.window

    @property
    def answers_apart(self) -> bool:
        """Whether a prompt is encoded and answered, and not gone on with."""
        return self.opened.folder.config.encodes_and_decodes

    @overload
    def generate(self, prompt: str, **sampling: Any) -> str: ...

    @overload
    def generate(self, prompt: Sequence[str], **sampling: Any) -> list[str]: ...

    def generate(self, prompt: str | Sequence[str], **sampling: Any) -> str | list[str]:
        """The text that continues `prompt`, without it; `sampling` are the fields of `Sampling`.

        Of a list of prompts a list of texts, each what its prompt would get alone, but that prompt i draws
        numbers of its own. An empty prompt begins a document: the model goes on from the token of the role
        `end`. An encoder-decoder reads the prompt and answers. With `stop` strings the text ends before the
        first that comes. Tokens that play another role are never said. Raises UserError for a model that was
        not taught to predict text and for settings that mean nothing.
        """
        if isinstance(prompt, str):
            return continue_texts(self, [prompt], sampling)[0]
        return continue_texts(self, list(prompt), sampling)

    def predict(self, rows: Iterable[Mapping[str, Any] | str]) -> Iterator[dict[str, Any]]:
        """For every row, in order: {"label", "probabilities", "scores", "truncated"}.

        Probabilities and scores (logits) stand by label; `truncated` counts the tokens that did not fit. For
        a model of numbers the label is one and stands alone; where a row has any number of labels, "labels"
        takes its place; for multiple choice it is the answer's text, "index" its place, and probabilities and
        scores are lists in the order of the row's answers. A model that answers in words gives the class of
        the likeliest one, or {"text", "truncated"} where its format names none; one that finds answers in a
        context gives what `span_said` says, one that tags words what `tags_said` says. A row is a mapping
        with the columns of the model's format, or its text where one is all it has. Rows are drawn as they
        are needed, so there may be any number of them. Raises UserError for a language model, a folder that
        does not say how rows are read, and a row without a column that is wanted.
        """
        if isinstance(rows, str | Mapping):
            problem = "predict takes many rows, and this is one"
            raise UserError(problem, field="rows", text=rows, hint="put it in a list: predict([...])")
        self.require_answers()
        named = (self._row(index, row) for index, row in enumerate(rows))
        return (self.told(answer) for answer in self.answers(named))

    def answers(self, rows: Iterable[Row]) -> Iterator[Answer]:
        """What is said of every row, in order, holding few of them at a time."""
        self.require_answers()
        rows = iter(rows)
        while chunk := list(islice(rows, ROWS_AT_ONCE)):
            yield from self._judged(chunk) if self.task is not None else said_of(self, chunk)

    def _judged(self, chunk: Sequence[Row]) -> Iterator[Answer]:
        """What the head says of each row."""
        assert self.task is not None
        alone, named = self.opened.learner.asked([self.task]), iter(chunk)
        for examples in cut(self.row_encoder.encode(chunk, labelled=False), self.opened.budget):
            with torch.inference_mode():
                batch = alone.prepare(examples).to(self.opened.device)
                found = alone.predict(batch)[0].double().numpy()
            for example, scores in zip(examples, self.task.of_rows(found, examples)):
                own = len(scores) if self.task.measure == "spans" else said_of_row(self.task, example, scores)
                yield Answer(next(named), _finite(scores[:own]), example.truncated)

    def score(self, texts: Sequence[str]) -> list[tuple[float, int]]:
        """(log-likelihood in nats, predicted tokens) of each text.

        Every token but the first is predicted from those before it. A text longer than the context is read
        in windows, as in training with `windows: document`. An empty text or one of a single token scores
        (0.0, 0). Raises UserError for a model not taught to predict every token.
        """
        if isinstance(texts, str):
            hint = "put it in a list: score([...])"
            raise UserError("score takes many texts, and this is one", field="texts", text=texts, hint=hint)
        alone = self.opened.learner.asked([self._says_all()])
        pieces = [
            replace(example, row=text)
            for text, ids in enumerate(self.tokens.encode(texts))
            for example in _windows_of(ids, self.opened.folder.config.context)
        ]
        with torch.inference_mode():
            (found,) = score(alone, Rows(pieces, ()), World(device=self.opened.device), self.opened.budget)
        rows = found.rows.astype(np.int64)
        nats = np.bincount(rows, weights=_finite(found.values.ravel()), minlength=len(texts))
        counts = np.bincount(rows, weights=found.counts, minlength=len(texts))
        return [(-float(nat) if count else 0.0, int(count)) for nat, count in zip(nats, counts)]

    def logits(self, sequences: Sequence[Sequence[int] | tokenizers.Encoding]) -> list[np.ndarray]:
        """One float32 array for each list of token ids, or encoding of `tokenizer`: [T, V], or [K] where the
        model has a task's head, [T, 2] where that finds where an answer begins and ends, [T, K] where it tags
        words.

        K is the number of classes, 1 for a number or a choice; they are scored at the last token, by an
        encoder at the first. The ids are taken as they are (`tokenizer` puts a row's special tokens around
        its text, and its encodings say which of two texts a token belongs to); the decoder beside an encoder
        reads them too, one place later, as in Hugging Face's BART. Raises UserError for an empty list, one
        longer than the context and an id beyond the vocabulary.
        """
        if isinstance(sequences, str | tokenizers.Encoding):
            raise _one_sequence(sequences)
        opening = [decoder_start(self)] if self.answers_apart else []
        examples = []
        for row, ids in enumerate(sequences):
            read = self._checked(ids, row)
            said = tuple(np.concatenate([[token], read]) for token in opening)
            examples.append(Example(row, (read,), segments=self._segments(ids), decoded=said))
        learner = self.opened.learner
        found: list[np.ndarray] = []
        for part in cut(examples, self.opened.budget):
            with torch.inference_mode():
                batch = collate(part, []).to(self.opened.device)
                states = learner.transformer(batch.source, batch.decoded)
                source = batch.source if batch.decoded is None else batch.decoded
                if self.task is not None and self.task.head_name is not None:
                    head = learner.heads[self.task.head_name]
                    if self.task.measure in ("spans", "tags"):
                        ends = source.offsets
                        found += np.split(head(states[: ends[-1]]).float().cpu().numpy(), ends[1:-1])
                        continue
                    first = learner.transformer.config.arrangement == "encoder"
                    read = source.offsets[:-1] if first else source.offsets[1:] - 1
                    chosen = states.index_select(0, torch.from_numpy(read).to(states.device))
                    found += list(head(learner.transformer.pooled(chosen)).float().cpu().numpy())
                    continue
                for begin, end in zip(source.offsets[:-1], source.offsets[1:]):
                    logits = learner.transformer.logits(states[begin:end])
                    found.append(logits.float().cpu().numpy())
        return found

    def _segments(self, ids: Sequence[int] | tokenizers.Encoding) -> tuple[np.ndarray, ...]:
        """Which text each token belongs to, where the model asks; plain ids are all of the first."""
        if self.opened.folder.config.segments < 2:
            return ()
        belongs = ids.type_ids if isinstance(ids, tokenizers.Encoding) else np.zeros(len(ids))
        return (np.array(belongs, dtype=np.int64),)

    def evaluate(
        self,
        data: str | Path | Sequence[str],
        split: str = "test",
        reader: str | None = None,
        encoding: str | None = None,
    ) -> dict[str, float]:
        """The metrics of the model's own task on `data`; see `evaluate_file`."""
        return evaluate_file(self, data, split, reader, encoding)

    @cached_property
    def tokenizer(self) -> tokenizers.Tokenizer:
        """The tokenizer, with the template of the model's rows as post-processor where it has one."""
        inner = tokenizers.Tokenizer.from_str(self.tokens.inner.to_str())
        inner.encode_special_tokens = True  # the text of a special token inside user text is text
        if self.reading.format is not None:
            template = row_template(self.reading.format, self.opened.folder.config)
            inner.post_processor = post_processor(inner, self.tokens.roles, template)
        return inner

    @cached_property
    def tokens(self) -> Tokenizer:
        """Our tokenizer of the folder. Raises UserError where there is none or it is not the model's."""
        found = Tokenizer.load(self.opened.folder.path)
        if self.opened.roles:
            roles = {**found.roles, **self.opened.roles}
            found = Tokenizer(found.inner, roles, found.pre_tokenization)
        rows = self.opened.folder.config.vocab_size or 0
        if found.size > rows:
            problem = f"the tokenizer has {found.size} tokens, the model's embedding {rows} rows"
            raise UserError(problem, file=self.opened.folder.path, hint="they do not belong together")
        return found

    @property
    def task(self) -> Objective | None:
        """The objective that answers rows; None for a language model."""
        return next((one for one in self.opened.learner.objectives if reads_row_label(one)), None)

    def require_answers(self) -> None:
        """Raises UserError for a model that answers no rows, neither by a head nor in words."""
        if self.task is None and says(self) is None:
            if self.opened.folder.config.arrangement == "encoder":
                raise self._unfit("this model answers no rows: it names hidden tokens")
            raise self._unfit("this model answers no rows: it is a language model", "generate")

    def require_speech(self) -> None:
        """Raises UserError for a model that was not taught to go on with a text, or to answer it."""
        if self.opened.folder.config.arrangement == "encoder":
            problem = "an encoder sees a text from both sides, so it cannot go on with it or score it"
            fits = "predict" if self.task else "evaluate"
            raise UserError(problem, file=self.opened.folder.path, hint=f"`gradus {fits}` fits it")
        if all(objective.measure != "tokens" for objective in self.opened.learner.objectives):
            raise self._unfit("this model was not taught to predict text", "predict")

    def _says_all(self) -> Objective:
        """The objective that predicts every token of a text. Raises UserError where there is none."""
        self.require_speech()
        for objective in self.opened.learner.objectives:
            if objective.every_token and not self.answers_apart:
                return objective
        problem = "this model was not taught to predict every token of a text from those before it"
        raise self._unfit(problem, "generate")

    def _unfit(self, problem: str, *commands: str) -> UserError:
        fitting = " and ".join(f"`gradus {command}`" for command in (*commands, "evaluate"))
        hint = f"{fitting} {'fit' if commands else 'fits'} it"
        return UserError(problem, file=self.opened.folder.path, hint=hint)

    @cached_property
    def row_encoder(self) -> RowEncoder:
        """What turns rows into tokens. Raises UserError where the folder does not say how."""
        if self.reading.format is None:
            hint = "name a recipe and its stage: --recipe RECIPE --stage STAGE"
            raise UserError(
                "the folder does not say how rows are read", file=self.opened.folder.path, hint=hint
            )
        measure = self.task.measure if self.task else "tokens"
        answers: Answers | None = {
            "tokens": None, "classes": Labels(self.labels), "number": Numbers(-math.inf, math.inf),
            "sets": LabelSets.written(self.labels, self.reading.multi_label),
            "choices": Choices(), "spans": Spans(), "tags": Tags(self.labels),
        }[measure]  # fmt: skip
        model = self.opened.folder.config
        return row_encoder(self.reading.format, self.tokens, model, answers, self.reading.long)

    def _row(self, index: int, row: Mapping[str, Any] | str) -> Row:
        """A row as the readers would give it: every value as text, null as a missing column."""
        form = self.row_encoder.format
        if isinstance(row, str):
            if len(form.fields) != 1 or isinstance(form, TextToText):
                hint = f"its columns are {', '.join(form.fields)}"
                raise UserError("a row of this model is no single text", text=row, hint=hint)
            row = {form.fields[0]: row}
        elif not isinstance(row, Mapping):
            raise UserError("a row is a mapping of columns or a text", field=f"row {index}", text=row)
        texts = {
            str(name): value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for name, value in row.items()
            if value is not None
        }
        return Row(index, renamed(texts, self.reading.reader), "rows", index + 1)

    def told(self, answer: Answer) -> dict[str, Any]:
        """An answer as `predict` gives it."""
        if answer.text is not None:
            return {"text": answer.text, "truncated": answer.truncated}
        form, labels = self.row_encoder.format, self.labels
        if self.task is None:
            assert isinstance(form, TextToText) and form.answers is not None
            labels = tuple(form.answers)
        measure = self.task.measure if self.task else "classes"
        said = told(measure, labels, answer.row, answer.scores, self.row_encoder)
        return {**said, "truncated": answer.truncated}

    def _checked(self, ids: Sequence[int] | tokenizers.Encoding, row: int) -> np.ndarray:
        ids = ids.ids if isinstance(ids, tokenizers.Encoding) else ids
        if np.isscalar(ids) or getattr(ids, "ndim", 1) == 0:
            raise _one_sequence(ids)
        tokens = np.array(ids) if all(np.isscalar(token) for token in ids) else np.zeros(0)
        context, rows = self.opened.folder.config.context, self.opened.folder.config.vocab_size or 0
        if tokens.ndim != 1 or not len(tokens) or tokens.dtype.kind not in "iu":
            raise UserError("a list of at least one token id is wanted", field=f"sequence {row}", text=ids)
        if len(tokens) > context:
            raise UserError(f"{len(tokens)} tokens, the context holds {context}", field=f"sequence {row}")
        if tokens.min() < 0 or tokens.max() >= rows:
            wrong = int(tokens[(tokens < 0) | (tokens >= rows)][0])
            raise UserError(f"a token id is not in 0 to {rows - 1}", field=f"sequence {row}", text=wrong)
        return tokens.astype(np.int64)


def load(
    folder: str | Path,
    precision: Precision = "fp32",
    device: str | None = None,
    recipe: Recipe | str | Path | None = None,
    stage: str | None = None,
    member: str | None = None,
) -> Model:
    """Opens a model folder that Gradus or Hugging Face tools wrote for a known family.

    The folder of a stage stands for its model, that of a run for its result: in the recipe as written, with
    the first seed, told on standard error.

    `precision` is that of the activations ("fp32", "bf16", "fp16" or "auto"), `device` the best there is
    unless given. `recipe` and `stage` say how rows or text are read, and what the classes are called in the
    order of the logits, for a folder that does not say so itself. `member` names one of several tasks that
    the model was taught at once. Raises UserError for a folder, recipe or option that is wrong.
    """
    return Model(open_folder(model_folder(from_home(folder)), precision, device, recipe, stage, member))


def _one_sequence(found: object) -> UserError:
    hint = "one sequence goes in a list too: logits([[1, 2, 3]])"
    return UserError("logits takes a list of lists of token ids", field="sequences", text=found, hint=hint)


def _finite(scores: np.ndarray) -> np.ndarray:
    if not np.isfinite(scores).all():
        hint = "its weights are damaged or its training diverged"
        raise UserError("the model's scores are not numbers", hint=hint)
    return scores


def _windows_of(ids: np.ndarray, context: int) -> Iterator[Example]:
    """Windows in which every token but the first is predicted once; none where there is no second."""
    if len(ids) > 1:
        windows = Windows(HeldTokens(ids), context)
        yield from (windows.example(index) for index in range(len(windows)))
