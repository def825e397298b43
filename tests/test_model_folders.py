"""A model in use from folders of transformers, and from folders that are wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from small_models import TEXTS, foreign, use

from gradus.core.errors import UserError
from gradus.core.storage import read_json, write_json
from gradus.pipeline.models.serving import load
from gradus.tokenizers import Tokenizer

transformers = pytest.importorskip("transformers")


def test_a_language_model_of_transformers(tmp_path: Path, tokenizer: Tokenizer):
    reference = foreign(tmp_path, tokenizer, transformers.OpenAIGPTLMHeadModel)
    model = use(tmp_path)
    for text, (likelihood, tokens) in zip(TEXTS, model.score(TEXTS)):
        ids = model.tokens.encode([text])[0][:40].tolist()
        with torch.inference_mode():
            wanted = reference(input_ids=torch.tensor([ids]), labels=torch.tensor([ids]))
        np.testing.assert_allclose(model.logits([ids])[0], wanted.logits[0].numpy(), atol=2e-5)
        if tokens < 40:
            assert likelihood == pytest.approx(-float(wanted.loss) * tokens, rel=1e-5)
    ids = torch.tensor([model.tokens.encode(["这部"])[0].tolist()])
    end = model.tokens.role("end")
    roles = [model.tokens.role(name) for name in model.tokens.roles if name != "end"]
    said = reference.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, pad_token_id=0,
        eos_token_id=end, suppress_tokens=roles,
    )[0, ids.shape[1] :].tolist()  # fmt: skip
    wanted = model.tokens.decode([token for token in said if token != end])
    assert model.generate("这部", tokens=8, temperature=0) == wanted
    with pytest.raises(UserError, match="answers no rows: it is a language model .*`gradus generate`"):
        model.predict(["text"])


def test_a_classifier_of_transformers_with_the_stage_of_a_recipe(tmp_path: Path, tokenizer: Tokenizer):
    folder = tmp_path / "model"
    names = {0: "NEGATIVE", 1: "POSITIVE"}
    options = {
        "id2label": names,
        "label2id": {name: number for number, name in names.items()},
        "pad_token_id": 0,
    }
    reference = foreign(folder, tokenizer, transformers.OpenAIGPTForSequenceClassification, **options)
    ids = [tokenizer.role("start"), *tokenizer.encode([TEXTS[0]])[0].tolist(), tokenizer.role("extract")]
    with torch.inference_mode():
        wanted = reference(input_ids=torch.tensor([ids])).logits[0].numpy()
    bare = use(folder)
    np.testing.assert_allclose(bare.logits([ids])[0], wanted, atol=1e-5)
    with pytest.raises(UserError, match="does not say how rows are read .*--recipe RECIPE --stage STAGE"):
        list(bare.predict([TEXTS[0]]))
    recipe = tmp_path / "recipe.yaml"
    data = {
        "kind": "rows",
        "train": "x.tsv",
        "format": {"kind": "single", "text": "review", "label": "label"},
    }
    stage = {"data": data, "objectives": [{"kind": "classification"}], "length": "1 epochs"}
    recipe.write_text(yaml.safe_dump({"stages": {"finetune": stage}}))
    model = use(folder, recipe=recipe, stage="finetune")
    (one,) = model.predict([{"review": TEXTS[0]}])
    assert one["scores"] == pytest.approx(dict(zip(names.values(), wanted.tolist())), abs=1e-5)
    data["labels"] = ["0", "1"]
    recipe.write_text(yaml.safe_dump({"stages": {"finetune": stage}}))
    assert use(folder, recipe=recipe, stage="finetune").labels == ("0", "1")
    data["labels"] = ["0", "1", "2"]
    recipe.write_text(yaml.safe_dump({"stages": {"finetune": stage}}))
    with pytest.raises(UserError, match="names 3 labels, the model has 2 classes"):
        use(folder, recipe=recipe, stage="finetune")
    with pytest.raises(UserError, match="did you mean 'finetune'"):
        use(folder, recipe=recipe, stage="finetun")
    with pytest.raises(UserError, match="--stage"):
        use(folder, recipe=recipe)


def test_folders_that_are_wrong(classifier: Path, tokenizer: Tokenizer, tmp_path: Path):
    with pytest.raises(UserError, match="this is no model folder"):
        use(tmp_path)
    with pytest.raises(
        UserError, match="precision: there is no such precision: 'fp23' .*did you mean 'fp32'"
    ):
        use(classifier, precision="fp23")
    with pytest.raises(UserError, match="there is no such device: 'gpu'"):
        load(classifier, device="gpu")
    for change, told in (
        ({"format_version": 9}, "gradus.json: format_version: .*newer Gradus"),
        ({"objectives": [{"kind": "guessing"}]}, "gradus.json: 0: .*guessing"),
        ({"stage": "other"}, "lack a head that gradus.json names"),
        ({"reader": {"reader": "tvs"}}, "gradus.json: reader.reader: "),
        ({"objectives": None}, "gradus.json: .*valid list"),
    ):
        broken = tmp_path / "broken"
        shutil.copytree(classifier, broken)
        (broken / "MANIFEST.json").unlink()
        card = {**read_json(broken / "gradus.json"), **change}
        write_json(broken / "gradus.json", card)
        with pytest.raises(UserError, match=told):
            use(broken)
        del card["objectives"]
        write_json(broken / "gradus.json", {**card, "format_version": 1})
        with pytest.raises(UserError, match="gradus.json: objectives: this key is missing"):
            use(broken)
        shutil.rmtree(broken)
    bare = tmp_path / "bare"
    foreign(bare, None, transformers.OpenAIGPTLMHeadModel)
    assert use(bare).logits([[1, 2]])[0].shape == (2, 330)
    with pytest.raises(UserError, match="there is no tokenizer"):
        use(bare).generate("a")
    tokenizer.with_roles(["sentinel 0"]).save(bare)
    with pytest.raises(UserError, match="331 tokens, the model's embedding 330 rows"):
        use(bare).generate("a")
