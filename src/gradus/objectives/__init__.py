"""Floor 2: what is learnt. One file an objective; `ObjectiveConfig` is the list of those a recipe may
name."""

from collections.abc import Sequence
from typing import Annotated, get_args

from pydantic import Field

from gradus.core.model import Arrangement, ModelConfig
from gradus.objectives.base import (
    HeadConfig,
    Measure,
    Objective,
    ObjectiveSettings,
    Task,
    Vocabulary,
    main_place,
    reads_row_label,
)
from gradus.objectives.causal_lm import CausalLMConfig
from gradus.objectives.classification import ClassificationConfig
from gradus.objectives.denoising import DenoisingConfig
from gradus.objectives.distillation import DistillationConfig
from gradus.objectives.masked_lm import MaskedLMConfig
from gradus.objectives.members import OfMembers
from gradus.objectives.multiple_choice import MultipleChoiceConfig
from gradus.objectives.prefix_lm import PrefixLMConfig
from gradus.objectives.question_answering import QuestionAnsweringConfig
from gradus.objectives.regression import RegressionConfig
from gradus.objectives.sentence_pairs import NextSentenceConfig, SentenceOrderConfig
from gradus.objectives.seq2seq import Seq2SeqConfig
from gradus.objectives.span_corruption import SpanCorruptionConfig
from gradus.objectives.token_classification import TokenClassificationConfig

TaskConfig = (
    CausalLMConfig
    | PrefixLMConfig
    | SpanCorruptionConfig
    | DenoisingConfig
    | Seq2SeqConfig
    | ClassificationConfig
    | RegressionConfig
    | MultipleChoiceConfig
    | QuestionAnsweringConfig
    | TokenClassificationConfig
    | MaskedLMConfig
    | NextSentenceConfig
    | SentenceOrderConfig
)
ObjectiveConfig = Annotated[TaskConfig, Field(discriminator="kind")]
"""What a model can be judged by."""
AnyObjectiveConfig = Annotated[TaskConfig | DistillationConfig, Field(discriminator="kind")]
"""All that a stage may name."""


def window_of(objectives: Sequence[ObjectiveSettings], model: ModelConfig) -> int:
    """Tokens of a window of running text: what the one that changes it has room for, or all of them have."""
    corrupting = [one for one in objectives if one.corrupts]
    return min(one.window(model) for one in corrupting or objectives)


def serving(arrangement: Arrangement, data: str) -> list[str]:
    """The kinds of objectives that can teach a model of this arrangement from this kind of data."""
    configs: tuple[type[ObjectiveSettings], ...] = get_args(TaskConfig)
    return [
        str(config.model_fields["kind"].default)
        for config in configs
        if arrangement in config.serves and data in config.reads
    ]


__all__ = [
    "AnyObjectiveConfig",
    "CausalLMConfig",
    "ClassificationConfig",
    "DenoisingConfig",
    "DistillationConfig",
    "HeadConfig",
    "MaskedLMConfig",
    "Measure",
    "MultipleChoiceConfig",
    "NextSentenceConfig",
    "Objective",
    "ObjectiveConfig",
    "ObjectiveSettings",
    "OfMembers",
    "PrefixLMConfig",
    "QuestionAnsweringConfig",
    "RegressionConfig",
    "Seq2SeqConfig",
    "SentenceOrderConfig",
    "SpanCorruptionConfig",
    "Task",
    "TokenClassificationConfig",
    "Vocabulary",
    "main_place",
    "reads_row_label",
    "serving",
    "window_of",
]
