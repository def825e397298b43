"""All that is known of a stage before a single weight is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch

from gradus.core.duration import Quantity
from gradus.core.errors import UserError, under
from gradus.core.model import ModelConfig
from gradus.data.encoding import Answers, RowEncoder
from gradus.data.feed import rows_of_steps, step_bounds
from gradus.data.frame import scored_specials
from gradus.data.label_sets import LabelSets
from gradus.data.labels import Labels, Numbers
from gradus.data.mixture import Mixture
from gradus.data.rows import RowsData
from gradus.data.sources import Rows, Source
from gradus.data.text_to_text import row_encoder
from gradus.evaluation.zero_shot import Probe
from gradus.nn.transformer import Transformer
from gradus.objectives import Objective, ObjectiveConfig, OfMembers, Task, main_place
from gradus.objectives.distillation import Lesson
from gradus.pipeline.models.tags import follows_of
from gradus.pipeline.planning.plan import Node
from gradus.pipeline.planning.splits import Split
from gradus.pipeline.planning.weighing import label_weights
from gradus.tokenizers import Tokenizer
from gradus.training.frozen import MOST_BYTES, frozen_layers
from gradus.training.learner import Learner


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
    members: Mapping[str, Prepared] = field(default_factory=dict)
    """Where it teaches several tasks, what each would be alone; `splits` then holds the mixture."""
    teachers: Sequence[ModelConfig] = ()
    """The models that teach it."""

    @property
    def tasks(self) -> Mapping[str, Prepared]:
        """What it is judged by: its several tasks by name, or itself, without a name."""
        return self.members or {"": self}

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

    @property
    def shuffled(self) -> bool:
        """Whether the order of its rows is drawn; data sets that come in turn have one of their own."""
        data = self.node.stage.data
        return not (isinstance(data, Mixture) and data.by == "turns")

    @cached_property
    def objectives(self) -> list[Objective]:
        if self.members:
            return [self._of_members(config) for config in self.node.stage.judged]
        data, names = self.node.stage.data, self.labels.names if self.labels else ()
        task = Task(
            self.model,
            self.node.name,
            names,
            tuple(self.label_weights.values()) if self.label_weights else None,
            self.range,
            scored_specials(self.tokenizer),
            self.tokenizer,
            isinstance(self.answers, LabelSets),
            follows_of(data.format if isinstance(data, RowsData) else None, names),
        )
        return [one.build(replace(task, stage=one.head(task.stage))) for one in self.node.stage.judged]

    @property
    def lessons(self) -> list[Lesson]:
        """What it learns of its teachers, beside its objectives."""
        lesson = self.node.stage.lesson
        return lesson.lessons(self.objectives[self.main], self.model, self.teachers[0]) if lesson else []

    @property
    def live(self) -> bool:
        """Whether teachers run beside it."""
        lesson = self.node.stage.lesson
        return lesson is not None and lesson.live(self.objectives[self.main].name)

    def _of_members(self, config: ObjectiveConfig) -> Objective:
        """The objective as the data sets that it is on know it."""
        own = {
            name: next(one for one, its in zip(task.objectives, task.node.stage.judged) if its == config)
            for name, task in self.members.items()
            if name in (config.members or self.members)
        }
        train = self.members[next(iter(own))].train
        first = train.examples[0] if isinstance(train, Rows) else train.example(0)  # as it stands in the file
        return OfMembers(own, first, bool(config.on))

    @cached_property
    def label_weights(self) -> dict[str, float] | None:
        """What each label weighs in the loss, in the order of the logits; None where all weigh 1."""
        data = self.node.stage.data
        if not isinstance(data, RowsData) or self.labels is None:
            return None
        return label_weights(data, self.labels, self.splits["train"])

    @cached_property
    def outline(self) -> Learner:
        """Model, heads and adapters, frozen as in training; no memory is taken. Raises UserError for adapters
        that the model has no place for."""
        learner = Learner(Transformer(self.model, device="meta"), self.objectives)
        stage = self.node.stage
        with under(f"stages.{self.node.name}"):
            learner.lighten(stage.adapters, stage.freeze or (), self.node.seed)
        return learner

    @cached_property
    def shapes(self) -> dict[str, torch.Size]:
        """Every parameter of the outline by name."""
        return {name: parameter.shape for name, parameter in self.outline.named_parameters()}

    @cached_property
    def learning(self) -> dict[str, torch.Size]:
        """Of `shapes` those that learn."""
        named = self.outline.named_parameters()
        return {name: parameter.shape for name, parameter in named if parameter.requires_grad}

    @cached_property
    def cached(self) -> int:
        """Layers, from the embedding up, whose states are kept."""
        kept = self.node.stage.cache_frozen is not None
        return frozen_layers(self.outline.transformer, self.model.layers) if kept else 0

    @property
    def states_bytes(self) -> int:
        """What they take on disk, at most."""
        return self.train.tokens * self.model.width * MOST_BYTES if self.cached else 0

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
    def windows(self) -> tuple[int, float] | None:
        """Tokens of the first windows, and over which share of the stage they become whole."""
        ramp = self.node.stage.window_ramp
        return None if ramp is None else (int(ramp.start.amount), ramp.over.amount / 100)

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
