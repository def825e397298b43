"""Low-rank adapters: nothing changes at their start, nothing else learns, and merged they do the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import toy
from safetensors.torch import load_file
from tiny import killed_and_whole, tiny

import gradus
from gradus.core.errors import UserError
from gradus.nn.adapters import Adapters, merged, projections_of
from gradus.training.learner import Learner

EVERYWHERE = ["query", "key", "value", "output", "feed_forward"]
LARGE = {"initial_deviation": 0.3}
BODIES: dict[str, dict[str, Any]] = {
    "gpt": LARGE,
    "grouped and gated": LARGE | {"kv_heads": 1, "gated": True, "biases": False, "positions": "rotary"},
    "narrow heads": LARGE | {"head_width": 6, "norm": "before"},
}


def adapted(on: list[str], rank: int = 3, dtype: torch.dtype = torch.float64, **shape: Any) -> Learner:
    made = toy.learner(dtype=dtype, **shape)
    made.lighten(Adapters(rank=rank, alpha=6, projections=on), (), 1)
    return made


def moved(made: Learner, deviation: float = 0.3) -> Learner:
    """With adapters that do something."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if ".adapters." in name:
                parameter.normal_(0.0, deviation, generator=generator)
    return made


def sums(made: Learner) -> torch.Tensor:
    return made.eval()(made.prepare(toy.examples(8)))


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("on", [["query", "value"], ["key"], EVERYWHERE, ["transformer.blocks.1.*"]])
def test_they_change_nothing_at_first_and_do_the_same_merged(body: str, on: list[str]) -> None:
    plain, made = toy.learner(**BODIES[body]), adapted(on, **BODIES[body])
    assert torch.equal(sums(made), sums(plain))
    after = sums(moved(made))
    assert (after / sums(plain) - 1).abs().max() > 1e-3
    plain.load_state_dict(merged(made))
    assert torch.allclose(sums(plain), after, rtol=1e-12)


@pytest.mark.parametrize(
    "dtype, bound", [(torch.bfloat16, 0.03), (torch.float16, 4e-3), (torch.float32, 1e-5)]
)
def test_merged_they_differ_by_rounding_in_any_precision(dtype: torch.dtype, bound: float) -> None:
    plain, made = toy.learner(dtype=dtype, **LARGE), adapted(EVERYWHERE, dtype=dtype, **LARGE)
    assert torch.equal(sums(made), sums(plain))
    after = sums(moved(made))
    assert (sums(plain) / after - 1).abs().max() > 3 * bound
    plain.load_state_dict(merged(made))
    assert (sums(plain) / after - 1).abs().max() < bound


def test_each_part_of_a_fused_matrix_has_rows_of_its_own() -> None:
    shape = {"heads": 2, "kv_heads": 1}
    for part, rows in {"query": slice(0, 16), "key": slice(16, 24), "value": slice(24, 32)}.items():
        before = toy.learner(kv_heads=1).state_dict()
        made = moved(adapted([part], kv_heads=shape["kv_heads"]))
        for name, tensor in merged(made).items():
            change = (tensor - before[name]).abs()
            touched = name.endswith("query_key_value.weight")
            assert bool(change.any()) == touched, name
            if touched:
                assert change[rows].min() > 0 and change.sum() == change[rows].sum()


def test_the_start_is_that_of_the_released_code() -> None:
    made = adapted(EVERYWHERE)
    for name, parameter in made.named_parameters():
        if name.endswith("narrow.weight"):  # kaiming_uniform_(a=sqrt(5)): within 1 / sqrt(inputs), all of it
            bound = parameter.shape[1] ** -0.5
            assert 0.85 * bound < parameter.abs().max() <= bound and abs(parameter.mean()) < 0.4 * bound
        elif name.endswith("widen.weight"):
            assert not parameter.any()
    again = adapted(["query"])
    name = "transformer.blocks.1.attention.query_key_value.adapters.query.narrow.weight"
    assert torch.equal(made.state_dict()[name], again.state_dict()[name])


@pytest.mark.parametrize("on", [["query", "value"], ["transformer.blocks.1.feed_forward.*"]])
def test_only_adapters_and_heads_learn(on: list[str]) -> None:
    made = adapted(on)
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    trainer = toy.trainer(made, toy.examples(8), total=8 * 40)
    losses = [report.losses["classification"] for report in trainer.steps(toy.always)]
    assert losses[-1] < 0.8 * losses[0]
    for name, tensor in made.state_dict().items():
        learns = ".adapters." in name or name.startswith("heads.")
        assert torch.equal(tensor, before[name]) != learns, name
    kept = sum(len(group["params"]) for group in trainer.optimizers[0].param_groups)
    assert kept == sum(".adapters." in name or name.startswith("heads.") for name in before)


