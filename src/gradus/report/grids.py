"""Tables as rows of words, which the page, the terminal and Markdown draw alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gradus.report.ablations import Asked, Transferred
from gradus.report.costs import Cost
from gradus.report.summary import RIGHT, Cell, Line, Table
from gradus.report.tasks import AVERAGE, Tasks, task_tables
from gradus.report.words import count, duration, listed, metric_name, number, probability

OVER_SEEDS = "over seeds"
MARKS = {"better": " ★", "worse": " †"}
TASKS_NOTE = (
    "★ better and † worse than the first variant on that task: a paired bootstrap over rows, p < 0.05, each "
    "task by itself, in the correlation that is its metric or else in rows right; = the first variant's own "
    "stage; ± over seeds."
)
PAPER_NOTE = (
    "Rows “paper” are Radford et al. 2018, table 5: the paper's own numbers, of its own data (BooksCorpus) "
    "and its own model (12 layers, 768 wide), MRPC and QQP by F1. Their averages are over the same tasks as "
    "ours; the paper's over its eight are 74.7 (full), 59.9 (no pre-training), 75.0 (no auxiliary loss), "
    "69.1 (LSTM)."
)


@dataclass(frozen=True)
class Row:
    """`kind` is "variant", "floor" or "paper"; `variant` names the one that its colour stands for."""

    kind: str
    cells: list[str]
    variant: str | None = None


@dataclass(frozen=True)
class Grid:
    """Words in rows and columns. Columns stand to the right, save those whose header is in `left`."""

    title: str
    header: list[str]
    rows: list[Row]
    left: frozenset[str] = frozenset({"variant"})
    notes: list[str] = field(default_factory=list)


def of_table(table: Table, metrics: Sequence[str] | None = None) -> Grid:
    """Variants x metrics (all, unless given) of one stage and split, floors below.

    A variant that has the first one's stage is named in a note, if others have not: its line would repeat the
    first.
    """
    shown = table.metrics if metrics is None else [m for m in table.metrics if m in metrics]
    over = {line.variant: said for line in table.lines if (said := seeds_said(table, line))}
    header = [
        "variant",
        *map(metric_name, shown),
        "seeds",
        "against the first",
        *([OVER_SEEDS] if over else []),
    ]
    rows = []
    for line in table.lines:
        cells = [_cell(line.cells.get(metric), metric) for metric in shown]
        if not line.same:
            cells = [line.variant, *cells, _seeds(line), _verdict(line)]
            cells += [over.get(line.variant, "–")] if over else []
            rows.append(Row("variant", cells, line.variant))
    for floor in table.floors:
        cells = [number(floor.values.get(metric), metric) for metric in shown]
        rows.append(Row("floor", [floor.title, *cells, "", "learns nothing", *([""] if over else [])]))
    left = frozenset({"variant", "against the first", OVER_SEEDS})
    same = [line.variant for line in table.lines if line.same]
    alone = len(same) + 1 == len(table.lines)
    notes = [f"The same stage as the first variant's: {listed(same)}."] if same and not alone else []
    if table.compared != RIGHT and any(line.test for line in table.lines):
        notes.append(f"The test is of the difference in {table.compared}.")
    if over:
        notes.append(
            f"Over seeds: the paired difference in {metric_name(table.metric)}, by Student's t-test."
        )
    return Grid(f"{table.stage}, {table.split}", header, rows, left, notes)


def seeds_said(table: Table, line: Line) -> str | None:
    """ "+1.2 ± 0.4 (p = 0.03)": the paired difference over seeds; None where there is none."""
    if (test := table.over_seeds(line)) is None:
        return None
    difference = number(test["difference"], table.metric, sign=True)
    return f"{difference} ± {number(test['deviation'], table.metric)} ({probability(test['p'])})"


def _cell(cell: Cell | None, metric: str) -> str:
    return cell.shown(metric) if cell else "–"


def _marked(cell: Cell | None, metric: str, verdict: str | None) -> str:
    """A cell of a task, with its verdict; of the first variant's own stage only that it is that."""
    return "=" if verdict == "the same stage" else _cell(cell, metric) + MARKS.get(verdict or "", "")


def _seeds(line: Line) -> str:
    return str(len(line.seeds)) if len(line.seeds) == line.planned else f"{len(line.seeds)} of {line.planned}"


