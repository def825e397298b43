"""The page: one HTML file that opens offline, with its style and figures inside and every user text escaped.

It is a function of the run folder: no clock, no network, so the same folder gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from gradus.core.storage import write_file
from gradus.report import words
from gradus.report.errors import class_tables, wrong_rows
from gradus.report.figures import SERIES, Curve, curves, dots, series_class
from gradus.report.graph import Group, gains, graph, groups
from gradus.report.records import Run, Stage, load_run
from gradus.report.summary import Table, headline, tables

REPORT = "report.html"
OPTIMIZER = {"learning rate": "lr", "gradient norm": "grad_norm", "tokens per second": "tokens_per_second"}
"""Title of a curve that is folded away -> its key in metrics.jsonl."""
UNDRAWN = frozenset({"perplexity"})
"""The loss again, on a scale that flattens everything but the start."""
TRANSFER_ORDER = ("new", "resized", "dropped", "loaded")
DATA_COUNTS = ("rows", "tokens", "bytes", "truncated_rows", "truncated_tokens", "skipped_rows")


def write_report(folder: str | Path) -> Path:
    """Draws `folder`/report.html and returns its path. Raises UserError where `folder` is no run folder."""
    run = load_run(folder)
    path = run.folder / REPORT
    write_file(path, page(run))
    return path


def page(run: Run) -> str:
    """The HTML text of the report."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(words=words, series_class=series_class, figure=Markup)
    template = environment.from_string(
        files("gradus.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    )
    colours = {variant: min(index, SERIES) for index, variant in enumerate(run.variants)}
    every = groups(run)
    compared = tables(run)
    return template.render(
        run=run,
        headline=headline(run),
        asked=_asked(run),
        colours=colours,
        compared=[(table, dots(table, colours)) for table in compared],
        graph=graph(run, colours),
        sections=[
            _section(run, name, [g for g in every if g.name == name], every, colours)
            for name in run.stage_names
        ],
        machine=_machine(run),
    )


def _asked(run: Run) -> list[tuple[str, str]]:
    """The run in a few figures: (number, what it counts)."""
    done = [stage for stage in run.stages.values() if stage.finished]
    seconds = sum(stage.part("training").get("seconds") or 0 for stage in done)
    tokens = sum(stage.part("training").get("tokens") or 0 for stage in done)
    sizes = [stage.record["parameters"] for stage in run.stages.values() if stage.record.get("parameters")]
    facts = [
        (str(len(run.variants)), "variant" if len(run.variants) == 1 else "variants"),
        (str(len(run.seeds)), "seed" if len(run.seeds) == 1 else "seeds"),
        (f"{len(done)} of {len(run.stages)}", "stages done"),
    ]
    facts += [(words.count(max(sizes)), "parameters")] if sizes else []
    return [*facts, (words.count(tokens), "tokens trained"), (words.duration(seconds), "of training")]


def _section(
    run: Run, name: str, own: list[Group], every: Sequence[Group], colours: dict[str, int]
) -> dict[str, Any]:
    """Everything the page shows of one stage name."""
    stages = [stage for group in own for stage in group.stages]
    kind, compared = stages[0].kind, tables(run, [name])
    figures = _figures(own, colours, compared)
    return {
        "name": name,
        "kind": kind,
        "objectives": _objectives(stages),
        "done": sum(stage.finished for stage in stages),
        "stages": stages,
        "tables": compared,
        "floors": list(dict.fromkeys(floor.title for table in compared for floor in table.floors)),
        "folders": [(group, stage, _colour(group, colours)) for group in own for stage in group.stages],
        "figures": [(title, drawn) for title, drawn in figures if title not in OPTIMIZER],
        "optimizer": [(title, drawn) for title, drawn in figures if title in OPTIMIZER],
        "data": _data(own),
        "groups": [_details(group, every, _colour(group, colours)) for group in own],
    }


def _colour(group: Group, colours: dict[str, int]) -> int:
    return min((colours[variant] for variant in group.variants), default=0)


def _objectives(stages: Sequence[Stage]) -> str:
    """ "classification + 0.5 causal_lm" of the first folder that says so."""
    for stage in stages:
        given = stage.part("config").get("objectives") or []
        if given:
            weights = [(item.get("weight", 1), item.get("kind", "?")) for item in given]
            return " + ".join(kind if weight == 1 else f"{weight:g} {kind}" for weight, kind in weights)
    return ""


def _figures(
    own: Sequence[Group], colours: dict[str, int], measured: Sequence[Table]
) -> list[tuple[str, str]]:
    """(title, SVG) of every curve the stage left: losses, metrics on dev, then what the optimizer did."""
    lines: dict[tuple[str, str], list[Curve]] = {}
    for group in own:
        for stage in group.stages:
            label = f"{words.listed(group.variants)}, seed {stage.seed}"
            for (title, metric), points in _points(stage).items():
                seldom = title.endswith((" on dev", " on test"))
                lines.setdefault((title, metric), []).append(
                    Curve(label, _colour(group, colours), points, seldom)
                )
    floors = {
        (table.split, metric): [
            (floor.title, floor.values[metric]) for floor in table.floors if metric in floor.values
        ]
        for table in measured
        for metric in table.metrics
    }
    found = []
    for (title, metric), drawn in sorted(lines.items(), key=lambda item: _figure_order(item[0][0])):
        split = title.rsplit(" on ", 1)[-1]
        found.append((title, curves(title, metric, drawn, floors.get((split, metric), []))))
    return [(title, drawn) for title, drawn in found if drawn]


def _figure_order(title: str) -> int:
    order = ("train loss", "accuracy", "macro F1", "Matthews", "bits per byte", "loss on")
    if title in OPTIMIZER:
        return 50 + list(OPTIMIZER).index(title)
    return next((index for index, begin in enumerate(order) if title.startswith(begin)), 40)


def _points(stage: Stage) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """(title, metric) -> (step, value) of a stage's metrics.jsonl."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for report in stage.curves:
        values: list[tuple[str, str, float | None]] = []
        if report.get("kind") == "train":
            values += [
                (f"train loss, {name}", "loss", value) for name, value in (report.get("loss") or {}).items()
            ]
            values += [(name, name, report.get(key)) for name, key in OPTIMIZER.items()]
        elif report.get("kind") == "evaluate":
            split = report.get("split", "dev")
            measured = report.get("metrics") or {}
            values += [
                (f"{words.metric_name(m)} on {split}", m, v) for m, v in measured.items() if m not in UNDRAWN
            ]
        for title, metric, value in values:
            if value is not None:
                found.setdefault((title, metric), []).append((float(report.get("step", 0)), float(value)))
    return found


def _data(own: Sequence[Group]) -> list[dict[str, Any]]:
    """What was read and what was cut, a line a split; groups that read the same are told once."""
    lines: list[dict[str, Any]] = []
    for group in own:
        for stage in group.stages[:1]:
            for split, counted in stage.part("data").items():
                known = {"split": split, "labels": counted.get("labels") or {}}
                known |= {key: counted.get(key) for key in DATA_COUNTS}
                if known not in [line["counts"] for line in lines]:
                    lines.append({"variants": words.listed(group.variants), "counts": known})
    return lines


def _details(group: Group, every: Sequence[Group], colour: int) -> dict[str, Any]:
    """What the page folds away for one group: classes, errors, samples, transfer."""
    shown = next((stage for stage in group.stages if stage.record), group.stages[0])
    transfer = shown.record.get("transfer") or []
    order = {what: index for index, what in enumerate(TRANSFER_ORDER)}
    return {
        "group": group,
        "colour": colour,
        "gains": gains(group, every),
        "classes": class_tables(group.stages),
        "errors": wrong_rows(group.stages),
        "samples": [
            (stage.seed, _sample(item))
            for stage in group.stages
            for item in stage.record.get("samples") or []
        ],
        "transfer": sorted(transfer, key=lambda item: order.get(item.get("what"), 0)),
        "moved": [(what, sum(item.get("what") == what for item in transfer)) for what in TRANSFER_ORDER],
        "seed": shown.seed,
    }


def _sample(item: dict[str, str]) -> tuple[str, str]:
    """Prompt and continuation: a model's text begins with its prompt."""
    prompt, text = item.get("prompt", ""), item.get("text", "")
    return (prompt, text[len(prompt) :]) if text.startswith(prompt) else (prompt, " " + text)


def _machine(run: Run) -> list[tuple[str, str]]:
    """Facts that a repetition needs, each with every value that occurs."""
    stages = [stage for stage in run.stages.values() if stage.record]
    facts: dict[str, dict[str, None]] = {}
    for stage in stages:
        for key in ("device", "precision", "threads"):
            if stage.record.get(key) is not None:
                facts.setdefault(key, {})[str(stage.record[key])] = None
        for name, version in stage.part("versions").items():
            facts.setdefault(name, {})[str(version)] = None
    return [(key, ", ".join(values)) for key, values in facts.items()]
