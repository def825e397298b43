"""A node made ready: tokenizer, model config, labels, examples and lengths, before a single weight is
drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from gradus.core.duration import Quantity
from gradus.core.errors import UserError, counted, nearest
from gradus.core.model import ModelConfig
from gradus.data.encoding import Answers, RowEncoder
from gradus.data.feed import rows_of_steps, step_bounds
from gradus.data.frame import Frame
from gradus.data.labels import Choices, Labels, Numbers, Spans
from gradus.data.mixture import Mixture
from gradus.data.question_windows import QuestionEncoder
from gradus.data.rows import RowsData, RowSource
from gradus.data.sources import Rows, Source
from gradus.data.tagged import Tagged, Tags
from gradus.data.text import TextData, TextSource
from gradus.data.text_to_text import row_encoder
from gradus.data.word_pieces import WordEncoder
from gradus.evaluation.metrics import METRICS
from gradus.evaluation.texts import NUMBERS, libraries_of
from gradus.evaluation.zero_shot import Probe
from gradus.families import fitted
from gradus.families.folder import ModelFolder, read_folder
from gradus.nn.transformer import Transformer
from gradus.objectives import Objective, Task, main_place, serving, window_of
from gradus.optim.groups import matching
from gradus.pipeline.fitting import require_parameters
from gradus.pipeline.material import Material
from gradus.pipeline.plan import Node
from gradus.pipeline.probing import make_probes
from gradus.pipeline.splits import Split, mixed_splits
from gradus.pipeline.windows import text_windows
from gradus.tokenizers import Tokenizer
from gradus.training.learner import Learner
from gradus.training.transfer import FirstLayers


@dataclass
class Prepared:
    """All that a stage needs to know before it trains."""

    node: Node
    tokenizer: Tokenizer
    model: ModelConfig
    answers: Answers | None
    """What the labels of its rows mean."""
    splits: dict[str, Split]
    probes: Sequence[Probe] = ()
    """What is asked of it zero-shot."""

    @property
    def train(self) -> Source:
        return self.splits["train"].source

    @property
    def labels(self) -> Labels | None:
        """The classes, where it tells classes apart."""
        return self.answers if isinstance(self.answers, Labels) else None

    @property
    def range(self) -> tuple[float, float] | None:
        """The least and the largest number of train, where it predicts numbers."""
        return (self.answers.low, self.answers.high) if isinstance(self.answers, Numbers) else None

    @property
    def window_labels(self) -> tuple[str, ...]:
        """The classes of its windows, where an objective tells those apart."""
        return next((one.labels for one in self.objectives if one.labels), ())

    @property
    def encoder(self) -> RowEncoder:
        """What makes tokens of its rows."""
        data = self.node.stage.data
        assert isinstance(data, RowsData), "running text has no rows"
        return row_encoder(data.format, self.tokenizer, self.model, self.answers, data.long)

    @cached_property
    def objectives(self) -> list[Objective]:
        task = Task(
            self.model,
            self.node.name,
            self.labels.names if self.labels else (),
            self._class_weights(),
            self.range,
            scored_specials(self.tokenizer),
            self.tokenizer,
        )
        return [config.build(task) for config in self.node.stage.objectives]

    def _class_weights(self) -> tuple[float, ...] | None:
        """`weights: balanced`: rows / (classes x rows of the class), so that every class weighs the same in
        sum."""
        data = self.node.stage.data
        if not isinstance(data, RowsData) or data.weights is None or self.labels is None:
            return None
        counts = self.splits["train"].counts["labels"]
        rows, classes = sum(counts.values()), sum(count > 0 for count in counts.values())
        return tuple(rows / (classes * counts[name]) if counts[name] else 0.0 for name in self.labels.names)

    @cached_property
    def shapes(self) -> dict[str, torch.Size]:
        """Every parameter of model and heads by name; no memory is taken."""
        learner = Learner(Transformer(self.model, device="meta"), self.objectives)
        return {name: parameter.shape for name, parameter in learner.named_parameters()}

    @cached_property
    def learning(self) -> dict[str, torch.Size]:
        """Of `shapes` those that learn."""
        frozen = set(matching(list(self.shapes), self.node.stage.freeze or ()))
        return {name: shape for name, shape in self.shapes.items() if name not in frozen}

    @property
    def main(self) -> int:
        """The place of the objective that the stage is judged by."""
        return main_place(self.objectives)

    @cached_property
    def batch(self) -> int:
        """Rows or windows a step."""
        batch = self.node.stage.batch
        if batch.unit == "tokens":
            return max(1, round(batch.amount / self.model.context))
        return int(batch.amount)

    @cached_property
    def ramp(self) -> tuple[int, float] | None:
        """Rows of the first step, and over which share of the stage they become `batch`."""
        ramp = self.node.stage.batch_ramp
        if ramp is None:
            return None
        per_row = self.model.context if ramp.start.unit == "tokens" else 1
        return max(1, round(ramp.start.amount / per_row)), ramp.over.amount / 100

    @cached_property
    def tokens_per_row(self) -> float:
        return self.train.tokens / len(self.train)

    def total_rows(self, measured: int | None = None) -> int:
        """Rows (windows) of the whole stage; `measured` steps stand for a length in minutes."""
        length = self.node.stage.length
        if length.unit == "minutes":
            assert measured is not None, "a length in minutes is measured before it is used"
            return rows_of_steps(measured, self.batch, self.ramp)
        by_unit = {
            "epochs": length.amount * len(self.train),
            "steps": rows_of_steps(round(length.amount), self.batch, self.ramp),
            "tokens": length.amount / self.tokens_per_row,
        }
        return max(1, round(by_unit[length.unit]))

    def steps_of(self, interval: Quantity, steps: int) -> set[int]:
        """The steps, counted from 1, at which `interval` comes round; the last step among them."""
        if interval.amount <= 0:
            raise UserError(
                "the interval must be more than nothing", field=f"stages.{self.node.name}", text=str(interval)
            )
        per = {
            "epochs": len(self.train) / self.batch,
            "steps": 1.0,
            "%": steps / 100,
        }[interval.unit]  # fmt: skip
        if self.ramp is not None and interval.unit == "epochs":
            bounds = step_bounds(rows_of_steps(steps, self.batch, self.ramp), self.batch, self.ramp)
            rows = np.arange(interval.amount, bounds[-1] / len(self.train), interval.amount) * len(self.train)
            return {int(step) for step in np.searchsorted(bounds, rows)} | {steps}
        times = int(steps / (interval.amount * per)) + 1
        due = {max(1, int(np.ceil(count * interval.amount * per - 1e-9))) for count in range(1, times + 1)}
        return {step for step in due if step <= steps} | {steps}

    @property
    def evaluation_interval(self) -> Quantity:
        every = self.node.stage.evaluate.every
        return every or (Quantity(1, "epochs") if self.node.kind == "rows" else Quantity(10, "%"))


def scored_specials(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids of the special tokens that stand in rows: what `scored: special` means."""
    roles = ("start", "delimiter", "extract", "end")
    return tuple(sorted({tokenizer.role(name) for name in roles if tokenizer.has(name)}))


