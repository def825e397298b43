"""Generation: greedy and beam search are those of transformers; draws follow seed and distribution."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from gradus.core.errors import UserError
from gradus.core.example import ragged
from gradus.core.model import ModelConfig
from gradus.evaluation.generate import generate
from gradus.evaluation.sampling import Sampling, kept_probabilities
from gradus.families.gpt1 import TABLE, to_config_json
from gradus.nn.transformer import Transformer

transformers = pytest.importorskip("transformers")

VOCABULARY, CONTEXT, END = 61, 32, 7
CONFIG = ModelConfig(layers=2, width=32, heads=4, context=CONTEXT, vocab_size=VOCABULARY)
GREEDY = {"temperature": 0.0}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small gain nothing from a second thread, and lose much where the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random_model(seed: int, deviation: float = 0.35) -> Transformer:
    """Random weights, large enough that no two tokens nearly tie."""
    return Transformer(CONFIG.model_copy(update={"initial_deviation": deviation})).initialise(seed).eval()


def reference_of(model: Transformer) -> transformers.OpenAIGPTLMHeadModel:
    config = transformers.OpenAIGPTConfig(**to_config_json(CONFIG, None, None))
    reference = transformers.OpenAIGPTLMHeadModel(config).eval()
    names = TABLE.written({name: tensor.clone() for name, tensor in model.state_dict().items()}, CONFIG)
    missing, unexpected = reference.load_state_dict(names, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}
    reference.tie_weights()
    return reference


def theirs(reference, prompt: list[int], **options) -> list[int]:
    ids = torch.tensor([prompt])
    found = reference.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, use_cache=False, pad_token_id=0, **options
    )[0, len(prompt) :].tolist()
    end = options["eos_token_id"]
    return found[: found.index(end)] if end in found else found


PROMPTS = [[1], [5, 6, 9], [20, 3, 20, 3, 44], [60] * 9, list(range(12))]


def test_greedy_is_that_of_transformers_row_by_row():
    stopped = 0
    for seed in range(4):
        model = random_model(seed)
        reference = reference_of(model)
        for prompt in PROMPTS:
            own = generate(model, prompt, Sampling(tokens=16, **GREEDY), None)
            end = own[8]  # a token that does come, so that stopping is seen too
            for stop in (END, end):
                wanted = theirs(reference, prompt, max_new_tokens=16, eos_token_id=stop)
                assert generate(model, prompt, Sampling(tokens=16, **GREEDY), stop) == wanted
                stopped += len(wanted) < 16
    assert stopped >= 20


@pytest.mark.parametrize("beams", [2, 3])
@pytest.mark.parametrize("penalty", [1.0, 0.0, 2.0])
def test_beam_search_is_that_of_transformers(beams: int, penalty: float):
    lengths = set()
    for seed in range(3):
        model = random_model(seed, 0.25)
        reference = reference_of(model)
        for prompt in PROMPTS:
            # The likeliest token soon and again: answers of many lengths finish.
            end = generate(model, prompt, Sampling(tokens=6, **GREEDY), None)[2]
            sampling = Sampling(tokens=14, beams=beams, length_penalty=penalty)
            wanted = theirs(
                reference, prompt, max_new_tokens=14, eos_token_id=end, num_beams=beams,
                length_penalty=penalty, early_stopping=False,
            )  # fmt: skip
            assert generate(model, prompt, sampling, end) == wanted
            lengths.add(len(wanted))
    assert len(lengths) > 1


def test_a_wide_beam_finds_the_likeliest_answer_of_all():
    config = CONFIG.model_copy(update={"vocab_size": 5, "initial_deviation": 0.5})
    model = Transformer(config).initialise(3).eval()
    best, likeliest = None, -math.inf
    for number in range(5**3):
        said = [number // 25, number // 5 % 5, number % 5]
        logits = logits_of(model, [1, *said])[:-1].log_softmax(1)
        total = float(logits[torch.arange(3), torch.tensor(said)].sum())
        if total > likeliest:
            best, likeliest = said, total
    assert generate(model, [1], Sampling(tokens=3, beams=125), None) == best


def logits_of(model: Transformer, tokens: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model(ragged([np.array(tokens)]))[: len(tokens)] @ model.output_weight.T


def test_the_same_seed_draws_the_same_tokens_and_another_seed_others():
    model = random_model(0, 0.05)
    draws = [generate(model, [1, 2], Sampling(tokens=20, seed=seed), None) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    torch.manual_seed(99)  # the generator is its own
    assert generate(model, [1, 2], Sampling(tokens=20, seed=1), None) == draws[0]
    assert generate(model, [1, 2], Sampling(tokens=9, seed=1), None) == draws[0][:9]


def test_draws_have_the_distribution_of_the_model():
    model = random_model(1, 0.12)
    wanted = logits_of(model, [4, 5])[-1].double().softmax(0)
    rounds = 1500
    drawn = [generate(model, [4, 5], Sampling(tokens=1, seed=seed), None)[0] for seed in range(rounds)]
    counts = torch.bincount(torch.tensor(drawn), minlength=VOCABULARY).double()
    chi_squared = float(((counts - rounds * wanted) ** 2 / (rounds * wanted)).sum())
    assert chi_squared < 60 + 5 * math.sqrt(2 * 60)


@pytest.mark.parametrize(
    "top_k,top_p,temperature", [(5, None, 1.0), (None, 0.7, 1.0), (20, 0.5, 0.6), (1, 0.1, 2.0)]
)
def test_top_k_top_p_and_temperature_keep_what_transformers_keeps(top_k, top_p, temperature):
    logits = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * 2
    scores = transformers.TemperatureLogitsWarper(temperature)(None, logits[None])
    if top_k:
        scores = transformers.TopKLogitsWarper(top_k)(None, scores)
    if top_p:
        scores = transformers.TopPLogitsWarper(top_p)(None, scores)
    kept = kept_probabilities(logits, Sampling(temperature=temperature, top_k=top_k, top_p=top_p))
    torch.testing.assert_close(kept / kept.sum(), scores[0].softmax(0), rtol=1e-12, atol=1e-15)


def test_a_small_temperature_and_the_one_likeliest_token_are_greedy():
    model = random_model(2)
    greedy = generate(model, [3, 4], Sampling(tokens=12, **GREEDY), None)
    assert generate(model, [3, 4], Sampling(tokens=12, top_k=1, seed=5), None) == greedy
    assert generate(model, [3, 4], Sampling(tokens=12, temperature=1e-4, seed=5), None) == greedy
    assert generate(model, [3, 4], Sampling(tokens=12, top_p=1e-9, seed=5), None) == greedy
    assert generate(model, [3, 4], Sampling(tokens=12, temperature=1e-310, seed=5), None) == greedy


def test_banned_tokens_are_never_said():
    model = random_model(0)
    for sampling in (
        Sampling(tokens=15, **GREEDY),
        Sampling(tokens=15, seed=3),
        Sampling(tokens=15, beams=3),
    ):
        free = generate(model, [8], sampling, None)
        banned = sorted(set(free))[:5]
        assert not set(generate(model, [8], sampling, None, banned)) & set(banned)


def test_the_context_slides():
    model = random_model(3)
    said = generate(model, [1, 2, 3], Sampling(tokens=CONTEXT + 20, **GREEDY), None)
    assert len(said) == CONTEXT + 20
    last = [1, 2, 3, *said][-CONTEXT - 1 : -1]
    assert generate(model, last, Sampling(tokens=1, **GREEDY), None) == said[-1:]
    long = list(range(50)) * 3
    short = generate(model, long[-CONTEXT:], Sampling(tokens=1, **GREEDY), None)
    assert generate(model, long, Sampling(tokens=1, **GREEDY), None) == short


def test_an_empty_prompt_begins_a_document():
    model = random_model(4)
    sampling = Sampling(tokens=5, **GREEDY)
    assert generate(model, [], sampling, 11) == generate(model, [11], sampling, 11)
    with pytest.raises(UserError, match="the prompt is empty"):
        generate(model, [], sampling, None)


def test_the_model_is_left_as_it_was_and_dropout_is_off():
    model = random_model(0).train()
    sampling = Sampling(tokens=8, **GREEDY)
    assert generate(model, [1], sampling, None) == generate(model, [1], sampling, None)
    assert model.training and all(parameter.grad is None for parameter in model.parameters())


def test_scores_that_are_not_numbers_are_told():
    model = random_model(0)
    with torch.no_grad():
        model.output_weight[3] = math.nan
    with pytest.raises(UserError, match="not numbers"):
        generate(model, [1], Sampling(tokens=2), None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"top_p": 0.0}, {"top_p": 1.5}, {"top_k": 0}, {"temperature": -1.0}, {"tokens": 0}, {"beams": 0},
        {"beams": 2, "top_k": 5}, {"beams": 2, "temperature": 0.5}, {"length_penalty": 2.0}, {"nucleus": 0.9},
    ],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValidationError):
        Sampling(**wrong)
