"""One word of a recipe says whether a class is a place in a head or a word that is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_seq2seq import BOTH, recipe, records

from gradus.data.formats import Pair
from gradus.pipeline.check import check
from gradus.pipeline.models.serving import load
from gradus.pipeline.recipes.fitting import as_text
from gradus.pipeline.run import run


@pytest.mark.parametrize("arrangement, objective, kind", [
    ("encoder", "masked_lm", "classification"), ("decoder", "causal_lm", "classification"),
    ("decoder", "causal_lm", "seq2seq"), ("encoder_decoder", "denoising", "seq2seq"),
])  # fmt: skip
def test_one_word_makes_a_class_a_place_in_a_head_or_a_word(
    arrangement: str, objective: str, kind: str, tmp_path: Path
) -> None:
    form = {"kind": "single", "text": "text", "label": "label"}
    patch = {"model": {**BOTH["model"], "arrangement": arrangement}, "stages.finetune.data.format": form,
             "stages.finetune.objectives": [{"kind": kind}]}  # fmt: skip
    found = records(run(recipe(tmp_path / "one.yaml", {"kind": objective}, patch), runs=tmp_path))
    assert 0 <= found["finetune"]["results"]["dev"]["accuracy"] <= 1
    model = load(tmp_path / "one" / "stages" / found["finetune"]["id"] / "model")
    (said,) = model.predict([{"text": "好看"}])
    assert set(said["probabilities"]) == {"negative", "positive"}


def test_a_class_that_says_its_own_name_is_a_row_of_texts(tmp_path: Path) -> None:
    names = {"negative": "negative", "positive": "positive"}
    forms = ({"kind": "single", "text": "text", "label": "label"},
             {"kind": "text_to_text", "source": "{text}", "label": "label", "answers": names})  # fmt: skip
    nodes = []
    for form in forms:
        path = recipe(tmp_path / "both.yaml", {"kind": "denoising"}, {"stages.finetune.data.format": form})
        nodes.append(list(check(path, runs=tmp_path / "runs").plan.nodes))
    assert nodes[0] == nodes[1]
    pair = as_text(Pair(first="premise", second="hypothesis", label="label"), ("是", "否"))
    assert pair.source == "premise: {premise} hypothesis: {hypothesis}"
    assert pair.answers == {"是": "是", "否": "否"}
