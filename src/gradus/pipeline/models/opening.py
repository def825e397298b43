"""Opening a model folder for use: its weights in a learner, its labels, and how its rows or text are read.

A folder that Gradus wrote says so in gradus.json; for one that it did not write, a recipe and the name of a
stage say so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

import torch
from pydantic import TypeAdapter, ValidationError

from gradus.core.config import Config
from gradus.core.errors import UserError, nearest
from gradus.core.model import ModelConfig
from gradus.data.formats import Format, TextToText
from gradus.data.frame import Frame, scored_specials
from gradus.data.label_sets import MultiLabel
from gradus.data.mixture import Mixture
from gradus.data.parts import Long
from gradus.data.paths import HUB, Encoding
from gradus.data.reader_options import SUFFIXES, Reader, ReaderOptions
from gradus.data.rows import STANDARD_INPUT, RowsData
from gradus.data.text import Separator, TextData, WindowKind
from gradus.distributed.precision import DTYPES, Precision, resolve
from gradus.distributed.world import choose_device
from gradus.evaluation.texts import TextMetric
from gradus.families.folder import CARD, ModelFolder, read_folder
from gradus.nn.transformer import Transformer
from gradus.objectives import (
    CausalLMConfig,
    ClassificationConfig,
    MaskedLMConfig,
    MultipleChoiceConfig,
    NextSentenceConfig,
    ObjectiveConfig,
    QuestionAnsweringConfig,
    RegressionConfig,
    Task,
    TokenClassificationConfig,
    window_of,
)
from gradus.pipeline.models.tags import follows_of
from gradus.pipeline.recipes.recipe import Recipe
from gradus.tokenizers import PretrainedTokenizer, Template, Tokenizer
from gradus.tokenizers.files import TOKENIZER
from gradus.training.budget import budget_tokens
from gradus.training.learner import Learner
from gradus.training.transfer import transfer

FORMAT_VERSION = 2
"""The newest gradus.json that this code can read."""
TEXT_KEYS = ("windows", "sentences", "encoding", "documents")
"""What a model of running text remembers of its data."""
T = TypeVar("T")


class Reading(Config):
    """How the stage that made a model read its data: kept in gradus.json, else taken from a recipe's
    stage."""

    format: Format | None = None
    """The template of its rows; None for a model of running text."""
    multi_label: MultiLabel = None
    long: Long = "truncate"
    reader: ReaderOptions = ReaderOptions()
    natural: Reader | None = None
    """What the training rows were, by option or by name: standard input has no name and is read so."""
    windows: WindowKind = "contiguous"
    sentences: Literal["lines", "rules"] | None = None
    metrics: tuple[TextMetric, ...] = ()
    """What is asked of the texts that it says."""
    encoding: Encoding = "utf-8"
    documents: Literal["file", "blank line", "line"] | Separator = "file"

    @classmethod
    def of_card(cls, card: Mapping[str, Any]) -> Reading:
        """What gradus.json says. Raises ValidationError for what it may not say."""
        return cls.model_validate({key: card[key] for key in cls.model_fields if card.get(key) is not None})

    @classmethod
    def of_stage(cls, data: TextData | RowsData | Mixture) -> Reading:
        """What a recipe's stage says, of a mixture the first text."""
        if isinstance(data, RowsData):
            keys = data.reader_options()
            about = {"long": data.long, "natural": natural_reader(data), "multi_label": data.multi_label}
            return cls(format=data.format, reader=keys, **about)
        first = next(iter(data.parts.values()))
        return cls.model_validate({key: getattr(first, key) for key in TEXT_KEYS})

    def options(self, name: str, reader: str | None, encoding: str | None = None) -> ReaderOptions:
        """The keys to read the rows called `name`: the stage's, with `reader` or a suffix of JSON or Parquet
        before its own, and `encoding` before its own. Raises UserError for those that do not exist.

        Standard input has no suffix: it is read as the training rows were, or as JSON Lines where the model
        does not say how.
        """
        if reader is not None and reader not in get_args(Reader):
            hint = nearest(reader, get_args(Reader))
            raise UserError("there is no such reader", field="--reader", text=reader, hint=hint)
        natural = "parquet" if name.startswith(HUB) else SUFFIXES.get(Path(name).suffix.lower())
        known = cast(Reader | None, reader) or (natural if natural in ("jsonl", "json", "parquet") else None)
        own = self.reader
        if known is None and name == STANDARD_INPUT and own.reader is own.pattern is None:
            known = self.natural or ("jsonl" if own.columns is None else None)
        own = own.model_copy(update=self._changes(known))
        return own.model_copy(update={"encoding": known_encoding(encoding)} if encoding else {})

    def _changes(self, known: Reader | None) -> dict[str, Any]:
        """What differs for a reader that is not the stage's own."""
        if known is None or known == self.reader.reader:
            return {}
        changes: dict[str, Any] = {"reader": known}
        if known != "lines":
            changes["pattern"] = None
        if known not in ("tsv", "csv"):
            changes |= {"header": None, "quotes": None} | ({} if known == "conll" else {"columns": None})
        into_whole = known == "jsonl" and not (self.reader.rows or "*").startswith("*")
        if (
            known not in ("jsonl", "json", "parquet") or into_whole
        ):  # lines are no such whole: columns are keys
            changes |= {"rows": None, "fields": {}}
        if known == "parquet":
            changes["encoding"] = "utf-8"
        return changes


