"""Fine-tuning speed beside Hugging Face's Trainer: rows without padding against rows padded to the longest.

    python benchmarks/finetune.py                     # about half an hour on two cores
    python benchmarks/finetune.py --rounds 3 --export benchmarks/results/finetune.json

4 layers x 256, 4 heads, vocabulary 8192, 32 rows a step of lognormal lengths with mean 37 tokens,
classification of the last token and 0.5 times the language model's loss, dropout 0.1, AdamW, gradients
clipped at 1.0. Every side sees the same rows twice over and is timed in the second epoch, when its kernels
are built. The peer is GPT-2 of that shape (Hugging Face's GPT-1 has the slower attention) with both losses,
under `Trainer` in the fastest of its settings on this machine (bf16 or fp32, SDPA or eager attention, tried
first), each batch padded to its longest row: in random order, as ours, and with all rows sorted by length,
which has the least padding but makes other batches and so other gradients. Ours and the sorted one are also
measured without the auxiliary loss.

Speed is the rows of an epoch over its seconds; sides take turns, each in a process of its own, and the median
over rounds is told. Useful FLOPs are those of real tokens: padding earns nothing.

First it makes sure that the gradient of a step without padding is that of the padded batch, in float64.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from typing import TYPE_CHECKING, Any

import common
from common import HEADS, LAYERS, VOCABULARY, WIDTH

if TYPE_CHECKING:
    import torch

    from gradus.core.example import Example
    from gradus.core.model import ModelConfig
    from gradus.training.learner import Learner

CONTEXT, ROWS, CLASSES, DROPOUT = 512, 32, 2, 0.1
MEDIAN, SPREAD, SHORTEST = 27, 0.8, 4
"""Lengths are lognormal: the median, the deviation of the logarithm and the least. Their mean is 37."""
AUXILIARY = 0.5
"""GPT-1, section 4.1: the weight of the language model's loss."""
PAD = 0
EXACT = 1e-12
"""The most that a gradient may differ from the padded batch's, relative to the largest."""

OURS = {
    "gradus bf16": ["gradus", "bf16", "both"],
    "gradus fp32": ["gradus", "fp32", "both"],
    "gradus bf16, no auxiliary loss": ["gradus", "bf16", "task"],
}
SETTINGS = {f"peer {precision} {attention}": ["peer", precision, attention]
            for precision in ("bf16", "fp32") for attention in ("sdpa", "eager")}  # fmt: skip


def examples(count: int) -> list[Example]:
    """Made-up rows: no token is the padding, so that the peer may look for it."""
    import numpy as np

    from gradus.core.example import Example

    random = np.random.default_rng(0)
    drawn = np.exp(random.normal(np.log(MEDIAN), SPREAD, count)).round()
    lengths = drawn.clip(SHORTEST, CONTEXT).astype(int)
    rows = [random.integers(1, VOCABULARY, length) for length in lengths]
    return [Example(number, (row,), label=number % CLASSES) for number, row in enumerate(rows)]


def shape(dropout: float = DROPOUT) -> ModelConfig:
    from gradus.core.model import ModelConfig

    return ModelConfig(
        layers=LAYERS, width=WIDTH, heads=HEADS, context=CONTEXT, vocab_size=VOCABULARY, dropout=dropout
    )


def learner(model: ModelConfig, precision: torch.dtype, auxiliary: bool) -> Learner:
    """A new model with the objectives of the bench."""
    from gradus.nn.transformer import Transformer
    from gradus.objectives import CausalLMConfig, ClassificationConfig, Task
    from gradus.training.learner import Learner

    task = Task(model, "finetune", tuple(str(number) for number in range(CLASSES)))
    objectives = [ClassificationConfig(dropout=model.dropout).build(task)]
    if auxiliary:
        objectives.append(CausalLMConfig(weight=AUXILIARY).build(task))
    return Learner(Transformer(model, precision), objectives).initialise(1)


def gradus(precision: str, losses: str, steps: int) -> list[float]:
    """Seconds of the second epoch of our own Trainer."""
    import torch

    from gradus.core.allocator import keep_memory
    from gradus.data.feed import Feed
    from gradus.data.sources import Rows
    from gradus.distributed.world import World
    from gradus.optim.optimizers import AdamW
    from gradus.optim.schedules import Linear
    from gradus.training.budget import budget_tokens
    from gradus.training.trainer import Trainer

    keep_memory()
    model, world = shape(), World()
    taught = learner(model, {"bf16": torch.bfloat16, "fp32": torch.float32}[precision], losses == "both")
    rows = examples(ROWS * steps)
    feed = Feed(Rows(rows, [""] * len(rows)), ROWS, 1, 2 * len(rows))
    optimizer = AdamW(lr=6.25e-5).build(taught.named_parameters())
    budget = budget_tokens(model, precision, world.device)
    trainer = Trainer(taught, feed, optimizer, Linear(), world, warmup=2, budget=budget)
    marks = [time.perf_counter() for _ in trainer.steps(lambda clock: frozenset({"tick"}))]
    return [marks[-1] - marks[steps - 1]]


