"""What each variant's result took beside what it reached: parameters that learn, time and memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gradus.report.records import Run, Stage
from gradus.report.summary import Cell, tables


@dataclass(frozen=True)
class Cost:
    """One stage of one variant over its seeds."""

    stage: str
    split: str
    variant: str
    metric: str
    score: Cell
    learning: int
    """Parameters that learn, of `parameters`."""
    parameters: int
    seconds: Cell
    """Of training."""
    held: float
    """Bytes of weights, gradients and what the optimizer keeps."""
    peak: float | None
    """The most bytes taken, where the device has memory of its own: a process keeps what it was given."""

    @classmethod
    def read(cls, record: dict[str, Any]) -> Cost:
        """What `asdict` made and a file kept."""
        return cls(**record | {key: Cell.of(record[key]["values"]) for key in ("score", "seconds")})

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def costs(run: Run) -> list[Cost]:
    """One for each result stage and variant, if any of them lets a part of its parameters learn or two hold
    unlike memory; on the last split that was scored."""
    found: dict[tuple[str, str], Cost] = {}
    for table in tables(run):
        for line in table.lines:
            stages = [stage for stage in run.of(line.variant, table.stage) if "learning" in stage.record]
            stages = [stage for stage in stages if "held_memory" in stage.part("training")]
            if line.same or not stages or table.metric not in line.cells:
                continue
            place = table.stage, table.split, line.variant, table.metric, line.cells[table.metric]
            first = stages[0].record
            found[table.stage, line.variant] = Cost(
                *place, first["learning"], first["parameters"], Cell.of(_of(stages, "seconds")),
                max(_of(stages, "held_memory")),
                max(_of(stages, "peak_memory")) if first["device"].startswith("cuda") else None,
            )  # fmt: skip
    light = any(cost.learning < cost.parameters for cost in found.values())
    held = {(cost.stage, cost.held) for cost in found.values()}
    return list(found.values()) if light or len(held) > len({stage for stage, _ in held}) else []


def _of(stages: Sequence[Stage], key: str) -> list[float]:
    return [stage.part("training")[key] for stage in stages]