def natural_reader(data: RowsData) -> Reader | None:
    """How the rows of train are read; None for built-in data and the hub's, which no stream looks like."""
    first = data.train if isinstance(data.train, str) else data.train[0]
    by_name = None if first.startswith(HUB) else SUFFIXES.get(Path(first).suffix.lower())
    return data.reader or ("lines" if data.pattern is not None else by_name)


def known_encoding(name: str) -> str:
    """An encoding that the user named. Raises UserError where there is none of that name."""
    try:
        return TypeAdapter(Encoding).validate_python(name)
    except ValidationError as error:
        problem = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UserError(problem, field="--encoding") from None


@contextmanager
def told_as_options(name: str, options: ReaderOptions, reader: str | None) -> Iterator[None]:
    """While the rows called `name` are read for use: what a recipe's key would mend, an option mends here."""
    try:
        yield
    except UserError as mistake:
        hint = re.sub(r"(write )?\b(reader|encoding): ", r"\1--\2 ", mistake.hint or "")
        hint = hint.replace(", or a `pattern` for its lines", "").replace(
            "with `encoding`", "with --encoding"
        )
        if hint == "write header: true":
            hint = "leave it out: the rows of the model's training had none"
        if name == STANDARD_INPUT and reader is None and mistake.file is not None:
            shown = options.reader or "lines"
            hint += (
                f"{'; ' if hint else ''}read as {shown}, like the rows of the training: or name a --reader"
            )
        mistake.hint = hint or None
        mistake.field = "--reader" if mistake.field == "reader" else mistake.field
        raise


@dataclass(frozen=True)
class Opened:
    """A model folder and what is needed to use it.

    `labels` are the K classes in the order of the logits, none where it tells no classes apart; `roles` those
    that a recipe adds to the tokenizer's own.
    """

    folder: ModelFolder
    learner: Learner
    labels: tuple[str, ...]
    reading: Reading
    roles: Mapping[str, str]
    device: torch.device
    budget: int
    """The most tokens of one forward."""
    window: int
    """Tokens of a window of running text."""


