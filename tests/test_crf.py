"""The CRF against the sum over every row of tags, against a kept implementation, and the rules of schemes."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from gradus.core.example import Example
from gradus.core.model import ModelConfig
from gradus.data.tags import LETTERS, all_written, entities, may_follow, whole
from gradus.nn.crf import Chain, Chains, Scores, barred, chain_nats, likeliest, marginals
from gradus.nn.transformer import Transformer
from gradus.objectives import Task, TokenClassificationConfig
from gradus.training.learner import Learner

LENGTHS = [3, 1, 5, 2, 5, 1]
TAGS = ("O", "B-地名", "I-地名")
RULES = {"any": np.ones((4, 4), bool), "legal": may_follow(TAGS, "bio")}
each_rule = pytest.mark.parametrize("rules", RULES)


def edges(lengths: list[int]) -> tuple[Tensor, Tensor]:
    """Where chains of these lengths begin and end."""
    begins = torch.cat([torch.arange(length) == 0 for length in lengths])
    return begins, begins.roll(-1)


def drawn(lengths: list[int], tags: int, seed: int = 1) -> tuple[Tensor, Scores, Tensor]:
    """What links say, what the chain says, and tags."""
    torch.manual_seed(seed)
    links = torch.randn(sum(lengths), tags, dtype=torch.float64, requires_grad=True)
    own = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in (tags, tags, (tags, tags))
    ]
    return links, Scores(*own), torch.randint(0, tags, (sum(lengths),))


def enumerated(
    links: Tensor, scores: Scores, lengths: list[int], follows: np.ndarray
) -> list[dict[tuple[int, ...], Tensor]]:
    """Of every chain the score of each row of tags that is allowed."""
    found: list[dict[tuple[int, ...], Tensor]] = []
    outside = len(follows) - 1
    for start, length in zip(np.cumsum([0, *lengths]), lengths):
        rows = {}
        for tags in product(range(links.shape[1]), repeat=length):
            if all(follows[pair] for pair in zip((outside, *tags), (*tags, outside))):
                own = scores.starts[tags[0]] + scores.ends[tags[-1]]
                own = own + sum(links[start + place, tag] for place, tag in enumerate(tags))
                rows[tags] = own + sum(scores.transitions[pair] for pair in zip(tags, tags[1:]))
        found.append(rows)
    return found


def with_walls(scores: Scores, follows: np.ndarray) -> Scores:
    return Scores(*(own + wall for own, wall in zip(scores, barred(follows))))


@each_rule
def test_the_likelihood_and_its_gradient_are_those_of_the_sum_over_all_rows(rules: str) -> None:
    links, scores, _ = drawn(LENGTHS, 3)
    every = enumerated(links, scores, LENGTHS, RULES[rules])
    wanted = [list(rows)[number % len(rows)] for number, rows in enumerate(every)]
    by_hand = torch.stack(
        [torch.stack([*rows.values()]).logsumexp(0) - rows[tags] for rows, tags in zip(every, wanted)]
    )
    begins, ends = edges(LENGTHS)
    chains, held = Chains.of(begins), with_walls(scores, RULES[rules])
    tags = torch.tensor([tag for row in wanted for tag in row])
    found = chain_nats(held.on(links, begins, ends), held.transitions, tags, chains)
    rank = torch.argsort(-torch.tensor(LENGTHS), stable=True)
    assert float((found - by_hand[rank]).detach().abs().max()) < 1e-12
    weight = torch.rand(len(LENGTHS), dtype=torch.float64)
    own = torch.autograd.grad((found * weight).sum(), [links, *scores])
    theirs = torch.autograd.grad((by_hand[rank] * weight).sum(), [links, *scores])
    assert max(float((a - b).abs().max()) for a, b in zip(own, theirs)) < 1e-12


@each_rule
@pytest.mark.parametrize("seed", range(5))
def test_the_likeliest_row_and_the_probability_of_each_tag(rules: str, seed: int) -> None:
    links, scores, _ = drawn(LENGTHS, 3, seed)
    begins, ends = edges(LENGTHS)
    with torch.no_grad():
        every = enumerated(links, scores, LENGTHS, RULES[rules])
        best = [tag for rows in every for tag in max(rows, key=lambda tags: float(rows[tags]))]
        held, chains = with_walls(scores, RULES[rules]), Chains.of(begins)
        on = held.on(links, begins, ends)
        assert likeliest(on, held.transitions, chains).tolist() == best
        odds = []
        for rows, length in zip(every, LENGTHS):
            share = torch.stack([*rows.values()]).softmax(0)
            odds += [[float(share[[tags[place] == tag for tags in rows]].sum()) for tag in range(3)]
                     for place in range(length)]  # fmt: skip
        assert np.abs(marginals(on, held.transitions, chains).numpy() - odds).max() < 1e-12


def test_a_chain_that_says_nothing_is_a_softmax_of_each_link() -> None:
    links, _, tags = drawn(LENGTHS, 4)
    begins, ends = edges(LENGTHS)
    chain = Chain(4).double()
    on = chain.scores.on(links, begins, ends)
    plain = torch.nn.functional.cross_entropy(links, tags, reduction="sum")
    found = chain_nats(on, chain.scores.transitions, tags, Chains.of(begins)).sum()
    assert float(found.detach()) == pytest.approx(float(plain.detach()), rel=1e-13)
    assert torch.equal(likeliest(on, chain.scores.transitions, Chains.of(begins)), links.argmax(1))


def test_fp32_keeps_its_digits_on_long_chains() -> None:
    lengths = [700, 30]
    links, scores, tags = drawn(lengths, 9)
    begins, ends = edges(lengths)
    found = []
    for dtype in (torch.float64, torch.float32):
        parts = [part.detach().to(dtype).requires_grad_() for part in (links * 5, *scores)]
        held = Scores(*parts[1:])
        nats = chain_nats(held.on(parts[0], begins, ends), held.transitions, tags, Chains.of(begins))
        assert nats.dtype == dtype
        found.append([nats, *torch.autograd.grad(nats.sum(), parts)])
    for exact, near in zip(*found):
        assert float(((exact - near).abs().max() / exact.abs().max()).detach()) < 1e-5


@pytest.mark.parametrize("lengths", [[1], [4, 4, 4], [2, 9, 1, 5, 9]])
def test_a_kept_implementation_says_the_same(lengths: list[int]) -> None:
    kept = pytest.importorskip("torchcrf").CRF(5, batch_first=True).double()
    links, _, tags = drawn(lengths, 5)
    begins, ends = edges(lengths)
    scores = Scores(kept.start_transitions, kept.end_transitions, kept.transitions)
    on, chains = scores.on(links, begins, ends), Chains.of(begins)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    padded = torch.zeros(*mask.shape, 5, dtype=torch.float64)
    padded[mask] = links.detach()
    wanted = torch.zeros_like(mask, dtype=torch.int64)
    wanted[mask] = tags
    found = chain_nats(on, scores.transitions, tags, chains).sum()
    assert float(found.detach()) == pytest.approx(-float(kept(padded, wanted, mask).detach()), rel=1e-12)
    decoded = [tag for row in kept.decode(padded, mask) for tag in row]
    assert likeliest(on.detach(), scores.transitions.detach(), chains).tolist() == decoded


@pytest.mark.parametrize("scheme", [*LETTERS, "none"])
@pytest.mark.parametrize("given", [["B-地名", "O", "B-A"], ["B", "O"], ["B"]])
def test_what_may_follow_is_what_the_scheme_writes(scheme: str, given: list[str]) -> None:
    """A row of tags is allowed if and only if it is what would be written for its entities."""
    tags = whole(given, scheme)
    follows = may_follow(tags, scheme)
    for length in (1, 2, 3, 4):
        for row in product(range(len(tags)), repeat=length):
            allowed = all(follows[pair] for pair in zip((len(tags), *row), (*row, len(tags))))
            names = [tags[tag] for tag in row]
            right = scheme == "none" or all_written(entities(names), length, scheme) == names
            assert allowed == right, names


def made(config: TokenClassificationConfig, scheme: str, tags: tuple[str, ...]) -> Learner:
    model = ModelConfig(layers=1, width=16, heads=2, context=48, vocab_size=60, dropout=0.0)
    task = Task(model, "toy", tags, follows=may_follow(tags, scheme))
    return Learner(Transformer(model, torch.float64), [config.build(task)]).initialise(1).double()


def row_of(number: int, tags: list[int], lost: tuple[int, ...] = ()) -> Example:
    ids = (np.arange(len(tags) + 2) * 7 + number) % 60
    places = [-1 if word in lost else word + 1 for word in range(len(tags))]
    return Example(number, (ids,), tagged=np.array([*zip(places, range(len(tags)), tags)]).reshape(-1, 3))


def shaken(learner: Learner) -> Learner:
    """Its chain says something."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name in ("starts", "ends", "transitions"):
            getattr(learner.heads["toy"].chain, name).normal_()
    return learner


