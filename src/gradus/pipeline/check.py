"""Proving a recipe before step 1: everything that can be wrong is read, tokenised and counted; nothing is
trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from gradus.core.errors import counted
from gradus.data.label_sets import LabelSets
from gradus.data.labels import Spans
from gradus.data.question_windows import QuestionEncoder
from gradus.data.rows import RowsData
from gradus.data.tagged import Tags
from gradus.distributed.precision import resolve
from gradus.distributed.world import choose_device
from gradus.evaluation.shots import shots_said
from gradus.families import FAMILIES
from gradus.families.heads import Task as HeadTask
from gradus.objectives import HeadConfig
from gradus.optim.optimizers import AdaFactor
from gradus.pipeline.loops.costs import LoopCosts, loop_costs
from gradus.pipeline.loops.loops import prove_loops
from gradus.pipeline.planning.augmenting import augment_notes
from gradus.pipeline.planning.estimate import Estimate, estimate, matrix_rate
from gradus.pipeline.planning.leaks import leakage
from gradus.pipeline.planning.material import Material
from gradus.pipeline.planning.plan import Node, Plan, make_plan, seed_notes
from gradus.pipeline.planning.prepare import prepare
from gradus.pipeline.planning.prepared import Prepared
from gradus.pipeline.planning.splits import Split
from gradus.pipeline.recipes.reading import read_recipe
from gradus.pipeline.run import data_root, require_writable
from gradus.pipeline.running.finish import is_done
from gradus.pipeline.running.progress import Told
from gradus.training.checkpoint import require_room

LEFT_OUT = {
    "dropped_rows": "left out (drop)",
    "leaked_rows": "that test has, too, left out (leakage: drop)",
    "beyond_limit_rows": "left out (limit)",
}
"""Counts of rows that the recipe asked to do without, and how they are told."""


@dataclass(frozen=True)
class Checked:
    """One node of the plan with its counts and estimate."""

    node: Node
    prepared: Prepared
    estimate: Estimate
    done: bool

    @property
    def rates(self) -> list[float]:
        """The learning rate of every step."""
        stage, steps = self.node.stage, self.estimate.steps
        warmup = stage.schedule.warmup_steps(steps, self.prepared.tokens_per_row * self.prepared.batch)
        return [stage.optimizer.lr * stage.schedule.multiplier(step, steps, warmup) for step in range(steps)]


@dataclass(frozen=True)
class Checks:
    """A plan that can run, and what is worth telling about it."""

    plan: Plan
    nodes: list[Checked]
    notes: list[str]
    device: str
    loops: LoopCosts = field(default_factory=LoopCosts)


def check(
    recipe: str | Path,
    *,
    runs: str | Path = "runs",
    data_dir: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    device: str | None = None,
) -> Checks:
    """Validates recipe, data, labels and resources. Raises UserError for the first thing that is wrong.

    Tokenizer and token shards are made (and kept in the cache), since without them nothing can be counted.
    """
    file = read_recipe(Path(recipe), settings)
    chosen = choose_device(device)
    require_writable(Path(runs))
    told = Told()
    material = Material(data_root(file, data_dir), Path(runs) / "cache", told)
    plan = make_plan(file, material)
    checked, notes = [], []
    stages = Path(runs) / file.name / "stages"
    pricing = Pricing(material, chosen)
    for node in plan.nodes.values():
        with file.placed(node.name, node.source):
            prepared = pricing.prepared(node)
        checked.append(Checked(node, prepared, pricing.price(node), is_done(stages / node.id)))
        notes += _capped(checked[-1])
        notes += _frozen(prepared) + _grown(prepared)
        notes += augment_notes(prepared)
        notes += _notes(prepared)
    prove_loops(plan, material, pricing.prepared)
    loops = loop_costs(plan, material, pricing.price, _time)
    leaks = leakage(list(plan.nodes.values()), material)
    notes += [*(leaks.lines or leaks.summary), *seed_notes(plan)]
    require_room(stages, sum(one.estimate.disk for one in checked if not one.done) + loops.disk)
    return Checks(plan, checked, list(dict.fromkeys(notes)), str(chosen), loops)


class Pricing:
    """What nodes take; those that differ in nothing but their seed are made ready once."""

    def __init__(self, material: Material, device: torch.device):
        self._material, self._device = material, device
        self._alike: dict[str, Prepared] = {}
        self._rates: dict[str, float] = {}

    def prepared(self, node: Node) -> Prepared:
        if node.likeness not in self._alike:
            self._alike[node.likeness] = prepare(node, self._material)
        return replace(self._alike[node.likeness], node=node)

    def price(self, node: Node) -> Estimate:
        precision = resolve(node.stage.precision, self._device)
        if precision not in self._rates:
            self._rates[precision] = matrix_rate(self._device, precision)
        return estimate(self.prepared(node), precision, self._device, self._rates[precision])


def _capped(one: Checked) -> list[str]:
    """Where AdaFactor, which never moves further than 1 / sqrt(step), cuts off what the schedule asks for."""
    if not isinstance(one.node.stage.optimizer, AdaFactor):
        return []
    asked = np.array(one.rates)
    most = np.arange(1, len(asked) + 1) ** -0.5
    over, worst = int((asked > most).sum()), int((asked / most).argmax())
    if not over:
        return []
    problem = (
        f"{one.node.name}: AdaFactor's steps are at most 1 / sqrt(step), and the schedule asks for more at"
    )
    example = f"{asked[worst]:.2g} at step {worst + 1:,}, where {most[worst]:.2g} is taken"
    return [f"{problem} {over:,} of {counted(len(asked), 'step')}: {example}"]


def _frozen(prepared: Prepared) -> list[str]:
    """How many parameters learn, where not all do."""
    parts = prepared.learning, prepared.shapes
    learning, every = (sum(shape.numel() for shape in part.values()) for part in parts)
    told = f"{prepared.node.name}: {learning:,} of {every:,} parameters learn"
    notes = [told] if learning < every else []
    if prepared.cached:
        layers, size = counted(prepared.cached, "layer"), f"{prepared.states_bytes / 1e6:,.1f} MB"
        what = f"what the lowest {layers} of {prepared.model.layers} make of train"
        notes.append(
            f"{prepared.node.name}: {what} is computed once, without dropout, and takes {size} at most"
        )
    return notes


def _grown(prepared: Prepared) -> list[str]:
    """Whether the deeper model begins where the shallow one stopped."""
    if (grow := prepared.node.stage.grow) is None:
        return []
    what = (
        "it computes what it did"
        if grow.by == "identity"
        else "copies change what it computes: at first the loss is higher"
    )
    return [f"{prepared.node.name}: grows to {grow.layers} layers by {grow.by}: {what}"]


def _notes(prepared: Prepared) -> list[str]:
    """What a person should hear although it stops nothing."""
    name, notes = prepared.node.name, []
    reason = _inexpressible(prepared)
    if reason:
        notes.append(f"{name}: Hugging Face tools cannot open the model folder: {reason}")
    for probe in prepared.probes:
        if (found := probe.counts())["cut_rows"]:
            notes.append(
                f"{name}: zero_shot.{probe.name}: {found['cut_rows']} rows are longer than the context "
                f"and lose {found['cut_tokens']} tokens"
            )
        if found.get("train_cut_rows"):
            rows, lost = (counted(int(found[f"train_cut_{what}s"]), what) for what in ("row", "token"))
            notes.append(
                f"{name}: zero_shot.{probe.name}: {rows} of train longer than the context, {lost} cut before "
                "the threshold is chosen"
            )
        if found["shots_shown"] < found["shots"]:
            notes.append(
                f"{name}: zero_shot.{probe.name}: the context of {prepared.model.context} tokens has no room "
                f"for all shots ({shots_said(found)}{', on average' if found['shots_shown'] else ''})"
            )
    for task, own in prepared.tasks.items():
        notes += _notes_on_data(f"{name}.{task}" if task else name, own)
    if (train := prepared.splits["train"]).parts:
        notes.append(f"{name}: {_mixed(train)}")
    return notes


def _notes_on_data(name: str, prepared: Prepared) -> list[str]:
    notes = []
    for split, part in prepared.splits.items():
        counts = part.counts
        if counts["truncated_rows"]:
            share = counts["truncated_rows"] / counts["rows"]
            rows, lost = (counted(counts[f"truncated_{what}s"], what) for what in ("row", "token"))
            notes.append(
                f"{name}: {split}: {rows} ({share:.1%}) longer than the context of {prepared.model.context} "
                f"tokens: {lost} cut"
            )
        notes += [f"{name}: {split}: {told}" for told in _rows_hold(prepared, counts)]
        if short := counts.get("short_rows"):
            notes.append(
                f"{name}: {split}: {counted(short, 'window')} too short for the objective: nothing is taken "
                "out of them"
            )
        if counts["skipped_rows"]:
            notes.append(f"{name}: {split}: {counted(counts['skipped_rows'], 'bad row')} skipped")
        if counts.get("documents_of_one_sentence"):
            alone, all_of = counts["documents_of_one_sentence"], counted(counts["documents"], "document")
            notes.append(f"{name}: {split}: {alone} of {all_of} have one sentence and begin no pair")
        for why, what in LEFT_OUT.items():
            if counts.get(why):
                notes.append(f"{name}: {split}: {counted(counts[why], 'row')} {what}")
        labels = counts.get("labels", {})
        if missing := [label for label, count in labels.items() if not count]:
            notes.append(f"{name}: {split} has no row labelled {', '.join(missing)}")
    if prepared.labels is not None and not isinstance(prepared.labels, Tags):
        notes += [f"{name}: {note}" for note in _odd_labels(prepared)]
    if weights := prepared.label_weights:
        notes.append(
            f"{name}: weights of labels: {', '.join(f'{one} {weights[one]:.3g}' for one in weights)}"
        )
    return notes


def _rows_hold(prepared: Prepared, counts: Mapping[str, Any]) -> list[str]:
    """What rows that are no plain classes hold."""
    if isinstance(prepared.answers, Spans):
        return [_in_windows(prepared, counts)]
    if isinstance(prepared.answers, LabelSets):
        return [_sets(counts)]
    return [_tagged(counts)] if isinstance(prepared.answers, Tags) else []


def _mixed(train: Split) -> str:
    """How much of an epoch comes from each data set of a mixture, and how often it reads all of it."""
    drawn, rows = train.counts["drawn"], train.counts["rows"]
    told = [f"{part} {drawn[part] / rows:.0%} ({drawn[part] / len(split.source):.2f} times all of it)"
            for part, split in train.parts.items()]  # fmt: skip
    return f"an epoch is {', '.join(told)}"


def _in_windows(prepared: Prepared, counts: Mapping[str, Any]) -> str:
    """How questions are read."""
    assert isinstance(prepared.encoder, QuestionEncoder)
    shared = f", which share {prepared.encoder.stride}" if prepared.encoder.long == "window" else ""
    return (
        f"{counted(counts['rows'], 'question')} in {counted(counts['windows'], 'window')} of at most "
        f"{prepared.model.context} tokens{shared}; a question keeps {prepared.encoder.most}"
    )


def _sets(counts: Mapping[str, Any]) -> str:
    """How many labels rows have."""
    mean = sum(counts["labels"].values()) / counts["rows"]
    return f"{mean:.2f} labels a row; {counted(counts['rows_without_label'], 'row')} without any"


def _tagged(counts: Mapping[str, Any]) -> str:
    """What rows of words hold."""
    words, lost = counted(counts["words"], "word"), counts["lost_words"]
    told = f"{words}, {lost:,} of them beyond the context or without a token: lost" if lost else words
    if "entities" in counts:
        types = ", ".join(f"{kind or 'of no type'} {number:,}" for kind, number in counts["entities"].items())
        told += f"; entities: {types or 'none'}"
    if mended := counts.get("mended_rows"):
        told += f"; {counted(mended, 'row')} with tags written anew (repair)"
    return told


def _inexpressible(prepared: Prepared) -> str | None:
    """Why Hugging Face's code cannot hold the model with its head; None where it can."""
    family, objectives = FAMILIES[prepared.model.family], prepared.objectives
    heads = [objective.head_name for objective in objectives if objective.head_name]
    obstacle = None
    for config, objective in zip(prepared.node.stage.judged, objectives):
        if isinstance(config, HeadConfig) and objective.measure != "tokens":
            task: HeadTask = "next" if config.kind == "next_sentence" else objective.measure
            obstacle = family.TABLE.obstacle(task, config.biased(prepared.model), config.chained)
    return family.expressible(prepared.model, heads) or obstacle


