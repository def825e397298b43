"""Pre-training speed of an encoder beside Hugging Face's Trainer: BERT-mini, masked tokens, in turn.

    python benchmarks/masked_lm.py                    # about five minutes on two cores
    python benchmarks/masked_lm.py --rounds 5 --export benchmarks/results/masked_lm.json

4 layers x 256, 4 heads, vocabulary 21,128 (BERT's Chinese one), 32 windows of 128 tokens a step, 15 % of them
chosen, dropout 0.1, AdamW, gradients clipped at 1.0. Every side runs in a process of its own, sides take
turns, and what is told is the median over rounds of 4096 tokens over the median step. The peer is
BertForMaskedLM under `Trainer` with `DataCollatorForLanguageModeling`, in the fastest of its settings on this
machine: bf16 or fp32, SDPA or eager attention, tried first; it scores the vocabulary at every position.
Where UER_PY names a checkout of github.com/dbiir/UER-py, its own trainer takes its turns as well, in fp32,
the only precision it has.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from typing import Any

import common
from common import HEADS, LAYERS, WIDTH

CONTEXT, WINDOWS, VOCABULARY = 128, 32, 21_128
TOKENS = WINDOWS * CONTEXT
WARM_UP = 4
"""Steps that are not timed: kernels are built and memory is found."""

OURS = {"gradus bf16": ["gradus", "bf16"], "gradus fp32": ["gradus", "fp32"]}
PEERS = {f"peer {precision} {attention}": ["peer", precision, attention]
         for precision in ("bf16", "fp32") for attention in ("sdpa", "eager")}  # fmt: skip


def gradus(precision: str, steps: int) -> list[float]:
    """Seconds of each timed step of our own Trainer."""
    import numpy as np
    import torch

    from gradus.core.allocator import keep_memory
    from gradus.core.example import Example
    from gradus.core.model import ModelConfig
    from gradus.core.sentences import SentenceEnds
    from gradus.core.words import WordEdges
    from gradus.data.feed import Feed
    from gradus.data.sources import Rows
    from gradus.distributed.world import World
    from gradus.families import preset
    from gradus.nn.transformer import Transformer
    from gradus.objectives import MaskedLMConfig, Task
    from gradus.optim.optimizers import AdamW
    from gradus.optim.schedules import Cosine
    from gradus.training.learner import Learner
    from gradus.training.trainer import Trainer

    class Vocabulary:
        """Made-up tokens, of which the first four play a role."""

        size, roles, sentence_ends = (
            VOCABULARY,
            {"start": "0", "end": "1", "mask": "2", "pad": "3"},
            SentenceEnds(),
        )
        word_edges = WordEdges(np.ones(VOCABULARY, dtype=bool), np.ones(VOCABULARY, dtype=bool))

        def role(self, name: str) -> int:
            return int(self.roles[name])

    keep_memory()
    model = ModelConfig.model_validate(preset("bert-mini") | {"vocab_size": VOCABULARY, "context": CONTEXT})
    transformer = Transformer(model, {"bf16": torch.bfloat16, "fp32": torch.float32}[precision])
    objective = MaskedLMConfig().build(Task(model, "pretrain", vocabulary=Vocabulary()))
    learner = Learner(transformer, [objective]).initialise(1)
    random = np.random.default_rng(0)
    count = WINDOWS * (steps + WARM_UP)
    windows = [Example(row, (random.integers(4, VOCABULARY, CONTEXT),)) for row in range(count)]
    feed = Feed(Rows(windows, [""] * count), WINDOWS, 1, count)
    optimizer = AdamW().build(learner.named_parameters())
    trainer = Trainer(learner, feed, optimizer, Cosine(), World(), warmup=2, budget=4 * TOKENS)
    marks = [time.perf_counter() for _ in trainer.steps(lambda clock: frozenset({"tick"}))]
    return [after - before for before, after in zip(marks[WARM_UP - 1 :], marks[WARM_UP:])]


def peer(precision: str, attention: str, steps: int) -> list[float]:
    """Seconds of each timed step of Hugging Face's Trainer."""
    import torch
    from transformers import BertConfig, BertForMaskedLM, Trainer

    marks, watch = common.step_marks()
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH, max_position_embeddings=CONTEXT,
    )  # fmt: skip
    model = BertForMaskedLM._from_config(config, attn_implementation=attention)

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        shown, said = masked(torch.stack([row["input_ids"] for row in rows]), -100)
        return {"input_ids": shown, "labels": said}

    rows = [
        {"input_ids": window}
        for window in torch.randint(4, VOCABULARY, (WINDOWS * (steps + WARM_UP), CONTEXT))
    ]
    with tempfile.TemporaryDirectory() as folder:
        arguments = common.peer_arguments(folder, WINDOWS, steps + WARM_UP, precision)
        Trainer(model, arguments, train_dataset=rows, data_collator=collate, callbacks=[watch]).train()
    return [after - before for before, after in zip(marks[WARM_UP - 1 :], marks[WARM_UP:])]


