"""What learns nothing of language: the numbers that a trained model has to beat before it may boast.

The most frequent label, a bag-of-words classifier, the sentence that is most like the question, and the
frequencies of single tokens. Each is fitted on train only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradus.core.errors import UserError
from gradus.core.scripts import without_spaces
from gradus.evaluation.metrics import classification_metrics, language_metrics, number_metrics
from gradus.evaluation.spans import span_metrics

WORDS = r"['’]?\w+(?:['’]\w+)*|[^\w\s]"
"""Words with their apostrophes ("n't", "'ve", "don't"), and single marks."""
SENTENCES = re.compile("[^。！？!?.\n]+[。！？!?.]*")
"""Pieces of a text, near enough."""


def classification_floors(
    train_texts: Sequence[str], train_labels: Sequence[str], texts: Sequence[str], labels: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Scores of `majority` and `naive_bayes` on (`texts`, `labels`): accuracy, macro_f1 and matthews of each.

    Majority says the most frequent train label (the first in order among equals). Naive Bayes is multinomial
    with add-one smoothing (Manning, Raghavan and Schuetze 2008, section 13.2) over counts of lower-cased
    words, or of single characters and pairs of them where most letters of the train texts belong to scripts
    without spaces, such as Chinese. It gives 81.2 % on the dev rows of SST-2 and 81.9 % on its test rows.
    Raises UserError where train or the rows to score are empty.
    """
    from sklearn.naive_bayes import MultinomialNB

    if not len(train_texts):
        raise UserError("there are no train rows to fit the floors on")
    counts = Counter(train_labels)
    names = sorted({*train_labels, *labels})
    index = {name: number for number, name in enumerate(names)}
    truth = np.array([index[label] for label in labels], dtype=np.int64)
    majority = index[max(sorted(counts), key=lambda label: counts[label])]
    words = _vectoriser(train_texts)
    guesses = {"majority": np.full(len(truth), majority)}
    try:
        features = words.fit_transform(train_texts)
    except ValueError:  # scikit-learn's "empty vocabulary": texts of nothing but white space teach no words
        guesses["naive_bayes"] = guesses["majority"]
    else:
        model = MultinomialNB().fit(features, [index[label] for label in train_labels])
        guesses["naive_bayes"] = model.predict(words.transform(texts)) if len(truth) else truth
    return {name: classification_metrics(truth, guess, None, names) for name, guess in guesses.items()}


def number_floors(
    train_pairs: Sequence[Sequence[str]],
    train_numbers: Sequence[float],
    pairs: Sequence[Sequence[str]],
    numbers: Sequence[float],
) -> dict[str, dict[str, float]]:
    """Scores of `mean` and, where rows have two texts, `word_overlap` on (`pairs`, `numbers`).

    The mean of train has no correlation with anything. Word overlap is the Jaccard index of the two texts'
    words (or characters and their pairs), put on the scale of the numbers by a straight line fitted on train.
    """
    truth, known = np.asarray(numbers, np.float64), np.asarray(train_numbers, np.float64)
    guesses = {"mean": np.full(len(truth), known.mean())}
    if all(len(texts) == 2 for texts in train_pairs):
        analyse = _analyser([text for texts in train_pairs for text in texts])
        train, own = (
            np.array([_jaccard(analyse(first), analyse(second)) for first, second in some])
            for some in (train_pairs, pairs)
        )
        slope, level = np.polyfit(train, known, 1) if np.ptp(train) else (0.0, known.mean())
        guesses["word_overlap"] = slope * own + level
    return {name: number_metrics(truth, guess) for name, guess in guesses.items()}


def choice_floors(
    train_right: Sequence[int],
    contexts: Sequence[str],
    answers: Sequence[Sequence[str]],
    right: Sequence[int],
) -> dict[str, dict[str, float]]:
    """Accuracies of `chance` (expected), `majority` (the place that is right most often in train, where a row
    has it, else the last) and `word_overlap` (the answer with the largest share of its words in the context;
    the first among equals)."""
    truth = np.asarray(right, np.int64)
    counts = Counter(train_right)
    usual = max(sorted(counts), key=lambda place: counts[place])
    analyse = _analyser(contexts)
    overlap = []
    for context, choices in zip(contexts, answers):
        words = analyse(context)
        shares = [len(own & words) / max(len(own), 1) for own in map(analyse, choices)]
        overlap.append(int(np.argmax(shares)))
    places = np.array([min(usual, len(choices) - 1) for choices in answers])
    return {
        "chance": {"accuracy": float(np.mean([1 / len(choices) for choices in answers]))},
        "majority": {"accuracy": float((places == truth).mean())},
        "word_overlap": {"accuracy": float((np.array(overlap) == truth).mean())},
    }


def span_floors(
    questions: Sequence[str], contexts: Sequence[str], right: Sequence[Sequence[str]]
) -> dict[str, dict[str, float]]:
    """Exact match and F1 of `word_overlap`: the sentence of the context that has most of the question's
    different words, the first among equals; and, where some questions have no answer, of `no_answer`."""
    analyse, said = _analyser(contexts), []
    for question, context in zip(questions, contexts):
        words = analyse(question)
        sentences = SENTENCES.findall(context) or [context]
        said.append(max(sentences, key=lambda sentence: len(words & analyse(sentence))).strip())
    floors = {"word_overlap": span_metrics(said, right, contexts)}
    if not all(right):
        floors["no_answer"] = span_metrics([""] * len(right), right, contexts)
    return floors


def _analyser(texts: Sequence[str]) -> Callable[[str], set[str]]:
    """Text -> its different words; characters and pairs of them where the texts have no spaces."""
    analyse = _vectoriser(texts).build_analyzer()
    return lambda text: set(analyse(text))


def _vectoriser(texts: Sequence[str]) -> Any:
    from sklearn.feature_extraction.text import CountVectorizer

    if without_spaces(texts):
        return CountVectorizer(analyzer="char", ngram_range=(1, 2))
    return CountVectorizer(token_pattern=WORDS)


def _jaccard(first: set[str], second: set[str]) -> float:
    return len(first & second) / max(len(first | second), 1)


def unigram_floor(
    train_token_counts: Sequence[int] | np.ndarray,
    dev_token_counts: Sequence[int] | np.ndarray,
    bytes: int | None,
) -> dict[str, float]:
    """Language metrics of the dev tokens under the frequencies of the train tokens, add-one smoothed.

    Both counts are [V], by token id; `bytes` is the UTF-8 length of the dev text. None: only some of its
    tokens are scored, and the accuracy of always saying the most frequent one of train (the first among
    equals) stands in place of bits per byte. Raises UserError for empty text.
    """
    train, dev = np.asarray(train_token_counts, np.float64), np.asarray(dev_token_counts, np.float64)
    if train.shape != dev.shape:
        raise ValueError(f"token counts of one vocabulary are wanted, not {train.shape} and {dev.shape}")
    log_probability = np.log(train + 1) - np.log(train.sum() + len(train))
    metrics = language_metrics(float(-(dev * log_probability).sum()), int(dev.sum()), bytes or 1)
    if bytes is None:
        del metrics["bits_per_byte"]
        metrics["accuracy"] = float(dev[train.argmax()] / dev.sum())
    return metrics
