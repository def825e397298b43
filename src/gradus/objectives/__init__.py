"""Floor 2: what is learnt. One file an objective; `ObjectiveConfig` is the list of those a recipe may
name."""

from typing import Annotated

from pydantic import Field

from gradus.objectives.base import Objective, Task
from gradus.objectives.causal_lm import CausalLMConfig
from gradus.objectives.classification import ClassificationConfig

ObjectiveConfig = Annotated[CausalLMConfig | ClassificationConfig, Field(discriminator="kind")]

__all__ = ["CausalLMConfig", "ClassificationConfig", "Objective", "ObjectiveConfig", "Task"]