def prepare(node: Node, material: Material) -> Prepared:
    """Reads, tokenises and checks everything that `node` needs. Raises UserError for the first thing that is
    wrong."""
    start = starting_point(node, material)
    data = node.stage.data
    roles = _roles(node, start.model)
    tokenizer = start.tokenizer.with_roles([role for role in roles if not start.tokenizer.has(role)])
    model = _model(node, start.model, tokenizer)
    _check_transfer(node, model)
    _check_serves(node, model)
    answers = None
    if not isinstance(data, RowsData):
        splits = _text_splits(node, data, tokenizer, model, material)
    else:
        answers = _answers(node, data, material)
        encoder = row_encoder(data.format, tokenizer, model, answers, data.long)
        splits = {name: _row_split(source, encoder) for name, source in material.rows(data).items()}
    probes = make_probes(node.name, node.stage, node.seed, tokenizer, model.context, material)
    prepared = Prepared(node, tokenizer, model, answers, splits, probes)
    _check_metric(prepared)
    groups = [one.match for one in node.stage.optimizer.groups or ()]
    require_parameters(f"stages.{node.name}", list(prepared.shapes), node.stage.freeze or (), groups)
    return prepared


@dataclass(frozen=True)
class Start:
    """What a stage starts from: a tokenizer and a model's shape; `folder` is None at scratch."""

    tokenizer: Tokenizer
    model: ModelConfig