def gradients(budget: int) -> dict[str, torch.Tensor]:
    """Of one step of 8 rows, as the optimizer would see them."""
    trainer = toy.trainer(moved(adapted(EVERYWHERE)), toy.examples(8), budget=budget)
    found: dict[str, torch.Tensor] = {}

    def step() -> None:
        named = trainer.learner.named_parameters()
        found.update({name: one.grad.clone() for name, one in named if one.grad is not None})

    trainer.clip = None
    trainer.optimizers[0].step = step  # type: ignore[method-assign, assignment]
    next(trainer.steps(toy.always))
    return found


def test_law_1_any_cut_gives_the_same_gradient() -> None:
    """Of two ranks `test_distributed.py` tells the same: its second stage has adapters."""
    whole, parts = gradients(1000), gradients(30)
    top = max(float(gradient.abs().max()) for gradient in whole.values())
    assert whole.keys() == parts.keys() and len(whole) == 2 * 12 + 1
    assert max(float((whole[name] - parts[name]).abs().max()) for name in whole) / top < 1e-12


RUNS: list[dict[str, Any]] = [
    {"optimizer": {"kind": "muon", "lr": 1e-2, "groups": [{"match": "*.widen.*", "rate": 2}]},
     "penalties": {"l1": 1e-4, "l2_new": 1e-2}, "precision": "bf16"},
    {"optimizer": {"kind": "adafactor"}, "precision": "fp16", "adapters": {"rank": 2, "dropout": 0.2}},
]  # fmt: skip


@pytest.mark.parametrize("part", RUNS, ids=lambda part: part["optimizer"]["kind"])
def test_a_run_that_was_killed_goes_on_to_the_same_bits(
    part: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = {"adapters": {"rank": 4}, "save": {"every": "5 steps"}} | part
    path = tiny(tmp_path / "one.yaml", {f"stages.finetune.{key}": value for key, value in part.items()})
    model, again = killed_and_whole(path, "finetune", monkeypatch)
    adapters = [one.parents[1] / "adapter" / "adapter_model.safetensors" for one in (model, again)]
    assert adapters[0].read_bytes() == adapters[1].read_bytes()
    (start,) = (tmp_path / "whole").glob("one/stages/pretrain-*/model/model.safetensors")
    before, after = load_file(start), load_file(model)
    for name, tensor in before.items():  # c_attn is [in, 3 x 16]: queries, keys, values
        same = after[name] == tensor
        assert bool(same.all()) == (not name.endswith("c_attn.weight")), name
        if name.endswith("c_attn.weight"):
            assert same[:, 16:32].all() and not same[:, :16].any() and not same[:, 32:].any()


def test_what_learns_is_counted_told_and_handed_on(tmp_path: Path, command: Callable[..., Any]) -> None:
    more = {"kind": "rows", "train": "builtin:tiny", "dev": "builtin:tiny",
            "format": {"kind": "single", "text": "text", "label": "label"}}  # fmt: skip
    again = {"from": "finetune", "data": more, "objectives": [{"kind": "classification"}],
             "adapters": {"projections": ["feed_forward"], "rank": 2}, "length": "2 steps"}  # fmt: skip
    patch = {"stages.finetune.adapters": {"rank": 4}, "stages.finetune.precision": "fp32"}
    patch |= {"stages.again": again}
    path = tiny(tmp_path / "one.yaml", patch)
    status, said = command("check", path, "--runs", tmp_path)
    assert status == 0 and "finetune: 288 of 8,880 parameters learn" in said
    light = gradus.check(path, runs=tmp_path).nodes[1].estimate
    whole = gradus.check(path, runs=tmp_path, settings={"stages.finetune.adapters": None}).nodes[1].estimate
    assert light.memory < whole.memory and light.disk < whole.disk and light.flops < 0.8 * whole.flops
    folder = gradus.run(path, runs=tmp_path)
    records = {name: json.loads(next(folder.glob(f"stages/{name}-*/stage.json")).read_text())
               for name in ("finetune", "again")}  # fmt: skip
    assert records["finetune"]["learning"] == 288 and records["finetune"]["parameters"] == 8880
    table = {one["tensor"]: one for one in records["finetune"]["transfer"]}
    assert sum(one["why"] == "an adapter" and one["what"] == "new" for one in table.values()) == 4
    assert len(table) == len(records["finetune"]["transfer"])
    # The next stage begins with the merged weights, and has adapters of its own alone.
    loaded = {one["tensor"] for one in records["again"]["transfer"] if one["what"] == "loaded"}
    assert not [name for name in loaded if ".adapters." in name]
    assert records["again"]["learning"] == 2 * (2 * 16 + 2 * 64) + 2 * 16
    merged_one = gradus.load(folder / "stages" / records["finetune"]["id"] / "model", precision="fp32")
    loss = records["finetune"]["results"]["dev"]["loss"]
    assert merged_one.evaluate("builtin:tiny", split="dev")["loss"] == pytest.approx(loss, abs=1e-6)
    (answer,) = gradus.load(folder / "stages" / records["again"]["id"] / "model").predict(
        [{"text": "很好 good"}]
    )
    assert set(answer["probabilities"]) == set(records["again"]["labels"])


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"adapters": {"rank": 17}},
     "adapters.rank: the matrix has no such rank: '17' (at most 16: "
     "transformer.blocks.0.attention.query is 16 x 16)"),
    ({"adapters": {"projections": ["queries"]}},
     "adapters.projections: the model has no such projection: 'queries' (did you mean 'query'? one of "
     "attention, query, key, value, output, feed_forward, up, down, or a pattern such as "
     "transformer.blocks.0.attention.query)"),
    ({"adapters": {}, "freeze": ["heads.*"]},
     "freeze: beside adapters only the heads learn (leave it out; `adapters.projections` says what has one)"),
    ({"adapters": {}, "unfreeze": {"layers": 1}}, "unfreeze: beside adapters only the heads learn"),
    ({"adapters": {}, "from": "scratch"},
     "adapters: adapters change what was learnt before, and these weights are new (start `from` a stage or a "
     "folder, with all of its weights)"),
    ({"adapters": {}, "transfer": "word vectors"}, "adapters: adapters change what was learnt before"),
    ({"adapters": {"rank": 0}}, "adapters.rank: "),
    ({"adapters": {"projections": []}}, "adapters.projections: "),
    ({"adapters": {"ranks": 2}}, "did you mean 'rank'?"),
]  # fmt: skip


