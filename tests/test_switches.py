"""The switches of GPT-1's ablations and of its released code: positions, where dropout strikes, the output
embedding, what is transferred, and the published stages."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy
import yaml
from test_families import rows, same, written
from tiny import tiny
from torch import Tensor

from gradus.core.config import Config
from gradus.core.duration import Quantity
from gradus.core.errors import UserError
from gradus.core.example import ragged
from gradus.core.model import ModelConfig
from gradus.families import gpt1
from gradus.families.folder import read_folder
from gradus.nn.losses import linear_cross_entropy
from gradus.nn.positions import sinusoids
from gradus.nn.transformer import Transformer
from gradus.objectives import CausalLMConfig, ClassificationConfig, MultipleChoiceConfig
from gradus.optim.optimizers import AdamW
from gradus.optim.schedules import Cosine, Linear
from gradus.pipeline.check import check
from gradus.pipeline.models.serving import load
from gradus.pipeline.recipes.reading import read_recipe
from gradus.pipeline.recipes.stages import Stage
from gradus.pipeline.run import run

EXACT = torch.float64
SHAPE: dict[str, Any] = {"layers": 1, "width": 16, "heads": 2, "context": 40, "vocab_size": 61}
ROW = np.array([3, 14, 15, 9, 26, 5, 35, 8])


def model(precision: torch.dtype = EXACT, **changes: object) -> Transformer:
    config = ModelConfig.model_validate({**SHAPE, "initial_deviation": 0.2, **changes})
    return Transformer(config, precision).initialise(1)


def states(of: Transformer, row: np.ndarray = ROW) -> Tensor:
    with torch.no_grad():
        return of.eval()(ragged([row]))[: len(row)]


def test_sinusoids_are_the_papers() -> None:
    """Vaswani et al. 2017, section 3.5, number by number; an odd width ends with a sine."""
    table = sinusoids(50, 7, EXACT)
    for place in (0, 1, 49):
        for index in range(7):
            angle = place / 10000 ** (2 * (index // 2) / 7)
            wanted = math.cos(angle) if index % 2 else math.sin(angle)
            assert table[place, index].item() == pytest.approx(wanted, abs=1e-12)


def test_positions_say_where_a_token_stands_or_do_not() -> None:
    swapped = ROW[[1, 0, 2, 3, 4, 5, 6, 7]]
    for positions in ("learned", "sinusoidal", "none"):
        built = model(positions=positions)
        assert ("embedding.positions.weight" in built.state_dict()) == (positions == "learned")
        assert set(built.state_dict()) == {name for name, _ in built.named_parameters()}
        # One layer of attention without positions sees a set of tokens.
        difference = (states(built) - states(built, swapped))[2:].abs().max()
        assert (difference < 1e-12) if positions == "none" else (difference > 1e-3), positions


def test_token_embeddings_are_scaled_beside_sinusoids() -> None:
    """Vaswani et al. 2017, section 3.4: multiplied by sqrt(width), in the input alone."""
    built = model(positions="sinusoidal").eval()
    found = built.embedding(ragged([ROW]))[: len(ROW)]
    tokens = built.embedding.tokens.weight[torch.from_numpy(ROW)]
    assert torch.allclose(found, 4 * tokens + sinusoids(40, 16, EXACT)[: len(ROW)], atol=1e-12)
    assert built.output_weight is built.embedding.tokens.weight


@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_dropout_on_the_table_strikes_a_number_of_a_token_wherever_it_stands(positions: str) -> None:
    built = model(embedding_dropout_on="table", dropout=0.0, embedding_dropout=0.5, positions=positions)
    batch = ragged([np.array([7, 9, 7]), np.array([7, 7])])
    torch.manual_seed(2)
    found = built.train().embedding(batch)
    assert torch.equal(found[0], found[3])
    table = built.output_weight
    assert table is not built.embedding.tokens.weight and table.requires_grad
    weight = built.embedding.tokens.weight
    kept = table != 0
    assert 0.4 < kept.double().mean() < 0.6
    assert torch.allclose(table[kept], 2 * weight[kept], atol=1e-12)
    scaled = built.embedding.scale * table
    assert torch.allclose(found[1] - scaled[9], found[4] - scaled[7], atol=1e-12)  # what is left: position 1
    assert built.eval().output_weight is weight
    assert "embedding.waves" not in built.state_dict() and not any(
        "drop" in name for name in built.state_dict()
    )


def test_the_tied_output_learns_through_the_same_mask() -> None:
    """The loss by hand with the dropped table on both sides; what was struck has no gradient."""
    built = model(embedding_dropout_on="table", dropout=0.0, embedding_dropout=0.5).train()
    values = torch.from_numpy(np.roll(ROW, -1))
    torch.manual_seed(5)
    total = linear_cross_entropy(
        built(ragged([ROW]))[: len(ROW)], built.output_weight, values, torch.ones(len(ROW))
    )
    total.backward()
    table, gradient = built.output_weight.detach(), built.embedding.tokens.weight.grad
    assert gradient is not None and not gradient[table == 0].any() and gradient[table != 0].all()
    plain = model(dropout=0.0)
    torch.manual_seed(5)
    with torch.no_grad():
        mask = plain.embedding.dropout  # the same module draws the same bytes: tokens, then positions
        mask.probability, mask.struck = built.embedding.dropout.probability, built.embedding.dropout.struck
        for part in (plain.embedding.tokens, plain.embedding.positions):
            part.weight.copy_(mask.train()(part.weight))
        by_hand = plain.eval()(ragged([ROW]))[: len(ROW)] @ plain.output_weight.T
    assert torch.equal(plain.output_weight, table)
    assert torch.nn.functional.cross_entropy(by_hand, values, reduction="sum").item() == pytest.approx(
        total.item(), abs=1e-9
    )


def test_dropout_on_the_sum_is_the_default_and_leaves_the_output_alone() -> None:
    built = model(dropout=0.5).train()
    first, second = built.embedding(ragged([ROW, ROW]))[:16].view(2, 8, 16)
    assert not torch.equal(first, second)
    assert built.output_weight is built.embedding.tokens.weight
    untied = model(embedding_dropout_on="table", tie_embeddings=False).train()
    untied(ragged([ROW]))
    assert untied.output_weight is untied.unembedding.weight


def test_resuming_draws_the_same_table(tmp_path: Path) -> None:
    def losses(seed: int) -> list[dict[str, float]]:
        torch.manual_seed(seed)  # what else was drawn before is no matter
        made = toy.learner(0.1, torch.float32, embedding_dropout_on="table")
        return [report.losses for report in toy.trainer(made, toy.examples(8), budget=40).steps(toy.always)]

    assert losses(1) == losses(2)


def test_an_untied_language_model_in_their_class_and_back(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = ModelConfig(layers=2, width=32, heads=4, context=40, vocab_size=61, tie_embeddings=False)
    assert gpt1.expressible(config) is None and gpt1.expressible(config, ["sst"]) is not None
    tensors = written(tmp_path / "model", config)
    theirs, report = transformers.OpenAIGPTLMHeadModel.from_pretrained(
        tmp_path / "model", output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert torch.equal(theirs.lm_head.weight, tensors["unembedding.weight"])
    theirs.save_pretrained(tmp_path / "theirs")
    folder = read_folder(tmp_path / "theirs")
    assert folder.config.tie_embeddings is False and same(folder.tensors, tensors)
    ours = Transformer(folder.config).eval()
    ours.load_state_dict(folder.tensors)
    tokens = torch.from_numpy(rows()[0])
    with torch.no_grad():
        answer = theirs.eval()(tokens[None], labels=tokens[None])
        found = ours(ragged([rows()[0]]))[:9]
        total = linear_cross_entropy(found[:-1], ours.output_weight, tokens[1:], torch.ones(8))
    assert (found @ ours.output_weight.t() - answer.logits[0]).abs().max() < 1e-5
    assert total / 8 == pytest.approx(answer.loss.item(), abs=1e-5)


def test_a_folder_remembers_where_dropout_strikes(tmp_path: Path) -> None:
    config = ModelConfig(layers=2, width=32, heads=4, context=40, vocab_size=61, embedding_dropout_on="table")
    written(tmp_path / "model", config)
    assert (
        json.loads((tmp_path / "model" / "config.json").read_text())["model_type"] == gpt1.SETTINGS.model_type
    )
    assert read_folder(tmp_path / "model").config == config


TEXT = {"kind": "text", "train": "novels.txt"}
PAIRS = {
    "kind": "rows",
    "train": "句子.tsv",
    "format": {"kind": "pair", "first": "a", "second": "b", "label": "c"},
}
CHOICES = {
    "kind": "rows",
    "train": "c3.json",
    "format": {"kind": "multiple_choice", "context": "a", "answers": "b", "label": "c", "label_is": "text"},
}


def stage(**fields: Any) -> Stage:
    return Stage.model_validate(fields)


def said(part: Config) -> dict[str, Any]:
    return {key: value for key, value in part.plain().items() if value is not None}


def test_the_published_pre_training() -> None:
    """Radford et al. 2018, section 4.1, "Model specifications", written out."""
    found = stage(preset="gpt1", data=TEXT)
    assert said(found.optimizer) == {
        "kind": "adamw", "lr": 2.5e-4, "weight_decay": 0.01, "betas": [0.9, 0.999], "epsilon": 1e-8
    }  # fmt: skip
    assert said(found.schedule) == {"kind": "cosine", "warmup": "2000 steps", "final": 0.0}
    assert str(found.batch) == "64 windows" and str(found.length) == "100 epochs" and found.clip == 1.0
    assert [said(one) for one in found.objectives] == [said(CausalLMConfig())]
    assert found.schedule.warmup_steps(3000, 1.0) == 2000


@pytest.mark.parametrize(("data", "task"), [(PAIRS, "classification"), (CHOICES, "multiple_choice")])
def test_the_published_fine_tuning(data: dict[str, Any], task: str) -> None:
    """Radford et al. 2018, section 4.1, "Fine-tuning details", and equation 5, written out."""
    found = stage(preset="gpt1", data=data)
    assert found.optimizer == AdamW(lr=6.25e-5, weight_decay=0.01, betas=(0.9, 0.999), epsilon=1e-8)
    assert found.schedule == Linear(warmup=Quantity(0.2, "%"), final=0.0)
    assert str(found.batch) == "32 rows" and str(found.length) == "3 epochs" and found.clip == 1.0
    kinds = {"classification": ClassificationConfig, "multiple_choice": MultipleChoiceConfig}
    assert found.objectives == [kinds[task](dropout=0.1, weight=1.0), CausalLMConfig(weight=0.5)]


def test_what_the_recipe_says_goes_before_the_preset() -> None:
    found = stage(
        preset="gpt1", data=TEXT, length="5 steps", clip=None,
        objectives=[{"kind": "causal_lm", "weight": 2}],
        optimizer={"kind": "adamw", "betas": [0.9, 0.95]}, schedule={"kind": "cosine", "final": 0.1},
    )  # fmt: skip
    assert str(found.length) == "5 steps" and found.clip is None and found.objectives[0].weight == 2
    assert found.optimizer == AdamW(lr=2.5e-4, weight_decay=0.01, betas=(0.9, 0.95))
    assert found.schedule == Cosine(warmup=Quantity(2000, "steps"), final=0.1)
    assert stage(preset="gpt1", data=PAIRS, schedule={"kind": "constant"}).schedule.warmup is None


SIMILAR = {
    **PAIRS,
    "format": {"kind": "similarity", "first": "a", "second": "b", "label": "c"},
}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"preset": "gtp1", "data": TEXT}, "stages.one.preset.*no such preset.*gtp1"),
        ({"preset": "gpt1", "data": SIMILAR}, "stages.one.objectives.*classes or numbers"),
        ({"data": TEXT, "length": "1 epoch"}, "stages.one.*objectives.*missing"),
        ({"data": TEXT, "objectives": [{"kind": "causal_lm"}]}, "stages.one.*length.*missing"),
        ({"preset": "gpt1", "data": TEXT, "transfer": {"layers": 2}}, "stages.one.transfer.*nothing to"),
        ({"preset": "gpt1", "data": TEXT, "from": {"folder": "x"}, "transfer": "word vector"}, "transfer"),
        ({"preset": "gpt1", "data": TEXT, "from": {"folder": "x"}, "transfer": {"layers": -1}}, "layers"),
    ],
)
def test_what_cannot_be_is_told_with_its_line(fields: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"stages": {"one": fields}}, sort_keys=False, allow_unicode=True))
    with pytest.raises(UserError, match=words) as mistake:
        read_recipe(path)
    assert mistake.value.line is not None and mistake.value.file == path


def test_regression_is_named_beside_the_preset() -> None:
    found = stage(preset="gpt1", data=SIMILAR, objectives=[{"kind": "regression"}])
    assert found.measure == "number" and str(found.length) == "3 epochs"


def ids(recipe: Path, patch: dict[str, Any] | None = None) -> dict[str, str]:
    checks = check(recipe, runs=recipe.parent / "runs", settings=patch or {}, device="cpu")
    return dict(checks.plan.outcomes[0]["stages"])


def test_a_preset_written_out_is_the_same_stage_and_a_transfer_is_not(tmp_path: Path) -> None:
    recipe = tiny(tmp_path / "one.yaml")
    fine_tuning = {
        "stages.finetune.optimizer.lr": 6.25e-5, "stages.finetune.batch": "32 rows",
        "stages.finetune.length": "3 epochs",
    }  # fmt: skip
    wanted, found = ids(recipe, fine_tuning), ids(recipe, {**fine_tuning, "stages.finetune.preset": "gpt1"})
    assert found == wanted
    several = [ids(recipe, {"stages.finetune.transfer": part})["finetune"]
               for part in ("all", "word vectors", {"layers": 0}, {"layers": 1})]  # fmt: skip
    assert several[0] == ids(recipe)["finetune"] and len(set(several)) == 4
    with pytest.raises(UserError, match=r"stages.finetune.transfer.layers.*fewer layers.*2.*at most 1"):
        ids(recipe, {"stages.finetune.transfer": {"layers": 2}})


def run_all(recipe: Path) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Variant -> folder and record of its fine-tuning."""
    folder = run(recipe, runs=recipe.parent / "runs", device="cpu")
    plan = json.loads((folder / "plan.json").read_text())
    found = {}
    for outcome in plan["outcomes"]:
        place = folder / "stages" / outcome["stages"]["finetune"]
        found[outcome["variant"]] = (place, json.loads((place / "stage.json").read_text()))
    return found