def open_folder(
    path: Path,
    precision: Precision,
    device: str | None,
    recipe: Recipe | str | Path | None,
    stage: str | None,
    member: str | None = None,
) -> Opened:
    """The folder's weights on `device`, in evaluation mode. See `serving.load` for arguments and errors."""
    if precision not in get_args(Precision):
        hint = nearest(str(precision), get_args(Precision))
        raise UserError("there is no such precision", field="precision", text=precision, hint=hint)
    place, found = choose_device(device), _of_member(read_folder(path), member)
    reading, given, roles = _of_recipe(recipe, stage, member)
    if found.card is None:
        configs, name, labels = taught_by_tensors(found, given)
        seen = None
    else:
        configs, name, labels = _parsed(found, lambda card: _taught_by_card(card, path / CARD))
        seen = _parsed(found, lambda card: TypeAdapter(Span).validate_python(card.get("range")))
        reading = reading or _parsed(found, Reading.of_card)
    asked = any(config.roles or _scores_specials(config) for config in configs)
    tokens = _tokens(path, roles) if asked else None
    special = scored_specials(tokens) if tokens else ()
    reading = reading or Reading()
    task = Task(found.config, name, labels, range=seen, special=special, vocabulary=tokens,
                sets=found.task == "sets" or bool(member and reading.multi_label),
                follows=follows_of(reading.format, labels))  # fmt: skip
    chosen = resolve(precision, place)
    transformer = Transformer(found.config, DTYPES[chosen], device=place)
    learner = Learner(transformer, [one.build(replace(task, stage=one.head(name))) for one in configs])
    moved = transfer(learner, found.tensors, {head: head for head in learner.heads}, str(path))
    missing = next((one.tensor for one in moved if one.what == "new"), None)
    if missing is not None:
        raise UserError(f"the weights lack a head that {CARD} names", file=path, text=missing)
    budget = budget_tokens(found.config, chosen, place)
    window = window_of(configs, found.config)
    return Opened(found, learner.to(place).eval(), labels, reading, roles, place, budget, window)


def _of_member(found: ModelFolder, member: str | None) -> ModelFolder:
    """The folder as if it had that one of its tasks alone. Raises UserError where it is not said which."""
    tasks = (found.card or {}).get("members") or {}
    if found.card is None or not (tasks or member):
        return found
    if member not in tasks:
        problem = "this model knows several tasks" if member is None else "the model knows no such task"
        hint = f"--member {' or '.join(tasks)}" if tasks else "leave it out: it knows one task alone"
        raise UserError(problem, file=found.path, field=member and "--member", text=member, hint=hint)
    return replace(found, card={**found.card, **tasks[member]})


def _tokens(path: Path, roles: Mapping[str, str]) -> Tokenizer | None:
    """The folder's tokenizer with what a recipe says of its roles; None where there is none."""
    if not (path / TOKENIZER).is_file():
        return None
    found = Tokenizer.load(path)
    return Tokenizer(found.inner, {**found.roles, **roles}, found.pre_tokenization)


def _scores_specials(config: ObjectiveConfig) -> bool:
    return isinstance(config, CausalLMConfig) and config.scored == "special"


def _of_recipe(
    recipe: Recipe | str | Path | None, stage: str | None, member: str | None
) -> tuple[Reading | None, list[str] | None, Mapping[str, str]]:
    """How the stage reads its data, its labels where it names them, and the roles of the recipe's
    tokenizer."""
    if recipe is None and stage is None:
        return None, None, {}
    if recipe is None or stage is None:
        missing = "--recipe" if recipe is None else "--stage"
        raise UserError("recipe and stage are named together", field=missing, hint="it is missing")
    whole = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    if stage not in whole.stages:
        raise UserError(
            "there is no such stage", field="--stage", text=stage, hint=nearest(stage, whole.stages)
        )
    tasks = whole.stages[stage].members
    if tasks and member not in tasks:
        raise UserError(
            "the stage has several tasks", field="--member", text=member, hint=nearest(member or "", tasks)
        )
    taught = tasks[member] if tasks and member else whole.stages[stage]
    data, asked = taught.data, taught.text_metrics
    roles = whole.tokenizer.roles if isinstance(whole.tokenizer, PretrainedTokenizer) else {}
    reading = Reading.of_stage(data).model_copy(update={"metrics": asked})
    return reading, data.labels if isinstance(data, RowsData) else None, roles


