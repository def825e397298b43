"""Encoders, encoder-decoders and what decoders may see besides: every mask against attention written out,
and what depends on what."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gradus.core.example import Ragged, ragged
from gradus.core.model import ModelConfig
from gradus.nn.attention import masks_across, masks_within
from gradus.nn.kernels import KERNELS, Mask
from gradus.nn.layout import Layout
from gradus.nn.positions import buckets
from gradus.nn.transformer import Transformer

EXACT, VOCABULARY = torch.float64, 40
AXES: dict[str, dict[str, Any]] = {
    "encoder": {"arrangement": "encoder", "segments": 2, "embedding_norm": True},
    "rotary": {"positions": "rotary", "norm_kind": "rms", "norm": "before", "gated": True,
               "activation": "silu", "kv_heads": 2, "biases": False},
    "windowed": {"window": 5, "norm": "before"},
    "relative": {"arrangement": "encoder", "positions": "relative", "attention_scale": False, "biases": False,
                 "norm": "before", "norm_kind": "rms", "head_width": 6},
}  # fmt: skip
BOTH: dict[str, dict[str, Any]] = {
    "bart": {"arrangement": "encoder_decoder", "position_offset": 2, "embedding_norm": True},
    "t5": AXES["relative"] | {"arrangement": "encoder_decoder"},
}


def model(changes: dict[str, Any], **options: Any) -> Transformer:
    shape = {"layers": 2, "width": 16, "heads": 4, "context": 200, "vocab_size": VOCABULARY, "dropout": 0.0}
    return Transformer(ModelConfig(**shape | changes), EXACT, **options).initialise(2).eval()


def rows(*lengths: int, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.integers(0, VOCABULARY, length) for length in lengths]


def written_out(query: Tensor, key: Tensor, value: Tensor, mask: Mask) -> Tensor:
    """Attention as its definition has it: all scores, masked, softmax, mean."""
    scores = torch.einsum("sqhc,skhc->shqk", query, key)
    scores = scores * (query.shape[-1] ** -0.5 if mask.scale is None else mask.scale)
    if mask.bias is not None:
        scores = scores + mask.bias
    if mask.hidden is not None:
        scores = scores.masked_fill(mask.hidden, -math.inf)
    if mask.causal:
        behind = torch.ones(scores.shape[-2:], dtype=torch.bool).triu_(1)
        scores = scores.masked_fill(behind, -math.inf)
    return torch.einsum("shqk,skhc->sqhc", scores.softmax(-1), value)


@pytest.mark.parametrize("kernel", list(KERNELS))
@pytest.mark.parametrize(
    "kind", ["all", "lengths", "causal and bias", "window", "prefix", "across, no scale"]
)
def test_every_mask_is_attention_written_out(kind: str, kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and all four gradients, queries taken in blocks that do not divide the length."""
    monkeypatch.setattr("gradus.nn.kernels.QUERY_BLOCK", 24)
    generator = torch.Generator().manual_seed(1)
    offsets, bias = np.array([0, 61, 101, 120]), None
    layout = Layout.of(offsets, 128)
    if kind == "causal and bias":
        bias = torch.randn(4, 80, 80, dtype=EXACT, generator=generator, requires_grad=True)
    if kind == "across, no scale":
        keys = layout.beside(np.array([0, 7, 50, 62]), 64)
        masks = masks_across(keys, scale=1.0)
    else:
        keys = layout
        masks = masks_within(
            layout, np.array([5, 20, 19]) if kind == "prefix" else None,
            causal=kind not in ("all", "lengths"), window=7 if kind == "window" else None, bias=bias,
        )  # fmt: skip
    if kind == "all":
        masks = tuple(Mask(causal=False) for _ in masks)
    for (lines, time), (_, seen), mask in zip(layout.groups, keys.groups, masks):
        shapes = (lines, time, 4, 6), (lines, seen, 4, 6), (lines, seen, 4, 6)
        parts = [torch.randn(shape, dtype=EXACT, generator=generator, requires_grad=True) for shape in shapes]
        given = parts if bias is None else [*parts, bias]
        upstream = torch.randn(shapes[0], dtype=EXACT, generator=generator)
        expected = written_out(*parts, mask)
        found = KERNELS[kernel](*parts, 0.0, mask)
        assert (found - expected).abs().max() < 1e-12
        wanted = torch.autograd.grad(expected, given, upstream, retain_graph=True)
        for mine, theirs in zip(torch.autograd.grad(found, given, upstream, retain_graph=True), wanted):
            assert (mine - theirs).abs().max() < 1e-12


