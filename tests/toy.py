"""A toy small enough to compute a law in float64 in a moment: examples, a learner, a trainer."""

from __future__ import annotations

import numpy as np
import torch

from gradus.core.example import Example
from gradus.core.keyed import keyed_generator
from gradus.core.model import ModelConfig
from gradus.data.feed import Feed
from gradus.data.sources import Rows
from gradus.distributed.world import World
from gradus.nn.transformer import Transformer
from gradus.objectives import CausalLMConfig, ClassificationConfig, Task
from gradus.optim.optimizers import AdamW
from gradus.optim.schedules import Cosine
from gradus.training.learner import Learner
from gradus.training.trainer import Trainer

ALONE = World()
VOCABULARY, CONTEXT, CLASSES = 50, 24, 3


def model(dropout: float = 0.0, **changes: object) -> ModelConfig:
    return ModelConfig(
        layers=2, width=16, heads=2, context=CONTEXT, vocab_size=VOCABULARY, dropout=dropout, **changes
    )


def examples(count: int = 8, longest: int = CONTEXT) -> list[Example]:
    """Rows of many lengths; some without a label, so that counts differ between objectives and
    micro-batches."""
    random = keyed_generator("toy", count)
    made = []
    for row in range(count):
        tokens = random.integers(0, VOCABULARY, int(random.integers(2, longest + 1)))
        made.append(Example(row, (tokens,), label=None if row % 4 == 3 else row % CLASSES))
    return made


def learner(
    dropout: float = 0.0, dtype: torch.dtype = torch.float64, auxiliary: float = 0.5, **changes: object
) -> Learner:
    shape = model(dropout, **changes)
    task = Task(shape, "toy", tuple("abc"[:CLASSES]))
    objectives = [
        ClassificationConfig(dropout=dropout).build(task),
        CausalLMConfig(weight=auxiliary).build(task),
    ]
    made = Learner(Transformer(shape, dtype), objectives).initialise(1)
    return made.to(torch.promote_types(dtype, torch.float32))


def trainer(
    made: Learner,
    rows: list[Example],
    *,
    batch: int = 8,
    total: int = 32,
    budget: int = 64,
    world: World = ALONE,
) -> Trainer:
    feed = Feed(Rows(rows, [f"toy:{row.row}" for row in rows]), batch, 7, total, world.rank, world.size)
    optimizer = AdamW(lr=1e-2).build(made.named_parameters())
    return Trainer(made, feed, optimizer, Cosine(), world, warmup=2, budget=budget)


def always(clock: object) -> frozenset[str]:
    return frozenset({"report"})


def parameters(made: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy().copy() for name, tensor in made.state_dict().items()}
