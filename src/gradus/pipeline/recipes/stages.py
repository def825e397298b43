"""What a recipe may say of a stage. Every default is the paper's or the field's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from gradus.core.config import Config, wrong
from gradus.core.duration import BatchSize, Duration, Quantity
from gradus.core.model import FURTHER_DROPOUTS, ModelConfig
from gradus.data.augmentation import Augment
from gradus.data.formats import TextToText
from gradus.data.mixture import Mixture
from gradus.data.ramp import BatchRamp, WindowRamp
from gradus.data.rows import RowsData
from gradus.data.tagged import Tagged
from gradus.data.text import TextData
from gradus.distributed.precision import Precision
from gradus.evaluation.metrics import MAIN_METRIC
from gradus.evaluation.texts import NUMBERS, TextMetric
from gradus.evaluation.zero_shot import ZeroShotConfig
from gradus.nn.adapters import Adapters
from gradus.objectives import (
    AnyObjectiveConfig,
    DistillationConfig,
    Measure,
    ObjectiveConfig,
    main_place,
    reads_row_label,
)
from gradus.optim.optimizers import AdamW, OptimizerConfig
from gradus.optim.penalties import Penalties
from gradus.optim.schedules import FINE_TUNING, Cosine, ScheduleConfig
from gradus.optim.unfreezing import Unfreeze
from gradus.pipeline.recipes.fitting import (
    require_augmentable,
    require_base,
    require_chains,
    require_depth,
    require_labels,
    require_lesson,
    require_pieces,
    require_sameness,
    require_texts,
    require_whole,
    require_windows,
)
from gradus.pipeline.recipes.members import members_metric, members_of, of_member, reads_rows, require_members
from gradus.pipeline.recipes.pauses import Evaluate, Save, Stop, asked_of_texts
from gradus.pipeline.recipes.published import StagePreset, published
from gradus.training.frozen import CacheFrozen
from gradus.training.growth import Grow
from gradus.training.transfer import Transferred

STAGE_NAME = re.compile(r"[a-z][a-z0-9_]*")
SCRATCH = "scratch"
OWN_FORMATS = {
    "multiple_choice": ("multiple_choice",),
    "question_answering": ("question",),
    "token_classification": ("words", "entities"),
}
"""Objectives whose rows have formats that no other objective with a label reads."""


class FromFolder(Config):
    """A model folder to start from, written by Gradus or by Hugging Face tools."""

    folder: str


class StageModel(Config):
    """What a stage may change of the model it starts from."""

    layers: int | None = Field(None, ge=1)
    """Of a stage from scratch: a student shallower than the recipe's model."""
    dropout: float | None = Field(None, ge=0, lt=1)
    attention_dropout: float | None = Field(None, ge=0, lt=1)
    embedding_dropout: float | None = Field(None, ge=0, lt=1)
    embedding_dropout_on: Literal["sum", "table"] | None = None

    def changed(self, model: ModelConfig) -> ModelConfig:
        """The model with these changes."""
        further = {
            key: self.dropout for key in FURTHER_DROPOUTS if getattr(model, key) and self.dropout is not None
        }
        return model.model_copy(update=further | {name: value for name, value in self if value is not None})


ADAMS = ("adam", "adamw")
"""Optimizers whose learning rates mean the same."""


def _filled(given: dict[str, Any], usual: Config) -> dict[str, Any]:
    """What a recipe says of a part, and what the stage's usual part sets where the recipe is silent.

    The learning rate goes by the kind of data, so it holds for Adam in any form; the rest for the same kind.
    """
    own = {name: getattr(usual, name) for name in usual.model_fields_set}
    kind = usual.model_dump()["kind"]
    if given.get("kind", kind) != kind:
        own = {name: value for name, value in own.items() if name == "lr" and given["kind"] in ADAMS}
    return {"kind": kind, **own, **given}


