"""How good answers out of a text are: exact match and F1, as SQuAD's and CMRC 2018's published scripts say.

A context in a script without spaces is scored as CMRC 2018 does, any other as SQuAD 2.0, so a set may hold
both. Of several right answers the one that gives most counts; where there is none, saying nothing is right.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

from gradus.core.scripts import without_spaces

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_MARKS = str.maketrans("", "", string.punctuation)
_IDEOGRAPH = re.compile("[\u4e00-\u9fa5]")
_WORDS = re.compile(r"\w+(?:[.,'’]\w+)*|[^\w\s]")
_CMRC_MARKS = str.maketrans("", "", "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
"""What CMRC 2018's script takes out; "……", which its list has too, is no one character and stays."""


def span_metrics(
    predicted: Sequence[str], right: Sequence[Sequence[str]], contexts: Sequence[str]
) -> dict[str, float]:
    """The means of `exact_match` and `f1` over the rows; see `span_scores`."""
    scores = [span_scores(*row) for row in zip(predicted, right, contexts)]
    exact, f1 = (sum(column) / len(scores) for column in zip(*scores))
    return {"exact_match": exact, "f1": f1}


def span_scores(predicted: str, right: Sequence[str], context: str) -> tuple[float, float]:
    """(1 or 0 for an exact match, F1) of one answer; `right` is empty where there is none.

    SQuAD 2.0 (Rajpurkar et al. 2018, evaluate-v2.0.py): lower case, without ASCII punctuation, articles and
    further white space, and without right answers of which then nothing is left; F1 of the words as a bag.
    CMRC 2018 (Cui et al. 2019, cmrc2018_evaluate.py): lower case, without its own list of marks; F1 of the
    longest run of units that both have, a unit being an ideograph or a word of other text. Its words are
    NLTK's; here they are found by a pattern.
    """
    if without_spaces([context]):
        pairs = [_cmrc(answer, predicted) for answer in right or [""]]
    else:
        said, *known = map(_normal, (predicted, *right))
        pairs = [_squad(answer, said) for answer in list(filter(None, known)) or [""]]
    return max(exact for exact, _ in pairs), max(f1 for _, f1 in pairs)


def _normal(text: str) -> str:
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_MARKS)).split())


def _squad(right: str, predicted: str) -> tuple[float, float]:
    """Of answers in their normal form."""
    a, b = right.split(), predicted.split()
    return float(a == b), _f1(sum((Counter(a) & Counter(b)).values()), len(a), len(b))


def _cmrc(right: str, predicted: str) -> tuple[float, float]:
    a, b = (text.lower().strip().translate(_CMRC_MARKS) for text in (right, predicted))
    first, second = _units(a), _units(b)
    return float(a == b), _f1(_longest_run(first, second), len(first), len(second))


def _units(text: str) -> list[str]:
    """Ideographs, and the words of what stands between them."""
    pieces = re.split(f"({_IDEOGRAPH.pattern})", text)
    return [
        unit for piece in pieces for unit in ([piece] if _IDEOGRAPH.match(piece) else _WORDS.findall(piece))
    ]


def _longest_run(first: Sequence[str], second: Sequence[str]) -> int:
    """Units of the longest common substring."""
    longest, before = 0, [0] * (len(second) + 1)
    for unit in first:
        row = [0]
        row += [before[at] + 1 if unit == other else 0 for at, other in enumerate(second)]
        longest, before = max(longest, *row), row
    return longest


def _f1(common: int, right: int, predicted: int) -> float:
    """Of nothing and nothing 1, as SQuAD 2.0 has it."""
    return 2 * common / (right + predicted) if right + predicted else 1.0
