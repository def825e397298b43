"""Distillation's losses against closed forms, enumeration and the laws of every objective, on a toy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
import toy
from test_laws import farthest, gradients
from words import Vocabulary

from gradus.core.example import Example, Targets
from gradus.core.keyed import keyed_generator
from gradus.core.model import ModelConfig
from gradus.distributed.world import World
from gradus.nn.seen import seen
from gradus.nn.soft_losses import Said, linear_soft_cross_entropy, soft_cross_entropy_sum
from gradus.nn.transformer import Transformer
from gradus.objectives import (
    CausalLMConfig,
    ClassificationConfig,
    DistillationConfig,
    MultipleChoiceConfig,
    RegressionConfig,
    Seq2SeqConfig,
    Task,
)
from gradus.objectives.distillation import PROJECTION, Lesson, mapped
from gradus.pipeline.running.teaching import soft
from gradus.training.learner import Learner
from gradus.training.pupil import Pupil

ALL = {"hidden": {"weight": 0.7}, "attention": {"weight": 0.3}}
CASES: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "classes": (ClassificationConfig, ALL, {}),
    "number": (RegressionConfig, {}, {}),
    "choices": (MultipleChoiceConfig, {"hidden": {"map": "last"}}, {}),
    "tokens": (CausalLMConfig, ALL, {}),
    "answers": (Seq2SeqConfig, {}, {"arrangement": "encoder_decoder"}),
    "encoder": (ClassificationConfig, ALL, {"arrangement": "encoder"}),
    "rotary, probabilities": (
        CausalLMConfig,
        {"attention": {"of": "probabilities", "map": {0: 2}}},
        {"positions": "rotary", "kv_heads": 1},
    ),
}
"""Objective, what else is learnt, and what the models are."""
each = pytest.mark.parametrize("case", CASES)


def shape(case: str, **changes: Any) -> ModelConfig:
    usual = {"layers": 2, "width": 16, "heads": 2, "dropout": 0.0, "initial_deviation": 0.3}
    kind = CASES[case][2]
    return ModelConfig(context=toy.CONTEXT, vocab_size=toy.VOCABULARY, **(usual | kind | changes))


def task_of(case: str, model: ModelConfig) -> Any:
    config = CASES[case][0]
    quiet = {} if config in (CausalLMConfig, Seq2SeqConfig) else {"dropout": 0.0}
    return config(**quiet).build(Task(model, "toy", tuple("abc"), vocabulary=Vocabulary()))


def pupil(case: str, dtype: torch.dtype = torch.float64, **further: Any) -> Pupil:
    """A student of two layers beside a teacher of four that is wider, in float64 unless told otherwise."""
    student, teacher = shape(case), shape(case, layers=4, width=24)
    task = task_of(case, student)
    lesson = DistillationConfig(teacher="teacher", **(CASES[case][1] | further))
    learner = Learner(Transformer(student, dtype), [task]).initialise(1).to(dtype)
    body = Transformer(teacher, dtype).initialise(2).to(dtype)
    live = [body] if lesson.live(task.name) else []
    return Pupil(learner, lesson.lessons(task, student, teacher), live, 3).to(dtype)


def rows(case: str, count: int = 8) -> list[Example]:
    """Rows of many lengths, told by a teacher; some have no label."""
    random, made = keyed_generator("taught", count), []
    for row, one in enumerate(toy.examples(count)):
        said = random.dirichlet(np.ones(3))
        if case == "choices":
            answers = 2 + row % 2
            said = np.append(random.dirichlet(np.ones(answers)), [0.0] * (3 - answers))
            read = tuple(one.sequences[0][: 2 + n] for n in range(answers))
            one = replace(one, sequences=read, label=row % 2)
        if case == "answers":
            one = replace(one, decoded=(one.sequences[0][::-1],))
        made.append(replace(one, taught=said[:1] if case == "number" else said))
    return made


@pytest.mark.parametrize("heat", [1.0, 2.0, 7.5])
def test_the_gradient_is_temperature_times_the_difference_of_probabilities(heat: float) -> None:
    random = torch.Generator().manual_seed(1)
    logits, theirs = (torch.randn(5, 7, dtype=torch.float64, generator=random) * 3 for _ in range(2))
    weight = torch.rand(5, dtype=torch.float64, generator=random)
    logits.requires_grad_()
    wanted = torch.softmax(theirs / heat, 1)
    soft_cross_entropy_sum(logits, wanted, weight, heat).backward()
    closed = heat * (torch.softmax(logits.detach() / heat, 1) - wanted) * weight[:, None]
    assert float((logits.grad - closed).abs().max()) < 1e-14


def test_a_high_temperature_matches_logits() -> None:
    """Hinton et al. 2015, equation 4: for logits of mean 0 the gradient tends to (z - v) / K."""
    random = torch.Generator().manual_seed(2)
    logits, theirs = (torch.randn(5, 7, dtype=torch.float64, generator=random) for _ in range(2))
    logits, theirs = (one - one.mean(1, keepdim=True) for one in (logits, theirs))
    logits.requires_grad_()
    wanted = torch.softmax(theirs / 1e5, 1)
    soft_cross_entropy_sum(logits, wanted, torch.ones(5), 1e5).backward()
    assert torch.allclose(logits.grad, (logits.detach() - theirs) / 7, rtol=1e-4, atol=1e-5)


def said(tokens: int, width: int, vocabulary: int, seed: int, bias: bool = True) -> Said:
    random = torch.Generator().manual_seed(seed)

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(*size, dtype=torch.float64, generator=random)

    return Said(draw(tokens, width), draw(vocabulary, width), draw(vocabulary) if bias else None)


@pytest.mark.parametrize("theirs", [(30,), (30, 30), (26,), (37,)])
def test_chunks_of_a_vocabulary_are_the_plain_formula(theirs: tuple[int, ...]) -> None:
    """One teacher or two, with as many tokens as the student, with fewer and with more."""
    weight = torch.linspace(0, 1, 9, dtype=torch.float64)
    student = said(9, 6, 30, 1)
    for tensor in student:
        tensor.requires_grad_()
    teachers = [said(9, 8, size, 2 + place, bias=place == 0) for place, size in enumerate(theirs)]
    total = 3 * linear_soft_cross_entropy(student, teachers, weight, 2.0, chunk=4)
    own = torch.autograd.grad(total, list(student))
    odds = torch.zeros(9, 30, dtype=torch.float64)
    for one in teachers:
        logits = one.logits(slice(None))[:, :30]
        odds[:, : logits.shape[1]] += torch.softmax(logits / 2, 1) / len(teachers)
    plain = 3 * soft_cross_entropy_sum(student.logits(slice(None)), odds, weight, 2.0)
    assert float(total.detach()) == pytest.approx(float(plain.detach()), rel=1e-12)
    wanted = torch.autograd.grad(plain, list(student))
    assert max(float((a - b).abs().max()) for a, b in zip(own, wanted)) < 1e-12


@pytest.mark.parametrize("case", ["classes", "tokens"])
def test_who_says_what_the_teacher_says_has_nothing_to_learn(case: str) -> None:
    model = shape(case)
    task = task_of(case, model)
    learner = Learner(Transformer(model, torch.float64), [task]).initialise(1).to(torch.float64)
    twin = Transformer(model, torch.float64)
    twin.load_state_dict(learner.transformer.state_dict())
    lesson = DistillationConfig(teacher="twin", attention={})
    made = Pupil(learner, lesson.lessons(task, model, model), [twin], 3)
    examples = rows(case)
    if case == "classes":
        logits = learner.eval().predict(learner.prepare(examples))[0].double()
        odds = torch.softmax(
            learner.heads["toy"](learner.transformer.pooled(_ends(learner, examples))) / 2, 1
        )
        assert torch.allclose(torch.softmax(logits / 2, 1), odds, atol=1e-6)
        examples = [replace(one, taught=line.detach().numpy()) for one, line in zip(examples, odds)]
    sums = made(made.prepare(examples))
    sums[1:].sum().backward()
    assert float(sums[1:].detach().abs().max()) < 1e-12
    assert max(float(p.grad.abs().max()) for p in made.parameters() if p.grad is not None) < 1e-12


def _ends(learner: Learner, examples: list[Example]) -> torch.Tensor:
    batch = learner.prepare(examples)
    return learner.transformer(batch.source)[torch.from_numpy(batch.source.offsets[1:] - 1)]


@each
@pytest.mark.parametrize("size", [1, 3])
def test_any_cut_gives_the_same_gradient(case: str, size: int) -> None:
    made, examples = pupil(case), rows(case)
    whole = gradients(made, [examples])
    parts = gradients(made, [examples[start : start + size] for start in range(0, 8, size)])
    assert farthest(whole, parts) < 1e-12
    assert set(whole) == {name for name, _ in made.named_parameters()}


@each
def test_no_targets_give_zero_and_a_gradient(case: str) -> None:
    made = pupil(case)
    batch = made.prepare(rows(case, 3))
    none = tuple(
        Targets(one.index[:0], one.value[:0], one.weight[:0], None if one.owner is None else one.owner[:0])
        for one in batch.targets
    )
    sums = made(replace(batch, targets=none))
    sums.sum().backward()
    assert float(sums.detach().abs().sum()) == 0
    assert float(made.transformer.embedding.tokens.weight.grad.abs().max()) == 0


@each
def test_a_batch_is_learnt_and_the_teacher_stays(case: str) -> None:
    made, examples = pupil(case, torch.float32), rows(case, 3)
    teachers = made._outside[1]
    before = [p.clone() for one in teachers for p in one.parameters()]
    batch = made.prepare(examples)
    optimizer = torch.optim.Adam(made.parameters(), 5e-3)
    lessons = [isinstance(one, Lesson) for one in made.objectives]
    losses = []
    for _ in range(80):
        optimizer.zero_grad()
        losses.append(made(batch)[lessons])
        losses[-1].sum().backward()
        optimizer.step()
    assert (losses[-1] < 0.5 * losses[0]).all(), (losses[0], losses[-1])
    after = [p for one in teachers for p in one.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after)) and not any(p.requires_grad for p in after)
    made.train()
    assert not any(one.training for one in teachers)
    extra = {*made.state_dict()} - {*made.plain.state_dict()}
    assert extra == ({f"heads.{PROJECTION}.weight"} if "hidden" in CASES[case][1] else set())


def test_states_and_attention_by_hand() -> None:
    """Row by row, with plain softmax: what a head attends with gives what the module says."""
    made, examples = pupil("classes"), rows("classes")
    sums = dict(zip([one.name for one in made.objectives], made(made.prepare(examples)).detach()))
    (teacher,) = made._outside[1]
    hidden = scores = 0.0
    for row in examples:
        batch = made.prepare([row])
        own, theirs = (seen(one, batch, (0, 1, 3)[: 2 + other], (0, 1, 3)[: 2 + other])
                       for other, one in enumerate((made.transformer, teacher)))  # fmt: skip
        for layer, other in {0: 1, 1: 3}.items():
            size = row.tokens
            projected = own.hidden[layer][:size] @ made.heads[PROJECTION].weight.T
            hidden += float(((projected - theirs.hidden[other][:size]) ** 2).mean(1).sum().detach())
            (mine, there), (his, _) = own.maps[layer][1][0], theirs.maps[other][1][0]
            for at in range(size):
                distance = (mine[0, :, at, : at + 1] - his[0, :, at, : at + 1]) ** 2
                assert there[0, 0, at].nonzero().flatten().tolist() == list(range(at + 1))
                scores += float(distance.mean().detach())
    assert float(sums["hidden"]) == pytest.approx(hidden, rel=1e-12)
    assert float(sums["attention"]) == pytest.approx(scores, rel=1e-12)


@pytest.mark.parametrize("case", ["classes", "encoder", "rotary, probabilities"])
def test_the_maps_are_what_attention_attends_with(case: str) -> None:
    body = Transformer(shape(case), torch.float64, kernel="sdpa").initialise(4).double().eval()
    learner = Learner(body, [task_of(case, shape(case))]).double()
    batch = learner.prepare(rows(case))
    read: list[Any] = []
    module = body.blocks[1].attention
    module.register_forward_hook(lambda _, inputs, output: read.append((inputs, output)))
    found = seen(body, batch, (), (1,))
    (states, sight), output = read[0]
    layout, maps = found.maps[1]
    attended = []
    for (scores, there), (_, _, value) in zip(maps, module.parts(states, sight)):
        weights = torch.softmax(scores.masked_fill(~there, -torch.inf), -1)
        value = value.repeat_interleave(weights.shape[1] // value.shape[2], 2)
        attended.append(torch.einsum("shtk,skhc->sthc", weights, value))
    own = module.output(layout.collect(attended).flatten(1))
    real = int(batch.source.offsets[-1])
    assert float((own - output)[:real].detach().abs().max()) < 1e-12


def test_layers_are_mapped() -> None:
    four, twelve, two = (ModelConfig(layers=layers) for layers in (4, 12, 2))
    assert mapped("uniform", four, twelve) == {0: 2, 1: 5, 2: 8, 3: 11}  # TinyBERT's 3, 6, 9, 12
    assert mapped("last", four, twelve) == {0: 8, 1: 9, 2: 10, 3: 11}
    assert mapped({1: 0}, two, four) == {1: 0}
    for wrong in ({2: 0}, {0: 4}, {}):
        with pytest.raises(ValueError, match="map"):
            mapped(wrong, two, four)
    with pytest.raises(ValueError, match="the student has 12 layers, the teacher 4"):
        mapped("uniform", twelve, four)


def test_several_teachers_have_a_mean_and_hard_ones_a_choice() -> None:
    scores = [np.array([[2.0, 0.0, -np.inf]]), np.array([[0.0, 3.0, -np.inf]])]
    heat = DistillationConfig(teacher="a", temperature=4.0)
    each_one = [np.exp(one / 4) / np.exp(one / 4).sum() for one in scores]
    assert np.allclose(soft(scores, heat, False), np.mean(each_one, 0), atol=1e-15)
    assert soft(scores, DistillationConfig(teacher="a", hard=True), False).tolist() == [[0, 1, 0]]
    numbers = soft([np.array([[1.0]]), np.array([[4.0]])], heat, True)
    assert numbers.tolist() == [[2.5]]


def _one_step(world: World) -> dict[str, torch.Tensor]:
    trainer = toy.trainer(pupil("classes"), rows("classes"), budget=40, world=world)
    found: dict[str, torch.Tensor] = {}
    trainer.clip = None
    trainer.optimizers[0].step = lambda: found.update(  # type: ignore[method-assign]
        {name: parameter.grad.clone() for name, parameter in trainer.learner.named_parameters()}
    )
    next(trainer.steps(toy.always))
    return found


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.save(_one_step(World(rank, 2)), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_have_the_gradient_of_one(tmp_path: Path) -> None:
    multiprocessing.spawn(_rank, (str(tmp_path),), nprocs=2)
    alone = _one_step(World())
    for rank in (0, 1):
        assert farthest(alone, torch.load(tmp_path / f"{rank}.pt")) < 1e-12
