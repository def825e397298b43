"""The page: one HTML file that opens offline, with its style and figures inside and every user text escaped.

It is a function of the run folder: no clock, no network, so the same folder gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from gradus.core.errors import counted
from gradus.core.storage import write_file
from gradus.evaluation.metrics import LARGER_IS_BETTER
from gradus.report import words
from gradus.report.ablations import Asked, Transferred, asked, transferred
from gradus.report.costs import costs
from gradus.report.errors import class_tables, number_points, wrong_rows
from gradus.report.figures import Curve, curves, dots, scatter, series_class
from gradus.report.graph import Group, gains, graph, groups
from gradus.report.grids import of_asked, of_costs, of_tasks, of_transferred, seeds_said
from gradus.report.headline import headline
from gradus.report.loops import iterated, loop_grids
from gradus.report.records import Run, Stage, load_run
from gradus.report.summary import Table, tables
from gradus.report.tasks import task_tables

OPTIMIZER = {"learning rate": "lr", "gradient norm": "grad_norm", "tokens per second": "tokens_per_second"}
"""Title of a curve that is folded away -> its key in metrics.jsonl."""
MILLIONS = "million tokens"
TRANSFER_ORDER = ("new", "resized", "dropped", "loaded")
DATA_COUNTS = ("rows", "tokens", "bytes", "truncated_rows", "truncated_tokens", "skipped_rows")
LEFT_OUT = ("dropped_rows", "leaked_rows", "beyond_limit_rows")
"""Counts of rows that `drop`, `leakage` and `limit` of the recipe left out."""
Figure = tuple[str, str]
"""Title and SVG."""
Legend = list[tuple[str, int]]
"""What a colour stands for, and the colour."""


def write_report(folder: str | Path | Run) -> Path:
    """Draws `folder`/report.html and returns its path. Raises UserError where `folder` is no run folder."""
    run = load_run(folder)
    path = run.folder / "report.html"
    write_file(path, page(run))
    return path


def page(run: Run) -> str:
    """The HTML text of the report."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    jinja = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    jinja.globals.update(
        words=words, counted=counted, series_class=series_class, figure=Markup, parted=_parted
    )
    source = files("gradus.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    colours = {variant: index for index, variant in enumerate(run.variants)}
    every, compared, moved, answered = groups(run), tables(run), transferred(run), asked(run)
    return jinja.from_string(source).render(
        run=run,
        headline=headline(run),
        facts=_facts(run),
        colours=colours,
        compared=[(table, dots(table, colours)) for table in compared],
        tasks=of_tasks(compared),
        folded={task for table in task_tables(compared) for task in table.tasks},
        took=of_costs(found) if (found := costs(run)) else None,
        layers=(of_transferred(moved), _layers(moved)) if moved else None,
        zero_shot=(of_asked(answered), *_zero_shot(answered, colours)) if answered else None,
        loops=loop_grids(run),
        tree=steps.tree() if (steps := iterated(run)) else None,
        seeds_said=seeds_said,
        graph=graph(run),
        sections=[
            _section(run, own, every)
            for name in run.stage_names
            for own in dict.fromkeys((name, *run.tasks_of(name)))
        ],
        optimizer=OPTIMIZER,
        machine=_machine(run),
    )


def _parted(cell: str) -> tuple[str, str]:
    """A cell's number, and what stands smaller behind it: deviation, interval, p."""
    at = min((place for mark in (" ±", " [", " (") if (place := cell.find(mark)) > 0), default=len(cell))
    return cell[:at], cell[at:]


def _layers(moved: Sequence[Transferred]) -> list[Figure]:
    """GPT-1's figure 2, left: scores over the layers transferred, each task on its own scale."""
    found = []
    for colour, one in enumerate(moved):
        spread = {layers: (cell.mean, cell.deviation or 0.0) for layers, cell in one.cells.items()}
        points = [(layers, middle, middle - d, middle + d) for layers, (middle, d) in spread.items()]
        title = f"{one.stage}: {words.metric_name(one.metric)}, {one.split}"
        drawn = [Curve(one.stage, colour, points, dots=True)]
        found.append((title, curves(title, one.metric, drawn, (), "transferred layers")))
    return found


def _zero_shot(answered: Sequence[Asked], colours: dict[str, int]) -> tuple[Legend, str, list[Figure]]:
    """GPT-1's figure 2, right: legend and figure of all tasks on one scale (first variant and seed); then
    task by task with the intervals."""
    tasks: dict[str, list[Asked]] = {}
    for one in answered:
        title = f"{one.title}: {words.metric_name(one.metric)}, {one.stage}, {one.split}"
        tasks.setdefault(title, []).append(one)
    legend, whole, single = [], [], []
    for index, (title, some) in enumerate(tasks.items()):
        legend.append((some[0].title, index))
        whole.append(Curve(*legend[-1], _in_millions(some[0].above_chance)))
        own = []
        for one in some:
            name, colour = f"{one.variants[0]}, seed {one.seed}", colours[one.variants[0]]
            own.append(Curve(name, colour, _in_millions(one.points)))
        floors = [("chance", some[0].metrics["chance"])]
        single.append((title, curves(title, some[0].metric, own, floors, MILLIONS)))
    normal = curves("all tasks above chance", "accuracy", whole, [("chance", 0.0)], MILLIONS)
    return legend, normal if len(tasks) > 1 else "", [one for one in single if one[1]]


def _in_millions(points: Sequence[tuple[float, ...]]) -> list[tuple[float, ...]]:
    return [(tokens / 1e6, *rest) for tokens, *rest in points]


def _facts(run: Run) -> list[tuple[str, str]]:
    """The run in a few figures: (number, what it counts)."""
    done = [stage for stage in run.stages.values() if stage.finished]
    seconds = sum(stage.part("training").get("seconds") or 0 for stage in done)
    tokens = sum(stage.part("training").get("tokens") or 0 for stage in done)
    sizes = [stage.record["parameters"] for stage in run.stages.values() if stage.record.get("parameters")]
    amounts = counted(len(run.variants), "variant"), counted(len(run.seeds), "seed")
    facts = [(amount.split()[0], amount.split()[1]) for amount in amounts]
    facts += [(f"{len(done)} of {len(run.stages)}", "stages done")]
    facts += [(words.count(max(sizes)), "parameters")] if sizes else []
    return [*facts, (words.count(tokens), "tokens trained"), (words.duration(seconds), "of training")]


def _section(run: Run, name: str, every: Sequence[Group]) -> dict[str, Any]:
    """Everything the page shows of one stage name, or of one of its tasks, STAGE.TASK."""
    (whole, _, task), compared = name.partition("."), tables(run, [name])
    own = [group.of_task(task, compared) for group in every if group.name == whole]
    stages = [stage for group in own for stage in group.stages]
    return {
        "name": name, "kind": stages[0].kind, "stages": stages, "objectives": _objectives(stages),
        "tables": compared, "figures": _figures(own, compared), "data": _data(own),
        "floors": list(dict.fromkeys(floor.title for table in compared for floor in table.floors)),
        "groups": [_details(group, every) for group in own],
    }  # fmt: skip


def _objectives(stages: Sequence[Stage]) -> str:
    """ "classification + 0.5 causal_lm" of the first folder that says so."""
    for stage in stages:
        given = stage.part("config").get("objectives") or []
        if given:
            weights = [(item.get("weight", 1), _kind(item)) for item in given]
            return " + ".join(kind if weight == 1 else f"{weight:g} {kind}" for weight, kind in weights)
    return ""


def _kind(objective: Mapping[str, Any]) -> str:
    """ "token_classification (crf, legal)"."""
    said = [objective[key] for key, usual in (("loss", "cross_entropy"), ("transitions", "any"))
            if objective.get(key, usual) != usual]  # fmt: skip
    return objective.get("kind", "?") + (f" ({', '.join(said)})" if said else "")


def _figures(own: Sequence[Group], measured: Sequence[Table]) -> list[Figure]:
    """Every curve the stage left: losses, metrics on dev, then what the optimizer did."""
    lines: dict[tuple[str, str], list[Curve]] = {}
    for group, stage in ((one, stage) for one in own for stage in one.stages):
        for (title, metric), points in _points(stage).items():
            seldom = title.endswith((" on dev", " on test"))
            curve = Curve(f"{group.title}, seed {stage.seed}", group.colour, points, seldom)
            lines.setdefault((title, metric), []).append(curve)
    found = []
    for (title, metric), drawn in sorted(lines.items(), key=lambda item: _figure_order(item[0][0])):
        same = [table for table in measured if title.endswith(f" on {table.split}")]
        floors = [floor for table in same for floor in table.floors if metric in floor.values]
        known = [(floor.title, floor.values[metric]) for floor in floors]
        found.append((title, curves(title, metric, drawn, known)))
    return [(title, drawn) for title, drawn in found if drawn]


def _figure_order(title: str) -> int:
    order = ["train loss", *map(words.metric_name, LARGER_IS_BETTER)]
    if title in OPTIMIZER:
        return 50 + list(OPTIMIZER).index(title)
    return next((index for index, begin in enumerate(order) if title.startswith(begin)), 40)


def _points(stage: Stage) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """(title, metric) -> (step, value) of a stage's metrics.jsonl."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for report in stage.curves:
        values: list[tuple[str, str, float | None]] = []
        if report.get("kind") == "train":
            values += [(f"train loss, {name}", "loss", loss) for name, loss in report.get("loss", {}).items()]
            values += [(name, name, report.get(key)) for name, key in OPTIMIZER.items()]
        elif report.get("kind") == "evaluate":
            split, known = report.get("split", "dev"), report.get("metrics", {}).items()
            # Perplexity is the loss again, on a scale that flattens everything but the start.
            drawn = [(metric, value) for metric, value in known if not metric.endswith("perplexity")]
            values += [(f"{words.metric_name(metric)} on {split}", metric, value) for metric, value in drawn]
        for title, metric, value in values:
            if value is not None:
                found.setdefault((title, metric), []).append((float(report.get("step", 0)), float(value)))
    return found


def _data(own: Sequence[Group]) -> list[dict[str, Any]]:
    """What was read and what was cut, a line a split; groups that read the same are told once."""
    lines: list[dict[str, Any]] = []
    for group in own:
        for stage in group.stages[:1]:
            for split, read in stage.part("data").items():
                known = {"split": split, "labels": read.get("labels") or {}}
                known["weights"] = stage.record.get("label_weights") if split == "train" else None
                known |= {key: read.get(key) for key in DATA_COUNTS}
                known["left_out"] = sum(read.get(key) or 0 for key in LEFT_OUT)
                if known not in [line["counts"] for line in lines]:
                    lines.append({"variants": group.title, "counts": known})
    return lines


def _details(group: Group, every: Sequence[Group]) -> dict[str, Any]:
    """What the page folds away for one group: classes, errors, samples, transfer."""
    shown = next((stage for stage in group.stages if stage.record), group.stages[0])
    transfer = shown.record.get("transfer") or []
    split, points = number_points(group.stages)
    drawn = scatter("predicted against true", points, group.colour)
    said = [(stage.seed, item) for stage in group.stages for item in stage.record.get("samples") or []]
    return {
        "group": group, "gains": gains(group, every), "classes": class_tables(group.stages),
        "numbers": (split, drawn) if drawn else None,
        "errors": wrong_rows(group.stages), "samples": [(seed, _sample(item)) for seed, item in said],
        "transfer": sorted(transfer, key=lambda item: TRANSFER_ORDER.index(item["what"])),
        "moved": [(what, sum(item.get("what") == what for item in transfer)) for what in TRANSFER_ORDER],
        "seed": shown.seed,
    }  # fmt: skip


def _sample(item: dict[str, str]) -> tuple[str, str]:
    """Prompt and continuation: a model's text begins with its prompt."""
    prompt, text = item.get("prompt", ""), item.get("text", "")
    return (prompt, text[len(prompt) :]) if text.startswith(prompt) else (prompt, " " + text)


def _machine(run: Run) -> list[tuple[str, str]]:
    """Facts that a repetition needs, each with every value that occurs."""
    facts: dict[str, dict[str, None]] = {}
    for stage in run.stages.values():
        told = {key: stage.record.get(key) for key in ("device", "precision", "threads")}
        for key, value in {**told, **stage.part("versions")}.items():
            if value is not None:
                facts.setdefault(key, {})[str(value)] = None
    return [(key, ", ".join(values)) for key, values in facts.items()]
