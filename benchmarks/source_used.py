"""Does an encoder-decoder read its source? Its loss on dev with the right source beside another window's.

    python benchmarks/source_used.py RECIPE RUN_DIR

of every pre-trained encoder-decoder of a run. As long as both are equal the decoder is a language
model of its own output, and the encoder's states tell it nothing.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from gradus.families.folder import read_folder
from gradus.nn.transformer import Transformer
from gradus.pipeline.planning.material import Material
from gradus.pipeline.planning.plan import Node, make_plan
from gradus.pipeline.planning.prepare import prepare
from gradus.pipeline.recipes.reading import read_recipe
from gradus.pipeline.run import data_root
from gradus.training.learner import Learner
from gradus.training.transfer import transfer

WINDOWS = 48


def losses(node: Node, folder: Path, material: Material) -> tuple[float, float]:
    """Nats a target of 48 windows of dev, spread over it: with their own sources, and each with another's."""
    prepared = prepare(node, material)
    learner = Learner(Transformer(prepared.model), prepared.objectives).eval()
    transfer(learner, read_folder(folder).tensors, {}, str(folder))
    dev = prepared.splits["dev"].source
    places = range(0, len(dev), max(1, len(dev) // WINDOWS))
    own = [learner.corrupted(dev.example(place), 1) for place in list(places)[:WINDOWS]]
    others = [replace(one, sequences=own[place - 7].sequences) for place, one in enumerate(own)]
    with torch.no_grad():
        sums = [learner(learner.prepare(rows)).sum() for rows in (own, others)]
    count = sum(
        float(objective.targets(one).weight.sum()) for objective in prepared.objectives for one in own
    )
    return float(sums[0]) / count, float(sums[1]) / count


def main() -> None:
    recipe, run = Path(sys.argv[1]), Path(sys.argv[2])
    file = read_recipe(recipe)
    material = Material(data_root(file, None), run.parent / "cache")
    for node in make_plan(file, material).nodes.values():
        folder = run / "stages" / node.id / "model"
        if node.stage.reads != "text" or not (folder / "config.json").is_file():
            continue
        if read_folder(folder).config.arrangement == "encoder_decoder":
            own, others = losses(node, folder, material)
            kind = node.stage.objectives[0].kind
            print(f"{kind}: {own:.3f} nats a target, {others:.3f} with another window's source")


if __name__ == "__main__":
    main()
