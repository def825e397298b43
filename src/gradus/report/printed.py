"""The tables outside the page: on the terminal, as the small file that documents keep, and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradus.core.errors import UserError, counted
from gradus.core.storage import read_json, write_json
from gradus.evaluation.metrics import LARGER_IS_BETTER
from gradus.evaluation.statistics import mean
from gradus.report.ablations import Asked, Transferred, asked, transferred
from gradus.report.costs import Cost, costs
from gradus.report.grids import Grid, of_asked, of_costs, of_table, of_tasks, of_transferred
from gradus.report.headline import headline, unfinished
from gradus.report.loops import Iterated, Searched, at_last, iterated, loop_grids, searched
from gradus.report.records import Run, Stage, load_run
from gradus.report.summary import Table, tables
from gradus.report.tasks import task_tables
from gradus.report.words import count

if TYPE_CHECKING:
    from rich.console import Console

COLOURS = {"better": "green", "worse": "red", "cannot tell": "yellow"}

MACHINE = ("device", "precision", "threads", "versions")
"""What stage.json tells of where it ran."""

PRINTED = [metric for metric in LARGER_IS_BETTER if metric != "calibration_error"]
"""What a terminal has room for; the page and the exported file have every metric."""


def _over_stages(
    compared: Sequence[Table], moved: Sequence[Transferred], answered: Sequence[Asked], took: Sequence[Cost]
) -> list[Grid]:
    """The tables that look at a run as a whole: all tasks, what they took, transferred layers, zero-shot."""
    found = [*of_tasks(compared), *([of_costs(took)] if took else [])]
    found += [of_transferred(moved)] if moved else []
    return [*found, of_asked(answered)] if answered else found


def print_table(run: Run, console: Console) -> None:
    """Prints the verdict, and variants x metrics for every result stage and split, floors below.

    Where there are many tasks, their common table stands for theirs.
    """
    from rich.markup import escape

    said = headline(run)
    console.print(f"[bold]{escape(said.title)}[/bold]", highlight=False)
    for detail in said.details:
        console.print(escape(detail), highlight=False)
    print_grids(loop_grids(run), console)
    compared = tables(run)
    tasks = {task for table in task_tables(compared) for task in table.tasks}
    single = [of_table(table, PRINTED) for table in _all_tables(run) if table.stage not in tasks]
    print_grids(_over_stages(compared, transferred(run), asked(run), costs(run)) + single, console)


def print_grids(grids: Sequence[Grid], console: Console) -> None:
    """Draws tables on a terminal."""
    from rich.box import SIMPLE
    from rich.markup import escape
    from rich.table import Table as Printed

    for grid in grids:
        printed = Printed(title=escape(grid.title), title_justify="left", title_style="bold", box=SIMPLE)
        for name in grid.header:
            printed.add_column(name, justify="left" if name in grid.left else "right")
        for row in grid.rows:
            cells = [_coloured(escape(cell)) for cell in row.cells]
            printed.add_row(*cells, style=None if row.kind == "variant" else "dim")
        console.print(printed)
        for note in grid.notes:
            console.print(escape(note), style="dim", highlight=False)


def _all_tables(run: Run) -> list[Table]:
    """Those of the result stages, and of the stages of running text on the way to them."""
    text = {stage.name for stage in run.stages.values() if stage.kind == "text"}
    names = [name for name in run.stage_names if name in text or name in run.result_names]
    return tables(run, [task for name in names for task in run.tasks_of(name)])


def _coloured(cell: str) -> str:
    colour = next((colour for said, colour in COLOURS.items() if cell.startswith(f"{said} (")), None)
    return f"[{colour}]{cell}[/{colour}]" if colour else cell


def export(folder: str | Path | Run, path: str | Path) -> Path:
    """Writes what documents need of a finished run as a small JSON file, at once; returns its path.

    Raises UserError where the folder is no run folder or where nothing of it was evaluated.
    """
    run = load_run(folder)
    if not tables(run):
        hint = "run it to its end first"
        raise UserError("no stage of this run has results yet", file=run.folder, hint=hint)
    first = next(stage for stage in run.stages.values() if stage.results)
    record = {
        "recipe": run.recipe, "recipe_digest": run.recipe_digest, "seeds": run.seeds,
        "variants": run.variants, "headline": headline(run).title, "unfinished": unfinished(run),
        "tables": [table.plain() for table in _all_tables(run)],
        "transferred": [asdict(one) for one in transferred(run)],
        "zero_shot": [one.plain() for one in asked(run)],
        **_loops(run),
        "costs": [one.plain() for one in costs(run)],
        "parameters": first.record.get("parameters"), "machines": _machines(run),
    }  # fmt: skip
    write_json(Path(path), record)
    return Path(path)


def _loops(run: Run) -> dict[str, Any]:
    """The trials and the steps of a run that has them."""
    found = {"search": searched(run), "iterate": iterated(run)}
    known: dict[str, Any] = {key: asdict(one) for key, one in found.items() if one is not None}
    return known | ({"at_last": at_last(run)} if known else {})


def _loop_grids(record: dict[str, Any]) -> list[Grid]:
    """As `loop_grids`, of an exported file."""
    found = [Searched(**record["search"]).grid()] if "search" in record else []
    found += [Iterated(**record["iterate"]).grid()] if "iterate" in record else []
    if found:
        found[-1].notes.extend(record["at_last"])
    return found


def _machines(run: Run) -> list[dict[str, Any]]:
    """Where stages ran, the place of most first: the machine, its count of stages, and stage name -> mean
    training tokens per second there."""
    found: dict[str, list[Stage]] = {}
    for stage in run.stages.values():
        if stage.record:
            found.setdefault(repr([stage.record.get(key) for key in MACHINE]), []).append(stage)
    return [
        {**{key: stages[0].record.get(key) for key in MACHINE}, "stages": len(stages),
         "tokens_per_second": _speeds(run.stage_names, stages)}
        for stages in sorted(found.values(), key=len, reverse=True)
    ]  # fmt: skip


def _speeds(names: Sequence[str], stages: Sequence[Stage]) -> dict[str, float]:
    speeds: dict[str, list[float]] = {name: [] for name in names}
    for stage in stages:
        speeds[stage.name] += filter(None, [stage.part("training").get("tokens_per_second")])
    return {name: mean(known) for name, known in speeds.items() if known}


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
    facts = [f"recipe `{record['recipe_digest'][:12]}`", f"seeds {', '.join(map(str, record['seeds']))}"]
    facts += [f"{count(record['parameters'])} parameters"] if record["parameters"] else []
    machines = record.get("machines") or [
        record["machine"] | {"tokens_per_second": record["tokens_per_second"]}
    ]
    told = [_machine(machine, len(machines) > 1) for machine in machines]
    facts += told if len(told) == 1 else []
    lines = [f"## {record['recipe']}", "", f"**{record['headline']}.**", "", "; ".join(facts) + ".", ""]
    lines += [f"- {one}" for one in told] + [""] if len(told) > 1 else []
    lines += [line for note in record.get("unfinished", []) for line in (note, "")]
    compared = [Table.read(table) for table in record["tables"]]
    moved = [Transferred.read(one) for one in record.get("transferred", [])]
    answered = [Asked(**one) for one in record.get("zero_shot", [])]
    took = [Cost.read(one) for one in record.get("costs", [])]
    whole = _loop_grids(record) + _over_stages(compared, moved, answered, took)
    for grid in whole + [of_table(table) for table in compared]:
        lines += [f"### {grid.title}", "", *_markdown_table(grid), ""]
        lines += [line for note in grid.notes for line in (note, "")]
    return "\n".join(lines)


def _machine(machine: dict[str, Any], several: bool) -> str:
    """A machine, what ran there, and how fast; the count of stages where there are `several` machines."""
    facts = [
        f"{counted(machine['stages'], 'stage')} on {machine['device']}" if several else machine["device"]
    ]
    facts[0] += f", {machine['precision']}, {counted(machine['threads'], 'thread')}"
    facts += [f"{name} {version}" for name, version in machine["versions"].items()]
    facts += [f"{stage} {count(speed)} tokens/s" for stage, speed in machine["tokens_per_second"].items()]
    return "; ".join(facts)


def _markdown_table(grid: Grid) -> list[str]:
    lines = [_bar(grid.header), _bar(["---" if name in grid.left else "---:" for name in grid.header])]
    for row in grid.rows:
        first = row.cells[0] if row.kind == "variant" else f"*{row.cells[0]}*"
        lines.append(_bar([first, *row.cells[1:]]))
    return lines


def _bar(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
