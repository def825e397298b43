"""Floor 2: what is learnt. One file an objective; `ObjectiveConfig` is the list of those a recipe may
name."""

from typing import Annotated

from pydantic import Field

from gradus.objectives.base import HeadConfig, Measure, Objective, Task
from gradus.objectives.causal_lm import CausalLMConfig
from gradus.objectives.classification import ClassificationConfig
from gradus.objectives.multiple_choice import MultipleChoiceConfig
from gradus.objectives.regression import RegressionConfig

ObjectiveConfig = Annotated[
    CausalLMConfig | ClassificationConfig | RegressionConfig | MultipleChoiceConfig,
    Field(discriminator="kind"),
]

__all__ = [
    "CausalLMConfig",
    "ClassificationConfig",
    "HeadConfig",
    "Measure",
    "MultipleChoiceConfig",
    "Objective",
    "ObjectiveConfig",
    "RegressionConfig",
    "Task",
]