def starting_point(node: Node, material: Material) -> Start:
    """The tokenizer and model config a node begins with, worked out without the parent having run."""
    if node.parent is not None:
        parent = starting_point(node.parent, material)
        roles = [role for role in _roles(node.parent, parent.model) if not parent.tokenizer.has(role)]
        tokenizer = parent.tokenizer.with_roles(roles)
        return Start(tokenizer, _model(node.parent, parent.model, tokenizer))
    if node.folder is not None:
        folder: ModelFolder = read_folder(node.folder)
        return Start(Tokenizer.load(node.folder), folder.config)
    return Start(material.tokenizer(node.recipe), node.recipe.model)


def _model(node: Node, start: ModelConfig, tokenizer: Tokenizer) -> ModelConfig:
    size = max(start.vocab_size or 0, tokenizer.size)
    if node.parent is None and node.folder is None and start.vocab_size and start.vocab_size < tokenizer.size:
        raise UserError(
            "the model's vocabulary is smaller than the tokenizer's",
            field="model.vocab_size",
            text=start.vocab_size,
            hint=f"leave it out, or at least {tokenizer.size}",
        )
    if node.parent is None and node.folder is None:
        start = fitted(start, tokenizer.role("pad") if tokenizer.has("pad") else None)
    return node.stage.model.changed(start).model_copy(update={"vocab_size": size})


def _check_transfer(node: Node, model: ModelConfig) -> None:
    transferred = node.stage.transfer
    if isinstance(transferred, FirstLayers) and transferred.layers > model.layers:
        raise UserError(
            "the model has fewer layers",
            field=f"stages.{node.name}.transfer.layers",
            text=transferred.layers,
            hint=f"at most {model.layers}",
        )


def _roles(node: Node, model: ModelConfig) -> tuple[str, ...]:
    """The roles that data and objectives need."""
    data, frame = node.stage.data, Frame.of(model)
    if isinstance(data, RowsData):
        encoded = model.arrangement == "encoder" and data.format.kind != "text_to_text"
        own = frame.roles("delimiter" in data.format.roles) if encoded else data.format.roles
    elif data.windows in ("sentence_pairs", "sentence_order"):
        own = (*frame.roles(True), "end")
    else:
        own = ("start", "end") if model.arrangement == "encoder" else ("end",)
    return tuple(dict.fromkeys([*own, *(role for one in node.stage.objectives for role in one.roles)]))


def _check_serves(node: Node, model: ModelConfig) -> None:
    """Raises UserError for an objective that a model of this arrangement cannot learn."""
    field, names = f"stages.{node.name}.objectives", {"decoder": "a decoder", "encoder": "an encoder",
                                                      "encoder_decoder": "an encoder-decoder"}  # fmt: skip
    name = names[model.arrangement]
    for objective in node.stage.objectives:
        if model.arrangement not in objective.serves:
            hint = f"on {node.kind} {name} can have {', '.join(serving(model.arrangement, node.kind))}"
            raise UserError(f"{name} cannot learn this", field=field, text=objective.kind, hint=hint)
        if objective.kind == "prefix_lm" and model.body == "lstm":
            raise UserError("an LSTM sees nothing of what comes", field=field, text="prefix_lm",
                            hint="causal_lm")  # fmt: skip
    if node.stage.zero_shot and model.arrangement != "decoder":
        problem = f"only a decoder can be asked, and this is {name}"
        raise UserError(problem, field=f"stages.{node.name}.zero_shot", hint="leave it out")


def _window(node: Node, model: ModelConfig) -> int:
    """Tokens of a window. Raises UserError where the context leaves no room."""
    try:
        return window_of(node.stage.objectives, model)
    except UserError as mistake:
        if not str(mistake.field).startswith("model."):
            mistake.field = f"stages.{node.name}.objectives.{mistake.field}"
        raise


