"""What GPT-1's figure 2 shows: how much each transferred layer earns, and what the language model can do
before it is taught to, along its pre-training (Radford et al. 2018, section 5)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from gradus.evaluation.shots import shots_said
from gradus.report.figures import thinned
from gradus.report.graph import groups
from gradus.report.records import Run
from gradus.report.summary import Cell, tables
from gradus.report.words import SHARES


@dataclass(frozen=True)
class Transferred:
    """One task: number of transferred layers -> its metric over seeds, nothing else changed."""

    stage: str
    split: str
    metric: str
    cells: dict[int, Cell]

    @classmethod
    def read(cls, record: dict[str, Any]) -> Transferred:
        """What `asdict` made and a file kept."""
        return cls(**record | {"cells": {int(n): Cell.of(c["values"]) for n, c in record["cells"].items()}})


def transferred(run: Run) -> list[Transferred]:
    """One for each result stage that differs between variants in `transfer` alone, on dev where there is one.

    `all` stands for all the model's layers, unless a variant counts them out; `word vectors` are no layers.
    """
    found: dict[str, Transferred] = {}
    for table in tables(run):
        kinds = {line.variant: _kind(run, line.variant, table.stage) for line in table.lines}
        alike = [variant for variant in kinds if kinds[variant][1] == kinds[table.lines[0].variant][1]]
        variants = {kinds[variant][0]: variant for variant in alike if kinds[variant][0] >= 0}
        lines = [(layers, table.line(variant)) for layers, variant in sorted(variants.items())]
        cells = {n: line.cells[table.metric] for n, line in lines if line and table.metric in line.cells}
        if len(cells) > 1 and table.metric in SHARES:
            found.setdefault(table.stage, Transferred(table.stage, table.split, table.metric, cells))
    return list(found.values())


def _kind(run: Run, variant: str, name: str) -> tuple[int, Any]:
    """Transferred layers (-1 where they are no number), and all else that makes the stage what it is."""
    for stage in run.of(variant, name)[:1]:
        config = dict(stage.part("config"))
        words = config.pop("transfer", "all")
        layers = words["layers"] if isinstance(words, dict) else -1
        layers = layers if isinstance(layers, int) else -1  # chosen ones are another model
        if words == "all" and stage.record.get("parent"):
            layers = stage.part("model").get("layers", -1)
        return layers, (config, stage.part("model"), stage.parent)
    return -1, None


@dataclass(frozen=True)
class Asked:
    """What one folder of a stage answered without being taught to: at its end, and along the way."""

    stage: str
    variants: list[str]
    seed: int
    name: str
    split: str
    metric: str
    metrics: dict[str, float]
    """The last figure: the metric, `low` and `high` (95 %), `chance`, `rows`, `shots`, `shots_shown`."""
    verdict: str
    """Whether that is above chance, at it or below."""
    points: list[tuple[float, ...]]
    """(tokens trained on, score, low, high) at every evaluation."""

    @property
    def title(self) -> str:
        """Its name, and the shots that were asked for and shown."""
        said = shots_said(self.metrics)
        return f"{self.name}, {said}" if said else self.name

    @property
    def above_chance(self) -> list[tuple[float, ...]]:
        """(tokens, share of the way from chance to a perfect score) of every point."""
        chance = self.metrics["chance"]
        return [(tokens, (score - chance) / (1 - chance)) for tokens, score, _, _ in self.points]

    def plain(self) -> dict[str, Any]:
        """As exported, with few points and digits."""
        few = [tuple(round(x, 5) for x in point) for point in thinned(self.points)]
        return asdict(replace(self, points=few))


def asked(run: Run) -> list[Asked]:
    """Every zero-shot and few-shot figure of the run, stage by stage; of an unfinished stage its last."""
    found = []
    for group in groups(run):
        for stage in group.stages:
            lines = [line for line in stage.curves if line.get("kind") == "zero_shot"]
            lines += stage.part("zero_shot").values()
            for name in dict.fromkeys(line["name"] for line in lines):
                own = [line for line in lines if line["name"] == name]
                shown = {key: own[-1][key] for key in ("name", "split", "metric", "metrics", "verdict")}
                keys = shown["metric"], "low", "high"
                points = [(line["tokens"], *(line["metrics"][key] for key in keys))
                          for line in own if "tokens" in line]  # fmt: skip
                found.append(Asked(stage.name, group.variants, stage.seed, points=points, **shown))
    return sorted(found, key=lambda one: (run.stage_names.index(one.stage), one.name))
