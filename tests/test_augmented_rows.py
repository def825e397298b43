"""Augmented rows keep the laws: they are a function of (seed, epoch, row), a mixed loss is a sum and a
count, a killed run ends with the same bits, and dev is read as it stands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import toy
from test_laws import farthest, gradients
from tiny import killed_and_whole, tiny

from gradus.core.errors import UserError
from gradus.core.example import Example
from gradus.core.model import ModelConfig
from gradus.data.augmentation import Augment, Deletion, Insertion, Masking, Mixing, Swap
from gradus.data.augmented import AugmentedRows, Changes, mixed
from gradus.data.feed import Feed
from gradus.data.formats import Format, MultipleChoice, Pair, Similarity, Single, TextToText
from gradus.data.labels import Choices, Labels, Spans
from gradus.data.questions import Question
from gradus.data.readers import Row
from gradus.data.sources import Rows
from gradus.data.text_to_text import row_encoder
from gradus.nn.transformer import Transformer
from gradus.objectives import ClassificationConfig, RegressionConfig, Task
from gradus.pipeline.check import check
from gradus.pipeline.planning.material import Material
from gradus.pipeline.planning.plan import make_plan
from gradus.pipeline.planning.prepare import prepare
from gradus.pipeline.recipes.reading import read_recipe
from gradus.pipeline.run import run
from gradus.pipeline.worked.objectives import Words
from gradus.tokenizers import BytePairTokenizer, Tokenizer
from gradus.training.learner import Learner

pytestmark = pytest.mark.usefixtures("alone")
TEXTS = [
    "a good film , and long",
    "这部电影很好看，我看了两遍",
    "dull and far too loud for me",
    "太长了，没有意思",
]
ROWS = [
    Row(
        index,
        {"text": TEXTS[index % 4], "other": TEXTS[(index + 1) % 4], "label": "ab"[index % 2]},
        "rows",
        index,
    )
    for index in range(40)
]
SINGLE = Single(text="text", label="label")
MODEL = ModelConfig(layers=1, width=16, heads=2, context=64, vocab_size=400)


@pytest.fixture(scope="module")
def tokens() -> Tokenizer:
    return BytePairTokenizer(vocab_size=320).build(iter(TEXTS * 20))


def augmented(
    *changes: Augment,
    tokenizer: Any,
    form: Format = SINGLE,
    rows: list[Row] = ROWS,
    seed: int = 3,
    answers: Any = None,
) -> AugmentedRows:
    encoder = row_encoder(form, tokenizer, MODEL, answers or Labels(("a", "b")), "error")
    plain = Rows(encoder.encode(rows), [f"{row.file}:{row.line}" for row in rows])
    return AugmentedRows(rows, plain, encoder, Changes(changes, seed, {}, {}))


EVERY: tuple[Augment, ...] = (Swap(), Insertion(), Deletion(), Masking(), Mixing(rows="50 %"))


def as_lists(example: Example) -> tuple[Any, ...]:
    return [one.tolist() for one in example.sequences], example.label, example.partner, example.row


def test_law_3_an_example_is_a_function_of_seed_epoch_and_row(tokens: Tokenizer) -> None:
    made, again = (augmented(*EVERY, tokenizer=tokens) for _ in range(2))
    asked = [(row, epoch) for epoch in range(2) for row in range(len(ROWS))]
    found = {place: as_lists(made.example(*place)) for place in asked}
    assert found == {place: as_lists(again.example(*place)) for place in reversed(asked)}
    others = augmented(*EVERY, tokenizer=tokens, seed=4)
    for row in (0, 1):  # English and Chinese
        assert len({str(found[row + 4 * n, 0][0]) for n in range(10)}) > 5
        assert any(found[row + 4 * n, 0] != found[row + 4 * n, 1] for n in range(10))
        assert any(found[row + 4 * n, 0] != as_lists(others.example(row + 4 * n, 0)) for n in range(10))


@pytest.mark.parametrize("world", [2, 3])
def test_law_2_workers_share_what_one_would_take(world: int, tokens: Tokenizer) -> None:
    source = augmented(*EVERY, tokenizer=tokens)
    alone = Feed(source, 8, 3, 80)
    for step in (0, 7):
        whole = [(epoch, as_lists(example)) for epoch, example in alone.examples(step)]
        for rank in range(world):
            share = Feed(source, 8, 3, 80, rank, world).examples(step)
            assert [(epoch, as_lists(example)) for epoch, example in share] == whole[rank::world]


def test_so_many_rows_are_changed_and_the_others_are_those_of_the_files(tokens: Tokenizer) -> None:
    source = augmented(Swap(rows="25 %"), Mixing(rows="10 %"), tokenizer=tokens)
    places = [(row, epoch) for row in range(len(ROWS)) for epoch in range(50)]
    changed = [bool(source.texts(*place)) for place in places]
    partners = [source.partner(*place) for place in places]
    assert abs(np.mean(changed) - 0.25) < 4 * (0.25 * 0.75 / 2000) ** 0.5
    assert abs(np.mean([one is not None for one in partners]) - 0.1) < 4 * (0.09 / 2000) ** 0.5
    for place, is_changed, partner in zip(places, changed, partners):
        assert partner is None or (partner[0] != place[0] and 0 <= partner[1] <= 1)
        if not is_changed and partner is None:
            assert source.example(*place) is source.examples[place[0]]
    assert source.tokens == round(1.1 * sum(example.tokens for example in source.examples))


def test_a_list_of_kinds_is_drawn_kind_by_kind(tokens: Tokenizer) -> None:
    """What one kind draws does not depend on what stands behind it."""
    one, both = (
        augmented(*kinds, tokenizer=tokens) for kinds in ([Swap()], [Swap(), Deletion(rows="0.1 %")])
    )
    same = [one.texts(row, 0) == both.texts(row, 0) for row in range(len(ROWS))]
    assert np.mean(same) > 0.9 and any(one.texts(row, 0) for row in range(len(ROWS)))


def test_hidden_words_are_masks_in_their_places(tokens: Tokenizer) -> None:
    """Oracle: the tokens of the row as it stands, and where the tokenizer says that they stand."""
    source = augmented(Masking(rows="100 %", share="30 %"), tokenizer=tokens)
    mask, seen = tokens.role("mask"), 0
    for row in range(len(ROWS)):
        (plain,), (read,) = source.examples[row].sequences, source.example(row, 0).sequences
        hidden = read == mask
        assert len(plain) == len(read) and (read[~hidden] == plain[~hidden]).all()
        assert hidden[1:-1].sum() == hidden.sum() < len(read) - 2
        ((ids, places),) = tokens.places([ROWS[row].fields["text"]])
        assert ids.tolist() == plain[1:-1].tolist()
        marked = source.texts(row, 0).get("text", "")
        characters, inside = [], False
        for character in marked:
            if character in "\ufdd0\ufdd1":
                inside = character == "\ufdd0"
            else:
                characters.append(inside)
        wanted = [any(characters[begin:end]) for begin, end in places] if marked else [False] * len(places)
        assert hidden[1:-1].tolist() == wanted
        seen += hidden.any()
    assert seen > 30


FORMS: list[tuple[Format, dict[str, str], Any]] = [
    (Pair(first="a", second="b", label="y"), {"a": "x", "b": "x", "y": "yes"}, Labels(("no", "yes"))),
    (Similarity(first="a", second="b", label="y"), {"a": "x", "b": "x", "y": "yes"}, Labels(("no", "yes"))),
    (MultipleChoice(context="a", question="b", answers="c", label="y"),
     {"a": "x", "b": "x", "c": '["好 看", "not good"]', "y": "not good"}, Choices()),
    (Question(question="a", context="c", answers="y"),
     {"a": "x", "c": "他在北京大学看书", "y": "北京大学"}, Spans()),
    (TextToText(source="say: {a} of {y}", target="{y}"), {"a": "x", "y": "so good"}, None),
]  # fmt: skip


@pytest.mark.parametrize(("form", "fields", "answers"), FORMS, ids=[form.kind for form, *_ in FORMS])
def test_what_is_wanted_stays_whatever_the_format(form: Format, fields: dict[str, str], answers: Any) -> None:
    texts = {name: TEXTS[0] if value == "x" else value for name, value in fields.items()}
    chinese = {name: TEXTS[1] if value == "x" else value for name, value in fields.items()}
    rows = [Row(index, [texts, chinese][index % 2], "rows", index + 1) for index in range(8)]
    words = Words()
    source = augmented(*EVERY[:3], tokenizer=words, form=form, rows=rows, answers=answers)
    changed = 0
    for row in range(len(rows)):
        plain, read = source.examples[row], source.example(row, 0)
        assert read.label == plain.label and len(read.sequences) == len(plain.sequences)
        fresh = source.texts(row, 0)
        assert set(fresh) <= {"a", "b"} and all(text.strip() for text in fresh.values())
        changed += bool(fresh)
        if plain.spans is not None:
            said = [[one.sequences[0][begin : end + 1].tolist() for begin, end in one.spans[:, :2]]
                    for one in (plain, read) if one.spans is not None]  # fmt: skip
            assert said[0] == said[1]
        if plain.sequences and form.kind == "text_to_text":
            end = [words.names[token] for token in read.sequences[0][-4:]]
            assert end == ["<delimiter>", "so", "good", "<end>"]
    assert changed


def pair_of_rows(arrangement: str) -> tuple[Learner, list[Example]]:
    shape = toy.model(arrangement=arrangement)
    task = Task(shape, "toy", tuple("abc"), class_weights=(1.0, 2.0, 0.5))
    learner = Learner(Transformer(shape, torch.float64), [ClassificationConfig(dropout=0).build(task)])
    rows = [row for row in toy.examples(8) if row.label is not None]
    return learner.initialise(1).double(), rows


@pytest.mark.parametrize("arrangement", ["decoder", "encoder"])
def test_a_mixed_row_is_the_formula(arrangement: str) -> None:
    """Oracle: the head on lambda times one state and 1 - lambda times the other, and both classes weighed."""
    learner, rows = pair_of_rows(arrangement)
    own, other, share = rows[1], rows[2], 0.3
    batch = learner.prepare([rows[0], mixed(own, other, share), rows[3]])
    found = learner(batch)[0]
    read = -1 if arrangement == "decoder" else 0

    def state(row: Example) -> torch.Tensor:
        return learner.transformer(learner.prepare([row]).source)[: row.tokens][read]

    def nats(of: torch.Tensor, label: Any) -> torch.Tensor:
        weight = (1.0, 2.0, 0.5)[label]
        logits = learner.heads["toy"](learner.transformer.pooled(of[None]))
        return weight * torch.nn.functional.cross_entropy(logits, torch.tensor([label]))

    between = (1 - share) * state(own) + share * state(other)
    wanted = nats(state(rows[0]), rows[0].label) + nats(state(rows[3]), rows[3].label)
    wanted = wanted + (1 - share) * nats(between, own.label) + share * nats(between, other.label)
    assert torch.allclose(found, wanted, rtol=1e-12)
    weights = [(1.0, 2.0, 0.5)[int(row.label or 0)] for row in rows[:4]]
    count = weights[0] + (1 - share) * weights[1] + share * weights[2] + weights[3]
    assert float(batch.targets[0].weight.sum()) == pytest.approx(count)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_law_1_any_cut_of_mixed_rows_gives_the_same_gradient(size: int) -> None:
    learner = toy.learner()
    rows = [replace(row, label=row.label or 0) for row in toy.examples(6)]
    rows = [mixed(row, rows[place - 1], 0.2 * place) if place % 2 else row for place, row in enumerate(rows)]
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    assert farthest(gradients(learner, [rows]), gradients(learner, parts)) < 1e-12


def test_a_mixed_number_is_between_both() -> None:
    """And its gradient is that of both numbers, each weighed: only a constant differs."""
    task = Task(toy.model(), "toy", range=(0.0, 9.0))
    learner = Learner(Transformer(toy.model(), torch.float64), [RegressionConfig(dropout=0).build(task)])
    learner = learner.initialise(1).double()
    one, other = (replace(row, label=number) for row, number in zip(toy.examples(2), (2.0, 7.0)))
    batch = learner.prepare([mixed(one, other, 0.4)])
    (targets,) = batch.targets
    assert targets.value.tolist() == [pytest.approx(4.0)] and targets.weight.tolist() == [1.0]
    found = learner(batch)[0]
    by_both = sum(
        share
        * learner(learner.prepare([mixed(replace(one, label=number), replace(other, label=number), 0.4)]))[0]
        for share, number in ((0.6, 2.0), (0.4, 7.0))
    )
    assert torch.allclose(by_both - found, torch.tensor(0.6 * 0.4 * 25.0, dtype=torch.float64))


def test_mixed_label_sets_are_the_losses_of_both() -> None:
    """The loss of sigmoids is linear in what is wanted: one target between both is both, weighed."""
    task = Task(toy.model(), "toy", tuple("abc"), sets=True)
    learner = Learner(Transformer(toy.model(), torch.float64), [ClassificationConfig(dropout=0).build(task)])
    learner = learner.initialise(1).double()
    sets = np.array([1.0, 0.0, 1.0]), np.array([0.0, 0.0, 1.0])
    one, other = (replace(row, label=marks) for row, marks in zip(toy.examples(2), sets))
    found, first, second = (
        learner(learner.prepare([mixed(replace(one, label=a), replace(other, label=b), 0.3)]))[0]
        for a, b in (sets, (sets[0], sets[0]), (sets[1], sets[1]))
    )
    assert torch.allclose(found, 0.7 * first + 0.3 * second, rtol=1e-12) and first != second


def test_lambda_is_drawn_from_beta(tokens: Tokenizer) -> None:
    """Oracle: mean 1/2 and variance 1 / (4 (2 alpha + 1)); every other row is as likely."""
    source = augmented(Mixing(alpha=0.5), tokenizer=tokens)
    drawn = [source.partner(row, epoch) for row in range(40) for epoch in range(60)]
    others, shares = zip(*(one for one in drawn if one is not None))
    assert len(shares) == 2400 and abs(np.mean(shares) - 0.5) < 4 * (0.125 / 2400) ** 0.5
    assert abs(np.var(shares) - 0.125) < 0.01
    assert np.bincount(others, minlength=40).min() > 30


def recipe(path: Path, augment: Any, patch: dict[str, Any] | None = None) -> Path:
    objectives = [{"kind": "classification"}]
    return tiny(
        path, {"stages.finetune.augment": augment, "stages.finetune.objectives": objectives, **(patch or {})}
    )


def test_law_3_a_killed_run_with_augmentation_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "table.tsv").write_text("good\tlovely\n好\t佳\n", encoding="utf-8")
    kinds = ["swap", "insertion", "deletion", "masking", "mix"]
    augment = [{"kind": "synonyms", "file": str(tmp_path / "table.tsv")}, *({"kind": kind} for kind in kinds)]
    save = {"stages.pretrain.save": {"every": "3 steps"}, "stages.finetune.save": {"every": "5 steps"}}
    path = recipe(tmp_path / "augmented.yaml", augment, save)
    changed, _ = killed_and_whole(path, "finetune", monkeypatch)
    plain = recipe(tmp_path / "plain" / "augmented.yaml", None, save)
    (unchanged,) = run(plain, runs=tmp_path / "runs", device="cpu").glob("stages/finetune-*")
    assert changed.read_bytes() != (unchanged / "model/model.safetensors").read_bytes()


def prepared(path: Path, cache: Path) -> Any:
    material = Material(path.parent, cache)
    nodes = make_plan(read_recipe(path), material).nodes.values()
    return prepare(next(node for node in nodes if node.name == "finetune"), material)


def test_dev_is_read_as_it_stands(tmp_path: Path) -> None:
    with_, without = (
        prepared(recipe(tmp_path / name / "r.yaml", augment), tmp_path / "cache").splits["dev"].source
        for name, augment in (("with", [{"kind": "deletion", "rows": "100 %"}]), ("without", None))
    )
    assert type(with_) is type(without) is Rows
    for row in range(len(without)):
        assert as_lists(with_.example(row)) == as_lists(without.example(row))


def test_the_table_and_the_list_decide_the_fingerprint(tmp_path: Path) -> None:
    table = tmp_path / "table.tsv"

    def fingerprint(augment: Any, content: str = "good\tfine\n") -> str:
        table.write_text(content, encoding="utf-8")
        return prepared(recipe(tmp_path / "r.yaml", augment), tmp_path / "cache").node.fingerprint

    kind = {"kind": "synonyms", "file": "table.tsv"}
    none, one = fingerprint(None), fingerprint([kind])
    assert one == fingerprint([{**kind, "share": "10 %", "rows": "50 %"}])
    assert (
        len({none, one, fingerprint([kind], "good\tbetter\n"), fingerprint([{**kind, "rows": "51 %"}])}) == 4
    )


def test_check_shows_a_row_before_and_after(tmp_path: Path) -> None:
    augment = [{"kind": "masking", "rows": "100 %"}, {"kind": "mix"}]
    notes = check(recipe(tmp_path / "r.yaml", augment), runs=tmp_path / "runs", device="cpu").notes
    (note,) = [note for note in notes if "is read as" in note]
    assert note.startswith("finetune: masking and mix: builtin:tiny/train:")
    assert "[mask]" in note and " is read as " in note and "; mixed with builtin:tiny/train:" in note


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ({"stages.finetune.augment": [{"kind": "delete"}]}, r"augment\.0.*'delete'.*did you mean 'deletion'"),
        ({"stages.finetune.augment": [{"kind": "swap", "share": "120 %"}]},
         r"augment\.0\.\S*share: a share of more than 0 % and at most 100 %"),
        ({"stages.finetune.augment": [{"kind": "swap", "rows": "0 %"}]}, r"rows: a share of more than 0 %"),
        ({"stages.finetune.augment": [{"kind": "swap", "share": 0.1}]}, "an amount with a unit is wanted"),
        ({"stages.finetune.augment": []}, "augment"),
        ({"stages.pretrain.augment": [{"kind": "swap"}]}, "this changes labelled rows.*masked_lm, span_"),
        ({"stages.finetune.augment": [{"kind": "synonyms"}]}, r"augment\.0\.\S*file: "),
        ({"stages.finetune.augment": [{"kind": "synonyms", "file": "none.tsv"}]},
         r"finetune\.augment\.0\.file: there is no such file: '.*none\.tsv'"),
        ({"stages.finetune.augment": [{"kind": "swap"}, {"kind": "insertion", "file": "bad.tsv"}]},
         r"bad\.tsv:2: a word alone has no synonym: '好'"),
        ({"stages.finetune.augment": [{"kind": "masking"}, {"kind": "swap"}]},
         r"augment\.1: this cannot follow masking: 'swap'"),
        ({"stages.finetune.augment": [{"kind": "mix"}, {"kind": "mix"}]}, "this cannot follow mix"),
        ({"stages.finetune.augment": [
            {"kind": "swap"}, {"kind": "back_translation", "there": "a", "back": "b"}]},
         "this cannot follow swap: 'back_translation'"),
        ({"stages.finetune.augment": [{"kind": "masking"}],
          "stages.finetune.objectives": [{"kind": "classification"}, {"kind": "causal_lm"}]},
         "causal_lm would learn to say the mask: 'masking'"),
        ({"stages.finetune.augment": [{"kind": "mix"}], "stages.finetune.objectives": [{"kind": "seq2seq"}]},
         "nothing of this stage can be mixed: 'mix' .classification and regression can"),
        ({"stages.finetune.augment": [{"kind": "swap"}],
          "stages.finetune.objectives": [{"kind": "token_classification"}],
          "stages.finetune.data.format": {"kind": "words", "words": "text", "tags": "label"}},
         "rows of the format words cannot be changed"),
        ({"stages.finetune.augment": [{"kind": "back_translation", "there": "none", "back": "none"}]},
         r"augment\.0\.there: this is no model folder: '.*none'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_check(patch: dict[str, Any], words: str, tmp_path: Path) -> None:
    (tmp_path / "bad.tsv").write_text("good\tfine\n好\n", encoding="utf-8")
    path = recipe(tmp_path / "r.yaml", None, patch)
    with pytest.raises(UserError, match=words):
        check(path, runs=tmp_path / "runs", device="cpu")


def test_masking_needs_a_token_that_plays_mask(tmp_path: Path) -> None:
    words = {"[unk]": 0, "</s>": 1, "good": 2, "好": 3}
    theirs = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[unk]"))
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    theirs.save(str(tmp_path / "tokenizer.json"))
    roles = {"unknown": "[unk]", "end": "</s>"}
    patch = {"tokenizer": {"kind": "pretrained", "path": str(tmp_path / "tokenizer.json"), "roles": roles}}
    path = recipe(tmp_path / "r.yaml", [{"kind": "swap"}, {"kind": "masking"}], patch)
    with pytest.raises(UserError, match=r"augment\.1: no token plays the role mask: 'masking' .deletion, or"):
        check(path, runs=tmp_path / "runs", device="cpu")
    patch["tokenizer"]["roles"] = {**roles, "mask": "好"}
    assert check(recipe(path, [{"kind": "masking"}], patch), runs=tmp_path / "runs", device="cpu").nodes
