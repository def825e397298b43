"""One example of a stage as its objectives see it, for people.

`python -m gradus.pipeline.showing RECIPE [STAGE]` prints the worked examples of the documentation.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from gradus.core.example import Example
from gradus.core.keyed import keyed_generator
from gradus.pipeline.material import Material
from gradus.pipeline.plan import make_plan
from gradus.pipeline.prepare import Prepared, prepare
from gradus.pipeline.reading import read_recipe
from gradus.pipeline.run import data_root
from gradus.tokenizers import Tokenizer


def show(prepared: Prepared, row: int = 0, epoch: int = 0) -> str:
    """What the model sees of the row or window in that epoch, its label, and what was hidden."""
    example = prepared.train.example(row, epoch)
    for objective in prepared.objectives:
        key = ("corrupt", objective.name, prepared.node.seed, epoch, example.row)
        example = objective.corrupt(example, keyed_generator(*key))
    lines = [f"seen: {_spaced(prepared.tokenizer, one)}" for one in example.sequences]
    for belongs in example.segments:
        lines.append(f"segments: {_runs(belongs)}")
    if example.label is not None:
        names = prepared.labels.names if prepared.labels else prepared.window_labels
        lines.append(f"label: {names[int(example.label)] if names else example.label}")
    return "\n".join(lines + _hidden(prepared.tokenizer, example))


def _hidden(tokenizer: Tokenizer, example: Example) -> list[str]:
    """What stood at the chosen positions, and what stands there now."""
    if example.chosen is None:
        return []
    seen = np.concatenate(example.sequences)
    return [
        f"position {place}: {_text(tokenizer, int(truth))}, seen as {_text(tokenizer, int(seen[place]))}"
        for place, truth in zip(*example.chosen)
    ]


def _spaced(tokenizer: Tokenizer, ids: np.ndarray) -> str:
    return " ".join(_text(tokenizer, int(token)) for token in ids)


def _text(tokenizer: Tokenizer, token: int) -> str:
    """A token for the eye, its own spaces as "_"."""
    return tokenizer.decode([token]).replace(" ", "_").replace("\n", "\\n")


def _runs(belongs: np.ndarray) -> str:
    """ "0 x 7, 1 x 5" """
    borders = np.flatnonzero(np.diff(belongs)) + 1
    return ", ".join(f"{part[0]} x {len(part)}" for part in np.split(belongs, borders))


def shown(recipe: Path, stage: str | None = None, row: int = 0, epoch: int = 0) -> str:
    """The same for a stage of a recipe file, the first unless named."""
    file = read_recipe(recipe)
    with tempfile.TemporaryDirectory(prefix="gradus-") as cache:
        material = Material(data_root(file, None), Path(cache))
        nodes = list(make_plan(file, material).nodes.values())
        node = next(node for node in nodes if stage in (None, node.name))
        return show(prepare(node, material), row, epoch)


if __name__ == "__main__":
    print(shown(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None))
