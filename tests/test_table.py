"""A table of weight names, both ways, on a made-up family with all that an encoder-decoder may have."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gradus.core.errors import UserError
from gradus.core.model import ModelConfig
from gradus.families.files import pieces_of
from gradus.families.stored import Stored, locate, read, shapes
from gradus.families.table import Place, Table, joined, transposed

CONFIG = ModelConfig(
    arrangement="encoder_decoder", layers=2, width=12, heads=3, kv_heads=1, context=8, vocab_size=11,
    feed_forward=20, positions="relative", output_bias=True, tie_embeddings=True,
    dense_head=True,
)  # fmt: skip


def half(ours: str, theirs: str) -> dict[str, str | Place]:
    return {
        f"{ours}blocks.*.attention.query_key_value": joined(*(f"{theirs}.layer.*.{part}" for part in "qkv")),
        f"{ours}blocks.*.attention.output": transposed(f"{theirs}.layer.*.o"),
        f"{ours}blocks.*.attention_norm": f"{theirs}.layer.*.n0",
        f"{ours}blocks.*.feed_forward.up": f"{theirs}.layer.*.wi",
        f"{ours}blocks.*.feed_forward.down": f"{theirs}.layer.*.wo",
        f"{ours}blocks.*.feed_forward_norm": f"{theirs}.layer.*.n2",
        f"{ours}relative": f"{theirs}.buckets",
    }


TABLE = Table(
    title="family",
    prefix="model.",
    body={
        "embedding.tokens": "shared",
        "blocks.*.cross_attention.query": "decoder.layer.*.cq",
        "blocks.*.cross_attention.key_value": joined("decoder.layer.*.ck", "decoder.layer.*.cv"),
        "blocks.*.cross_attention.output": "decoder.layer.*.co",
        "blocks.*.cross_attention_norm": "decoder.layer.*.n1",
    }
    | half("", "decoder")
    | half("encoder.", "encoder"),
    outside={"unembedding": "lm_head", "output_bias": "lm_head.bias"},
    heads={"classes": {"dense": "classifier.dense", "score": "classifier.out_proj"}},
    prefixes={None: ""},
    copies={"embedding.tokens.weight": ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")},
    no_weights=(r"position_ids", r"encoder\.layer\.\d+\.mask"),
    zeros=("final_logits_bias",),
)
HEAD = {
    "heads.sst.dense.weight": (12, 12), "heads.sst.dense.bias": (12,),
    "heads.sst.score.weight": (3, 12), "heads.sst.score.bias": (3,),
}  # fmt: skip


def tensors_of(head: bool) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(1)
    wanted = shapes(CONFIG) | (HEAD if head else {})
    return {name: torch.randn(shape, generator=random) for name, shape in wanted.items()}


def saved(path: Path, tensors: dict[str, Tensor], **more: Tensor | None) -> None:
    content = {**tensors, **more}
    kept = {name: part.contiguous().clone() for name, part in content.items() if part is not None}
    save_file(kept, path / "model.safetensors")


def found(path: Path, head: bool) -> tuple[dict[str, Stored], tuple[str, ...]]:
    return locate(TABLE, pieces_of(path), CONFIG, "classes" if head else None, "sst", path)


@pytest.mark.parametrize("head", [False, True])
def test_every_layout_goes_and_comes_with_the_same_bits(tmp_path: Path, head: bool) -> None:
    tensors = tensors_of(head)
    theirs = TABLE.written(tensors, CONFIG, "classes" if head else None)
    before = "model." if head else ""
    fused = tensors["encoder.blocks.1.attention.query_key_value.weight"]
    for name, piece in zip("qkv", fused.split([12, 4, 4])):
        assert torch.equal(theirs[f"{before}encoder.layer.1.{name}.weight"], piece)
    both = tensors["blocks.0.cross_attention.key_value.bias"]
    assert torch.equal(theirs[f"{before}decoder.layer.0.cv.bias"], both[4:])
    output = tensors["blocks.0.attention.output.weight"]
    assert torch.equal(theirs[f"{before}decoder.layer.0.o.weight"], output.t())
    assert "lm_head.bias" in theirs and ("classifier.out_proj.bias" in theirs) == head
    saved(tmp_path, theirs)
    stored, dropped = found(tmp_path, head)
    assert stored.keys() == tensors.keys() and dropped == ()
    assert all(torch.equal(part, tensors[name]) for name, part in read(stored).items())
    assert {name: place.shape for name, place in stored.items()} == {
        name: tuple(part.shape) for name, part in tensors.items()
    }


def test_copies_and_what_is_no_weight_are_dropped(tmp_path: Path) -> None:
    theirs = TABLE.written(tensors_of(False), CONFIG)
    tokens, zeros = theirs["shared.weight"], torch.zeros(1, 11)
    extra = {"lm_head.weight": tokens, "decoder.embed_tokens.weight": tokens, "final_logits_bias": zeros}
    extra |= {"position_ids": torch.arange(8), "model.encoder.layer.1.mask": zeros}
    saved(tmp_path, theirs, **extra)
    assert set(found(tmp_path, False)[1]) == extra.keys()
    without = {name: part for name, part in {**theirs, **extra}.items() if name != "shared.weight"}
    saved(tmp_path, without)
    stored, dropped = found(tmp_path, False)
    assert torch.equal(read(stored)["embedding.tokens.weight"], tokens)
    assert "final_logits_bias" in dropped and "embed_tokens" in stored["embedding.tokens.weight"].name


WRONG = {
    "a copy": ({"encoder.embed_tokens.weight": torch.ones(11, 12)}, "tied but differs from shared.weight"),
    "zeros": ({"final_logits_bias": torch.ones(1, 11)}, "not all zeros: 'final_logits_bias'"),
    "a layer": ({"encoder.layer.2.q.weight": torch.ones(2, 2)}, "model has no place .*encoder.layer.2.q"),
    "unknown": ({"decoder.layer.0.qq.weight": torch.ones(2, 2)}, "family has no such tensor"),
    "a head": ({"classifier.dense.bias": torch.ones(2)}, "model has no place .*classifier.dense.bias"),
    "a piece": ({"decoder.layer.1.cv.bias": None}, "lack a tensor: 'decoder.layer.1.cv.bias'"),
    "twice": ({"model.shared.weight": torch.ones(1)}, "with and without a prefix"),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_what_is_wrong_is_named(tmp_path: Path, case: str) -> None:
    changes, message = WRONG[case]
    saved(tmp_path, TABLE.written(tensors_of(False), CONFIG), **changes)
    with pytest.raises(UserError, match=message):
        found(tmp_path, False)


def test_heads_that_theirs_lack_are_said() -> None:
    assert TABLE.obstacle("classes", True) is None
    assert TABLE.obstacle("classes", False) == "its family has a linear layer with bias there"
    assert TABLE.obstacle("choices", True) == "its family has no head for choices"
    with pytest.raises(KeyError, match="pooler"):
        TABLE.written({"pooler.weight": torch.ones(2, 2)}, CONFIG)
