"""A family's config.json as a table: our field -> their key, and what that is where it is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gradus.core.errors import UserError
from gradus.core.model import ModelConfig
from gradus.families.heads import Task, row_labels

OWN = (
    "initialisation",
    "initial_deviation",
    "attention_dropout",
    "embedding_dropout",
    "embedding_dropout_on",
    "feed_forward_dropout",
    "output_dropout",
)
"""What trains a model and does not change what it computes: under our own names where a family has no key for
it and it is not the default. Their classes carry unknown keys along."""

IDLE = {
    "rotary_base": ("positions", "rotary"),
    "relative_buckets": ("positions", "relative"),
    "relative_distance": ("positions", "relative"),
    "units": ("body", "lstm"),
}
"""Fields that mean nothing unless another has this value."""

PHRASES = {
    "body": "a {wanted} for its body, not an LSTM",
    "positions": "{wanted} positions, not {value}",
    "norm": "layer norm {wanted} each branch, not {value}",
    "norm_kind": "{wanted} norm, not {value} norm",
    "feed_forward": "a feed-forward of 4 x width, not {value}",
    "head_width": "heads of width / heads channels, not {value}",
    "kv_heads": "keys and values for each head, not for {value}",
    "tuned_width": "an output that no tuned width of {value} scales",
    "window": "no banded layers, and every second of these sees {value} tokens only",
}
"""How a difference is told, where the field's name alone would not do."""


@dataclass(frozen=True)
class Settings:
    """`fields`: ours -> (their key, their default). `fixed`: what the family always has where that is not the
    default of `ModelConfig`. `words`: ours -> their words for it -> ours, the one we write first. `only`:
    their key -> the one value that we can build. `free`: fields of ours that the family's file judges and
    tells."""

    model_type: str
    """What their config.json calls the family."""
    title: str
    fields: Mapping[str, tuple[str, Any]]
    fixed: Mapping[str, Any]
    words: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    only: Mapping[str, Any] = field(default_factory=dict)
    free: frozenset[str] = frozenset()
    positions_follow_padding: bool = False
    """Whether their classes count positions from the number after the padding's id on."""

    def difference(self, config: ModelConfig, heads: Sequence[str] = ()) -> str | None:
        """Why the family's classes cannot hold this model with heads of these names, an axis at a time; None
        where they can."""
        if len(heads) > 1:
            return f"its {self.title} has one head, not {len(heads)}"
        own, default = brief(config), ModelConfig()
        told = {*self.fields, *OWN, *self.free}
        for name in (name for name in ModelConfig.model_fields if name not in told):
            needed, value = IDLE.get(name), getattr(own, name)
            wanted = self.fixed.get(name, getattr(default, name))
            if value != wanted and (needed is None or getattr(own, needed[0]) == needed[1]):
                phrase = PHRASES.get(name, "`{name}: {wanted}`, not {value}")
                return f"its {self.title} has " + phrase.format(name=name, wanted=wanted, value=value)
        for name, words in self.words.items():
            if getattr(own, name) not in words.values():
                return f"its {self.title} knows the {name}s {', '.join(words)}, not {getattr(own, name)}"
        return None

    def to_json(
        self, config: ModelConfig, architecture: str, task: Task | None, labels: Sequence[str] | None
    ) -> dict[str, Any]:
        """What config.json says of a model that their class of that name can hold, with a head for `task`
        whose `labels` stand in order."""
        content = {"model_type": self.model_type, "architectures": [architecture], "dtype": "float32"}
        return content | self.written(config) | row_labels(task, labels)

    def written(self, config: ModelConfig) -> dict[str, Any]:
        """What config.json says of the numbers of a model; what follows another field is said."""
        full, own, default = resolved(config), brief(config), ModelConfig()
        for name, words in self.words.items():
            full[name] = next(theirs for theirs, ours in words.items() if ours == full[name])
        content = {theirs: full[ours] for ours, (theirs, _) in self.fields.items()}
        for name in OWN:
            value = getattr(own, name)
            if name not in self.fields and value != self.fixed.get(name, getattr(default, name)):
                content[name] = value
        return content

    def read(self, content: Mapping[str, Any], file: Path, **changes: Any) -> ModelConfig:
        """Our config of theirs; `changes` are fields that the table does not tell.

        Raises UserError, naming their key, for what we cannot build and for numbers that make no model.
        """
        only(content, self.only, file)
        found = {ours: content.get(theirs, default) for ours, (theirs, default) in self.fields.items()}
        found = {**self.fixed, **{name: content[name] for name in OWN if name in content}, **found}
        for ours, words in self.words.items():
            theirs = str(found[ours])
            if theirs not in words:
                hint, key = "one of " + ", ".join(words), self.fields[ours][0]
                raise UserError(f"this {ours} is not supported", file=file, field=key, text=theirs, hint=hint)
            found[ours] = words[theirs]
        try:
            return brief(ModelConfig.model_validate(found | changes))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            key = self.fields[where][0] if where in self.fields else where
            problem = f"these numbers make no model: {first['msg']}"
            raise UserError(problem, file=file, field=key or None) from None


def resolved(config: ModelConfig) -> dict[str, Any]:
    """Every field, those that follow another one as they are."""
    dropout = config.dropout
    return config.model_dump() | {
        "kv_heads": config.key_heads,
        "head_width": config.channels,
        "feed_forward": config.hidden,
        "attention_dropout": dropout if config.attention_dropout is None else config.attention_dropout,
        "embedding_dropout": dropout if config.embedding_dropout is None else config.embedding_dropout,
    }


def brief(config: ModelConfig) -> ModelConfig:
    """The same model with None where a field is what it would be anyway."""
    needless = {
        "kv_heads": config.kv_heads == config.heads,
        "head_width": config.head_width is not None and config.head_width * config.heads == config.width,
        "feed_forward": config.feed_forward == 4 * config.width,
        "attention_dropout": config.attention_dropout == config.dropout,
        "embedding_dropout": config.embedding_dropout == config.dropout,
        "tuned_width": config.tuned_width == config.width,
    }
    return config.model_copy(update={name: None for name, drop in needless.items() if drop})


def only(content: Mapping[str, Any], wanted: Mapping[str, Any], file: Path) -> None:
    """Raises UserError, naming the key, where their config says something that we cannot build."""
    for key, usual in wanted.items():
        given = content.get(key, usual)
        if given != usual:
            problem, hint = "this is not supported", f"only {usual!r} is"
            raise UserError(problem, file=file, field=key, text=given, hint=hint)
