"""A worked example of tags that are said together: what each word would say alone, what a scheme allows, and
what a chain makes of it. `python -m gradus.pipeline.worked.objectives` prints it into
docs/sequence-labelling.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from gradus.data.tags import entities, may_follow
from gradus.nn.crf import Chains, Scores, barred, chain_nats, likeliest

Table = Callable[[Sequence[str], Sequence[Sequence[str]]], str]
WORDS = ("周", "瑜", "在", "赤", "壁", "。")
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
LINKS = (
    (0.5, 3.0, 0.0, 1.0, 0.0),
    (1.0, 0.0, 2.5, 0.0, 1.0),
    (4.0, 0.0, 0.0, 0.0, 0.0),
    (2.2, 0.0, 0.0, 2.0, 1.0),
    (1.0, 0.0, 0.0, 0.5, 3.0),
    (5.0, 0.0, 0.0, 0.0, 0.0),
)
"""What a model may have said of each word: 赤 alone is rather no name, 壁 goes on with one."""
LEARNT = ((0.5, 0.8, -3.0, 0.8, -3.0), (-0.5, -1.5, 1.5, -1.5, -2.5), (0.4, -1.5, 0.0, -1.5, -2.5),
          (-0.5, -1.5, -2.5, -1.5, 1.5), (0.4, -1.5, -2.5, -1.5, 0.0))  # fmt: skip
"""What a chain may have learnt of the tag (a column) after each (a row)."""


def of_chain(table: Table) -> str:
    """The scores of six words, and the tags that three ways of reading them say."""
    links, chains = torch.tensor(LINKS), Chains.of(torch.arange(len(WORDS)) == 0)
    silent, learnt = torch.zeros(len(TAGS), len(TAGS)), torch.tensor(LEARNT)
    walls = barred(may_follow(TAGS, "bio"))
    first, last = torch.arange(len(WORDS)) == 0, torch.arange(len(WORDS)) == len(WORDS) - 1
    ways: dict[str, tuple[torch.Tensor, torch.Tensor]] = {
        "softmax": (links, silent),
        "legal tags": (walls.on(links, first, last), walls.transitions),
        "CRF": (Scores(silent[0], silent[0], learnt).on(links, first, last), learnt),
    }
    rows = {way: likeliest(*scores, chains) for way, scores in ways.items()}
    lines = [[f"{score:.1f}" for score in column] for column in zip(*LINKS)]
    said = [[TAGS[tag] for tag in tags.tolist()] for tags in rows.values()]
    shown = [table(["words", *TAGS], [WORDS, *lines]), table(["words", *ways], [WORDS, *said])]
    for way, scores in ways.items():
        odds = [
            f"{float(chain_nats(*scores, tags, chains).neg().exp()):.3f}" for tags in list(rows.values())[:2]
        ]
        names = [f"{one.type} {''.join(WORDS[one.first : one.last + 1])}"
                 for one in entities(TAGS[tag] for tag in rows[way].tolist())]  # fmt: skip
        shown.append(f"{way}: {', '.join(names)}; p(first row) = {odds[0]}, p(second row) = {odds[1]}")
    return "\n\n".join(shown[:2]) + "\n\n" + "\n".join(shown[2:])