def _verdict(line: Line) -> str:
    """ "worse (p < 0.001)"; a dash where nothing was compared."""
    return f"{line.verdict} ({probability(line.test['p'])})" if line.test else line.verdict or "–"


def of_tasks(compared: Sequence[Table]) -> list[Grid]:
    """Variants x tasks of each split, their average, floors, and the paper's rows; the legend once."""
    many = task_tables(compared)
    return [_of_tasks(table, last=table is many[-1]) for table in many]


def _of_tasks(table: Tasks, last: bool) -> Grid:
    columns = [*table.tasks.items(), (AVERAGE, "accuracy")]
    titles = [f"{task} ({metric_name(metric)})" for task, metric in table.tasks.items()]
    rows = []
    for line in table.lines:
        said = table.verdicts[line.variant]
        cells = [_marked(line.cells.get(task), metric, said.get(task)) for task, metric in columns]
        rows.append(Row("variant", [line.variant, *cells], line.variant))
    for floor in (*table.floors, *table.paper):
        cells = [number(floor.values.get(task), metric) for task, metric in columns]
        rows.append(Row("paper" if floor in table.paper else "floor", [floor.title, *cells]))
    some = set(table.averaged) < set(table.tasks)
    notes = [f"The average is over {listed(table.averaged)}, which every variant has."] if some else []
    if last:
        notes += [TASKS_NOTE, *([PAPER_NOTE] if table.paper else [])]
    header = ["variant", *titles, f"{AVERAGE} of {len(table.averaged)}" if some else AVERAGE]
    return Grid(f"{table.stage}, {table.split}", header, rows, notes=notes)


def of_transferred(found: Sequence[Transferred]) -> Grid:
    """Tasks x transferred layers."""
    every = sorted({layers for one in found for layers in one.cells})
    header = ["task", *(f"{layers} layers" if layers != 1 else "1 layer" for layers in every)]
    rows = []
    for one in found:
        cells = [_cell(one.cells.get(layers), one.metric) for layers in every]
        rows.append(Row("variant", [f"{one.stage}, {one.split} ({metric_name(one.metric)})", *cells]))
    return Grid("transferred layers", header, rows, frozenset({"task"}), ["0 layers: the embeddings alone."])


def of_costs(found: Sequence[Cost]) -> Grid:
    """Stages and variants x score, parameters that learn, time and memory."""
    peaks = any(cost.peak is not None for cost in found)
    header = ["stage", "variant", "score", "parameters that learn", "of all", "training", "held"]
    rows = []
    for cost in found:
        cells = [f"{cost.stage}, {cost.split} ({metric_name(cost.metric)})", cost.variant]
        cells += [cost.score.shown(cost.metric), count(cost.learning)]
        cells += [f"{cost.learning / cost.parameters:.1%}", duration(cost.seconds.mean), _bytes(cost.held)]
        cells += [_bytes(cost.peak)] if peaks else []
        rows.append(Row("variant", cells, cost.variant))
    notes = [
        "Held: the weights, their gradients and what the optimizer keeps of them; activations come on top."
    ]
    columns = [*header, *(["peak"] if peaks else [])]
    return Grid("what it took", columns, rows, frozenset({"stage", "variant"}), notes)


def _bytes(amount: float | None) -> str:
    return "–" if amount is None else f"{amount / 1e6:,.1f} MB"


def of_asked(found: Sequence[Asked]) -> Grid:
    """The last zero-shot and few-shot figures."""
    stages, seeds = {one.stage for one in found}, {one.seed for one in found}
    rows = []
    for one in found:
        where = [one.stage] if len(stages) > 1 else []
        where += one.variants[:1] if one.variants[0] != found[0].variants[0] else []
        where += [f"seed {one.seed}"] if len(seeds) > 1 else []
        named = one.metrics | {"majority": None} if one.metric != "accuracy" else one.metrics
        keys = (one.metric, "low", "high", "chance", "majority")
        score, low, high, chance, most = (number(named.get(key), one.metric) for key in keys)
        name, scored = f"{one.title} ({', '.join([*where, one.split])})", f"{one.metrics['rows']:,.0f}"
        interval = f"{score} [{low}, {high}]"
        cells = [name, metric_name(one.metric), interval, chance, most, scored, one.verdict]
        rows.append(Row("variant", cells, one.variants[0]))
    header = ["task", "metric", "score, 95 %", "chance", "majority", "rows", "verdict"]
    return Grid("zero-shot and few-shot", header, rows, frozenset({"task", "metric", "verdict"}))
