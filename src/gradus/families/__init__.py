"""Floor 2: published families. One file a family: its presets and how Hugging Face names its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gradus.core.errors import UserError, nearest
from gradus.core.model import ModelConfig
from gradus.families import gpt1
from gradus.families.heads import Task

if TYPE_CHECKING:
    from torch import Tensor


class Family(Protocol):
    """What the file of a family offers."""

    MODEL_TYPE: str
    """`model_type` of its `config.json`."""
    PRESETS: dict[str, dict[str, Any]]

    def expressible(self, config: ModelConfig, heads: Sequence[str] = ()) -> str | None:
        """Why Hugging Face's code for the family cannot hold this model; None where it can."""

    def obstacle(self, task: Task, bias: bool) -> str | None:
        """Why that code cannot hold a head for this task, with or without a bias; None where it can."""

    def to_config_json(
        self, config: ModelConfig, labels: Sequence[str] | None, pad_id: int | None, task: Task | None
    ) -> dict[str, Any]:
        """The `config.json` of a model that is expressible, with a head for `task`."""

    def from_config_json(self, content: Mapping[str, Any], file: Path) -> ModelConfig:
        """Our config of theirs. Raises UserError for what we cannot build."""

    def task_of(
        self, content: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], file: Path
    ) -> Task | None:
        """What the head among tensors of these names and shapes answers. Raises UserError for one that we
        cannot build."""

    def to_names(self, tensors: Mapping[str, Tensor], task: Task | None) -> dict[str, Tensor]:
        """Our tensors under their names and in their layout."""

    def from_name(self, name: str) -> tuple[str, bool] | None:
        """Our name of theirs and whether the matrix is transposed; None for what is no weight."""


FAMILIES: dict[str, Family] = {"gpt1": gpt1}


def preset(name: str) -> dict[str, Any]:
    """The fields of `ModelConfig` that a preset sets. Raises UserError for a name that no family has."""
    presets = {key: {"family": family} | fields for family, part in FAMILIES.items()
               for key, fields in part.PRESETS.items()}  # fmt: skip
    if name not in presets:
        raise UserError(
            "there is no such preset", field="model.preset", text=name, hint=nearest(name, presets)
        )
    return presets[name]