def _text_splits(
    node: Node, data: TextData | Mixture, tokenizer: Tokenizer, model: ModelConfig, material: Material
) -> dict[str, Split]:
    window, least = _window(node, model), max(one.least for one in node.stage.objectives)

    def split_of(text: TextData, source: TextSource, name: str) -> Split:
        windows, store, counts = text_windows(
            source, text, tokenizer, model, window,
            lambda text: material.store(text, tokenizer), material.cache, least,
        )  # fmt: skip
        if windows.longest < least:
            problem = f"the longest window of the text has {counted(windows.longest, 'token')}"
            raise UserError(problem, field=f"data.{name}train", hint=f"the objective needs {least}")
        return Split(windows, store=store, counts=counts)

    if isinstance(data, TextData):
        return {name: split_of(data, source, "") for name, source in material.texts(data).items()}
    for part in data.parts:
        if part in {objective.kind for objective in node.stage.objectives}:
            problem = "a text cannot be called as an objective is: their losses would have one name"
            raise UserError(problem, field=f"data.mix.{part}", hint="another name")
    made = {
        part: {name: split_of(text, source, f"mix.{part}.") for name, source in material.texts(text).items()}
        for part, text in data.parts.items()
    }
    return mixed_splits(made, data, node.seed)


def _answers(node: Node, data: RowsData, material: Material) -> Answers | None:
    """What the label means: the stage's objective says so, and train says which labels there are."""
    measure = node.stage.measure
    if measure == "tokens":
        return None
    if data.format.label is None:
        raise UserError(
            "the objective needs to know the column with the label",
            field=f"stages.{node.name}.data.format.{data.format.label_key}",
            hint=f"add `{data.format.label_key}: COLUMN`",
        )
    if measure in ("choices", "spans"):
        return Choices() if measure == "choices" else Spans()
    rows = material.rows(data)["train"].rows
    if isinstance(data.format, Tagged):
        return Tags.of_rows(rows, data.format, data.labels)
    if measure == "number":
        return Numbers.of(rows, data.format.label)
    return Labels.of(rows, data.format.label, data.labels)


def _row_split(source: RowSource, encoder: RowEncoder) -> Split:
    examples = encoder.encode(source.rows)
    cut = [example.truncated for example in examples if example.truncated]
    counts: dict[str, Any] = {
        "rows": len(examples), "tokens": sum(example.tokens for example in examples), "bytes": None,
        "truncated_rows": len(cut), "truncated_tokens": sum(cut), "skipped_rows": len(source.skipped),
    }  # fmt: skip
    left_out = {"dropped": source.dropped, "leaked": source.leaked, "beyond_limit": source.beyond_limit}
    counts |= {f"{why}_rows": rows for why, rows in left_out.items() if rows}
    if isinstance(encoder, QuestionEncoder):
        counts["windows"] = sum(len(example.sequences) for example in examples)
    if isinstance(encoder, WordEncoder):
        counts |= encoder.counts(source.rows, examples)
    elif isinstance(encoder.answers, Labels):
        names = encoder.answers.names
        found = np.bincount([int(example.label or 0) for example in examples], minlength=len(names))
        counts["labels"] = dict(zip(names, found.tolist()))
    return Split(
        Rows(examples, [f"{row.file}:{row.line}" for row in source.rows]),
        rows=source.rows,
        counts=counts,
        skipped=source.skipped,
    )


def _check_metric(prepared: Prepared) -> None:
    stage, field = prepared.node.stage, f"stages.{prepared.node.name}"
    libraries_of(stage.text_metrics, field=f"{field}.{'evaluate' if stage.evaluate.metrics else 'stop'}")
    stop = stage.stop
    if stop is None or stop.metric is None:
        return
    main = prepared.objectives[prepared.main]
    legal = METRICS[main.measure] | ({"accuracy"} if main.names_tokens else set())
    if stage.marks_nothing:
        legal = {"accuracy", "loss"}
    if not stage.every_token:  # it is not known how many bytes were scored
        legal = legal - {"bits_per_byte"}
    if stage.says_answers:
        texts = {name for names in NUMBERS.values() for name in names}
        legal = legal | {"exact_match"} | ({"accuracy"} if stage.told_answers else texts)
    if stop.metric not in legal:
        raise UserError(
            "this stage reports no such metric",
            field=f"{field}.stop.metric",
            text=stop.metric,
            hint=nearest(stop.metric, sorted(legal)),
        )
