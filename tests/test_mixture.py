"""Texts read as one: shares are kept to the window, nothing is read again before all of it was, dev is told
by text."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny

import gradus
from gradus.core.errors import UserError
from gradus.data.feed import Feed
from gradus.data.mixture import Joined, Mixed, Shares
from gradus.data.sources import HeldTokens, Windows

CONTEXT = 4


def windows(count: int, first: int = 0) -> Windows:
    """A source of `count` windows whose tokens are all different."""
    return Windows(HeldTokens(np.arange(first, first + count * CONTEXT + 1)), CONTEXT)


def mixed(sizes: list[int], shares: list[float], seed: int = 1) -> Mixed:
    parts = {f"part{number}": windows(size, 1000 * number) for number, size in enumerate(sizes)}
    return Mixed(parts, np.array(shares) / sum(shares), seed)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 30), st.floats(0.01, 10)), min_size=1, max_size=4), st.integers(0, 3)
)
def test_each_source_gives_its_share_and_repeats_nothing_before_its_end(parts, seed):
    sizes, shares = [size for size, _ in parts], [share for _, share in parts]
    source = mixed(sizes, shares, seed)
    assert len(source) == sum(sizes) == source.counts.sum()
    exact = np.array(shares) / sum(shares) * sum(sizes)
    assert (np.abs(source.counts - exact) <= 1).all()
    seen: Counter[int] = Counter()
    for epoch in range(3):
        for index in range(len(source)):
            example = source.example(index, epoch)
            assert example.row == index
            seen[int(example.sequences[0][0])] += 1
    for number, (size, count) in enumerate(zip(sizes, source.counts.tolist())):
        times = [seen[1000 * number + CONTEXT * window] for window in range(size)]
        assert sum(times) == 3 * count
        assert max(times) - min(times) <= 1


def test_by_size_every_window_is_read_once_an_epoch():
    source = mixed([7, 3, 12], [7, 3, 12])
    for epoch in (0, 1):
        first = sorted(int(source.example(index, epoch).sequences[0][0]) for index in range(len(source)))
        whole = Joined(source.parts)
        assert first == sorted(int(whole.example(index).sequences[0][0]) for index in range(len(whole)))


def test_the_order_is_a_function_of_the_seed_and_resumes_in_the_middle():
    feeds = [Feed(mixed([9, 5], [1, 3], seed), 4, seed, 40) for seed in (1, 1, 2)]

    def drawn(feed):
        return [[e.sequences[0].tolist() for _, e in feed.examples(step)] for step in reversed(range(10))]

    assert drawn(feeds[0]) == drawn(feeds[1]) != drawn(feeds[2])


def test_sources_of_any_share_are_spread_over_the_epoch():
    feed = Feed(mixed([400, 400], [3, 1]), 100, 1, 800)
    per_step = [
        sum(int(e.sequences[0][0]) >= 1000 + 400 for _, e in feed.examples(step)) for step in range(8)
    ]
    assert min(per_step) > 0 and max(per_step) < 60


def test_temperature_flattens():
    sizes = {"large": 100, "small": 1}
    assert Shares(temperature=1).of(sizes) == pytest.approx([100 / 101, 1 / 101])
    assert Shares(temperature=2).of(sizes) == pytest.approx([10 / 11, 1 / 11])
    assert Shares(temperature=1e9).of(sizes) == pytest.approx([0.5, 0.5], abs=1e-6)
    assert Shares(temperature=1e-9).of(sizes).tolist() == [1, 0]
    assert Shares(weights=dict.fromkeys(sizes, 1e308)).of(sizes).tolist() == [0.5, 0.5]
    with pytest.raises(ValueError, match="finite"):
        Shares(weights={**sizes, "none": float("inf")})


def test_joined_sources_are_numbered_through():
    whole = Joined([windows(2), windows(3, 1000)])
    assert [whole.example(index).row for index in range(5)] == list(range(5))
    assert [int(whole.example(index).sequences[0][0]) for index in range(5)] == [0, 4, 1000, 1004, 1008]
    assert whole.tokens == 5 * CONTEXT


def recipe(folder: Path, by: object, **changes: object) -> Path:
    """A pre-training on an English and a Chinese text, and a fine-tuning on it."""
    folder.mkdir(exist_ok=True)
    (folder / "english.txt").write_text("The sea was calm, and the ship lay still under the moon.\n" * 60)
    (folder / "chinese.txt").write_text("海很平静，船在月光下一动不动。\n" * 30, encoding="utf-8")
    texts = {
        name: {"kind": "text", "train": str(folder / f"{name}.txt"), "dev": "10 %"}
        for name in ("english", "chinese")
    }
    data = {"mix": texts, "by": by}
    return tiny(
        folder / "recipe.yaml", {"stages.pretrain.data": data, "tokenizer": {"kind": "char"}, **changes}
    )


def stage(runs: Path, name: str) -> dict:
    (file,) = runs.glob(f"*/stages/{name}-*/stage.json")
    return json.loads(file.read_text())


def test_dev_is_told_by_text_and_in_all(tmp_path):
    gradus.run(recipe(tmp_path, {"weights": {"english": 1, "chinese": 3}}), runs=tmp_path / "runs")
    done = stage(tmp_path / "runs", "pretrain")
    dev, counts = done["results"]["dev"], done["data"]["dev"]
    drawn, rows = done["data"]["train"]["drawn"], done["data"]["train"]["rows"]
    assert drawn["chinese"] == round(0.75 * rows) and sum(drawn.values()) == rows
    sizes = {"english": (tmp_path / "english.txt").stat().st_size, "chinese": 0}
    for name in ("english", "chinese"):
        assert 0 < dev[f"{name}.bits_per_byte"] < 10
    # The bits of all bytes are those of the one text and those of the other.
    bits = dev["bits_per_byte"] * counts["bytes"]
    share = (bits / counts["bytes"] - dev["chinese.bits_per_byte"]) / (
        dev["english.bits_per_byte"] - dev["chinese.bits_per_byte"]
    )
    english = share * counts["bytes"]
    assert english == pytest.approx(round(english), abs=1e-3) and 0 < english < sizes["english"]
    assert stage(tmp_path / "runs", "finetune")["results"]["dev"]["accuracy"] >= 0


def test_one_text_may_say_when_to_stop(tmp_path):
    settings = {"stages.pretrain.stop": {"metric": "chinese.bits_per_byte"}}
    gradus.run(recipe(tmp_path, "size"), runs=tmp_path / "runs", until="pretrain", settings=settings)
    done = stage(tmp_path / "runs", "pretrain")
    assert done["training"]["metric"] == "chinese.bits_per_byte" and done["training"]["best_step"] == 8
    settings = {"stages.pretrain.stop": {"metric": "chinse.loss"}}
    with pytest.raises(UserError, match="stop.metric: this stage reports no such metric: 'chinse.loss'"):
        gradus.check(recipe(tmp_path, "size"), runs=tmp_path / "runs", settings=settings)


def test_check_says_what_an_epoch_is_made_of(tmp_path):
    checks = gradus.check(recipe(tmp_path, {"weights": {"english": 1, "chinese": 3}}), runs=tmp_path / "runs")
    (note,) = [note for note in checks.notes if "an epoch is" in note]
    assert "english 25%" in note and "chinese 75%" in note


def test_other_weights_are_another_training_and_the_same_tokens(tmp_path):
    for by in ("size", {"weights": {"english": 1, "chinese": 9}}):
        gradus.run(recipe(tmp_path, by), runs=tmp_path / "runs")
    assert len(list(tmp_path.glob("runs/*/stages/pretrain-*"))) == 2
    assert len(list(tmp_path.glob("runs/cache/tokens-*/index.json"))) == 4


@pytest.mark.parametrize(
    "by, told",
    [
        ({"weights": {"english": 1, "chinse": 2}}, "by.weights: there is no such text: 'chinse'"),
        ({"weights": {"english": 1}}, "by.weights: this text has no weight: 'chinese'"),
        ({"weights": {"english": 1, "chinese": 0}}, "weights.chinese"),
        ({"temperature": 0}, "by.temperature"),
        ({"weights": {"english": 1, "chinese": 1e-9}}, "an epoch this text would have none: 'chinese'"),
        ("sise", "by: unknown word: 'sise' (did you mean 'size'?"),
    ],
)
def test_what_cannot_be_mixed_is_told(tmp_path, by, told):
    with pytest.raises(UserError) as mistake:
        gradus.check(recipe(tmp_path, by), runs=tmp_path / "runs")
    assert told in str(mistake.value)


def test_texts_of_other_windows_are_told(tmp_path):
    file = recipe(tmp_path, "size")
    text = file.read_text()
    file.write_text(text.replace("chinese.txt", "chinese.txt\n          windows: document"))
    with pytest.raises(UserError, match="mix.chinese.windows: the windows of all texts are of one kind"):
        gradus.check(file, runs=tmp_path / "runs")


def test_a_text_is_not_called_as_an_objective_is(tmp_path):
    file = recipe(tmp_path, "size")
    file.write_text(file.read_text().replace("      chinese:", "      causal_lm:"))
    with pytest.raises(UserError, match="mix.causal_lm: a text cannot be called as an objective is"):
        gradus.check(file, runs=tmp_path / "runs")
