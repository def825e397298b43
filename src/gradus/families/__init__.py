"""Floor 2: published families. One file a family: its presets and how Hugging Face names its parts.

A family's file holds `PRESETS`, a `Table` of the names of its weights, `Settings` for the keys of its
config.json, and the few functions below, which are short since the two tables do the work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from gradus.core.errors import UserError, nearest
from gradus.core.model import ModelConfig
from gradus.families import bart, bert, gpt1, gpt2, llama, roberta, t5
from gradus.families.heads import Shapes, Task
from gradus.families.settings import Settings
from gradus.families.table import Table


class Family(Protocol):
    """What the file of a family offers."""

    SETTINGS: Settings
    PRESETS: dict[str, dict[str, Any]]
    TABLE: Table

    def expressible(self, config: ModelConfig, heads: Sequence[str] = ()) -> str | None:
        """Why Hugging Face's code for the family cannot hold this model; None where it can."""

    def to_config_json(
        self,
        config: ModelConfig,
        labels: Sequence[str] | None,
        roles: Mapping[str, int] | None,
        task: Task | None = None,
    ) -> dict[str, Any]:
        """The `config.json` of a model that is expressible, with a head for `task`; `roles` are the ids of
        the tokens that play one (`pad`, `end`, ...)."""

    def from_config_json(self, content: Mapping[str, Any], shapes: Shapes, file: Path) -> ModelConfig:
        """Our config of theirs, for tensors of these names and shapes. Raises UserError for what we cannot
        build."""

    def task_of(self, content: Mapping[str, Any], shapes: Shapes, file: Path) -> Task | None:
        """What the head among tensors of these names and shapes answers. Raises UserError for one that we
        cannot build."""


FAMILIES: dict[str, Family] = {
    "gpt1": gpt1,
    "gpt2": gpt2,
    "llama": llama,
    "bert": bert,
    "roberta": roberta,
    "bart": bart,
    "t5": t5,
}


def fitted(config: ModelConfig, pad: int | None) -> ModelConfig:
    """A new model for a tokenizer whose padding has the id `pad`: what the family makes depend on it."""
    if pad is None or not FAMILIES[config.family].SETTINGS.positions_follow_padding:
        return config
    return config.model_copy(update={"position_offset": pad + 1})


def preset(name: str) -> dict[str, Any]:
    """The fields of `ModelConfig` that a preset sets. Raises UserError for a name that no family has."""
    presets = {key: {"family": family} | fields for family, part in FAMILIES.items()
               for key, fields in part.PRESETS.items()}  # fmt: skip
    if name not in presets:
        raise UserError(
            "there is no such preset", field="model.preset", text=name, hint=nearest(name, presets)
        )
    return presets[name]