Span = tuple[float, float] | None
Taught = tuple[list[ObjectiveConfig], str, tuple[str, ...]]
"""Objectives, the name of their head, and the labels."""


def _taught_by_card(card: Mapping[str, Any], file: Path) -> Taught:
    version = card["format_version"]
    if not isinstance(version, int) or version > FORMAT_VERSION:
        hint = f"this one reads gradus.json up to version {FORMAT_VERSION}"
        problem = "the folder was written by a newer Gradus"
        raise UserError(problem, file=file, field="format_version", text=version, hint=hint)
    configs = TypeAdapter(list[ObjectiveConfig]).validate_python(card["objectives"])
    labels = TypeAdapter(tuple[str, ...]).validate_python(card["labels"] or ())
    return configs, str(card["stage"]), labels


def taught_by_tensors(found: ModelFolder, given: Sequence[str] | None) -> Taught:
    """What a folder of Hugging Face was trained for: classes where it has a head, else to predict text."""
    head = next((name for name in found.stored if name.endswith(".score.weight")), None)
    if head is None:
        return [MaskedLMConfig() if found.config.arrangement == "encoder" else CausalLMConfig()], "", ()
    name = head.split(".")[1]
    if found.task == "choices":
        return [MultipleChoiceConfig()], name, ()
    if found.task == "spans":
        return [QuestionAnsweringConfig()], name, ()
    if found.task == "next":
        return [MaskedLMConfig(), NextSentenceConfig()], name, ()
    bias = f"heads.{name}.score.bias" in found.stored
    if found.task == "number":
        return [RegressionConfig(bias=bias)], name, ()
    classes = found.stored[head].shape[0]
    names = tuple(given or found.labels or (f"LABEL_{index}" for index in range(classes)))
    if len(names) != classes:
        problem = f"the stage names {len(names)} labels, the model has {classes} classes"
        raise UserError(problem, file=found.path, text=", ".join(names))
    if found.task == "tags":
        chained = f"heads.{name}.chain.transitions" in found.stored
        return [TokenClassificationConfig(loss="crf" if chained else "cross_entropy")], name, names
    return [ClassificationConfig(bias=bias)], name, names


def _parsed(found: ModelFolder, read: Callable[[Mapping[str, Any]], T]) -> T:
    """What `read` makes of gradus.json. Raises UserError where it is not as we write it."""
    try:
        return read(found.card or {})
    except KeyError as error:
        raise UserError("this key is missing", file=found.path / CARD, field=str(error.args[0])) from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError(first["msg"], file=found.path / CARD, field=field or None) from None


def row_template(form: Format, model: ModelConfig) -> Template:
    """How special tokens stand around one text and around two, for tools that know nothing of our formats.

    Of a text to answer the first is that text, and the second what a decoder says of it.
    """
    if not isinstance(form, TextToText):
        return Frame.of(model).template("delimiter" in form.roles)
    if model.encodes_and_decodes:
        before, after = model.encoder_roles
        return [*before, "$A", *after], [*before, "$A", "$B", *after]
    asked = ["start", "$A", "delimiter"]
    return asked, [*asked, "$B", "end"]


def text_template(tokenizer: Tokenizer, model: ModelConfig) -> Template | None:
    """The same for a model of running text: none for a decoder, whose windows have nothing around them."""
    frame = Frame.of(model)
    if model.arrangement != "encoder" or not all(map(tokenizer.has, frame.roles(pair=False))):
        return None
    return frame.template(all(map(tokenizer.has, frame.roles(pair=True))))


def never_said(tokenizer: Tokenizer, model: ModelConfig) -> list[int]:
    """Ids that a generated text must not have: roles other than `end`, and rows of the embedding that are no
    token."""
    end = tokenizer.role("end") if tokenizer.has("end") else None
    roles = {tokenizer.role(name) for name in tokenizer.roles} - {end}
    return sorted(roles) + list(range(tokenizer.size, model.vocab_size or 0))