@pytest.mark.parametrize("transitions", ["any", "legal"])
def test_law_5_other_rows_change_nothing(transitions: str) -> None:
    """Nor does the number of the word with which a row begins: that of the second row's first word follows
    that of the first row's last."""
    config = TokenClassificationConfig(loss="crf", transitions=transitions, dropout=0.0)
    learner = shaken(made(config, "bio", TAGS)).eval()
    rows = [row_of(0, [1, 2]), row_of(1, [1, 2, 0, 1], lost=(0, 1)), row_of(2, [0, 1, 2, 2, 0, 1])]
    together = learner.predict(learner.prepare(rows))[0]
    alone = torch.cat([learner.predict(learner.prepare([row]))[0] for row in rows])
    assert float((together - alone).abs().max()) < 1e-6
    sums = [float(learner(learner.prepare([row])).detach()) for row in rows]
    assert float(learner(learner.prepare(rows)).detach()) == pytest.approx(sum(sums), rel=1e-12)
    assert float(together[:, 3].sum()) == pytest.approx(sum(sums), rel=1e-5)


def test_words_that_are_lost_part_a_chain_and_forbid_nothing() -> None:
    """Of B M E the context may cut E off, or the tokenizer leave nothing of M: the rest is right still."""
    tags = tuple(whole(["B-地名"], "bmes"))
    config = TokenClassificationConfig(loss="crf", transitions="legal", dropout=0.0)
    learner = shaken(made(config, "bmes", tags))
    begin, middle, end, outside = (tags.index(tag) for tag in ("B-地名", "M-地名", "E-地名", "O"))
    sentence = [outside, begin, middle, end]
    for lost in ((), (3,), (2,), (2, 3), (0,), (0, 1), (1, 2)):
        row = row_of(1, sentence, lost)
        assert 0 < float(learner(learner.prepare([row])).detach()) < 60, lost
    assert float(learner(learner.prepare([row_of(1, [outside, middle, end, begin])])).detach()) > 9000


def test_legal_tags_are_said_though_a_softmax_finds_others_likelier() -> None:
    tags = tuple(whole(["B-地名", "B-人名"], "iobes"))
    rows = [row_of(number, [0] * (1 + number % 7)) for number in range(40)]
    illegal = {}
    for transitions in ("any", "legal"):
        learner = made(TokenClassificationConfig(transitions=transitions), "iobes", tags).eval()
        with torch.no_grad():
            learner.heads["toy"].score.weight.mul_(30)
        said = learner.predict(learner.prepare(rows))[0]
        names = [[tags[tag] for tag in part.tolist()] for part in
                 said[:, 1].int().split([len(row.tagged) for row in rows])]  # fmt: skip
        illegal[transitions] = sum(all_written(entities(one), len(one), "iobes") != one for one in names)
        assert set(learner.state_dict()) == set(made(TokenClassificationConfig(), "iobes", tags).state_dict())
    assert illegal["any"] > 10 and illegal["legal"] == 0
