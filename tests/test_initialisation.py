"""How wide each matrix begins, and what that makes of activations and gradients over depth."""

from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np
import pytest
import torch

from gradus.core.example import ragged
from gradus.core.model import ModelConfig
from gradus.nn.transformer import Transformer
from gradus.optim.optimizers import AdamW

WIDTH, LAYERS, VOCABULARY = 128, 3, 50
KINDS = get_args(ModelConfig.model_fields["initialisation"].annotation)


def built(kind: str, **changes: Any) -> Transformer:
    shape = {"layers": LAYERS, "width": WIDTH, "heads": 4, "context": 64, "vocab_size": VOCABULARY}
    config = ModelConfig(**shape | {"dropout": 0.0, "initialisation": kind} | changes)
    return Transformer(config, torch.float64).initialise(5)


WANTED = {
    "normal": (0.02, 0.02, 0.02, 0.02),
    "residual": (0.02, 0.02 / math.sqrt(6), 0.02, 0.02 / math.sqrt(6)),
    "depth": (0.02, 0.02 / math.sqrt(3), 0.02, 0.02 / math.sqrt(3)),
    "xavier": (math.sqrt(1 / 128), math.sqrt(1 / 128), math.sqrt(2 / 640), math.sqrt(2 / 640)),
    "kaiming": (math.sqrt(2 / 128), math.sqrt(2 / 128), math.sqrt(2 / 128), math.sqrt(2 / 512)),
    "fan_in": (128**-0.5, 128**-0.5, 128**-0.5, 512**-0.5),
}


@pytest.mark.parametrize("kind", list(WANTED))
def test_matrices_begin_as_the_papers_say(kind: str) -> None:
    block = built(kind).blocks[1]
    parts = (block.attention.query_key_value, block.attention.output, block.feed_forward.up,
             block.feed_forward.down)  # fmt: skip
    for part, wanted in zip(parts, WANTED[kind]):
        assert float(part.weight.detach().std()) == pytest.approx(wanted, rel=0.03)
        assert not part.bias.any()
    assert float(built(kind).embedding.tokens.weight.detach().std()) == pytest.approx(0.02, rel=0.05)


def test_t5_has_a_scale_for_each_matrix() -> None:
    changes = {"arrangement": "encoder_decoder", "positions": "relative", "head_width": 16, "biases": False,
               "tie_embeddings": False}  # fmt: skip
    made = built("t5", **changes)
    block, queries = made.blocks[0], 4 * 16
    fused = block.attention.query_key_value.weight
    for matrix, wanted in (
        (fused[:queries], (WIDTH * 16) ** -0.5),
        (fused[queries:], WIDTH**-0.5),
        (block.cross_attention.query.weight, (WIDTH * 16) ** -0.5),
        (block.cross_attention.key_value.weight, WIDTH**-0.5),
        (block.attention.output.weight, queries**-0.5),
        (block.feed_forward.down.weight, (4 * WIDTH) ** -0.5),
        (made.embedding.tokens.weight, 1.0),
        (made.unembedding.weight, WIDTH**-0.5),
        (made.encoder.relative.weight, WIDTH**-0.5),
    ):
        assert float(matrix.detach().std()) == pytest.approx(wanted, rel=0.15)


def test_every_kind_has_its_row() -> None:
    assert set(KINDS) == {*WANTED, "t5"}


def scales(made: Transformer) -> tuple[list[float], list[float]]:
    """Root mean squares of the states after each layer, and of each layer's first gradient."""
    found: list[torch.Tensor] = []
    for block in made.blocks:
        block.register_forward_hook(lambda _, __, states: found.append(states.detach()))
    random = np.random.default_rng(1)
    texts = [random.integers(0, VOCABULARY, 32) for _ in range(8)]
    states = made(ragged(texts))
    value = torch.from_numpy(np.concatenate([np.roll(text, -1) for text in texts]))
    (made.token_loss(states, value, torch.ones(len(value), dtype=torch.float64)) / len(value)).backward()
    gradients = [block.feed_forward.up.weight.grad.square().mean().sqrt() for block in made.blocks]
    return [float(one.square().mean().sqrt()) for one in found], [float(one) for one in gradients]


def test_the_last_gradient_falls_with_depth_only_where_the_norm_stands_before() -> None:
    """Xiong et al. 2020, theorem 1: at the start the gradient of the last layer does not depend on the number
    of layers L with the norm after the sum, and falls as 1/sqrt(L) with the norm before each branch."""
    last = {
        (norm, layers): scales(built("normal", layers=layers, norm=norm, initial_deviation=WIDTH**-0.5))[1][
            -1
        ]
        for norm in ("after", "before")
        for layers in (4, 16)
    }
    assert last["after", 4] / last["after", 16] == pytest.approx(1, rel=0.15)
    assert last["before", 4] / last["before", 16] == pytest.approx(2, rel=0.25)


def test_states_keep_their_size_or_grow_with_the_branches_that_are_added() -> None:
    after, _ = scales(built("normal", layers=16))
    assert max(after) / min(after) < 1.01
    wide = {"layers": 16, "norm": "before", "initial_deviation": WIDTH**-0.5}
    before, scaled = (scales(built(kind, **wide))[0] for kind in ("normal", "residual"))
    growth = (scaled[-1] ** 2 - scaled[0] ** 2) / (before[-1] ** 2 - before[0] ** 2)
    assert growth == pytest.approx(1 / 32, rel=0.5), "each branch adds 1 / (2 layers) of what it added"


def moved(width: int, tuned: int | None) -> float:
    """How far three steps of Adam move the logits of a model of this width: the coordinate check of Yang et
    al. 2022, appendix D.1."""
    made = built("normal", layers=2, width=width, head_width=16, heads=width // 16, tuned_width=tuned).float()
    made.precision = made.embedding.precision = torch.float32
    made.train()
    (optimizer,) = AdamW(lr=3e-3, weight_decay=0.0).build(made.named_parameters())
    random = np.random.default_rng(2)
    source = ragged([random.integers(0, VOCABULARY, 32) for _ in range(8)])
    value = source.tokens.roll(-1)
    before = made.logits(made(source)).detach()
    for _ in range(3):
        loss = made.token_loss(made(source), value, torch.ones(len(value))) / len(value)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return float((made.logits(made(source)).detach() - before).square().mean().sqrt())


def test_steps_move_wide_models_as_far_as_narrow_ones_where_the_tuned_width_is_given() -> None:
    assert moved(512, None) > 2.5 * moved(64, None)
    assert moved(512, 64) == pytest.approx(moved(64, 64), rel=0.35)
    assert moved(64, 64) == moved(64, None)


def test_the_rate_of_wide_matrices_is_a_group_of_its_own() -> None:
    made = built("normal", tuned_width=32)
    groups = AdamW(lr=1e-3, weight_decay=0.01).build(made.named_parameters())[0].param_groups
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [
        (1e-3, 0.01), (2.5e-4, 0.04), (1e-3, 0.0),
    ]  # fmt: skip
    assert sum(len(group["params"]) for group in groups) == len(list(made.parameters()))
