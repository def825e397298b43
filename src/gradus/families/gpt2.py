"""GPT-2 and GPT-3: presets, and how Hugging Face's GPT2 classes name their parts and numbers, both ways.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3: GPT-1 with the norm
before each branch, one more at the end, and residual branches that start smaller. Brown et al. 2020,
"Language Models are Few-Shot Learners", section 2.1: the same with every second layer banded.
Their projections are `Conv1D`: the weight is stored [in, out] where ours is [out, in].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradus.core.model import ModelConfig
from gradus.families.gpt1 import FIELDS, HEADS, LAYERS
from gradus.families.heads import ROW_TASKS, SPANS, SUMMARY, Shapes, Task, generative_task, own_output
from gradus.families.settings import Settings
from gradus.families.table import Table

ARRANGED = {"norm": "before", "initialisation": "residual"}
# The paper gives no width of the bands ("alternating dense and locally banded sparse attention patterns in
# the layers of the transformer, similar to the Sparse Transformer", section 2.1): 256 is our choice.
BANDED = ARRANGED | {"context": 2048, "window": 256}

PRESETS: dict[str, dict[str, Any]] = {
    # Table 2, with its 50,257 tokens. It says 117M, 345M, 762M and 1542M parameters; the released models have
    # 124M, 355M, 774M and 1558M.
    "gpt2": ARRANGED | {"layers": 12, "width": 768, "heads": 12, "context": 1024},
    "gpt2-medium": ARRANGED | {"layers": 24, "width": 1024, "heads": 16, "context": 1024},
    "gpt2-large": ARRANGED | {"layers": 36, "width": 1280, "heads": 20, "context": 1024},
    "gpt2-xl": ARRANGED | {"layers": 48, "width": 1600, "heads": 25, "context": 1024},
    # For a laptop's CPU and for trying a recipe, as `gpt1-mini` and `gpt1-tiny` are.
    "gpt2-mini": ARRANGED | {"layers": 4, "width": 256, "heads": 4, "context": 256},
    "gpt2-tiny": ARRANGED | {"layers": 2, "width": 128, "heads": 2, "context": 128},
    # Brown et al. 2020, table 2.1, with GPT-2's tokens; its parameters are rounded.
    "gpt3-small": BANDED | {"layers": 12, "width": 768, "heads": 12},
    "gpt3-medium": BANDED | {"layers": 24, "width": 1024, "heads": 16},
    "gpt3-large": BANDED | {"layers": 24, "width": 1536, "heads": 16},
    # The table has 24 heads of 128, which is 3072 and would make 1.5B parameters; 16 make its 1.3B.
    "gpt3-xl": BANDED | {"layers": 24, "width": 2048, "heads": 16},
    "gpt3-2.7b": BANDED | {"layers": 32, "width": 2560, "heads": 32},
    "gpt3-6.7b": BANDED | {"layers": 32, "width": 4096, "heads": 32},
    # As the table has it, although 40 heads of 128 are 5120: the projections are not square.
    "gpt3-13b": BANDED | {"layers": 40, "width": 5140, "heads": 40, "head_width": 128},
    "gpt3-175b": BANDED | {"layers": 96, "width": 12288, "heads": 96},
}

TABLE = Table(
    title="GPT-2",
    prefix="transformer.",
    body={
        "embedding.tokens": "wte",
        "embedding.positions": "wpe",
        **LAYERS,
        "final_norm": "ln_f",
    },
    outside={"unembedding": "lm_head"},
    heads={**HEADS, "spans": SPANS, "tags": {"score": "classifier"}},
    no_weights=(r"h\.\d+\.attn\.(masked_)?bias",),
)

SETTINGS = Settings(
    model_type="gpt2",
    title="GPT-2",
    fields=FIELDS
    | {
        "vocab_size": ("vocab_size", 50257),
        "context": ("n_positions", 1024),
        "feed_forward": ("n_inner", None),
        "activation": ("activation_function", "gelu_new"),
        "attention_scale": ("scale_attn_weights", True),
    },
    fixed=ARRANGED | {"family": "gpt2"},
    words={
        "activation": {
            "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh",
            "gelu": "gelu", "relu": "relu", "silu": "silu", "swish": "silu",
        }
    },
    only={
        "scale_attn_by_inverse_layer_idx": False,
        "reorder_and_upcast_attn": False,
        "add_cross_attention": False,
    },
)  # fmt: skip

CLASSES: dict[Task | None, str] = {
    None: "GPT2LMHeadModel",
    **dict.fromkeys(ROW_TASKS, "GPT2ForSequenceClassification"),
    "choices": "GPT2DoubleHeadsModel",
    "spans": "GPT2ForQuestionAnswering",
    "tags": "GPT2ForTokenClassification",
}


def expressible(config: ModelConfig, heads: Sequence[str] = ()) -> str | None:
    """Why Hugging Face's GPT2 classes cannot hold this model with heads of these names; None where they can:
    not with GPT-3's banded layers, for one."""
    if not config.tie_embeddings and heads:
        return "its GPT-2 has no output embedding of its own beside a head"
    return SETTINGS.difference(config, heads)


def to_config_json(
    config: ModelConfig,
    labels: Sequence[str] | None,
    roles: Mapping[str, int] | None,
    task: Task | None = None,
) -> dict[str, Any]:
    """`config.json` as GPT2Config reads it. Their classifier reads the last token that is no padding."""
    roles = roles or {}
    end = roles.get("end")
    ids = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": roles.get("pad")}
    content = SETTINGS.to_json(config, CLASSES[task], task, labels) | ids
    return content | (SUMMARY if task == "choices" else {})


def from_config_json(content: Mapping[str, Any], shapes: Shapes, file: Path) -> ModelConfig:
    """Our config of GPT2Config's JSON; what it leaves out has the default of that class. Raises UserError for
    what we cannot build."""
    return SETTINGS.read(content, file, **own_output(content, shapes, "lm_head.weight"))


def task_of(content: Mapping[str, Any], shapes: Shapes, file: Path) -> Task | None:
    """What the head among tensors of these names and shapes answers; see `generative_task`."""
    return generative_task(content, shapes, TABLE.prefix, file)
