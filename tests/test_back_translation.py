"""Texts said by one model and said back by another: as the models themselves would, once, cached by content,
and going on where a run was killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from small_models import use
from tiny import killed_and_whole, tiny

from gradus.core.errors import UserError
from gradus.core.telling import Silent
from gradus.pipeline.check import check
from gradus.pipeline.models import translating
from gradus.pipeline.models.translating import Paraphrases, said_for, translator
from gradus.pipeline.run import run
from gradus.tokenizers import Tokenizer

pytestmark = pytest.mark.usefixtures("alone")
TEXTS = ["the film was good .", "这部电影很好看", "a long evening", "太长了", "so good", "it was dull"]


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """A T5 as transformers writes it, with random weights: it says something for everything."""
    import transformers

    path = tmp_path_factory.mktemp("foreign") / "t5"
    config = transformers.T5Config(
        vocab_size=tokenizer.size, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2,
        initializer_factor=3.0, decoder_start_token_id=tokenizer.role("pad"),
        pad_token_id=tokenizer.role("pad"),
        eos_token_id=tokenizer.role("end"), n_positions=64,
    )  # fmt: skip
    torch.manual_seed(1)
    transformers.T5ForConditionalGeneration(config).save_pretrained(path)
    tokenizer.save(path)
    return path


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder of ours that was taught to say a text for a text."""
    folder = tmp_path_factory.mktemp("own")
    rows = [json.dumps({"en": text, "zh": text[::-1]}, ensure_ascii=False) for text in TEXTS * 4]
    (folder / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    form = {"kind": "text_to_text", "source": "say {en}", "target": "{zh}"}
    patch = {
        "stages.finetune.data": {"kind": "rows", "train": str(folder / "rows.jsonl"), "format": form},
        "stages.finetune.objectives": [{"kind": "seq2seq"}],
        "stages.finetune.length": "60 steps",
        "stages.finetune.optimizer.lr": 2e-2,
        "model.context": 48,
    }
    return run(tiny(folder / "own.yaml", patch), runs=folder / "runs", device="cpu")


def test_both_kinds_of_model_say_what_they_would_say_alone(foreign: Path, own: Path) -> None:
    said = said_for(use(foreign), TEXTS, 0.0)
    most = use(foreign).opened.folder.config.context
    alone = [use(foreign).generate(text, temperature=0, tokens=most).strip() for text in TEXTS]
    assert said == alone and any(said)
    ours = use(translator(own, "there"))
    wanted = [answer["text"] for answer in ours.predict([{"en": text} for text in TEXTS])]
    assert said_for(ours, TEXTS, 0.0) == wanted and any(wanted)
    assert said_for(ours, ["", "good " * 100, TEXTS[1]], 0.0) == ["", "", wanted[1]]
    drawn = [said_for(use(foreign), TEXTS, 0.9) for _ in range(2)]
    assert drawn[0] == drawn[1] != said


def made(cache: Path, models: tuple[Path, Path], temperature: float = 0.0) -> Paraphrases:
    return Paraphrases(TEXTS, models, temperature, cache, Silent())


def test_what_was_made_is_kept_by_content_and_goes_on(
    foreign: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = translator(foreign, "there"), translator(own, "back")
    monkeypatch.setattr(translating, "AT_ONCE", 2)
    calls: list[list[str]] = []

    def dying(model: Any, texts: Any, temperature: float) -> list[str]:
        calls.append(list(texts))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return said_for(model, texts, temperature)

    monkeypatch.setattr(translating, "said_for", dying)
    assert made(tmp_path / "killed", models).left == 6
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "killed", models).make("cpu")
    assert made(tmp_path / "killed", models).left == 4
    again = made(tmp_path / "killed", models)
    again.make("cpu")
    assert calls[4::2] == [TEXTS[2:4], TEXTS[4:]]
    whole = made(tmp_path / "whole", models)
    assert dict(whole) == dict(again) and all(text.strip() for text in whole.values())
    count = len(calls)
    assert dict(made(tmp_path / "whole", models)) == dict(whole) and len(calls) == count
    for other in (made(tmp_path / "whole", models[::-1]), made(tmp_path / "whole", models, 0.5)):
        assert other.left == 6


def test_what_cannot_be_read_or_said_stays(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        translating, "said_for", lambda model, texts, temperature: [text[4:] for text in texts]
    )
    kept = dict(made(tmp_path, (foreign, foreign)))
    assert kept["太长了"] == "太长了" and kept["a long evening"] == "vening"


def recipe(path: Path, there: Path, back: Path, rows: str = "50 %") -> Path:
    kind = {"kind": "back_translation", "there": str(there), "back": str(back), "rows": rows}
    return tiny(path, {
        "stages.finetune.augment": [kind, {"kind": "swap"}], "stages.finetune.save": {"every": "5 steps"},
        "stages.pretrain.save": {"every": "3 steps"},
        "stages.finetune.data.limit": 20,
    })  # fmt: skip


def test_a_run_translates_once_and_a_killed_one_ends_with_the_same_bits(
    foreign: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recipe(tmp_path / "r.yaml", foreign, own)
    notes = check(path, runs=tmp_path / "killed", device="cpu").notes
    assert "finetune: augment: 20 texts to be translated there and back before training" in notes
    killed_and_whole(path, "finetune", monkeypatch)
    done = check(path, runs=tmp_path / "killed", device="cpu").notes
    assert "finetune: augment: 20 texts to be translated there and back before training: all done" in done
    assert any("text: " in note and "is read as" in note for note in done)


@pytest.mark.parametrize("which", ["language", "classifier"])
def test_a_model_that_says_nothing_for_a_text_is_refused(which: str, request: Any, tmp_path: Path) -> None:
    path = recipe(tmp_path / "r.yaml", request.getfixturevalue("foreign"), request.getfixturevalue(which))
    with pytest.raises(
        UserError, match=r"augment\.0\.back: this model does not say a text for a text: '.*model'"
    ):
        check(path, runs=tmp_path / "runs", device="cpu")


def test_check_translates_nothing_for_a_task_of_several(foreign: Path, tmp_path: Path) -> None:
    """What a target looks like is asked of a row as it stands."""
    path = recipe(tmp_path / "r.yaml", foreign, foreign, rows="100 %")
    written = yaml.safe_load(path.read_text("utf-8"))
    stage = written["stages"]["finetune"]
    stage["data"] = {"mix": {"own": stage["data"], "other": dict(stage["data"])}}
    stage["objectives"] = [{"kind": "classification", "on": name} for name in ("own", "other")]
    path.write_text(yaml.safe_dump(written), encoding="utf-8")
    checks = check(path, runs=tmp_path / "runs", device="cpu")
    assert sum("to be translated there and back before training" in note for note in checks.notes) == 1
    assert not list(tmp_path.glob("runs/cache/back-translation-*.json"))
