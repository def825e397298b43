"""How many tokens a micro-batch takes, from counted quantities alone: resumed, a run cuts where it
did at first."""

from __future__ import annotations

import os

import torch

from gradus.core.model import ModelConfig
from gradus.distributed.precision import DTYPES

MOST_TOKENS = {"cpu": 8192, "cuda": 65_536, "mps": 8192}
"""Tokens of a micro-batch at most: beyond this a matrix product is no faster."""
MEMORY_SHARE = 8
"""The activations of a micro-batch may take this part of the device's memory."""


def activation_bytes(model: ModelConfig, precision: str) -> int:
    """Bytes that one token of a micro-batch keeps from forward to backward.

    Per layer of the transformer: inputs of the four products and both norms, the residual sums and the
    dropout masks, and a row of attention weights a head; attention's are counted for a full context. Per
    layer of an LSTM: its input and output, and in fp32 gates and cells and their slopes.
    """
    size = DTYPES[precision].itemsize
    if model.body == "lstm":
        per_layer = size * (4 * model.width + 12 * model.cells) + 4 * 12 * model.cells
    else:
        per_layer = size * (12 * model.width + 3 * model.hidden + 2 * model.heads * model.context)
    return model.layers * per_layer + size * 4 * model.width


def budget_tokens(model: ModelConfig, precision: str, device: torch.device) -> int:
    """The token budget of a micro-batch: what fits, at least one full context."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
    else:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    fits = total // MEMORY_SHARE // activation_bytes(model, precision)
    tokens = min(fits, MOST_TOKENS[device.type])
    return max(model.context, tokens // model.context * model.context)