@pytest.mark.parametrize("causal, window", [(False, None), (True, None), (True, 7)])
@pytest.mark.parametrize("prefix", [(0, 0, 0), (5, 30, 19)])
def test_masks_hide_what_rows_windows_and_prefixes_say(
    causal: bool, window: int | None, prefix: tuple[int, ...]
) -> None:
    """Key by key: behind a query its window, ahead of it the prefix, or all where nothing is causal."""
    lengths = (61, 40, 19)
    layout = Layout.of(np.cumsum([0, *lengths]), 128)
    heads = np.array(prefix) if causal and any(prefix) else None
    masks = masks_within(layout, heads, causal=causal, window=window)
    for mask, (_, time), members in zip(masks, layout.groups, layout.members):
        for line, row in enumerate(members):
            seen = torch.ones(time, time, dtype=torch.bool)
            seen = seen.tril() if mask.causal else seen
            if mask.hidden is not None:
                seen &= ~mask.hidden[line if len(mask.hidden) > 1 else 0, 0]
            for query in range(lengths[row]):
                first = query - (window or time) + 1
                last = max(query + 1, prefix[row]) if causal else lengths[row]
                assert seen[query].tolist() == [first <= key < last for key in range(time)], (row, query)


@pytest.mark.parametrize("kernel", list(KERNELS))
@pytest.mark.parametrize("name", list(AXES))
def test_other_sequences_change_nothing(name: str, kernel: str) -> None:
    built, texts = model(AXES[name], kernel=kernel), rows(37, 150, 3, 80, 1)
    segments = [np.arange(len(text)) % 2 for text in texts] if built.config.segments else []
    with torch.no_grad():
        together = built(ragged(texts, segments=segments))
        for place, text in enumerate(texts):
            alone = built(ragged([text], segments=segments[place : place + 1]))
            start = sum(map(len, texts[:place]))
            assert (together[start : start + len(text)] - alone[: len(text)]).abs().max() < 1e-12


@pytest.mark.parametrize("name", list(BOTH))
def test_a_decoder_sees_its_own_past_and_its_own_source(name: str) -> None:
    built, sources, said = model(BOTH[name]), rows(30, 90, 2), rows(12, 1, 45, seed=1)

    def states(sources: list[np.ndarray], said: list[np.ndarray]) -> Tensor:
        with torch.no_grad():
            return built(ragged(sources), ragged(said))

    def changed(texts: list[np.ndarray], text: int, place: int) -> list[np.ndarray]:
        copies = [one.copy() for one in texts]
        copies[text][place] = (copies[text][place] + 1) % VOCABULARY
        return copies

    before = states(sources, said)
    for text, place in ((0, 29), (1, 0), (2, 1)):
        difference = (states(changed(sources, text, place), said) - before).abs().amax(1)[:58]
        own = np.repeat([0, 1, 2], [12, 1, 45]) == text
        assert difference[~own].max() < 1e-12 and difference[own].min() > 1e-9
    difference = (states(sources, changed(said, 2, 20)) - before).abs().amax(1)[:58]
    assert difference[: 13 + 20].max() < 1e-12 and difference[13 + 20 :].min() > 1e-9
    alone = built(ragged(sources[1:2]), ragged(said[1:2]))
    assert (alone[0] - before[12]).abs().max() < 1e-12


def test_a_prefix_is_seen_by_all_of_its_sequence() -> None:
    built, texts = model({}), rows(20, 9)
    source = ragged(texts, prefix=[6, 0])

    def states(source: Ragged) -> Tensor:
        with torch.no_grad():
            return built(source)

    before = states(source)
    texts[0][5] += 1
    difference = (states(ragged(texts, prefix=[6, 0])) - before).abs().amax(1)
    assert difference[:20].min() > 1e-9 and difference[20:29].max() < 1e-12
    texts[0][6] += 1
    later = states(ragged(texts, prefix=[6, 0]))
    texts[0][6] -= 1
    assert (later - states(ragged(texts, prefix=[6, 0])))[:6].abs().max() < 1e-12


def test_buckets_are_those_of_the_paper() -> None:
    """Raffel et al. 2020, 2.1: 32 buckets, all beyond 128 in the last; single distances at first."""
    distance = torch.arange(-300, 301)
    back = buckets(distance, 32, 128, causal=True)
    assert (back[distance >= 0] == 0).all()
    near = (distance <= 0) & (distance > -16)
    assert torch.equal(back[near], -distance[near]) and int(back[distance <= -128].min()) == 31
    both = buckets(distance, 32, 128, causal=False)
    assert int(both[distance > 0].min()) == 17 and int(both[distance <= 0].max()) == 15
    assert torch.equal(both[distance > 0] - 16, both[distance < 0].flip(0))


@pytest.mark.parametrize("name", [*AXES, *BOTH])
def test_gradients_reach_every_parameter(name: str) -> None:
    built = model((AXES | BOTH)[name])
    segments = [np.arange(20) % 2] if built.config.segments else []
    decoded = ragged(rows(8, seed=3)) if built.config.encodes_and_decodes else None
    states = built(ragged(rows(20), segments=segments), decoded)
    built.logits(states).square().sum().backward()
    for part, parameter in built.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, part
