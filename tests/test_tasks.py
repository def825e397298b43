"""The task shapes of GPT-1 (section 3.3) and their objectives: laws on a toy, and oracles written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import toy
from pydantic import ValidationError
from test_laws import farthest, gradients

from gradus.core.errors import UserError
from gradus.core.example import Example
from gradus.data.encoding import RowEncoder, halves, shortened
from gradus.data.formats import MultipleChoice, Pair, Part, Similarity, Single
from gradus.data.labels import Choices, Labels, Numbers, in_order
from gradus.data.readers import Row
from gradus.data.rows import RowsData
from gradus.evaluation.evaluator import score, summarise
from gradus.evaluation.metrics import number_metrics
from gradus.nn.transformer import Transformer
from gradus.objectives import (
    CausalLMConfig,
    ClassificationConfig,
    MultipleChoiceConfig,
    RegressionConfig,
    Task,
)
from gradus.training.learner import Learner

START, DELIMITER, EXTRACT = 1, 2, 3
TASK = Task(toy.model(), "toy", ("a", "b", "c"), range=(0.0, 5.0), special=(START, DELIMITER, EXTRACT))


class Letters:
    """A tokenizer of one token a character, Chinese ones too."""

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        return [np.array([10 + ord(letter) % 40 for letter in text], np.int32) for text in texts]

    def role(self, name: str) -> int:
        return {"start": START, "delimiter": DELIMITER, "extract": EXTRACT}[name]


def row(**fields: str) -> Row:
    return Row(0, fields, "rows.tsv", 7)


def encoder(form: Any, answers: Any = None, context: int = 24, **options: Any) -> RowEncoder:
    return RowEncoder(form, Letters(), context, answers, **options)


def learner(*configs: Any) -> Learner:
    objectives = [config.build(TASK) for config in configs]
    return Learner(Transformer(toy.model(), torch.float64), objectives).initialise(1).double()


def many(sequences: tuple[int, ...], label: Any) -> list[Example]:
    """Rows with 1, 2, ... sequences each; every fourth without a label."""
    random = np.random.default_rng(3)
    return [
        Example(
            number,
            tuple(
                random.integers(4, 50, random.integers(2, 20))
                for _ in range(sequences[number % len(sequences)])
            ),
            label=None if number % 4 == 3 else label(number),
        )
        for number in range(9)
    ]


CASES = {
    "similarity classes": (ClassificationConfig(dropout=0), (2,), lambda number: number % 3),
    "similarity scores": (RegressionConfig(dropout=0), (2,), lambda number: number / 3),
    "scores, bias": (RegressionConfig(dropout=0, bias=True), (1,), lambda number: number / 3),
    "choices": (MultipleChoiceConfig(dropout=0), (2, 5, 3, 7), lambda number: 1),
    "choices, sigmoids": (MultipleChoiceConfig(dropout=0, odds="sigmoid"), (2, 5, 3), lambda number: 1),
    "tokens by row": (CausalLMConfig(average="row"), (1, 2), lambda number: None),
    "special tokens": (CausalLMConfig(scored="special"), (1,), lambda number: None),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("size", [1, 2, 4])
def test_law_1_any_cut_gives_the_same_gradient(case: str, size: int) -> None:
    config, sequences, label = CASES[case]
    rows = many(sequences, label)
    if case == "special tokens":
        rows = [Example(one.row, (np.r_[START, one.sequences[0], EXTRACT],)) for one in rows]
    made = learner(config, CausalLMConfig(weight=0.5)) if config.kind != "causal_lm" else learner(config)
    whole = gradients(made, [rows])
    parts = gradients(made, [rows[start : start + size] for start in range(0, len(rows), size)])
    assert farthest(whole, parts) < 1e-12
    assert max(float(gradient.abs().max()) for gradient in whole.values()) > 0


def states_of(made: Learner, sequence: np.ndarray) -> torch.Tensor:
    alone = made.prepare([Example(0, (sequence,))])
    return made.transformer(alone.source)[len(sequence) - 1]


def test_similarity_adds_the_final_states_of_both_orders() -> None:
    made = learner(ClassificationConfig(dropout=0)).eval()
    (example, *_) = many((2,), lambda number: 1)
    weight = made.heads["toy"].score.weight
    both = sum(states_of(made, sequence) for sequence in example.sequences)
    logits = weight @ both
    assert torch.allclose(made.predict(made.prepare([example]))[0][0].double(), logits, atol=1e-6)
    wanted = torch.nn.functional.cross_entropy(logits[None], torch.tensor([1]))
    assert torch.allclose(made(made.prepare([example]))[0], wanted)


def test_a_smoothed_class_is_the_plain_formula() -> None:
    made = learner(ClassificationConfig(dropout=0, label_smoothing=0.2)).eval()
    rows = [one for one in many((2,), lambda number: 1) if one.label is not None]
    batch = made.prepare(rows)
    log_odds = made.predict(batch)[0].double().log_softmax(1)
    wanted = -0.8 * log_odds[:, 1].sum() - 0.2 * log_odds.mean(1).sum()
    assert float(made(batch)[0].detach()) == pytest.approx(float(wanted), rel=1e-6)


def test_choices_share_one_softmax_a_row_whatever_their_number() -> None:
    made = learner(MultipleChoiceConfig(dropout=0)).eval()
    rows = many((2, 7, 4), lambda number: 1)
    head = made.heads["toy"].score
    total = 0.0
    for example in rows:
        logits = torch.stack(
            [head.weight[0] @ states_of(made, one) + head.bias[0] for one in example.sequences]
        )
        if example.label is not None:
            total += float(torch.logsumexp(logits, 0) - logits[1])
    assert float(made(made.prepare(rows))[0].detach()) == pytest.approx(total, rel=1e-10)
    predicted = made.predict(made.prepare(rows))[0]
    assert predicted.shape == (9, 7)
    assert [int(torch.isfinite(line).sum()) for line in predicted] == [len(one.sequences) for one in rows]


def test_a_sigmoid_for_each_answer_is_the_mean_of_its_answers_losses() -> None:
    made = learner(MultipleChoiceConfig(dropout=0, odds="sigmoid")).eval()
    rows = many((2, 3), lambda number: 1)
    logits = made.predict(made.prepare(rows))[0].double()
    total = 0.0
    for example, line in zip(rows, logits):
        own = torch.sigmoid(line[: len(example.sequences)])
        right = torch.arange(len(own)) == 1
        if example.label is not None:
            total -= float(torch.where(right, own, 1 - own).log().mean())
    assert float(made(made.prepare(rows))[0].detach()) == pytest.approx(total, rel=1e-6)


def test_one_dropout_mask_for_all_answers_of_a_row() -> None:
    shared = learner(MultipleChoiceConfig(dropout=0.5, dropout_mask="row"))
    own = learner(MultipleChoiceConfig(dropout=0.5))
    twice = Example(0, (np.arange(5, 15),) * 2, label=0)  # two equal answers
    for made, alike in ((shared, True), (own, False)):
        made.train()
        made.transformer.eval()
        torch.manual_seed(0)
        losses = [float(made(made.prepare([twice]))[0].detach()) for _ in range(8)]
        assert all(loss == pytest.approx(np.log(2)) for loss in losses) == alike


def test_regression_is_the_squared_error_and_predicts_within_the_range() -> None:
    made = learner(RegressionConfig(dropout=0, bias=True)).eval()
    rows = many((1,), lambda number: number / 3)
    with torch.no_grad():
        made.heads["toy"].score.bias.fill_(7.0)
    raw = [float(made.heads["toy"].score(states_of(made, one.sequences[0]))) for one in rows]
    wanted = sum((value - one.label) ** 2 for value, one in zip(raw, rows) if one.label is not None)
    assert float(made(made.prepare(rows))[0].detach()) == pytest.approx(wanted, rel=1e-10)
    assert made.predict(made.prepare(rows))[0].tolist() == [[5.0]] * len(rows)


def test_tokens_of_a_short_row_weigh_more_where_rows_are_averaged() -> None:
    targets = CausalLMConfig(average="row").build(TASK).targets(Example(0, (np.arange(5), np.arange(3))))
    assert targets.weight.tolist() == [0.25] * 4 + [0.5] * 2
    only = (
        CausalLMConfig(scored="special").build(TASK).targets(Example(0, (np.array([START, 9, 9, EXTRACT]),)))
    )
    assert only.index.tolist() == [2] and only.value.tolist() == [EXTRACT]


def test_evaluation_of_choices_does_not_depend_on_the_batch() -> None:
    made = learner(MultipleChoiceConfig(dropout=0))
    rows = [Example(one.row, one.sequences, label=1) for one in many((2, 5, 3, 7), lambda number: 1)]
    source = toy.Rows(rows, [str(one.row) for one in rows])
    found = [score(made, source, toy.ALONE, budget)[0] for budget in (1, 100, 10_000)]
    for other in found[1:]:
        assert np.allclose(found[0].probabilities, other.probabilities, atol=1e-12)
        assert other.values.shape == (9, 7) and other.sound.all()
    metrics = summarise(made.objectives[0], found[0], (), None)
    assert metrics["accuracy"] == np.mean([values.argmax() == 1 for values in found[0].values])


def test_pearson_and_spearman_are_those_of_scipy() -> None:
    from scipy.stats import pearsonr, spearmanr

    random = np.random.default_rng(0)
    truth, guess = random.normal(size=50), random.normal(size=50).round(1)
    found = number_metrics(truth, guess)
    assert found["pearson"] == pytest.approx(pearsonr(truth, guess)[0])
    assert found["spearman"] == pytest.approx(spearmanr(truth, guess)[0])
    assert found["loss"] == pytest.approx(np.mean((truth - guess) ** 2))
    assert number_metrics(truth, np.ones(50))["pearson"] == 0


def test_a_pair_a_similarity_and_choices_as_the_paper_lays_them_out() -> None:
    texts = {"a": "猫在", "b": "xy", "q": "?"}
    one, two, question = Letters().encode(["猫在", "xy", "?"])
    (pair,) = encoder(Pair(first="a", second="b")).encode([row(**texts)])
    assert pair.sequences[0].tolist() == [START, *one, DELIMITER, *two, EXTRACT]
    (both,) = encoder(Similarity(first="a", second="b")).encode([row(**texts)])
    assert [ids.tolist() for ids in both.sequences] == [
        [START, *one, DELIMITER, *two, EXTRACT],
        [START, *two, DELIMITER, *one, EXTRACT],
    ]
    form = MultipleChoice(context="a", question="q", answers=["b", "c", "d"], label="l", label_is="letter")
    (choice,) = encoder(form, Choices()).encode([row(**texts, c="z", d="", l="B")])
    z = Letters().encode(["z"])[0]
    assert choice.label == 1
    assert [ids.tolist() for ids in choice.sequences] == [
        [START, *one, *question, DELIMITER, *two, EXTRACT],
        [START, *one, *question, DELIMITER, *z, EXTRACT],
    ]


def test_what_gives_way_when_the_context_is_short() -> None:
    assert shortened([10, 4], 8) == [4, 4]
    assert shortened([10, 10], 6) == [1, 5]
    assert shortened([3, 3, 3], 2) == [0, 1, 1]
    assert shortened([0, 9], 4) == [0, 4]
    form = MultipleChoice(context="c", question="q", answers="a", label="l")
    long = row(c="abcdefghij", q="??", a='["no", "yes"]', l="yes")
    (example,) = encoder(form, Choices(), context=12).encode([long])
    tail = Letters().encode(["fghij"])[0]  # the context's head goes before its tail
    assert example.sequences[0][1:6].tolist() == tail.tolist()
    assert example.truncated == 5 + 6 and example.label == 1
    assert all(len(ids) == 12 for ids in example.sequences)
    parts = (Part("", "a"), Part("", "b", delimited=True))
    assert halves(parts, [20, 3], 24) == [10, 3]
    half = Pair(first="a", second="b", cut="half")
    (cut,) = encoder(half).encode([row(a="x" * 20, b="y" * 20)])
    assert len(cut.sequences[0]) == 23 and cut.truncated == 20


MISTAKES = [
    (MultipleChoice(context="c", answers="a", label="l"), row(c="t", a='["one"]', l="one"), r"1 answer:"),
    (MultipleChoice(context="c", answers="a", label="l"), row(c="t", a="[]", l="one"), r"no answers:"),
    (MultipleChoice(context="c", answers="a", label="l"), row(c="t", a="one", l="one"), r"JSON list"),
    (
        MultipleChoice(context="c", answers="a", label="l"),
        row(c="t", a='["x", " "]', l="x"),
        r"answer is empty",
    ),
    (
        MultipleChoice(context="c", answers="a", label="l", label_is="index"),
        row(c="t", a='["x", "y"]', l="2"),
        r"rows\.tsv:7: l: .*'2' .*0 to 1",
    ),
    (
        MultipleChoice(context="c", answers="a", label="l", label_is="letter"),
        row(c="t", a='["x", "y"]', l="C"),
        r"A to B",
    ),
    (
        MultipleChoice(context="c", answers="a", label="l"),
        row(c="t", a='["x", "y"]', l="z"),
        r"none of the row",
    ),
    (MultipleChoice(context="c", answers=["a", "b"], label="l"), row(c="t", a="", b="y", l="y"), r"empty"),
    (
        MultipleChoice(context="c", answers="a", label="l"),
        row(c="t", a='["是", "否", "是 "]', l="是"),
        r"rows\.tsv:7: l: the label names several of the row's answers: '是'",
    ),
    (MultipleChoice(context="c", answers="a", label="l"), row(c="t", a="[" * 10**5, l="x"), r"JSON list"),
    *(
        (
            MultipleChoice(context="c", answers="a", label="l", label_is=kind),
            row(c="t", a='["x", "y"]', l=label),
            r"rows\.tsv:7: l: the label names none of the row's answers",
        )
        for kind in ("index", "number", "letter")
        for label in ("--1", "-1", "1" * 5000, "-" * 9, "²", "٣", "1\n1", "1.0")
    ),
    (Similarity(first="a", second="b"), row(a="x", b=" "), r"rows\.tsv:7: b: the text is empty"),
    (Single(text="a"), row(a=""), r"rows\.tsv:7: a: the text is empty.*drop"),
]


@pytest.mark.parametrize("form, given, said", MISTAKES)
def test_a_wrong_row_is_told_with_file_line_and_field(form: Any, given: Row, said: str) -> None:
    with pytest.raises(UserError, match=said) as mistake:
        encoder(form, Choices()).encode([given])
    assert "rows.tsv:7" in str(mistake.value)


def test_a_label_that_is_no_number_and_a_context_full_of_special_tokens() -> None:
    form = Single(text="a", label="l")
    for text in ("high", "nan", "inf", ""):
        with pytest.raises(UserError, match=r"rows\.tsv:7: l: "):
            encoder(form, Numbers(0, 5)).encode([row(a="x", l=text)])
    with pytest.raises(UserError, match="every training row has the same number"):
        Numbers.of([row(a="x", l="2")], "l")
    with pytest.raises(UserError, match=r"model\.context: .*3 special tokens"):
        encoder(Pair(first="a", second="a"), Labels(("x", "y")), context=3).encode([row(a="x")])
    with pytest.raises(ValidationError, match="at least two columns"):
        MultipleChoice(context="c", answers=["a"])


def test_classes_are_numbered_as_numbers_only_where_all_are() -> None:
    for texts, names in (
        (("10", "9", "-1"), ("-1", "9", "10")),
        (("10", "9", "--1"), ("--1", "10", "9")),
        (("9", "1" * 5000, "10"), ("10", "1" * 5000, "9")),
        (("9", "10", "٣"), ("10", "9", "٣")),
        (("1", "01", "0"), ("0", "01", "1")),
    ):
        assert Labels.of([row(l=text) for text in texts], "l", None).names == names == tuple(in_order(texts))


def test_answers_are_the_texts_that_nested_values_are() -> None:
    form = MultipleChoice(context="c", answers="a", label="l")
    for answers, label, right in (
        ("[true, false]", "false", 1),
        ("[1, 2.50]", "2.5", 1),
        ('["好", 7]', "好", 0),
    ):
        assert form.right(row(c="t", a=answers, l=label)) == right
    assert form.right(row(c="t", a='["x", "x", "y"]', l="y")) == 2  # others may be equal


LABELLED_TEXTS = [
    {"kind": "single", "text": "s", "label": "s"},
    {"kind": "pair", "first": "a", "second": "s", "label": "s"},
    {"kind": "similarity", "first": "s", "second": "b", "label": "s"},
    {"kind": "multiple_choice", "context": "c", "question": "s", "answers": "a", "label": "s"},
    {"kind": "multiple_choice", "context": "c", "answers": ["a", "s"], "label": "s"},
]


@pytest.mark.parametrize("form", LABELLED_TEXTS)
def test_a_label_is_none_of_the_texts(form: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="this column is one of the texts"):
        RowsData.model_validate({"kind": "rows", "train": "a.tsv", "format": form})
    RowsData.model_validate({"kind": "rows", "train": "a.tsv", "format": form | {"label": None}})


def test_a_class_and_a_column_of_answers_are_named_once() -> None:
    data = {"kind": "rows", "train": "a.tsv", "format": {"kind": "single", "text": "文", "label": "s"}}
    with pytest.raises(ValidationError, match=r"'5' stands there twice"):
        RowsData.model_validate(data | {"labels": [0, 1, 2, 3, 4, 5, "5"]})
    assert RowsData.model_validate(data | {"labels": [1, 0]}).labels == ["1", "0"]
    with pytest.raises(ValidationError, match="this column is named twice"):
        MultipleChoice(context="c", answers=["b", "b"])


def test_an_empty_text_may_be_predicted_but_not_trained_on() -> None:
    assert encoder(Single(text="a")).encode([row(a="")], labelled=False)[0].tokens == 2