def _odd_labels(prepared: Prepared) -> list[str]:
    """Classes that look like a slip: a single row (a header?), or names that differ only in case or space."""
    data, train, labels = prepared.node.stage.data, prepared.splits["train"], prepared.labels
    assert isinstance(data, RowsData) and data.format.label is not None and labels is not None
    notes = []
    for label in [label for label, count in train.counts["labels"].items() if count == 1]:
        row = next(row for row in train.rows if label in labels.texts(row, data.format.label))
        first = "; is it a header?" if row.index == 0 else ""
        notes.append(f"one row only is labelled {label!r}: {row.file}:{row.line}{first}")
    alike: dict[str, list[str]] = {}
    for label in train.counts["labels"]:
        alike.setdefault("".join(label.casefold().split()), []).append(repr(label))
    pairs = [" and ".join(names) for names in alike.values() if len(names) > 1]
    return notes + [
        f"the labels {pair} differ only in case or space: if they are one class, `map` one to the other"
        for pair in pairs
    ]


def print_plan(checks: Checks, console: Console | None = None) -> None:
    """The plan as a table: stage, rows, tokens, truncated, parameters, FLOPs, memory, time, disk.

    Stages that differ only by their seed share a line.
    """
    console = console or Console(highlight=False)
    table = Table(
        title=f"{checks.plan.file.name} on {checks.device}",
        title_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
    )
    table.add_column("stage", min_width=14)
    for column in ("rows", "tokens", "cut", "steps", "weights", "FLOPs", "memory", "time", "disk"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, alike in _alike(checks).items():
        counts, guess = alike[0].prepared.splits["train"].counts, alike[0].estimate
        table.add_row(
            name,
            f"{counts['rows']:,}",
            _count(counts["tokens"]),
            f"{counts['truncated_rows'] / counts['rows']:.1%}",
            f"{guess.steps:,}",
            _count(guess.parameters),
            f"{guess.flops:.0e}",
            f"{guess.memory / 1e9:.1f} GB",
            _time(guess.seconds),
            f"{guess.disk / 1e6:.0f} MB",
        )
    console.print(table)
    left = [one for one in checks.nodes if not one.done]
    seconds = sum(one.estimate.seconds for one in left)
    console.print(f"to run: {len(left)} of {len(checks.nodes)} stages, about {_time(seconds)}", markup=False)
    for line in checks.loops.lines:
        console.print(line, markup=False, soft_wrap=True)
    for note in checks.notes:
        console.print(note, markup=False, soft_wrap=True)


def _alike(checks: Checks) -> dict[str, list[Checked]]:
    """Nodes under a name that says how they differ, seeds aside: by a variant, where the start does not."""
    groups: dict[tuple[str, Estimate], list[Checked]] = {}
    for one in checks.nodes:
        start = one.node.parent.name if one.node.parent else (one.node.folder or "scratch")
        groups.setdefault((f"{one.node.name} from {start}", one.estimate), []).append(one)
    titles = [title for title, _ in groups]
    found = {}
    for (title, _), alike in groups.items():
        if titles.count(title) > 1:
            title = f"{title}, {_variant(checks.plan, alike[0].node)}"
        found[_told_of(title, alike)] = alike
    return found


def _variant(plan: Plan, node: Node) -> str:
    """The first variant that goes through the node."""
    return next(out["variant"] for out in plan.outcomes if node.id in out["stages"].values())


def _told_of(name: str, alike: list[Checked]) -> str:
    times = f" x {len(alike)}" if len(alike) > 1 else ""
    done = sum(one.done for one in alike)
    return f"{name}{times}" + (f", {'' if done == len(alike) else f'{done} '}done" if done else "")


def _count(number: int) -> str:
    return f"{number / 1e6:.1f} M" if number >= 1e6 else f"{number / 1e3:.0f} k"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
