"""The CRF beside pytorch-crf (pip install pytorch-crf): likelihood with its gradient, and the likeliest tags.

python benchmarks/crf.py --export benchmarks/results/crf.json        # a minute

Both sides have the same rows, scores and weights; ours come end to end, the peer's padded with a mask. They
are timed in turn in one process of one thread, and must agree before anything is timed. Rows are all as long
as the longest, which is best for padding, or of lengths drawn between an eighth of that and all of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import Found, machine
from torchcrf import CRF

from gradus.nn.crf import Chains, Scores, chain_nats, likeliest

SHAPES = [(32, 40, 9), (64, 100, 20)]
"""Rows, words of the longest, tags."""
EACH = 10
"""Calls a turn."""
Side = Callable[[], Any]


def sides(rows: int, words: int, tags: int, even: bool) -> dict[str, tuple[Side, Side]]:
    """What is timed -> ours and the peer's. Raises SystemExit where they do not agree."""
    torch.manual_seed(1)
    lengths = torch.randint(max(1, words // 8), words + 1, (rows,))
    lengths[0 if not even else slice(None)] = words
    mask = torch.arange(words) < lengths.unsqueeze(1)
    padded, wanted = torch.randn(rows, words, tags), torch.randint(0, tags, (rows, words))
    flat, known = padded[mask], wanted[mask]
    begins = (torch.arange(words) == 0).expand(rows, words)[mask]
    peer = CRF(tags, batch_first=True)
    scores = Scores(peer.start_transitions, peer.end_transitions, peer.transitions)

    def learnt() -> tuple[float, torch.Tensor]:
        links = flat.clone().requires_grad_()
        on = scores.on(links, begins, begins.roll(-1))
        nats = chain_nats(on, scores.transitions, known, Chains.of(begins)).sum()
        peer.zero_grad()
        nats.backward()
        return nats.item(), links.grad

    def learnt_by_peer() -> tuple[float, torch.Tensor]:
        links = padded.clone().requires_grad_()
        nats = -peer(links, wanted, mask=mask)
        peer.zero_grad()
        nats.backward()
        return nats.item(), links.grad[mask]

    @torch.no_grad()
    def said() -> list[int]:
        on = scores.on(flat, begins, begins.roll(-1))
        return likeliest(on, scores.transitions, Chains.of(begins)).tolist()

    @torch.no_grad()
    def said_by_peer() -> list[list[int]]:
        return peer.decode(padded, mask=mask)

    (ours, gradient), (theirs, other) = learnt(), learnt_by_peer()
    if abs(ours - theirs) > 1e-4 * theirs or float((gradient - other).abs().max()) > 1e-4:
        raise SystemExit(f"the sides do not agree: {ours} and {theirs}")
    if said() != [tag for row in said_by_peer() for tag in row]:
        raise SystemExit("the sides do not say the same tags")
    return {"forward and backward": (learnt, learnt_by_peer), "decoding": (said, said_by_peer)}


def seconds(side: Side) -> float:
    began = time.perf_counter()
    for _ in range(EACH):
        side()
    return (time.perf_counter() - began) / EACH


def measured(rounds: int) -> list[Found]:
    """Every shape and side in turn, told as a line of a table."""
    found = []
    for shape in SHAPES:
        for even in (True, False):
            for what, (ours, theirs) in sides(*shape, even).items():
                turns = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
                own, other = (f"{1e3 * statistics.median(times):.1f} ms" for times in zip(*turns))
                ratio = statistics.median(one / two for one, two in turns)
                name, lengths = " x ".join(map(str, shape)), "all alike" if even else "drawn"
                print(f"| {name} | {lengths} | {what} | {own} | {other} | {ratio:.2f} |", flush=True)
                found.append(
                    {"shape": name, "lengths": lengths, "what": what, "ratio": ratio, "turns": turns}
                )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--export", type=Path, help="write all figures to this JSON file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| rows x words x tags | lengths | what | gradus | pytorch-crf | ratio |")
    print("|---|---|---|---:|---:|---:|")
    found = {"machine": machine(), "figures": measured(options.rounds)}
    if options.export:
        options.export.parent.mkdir(parents=True, exist_ok=True)
        options.export.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
