"""The LSTM in the transformer's place: torch's own as the oracle, and the laws that hold for any model."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import toy
from test_laws import farthest, gradients
from torch import Tensor

from gradus.core.example import Ragged, ragged
from gradus.core.model import ModelConfig
from gradus.evaluation.generate import generate
from gradus.evaluation.sampling import Sampling
from gradus.families import preset
from gradus.nn.losses import linear_cross_entropy
from gradus.nn.lstm import LSTMLayer, Steps
from gradus.nn.recurrence import run_by_hand, run_by_torch
from gradus.nn.transformer import Transformer
from gradus.optim.groups import parameter_groups
from gradus.training import checkpoint

VOCABULARY, EXACT = 61, torch.float64
LENGTHS = (5, 40, 17, 1, 17, 64)
LSTM = {"body": "lstm", "layers": 2, "units": 24}


def model(precision: torch.dtype = EXACT, seed: int = 1, **changes: object) -> Transformer:
    shape = {**LSTM, "width": 16, "context": 64, "vocab_size": VOCABULARY, "initial_deviation": 0.3}
    return Transformer(ModelConfig.model_validate({**shape, **changes}), precision).initialise(seed)


def sequences(lengths: tuple[int, ...] = LENGTHS, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.integers(0, VOCABULARY, length) for length in lengths]


def states(of: Transformer, rows: list[np.ndarray]) -> Tensor:
    with torch.no_grad():
        return of.eval()(ragged(rows))


def test_steps_take_every_token_once_and_bring_it_back() -> None:
    offsets = np.array([0, 3, 3, 8, 10])  # lengths 3, 0, 5, 2
    steps = Steps.of(offsets, 16)
    assert steps.sizes == (3, 3, 2, 1, 1)
    assert steps.take.tolist() == [3, 0, 8, 4, 1, 9, 5, 2, 6, 7, 10, 11, 12, 13, 14, 15]
    flat = torch.arange(1.0, 17.0)[:, None]
    assert torch.equal(steps.unpack(steps.pack(flat)), flat)


@pytest.mark.parametrize("run", [run_by_hand, run_by_torch])
def test_a_layer_is_torchs_lstm_forward_and_backward(run) -> None:  # type: ignore[no-untyped-def]
    """Against `torch.nn.LSTM`, a sequence at a time, in float64."""
    reference = torch.nn.LSTM(7, 9, dtype=EXACT)
    torch.manual_seed(0)
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    torch.nn.init.zeros_(reference.bias_hh_l0)
    rows = [torch.randn(length, 7, dtype=EXACT) for length in (4, 1, 6, 4)]
    wanted = [torch.randn(length, 9, dtype=EXACT) for length in (4, 1, 6, 4)]
    flat = torch.cat(rows).requires_grad_()
    alone = [reference(row)[0] for row in flat.split([4, 1, 6, 4])]
    sum((one * want).sum() for one, want in zip(alone, wanted)).backward()

    again = torch.cat(rows).requires_grad_()
    own = [parameter.detach().clone().requires_grad_() for parameter in list(reference.parameters())[:3]]
    steps = Steps.of(np.array([0, 4, 5, 11, 15]), 18)
    with_tail = torch.cat([again, torch.full((3, 7), 9.0, dtype=EXACT)])
    hidden = steps.unpack(run(steps.pack(with_tail), *own, steps.sizes))
    assert not hidden[15:].any()
    hidden = hidden[:15]
    (hidden * torch.cat(wanted)).sum().backward()
    assert (hidden - torch.cat(alone)).abs().max() < 1e-12
    assert again.grad is not None and flat.grad is not None
    assert (again.grad - flat.grad).abs().max() < 1e-12
    for mine, theirs in zip(own, reference.parameters()):
        assert mine.grad is not None and theirs.grad is not None
        assert (mine.grad - theirs.grad).abs().max() < 1e-12


def test_config_counts_the_parameters_and_there_are_no_others() -> None:
    for changes in ({}, {"tie_embeddings": False}, {"positions": "learned"}, {"layers": 1}):
        built = model(**changes)
        shape = built.config
        matrices = 4 * shape.cells * (shape.width + shape.cells) + shape.cells * shape.width
        expected = shape.layers * (matrices + 4 * shape.cells + shape.width) + VOCABULARY * shape.width
        expected += VOCABULARY * shape.width * (not shape.tie_embeddings)
        expected += shape.context * shape.width * (shape.positions == "learned")
        assert sum(parameter.numel() for parameter in built.parameters()) == expected
    names = [name for name, _ in model().named_parameters()]
    assert [name for name in names if name.startswith("blocks.1.")] == [
        "blocks.1.input.weight", "blocks.1.input.bias", "blocks.1.recurrent.weight",
        "blocks.1.output.weight", "blocks.1.output.bias",
    ]  # fmt: skip
    assert "embedding.positions.weight" not in names
    config = model(layers=1).config
    assert config.flops_per_token(64) == 6 * (4 * 24 * (16 + 24) + 24 * 16 + VOCABULARY * 16)


def test_the_preset_has_the_papers_numbers() -> None:
    """GPT-1, section 5: "a single layer 2048 unit LSTM using the same framework"."""
    config = ModelConfig.model_validate(preset("lstm") | {"vocab_size": 40478})
    assert (config.body, config.layers, config.units, config.width) == ("lstm", 1, 2048, 768)
    assert (config.context, config.dropout, config.tie_embeddings) == (512, 0.1, True)
    assert config.positions == "none"
    assert ModelConfig(body="lstm", layers=1).cells == 2048
    with pytest.raises(ValueError, match="no units"):
        ModelConfig(units=2048)


def test_gates_begin_open_and_only_matrices_decay() -> None:
    built = model(units=400)
    bias = built.blocks[0].input.bias.view(4, -1)
    assert (bias[1] == 1).all() and not bias[[0, 2, 3]].any()
    assert built.blocks[1].recurrent.weight.std().item() == pytest.approx(400**-0.5, rel=0.02)
    assert built.blocks[1].input.weight.std().item() == pytest.approx(16**-0.5, rel=0.02)
    assert built.embedding.tokens.weight.std().item() == pytest.approx(0.3, rel=0.1)
    matrices, vectors = parameter_groups(built.named_parameters(), 1e-3, 0.01)
    assert vectors["weight_decay"] == 0 and len(vectors["params"]) == 4
    assert {id(one) for one in vectors["params"]} == {
        id(parameter) for name, parameter in built.named_parameters() if name.endswith("bias")
    }


def test_a_first_layer_has_no_residual_and_the_others_do() -> None:
    config = ModelConfig(body="lstm", layers=2, units=5, width=4, dropout=0.0, vocab_size=9)
    steps = Steps.of(np.array([0, 3]), 3)
    inputs = torch.randn(3, 4)
    for index in (0, 1):
        layer = LSTMLayer(config, index, torch.float32)
        for parameter in layer.parameters():
            torch.nn.init.zeros_(parameter)
        assert torch.equal(layer(inputs, steps), inputs * index)


def test_a_token_changes_nothing_before_it() -> None:
    built, rows = model(), sequences((60,))
    before = states(built, rows)
    for place in (0, 1, 30, 59):
        changed = [rows[0].copy()]
        changed[0][place] = (changed[0][place] + 1) % VOCABULARY
        after = states(built, changed)
        assert torch.equal(before[:place], after[:place])
        assert (before[place:60] != after[place:60]).any(1).all()


def test_a_ragged_batch_equals_each_sequence_alone() -> None:
    built, rows = model(), sequences()
    together, offsets = states(built, rows), ragged(rows).offsets
    assert together.isfinite().all()
    for row, start, end in zip(rows, offsets, offsets[1:]):
        assert (states(built, [row])[: len(row)] - together[start:end]).abs().max() < 1e-12
    rows[1] = (rows[1] + 7) % VOCABULARY
    after = states(built, rows)
    assert (together[5:45] - after[5:45]).abs().max() > 1e-3
    assert torch.equal(together[:5], after[:5]) and torch.equal(together[45:], after[45:])


@pytest.mark.parametrize("size", [1, 3, 4])
def test_law_1_any_cut_gives_the_same_gradient(size: int) -> None:
    rows, learner = toy.examples(8), toy.learner(body="lstm", units=20)
    whole = gradients(learner, [rows])
    parts = gradients(learner, [rows[start : start + size] for start in range(0, 8, size)])
    assert farthest(whole, parts) < 1e-12


def test_law_3_resume_is_exact(tmp_path: Path) -> None:
    def start(seed: int) -> toy.Trainer:
        made = toy.learner(0.1, torch.float32, body="lstm", units=20, embedding_dropout_on="table")
        return toy.trainer(made.initialise(seed), toy.examples(8), budget=40)

    whole, killed, resumed = start(1), start(1), start(5)
    reports = list(whole.steps(toy.always))
    next(killed.steps(toy.always))
    checkpoint.save(tmp_path, 1, killed.learner, killed.optimizers, killed.state())
    path = checkpoint.latest(tmp_path)
    assert path is not None
    resumed.restore(checkpoint.load(path, resumed.learner, resumed.optimizers))
    rest = list(resumed.steps(toy.always))
    assert [report.losses for report in rest] == [report.losses for report in reports[1:]]
    for name, value in toy.parameters(whole.learner).items():
        assert np.array_equal(value, toy.parameters(resumed.learner)[name]), name


def gradients_of(built: Transformer, batch: Ragged, wanted: Tensor) -> dict[str, Tensor]:
    (built.eval()(batch) * wanted).sum().backward()
    return {name: parameter.grad for name, parameter in built.named_parameters()}  # type: ignore[misc]


def test_the_dead_tail_has_no_gradient() -> None:
    batch = ragged(sequences((30, 10)))
    batch.tokens[:40], batch.tokens[40:] = 3, 5
    found = gradients_of(model(), batch, torch.ones(64, 16, dtype=EXACT))["embedding.tokens.weight"]
    assert found[3].abs().max() > 0 and not found[5].any()


def test_narrow_activations_give_wide_gradients_near_the_exact() -> None:
    rows = sequences()
    batch = ragged(rows)
    wanted = torch.randn(len(batch.tokens), 16, dtype=EXACT, generator=torch.Generator().manual_seed(3))
    exact, exact_gradients = states(model(), rows), gradients_of(model(), batch, wanted)
    for precision, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.05)):
        near = states(model(precision), rows)
        assert near.dtype == precision
        assert (near.double() - exact).norm() < tolerance * exact.norm()
        for name, gradient in gradients_of(model(precision), batch, wanted).items():
            assert gradient.dtype == torch.float32
            difference = (gradient - exact_gradients[name]).norm()
            assert difference < tolerance * exact_gradients[name].norm(), name


def test_dropout_is_a_function_of_the_seed_and_off_in_evaluation() -> None:
    built, batch = model(torch.float32), ragged(sequences())
    results = []
    for _ in range(2):
        torch.manual_seed(7)
        results.append(built.train()(batch))
    assert torch.equal(*results) and not torch.equal(results[0], built(batch))
    before = torch.get_rng_state()
    built.eval()(batch)
    assert torch.equal(before, torch.get_rng_state())


def test_a_tied_model_learns_a_batch_by_heart() -> None:
    built = model(torch.bfloat16, dropout=0.0, initial_deviation=0.02).train()
    batch = ragged(sequences((20, 33)))
    index = torch.tensor([*range(19), *range(20, 52)])
    optimizer, losses = torch.optim.AdamW(built.parameters(), lr=3e-2), []
    for _ in range(120):
        total = linear_cross_entropy(
            built(batch)[index], built.output_weight, batch.tokens[index + 1], torch.ones(len(index))
        )
        optimizer.zero_grad()
        (total / len(index)).backward()
        optimizer.step()
        losses.append(total.item() / len(index))
    assert losses[0] == pytest.approx(math.log(VOCABULARY), rel=0.05) and losses[-1] < 0.5


def test_generation_goes_on_from_what_was_said() -> None:
    built = model(torch.float32).eval()
    said = generate(built, [3, 9, 27], Sampling(tokens=12, temperature=0.0), end=None)
    for count in range(12):
        tokens = np.array([3, 9, 27, *said[:count]])
        logits = built(ragged([tokens]))[len(tokens) - 1] @ built.output_weight.T
        assert int(logits.argmax()) == said[count]