class Stage(Config):
    """Teaches one transformer some data under a weighted sum of objectives."""

    start: str | FromFolder = Field(SCRATCH, alias="from")
    """`scratch`, the name of an earlier stage, or `{folder: DIR}`."""
    data: Annotated[TextData | RowsData | Mixture, Field(discriminator="kind")]
    augment: list[Augment] | None = Field(None, min_length=1)
    """What is done to the texts of train rows before they are read, anew in every epoch."""
    objectives: list[AnyObjectiveConfig] = Field(min_length=1)
    model: StageModel = StageModel()
    optimizer: OptimizerConfig = None  # type: ignore[assignment]
    """AdamW unless given: text 2.5e-4, rows 6.25e-5 (GPT-1, section 4.1)."""
    schedule: ScheduleConfig = None  # type: ignore[assignment]
    """Text: cosine to 0; rows: linear to 0 with 0.2 % of warm-up, unless given."""
    batch: BatchSize = None  # type: ignore[assignment]
    """Text: 64 windows; rows: 32 rows, unless given (GPT-1, section 4.1)."""
    batch_ramp: BatchRamp | None = None
    """A smaller batch at the start, as in GPT-3; `batch` is what it grows to."""
    window_ramp: WindowRamp | None = None
    """Short windows of text at the start."""
    length: Duration
    """In epochs, steps, tokens or minutes."""
    preset: StagePreset | None = None
    """A published stage, which says by the kind of data what is left out here, `objectives` and `length`
    included; see `published`."""
    transfer: Transferred = "all"
    """What it takes of the weights it starts from; the rest is new (GPT-1, figure 2 left and section 5)."""
    grow: Grow | None = None
    """More layers than what it starts from has."""
    freeze: list[str] | None = Field(None, min_length=1)
    """Parameters that do not learn, by patterns of their names: "transformer.embedding.*"."""
    cache_frozen: CacheFrozen | None = None
    """Frozen layers at the bottom compute once, and are then read."""
    unfreeze: Unfreeze | None = None
    """The upper layers learn first, and the lower ones join them."""
    adapters: Adapters | None = None
    """Low-rank adapters: beside them and the heads nothing learns (Hu et al. 2021)."""
    penalties: Penalties | None = None
    """L1, and L2 toward the weights it starts from; the optimizer has `weight_decay`."""
    clip: float | None = Field(1.0, gt=0)
    """The largest norm of the gradient (OpenAI's release: 1)."""
    precision: Precision = "auto"
    evaluate: Evaluate = Evaluate()
    weights: Literal["last", "best"] = None  # type: ignore[assignment]
    """Which weights leave the stage; best where `stop` is given, else last."""
    stop: Stop | None = None
    save: Save = Save()
    zero_shot: dict[str, ZeroShotConfig] = {}
    """Name -> rows that the language model answers without being taught to, at every evaluation (GPT-1,
    section 5)."""

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        data = fields.get("data")
        if isinstance(data, dict) and "mix" in data:
            fields = {**fields, "data": {"kind": "mix", **data}}
        rows = isinstance(data, dict) and reads_rows(data)
        defaults = {
            "optimizer": AdamW(lr=6.25e-5 if rows else 2.5e-4),
            "schedule": FINE_TUNING if rows else Cosine(),
            "batch": Quantity(32, "rows") if rows else Quantity(64, "windows"),
            "weights": "best" if fields.get("stop") else "last",
        }
        if fields.get("preset") is not None:
            defaults |= published(fields["preset"], fields)
        given = {key: value for key, value in fields.items() if value is not None or key not in defaults}
        for key, usual in defaults.items():
            if isinstance(usual, Config) and isinstance(given.get(key), dict):
                given[key] = _filled(given[key], usual)
        return {**defaults, **given}

    @model_validator(mode="after")
    def _agree(self) -> Self:
        rows = self.reads == "rows"
        hint = "start `from` a stage or a folder, or leave it out"
        if self.transfer != "all" and self.start == SCRATCH:
            raise wrong("transfer", "there is nothing to transfer to a stage from scratch", None, hint)
        if self.penalties is not None and self.penalties.l2_start and self.start == SCRATCH:
            raise wrong("penalties.l2_start", "a stage from scratch starts from nothing", None, hint)
        require_whole(self, self.start != SCRATCH)
        if self.adapters is not None:
            rivals = [key for key in ("freeze", "unfreeze") if getattr(self, key) is not None]
            require_base(self.start != SCRATCH, self.transfer, rivals)
        require_depth(self.model.layers, self.transfer, self.start == SCRATCH)
        require_members(self)
        require_lesson(self, self.lesson)
        self._tasks_fit()
        self._probes_fit()
        legal = ("rows",) if rows else ("windows", "tokens")
        if self.batch.unit not in legal:
            raise wrong(
                "batch", f"the batch counts {' or '.join(legal)} here", self.batch, f"such as 32 {legal[0]}"
            )
        if self.batch_ramp is not None and self.batch_ramp.start.unit != self.batch.unit:
            raise wrong(
                "batch_ramp.from", "another unit than the batch", self.batch_ramp.start, f"{self.batch}"
            )
        if self.batch_ramp is not None and not 1 <= self.batch_ramp.start.amount <= self.batch.amount:
            problem = "the batch grows from at least 1 to `batch`"
            raise wrong("batch_ramp.from", problem, self.batch_ramp.start, f"at most {self.batch}")
        require_sameness(self)
        require_pieces(self)
        if self.batch.amount < 1 or (self.batch.unit != "tokens" and self.batch.amount % 1):
            raise wrong("batch", "a whole number of at least 1 is wanted", self.batch)
        if self.length.amount <= 0:
            raise wrong("length", "the length must be more than nothing", self.length, "such as 3 epochs")
        if (self.stop or self.weights == "best") and self.data.dev is None:
            key = "stop" if self.stop else "weights"
            raise wrong(
                key,
                "choosing weights by a metric needs data.dev",
                None,
                "add `dev: 10 %` to the data, or files",
            )
        return self

    def _tasks_fit(self) -> None:
        """Raises where an objective does not fit its data, and where texts are judged that nobody says."""
        tasks = self.members or {"": self}
        says = any(one.says_answers and one.told_answers is None for one in tasks.values())
        require_texts(self.evaluate, self.stop, says)
        for name, task in tasks.items():
            try:
                task._task_fits()
            except PydanticCustomError as mistake:
                raise of_member(mistake, name) if name else mistake from None

    def _task_fits(self) -> None:
        """Raises for an objective that this data cannot serve, and for two that read the same label."""
        kinds = [objective.kind for objective in self.objectives]
        if twice := next((kind for kind in kinds if kinds.count(kind) > 1), None):
            raise wrong("objectives", "this objective stands there twice", twice)
        require_augmentable(self.augment or (), self.data, self.judged)
        tasks = [one.kind for one in self.judged if reads_row_label(one)]
        corrupting = [one.kind for one in self.judged if one.corrupts]
        if len(corrupting) > 1:
            problem = f"{' and '.join(corrupting)} cannot change the same text"
            raise wrong("objectives", problem, None, "each in a stage of its own")
        require_windows(self.judged, None if isinstance(self.data, RowsData) else self.data.windows)
        if not isinstance(self.data, RowsData):
            if any(getattr(one, "scored", "all") != "all" for one in self.objectives):
                raise wrong(
                    "objectives", "`scored: special` is for rows: running text has next to none", None
                )
            if tasks:
                problem = f"the objective {tasks[0]} needs data of kind rows, with labels"
                raise wrong("objectives", problem)
        if stranger := next((one.kind for one in self.objectives if self.reads not in one.reads), None):
            other = "rows" if self.reads == "text" else "text"
            raise wrong("objectives", f"the objective {stranger} needs data of kind {other}")
        if not isinstance(self.data, RowsData):
            return
        if len(set(tasks)) > 1:
            raise wrong("objectives", f"{' and '.join(tasks)} cannot read the same label", None)
        self._answers_fit(tasks)
        require_chains(self.judged, self.data)
        form = self.data.format.kind
        for objective, own in OWN_FORMATS.items():
            if tasks and (form in own) != (objective in tasks):
                hint = f"rows of {' and '.join(own)} have the objective {objective}, all others another"
                raise wrong("objectives", f"{tasks[0]} does not fit rows of the format {form}", None, hint)
        require_labels(self.data, [one for one in self.judged if reads_row_label(one)])

    def _answers_fit(self, tasks: Sequence[str]) -> None:
        """Raises where rows with an answer meet an objective that does not say it, or the other way round."""
        assert isinstance(self.data, RowsData)
        form = self.data.format.kind
        spoken = form in ("single", "pair") and self.data.format.label is not None and not tasks
        if self.says_answers and form != "text_to_text" and not spoken:
            hint = "format: {kind: text_to_text, source: ..., target: ...}, or a text or two and a `label`"
            raise wrong("objectives", f"seq2seq does not fit rows of the format {form}", None, hint)
        if tasks and form == "text_to_text":
            problem = f"{tasks[0]} does not fit rows of the format text_to_text"
            raise wrong("objectives", problem, None, "seq2seq, or another format")

    def _probes_fit(self) -> None:
        """Raises for a name that is none, and where nothing predicts text."""
        for name in self.zero_shot:
            if not STAGE_NAME.fullmatch(name):
                raise wrong(f"zero_shot.{name}", "this is no name", name, "small letters, digits and _")
        speaks = any(one.measure == "tokens" and one.kind != "masked_lm" for one in self.judged)
        if self.zero_shot and not speaks:
            problem = "a stage that does not learn to predict text cannot be asked"
            raise wrong("zero_shot", problem, None, "add {kind: causal_lm}")

    @property
    def parent(self) -> str | None:
        """The name of the stage it starts from."""
        return self.start if isinstance(self.start, str) and self.start != SCRATCH else None

    @property
    def judged(self) -> list[ObjectiveConfig]:
        """The objectives that it can be judged by: all but distillation."""
        return [one for one in self.objectives if not isinstance(one, DistillationConfig)]

    @property
    def lesson(self) -> DistillationConfig | None:
        """What it is taught by other models."""
        return next((one for one in self.objectives if isinstance(one, DistillationConfig)), None)

    @property
    def needs(self) -> list[str]:
        """The stages that come before it: the one that it starts from, and those that teach it."""
        return list(dict.fromkeys([*([self.parent] if self.parent else []), *self.teachers]))

    @property
    def teachers(self) -> list[str]:
        """The stages that teach it."""
        teachers = self.lesson.teachers if self.lesson else []
        return [one for one in teachers if isinstance(one, str)]

    @property
    def reads(self) -> Literal["text", "rows"]:
        """What its examples are made of."""
        return "rows" if reads_rows(self.data) else "text"

    @property
    def members(self) -> dict[str, Stage]:
        """Where it teaches several tasks, data set -> the stage with that one alone; else none."""
        return members_of(self)

    @property
    def answers_rows(self) -> bool:
        """Whether it is judged by what rows have as a label or an answer."""
        return self.says_answers or any(map(reads_row_label, self.objectives))

    @property
    def measure(self) -> Measure:
        """What the objective predicts that it is judged by."""
        measure = self.judged[main_place(self.judged)].measure
        several = isinstance(self.data, RowsData) and self.data.multi_label
        return "sets" if several and measure == "classes" else measure

    @property
    def metric(self) -> str:
        """What dev is judged by."""
        if self.stop and self.stop.metric:
            return self.stop.metric
        if members := self.members:
            return members_metric(members)
        if self.text_metrics:
            return NUMBERS[self.text_metrics[0]][0]
        if self.says_answers and self.told_answers:
            return "accuracy"
        if self.marks_nothing:
            return "accuracy"
        return "bits_per_byte" if self.every_token else MAIN_METRIC[self.measure]

    @property
    def text_metrics(self) -> tuple[TextMetric, ...]:
        """What is asked of the texts that it says."""
        told = [kind for member in self.members.values() for kind in member.text_metrics]
        return tuple(dict.fromkeys(told)) or asked_of_texts(self.evaluate, self.stop)

    @property
    def libraries(self) -> dict[str, str]:
        """The versions of the libraries that decide what it reads. Raises UserError where one is missing."""
        parts = [*self.objectives, *(self.augment or ())]
        return {name: number for one in parts for name, number in one.libraries.items()}

    @property
    def every_token(self) -> bool:
        """Whether the objective it is judged by predicts every token of a text once."""
        return self.reads == "text" and self.judged[main_place(self.judged)].every_token

    @property
    def marks_nothing(self) -> bool:
        """Whether it says tags that mark no entities."""
        form = self.data.format if isinstance(self.data, RowsData) else None
        return isinstance(form, Tagged) and self.measure == "tags" and form.scheme == "none"

    @property
    def told_answers(self) -> dict[str, str] | None:
        """Class -> the word that says it, where it answers in words."""
        form = self.data.format if isinstance(self.data, RowsData) else None
        return form.answers if isinstance(form, TextToText) else None

    @property
    def says_answers(self) -> bool:
        """Whether rows have an answer that it learns to say."""
        return any(one.kind == "seq2seq" for one in self.objectives)