@pytest.mark.parametrize("part, told", MISTAKES, ids=lambda part: str(part)[:40])
def test_what_cannot_be_is_told(
    part: dict[str, Any], told: str, tmp_path: Path, command: Callable[..., Any]
) -> None:
    path = tiny(tmp_path / "one.yaml", {f"stages.finetune.{key}": value for key, value in part.items()})
    status, said = command("check", path, "--runs", tmp_path)
    assert status == 2 and "one.yaml" in said or status == 2 and "stages.finetune" in said
    assert told in said and "Traceback" not in said


def test_an_lstm_has_no_projections() -> None:
    made = toy.learner(body="lstm", units=8)
    assert not list(projections_of(made, made.transformer.config))
    with pytest.raises(UserError, match="no such projection: 'query' .nothing is allowed here"):
        made.lighten(Adapters(rank=2), (), 1)


def test_a_recipe_without_them_keeps_its_fingerprints(tmp_path: Path) -> None:
    """As they were before there were adapters: finished stages are not run again."""
    plan = gradus.check(tiny(tmp_path / "one.yaml"), runs=tmp_path).plan
    assert [node.id for node in plan.nodes.values()] == ["pretrain-9ac2dfc5", "finetune-c2a77e93"]


def test_the_report_sets_time_and_memory_beside_the_score(tmp_path: Path) -> None:
    from gradus.report import export, results_markdown

    variants = {"rank 2": {"stages.finetune.adapters": {"rank": 2}},
                "the head": {"stages.finetune.freeze": ["transformer.*"]}}  # fmt: skip
    only = {"stages.finetune.objectives": [{"kind": "classification"}]}
    run = gradus.run(tiny(tmp_path / "one.yaml", {"variants": variants} | only), runs=tmp_path)
    export(run, tmp_path / "one.json")
    took = {one["variant"]: one for one in json.loads((tmp_path / "one.json").read_text())["costs"]}
    whole = took["as written"]["parameters"]
    assert {name: one["learning"] for name, one in took.items()} == {
        "as written": whole, "rank 2": 2 * 2 * (16 + 16) + 2 * 16, "the head": 2 * 16
    }  # fmt: skip
    # AdamW: weight, gradient and two moments of each that learns, and a count of steps for each tensor.
    assert 0 <= took["as written"]["held"] - 16 * whole < 4 * 40
    assert 0 <= took["rank 2"]["held"] - 4 * took["rank 2"]["parameters"] - 12 * 160 <= 4 * 5
    assert took["the head"]["score"]["values"] and took["the head"]["peak"] is None
    told = results_markdown([tmp_path / "one.json"])
    assert "### what it took" in told and "| finetune, dev (accuracy) | rank 2 |" in told
    assert "what it took" not in results_markdown([exported(tmp_path / "plain")])
    variants = {"sgd": {"stages.finetune.optimizer": {"kind": "sgd", "lr": 0.1}}}
    assert "what it took" in results_markdown([exported(tmp_path / "optimizers", {"variants": variants})])


def exported(folder: Path, patch: dict[str, Any] | None = None) -> Path:
    from gradus.report import export

    return export(gradus.run(tiny(folder / "one.yaml", patch), runs=folder), folder / "one.json")
