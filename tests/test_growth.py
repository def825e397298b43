"""A shallow model grown deeper: where every tensor comes from, and whether it computes what it did."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy
from tiny import killed_and_whole, tiny

import gradus
from gradus.core.errors import UserError
from gradus.core.example import Example, ragged
from gradus.core.keyed import keyed_generator
from gradus.nn.transformer import Transformer
from gradus.training.growth import Grow
from gradus.training.learner import Learner
from gradus.training.transfer import transfer


@pytest.mark.parametrize(
    "by, layers, origins, silent",
    [
        ("stack", 4, [0, 1, 0, 1], []),
        ("stack", 5, [0, 1, 0, 1, 0], []),
        ("interleave", 4, [0, 0, 1, 1], []),
        ("interleave", 5, [0, 0, 0, 1, 1], []),
        ("identity", 4, [0, 0, 1, 1], [1, 3]),
        ("identity", 3, [0, 0, 1], [1]),
    ],
)
def test_where_layers_come_from(by: Any, layers: int, origins: list[int], silent: list[int]) -> None:
    grow = Grow(layers=layers, by=by)
    assert grow.origins(2) == origins
    assert [place for place, quiet in enumerate(grow.silent(2)) if quiet] == silent


SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"norm": "before"},
    "llama": {"norm": "before", "norm_kind": "rms", "gated": True, "biases": False, "positions": "rotary"},
    "t5": {"norm": "before", "positions": "relative", "arrangement": "encoder_decoder", "biases": False},
    "lstm": {"body": "lstm", "units": 8},
    "gpt1": {"norm": "after"},
}


def grown(shape: dict[str, Any], grow: Grow, dtype: torch.dtype = torch.float32) -> tuple[Learner, Learner]:
    """A learner of two layers, and the deeper one that was made of it; the table names every tensor once."""
    shallow = toy.learner(dtype=dtype, **shape)
    with torch.no_grad():
        for parameter in shallow.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)) * 0.1)
    model = grow.grown(shallow.transformer.config)
    deep = Learner(Transformer(model, dtype), shallow.objectives).initialise(2)
    given = {name.removeprefix("transformer."): tensor for name, tensor in shallow.state_dict().items()}
    tensors, copied = grow.tensors(given, 2)
    table = transfer(deep, tensors, {"toy": "toy"}, "here")
    assert [moved.tensor for moved in table] == sorted(deep.state_dict())
    assert {moved.what for moved in table} == {"loaded"}
    assert copied.keys() == {name for name in deep.state_dict() if "blocks." in name}
    for name, moved in copied.items():
        before, _, after = name.partition("blocks.")
        layer, rest = after.split(".", 1)
        origin = shallow.state_dict()[f"{before}blocks.{grow.origins(2)[int(layer)]}.{rest}"]
        if moved.what == "loaded":
            assert moved.why == f"copied from layer {grow.origins(2)[int(layer)]}"
            assert torch.equal(deep.state_dict()[name], origin), name
        else:
            assert not deep.state_dict()[name].any() and origin.any(), name
    return shallow.eval(), deep.eval()


def states(learner: Learner) -> torch.Tensor:
    random = keyed_generator("growth")
    source = ragged([random.integers(0, toy.VOCABULARY, length) for length in (5, 11, 24)])
    decoded = source if learner.transformer.config.encodes_and_decodes else None
    with torch.no_grad():
        return learner.transformer(source, decoded)


@pytest.mark.parametrize("shape", [name for name in SHAPES if name != "gpt1"])
def test_a_model_grown_by_identities_computes_the_same_bits(shape: str) -> None:
    for layers in (3, 4, 5):
        shallow, deep = grown(SHAPES[shape], Grow(layers=layers, by="identity"))
        assert torch.equal(states(shallow), states(deep))
    stacked = grown(SHAPES[shape], Grow(layers=4, by="stack"))
    assert not torch.allclose(states(stacked[0]), states(stacked[1]), rtol=1e-2)


@pytest.mark.parametrize("by", ["stack", "interleave"])
@pytest.mark.parametrize("shape", SHAPES)
def test_copies_are_copies(shape: str, by: Any) -> None:
    for layers in (3, 4, 5):
        grown(SHAPES[shape], Grow(layers=layers, by=by))


def test_what_begins_as_the_identity_learns() -> None:
    _, deep = grown(SHAPES["gpt2"], Grow(layers=4, by="identity"), torch.float64)
    deep.train()
    batch = deep.prepare([Example(0, (np.arange(9),), label=1)])
    deep(batch).sum().backward()
    for name in ("attention.output.weight", "feed_forward.down.bias"):
        assert deep.get_parameter(f"transformer.blocks.1.{name}").grad.abs().max() > 0  # type: ignore[union-attr]


@pytest.mark.parametrize("layers, by, change, told", [
    (2, "stack", {}, "grow.layers: the model has as many layers: '2' .more than 2"),
    (4, "identity", {"norm": "after"}, "grow.by: with the norm after .* 'identity' .stack or interleave"),
    (4, "identity", {"norm": "before", "window": 8}, "grow.by: every second layer has the window"),
])  # fmt: skip
def test_what_cannot_grow_is_told(layers: int, by: Any, change: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        Grow(layers=layers, by=by).grown(toy.model(**change))


def deeper(path: Path, by: str, **more: Any) -> Path:
    """The tiny recipe with a stage between its two, in which one layer becomes three."""
    recipe = {
        "model": {"preset": "gpt2-tiny", "layers": 1, "width": 16, "heads": 2, "context": 32, "dropout": 0},
        "stages.deepen": {
            "from": "pretrain",
            "grow": {"layers": 3, "by": by},
            "data": {"kind": "text", "train": "builtin:tiny", "dev": "builtin:tiny"},
            "objectives": [{"kind": "causal_lm"}],
            "batch": "16 windows",
            "length": "6 steps",
            **more,
        },
        "stages.finetune.from": "deepen",
    }
    return tiny(path, recipe)


def record(folder: Path, stage: str) -> dict[str, Any]:
    (found,) = folder.glob(f"stages/{stage}-*/stage.json")
    return json.loads(found.read_text(encoding="utf-8"))


def test_a_run_goes_on_where_the_shallow_model_stopped(tmp_path: Path) -> None:
    """With a rate of next to nothing the deeper model's bits per byte are those of the shallow one, and
    transformers opens what it leaves."""
    from transformers import AutoModelForCausalLM

    still = {"optimizer": {"kind": "sgd", "lr": 1e-20}}
    path = deeper(tmp_path / "one.yaml", "identity", **still)
    checks = gradus.check(path, runs=tmp_path)
    assert "deepen: grows to 3 layers by identity: it computes what it did" in checks.notes
    shallow, deep, later = (one.estimate.parameters for one in checks.nodes)
    assert deep - shallow == 2 * 3280  # 12 x 16 x 16 + 13 x 16 a layer
    folder = gradus.run(path, runs=tmp_path, device="cpu")
    before, after = (record(folder, stage)["results"]["dev"] for stage in ("pretrain", "deepen"))
    assert after["bits_per_byte"] == pytest.approx(before["bits_per_byte"], rel=1e-6)
    moved = {one["tensor"]: one for one in record(folder, "deepen")["transfer"]}
    assert moved["transformer.blocks.2.attention.query_key_value.weight"]["why"] == "copied from layer 0"
    assert moved["transformer.blocks.2.attention.output.weight"]["what"] == "new"
    (model,) = folder.glob("stages/finetune-*/model")
    assert AutoModelForCausalLM.from_pretrained(model).config.n_layer == 3
    assert later >= deep


def test_growth_resumes_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = deeper(
        tmp_path / "one.yaml", "stack", save={"every": "2 steps"}, unfreeze={"layers": 1, "every": "2 steps"}
    )
    killed_and_whole(path, "deepen", monkeypatch)


@pytest.mark.parametrize("patch, told", [
    ({"from": "scratch"}, "grow: only a whole model grows (start `from` a stage or a folder"),
    ({"transfer": "word vectors"}, "grow: only a whole model grows"),
    ({"adapters": {}}, "adapters: they belong to a folder"),
    ({"grow": {"layers": 1}}, "grow.layers: "),
    ({"grow": {"layers": 3, "by": "stak"}}, "grow.by: "),
    ({"model": {"layers": 3}}, "layers"),
    ({"grow": {"layers": 3, "by": "identity"}, "from": "old"}, "grow.by: with the norm after"),
])  # fmt: skip
def test_mistakes_are_told(
    patch: dict[str, Any], told: str, tmp_path: Path, command: Callable[..., Any]
) -> None:
    path = deeper(tmp_path / "one.yaml", "stack", **patch)
    if patch.get("from") == "old":
        path.write_text(
            path.read_text().replace("gpt2-tiny", "gpt1-tiny").replace("from: old", "from: pretrain")
        )
    status, said = command("check", path, "--runs", tmp_path)
    assert status == 2 and told in said and "Traceback" not in said
