"""States of frozen layers are computed once: the same gradients, the same bits after any death, counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy
from safetensors.torch import load_file
from test_frozen import counted
from tiny import killed_and_whole, tiny

import gradus
from gradus.core.example import collate
from gradus.data.feed import Feed, cut
from gradus.data.sources import Rows
from gradus.pipeline.planning.effort import work
from gradus.pipeline.run import run
from gradus.training.frozen import StateCache, frozen_layers
from gradus.training.learner import Learner

LOWEST = ["transformer.embedding.*", "transformer.relative.*", "transformer.blocks.0.*"]
SHAPES: dict[str, dict[str, Any]] = {
    "gpt1": {},
    "llama": {"norm": "before", "norm_kind": "rms", "gated": True, "biases": False, "positions": "rotary"},
    "relative": {"norm": "before", "positions": "relative", "tie_embeddings": False},
    "banded": {"norm": "before", "window": 4},
    "lstm": {"body": "lstm", "units": 8},
}


def kept(made: Learner, folder: Path, rows: Rows, budget: int = 64) -> Any:
    made.lighten(None, LOWEST, 1)
    made.transformer.cached = frozen_layers(made.transformer, 2)
    assert made.transformer.cached == 1
    return StateCache(folder, 1.0, {}, budget).over(rows, made.transformer, toy.ALONE)


def rows_of(count: int = 8) -> Rows:
    return Rows(toy.examples(count), [f"toy:{row}" for row in range(count)])


@pytest.mark.parametrize("shape", SHAPES)
def test_kept_states_give_the_gradients_of_computed_ones(shape: str, tmp_path: Path) -> None:
    made, rows = toy.learner(**SHAPES[shape]), rows_of()
    source = kept(made, tmp_path, rows)
    order = [5, 0, 7, 2, 1]
    found = []
    for drawn in (source, rows):
        made.zero_grad()
        batch = made.prepare([drawn.example(row) for row in order])
        assert (batch.below is None) == (drawn is rows)
        total = made(batch)
        total.sum().backward()
        found.append([total.detach(), *(one.grad for one in made.parameters() if one.requires_grad)])
    for ours, wanted in zip(*found):
        assert torch.allclose(ours, wanted, rtol=1e-10, atol=1e-12)
    assert len(source) == len(rows) and source.tokens == rows.tokens and source.longest == rows.longest
    assert source.where(3) == "toy:3"


def test_frozen_layers_run_without_dropout_and_the_others_with(tmp_path: Path) -> None:
    made, rows = toy.learner(dropout=0.3), rows_of()
    source = kept(made.train(), tmp_path, rows)
    assert made.training
    batch = made.prepare([source.example(row) for row in range(8)])
    plain = made.eval().transformer.lowest(batch.source)
    assert torch.allclose(batch.below[: batch.tokens], plain[: batch.tokens], rtol=1e-12)
    made.train()
    assert not torch.equal(made(batch), made(batch))


def test_the_states_of_a_row_do_not_go_by_the_batch_it_is_in(tmp_path: Path) -> None:
    made, rows = toy.learner(dtype=torch.float32), rows_of(20)
    source = kept(made, tmp_path, rows)
    feed = Feed(source, 7, 3, total=200)
    seen: dict[int, torch.Tensor] = {}
    for step in range(feed.steps):
        for _, example in feed.examples(step):
            before = seen.setdefault(example.row, example.below.clone())  # type: ignore[union-attr]
            assert torch.equal(before, example.below)  # type: ignore[arg-type]
    (file,) = tmp_path.glob("states-*.bin")
    first = file.read_bytes()
    file.unlink()
    kept(made, tmp_path, rows)
    assert file.read_bytes() == first
    by_hand = [made.eval().transformer.lowest(collate(part, []).source)[: sum(one.tokens for one in part)]
               for part in cut(rows.examples, 64)]  # fmt: skip
    assert torch.cat(by_hand).numpy().tobytes() == first


def test_a_step_counts_no_forward_of_what_is_kept(tmp_path: Path) -> None:
    made, rows = toy.learner(dtype=torch.float32, auxiliary=1.0), rows_of(16)
    shapes = {name: parameter.shape for name, parameter in made.named_parameters()}
    batch = made.prepare(rows.examples)
    whole = counted(made, batch)
    source = kept(made, tmp_path, rows)
    learning = [name for name, parameter in made.named_parameters() if parameter.requires_grad]
    seen, done = float(np.mean([one.tokens for one in rows.examples])), []
    for drawn, cached in ((rows, 0), (source, 1)):
        part = made.prepare([drawn.example(row) for row in range(16)])
        done.append(counted(made, part) / whole)
        assert done[-1] == pytest.approx(
            work(made.transformer.config, shapes, learning, seen, 1.0, cached), abs=0.08
        )
    assert done[1] < done[0] - 0.1


@pytest.mark.parametrize("change", ["weights", "rows", "layers", "conditions"])
def test_what_decides_the_states_is_in_their_name(change: str, tmp_path: Path) -> None:
    made, rows, conditions = toy.learner(), rows_of(), {}
    kept(made, tmp_path, rows)
    with torch.no_grad():
        made.get_parameter("transformer.blocks.1.feed_forward.up.weight").mul_(2)  # above: decides nothing
    kept(made, tmp_path, rows)
    assert len(list(tmp_path.glob("states-*"))) == 1
    if change == "weights":
        with torch.no_grad():
            made.get_parameter("transformer.blocks.0.feed_forward.up.weight")[0, 0] += 1e-9
    elif change == "rows":
        rows = rows_of(9)
    elif change == "layers":
        made.transformer.cached = 2
    else:
        conditions = {"threads": 2}
    StateCache(tmp_path, 1.0, conditions, 64).over(rows, made.transformer, toy.ALONE)
    assert len(list(tmp_path.glob("states-*"))) == 2


def test_the_oldest_go_beyond_the_bound(tmp_path: Path) -> None:
    made, rows = toy.learner(), rows_of()
    size = rows.tokens * 16 * 8  # float64
    for turn in range(4):
        with torch.no_grad():
            made.get_parameter("transformer.blocks.0.feed_forward.up.weight").add_(0.1)
        made.lighten(None, LOWEST, 1)
        made.transformer.cached = 1
        StateCache(tmp_path, 2.5 * size / 1e9, {}, 64).over(rows, made.transformer, toy.ALONE)
        assert len(list(tmp_path.glob("states-*"))) == min(turn + 1, 2)


CACHED = {
    "model": {"preset": "gpt1-tiny", "layers": 3, "width": 16, "heads": 2, "context": 32},
    "stages.finetune.freeze": ["transformer.embedding.*", "transformer.blocks.0.*"],
    "stages.finetune.cache_frozen": {},
    "stages.finetune.objectives": [{"kind": "classification"}],
}


def test_a_death_while_layers_thaw_resumes_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is cached stays frozen while what stands on it learns, layer by layer, from steps 4 and 8 on."""
    thaw = {
        "stages.finetune.unfreeze": {"layers": 1, "every": "4 steps"},
        "stages.finetune.save": {"every": "6 steps"},
    }
    path = tiny(tmp_path / "one.yaml", CACHED | thaw)
    weights, again = killed_and_whole(path, "finetune", monkeypatch)
    before = load_file(next((tmp_path / "whole").glob("one/stages/pretrain-*/model/model.safetensors")))
    after = load_file(weights)
    for name, tensor in before.items():  # by the names of OpenAI's GPT
        assert torch.equal(after[name], tensor) == ("embed" in name or "h.0." in name), name
    # A cache that is lost is made again.
    kept_files = list((tmp_path / "killed").glob("cache/states-*.bin"))
    assert len(kept_files) == 1
    kept_files[0].unlink()
    run(path, runs=tmp_path / "killed", device="cpu", until="finetune", fresh=True)
    assert again.read_bytes() == weights.read_bytes()