def uer(steps: int) -> list[float]:
    """Seconds of each timed step of UER-py's trainer (Zhao et al. 2019, UER), its mini BERT with the masked
    target alone, data in memory."""
    import torch

    os.chdir(os.environ["UER_PY"])  # it opens files by where it stands
    sys.path.insert(0, ".")
    from uer.opts import model_opts, optimization_opts
    from uer.trainer import MlmTrainer, init_model, init_optimizer
    from uer.utils.config import load_hyperparam

    parser = argparse.ArgumentParser()
    model_opts(parser)
    optimization_opts(parser)
    total = steps + WARM_UP
    parser.set_defaults(
        config_path="models/bert/mini_config.json", total_steps=total, accumulation_steps=1, logger=None,
        report_steps=total + 2, save_checkpoint_steps=total + 2, output_model_path="", dist_train=False,
        batch_size=WINDOWS, world_size=1, pretrained_model_path=None, deep_init=False,
        tokenizer=argparse.Namespace(vocab=range(VOCABULARY)),
    )  # fmt: skip
    sys.argv = sys.argv[:1]
    options = load_hyperparam(parser.parse_args([]))
    options.target, options.data_processor = ["mlm"], "mlm"
    marks: list[float] = []

    class Watched(MlmTrainer):
        def forward_propagation(self, batch: Any, model: Any) -> Any:
            marks.append(time.perf_counter())
            return super().forward_propagation(batch, model)

    rows = torch.randint(4, VOCABULARY, (total + 1, WINDOWS, CONTEXT))
    model = init_model(options)
    loader = ((*masked(tokens, 0), torch.ones_like(tokens)) for tokens in rows)
    trainer = Watched(options)
    trainer.total_steps = total + 1  # the last one only marks the end of the one before
    trainer.train(options, None, None, loader, model, *init_optimizer(options, model))
    return [after - before for before, after in zip(marks[WARM_UP:], marks[WARM_UP + 1 :])]


def masked(tokens: Any, silent: int) -> tuple[Any, Any]:
    """15 % of tokens [B, T] chosen, of them 80 % hidden and 10 % replaced: what is shown, and what stood
    there, `silent` where nothing is asked."""
    import torch

    draw = torch.rand(tokens.shape)
    shown = tokens.masked_fill(draw < 0.12, 2)
    other = (draw >= 0.12) & (draw < 0.135)
    shown = torch.where(other, torch.randint(4, VOCABULARY, tokens.shape), shown)
    return shown, tokens.masked_fill(draw >= 0.15, silent)


def run_side(arguments: list[str], steps: int) -> list[float]:
    what, precision, *rest = arguments
    if what == "gradus":
        return gradus(precision, steps)
    if what == "uer":
        return uer(steps)
    return common.matrix_rate(precision) if what == "rate" else peer(precision, rest[0], steps)


def compare(rounds: int, steps: int) -> dict[str, Any]:
    """All sides in turn, `rounds` times."""
    tried = common.tried(__file__, PEERS, TOKENS, steps)
    best = max(tried, key=lambda name: tried[name])
    exact = max((name for name in tried if "fp32" in name), key=lambda name: tried[name])
    other = {"UER-py fp32": ["uer", "fp32"]} if "UER_PY" in os.environ else {}
    sides = {**OURS, best: PEERS[best], exact: PEERS[exact], **other}
    found = common.turns(__file__, sides, TOKENS, rounds, steps)
    return {**found, "peer_settings_tried": tried, "peer": best}


def table(found: dict[str, Any]) -> list[str]:
    """The result as lines: tokens a second and the ratio to the peer."""
    rates = {key: statistics.median(values) for key, values in found["matrix_rate"].items()}
    base = statistics.median(found["tokens_per_second"][found["peer"]])
    lines = [common.heading(found, rates)]
    for name, values in found["tokens_per_second"].items():
        middle = statistics.median(values)
        spread = f"{min(values):.0f} to {max(values):.0f}"
        lines.append(f"{name:36} {middle:7.0f} tokens/s  ({spread})  {middle / base:4.2f} x peer")
    return lines


if __name__ == "__main__":
    common.main(__doc__, run_side, compare, table, steps=12)
