"""The tables outside the page: on the terminal, as the small file that documents keep, and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradus.core.errors import UserError
from gradus.core.storage import read_json, write_json
from gradus.evaluation.statistics import mean
from gradus.report.records import Run
from gradus.report.summary import Line, Table, headline, tables
from gradus.report.words import count, floor_name, metric_name, number, probability, with_deviation

if TYPE_CHECKING:
    from rich.console import Console

COLOURS = {"better": "green", "worse": "red", "cannot tell": "yellow"}

PRINTED = frozenset({"accuracy", "macro_f1", "matthews", "loss", "perplexity", "bits_per_byte"})
"""What a terminal has room for; the page and the exported file have every metric."""


def print_table(run: Run, console: Console) -> None:
    """Prints the verdict, and variants x metrics for every result stage and split, floors below."""
    from rich.box import SIMPLE
    from rich.markup import escape
    from rich.table import Table as Printed

    said = headline(run)
    console.print(f"[bold]{escape(said.title)}[/bold]", highlight=False)
    for detail in said.details:
        console.print(escape(detail), highlight=False)
    for table in tables(run):
        printed = Printed(
            title=f"{escape(table.stage)}, {table.split}",
            title_justify="left",
            title_style="bold",
            box=SIMPLE,
        )
        printed.add_column("variant")
        shown = [metric for metric in table.metrics if metric in PRINTED]
        for metric in shown:
            printed.add_column(metric_name(metric), justify="right")
        printed.add_column("seeds", justify="right")
        printed.add_column("against the first")
        for line in table.lines:
            colour = COLOURS.get(line.verdict or "", "dim")
            cells = [_cell(line, metric) for metric in shown]
            printed.add_row(
                escape(line.variant), *cells, _seeds(line), f"[{colour}]{_verdict(line)}[/{colour}]"
            )
        for floor in table.floors:
            values = [number(floor.values.get(metric), metric) for metric in shown]
            printed.add_row(escape(floor.title), *values, "", "learns nothing", style="dim")
        console.print(printed)


def _cell(line: Line, metric: str) -> str:
    cell = line.cells.get(metric)
    return with_deviation(cell.mean, cell.deviation, metric) if cell else "–"


def _seeds(line: Line) -> str:
    return str(len(line.seeds)) if len(line.seeds) == line.planned else f"{len(line.seeds)} of {line.planned}"


def _verdict(line: Line) -> str:
    return f"{line.verdict} ({probability(line.test['p'])})" if line.test else "–"


def export(folder: str | Path, path: str | Path) -> Path:
    """Writes what documents need of a finished run as a small JSON file, at once; returns its path.

    Raises UserError where the folder is no run folder or where nothing of it was evaluated.
    """
    from gradus.report.records import load_run

    run = load_run(folder)
    compared = tables(run)
    if not compared:
        raise UserError("no stage of this run has results yet", file=folder, hint="run it to its end first")
    first = next(stage for stage in run.stages.values() if stage.results)
    record = {
        "recipe": run.recipe,
        "recipe_digest": run.recipe_digest,
        "seeds": run.seeds,
        "variants": run.variants,
        "headline": headline(run).title,
        "tables": [_exported(table) for table in compared],
        "tokens_per_second": _speeds(run),
        "parameters": first.record.get("parameters"),
        "machine": {
            "device": first.record.get("device"),
            "precision": first.record.get("precision"),
            "threads": first.record.get("threads"),
            "versions": first.part("versions"),
        },
    }
    write_json(Path(path), record)
    return Path(path)


def _exported(table: Table) -> dict[str, Any]:
    return {
        "stage": table.stage,
        "split": table.split,
        "metric": table.metric,
        "metrics": table.metrics,
        "variants": [
            {
                "variant": line.variant,
                "seeds": line.seeds,
                "metrics": {
                    m: {"mean": cell.mean, "deviation": cell.deviation, "values": list(cell.values)}
                    for m, cell in line.cells.items()
                },
                "paired_test": {**line.test, "verdict": line.verdict} if line.test else None,
            }
            for line in table.lines
        ],
        "floors": [
            {"name": floor.name, "variant": floor.variant, "metrics": floor.values} for floor in table.floors
        ],
    }


def _speeds(run: Run) -> dict[str, float]:
    """Stage name -> mean training tokens per second over its folders."""
    speeds = {}
    for name in run.stage_names:
        measured = [
            s.part("training").get("tokens_per_second") for s in run.stages.values() if s.name == name
        ]
        if known := [speed for speed in measured if speed]:
            speeds[name] = mean(known)
    return speeds


def results_markdown(files: Sequence[str | Path]) -> str:
    """Markdown tables of exported files, in order. Raises UserError for a file `export` did not write."""
    parts = []
    for file in files:
        try:
            record = read_json(Path(file))
            parts.append(_markdown(record))
        except OSError as error:
            raise UserError("this file cannot be read", file=file, text=error.strerror) from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                "this is no exported result", file=file, hint="write it with report --export"
            ) from None
    return "\n".join(parts)


def _markdown(record: dict[str, Any]) -> str:
    machine, speeds = record["machine"], record["tokens_per_second"]
    facts = [f"recipe `{record['recipe_digest'][:12]}`", f"seeds {', '.join(map(str, record['seeds']))}"]
    facts += [f"{count(record['parameters'])} parameters"] if record["parameters"] else []
    facts += [f"{machine['device']}, {machine['precision']}, {machine['threads']} threads"]
    facts += [f"{name} {version}" for name, version in machine["versions"].items()]
    facts += [f"{stage} {count(speed)} tokens/s" for stage, speed in speeds.items()]
    lines = [f"## {record['recipe']}", "", f"**{record['headline']}.**", "", "; ".join(facts) + ".", ""]
    for table in record["tables"]:
        lines += [f"### {table['stage']}, {table['split']}", "", *_markdown_table(table), ""]
    return "\n".join(lines)


def _markdown_table(table: dict[str, Any]) -> list[str]:
    metrics = table["metrics"]
    lines = [
        _bar(["variant", *map(metric_name, metrics), "seeds", "against the first"]),
        _bar(["---", *["---:"] * len(metrics), "---:", "---"]),
    ]
    for variant in table["variants"]:
        cells = [variant["metrics"].get(metric) for metric in metrics]
        shown = [with_deviation(c["mean"], c["deviation"], m) if c else "–" for c, m in zip(cells, metrics)]
        test = variant["paired_test"]
        said = f"{test['verdict']} ({probability(test['p'])})" if test else "–"
        lines.append(_bar([variant["variant"], *shown, str(len(variant["seeds"])), said]))
    for floor in table["floors"]:
        name = floor_name(floor["name"]) + (f" ({floor['variant']})" if floor["variant"] else "")
        lines.append(
            _bar([f"*{name}*", *(number(floor["metrics"].get(m), m) for m in metrics), "", "learns nothing"])
        )
    return lines


def _bar(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
