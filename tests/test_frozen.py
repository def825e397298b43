"""What is frozen costs no backward and no memory: counted, not timed, and what `check` says of it."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import torch
import toy
from tiny import tiny
from torch.utils.flop_counter import FlopCounterMode

import gradus
from gradus.core.example import Batch, Example
from gradus.core.keyed import keyed_generator
from gradus.nn.transformer import Transformer
from gradus.objectives import CausalLMConfig, Task
from gradus.pipeline.planning.effort import work
from gradus.training.learner import Learner

LAYERS, LENGTH = 4, 64


def language_model(**changes: Any) -> Learner:
    """Four layers in fp32 under causal_lm."""
    shape = toy.model(**changes).model_copy(update={"layers": LAYERS, "context": LENGTH, "width": 64})
    objective = CausalLMConfig().build(Task(shape, "toy"))
    return Learner(Transformer(shape, torch.float32), [objective]).initialise(1)


def batch_of(learner: Learner, rows: int = 8) -> Batch:
    random = keyed_generator("frozen")
    return learner.prepare(
        [Example(row, (random.integers(0, toy.VOCABULARY, LENGTH),)) for row in range(rows)]
    )


def counted(learner: Learner, batch: Batch) -> int:
    """FLOPs of products, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        learner(batch).sum().backward()
    return counter.get_total_flops()


FROZEN = {
    "nothing": [],
    "embeddings": ["transformer.embedding.*"],
    "two layers": ["transformer.embedding.*", "transformer.blocks.[01].*"],
    "three layers": ["transformer.embedding.*", "transformer.blocks.[012].*"],
    "a layer in the middle": ["transformer.blocks.2.*"],
    "all but norms": [
        "*attention.q*",
        "*.output.*",
        "*feed_forward.up*",
        "*feed_forward.down*",
        "*embedding*",
    ],
}


@pytest.mark.parametrize("norm", ["before", "after"])
@pytest.mark.parametrize("frozen", FROZEN)
def test_the_work_of_a_step_is_what_its_products_say(frozen: str, norm: str) -> None:
    learner = language_model(norm=norm)
    batch = batch_of(learner)
    whole = counted(learner, batch)
    shapes = {name: parameter.shape for name, parameter in learner.named_parameters()}
    learner.lighten(None, FROZEN[frozen], 1)
    learning = [name for name, parameter in learner.named_parameters() if parameter.requires_grad]
    said = work(learner.transformer.config, shapes, learning, LENGTH, 1.0)
    assert counted(learner, batch) / whole == pytest.approx(said, abs=0.06)
    assert (said == 1) == (frozen == "nothing")


def saved_bytes(learner: Learner, batch: Batch) -> int:
    """What a forward keeps for backward beside the parameters themselves."""
    own = {parameter.data_ptr() for parameter in learner.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in own:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        total = learner(batch).sum()
    assert total.requires_grad
    return sum(kept.values())


def test_a_frozen_layer_keeps_nothing_for_backward_and_nothing_in_the_optimizer() -> None:
    from gradus.optim.optimizers import AdamW

    kept = []
    for frozen in range(LAYERS):
        learner = language_model()
        patterns = ["transformer.embedding.*", *(f"transformer.blocks.{layer}.*" for layer in range(frozen))]
        learner.lighten(None, patterns, 1)
        batch = batch_of(learner)
        kept.append(saved_bytes(learner, batch))
        (optimizer,) = AdamW().build(learner.named_parameters())
        learner(batch).sum().backward()
        optimizer.step()
        moments = sum(
            tensor.numel() for state in optimizer.state.values() for tensor in state.values() if tensor.dim()
        )
        free = [one for name, one in learner.named_parameters()
                if not any(fnmatchcase(name, pattern) for pattern in patterns)]  # fmt: skip
        assert moments == 2 * sum(parameter.numel() for parameter in free)
        assert all((one.grad is not None) == (one in set(free)) for one in learner.parameters())
    layers = [more - less for more, less in zip(kept, kept[1:])]
    assert min(layers) > 0 and max(layers) == pytest.approx(min(layers), rel=0.05)
    assert kept[-1] < 1.5 * layers[0]  # one layer is left, and next to nothing else


def test_check_knows_what_learns_and_when(tmp_path: Path) -> None:
    """With everything frozen below the head there is a forward and nothing else; layers that join at the
    half cost from there on."""
    model = {"preset": "gpt1-tiny", "layers": 4, "width": 32, "heads": 2, "context": 32}
    rows = {"stages.finetune.objectives": [{"kind": "classification"}], "model": model}

    def flops(patch: dict[str, Any]) -> float:
        path = tiny(
            tmp_path / "one.yaml", rows | {f"stages.finetune.{key}": one for key, one in patch.items()}
        )
        return gradus.check(path, runs=tmp_path, device="cpu").nodes[1].estimate.flops

    whole = flops({})
    assert flops({"freeze": ["transformer.*"]}) == pytest.approx(whole / 3)
    top = flops({"freeze": ["transformer.embedding.*", "transformer.blocks.[012].*"]})
    assert top == pytest.approx(whole * (1 + 1 / 4 + 1 / 4) / 3)
    by_halves = flops({"unfreeze": {"layers": 1, "every": "6 steps"}, "length": "12 steps"})
    two = flops({"freeze": ["transformer.embedding.*", "transformer.blocks.[01].*"]})
    assert by_halves == pytest.approx((top + two) / 2)
