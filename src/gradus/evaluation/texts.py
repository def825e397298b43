"""How near the texts that a model says come to those that were wanted: ROUGE and BLEU, by the libraries whose
numbers papers tell. They are imported only when asked for.

Chinese is judged by its characters, so that no segmenter's opinion stands in a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from gradus.core.libraries import versions
from gradus.core.scripts import unspaced
from gradus.tokenizers.words import is_chinese

TextMetric = Literal["rouge", "bleu"]
NUMBERS: dict[TextMetric, tuple[str, ...]] = {"rouge": ("rouge_l", "rouge_1", "rouge_2"), "bleu": ("bleu",)}
"""What each is told as; the first speaks for it."""
LIBRARIES: dict[TextMetric, str] = {"rouge": "rouge-score", "bleu": "sacrebleu"}
WORD = re.compile(r"[^\W_]+")


def text_metrics(asked: Iterable[TextMetric], said: Sequence[str], wanted: Sequence[str]) -> dict[str, float]:
    """The numbers, each in [0, 1], of R texts `said` where those of `wanted` were right.

    `rouge_1`, `rouge_2` and `rouge_l` (Lin 2004, sections 2 and 3) are means over the texts of the F-measure
    that rouge-score gives without a stemmer. `bleu` (Papineni et al. 2002) is sacrebleu's of the whole
    (Post 2018) over 100, case and all: with its tokenizer `zh`, which parts Chinese characters and leaves
    the rest to the rules of `13a`, where `wanted` hold one, else with its default, `13a`.
    """
    by_kind = {"rouge": _rouge, "bleu": _bleu}
    return {name: number for kind in asked for name, number in by_kind[kind](said, wanted).items()}


def libraries_of(asked: Iterable[TextMetric], **where: str) -> dict[str, str]:
    """The versions of the libraries that give the numbers. Raises UserError (`where` names its place) for one
    that is missing."""
    found: dict[str, str] = {}
    for kind in asked:
        found |= versions([LIBRARIES[kind]], kind.upper(), "text", **where)
    return found


def words_of(text: str) -> list[str]:
    """What ROUGE counts: each character of a script without spaces, and runs of other letters and digits in
    lower case. Of plain English these are the words of rouge-score's own tokenizer, which knows no others."""
    return WORD.findall("".join(f" {one} " if unspaced(one) else one for one in text.lower()))


class _Words:
    """As rouge-score asks for them."""

    def tokenize(self, text: str) -> list[str]:
        return words_of(text)


def _rouge(said: Sequence[str], wanted: Sequence[str]) -> dict[str, float]:
    from rouge_score.rouge_scorer import RougeScorer

    kinds = {"rougeL": "rouge_l", "rouge1": "rouge_1", "rouge2": "rouge_2"}
    scorer = RougeScorer(list(kinds), tokenizer=_Words())
    found = [scorer.score(right, one) for right, one in zip(wanted, said)]
    return {name: float(np.mean([one[kind].fmeasure for one in found])) for kind, name in kinds.items()}


def _bleu(said: Sequence[str], wanted: Sequence[str]) -> dict[str, float]:
    from sacrebleu import corpus_bleu

    tokenizer = "zh" if any(map(is_chinese, set("".join(wanted)))) else "13a"
    return {"bleu": corpus_bleu(said, [wanted], tokenize=tokenizer, force=True).score / 100}