def peer(precision: str, attention: str, order: str, losses: str, steps: int, keeps: bool) -> list[float]:
    """Seconds of the second epoch of Hugging Face's Trainer; `keeps` gives it our allocator settings.

    "sorted" puts the whole data set in order of length: no batches have less padding. Its `group_by_length`
    comes near that with 200 batches or more (90 % real tokens); with 32 it has 63 %, where all rows in order
    have 84 %.
    """
    from transformers import Trainer, TrainingArguments

    if keeps:
        from gradus.core.allocator import keep_memory

        keep_memory()
    marks, watch = common.step_marks()

    drawn = examples(ROWS * steps)
    if order == "sorted":
        drawn.sort(key=lambda row: -row.tokens)
    rows = [{"input_ids": row.sequences[0], "classes": row.label} for row in drawn]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, per_device_train_batch_size=ROWS, num_train_epochs=2, bf16=precision == "bf16",
            use_cpu=True, max_grad_norm=1.0, learning_rate=6.25e-5, weight_decay=0.01, save_strategy="no",
            logging_steps=500, report_to=[], disable_tqdm=True, 
            train_sampling_strategy="sequential" if order == "sorted" else "random",
        )  # fmt: skip
        model = peer_model(attention, losses == "both")
        Trainer(model, arguments, train_dataset=rows, data_collator=padded, callbacks=[watch]).train()
    return [marks[-1] - marks[steps - 1]]


def peer_model(attention: str, auxiliary: bool) -> Any:
    """GPT-2 with a linear layer on the last token, and its language model's loss beside it."""
    import torch
    import torch.nn.functional as F
    from transformers import GPT2Config, GPT2LMHeadModel

    class Both(GPT2LMHeadModel):
        def __init__(self, config: GPT2Config):
            super().__init__(config)
            self.score = torch.nn.Linear(config.n_embd, CLASSES, bias=False)
            self.struck = torch.nn.Dropout(DROPOUT)
            self.post_init()

        def forward(self, input_ids, attention_mask, labels, classes):  # type: ignore[no-untyped-def]
            states = self.transformer(input_ids, attention_mask=attention_mask, use_cache=False)[0]
            last = attention_mask.sum(1) - 1
            chosen = states[torch.arange(len(states)), last]
            loss = F.cross_entropy(self.score(self.struck(chosen)).float(), classes)
            if auxiliary:
                logits = self.lm_head(states[:, :-1]).flatten(0, 1).float()
                loss = loss + AUXILIARY * F.cross_entropy(logits, labels[:, 1:].flatten())
            return {"loss": loss}

    config = GPT2Config(
        n_layer=LAYERS, n_embd=WIDTH, n_head=HEADS, n_positions=CONTEXT, vocab_size=VOCABULARY,
        bos_token_id=PAD, eos_token_id=PAD,
    )  # fmt: skip
    return Both._from_config(config, attn_implementation=attention)