def test_the_ablations_are_variants_of_one_recipe(tmp_path: Path) -> None:
    """From raw text to a classifier that predicts, with every switch."""
    variants = {
        "lstm": {"model.body": "lstm", "model.units": 20},
        "sinusoids, untied": {"model.positions": "sinusoidal", "model.tie_embeddings": False},
        "as released": {"stages.finetune.model": {"embedding_dropout_on": "table"}},
        "word vectors": {"stages.finetune.transfer": "word vectors"},
    }
    short = {"stages.pretrain.length": "2 steps", "stages.finetune.length": "2 steps"}
    records = run_all(tiny(tmp_path / "ablations.yaml", {"variants": variants, **short}))
    for variant, (place, record) in records.items():
        assert record["status"] == "done", variant
        own = variant in ("lstm", "sinusoids, untied")
        content = json.loads((place / "model" / "config.json").read_text())
        assert (content["model_type"] == "gradus") == own, variant
        answers = list(load(place / "model", device="cpu").predict([{"text": "这本书很好看。"}]))
        assert len(answers) == 1, variant
    what = {(one["tensor"], one["what"]) for one in records["word vectors"][1]["transfer"]}
    assert ("transformer.embedding.positions.weight", "dropped") in what
    assert ("transformer.embedding.positions.weight", "new") in what
    assert records["as released"][1]["model"]["embedding_dropout_on"] == "table"
    assert records["lstm"][1]["model"]["positions"] == "none"
