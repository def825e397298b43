"""Many prompts at once, with and without a cache: each gets what it would get alone; penalty and stops."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from test_arrangements import AXES, BOTH

from gradus.core.errors import UserError
from gradus.core.model import ModelConfig
from gradus.evaluation.generate import Running, generate, generate_all
from gradus.evaluation.sampling import Sampling, before_stop, penalised
from gradus.nn.transformer import Transformer

transformers = pytest.importorskip("transformers")

VOCABULARY, CONTEXT, END = 40, 24, 7
KINDS: dict[str, dict[str, Any]] = {
    "gpt1": {},
    "rotary": AXES["rotary"],
    "windowed": AXES["windowed"],
    "lstm": {"body": "lstm", "units": 24},
    **BOTH,
}
PROMPTS = [[1], [5, 6, 9], [20, 3, 20, 3, 34], [30] * 9, list(range(12)), list(range(23)), list(range(24))]
SETTINGS = {
    "greedy": Sampling(tokens=18, temperature=0.0),
    "penalty": Sampling(tokens=18, temperature=0.0, repetition_penalty=1.4),
    "drawn": Sampling(tokens=18, top_k=12, top_p=0.9, temperature=0.7, seed=3),
    "beams": Sampling(tokens=18, beams=3, length_penalty=0.6),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def model(kind: str, seed: int = 1) -> Transformer:
    shape = {"layers": 2, "width": 16, "heads": 4, "context": CONTEXT, "vocab_size": VOCABULARY}
    config = ModelConfig(**shape | {"initial_deviation": 0.4} | KINDS[kind])
    return Transformer(config, torch.float64).initialise(seed).eval()


def begins(kind: str) -> dict[str, int]:
    return {"start": 2} if kind in BOTH else {}


@pytest.mark.parametrize(
    "kind,name",
    [
        *(("gpt1", name) for name in SETTINGS), ("rotary", "beams"), ("windowed", "greedy"),
        ("lstm", "beams"), ("t5", "penalty"), ("t5", "drawn"), ("bart", "greedy"), ("bart", "beams"),
    ],
)  # fmt: skip
def test_neither_the_batch_nor_the_cache_changes_an_answer(
    kind: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts of several lengths, some of which fill the context before others."""
    built, sampling = model(kind), SETTINGS[name]
    if kind in BOTH:  # the decoder begins with one token and shall fill the context too
        sampling = sampling.model_copy(update={"tokens": 30})
    end = generate(built, PROMPTS[4], SETTINGS["greedy"], None, [11], **begins(kind))[3]
    together = generate_all(built, PROMPTS, sampling, end, [11], **begins(kind))
    plain = generate_all(built, PROMPTS, sampling, end, [11], cached=False, **begins(kind))
    assert together == plain
    assert len({len(said) for said in together}) > 1 or name == "drawn"
    monkeypatch.setattr("gradus.evaluation.generate.PROMPTS_AT_ONCE", 1)
    assert generate_all(built, PROMPTS, sampling, end, [11], **begins(kind)) == together
    assert generate(built, PROMPTS[0], sampling, end, [11], **begins(kind)) == together[0]


def test_equal_prompts_draw_numbers_of_their_own() -> None:
    built, sampling = model("gpt1"), Sampling(tokens=8, temperature=3.0)
    first, second = generate_all(built, [[1, 2], [1, 2]], sampling, None)
    assert first == generate(built, [1, 2], sampling, None) != second
    assert generate_all(built, [], sampling, None) == []


@pytest.mark.parametrize("kind", list(KINDS))
def test_logits_of_running_sequences_are_those_of_the_whole(kind: str) -> None:
    """1e-12, beams changing places, sequences that fill the context among others."""
    built = model(kind)
    sources = [prompt[:9] for prompt in PROMPTS] if kind in BOTH else None
    begun = [[2]] * len(PROMPTS) if kind in BOTH else PROMPTS
    random = np.random.default_rng(0)
    with torch.inference_mode():
        running, plain = (Running(built, begun, sources, [], cached) for cached in (True, False))
        for step in range(30):
            assert (running.logits() - plain.logits()).abs().max() < 1e-12
            count = len(running.sequences)
            rows = random.permutation(count) if step % 3 else random.integers(0, count, max(count - 1, 3))
            tokens = random.integers(0, VOCABULARY, len(rows))
            for one in (running, plain):
                one.advance(rows.tolist(), tokens.tolist())
    assert max(map(len, running.sequences)) > CONTEXT


@pytest.mark.parametrize("penalty", [1.0, 1.3, 0.8, 25.0])
def test_the_penalty_is_that_of_transformers(penalty: float) -> None:
    scores = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(5)) * 3
    seen = [3, 9, 9, 30, 3]
    wanted = transformers.RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([seen]), scores[None])[0]
    assert torch.equal(penalised(scores, seen, penalty), wanted)
    assert torch.equal(penalised(scores, [], penalty), scores)


def letters(place: int, said: list[int]) -> str:
    return "".join(chr(ord("A") + token) for token in said)


def test_stop_strings_end_an_answer_and_no_other() -> None:
    built, greedy = model("gpt1", 3), {"tokens": 12, "temperature": 0.0}
    free = generate_all(built, PROMPTS[:5], Sampling(**greedy), None)
    stop = letters(0, free[1][4:6])
    told = generate_all(built, PROMPTS[:5], Sampling(**greedy, stop=[stop, "~~"]), None, text=letters)
    for said, whole in zip(told, free):
        text = letters(0, whole)
        end = text.find(stop)
        assert said == (whole[: end + 2] if end >= 0 else whole)
    assert 2 <= len(told[1]) <= 6 < len(told[0]) + len(told[2])
    assert before_stop("a dull. evening", ["evening", ". "]) == "a dull"
    assert before_stop("nothing", ["ev"]) == "nothing" == before_stop("nothing", [])


@pytest.mark.parametrize(
    "wrong",
    [
        {"repetition_penalty": 0.0}, {"repetition_penalty": -1.0}, {"repetition_penalty": float("nan")},
        {"repetition_penalty": float("inf")}, {"stop": ""}, {"stop": ["a", ""]}, {"stop": [1]},
        {"beams": 2, "stop": "x"},
    ],
)  # fmt: skip
def test_penalties_and_stops_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Sampling(**wrong)


def test_an_encoder_decoder_needs_a_start_and_a_source_that_fits() -> None:
    built, sampling = model("bart"), Sampling(tokens=2)
    with pytest.raises(ValueError, match="starts from"):
        generate(built, [1, 2], sampling, None)
    with pytest.raises(UserError, match="25 tokens, the encoder's context holds 24"):
        generate(built, [1] * 25, sampling, None, start=2)
    assert generate(built, [], sampling, 3, start=2) == generate(built, [3], sampling, 3, start=2)
