"""Several tasks in one stage: each learns from its own data alone; order, resume and ranks are those of any
stage."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_objectives
import torch
import toy
from made_up_members import OBJECTIVES, members, mixed, record
from test_laws import farthest, gradients
from test_mixture import windows
from tiny import killed_and_whole

import gradus
from gradus.core.example import Example
from gradus.core.keyed import keyed_generator
from gradus.data.feed import Feed
from gradus.data.mixture import InTurn, Mixed
from gradus.nn.transformer import Transformer
from gradus.objectives import (
    CausalLMConfig,
    ClassificationConfig,
    MaskedLMConfig,
    MultipleChoiceConfig,
    ObjectiveSettings,
    OfMembers,
    RegressionConfig,
    Task,
)
from gradus.pipeline.planning.material import Material
from gradus.pipeline.planning.plan import make_plan
from gradus.pipeline.planning.prepare import prepare
from gradus.pipeline.recipes.reading import read_recipe
from gradus.training.learner import Learner
from gradus.training.transfer import fitting_heads

ROW_CASES: dict[str, tuple[ObjectiveSettings, str]] = {
    "classes": (ClassificationConfig(dropout=0.0), "decoder"),
    "classes, encoder": (ClassificationConfig(dropout=0.0), "encoder"),
    "number": (RegressionConfig(dropout=0.0), "decoder"),
    "choices": (MultipleChoiceConfig(dropout=0.0), "decoder"),
    "choices, sigmoid": (MultipleChoiceConfig(dropout=0.0, odds="sigmoid"), "decoder"),
    "hidden tokens": (MaskedLMConfig(), "encoder"),
    "next tokens": (CausalLMConfig(), "decoder"),
}


def labelled(count: int = 8) -> list[Example]:
    """Rows with a label; of two sequences each, as choices have."""
    random = keyed_generator("labelled", count)
    words = test_objectives.WORDS.words
    return [
        Example(row, tuple(random.integers(0, words, 5 + row + n) for n in range(2)), label=row % 2)
        for row in range(count)
    ]


@pytest.mark.parametrize("case", [*ROW_CASES, *test_objectives.CASES])
def test_an_objective_sees_its_own_data_alone(case: str) -> None:
    """Law 1 for every objective: rows of another data set, in its micro-batches or filling some whole, leave
    the gradient what its own rows make it."""
    config, arrangement = {**ROW_CASES, **test_objectives.CASES}[case]
    plain = config.build(
        Task(
            test_objectives.shape(arrangement), "toy", test_objectives.TAGS, vocabulary=test_objectives.WORDS
        )
    )
    own = labelled() if case in ROW_CASES else test_objectives.windows(case)
    own = [replace(one, member="own") for one in own]
    others = [replace(plain.corrupt(one, keyed_generator(one.row)), member="other") for one in own]
    model = test_objectives.shape(arrangement)

    def taught(objective: Any) -> Learner:
        return Learner(Transformer(model, torch.float64), [objective]).initialise(1).double()

    of_own = taught(OfMembers({"own": plain}, own[0], titled=True))
    spoilt = [of_own.corrupted(one, 1) for one in own]
    assert [np.concatenate(one.sequences).tolist() for one in spoilt] != [] and others[0].member == "other"
    assert of_own.corrupted(others[0], 1) is others[0]
    whole = gradients(taught(plain), [spoilt])
    mixed_up = [one for pair in zip(spoilt, others) for one in pair]
    parts = [mixed_up[:5], others[:3], mixed_up[5:]]
    assert farthest(whole, gradients(of_own, parts)) < 1e-12
    nothing = of_own(of_own.prepare(others[:2]))
    nothing.sum().backward()
    assert float(nothing.detach().abs().max()) == 0


def test_law_1_of_two_tasks_any_cut_is_the_sum_over_both() -> None:
    """w_1 S_1 / N_1 + w_2 S_2 / N_2, each of its own rows, by hand."""
    model = toy.model()
    first, second = (ClassificationConfig(dropout=0.0, weight=w).build(Task(model, name, labels))
                     for w, name, labels in ((1.0, "a", tuple("xy")), (0.3, "b", tuple("xyz"))))  # fmt: skip
    some = [replace(one, label=(one.label or 0) % 2, member="a") for one in toy.examples(6)]
    others = [replace(one, label=one.label or 0, member="b") for one in toy.examples(9)]
    both = [OfMembers({"a": first}, some[0], True), OfMembers({"b": second}, others[0], True)]
    learner = Learner(Transformer(model, torch.float64), both).initialise(1).double()
    cuts = [[some + others], [some, others], [some[:1] + others[:4], others[4:], some[1:]]]
    found = [gradients(learner, parts) for parts in cuts]
    alone = [gradients(learner, [some]), gradients(learner, [others])]
    summed = {name: sum(one[name] for one in alone if name in one) for one in alone for name in one}
    for one in found:
        assert farthest(summed, one) < 1e-12


def test_law_2_turns_alternate_and_are_a_function() -> None:
    parts = {"few": windows(3), "many": windows(10, 1000), "some": windows(5, 2000)}
    source = InTurn(parts, np.ones(3) / 3, seed=1)
    feed = Feed(source, 4, 1, 60, shuffled=False)
    drawn = [
        (example.member, int(example.sequences[0][0]))
        for step in range(15)
        for _, example in feed.examples(step)
    ]
    assert [name for name, _ in drawn] == ["few", "many", "some"] * 20
    for name, part in parts.items():
        times = Counter(first for other, first in drawn if other == name)
        assert len(times) == len(part) and max(times.values()) - min(times.values()) <= 1
    again = [e.sequences[0][0] for s in reversed(range(15)) for _, e in reversed(feed.examples(s))]
    assert again == [first for _, first in reversed(drawn)]
    ranks = [Feed(source, 4, 1, 60, rank, 2, shuffled=False) for rank in range(2)]
    shared = [
        [(e.member, int(e.sequences[0][0])) for s in range(15) for _, e in feed.examples(s)] for feed in ranks
    ]
    assert drawn[0::2] == shared[0] and drawn[1::2] == shared[1]


def test_an_example_knows_its_data_set() -> None:
    """And its place is told of the epoch in which it is read."""
    parts = {"a": windows(4), "b": windows(8, 1000)}
    source = Mixed(parts, np.array([1, 2]) / 3, 1)
    for epoch in range(3):
        for index in range(12):
            example = source.example(index, epoch)
            assert example.member == ("b" if example.sequences[0][0] >= 1000 else "a")
            name, window = source.where(index, epoch).split(": window ")
            assert np.array_equal(parts[name].example(int(window)).sequences[0], example.sequences[0])


def test_a_head_goes_once_and_by_its_name_first() -> None:
    two, three = {"labels": ["a", "b"]}, {"labels": ["a", "b", "c"]}
    assert fitting_heads({"x": two, "y": two}, {"y": two, "z": two}) == {"y": "y", "x": "z"}
    assert fitting_heads({"x": two, "y": two}, {"z": two}) == {"x": "z"}
    assert fitting_heads({"z": three}, {"z": two}) == {}


@pytest.mark.parametrize("by", ["turns", {"temperature": 2}])
def test_killed_in_the_middle_it_ends_with_the_same_bits(
    tmp_path: Path, by: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch = {"data": {"mix": members(tmp_path), "by": by}, "save": {"every": "5 steps"}, "length": "13 steps",
             "stop": {"metric": "chinese.loss", "patience": 9}, "evaluate": {"every": "3 steps"},
             "model": {"dropout": 0.2}}  # fmt: skip
    killed_and_whole(mixed(tmp_path, patch), "multi", monkeypatch)


def test_two_ranks_are_one_though_each_has_one_task(tmp_path: Path) -> None:
    """Two data sets in turn over two ranks: a rank never meets the other's head."""
    parts = members(tmp_path)
    two = {"mix": {name: parts[name] for name in ("english", "chinese")}, "by": "turns"}
    objectives = [{**one, "dropout": 0} for one in OBJECTIVES[:2]]
    path = mixed(
        tmp_path, {"data": two, "objectives": objectives, "model": {"dropout": 0}, "precision": "fp32"}
    )
    gradus.run(path, runs=tmp_path / "1", until="multi", device="cpu")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, Path(__file__).with_name("made_up_members.py")]
    done = subprocess.run(
        [*command, path, tmp_path / "2", "multi", str(port)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    one, other = (record(tmp_path / runs / "seas", "multi")[1] for runs in ("1", "2"))
    for metric, value in one["results"]["dev"].items():
        assert other["results"]["dev"][metric] == pytest.approx(value, rel=1e-3, abs=1e-6), metric
    assert one["training"]["tokens"] == other["training"]["tokens"]


def test_labels_under_one_head_weigh_what_each_data_set_says() -> None:
    """The sum over both data sets of torch's own loss, each with its own positive weights."""
    weights, model = {"a": (3.0, 1.0, 0.5), "b": (1.0, 7.0, 1.0)}, toy.model()
    own = {
        name: ClassificationConfig(dropout=0.0).build(
            Task(model, "a+b", tuple("中坏好"), class_weights=given, sets=True)
        )
        for name, given in weights.items()
    }
    sets = [np.array([1.0, 0.0, 1.0]), np.array([0.0, 1.0, 0.0]), np.array([1.0, 1.0, 1.0])] * 2
    some = [
        replace(row, label=marks, member=name) for row, marks, name in zip(toy.examples(6), sets, "aababb")
    ]
    both = Learner(Transformer(model, torch.float64), [OfMembers(own, some[0], True)]).initialise(1).double()
    batch = both.prepare(some)
    (logits,) = both.predict(batch)
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(
        logits,
        torch.tensor(np.stack(sets), dtype=torch.float32),
        pos_weight=torch.tensor([weights[name] for name in "aababb"]),
        reduction="none",
    )
    assert float(both(batch).detach()) == pytest.approx(float(wanted.mean(1).sum()), rel=1e-5)


def test_rows_of_every_task_are_read_anew_each_epoch_and_texts_are_not(
    tmp_path: Path, command: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`augment` is the stage's: words go and rows are mixed in both tasks, killed or not."""
    augment = [{"kind": "deletion", "share": "50 %", "rows": "60 %"}, {"kind": "mix", "rows": "50 %"}]
    path = mixed(tmp_path, {"augment": augment, "save": {"every": "5 steps"}})
    material = Material(path.parent, tmp_path / "cache")
    plan = make_plan(read_recipe(path), material)
    (node,) = (node for node in plan.nodes.values() if node.name == "multi")
    train = prepare(node, material).train
    assert isinstance(train, InTurn)
    for name, part in zip(train.names, train.parts):
        first, later = ([part.example(row, epoch) for row in range(len(part))] for epoch in (0, 1))
        anew = sum(a.sequences[0].tolist() != b.sequences[0].tolist() for a, b in zip(first, later))
        joined = sum(one.partner is not None for one in first)
        assert (anew > 3, joined > 3) == (name != "sea", name != "sea")
    killed_and_whole(path, "multi", monkeypatch)
    texts = {name: members(tmp_path)["sea"] for name in "ab"}
    patch = {"data": {"mix": texts}, "objectives": OBJECTIVES[2:], "augment": augment, "batch": "4 windows"}
    code, told = command("check", str(mixed(tmp_path, patch)))
    assert code == 2 and "augment" in told and "labelled rows" in told
