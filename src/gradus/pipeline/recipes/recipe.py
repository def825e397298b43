"""What a user may write: the recipe around its stages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from gradus.core.config import Config, wrong
from gradus.core.errors import UserError, nearest
from gradus.core.model import FURTHER_DROPOUTS, ModelConfig
from gradus.families import preset
from gradus.pipeline.recipes.loop import BEST, Goal, Iterate, Search
from gradus.pipeline.recipes.stages import SCRATCH, STAGE_NAME, Stage
from gradus.tokenizers import BytePairTokenizer, TokenizerConfig


def _expand(model: object) -> object:
    """A preset's fields with what the recipe changes."""
    if isinstance(model, dict) and "preset" in model:
        changed = {key: value for key, value in model.items() if key != "preset"}
        try:
            usual = preset(str(model["preset"]))
        except UserError as mistake:
            raise wrong("preset", mistake.problem, mistake.text, mistake.hint) from None
        further = {
            key: changed["dropout"] for key in FURTHER_DROPOUTS if "dropout" in changed and key in usual
        }
        return {**usual, **further, **changed}
    return model


Model = Annotated[ModelConfig, BeforeValidator(_expand)]


class Seeds(Config):
    """How many times the journey is repeated, and from which stage on."""

    count: int = Field(1, ge=1)
    start: str | list[str] = Field([], alias="from")
    """A stage or several; the first with rows unless given."""

    @property
    def starts(self) -> list[str]:
        return [self.start] if isinstance(self.start, str) else self.start


class Recipe(Config):
    """One file that declares the whole journey."""

    seed: int = 1
    tokenizer: TokenizerConfig = BytePairTokenizer()
    model: Model = ModelConfig()
    stages: dict[str, Stage] = Field(min_length=1)
    seeds: Seeds = Seeds()
    variants: dict[str, dict[str, Any]] = {}
    """Name -> patch: full path -> value."""
    search: Search | None = None
    """Keys to try values of; what was best is run on all seeds."""
    iterate: Iterate | None = None
    """Variants to try one after the other, or with `try` and further keys; those that help are kept."""
    prompts: list[str] = []
    """What a language model is asked to continue for the report; the start of dev unless given."""

    @field_validator("seeds", mode="before")
    @classmethod
    def _count(cls, seeds: object) -> object:
        return {"count": seeds} if isinstance(seeds, int) else seeds

    @field_validator("iterate", mode="before")
    @classmethod
    def _order(cls, iterate: object) -> object:
        return {"try": iterate} if isinstance(iterate, list) else iterate

    @field_validator("stages")
    @classmethod
    def _names(cls, stages: dict[str, Stage]) -> dict[str, Stage]:
        for name in stages:
            if not STAGE_NAME.fullmatch(name) or name == SCRATCH:
                hint = "small letters, digits and _, a letter first; `scratch` is reserved"
                raise wrong(name, "this is no name for a stage", name, hint)
        return stages

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Reads a YAML file. Raises UserError with file, line and key for anything that is wrong in it."""
        from gradus.pipeline.recipes.reading import read_recipe

        return read_recipe(Path(path)).recipe

    def order(self) -> list[str]:
        """Stage names, each after the one it starts from. Raises ValueError for a missing parent or a
        circle."""
        done: list[str] = []
        waiting = list(self.stages)
        while waiting:
            ready = [name for name in waiting if {*self.stages[name].needs} <= {*done}]
            if not ready:
                circle = " and ".join(waiting[:4])
                raise wrong(
                    f"stages.{waiting[0]}.from", f"{circle} can never start: `from` leads in a circle"
                )
            done += ready
            waiting = [name for name in waiting if name not in done]
        return done

    def leaves(self) -> list[str]:
        """The stages from which no other starts, and those that teach one: the results."""
        stages = self.stages.values()
        parents = {stage.parent for stage in stages} - {name for one in stages for name in one.teachers}
        return [name for name in self.order() if name not in parents]

    @model_validator(mode="after")
    def _graph(self) -> Self:
        for name, stage in self.stages.items():
            if stage.parent == name:
                raise wrong(f"stages.{name}.from", "a stage cannot start from itself", name)
            if stage.parent is not None and stage.parent not in self.stages:
                legal = [SCRATCH, *(other for other in self.stages if other != name)]
                raise wrong(
                    f"stages.{name}.from",
                    "there is no such stage",
                    stage.parent,
                    nearest(stage.parent, legal),
                )
            for teacher in stage.needs:
                if teacher not in self.stages or teacher == name:
                    legal = [other for other in self.stages if other != name]
                    problem = "there is no such teacher"
                    raise wrong(f"stages.{name}.objectives", problem, teacher, nearest(teacher, legal))
        self.order()
        for start in self.seeds.starts:
            if start not in self.stages:
                raise wrong("seeds.from", "there is no such stage", start, nearest(start, self.stages))
        return self

    @model_validator(mode="after")
    def _loops(self) -> Self:
        for key, loop in (("search", self.search), ("iterate", self.iterate)):
            if loop is None:
                continue
            if BEST in self.variants:
                raise wrong(f"variants.{BEST}", f"{key} calls what it finds so", None, "another name")
            stage = self.goal(loop).stage
            if stage not in self.stages:
                raise wrong(f"{key}.metric", "there is no such stage", stage, nearest(stage, self.stages))
            if self.stages[stage].data.dev is None:
                hint = "add `dev: 10 %` to the data, or files"
                raise wrong(f"stages.{stage}.data", f"{key} chooses by dev, and there is none", None, hint)
            for name, one in self.stages.items():
                if asked := [probe for probe, rows in one.zero_shot.items() if rows.split == "test"]:
                    where = f"stages.{name}.zero_shot.{asked[0]}.split"
                    raise wrong(where, f"with {key}, test is scored once, at the end", "test", "dev")
        for name in self.iterate.order if self.iterate else ():
            if name not in self.variants:
                raise wrong("iterate", "there is no such variant", name, nearest(name, self.variants))
        return self

    def goal(self, loop: Search | Iterate) -> Goal:
        """What the loop drives at; unless it says so, what the one result is judged by on dev."""
        if loop.metric is not None:
            return Goal.of(loop.metric)
        if len(leaves := self.leaves()) != 1:
            hint = f"metric: {leaves[-1]}.dev.{self.stages[leaves[-1]].metric}"
            raise wrong("iterate", f"{len(leaves)} stages are results: which one counts?", None, hint)
        return Goal(leaves[0], self.stages[leaves[0]].metric)