def padded(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Rows of a batch, padded to the longest."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    ids = pad_sequence([torch.from_numpy(row["input_ids"]) for row in rows], True, PAD)
    real = ids != PAD
    classes = torch.tensor([row["classes"] for row in rows])
    return {"input_ids": ids, "attention_mask": real.long(), "labels": ids.masked_fill(~real, -100),
            "classes": classes}  # fmt: skip


def gradient_gap(model: ModelConfig, rows: list[Example]) -> float:
    """How far a step's gradient is from that of the same rows padded to the longest, in float64, relative to
    the largest of the padded one's.

    Padding stands after a row and is no target, and with rows of one length attention moves nothing: the
    padded batch is plain masked attention.
    """
    import numpy as np
    import torch

    from gradus.core.example import Batch, Example, collate

    taught = learner(model, torch.float64, True).train()
    longest = max(row.tokens for row in rows)
    filled = [
        Example(row.row, (np.pad(row.sequences[0], (0, longest - row.tokens)),), label=row.label)
        for row in rows
    ]
    targets = [[objective.targets(row) for row in rows] for objective in taught.objectives]

    def gradient(batch: Batch) -> list[torch.Tensor]:
        counts = torch.stack([target.weight.sum() for target in batch.targets])
        taught.zero_grad()
        (taught.weights / counts * taught(batch)).sum().backward()
        return [parameter.grad for parameter in taught.parameters() if parameter.grad is not None]

    flat, wide = gradient(taught.prepare(rows)), gradient(collate(filled, targets))
    top = max(float(part.abs().max()) for part in wide)
    return max(float((one - other).abs().max()) for one, other in zip(flat, wide, strict=True)) / top


def run_side(arguments: list[str], steps: int) -> list[float]:
    what, precision, *rest = arguments
    if what == "gradient":
        return [gradient_gap(shape(dropout=0.0), examples(ROWS))]
    if what == "rate":
        return common.matrix_rate(precision)
    if what == "gradus":
        return gradus(precision, rest[0], steps)
    attention, order, losses = rest[:3]
    return peer(precision, attention, order, losses, steps, "keep" in rest)


def compare(rounds: int, steps: int) -> dict[str, Any]:
    """The gradient, then all sides in turn, `rounds` times."""
    gap = common.side(__file__, ["gradient", "fp64"], 1)[0]
    if not gap < EXACT:
        raise SystemExit(f"the gradient differs from the padded batch's by {gap:.1e}: no speed is worth that")

    def rows_per_second(arguments: list[str], count: int) -> float:
        return ROWS * count / common.side(__file__, arguments, count)[0]

    tried = {}
    for name, setting in SETTINGS.items():
        tried[name] = rows_per_second([*setting, "sorted", "both"], max(4, steps // 4))
        print(f"tried    {name:48} {tried[name]:6.1f} rows/s", flush=True)
    best = max(tried, key=lambda name: tried[name])
    setting = SETTINGS[best]
    peers = {f"{best}, sorted": [*setting, "sorted", "both"],
             f"{best}, sorted, our allocator": [*setting, "sorted", "both", "keep"],
             f"{best}, unsorted": [*setting, "unsorted", "both"],
             f"{best}, sorted, no auxiliary loss": [*setting, "sorted", "task"]}  # fmt: skip
    sides = {**OURS, **peers}
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    rates: dict[str, list[float]] = {"bf16": [], "fp32": []}
    for number in range(rounds):
        for precision, measured in rates.items():
            measured.append(2 * 2048**3 / statistics.median(common.side(__file__, ["rate", precision], 1)))
        for name, arguments in sides.items():
            speeds[name].append(rows_per_second(arguments, steps))
            print(f"round {number + 1}  {name:48} {speeds[name][-1]:6.1f} rows/s", flush=True)
    return {"machine": common.machine(), "rows": ROWS * steps, "gradient_gap": gap,
            "peer_settings_tried": tried, "peer": best, "matrix_rate": rates,
            "rows_per_second": speeds}  # fmt: skip


def row_cost(count: int, auxiliary: bool) -> tuple[float, float]:
    """(tokens, useful FLOPs) of the mean of `count` rows in training."""
    lengths = [row.tokens for row in examples(count)]
    tokens = sum(lengths)
    scored = (tokens - count) / tokens if auxiliary else 0.0
    seen = sum(length**2 for length in lengths) / tokens
    return tokens / count, tokens / count * shape().flops_per_token(seen, scored)


def table(found: dict[str, Any]) -> list[str]:
    """The result as lines: rows and tokens a second, the ratio to the sorted peer with the same losses, the
    share of the matrix rate that real tokens use."""
    rates = {key: statistics.median(values) for key, values in found["matrix_rate"].items()}
    medians = {name: statistics.median(values) for name, values in found["rows_per_second"].items()}
    tokens, flops = row_cost(found["rows"], True)
    lines = [common.heading(found, rates),
             f"{found['rows']} rows, mean {tokens:.1f} tokens, {flops / 1e9:.2f} GFLOP each; the gradient is "
             f"the padded batch's to {found['gradient_gap']:.0e}"]  # fmt: skip
    for name, middle in medians.items():
        alone = ", no auxiliary loss" if "no auxiliary" in name else ""
        base = medians[f"{found['peer']}, sorted{alone}"]
        used = middle * row_cost(found["rows"], not alone)[1] / rates["bf16" if "bf16" in name else "fp32"]
        values = found["rows_per_second"][name]
        spread = f"{min(values):.0f} to {max(values):.0f}"
        lines.append(f"{name:48} {middle:6.1f} rows/s ({spread})  {middle * tokens:6.0f} tokens/s  "
                     f"{middle / base:4.2f} x sorted peer  {used:4.0%} of the matrix rate")  # fmt: skip
    return lines


if __name__ == "__main__":
    common.main(__doc__, run_side, compare, table, steps=64)
