"""Law 4: when weights move every tensor is loaded, new, dropped or resized, or it is an error."""

from __future__ import annotations

import pytest
import torch
import toy

from gradus.core.errors import UserError
from gradus.training.learner import Learner
from gradus.training.transfer import transfer


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
