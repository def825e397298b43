"""Floor 2: what is learnt. One file an objective; `ObjectiveConfig` is the list of those a recipe may
name."""

from typing import Annotated

from pydantic import Field

from gradus.objectives.base import HeadConfig, Measure, Objective, Task, Vocabulary, answers_rows
from gradus.objectives.causal_lm import CausalLMConfig
from gradus.objectives.classification import ClassificationConfig
from gradus.objectives.masked_lm import MaskedLMConfig
from gradus.objectives.multiple_choice import MultipleChoiceConfig
from gradus.objectives.regression import RegressionConfig
from gradus.objectives.sentence_pairs import NextSentenceConfig, SentenceOrderConfig

ObjectiveConfig = Annotated[
    CausalLMConfig
    | ClassificationConfig
    | RegressionConfig
    | MultipleChoiceConfig
    | MaskedLMConfig
    | NextSentenceConfig
    | SentenceOrderConfig,
    Field(discriminator="kind"),
]

__all__ = [
    "CausalLMConfig",
    "ClassificationConfig",
    "HeadConfig",
    "MaskedLMConfig",
    "Measure",
    "MultipleChoiceConfig",
    "NextSentenceConfig",
    "Objective",
    "ObjectiveConfig",
    "RegressionConfig",
    "SentenceOrderConfig",
    "Task",
    "Vocabulary",
    "answers_rows",
]