def test_a_death_while_states_are_made_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gradus.nn.transformer import Transformer

    path = tiny(tmp_path / "one.yaml", CACHED)
    whole = run(path, runs=tmp_path / "whole", device="cpu")
    with monkeypatch.context() as patch:
        patch.setattr(Transformer, "lowest", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(path, runs=tmp_path / "killed", device="cpu")
    assert not list((tmp_path / "killed").glob("cache/states-*"))
    again = run(path, runs=tmp_path / "killed", device="cpu")
    for folder in (whole / "stages").iterdir():
        model = "model/model.safetensors"
        assert (folder / model).read_bytes() == (again / "stages" / folder.name / model).read_bytes()


def test_check_tells_and_counts_what_is_kept(tmp_path: Path) -> None:
    path = tiny(tmp_path / "one.yaml", CACHED)
    told = gradus.check(path, runs=tmp_path, device="cpu")
    tokens = told.nodes[1].prepared.train.tokens
    size = f"{tokens * 16 * 4 / 1e6:,.1f} MB"
    note = "finetune: what the lowest 1 layer of 3 make of train is computed once, without dropout, and takes"
    assert f"{note} {size} at most" in told.notes
    longer = {"stages.finetune.length": "50 epochs"}
    with_it, without = (
        gradus.check(path, runs=tmp_path, device="cpu", settings=longer | more).nodes[1].estimate
        for more in ({}, {"stages.finetune.cache_frozen": None})
    )
    # Of 3 layers forward, 2 back and 2 to the weights, one forward is done once in 50 epochs.
    assert with_it.flops == pytest.approx(without.flops * (6 + 1 / 50) / 7, rel=0.01)
    assert with_it.disk == without.disk + tokens * 16 * 4


@pytest.mark.parametrize("patch, told", [
    ({"stages.finetune.freeze": ["transformer.blocks.0.*"]},
     "cache_frozen: no layer on the embedding is frozen with all below it"),
    ({"stages.finetune.cache_frozen": {"gigabytes": 1e-5}},
     "cache_frozen.gigabytes: too little room: '1e-05' (the states of train take 0.0"),
    ({"stages.finetune.cache_frozen": {"gigabytes": 0}}, "cache_frozen.gigabytes"),
    ({"stages.finetune.augment": [{"kind": "deletion"}]}, "cache_frozen: what is augmented is read anew"),
    ({"stages.pretrain.cache_frozen": {}, "stages.pretrain.window_ramp": {"from": "8 tokens"}},
     "cache_frozen: windows that grow are read anew"),
    ({"stages.pretrain.cache_frozen": {}, "stages.pretrain.objectives": [{"kind": "prefix_lm"}]},
     "cache_frozen: this objective changes what is read anew every epoch: 'prefix_lm'"),
    ({"stages.pretrain.cache_frozen": {}, "stages.pretrain.freeze": ["transformer.[eb]*"],
      "stages.pretrain.model": {"dropout": 0}, "model": {"preset": "gpt2-tiny", "context": 32},
      "stages.pretrain.data": {"mix": {one: {"kind": "text", "train": "builtin:tiny"} for one in "ab"}}},
     "cache_frozen: what is drawn or mixed anew every epoch cannot be kept"),
])  # fmt: skip
def test_mistakes_are_told(
    patch: dict[str, Any], told: str, tmp_path: Path, command: Callable[..., Any]
) -> None:
    status, said = command("check", tiny(tmp_path / "one.yaml", CACHED | patch), "--runs", tmp_path)
    assert status == 2 and told in said and "Traceback" not in said
