"""What a head answers, as a model folder says it."""

from typing import Literal

Task = Literal["classes", "number", "choices"]
"""The class of a row, its number, or which of its answers is right: `objectives.Measure` but for tokens."""
