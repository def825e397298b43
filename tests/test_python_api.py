"""The package from Python: text and logits of a loaded model, and what it says when asked for too much."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from small_models import CONTEXT, TEXTS, use

import gradus
from gradus.core.errors import UserError
from gradus.evaluation.generate import generate
from gradus.evaluation.sampling import Sampling
from gradus.pipeline.models.serving import load, predict_file


def test_the_package_is_light_until_it_is_used():
    code = "import sys, gradus; print(sorted({'torch', 'numpy', 'pydantic'} & set(sys.modules)), dir(gradus))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == f"[] {['Recipe', 'UserError', '__version__', 'check', 'load', 'run']}"
    assert gradus.load is load and gradus.UserError is UserError
    assert gradus.__version__ == version("gradus-lm")
    with pytest.raises(AttributeError, match="has no attribute 'lod'"):
        gradus.lod  # noqa: B018


def test_generate_goes_on_from_the_prompt_and_repeats_itself_for_a_seed(language: Path):
    model = use(language)
    for prompt in ("The film", "这部电影", ""):
        said = model.generate(prompt, tokens=12, seed=4)
        assert (
            said
            == model.generate(prompt, tokens=12, seed=4)
            == use(language).generate(prompt, tokens=12, seed=4)
        )
        assert said != model.generate(prompt, tokens=12, seed=5)
        assert not any(role in said for role in model.tokens.roles.values())


def test_generate_is_the_tokens_of_the_model_as_text(language: Path):
    model = use(language)
    prompt = "故事太长 <|end|>"  # the text of a special token is text
    ids = model.tokens.encode([prompt])[0].tolist()
    assert model.tokens.role("end") not in ids
    end = model.tokens.role("end")
    banned = [number for number in range(len(model.tokens.roles)) if number != end]
    said = generate(model.opened.learner.transformer, ids, Sampling(tokens=9, temperature=0), end, banned)
    assert model.generate(prompt, tokens=9, temperature=0) == model.tokens.decode(said)


def test_logits_of_the_tokenizer_s_ids_are_the_scores_of_predict(classifier: Path, pairs: Path):
    model = use(classifier)
    logits = model.logits([model.tokenizer.encode(text).ids for text in TEXTS])
    for scores, one in zip(logits, model.predict(TEXTS)):
        assert scores.dtype == np.float32 and scores.shape == (3,)
        np.testing.assert_allclose(scores, list(one["scores"].values()), rtol=1e-5, atol=1e-6)
    model = use(pairs)
    ids = model.tokenizer.encode("好 <|extract|>", "不好").ids
    (one,) = model.predict([{"premise": "好 <|extract|>", "hypothesis": "不好", "label": None}])
    np.testing.assert_allclose(model.logits([ids])[0], list(one["scores"].values()), rtol=1e-5, atol=1e-6)


def test_one_where_many_are_wanted_is_told(classifier: Path):
    model = use(classifier)
    for row in ("I love it", {"text": "好"}):
        with pytest.raises(UserError, match=r"takes many rows, and this is one.*predict\(\[\.\.\.\]\)"):
            model.predict(row)
    with pytest.raises(UserError, match=r"score\(\[\.\.\.\]\)"):
        model.score("好")
    encoding = model.tokenizer.encode(TEXTS[1])
    for ids in ([5, 6], np.array([5, 6]), "ab", encoding):
        with pytest.raises(UserError, match=r"a list of lists of token ids.*logits\(\[\[1, 2, 3\]\]\)"):
            model.logits(ids)
    np.testing.assert_array_equal(model.logits([encoding])[0], model.logits([encoding.ids])[0])


def test_bf16_predicts_nearly_the_same(classifier: Path):
    exact, coarse = (list(use(classifier, precision=name).predict(TEXTS)) for name in ("fp32", "bf16"))
    for one, other in zip(exact, coarse):
        assert other["scores"] != one["scores"]
        assert other["scores"] == pytest.approx(one["scores"], abs=0.2)


@pytest.mark.parametrize(
    "wrong,told",
    [
        ({"top_p": 0}, "top_p: .*greater than 0: '0'"),
        ({"top_p": 1.5}, "top_p: .*less than or equal to 1: '1.5'"),
        ({"tokens": "many"}, "tokens: .*integer.*: 'many'"),
        ({"temprature": 1}, "no such setting: 'temprature' .*did you mean 'temperature'"),
        ({"beams": 3, "top_k": 5}, "beam search draws nothing: leave out top_k"),
    ],
)
def test_wrong_settings_of_generate(language: Path, wrong: dict, told: str):
    with pytest.raises(UserError, match=told):
        use(language).generate("a", **wrong)


def test_a_model_is_asked_for_what_it_was_taught(language: Path, pairs: Path, classifier: Path):
    assert isinstance(use(classifier).generate("a", tokens=2), str)
    with pytest.raises(UserError, match="not taught to predict text .*`gradus predict`"):
        use(pairs).generate("a")
    with pytest.raises(UserError, match="no single text: 'a' .*its columns are premise, hypothesis"):
        list(use(pairs).predict(["a"]))
    with pytest.raises(UserError, match="rows:1: there is no such column: 'hypothesis' .*one of premise"):
        list(use(pairs).predict([{"premise": "a"}]))
    with pytest.raises(UserError, match="it is a language model"):
        predict_file(use(language), "rows.tsv", "-")
    for ids in ([], [1] * (CONTEXT + 1), [400], [-1], ["a"], [1.5], [[1], [2, 3]]):
        with pytest.raises(UserError, match="sequence 1"):
            use(language).logits([[1], ids])


def test_a_list_of_prompts_gives_a_list_of_texts(language: Path):
    model = use(language)
    prompts = ["The film", "这部电影", "", "A dull, noisy and far too long"]
    greedy = model.generate(prompts, tokens=9, temperature=0)
    assert greedy == [model.generate(prompt, tokens=9, temperature=0) for prompt in prompts]
    assert model.generate(tuple(prompts), tokens=9, beams=2) == [
        model.generate(prompt, tokens=9, beams=2) for prompt in prompts
    ]
    drawn = model.generate(prompts, tokens=9, seed=4)
    assert drawn[0] == model.generate(prompts[0], tokens=9, seed=4)
    assert drawn[:2] == model.generate(prompts[:2], tokens=9, seed=4)
    same = model.generate(["The film"] * 2, tokens=9, seed=4)
    assert same[0] == drawn[0] != same[1]
    assert model.generate([]) == []
    with pytest.raises(UserError, match="prompt 1: a prompt is a text: '3'"):
        model.generate(["a", 3])


def test_text_ends_before_a_stop_string(language: Path):
    model = use(language)
    whole = model.generate("The film", tokens=30, temperature=0)
    stop = next(letter for letter in whole[4:] if letter != "\ufffd")  # half a character is none
    cut = whole[: whole.index(stop)]
    assert model.generate("The film", tokens=30, temperature=0, stop=stop) == cut
    assert model.generate("The film", tokens=30, temperature=0, stop=["~~never", stop]) == cut
    other = model.generate("The film", tokens=30, temperature=0, repetition_penalty=2.0)
    assert other != whole


def test_the_command_takes_prompts_stops_and_penalties(language: Path):
    from typer.testing import CliRunner

    from gradus.cli import app

    def said(*words: str) -> str:
        done = CliRunner().invoke(
            app, ["generate", str(language), "--tokens", "9", "--device", "cpu", *words]
        )
        if done.exception is not None:
            raise done.exception
        return done.stdout

    model, greedy = use(language), ("--temperature", "0")
    options = {"tokens": 9, "temperature": 0, "repetition_penalty": 1.5}
    prompts = ["The film", "好"]
    words = [word for prompt in prompts for word in ("--prompt", prompt)]
    texts = model.generate(prompts, **options)
    wanted = "".join(f"{prompt}{text}\n" for prompt, text in zip(prompts, texts))
    assert said(*greedy, "--repetition-penalty", "1.5", *words) == wanted
    whole = model.generate("好", tokens=9, temperature=0)
    stop = next(letter for letter in whole[1:] if letter != "\ufffd")
    cut = said(*greedy, "--prompt", "好", "--stop", "~~never", "--stop", stop)
    assert cut == "好" + whole[: whole.index(stop)] + "\n"
    assert said(*greedy) == model.generate("", tokens=9, temperature=0) + "\n"
    for wrong, told in (
        (("--repetition-penalty", "0"), "repetition_penalty: .*greater than 0"),
        (("--repetition-penalty", "nan"), "repetition_penalty: "),
        (("--stop", ""), "stop.0: .*at least 1 character"),
        (("--beams", "2", "--stop", "x"), "many texts at a time: leave out stop, or beams"),
        (("--length-penalty", "2"), "length_penalty is for beam search"),
    ):
        with pytest.raises(UserError, match=told):
            said(*wrong)
