"""Law 4: when weights move every tensor is loaded, new, dropped or resized, or it is an error."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
import toy

from gradus.core.errors import UserError
from gradus.training.learner import Learner
from gradus.training.transfer import FirstLayers, Moved, transfer


def tensors(learner: Learner) -> dict[str, torch.Tensor]:
    return {name.removeprefix("transformer."): value.clone() for name, value in learner.state_dict().items()}


def test_every_tensor_is_in_the_table_once() -> None:
    source, target = toy.learner().initialise(1), toy.learner().initialise(2)
    given = tensors(source) | {"heads.old.score.weight": torch.zeros(3, 16)}
    table = transfer(target, given, {"toy": "toy"}, "here")
    names = [moved.tensor for moved in table]
    assert sorted(names) == sorted([*target.state_dict(), "heads.old.score.weight"])
    assert {moved.tensor for moved in table if moved.what == "dropped"} == {"heads.old.score.weight"}
    for name, value in target.state_dict().items():
        assert torch.equal(value, source.state_dict()[name]), name


def test_a_head_passes_only_where_it_fits() -> None:
    target = toy.learner().initialise(2)
    before = target.heads["toy"].score.weight.clone()
    table = transfer(target, tensors(toy.learner().initialise(1)), {}, "here")
    what = {moved.what for moved in table if moved.tensor.startswith("heads.")}
    assert what == {"new", "dropped"} or what == {"new"}
    assert torch.equal(target.heads["toy"].score.weight, before)


def test_the_vocabulary_may_grow_and_stays_tied() -> None:
    source, target = toy.learner().initialise(1), toy.learner().initialise(2)
    small = tensors(source)
    small["embedding.tokens.weight"] = small["embedding.tokens.weight"][:-3]
    fresh = target.transformer.embedding.tokens.weight[-3:].clone()
    table = transfer(target, small, {"toy": "toy"}, "here")
    grown = next(moved for moved in table if moved.what == "resized")
    assert grown.tensor == "transformer.embedding.tokens.weight" and "3 new tokens" in grown.why
    weight = target.transformer.embedding.tokens.weight
    assert torch.equal(weight[:-3], small["embedding.tokens.weight"]) and torch.equal(weight[-3:], fresh)
    assert target.transformer.output_weight is weight


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda given: given.pop("blocks.1.attention.output.bias"),
            "lack a tensor.*blocks.1.attention.output.bias",
        ),
        (lambda given: given.update({"blocks.9.x": torch.zeros(1)}), "no place for.*blocks.9.x"),
        (
            lambda given: given.update({"embedding.positions.weight": torch.zeros(5, 16)}),
            "wrong shape.*positions.*24, 16",
        ),
        (lambda given: given.update({"embedding.tokens.weight": torch.zeros(99, 16)}), "wrong shape.*tokens"),
    ],
)
def test_anything_else_is_an_error(change, words: str) -> None:  # type: ignore[no-untyped-def]
    given = tensors(toy.learner())
    change(given)
    with pytest.raises(UserError, match=words):
        transfer(toy.learner(), given, {"toy": "toy"}, "here")


def what_became(table: list[Moved]) -> dict[str, set[str]]:
    """Tensor -> everything that the table says of it; the reasons where it was left out."""
    found: dict[str, set[str]] = defaultdict(set)
    for moved in table:
        found[moved.tensor].add(moved.what)
        if moved.what in ("new", "dropped"):
            assert moved.why == "not transferred", moved
    return found


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("part", ["all", "word vectors", 0, 1, 2])
def test_what_is_not_transferred_is_new_here_and_dropped_there(part: object, tie: bool) -> None:
    shape = {"norm": "before", "tie_embeddings": tie}
    source, target = toy.learner(**shape).initialise(1), toy.learner(**shape).initialise(2)
    fresh = {name: value.clone() for name, value in target.state_dict().items()}
    transferred = FirstLayers(layers=part) if isinstance(part, int) else part
    found = what_became(transfer(target, tensors(source), {"toy": "toy"}, "here", transferred))
    taken = {
        name
        for name in fresh
        if part == "all"
        or name == "transformer.embedding.tokens.weight"
        or (isinstance(part, int) and name == "transformer.embedding.positions.weight")
        or (isinstance(part, int) and any(f".blocks.{index}." in name for index in range(part)))
    }
    assert found.keys() == fresh.keys()
    for name, value in target.state_dict().items():
        assert found[name] == ({"loaded"} if name in taken else {"new", "dropped"}), name
        assert torch.equal(value, source.state_dict()[name] if name in taken else fresh[name]), name
    if part == 2:  # all layers, without what stands on them
        left = {"heads.toy.score.weight", "transformer.final_norm.weight", "transformer.final_norm.bias"}
        assert fresh.keys() - taken == left | (set() if tie else {"transformer.unembedding.weight"})


def test_word_vectors_of_a_tied_model_are_its_output_too() -> None:
    source, target = toy.learner().initialise(1), toy.learner().initialise(2)
    small = tensors(source)
    small["embedding.tokens.weight"] = small["embedding.tokens.weight"][:-2]
    table = transfer(target, small, {}, "here", "word vectors")
    assert [moved.what for moved in table if "tokens" in moved.tensor] == ["resized"]
    assert torch.equal(target.transformer.output_weight[:-2], small["embedding.tokens.weight"])


def test_the_layers_of_an_lstm_are_transferred_as_any_others() -> None:
    lstm = {"body": "lstm", "units": 8}
    source, target = toy.learner(**lstm).initialise(1), toy.learner(**lstm).initialise(2)
    found = what_became(transfer(target, tensors(source), {"toy": "toy"}, "here", FirstLayers(layers=1)))
    assert found["transformer.blocks.0.recurrent.weight"] == {"loaded"}
    assert found["transformer.blocks.1.recurrent.weight"] == {"new", "dropped"}


def test_a_tensor_without_a_place_is_an_error_whatever_is_transferred() -> None:
    given = tensors(toy.learner()) | {"blocks.9.x": torch.zeros(1)}
    with pytest.raises(UserError, match="no place for.*blocks.9.x"):
        transfer(toy.learner(), given, {"toy": "toy"}, "here", "word vectors")
