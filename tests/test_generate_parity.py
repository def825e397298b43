"""Greedy and beam search of every arrangement are those of transformers, row by row, its caches on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from gradus.core.model import ModelConfig
from gradus.evaluation.generate import generate_all
from gradus.evaluation.sampling import Sampling
from gradus.nn.transformer import Transformer

transformers = pytest.importorskip("transformers")

VOCABULARY, CONTEXT, START, SILENT = 61, 48, 2, 60
SHAPE = {"layers": 2, "width": 32, "heads": 4, "context": CONTEXT, "vocab_size": VOCABULARY, "dropout": 0.0}
T5 = {
    "arrangement": "encoder_decoder", "positions": "relative", "attention_scale": False, "biases": False,
    "norm": "before", "norm_kind": "rms", "norm_epsilon": 1e-6, "activation": "relu", "output_scale": True,
    "head_width": 6, "relative_buckets": 8, "relative_distance": 20,
}  # fmt: skip
BART = {
    "arrangement": "encoder_decoder", "position_offset": 2, "embedding_norm": True, "activation": "gelu",
}  # fmt: skip
PROMPTS = [[1], [5, 6, 9], [20, 3, 20, 3, 44], [58] * 9, list(range(12))]
Pair = tuple[Transformer, Any]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def own(seed: int, changes: dict[str, Any], deviation: float) -> Transformer:
    """Random weights, large enough that no two tokens nearly tie, none of them the gain 1 or the bias 0."""
    built = Transformer(ModelConfig(**SHAPE | {"initial_deviation": deviation} | changes)).initialise(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in built.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return built.eval()


def filled(reference: Any, given: dict[str, Tensor]) -> Any:
    """The reference with every weight that it has of its own taken from `given`."""
    missing, unexpected = reference.load_state_dict(given, strict=False)
    tied = ("lm_head", "embed_tokens", "final_logits_bias")  # the last is a buffer of zeros
    assert not unexpected and all(any(part in name for part in tied) for name in missing), missing
    reference.tie_weights()
    return reference.eval()


def gpt2(seed: int) -> Pair:
    built = own(seed, {"norm": "before"}, 0.3)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=32, n_layer=2, n_head=4, bos_token_id=0
    )
    parts = {
        "attention_norm": "ln_1", "attention.query_key_value": "attn.c_attn",
        "attention.output": "attn.c_proj", "feed_forward_norm": "ln_2", "feed_forward.up": "mlp.c_fc",
        "feed_forward.down": "mlp.c_proj",
    }  # fmt: skip
    weights, given = built.state_dict(), {}
    given["transformer.wte.weight"] = weights["embedding.tokens.weight"]
    given["transformer.wpe.weight"] = weights["embedding.positions.weight"]
    for place in range(2):
        for ours, theirs in parts.items():
            for kind in ("weight", "bias"):
                tensor = weights[f"blocks.{place}.{ours}.{kind}"]
                given[f"transformer.h.{place}.{theirs}.{kind}"] = tensor.t() if tensor.dim() == 2 else tensor
    for kind in ("weight", "bias"):
        given[f"transformer.ln_f.{kind}"] = weights[f"final_norm.{kind}"]
    return built, filled(transformers.GPT2LMHeadModel(config), given)


def t5(seed: int) -> Pair:
    built = own(seed, T5, 0.45)
    config = transformers.T5Config(
        vocab_size=VOCABULARY, d_model=32, d_kv=6, d_ff=128, num_layers=2, num_heads=4,
        relative_attention_num_buckets=8, relative_attention_max_distance=20, dropout_rate=0.0,
        decoder_start_token_id=START, feed_forward_proj="relu",
    )  # fmt: skip
    weights, given = built.state_dict(), {"shared.weight": built.embedding.tokens.weight}
    for side, prefix, feed in (("encoder", "encoder.", 1), ("decoder", "", 2)):
        given[f"{side}.final_layer_norm.weight"] = weights[f"{prefix}final_norm.weight"]
        bias = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        given[bias] = weights[f"{prefix}relative.weight"]
        for place in range(2):
            ours, theirs = f"{prefix}blocks.{place}.", f"{side}.block.{place}.layer."
            fused = weights[f"{ours}attention.query_key_value.weight"].chunk(3)
            for name, tensor in zip("qkv", fused):
                given[f"{theirs}0.SelfAttention.{name}.weight"] = tensor
            given[f"{theirs}0.SelfAttention.o.weight"] = weights[f"{ours}attention.output.weight"]
            given[f"{theirs}0.layer_norm.weight"] = weights[f"{ours}attention_norm.weight"]
            if side == "decoder":
                given[f"{theirs}1.EncDecAttention.q.weight"] = weights[f"{ours}cross_attention.query.weight"]
                fused = weights[f"{ours}cross_attention.key_value.weight"].chunk(2)
                for name, tensor in zip("kv", fused):
                    given[f"{theirs}1.EncDecAttention.{name}.weight"] = tensor
                given[f"{theirs}1.EncDecAttention.o.weight"] = weights[f"{ours}cross_attention.output.weight"]
                given[f"{theirs}1.layer_norm.weight"] = weights[f"{ours}cross_attention_norm.weight"]
            given[f"{theirs}{feed}.DenseReluDense.wi.weight"] = weights[f"{ours}feed_forward.up.weight"]
            given[f"{theirs}{feed}.DenseReluDense.wo.weight"] = weights[f"{ours}feed_forward.down.weight"]
            given[f"{theirs}{feed}.layer_norm.weight"] = weights[f"{ours}feed_forward_norm.weight"]
    return built, filled(transformers.T5ForConditionalGeneration(config), given)


def bart(seed: int) -> Pair:
    built = own(seed, BART, 0.3)
    config = transformers.BartConfig(
        vocab_size=VOCABULARY, max_position_embeddings=CONTEXT, d_model=32, encoder_layers=2,
        decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        dropout=0.0, decoder_start_token_id=START, forced_eos_token_id=None, pad_token_id=SILENT,
        bos_token_id=0,
    )  # fmt: skip
    parts = {
        "attention_norm": "self_attn_layer_norm", "attention.output": "self_attn.out_proj",
        "feed_forward_norm": "final_layer_norm", "feed_forward.up": "fc1", "feed_forward.down": "fc2",
    }  # fmt: skip
    across = {
        "cross_attention_norm": "encoder_attn_layer_norm", "cross_attention.output": "encoder_attn.out_proj",
        "cross_attention.query": "encoder_attn.q_proj",
    }  # fmt: skip
    weights, given = built.state_dict(), {"model.shared.weight": built.embedding.tokens.weight}
    for side, prefix in (("encoder", "encoder."), ("decoder", "")):
        given[f"model.{side}.embed_positions.weight"] = weights[f"{prefix}embedding.positions.weight"]
        for kind in ("weight", "bias"):
            given[f"model.{side}.layernorm_embedding.{kind}"] = weights[f"{prefix}embedding.norm.{kind}"]
            for place in range(2):
                ours, theirs = f"{prefix}blocks.{place}.", f"model.{side}.layers.{place}."
                for name, other in (parts | (across if side == "decoder" else {})).items():
                    given[f"{theirs}{other}.{kind}"] = weights[f"{ours}{name}.{kind}"]
                fused = weights[f"{ours}attention.query_key_value.{kind}"].chunk(3)
                for name, tensor in zip("qkv", fused):
                    given[f"{theirs}self_attn.{name}_proj.{kind}"] = tensor
                if side == "decoder":
                    fused = weights[f"{ours}cross_attention.key_value.{kind}"].chunk(2)
                    for name, tensor in zip("kv", fused):
                        given[f"{theirs}encoder_attn.{name}_proj.{kind}"] = tensor
    return built, filled(transformers.BartForConditionalGeneration(config), given)


KINDS: dict[str, Callable[[int], Pair]] = {"gpt2": gpt2, "t5": t5, "bart": bart}
SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "greedy, penalty": {"repetition_penalty": 1.5},
    "3 beams": {"beams": 3},
    "2 beams, lengths": {"beams": 2, "length_penalty": 2.0},
    "4 beams, penalty": {"beams": 4, "length_penalty": 0.0, "repetition_penalty": 1.3},
}


def theirs(reference: Any, prompt: list[int], end: int, options: dict[str, Any]) -> list[int]:
    ids = torch.tensor([prompt])
    given = {"num_beams" if name == "beams" else name: value for name, value in options.items()}
    found = reference.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, early_stopping=False, max_new_tokens=14,
        eos_token_id=end, pad_token_id=SILENT, **given,
    )[0]  # fmt: skip
    said = found[1 if reference.config.is_encoder_decoder else len(prompt) :].tolist()
    return said[: said.index(end)] if end in said else said[:14]


@pytest.mark.parametrize("name", list(SEARCHES))
@pytest.mark.parametrize("kind", list(KINDS))
def test_ids_are_those_of_transformers_row_by_row(kind: str, name: str) -> None:
    lengths, options = set(), SEARCHES[name]
    drawing = {} if "beams" in options else {"temperature": 0.0}
    for seed in range(2):
        built, reference = KINDS[kind](seed)
        start = None if kind == "gpt2" else START
        free = generate_all(built, PROMPTS, Sampling(tokens=6, temperature=0.0), None, [SILENT], start=start)
        for end in (free[4][2], free[2][3]):
            sampling = Sampling(tokens=14, **options, **drawing)
            found = generate_all(built, PROMPTS, sampling, end, start=start)
            for prompt, said in zip(PROMPTS, found):
                assert said == theirs(reference, prompt, end, options)
                lengths.add(len(said))
    assert len(lengths) > 1
